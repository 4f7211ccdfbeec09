# SPDX-License-Identifier: Apache-2.0
# One box of Holdfast on Compute Engine with a data disk of its own. See ../../marketplace.md.

terraform {
  required_version = ">= 1.5"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 5.0"
    }
  }
}

variable "name" {
  description = "What the machine and its disks are called."
  type        = string
  default     = "holdfast"
}

variable "image" {
  description = "The image of the release: projects/PROJECT/global/images/NAME."
  type        = string
}

variable "zone" {
  description = "The zone of the box and of its data disk."
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
  description = "The box's name; empty for the name that Google gives it."
  type        = string
  default     = ""
}

variable "network" {
  description = "The VPC network."
  type        = string
  default     = "default"
}

variable "subnetwork" {
  description = "The subnetwork; empty for the network's own of the region."
  type        = string
  default     = ""
}

variable "public_address" {
  description = "Whether the box gets an address on the internet."
  type        = bool
  default     = false
}

variable "web_cidrs" {
  description = "Who may use the service (ports 80 and 443)."
  type        = list(string)
  default     = ["0.0.0.0/0"]
}

variable "ssh_cidrs" {
  description = "Who may reach the box by ssh. Not the whole internet."
  type        = list(string)
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

variable "data_disk" {
  description = "The data disk of an earlier box, in the same zone (self link); empty makes a new one."
  type        = string
  default     = ""
}

variable "adopt_data" {
  description = "Take a data disk that another box has used last: when the machine is replaced."
  type        = bool
  default     = false
}

locals {
  # The sizes of docs/marketplace.md.
  sizes = {
    XS = { type = "e2-medium", system_gib = 20, data_gib = 20 }
    S  = { type = "n2-standard-4", system_gib = 50, data_gib = 100 }
    M  = { type = "n2-standard-8", system_gib = 50, data_gib = 250 }
    L  = { type = "n2-standard-16", system_gib = 100, data_gib = 500 }
    XL = { type = "n2-standard-32", system_gib = 100, data_gib = 1000 }
  }
  data_disk = var.data_disk != "" ? var.data_disk : google_compute_disk.data[0].self_link

  # The data disk is named, so that the box starts on nothing else.
  user_data = <<-EOT
    hostname: ${jsonencode(var.hostname)}
    size: ${var.size}
    admin:
      ssh_keys: ${jsonencode(var.ssh_keys)}
    data:
      disk: /dev/disk/by-id/scsi-0Google_PersistentDisk_data
      adopt: ${var.adopt_data}
  EOT
}

resource "google_compute_disk" "data" {
  count = var.data_disk == "" ? 1 : 0
  name  = "${var.name}-data"
  zone  = var.zone
  type  = "pd-balanced"
  size  = local.sizes[var.size].data_gib

  lifecycle {
    # It outlives the machine: terraform destroy stops here until the disk is
    # taken out of the state (terraform state rm).
    prevent_destroy = true
  }
}

resource "google_compute_instance" "box" {
  name         = var.name
  zone         = var.zone
  machine_type = local.sizes[var.size].type
  tags         = [var.name]
  metadata     = { user-data = local.user_data }

  boot_disk {
    initialize_params {
      image = var.image
      size  = local.sizes[var.size].system_gib
      type  = "pd-balanced"
    }
  }

  # Compute Engine encrypts all disks by itself.
  attached_disk {
    source      = local.data_disk
    device_name = "data"
  }

  network_interface {
    network    = var.network
    subnetwork = var.subnetwork != "" ? var.subnetwork : null
    nic_type   = "GVNIC"

    dynamic "access_config" {
      for_each = var.public_address ? [1] : []
      content {}
    }
  }

  # Secure Boot needs an image with the keys of its bake.
  shielded_instance_config {
    enable_secure_boot          = true
    enable_vtpm                 = true
    enable_integrity_monitoring = true
  }
}

resource "google_compute_firewall" "web" {
  name          = "${var.name}-web"
  network       = var.network
  source_ranges = var.web_cidrs
  target_tags   = [var.name]

  allow {
    protocol = "tcp"
    ports    = ["80", "443"]
  }
}

resource "google_compute_firewall" "ssh" {
  count         = length(var.ssh_cidrs) > 0 ? 1 : 0
  name          = "${var.name}-ssh"
  network       = var.network
  source_ranges = var.ssh_cidrs
  target_tags   = [var.name]

  allow {
    protocol = "tcp"
    ports    = ["22"]
  }
}

output "address" {
  description = "Where the service answers from inside the network."
  value       = google_compute_instance.box.network_interface[0].network_ip
}

output "data_disk" {
  description = "Give this to the next box as data_disk."
  value       = local.data_disk
}
