output "violations" {
  description = "Everything that is wrong with the topology, a sentence each; empty when it is right."
  value       = local.violations
}

output "nodes" {
  description = "Node name => groups, vcpus, memory_mib and address; empty when there are violations."
  value       = local.nodes
}

output "groups" {
  description = "Group => names of the nodes in it, for every group that the lab knows, also an empty one."
  value       = { for group in keys(local.groups) : group => [for name, node in local.nodes : name if contains(node.groups, group)] }
}

output "gateway" {
  description = "Address of the network's gateway."
  value       = local.subnet_ok ? cidrhost(var.subnet, 1) : null
}

output "memory_mib" {
  description = "Memory of all nodes together, in MiB."
  value       = local.memory_mib
}
