variable "lab_name" {
  description = "Name of the lab: prefix of its machines, bridge, storage pool and DNS domain. By default the Terraform workspace, `lab` in the workspace `default`."
  type        = string
  default     = null

  validation {
    # A network interface name has 15 characters at most, and the bridge is <lab_name>-br.
    condition     = var.lab_name == null || can(regex("^[a-z]([a-z0-9-]{0,10}[a-z0-9])?$", var.lab_name))
    error_message = "lab_name: use 1 to 12 of a-z, 0-9 and '-', starting with a letter, e.g. lab-2."
  }
}

variable "topology" {
  description = "Which topology to build: the name of a file in terraform/topologies without .yaml, or a path to a file of your own. By default what `make lab` was last asked for, else `small`."
  type        = string
  default     = null

  validation {
    condition     = var.topology == null ? true : fileexists("${path.module}/../topologies/${var.topology}.yaml") || fileexists(pathexpand(var.topology))
    error_message = "topology: neither a topology of that name in terraform/topologies nor a file. Known names: see `ls terraform/topologies`."
  }
}

variable "required_groups" {
  description = "Groups that the topology must have a node for; by default all that the pipeline needs. An empty list serves machines that carry a part of it, such as a smoke test."
  type        = list(string)
  default     = null
}

variable "without_groups" {
  description = "Groups that are left out, with the nodes that are in no other one: `[\"airflow\"]` is a lab without Airflow. By default what `make lab` was last asked for."
  type        = list(string)
  default     = null
}

variable "subnet" {
  description = "IPv4 network of the lab in CIDR notation. By default what `make lab` was last asked for, else a /24 of 10.64.0.0/10 that follows from the lab's name."
  type        = string
  default     = null

  validation {
    condition     = var.subnet == null || can(cidrnetmask(var.subnet))
    error_message = "subnet: give an IPv4 network in CIDR notation, e.g. 10.77.0.0/24."
  }
}

variable "libvirt_uri" {
  description = "Connection to libvirt, e.g. qemu:///system. The shared state directory is a folder of the host that it names, and is made here: only a libvirt on this machine will do."
  type        = string
  default     = "qemu:///system"

  validation {
    condition     = can(regex("^qemu://(/system|/session)$", var.libvirt_uri)) || can(regex("^qemu\\+unix:///(system|session)(\\?.*)?$", var.libvirt_uri))
    error_message = "libvirt_uri: give a connection to this machine's QEMU driver, e.g. qemu:///system."
  }
}

variable "virtualization" {
  description = "How machines are run: `kvm` (hardware) or `qemu` (emulated, about 8 times slower). By default kvm where /dev/kvm opens and the CPU has vmx or svm, else qemu with a warning."
  type        = string
  default     = null

  validation {
    condition     = var.virtualization == null || contains(["kvm", "qemu"], coalesce(var.virtualization, "kvm"))
    error_message = "virtualization: must be kvm or qemu."
  }
}

variable "network" {
  description = "Name of the libvirt network to make, by default <lab_name>-net."
  type        = string
  default     = null

  validation {
    condition     = var.network == null || can(regex("^[A-Za-z0-9._-]+$", var.network))
    error_message = "network: use letters, digits, '.', '_' and '-'."
  }
}

variable "pool" {
  description = "Name of the storage pool to make, by default <lab_name>."
  type        = string
  default     = null

  validation {
    condition     = var.pool == null || can(regex("^[A-Za-z0-9._-]+$", var.pool))
    error_message = "pool: use letters, digits, '.', '_' and '-'."
  }
}

variable "pool_path" {
  description = "Folder of the storage pool, which is made, and removed with the lab. By default one of the lab's own below /var/lib/libvirt/images."
  type        = string
  default     = null

  validation {
    condition     = var.pool_path == null || can(regex("^/[^/].*[^/]$", var.pool_path))
    error_message = "pool_path: give an absolute path of a folder that is not there yet, e.g. /srv/vms/lab."
  }
}

variable "image" {
  description = "What machines start from: `debian` (the Debian 12 cloud image of debian_image), or `built` (made here from Debian's packages, by the recipe of the LXD image with a kernel and cloud-init; booted directly)."
  type        = string
  default     = null

  validation {
    condition     = var.image == null || contains(["debian", "built"], coalesce(var.image, "debian"))
    error_message = "image: must be debian or built."
  }
}

variable "debian_image" {
  description = "Address and SHA-512 of Debian's cloud image (the kind `generic` or `genericcloud`, qcow2)."
  type = object({
    url    = string
    sha512 = string
  })
  default = {
    url    = "https://cloud.debian.org/images/cloud/bookworm/20250210-2019/debian-12-genericcloud-amd64-20250210-2019.qcow2"
    sha512 = "a58d86525d75fd8e139a2302531ce5d2ab75ef0273cfe78f9d53aada4b23efd45f8433b4806fa4570cfe981c8fae26f5e5e855cbd66ba2198862f28125fd2d45"
  }

  validation {
    condition     = can(regex("^(https|file)://.+", var.debian_image.url))
    error_message = "debian_image.url: give an address that begins with https:// or file://."
  }
  validation {
    condition     = can(regex("^[0-9a-f]{128}$", var.debian_image.sha512))
    error_message = "debian_image.sha512: give the 128 hexadecimal digits of SHA512SUMS beside the image."
  }
}

variable "disk_gib" {
  description = "Size of each machine's disk in GiB; it takes up only what is written to it."
  type        = number
  default     = 20

  validation {
    condition     = var.disk_gib >= 8 && floor(var.disk_gib) == var.disk_gib
    error_message = "disk_gib: must be a whole number of at least 8."
  }
}

variable "ssh_public_key_file" {
  description = "Public half of the key that logs in to the machines; the private one stands beside it without .pub. By default .lab/<lab_name>/id_ed25519.pub, which `make lab` makes."
  type        = string
  default     = null
}

variable "extra_ca_dir" {
  description = "Folder of certificates (*.crt, PEM) that the machines shall trust too, as this machine does; one that is not there counts as empty."
  type        = string
  default     = "/usr/local/share/ca-certificates"
}
