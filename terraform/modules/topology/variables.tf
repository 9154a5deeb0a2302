variable "topology_yaml" {
  description = "Text of a topology file: a mapping `nodes` of node name to groups, vcpus, memory_mib and, where the default does not fit, host_number."
  type        = string
}

variable "subnet" {
  description = "Network of the lab's nodes in CIDR notation, e.g. 10.77.0.0/24. Its first host is the gateway."
  type        = string
}

variable "host_memory_mib" {
  description = "Memory of the machine that carries all the nodes, in MiB; null where nodes are machines of their own (a cloud)."
  type        = number
  default     = null
}

variable "host_vcpus" {
  description = "CPUs of the machine that carries all the nodes; null where nodes are machines of their own."
  type        = number
  default     = null
}

variable "host_memory_reserve_mib" {
  description = "Memory of the host that nodes may not be promised, in MiB: for Terraform, Ansible and the host itself."
  type        = number
  default     = 1024
}

variable "required_groups" {
  description = "Groups that at least one node must be in."
  type        = list(string)
  nullable    = false
  default = [
    "kafka", "postgres", "spark_master", "spark_worker", "flink_jobmanager", "flink_taskmanager", "producer", "submitter",
  ]
}

variable "without_groups" {
  description = "Groups that are left out, with the nodes that are in no other one: parts of the lab that can be switched off."
  type        = list(string)
  nullable    = false
  default     = []
}
