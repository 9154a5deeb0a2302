variable "lab_name" {
  description = "Name of the lab: prefix of its nodes, bridge, storage pool and DNS domain. By default the Terraform workspace, `lab` in the workspace `default`."
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
  description = "Groups that the topology must have a node for; by default all that the pipeline needs. An empty list serves nodes that carry a part of it, such as a role's test."
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

variable "client" {
  description = "Command line client that drives the container manager: `lxc` (LXD) or `incus`."
  type        = string
  default     = "lxc"

  validation {
    condition     = contains(["lxc", "incus"], var.client)
    error_message = "client: must be lxc or incus."
  }
}
