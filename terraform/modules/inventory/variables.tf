variable "lab_name" {
  description = "Name of the lab."
  type        = string
}

variable "target" {
  description = "Where the nodes come from: the name of the Terraform root and of its folder in inventories/."
  type        = string
}

variable "subnet" {
  description = "Network of the lab's nodes in CIDR notation; clients in it may use the services."
  type        = string
}

variable "lab_dir" {
  description = "Folder of the controller that holds this lab's keys, secrets and logs."
  type        = string
}

variable "nodes" {
  description = "The module topology's output `nodes`."
  type = map(object({
    groups     = list(string)
    vcpus      = number
    memory_mib = number
    address    = string
  }))
}

variable "groups" {
  description = "The module topology's output `groups`."
  type        = map(list(string))
}

variable "ssh" {
  description = "How to log in: the nodes' user, our private key, the folder with a known_hosts file per node, and whether a host key that is not there yet is learnt at the first login (`accept-new`) or refused (`yes`)."
  type = object({
    user              = string
    private_key_file  = string
    known_hosts_dir   = string
    host_key_checking = optional(string, "yes")
  })

  validation {
    condition     = contains(["yes", "accept-new"], var.ssh.host_key_checking)
    error_message = "ssh.host_key_checking: must be yes or accept-new."
  }
}

variable "bastion" {
  description = "The host that logins go through, where the nodes cannot be reached directly: its address and user. Its key is the nodes', its known_hosts file is `bastion`."
  type = object({
    address = string
    user    = string
  })
  default = null
}

variable "variables" {
  description = "Further variables of all nodes, what this target knows and others do not."
  type        = map(string)
  default     = {}
}
