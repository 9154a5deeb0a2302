# The nodes of a lab as Ansible and OpenSSH want to read them: the same for every target.

locals {
  hosts  = { for name in concat(keys(var.nodes), var.bastion == null ? [] : ["bastion"]) : name => "${var.ssh.known_hosts_dir}/${name}" }
  common = "-o StrictHostKeyChecking=${var.ssh.host_key_checking} -o IdentitiesOnly=yes"
  # By a command and not by ProxyJump, which would not take our key and known_hosts file to the bastion.
  proxy = var.bastion == null ? "" : join(" ", [
    "-o ProxyCommand=\"ssh -i ${var.ssh.private_key_file} -o UserKnownHostsFile=${local.hosts.bastion}",
    "${local.common} -W %h:%p ${var.bastion.user}@${var.bastion.address}\"",
  ])

  # Web pages of the lab: name, group of the nodes that serve it, port of the first of them; the others have the ports
  # that follow. `make status` and `make ui` read the same file.
  pages = jsondecode(file("${path.module}/pages.json"))
  # node => the ports of its pages
  ports = {
    for name, node in var.nodes : name => sort([
      for page in local.pages : tostring(page.port + index(var.groups[page.group], name)) if contains(node.groups, page.group)
    ])
  }
}
