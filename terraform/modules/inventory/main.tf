# The nodes of a lab as Ansible and OpenSSH want to read them: the same for every target.

locals {
  hosts  = { for name in concat(keys(var.nodes), var.bastion == null ? [] : ["bastion"]) : name => "${var.ssh.known_hosts_dir}/${name}" }
  common = "-o StrictHostKeyChecking=${var.ssh.host_key_checking} -o IdentitiesOnly=yes"
  # By a command and not by ProxyJump, which would not take our key and known_hosts file to the bastion.
  proxy = var.bastion == null ? "" : join(" ", [
    "-o ProxyCommand=\"ssh -i ${var.ssh.private_key_file} -o UserKnownHostsFile=${local.hosts.bastion}",
    "${local.common} -W %h:%p ${var.bastion.user}@${var.bastion.address}\"",
  ])

  # node => the ports of its web pages
  pages = yamldecode(file("${path.module}/pages.yaml"))
  ports = {
    for name, node in var.nodes : name => sort([
      for page in local.pages : tostring(page.port + index(var.groups[page.group], name)) if contains(node.groups, page.group)
    ])
  }
}
