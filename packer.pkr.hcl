# SPDX-License-Identifier: Apache-2.0
#
# The demo, and an example to copy: bakes a Compose stack into dist/NAME-VERSION.
# `make image` runs it; by hand, after `make image` has set this checkout up:
#
#   export PATH=$PWD/build/bin:$PATH PACKER_PLUGIN_PATH=$PWD/build/packer-plugins
#   packer init .  &&  packer validate .  &&  packer build .

packer {
  required_version = ">= 1.11.0"
  required_plugins {
    holdfast = {
      source  = "github.com/holdfast/holdfast"
      version = ">= 0.1.0"
    }
  }
}

variable "name" {
  type        = string
  default     = "demo"
  description = "Name of the release: 1 to 40 of a-z, 0-9 and -."
}

variable "version" {
  type        = string
  default     = "1.0.0"
  description = "Version of the release, a semantic version."
}

variable "stack" {
  type        = string
  default     = ""
  description = "The Compose file; by default the demo's of this version."
}

variable "lock" {
  type        = string
  default     = ""
  description = "What `holdfast-release lock` wrote; by default build/NAME-VERSION.lock."
}

variable "layouts" {
  type        = list(string)
  default     = null
  description = "OCI layouts with the stack's images, searched before any registry; by default the demo's."
}

variable "archive" {
  type        = string
  default     = ""
  description = "Folder made by `holdfast-release lock --archive`, searched before the Debian mirror."
}

variable "mirror" {
  type        = string
  default     = ""
  description = "Debian mirror to use in place of Debian's own."
}

variable "slot_size" {
  type        = string
  default     = "768MiB"
  description = "Size of each of the two root partitions."
}

variable "disk_size" {
  type        = string
  default     = ""
  description = "Least length of disk.raw; by default as long as its partitions plus 1 GiB."
}

variable "extra_packages" {
  type        = list(string)
  default     = []
  description = "Debian packages beyond those the box needs; lock them with --package."
}

variable "signing_key" {
  type        = string
  default     = ""
  description = "RSA private key (PEM). Without key and certificate a demo pair is made: never ship that."
}

variable "signing_cert" {
  type        = string
  default     = ""
  description = "Certificate (PEM) of signing_key."
}

variable "output" {
  type        = string
  default     = ""
  description = "Folder to make; by default dist/NAME-VERSION."
}

variable "cache" {
  type        = string
  default     = ""
  description = "Folder for slow work; by default $HOLDFAST_CACHE, else ~/.cache/holdfast."
}

variable "factory" {
  type        = string
  default     = "embedded"
  description = "embedded: the disk holds the stack's images; seed: boxes fetch them at first boot."
}

variable "epoch" {
  type        = number
  default     = 0
  description = "Security epoch: raise it where going back to an earlier release would bring a known hole back."
}

variable "min_from" {
  type        = string
  default     = ""
  description = "Oldest version that boxes may upgrade from; by default any."
}

variable "update_source" {
  type        = string
  default     = ""
  description = "Where boxes look for later releases: https://..., oci://host/repository; by default nowhere."
}

variable "update_channel" {
  type        = string
  default     = ""
  description = "Channel that boxes follow; by default stable."
}

variable "gate_deadline" {
  type        = string
  default     = "15m"
  description = "How long an upgrade to this release may take to be healthy before it is rolled back."
}

variable "gate_window" {
  type        = string
  default     = "10s"
  description = "How long it must then stay healthy before it is committed."
}

variable "trust_root" {
  type        = string
  default     = ""
  description = "The root.json of `holdfast-release keys init`, sealed in the root: boxes upgrade to what its keys vouch for."
}

variable "size" {
  type        = string
  default     = "XS"
  description = "Size profile of the machines: XS, S, M, L or XL; decides disk, and for the OVA processors and memory."
}

variable "gce_project" {
  type        = string
  default     = ""
  description = "Google Cloud project that gets the image; with gce_bucket. By default only the file is made."
}

variable "gce_bucket" {
  type        = string
  default     = ""
  description = "Cloud Storage bucket that the archive goes to while the image is made."
}

variable "gce_family" {
  type        = string
  default     = ""
  description = "Image family on Google Cloud; by default the release's name."
}

variable "aws_region" {
  type        = string
  default     = ""
  description = "AWS region that gets the AMI. By default none is made."
}

variable "aws_copy_regions" {
  type        = list(string)
  default     = []
  description = "More AWS regions that get a copy of the AMI."
}

locals {
  release = "${var.name}-${var.version}"
}

source "holdfast" "image" {
  name           = var.name
  version        = var.version
  stack          = var.stack != "" ? var.stack : "${path.root}/compose/stacks/demo/${var.version}/compose.yaml"
  lock           = var.lock != "" ? var.lock : "${path.root}/build/${local.release}.lock"
  layouts        = var.layouts != null ? var.layouts : ["${path.root}/build/${local.release}.images"]
  archive        = var.archive
  mirror         = var.mirror
  slot_size      = var.slot_size
  disk_size      = var.disk_size
  extra_packages = var.extra_packages
  signing_key    = var.signing_key
  signing_cert   = var.signing_cert
  factory        = var.factory
  epoch          = var.epoch
  min_from       = var.min_from
  update_source  = var.update_source
  update_channel = var.update_channel
  gate_deadline  = var.gate_deadline
  gate_window    = var.gate_window
  trust_root     = var.trust_root
  output         = var.output != "" ? var.output : "${path.root}/dist/${local.release}"
  cache          = var.cache
}

# One disk, three products. Without the variables above no credential is
# looked for: OVA and GCE archive are files beside disk.raw.
build {
  sources = ["source.holdfast.image"]

  post-processor "holdfast-ova" {
    size = var.size
  }

  post-processor "holdfast-gce" {
    size         = var.size
    project_id   = var.gce_project
    bucket       = var.gce_bucket
    image_family = var.gce_family != "" ? var.gce_family : var.name
    secure_boot  = true
  }

  post-processor "holdfast-ami" {
    skip_upload = var.aws_region == ""
    region      = var.aws_region
    ami_regions = var.aws_copy_regions
    size        = var.size
    secure_boot = true
  }
}
