variable "lab_name" {
  description = "Name of the lab: prefix of the names of everything that is made. By default the Terraform workspace, `lab` in the workspace `default`."
  type        = string
  default     = null

  validation {
    # The same rule as on the other targets, so that a name works on all of them.
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
  description = "Groups that the topology must have a node for; by default all that the pipeline needs. An empty list serves nodes that carry a part of it."
  type        = list(string)
  default     = null
}

variable "without_groups" {
  description = "Groups that are left out, with the nodes that are in no other one: `[\"airflow\"]` is a lab without Airflow. By default what `make lab` was last asked for."
  type        = list(string)
  default     = null
}

variable "subnet" {
  description = "IPv4 network of the nodes in CIDR notation, /17 to /27; the bastion's is its other half in the VPC. By default what `make lab` was last asked for, else a /24 of 10.64.0.0/10 that follows from the lab's name."
  type        = string
  default     = null

  validation {
    condition     = var.subnet == null || can(cidrnetmask(var.subnet))
    error_message = "subnet: give an IPv4 network in CIDR notation, e.g. 10.77.0.0/24."
  }
}

variable "bastion_ssh_cidr" {
  description = "The one IPv4 network from which the bastion takes SSH, in CIDR notation: your own public address, e.g. 203.0.113.7/32. Nothing else is reachable from outside."
  type        = string
  nullable    = false

  validation {
    condition     = can(cidrnetmask(var.bastion_ssh_cidr))
    error_message = "bastion_ssh_cidr: give an IPv4 network in CIDR notation, e.g. your own public address 203.0.113.7/32."
  }
  validation {
    # What is no network at all has been said above.
    condition     = can(cidrnetmask(var.bastion_ssh_cidr)) ? tonumber(split("/", var.bastion_ssh_cidr)[1]) >= 8 : true
    error_message = "bastion_ssh_cidr: ${var.bastion_ssh_cidr} opens SSH to a large part of the world: give /8 or narrower, best your own address with /32."
  }
}

variable "ssh_public_key_file" {
  description = "Public half of the SSH key that logs in, with the private half beside it (the same name without .pub). By default `id_ed25519.pub` in the lab's folder, .lab/<lab_name>."
  type        = string
  default     = null

  validation {
    condition     = var.ssh_public_key_file == null || can(regex("[.]pub$", var.ssh_public_key_file))
    error_message = "ssh_public_key_file: give the public half, whose name ends in .pub."
  }
}

variable "region" {
  description = "AWS region; by default what the environment or the AWS profile says."
  type        = string
  default     = null

  validation {
    condition     = var.region == null || can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region: give the code of an AWS region, e.g. eu-central-1."
  }
}

variable "availability_zone" {
  description = "Availability zone of all nodes, e.g. eu-central-1a; one only, since traffic between zones costs time and money. By default the first that offers every instance type that is needed."
  type        = string
  default     = null

  validation {
    condition     = var.availability_zone == null || can(regex("^[a-z]{2}(-[a-z]+)+-[0-9][a-z]$", var.availability_zone))
    error_message = "availability_zone: give the name of an availability zone, e.g. eu-central-1a."
  }
}

variable "burstable" {
  description = "Take burstable instance types (t3), which cost less and are slower after a while. For trying the lab out; not for measurements."
  type        = bool
  default     = false
  nullable    = false
}

variable "spot" {
  description = "Take spot instances, which cost less and may be stopped by AWS at any time; their volumes are kept until they run again. The bastion is never one."
  type        = bool
  default     = false
  nullable    = false
}

variable "volume_gib" {
  description = "Size of each node's encrypted gp3 volume, in GiB."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.volume_gib >= 16 && var.volume_gib <= 16384 && floor(var.volume_gib) == var.volume_gib
    error_message = "volume_gib: give a whole number from 16 (a node with its artifacts) to 16384 (the largest gp3 volume)."
  }
}

variable "kms_key_arn" {
  description = "ARN of a KMS key of your own for the nodes' volumes and the shared state; by default they are encrypted with the keys that AWS keeps for the account."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/.+$", var.kms_key_arn))
    error_message = "kms_key_arn: give the ARN of a KMS key, e.g. arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab."
  }
}

variable "tags" {
  description = "Further tags of everything that is made, beside Project, Lab and ManagedBy."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for key in keys(var.tags) : !contains(["name", "project", "lab", "managedby"], lower(key)) && !startswith(lower(key), "aws:")])
    error_message = "tags: Name, Project, Lab and ManagedBy are set already, and keys that begin with aws: are AWS's own."
  }
  validation {
    condition     = alltrue([for key, value in var.tags : length(key) >= 1 && length(key) <= 128 && length(value) <= 256])
    error_message = "tags: a key has 1 to 128 characters, a value at most 256."
  }
}
