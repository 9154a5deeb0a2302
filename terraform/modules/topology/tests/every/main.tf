# Every topology that the repository ships, through the module, as the roots do.

terraform {
  required_version = ">= 1.9.0, < 2.0.0"
}

locals {
  folder = "${path.module}/../../../../topologies"
  # What fits into a small machine by promise (docs: small's nodes take 12 GiB, and the host keeps one); the others are for larger ones.
  host_memory_mib = { mini = 8192, small = 13312 }
}

module "topology" {
  source   = "../.."
  for_each = { for name in fileset(local.folder, "*.yaml") : trimsuffix(name, ".yaml") => file("${local.folder}/${name}") }

  topology_yaml   = each.value
  subnet          = "10.77.0.0/24"
  host_memory_mib = lookup(local.host_memory_mib, each.key, null)
}

output "violations" {
  description = "Topology => what is wrong with it."
  value       = { for name, topology in module.topology : name => topology.violations }
}

output "nodes" {
  description = "Topology => its nodes."
  value       = { for name, topology in module.topology : name => topology.nodes }
}

output "groups" {
  description = "Topology => its groups."
  value       = { for name, topology in module.topology : name => topology.groups }
}

output "memory_mib" {
  description = "Topology => memory of all its nodes."
  value       = { for name, topology in module.topology : name => topology.memory_mib }
}
