# SPDX-License-Identifier: Apache-2.0
# One box of Holdfast on EC2 with a data volume of its own. See ../../marketplace.md.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

variable "name" {
  description = "What the machine and its volumes are called."
  type        = string
  default     = "holdfast"
}

variable "ami_id" {
  description = "The AMI of the release."
  type        = string
}

variable "size" {
  description = "How large the machine and its disks are."
  type        = string
  default     = "S"
  validation {
    condition     = contains(["XS", "S", "M", "L", "XL"], var.size)
    error_message = "Use XS, S, M, L or XL."
  }
}

variable "hostname" {
  description = "The box's name; empty for the name that EC2 gives it."
  type        = string
  default     = ""
}

variable "subnet_id" {
  description = "The subnet of the box. The data volume stays in its zone."
  type        = string
}

variable "web_cidrs" {
  description = "Who may use the service (ports 80 and 443)."
  type        = set(string)
  default     = ["0.0.0.0/0"]
}

variable "ssh_cidrs" {
  description = "Who may reach the box by ssh. Not the whole internet."
  type        = set(string)
  default     = []
  validation {
    condition     = alltrue([for c in var.ssh_cidrs : !endswith(c, "/0")])
    error_message = "Name the networks of the admins, not the whole internet."
  }
}

variable "ssh_keys" {
  description = "Public keys of admins, lines of .pub files. Without any, ssh is off."
  type        = list(string)
  default     = []
}

variable "data_volume_id" {
  description = "The data volume of an earlier box, in the same zone; empty makes a new one."
  type        = string
  default     = ""
}

variable "adopt_data" {
  description = "Take a data volume that another box has used last: when the machine is replaced."
  type        = bool
  default     = false
}

locals {
  # The sizes of docs/marketplace.md.
  sizes = {
    XS = { type = "t3.medium", system_gib = 20, data_gib = 20 }
    S  = { type = "m6a.xlarge", system_gib = 50, data_gib = 100 }
    M  = { type = "m6a.2xlarge", system_gib = 50, data_gib = 250 }
    L  = { type = "m6a.4xlarge", system_gib = 100, data_gib = 500 }
    XL = { type = "m6a.8xlarge", system_gib = 100, data_gib = 1000 }
  }
  data_volume = var.data_volume_id != "" ? var.data_volume_id : aws_ebs_volume.data[0].id

  # The data volume is named, so that the box waits for it and starts on nothing
  # else. EC2 shows a volume's id without its hyphen.
  user_data = <<-EOT
    hostname: ${jsonencode(var.hostname)}
    size: ${var.size}
    admin:
      ssh_keys: ${jsonencode(var.ssh_keys)}
    data:
      disk: /dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_${replace(local.data_volume, "-", "")}
      adopt: ${var.adopt_data}
  EOT
}

data "aws_subnet" "box" {
  id = var.subnet_id
}

resource "aws_ebs_volume" "data" {
  count             = var.data_volume_id == "" ? 1 : 0
  availability_zone = data.aws_subnet.box.availability_zone
  size              = local.sizes[var.size].data_gib
  type              = "gp3"
  encrypted         = true
  tags              = { Name = "${var.name} data" }

  lifecycle {
    # It outlives the machine: terraform destroy stops here until the volume is
    # taken out of the state (terraform state rm).
    prevent_destroy = true
  }
}

resource "aws_security_group" "box" {
  name_prefix = "${var.name}-"
  description = "The web service of a Holdfast box"
  vpc_id      = data.aws_subnet.box.vpc_id
}

resource "aws_vpc_security_group_egress_rule" "all" {
  security_group_id = aws_security_group.box.id
  description       = "updates, time, mail of the services"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}

resource "aws_vpc_security_group_ingress_rule" "http" {
  for_each          = var.web_cidrs
  security_group_id = aws_security_group.box.id
  description       = "http"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 80
  to_port           = 80
}

resource "aws_vpc_security_group_ingress_rule" "https" {
  for_each          = var.web_cidrs
  security_group_id = aws_security_group.box.id
  description       = "https"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_ingress_rule" "ssh" {
  for_each          = var.ssh_cidrs
  security_group_id = aws_security_group.box.id
  description       = "ssh for admins"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 22
  to_port           = 22
}

resource "aws_instance" "box" {
  ami                                  = var.ami_id
  instance_type                        = local.sizes[var.size].type
  subnet_id                            = var.subnet_id
  vpc_security_group_ids               = [aws_security_group.box.id]
  user_data                            = local.user_data
  instance_initiated_shutdown_behavior = "stop"
  tags                                 = { Name = var.name }

  # IMDSv2 only, and not from within containers.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  root_block_device {
    volume_type           = "gp3"
    volume_size           = local.sizes[var.size].system_gib
    encrypted             = true
    delete_on_termination = true
    tags                  = { Name = "${var.name} system" }
  }
}

resource "aws_volume_attachment" "data" {
  device_name                    = "/dev/sdf"
  instance_id                    = aws_instance.box.id
  volume_id                      = local.data_volume
  stop_instance_before_detaching = true
}

output "instance_id" {
  value = aws_instance.box.id
}

output "address" {
  description = "Where the service answers from inside the VPC."
  value       = aws_instance.box.private_ip
}

output "data_volume_id" {
  description = "Give this to the next box as data_volume_id."
  value       = local.data_volume
}
