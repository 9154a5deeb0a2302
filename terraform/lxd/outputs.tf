locals {
  ssh_user = "lab"
}

output "lab_name" {
  description = "Name of the lab."
  value       = local.lab_name
}

output "ansible_inventory" {
  description = "The nodes and groups in the form of an Ansible dynamic inventory (the JSON of `--list`)."
  value = merge(
    { for group, names in module.topology.groups : group => { hosts = names } },
    {
      _meta = {
        hostvars = {
          for name, node in module.topology.nodes : name => {
            ansible_host                 = node.address
            ansible_user                 = local.ssh_user
            ansible_ssh_private_key_file = terraform_data.ssh_key.output.path
            ansible_ssh_common_args      = "-o UserKnownHostsFile=${local.lab_dir}/known_hosts.d/${name} -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes"
            lab_node_address             = node.address
            lab_node_vcpus               = node.vcpus
            lab_node_memory_mib          = node.memory_mib
          }
        }
      }
      all = {
        vars = {
          lab_name   = local.lab_name
          lab_target = "lxd"
          lab_subnet = local.subnet
          lab_dir    = local.lab_dir
          # Where nodes see the controller's artifacts (scripts/lxd.py mounts them).
          lab_artifacts_path = "/srv/lab-artifacts"
        }
      }
    },
  )
}

output "ssh_config" {
  description = "OpenSSH client configuration for all nodes: ssh -F .lab/<lab_name>/ssh_config <node>."
  value = join("\n", concat(
    ["# Made by Terraform for the lab '${local.lab_name}': ssh -F ${local.lab_dir}/ssh_config <node>"],
    [
      for name, node in module.topology.nodes : <<-EOT
        Host ${name} ${local.lab_name}-${name}
          HostName ${node.address}
          User ${local.ssh_user}
          IdentityFile ${terraform_data.ssh_key.output.path}
          IdentitiesOnly yes
          UserKnownHostsFile ${local.lab_dir}/known_hosts.d/${name}
          StrictHostKeyChecking yes
      EOT
    ],
  ))
}
