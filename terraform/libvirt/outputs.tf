output "lab_name" {
  description = "Name of the lab."
  value       = local.lab_name
}

output "ansible_inventory" {
  description = "The nodes and groups in the form of an Ansible dynamic inventory (the JSON of `--list`)."
  value       = module.inventory.ansible_inventory
}

output "ssh_config" {
  description = "OpenSSH client configuration for all nodes: ssh -F .lab/<lab_name>/ssh_config <node>."
  value       = module.inventory.ssh_config
}

output "virtualization" {
  description = "How the machines are run: kvm or qemu."
  value       = local.virtualization
}
