output "ansible_inventory" {
  description = "The nodes and groups in the form of an Ansible dynamic inventory (the JSON of `--list`)."
  value = merge(
    { for group, names in var.groups : group => { hosts = names } },
    {
      _meta = {
        hostvars = {
          for name, node in var.nodes : name => {
            ansible_host                 = node.address
            ansible_user                 = var.ssh.user
            ansible_ssh_private_key_file = var.ssh.private_key_file
            ansible_ssh_common_args      = trimspace("-o UserKnownHostsFile=${local.hosts[name]} ${local.common} ${local.proxy}")
            lab_node_address             = node.address
            lab_node_vcpus               = node.vcpus
            lab_node_memory_mib          = node.memory_mib
          }
        }
      }
      all = {
        vars = merge(
          {
            lab_name   = var.lab_name
            lab_target = var.target
            lab_subnet = var.subnet
            lab_dir    = var.lab_dir
          },
          var.variables,
        )
      }
    },
  )
}

output "ssh_config" {
  description = "OpenSSH client configuration for all nodes: ssh -F .lab/<lab_name>/ssh_config <node>; `-N ui-<node>` brings its web pages to the same ports of localhost."
  value = join("\n", concat(
    ["# Made by Terraform for the lab '${var.lab_name}': ssh -F ${var.lab_dir}/ssh_config <node>"],
    var.bastion == null ? [] : [<<-EOT
        Host bastion ${var.lab_name}-bastion
          HostName ${var.bastion.address}
          User ${var.bastion.user}
          IdentityFile ${var.ssh.private_key_file}
          IdentitiesOnly yes
          UserKnownHostsFile ${local.hosts.bastion}
          StrictHostKeyChecking ${var.ssh.host_key_checking}
      EOT
    ],
    [
      for name, node in var.nodes : <<-EOT
        Host ${name} ${var.lab_name}-${name}%{if length(local.ports[name]) > 0} ui-${name}%{endif}
          HostName ${node.address}
          User ${var.ssh.user}
          IdentityFile ${var.ssh.private_key_file}
          IdentitiesOnly yes
          UserKnownHostsFile ${local.hosts[name]}
          StrictHostKeyChecking ${var.ssh.host_key_checking}%{if var.bastion != null}
          ProxyJump bastion%{endif}
      EOT
    ],
    # By names of their own, so that a shell on the node leaves the ports alone: ssh -N -F ... ui-<node>
    [
      for name, node in var.nodes : <<-EOT
        Host ui-${name}
          ExitOnForwardFailure yes
          ServerAliveInterval 15%{for port in local.ports[name]}
          LocalForward localhost:${port} ${node.address}:${port}%{endfor}
      EOT
      if length(local.ports[name]) > 0
    ],
  ))
}
