# The lab's nodes as EC2 instances: in a private subnet, reached through one bastion, with one encrypted directory that
# all of them share. network.tf, security.tf, nodes.tf, cloud_init.tf, state.tf and cost.tf hold a subject each; here is
# what was asked for, and whether it can be built.

locals {
  lab_name = coalesce(var.lab_name, terraform.workspace == "default" ? "lab" : terraform.workspace)
  lab_dir  = abspath("${path.module}/../../.lab/${local.lab_name}")
  # What `make lab` was last asked for, so that an apply by hand keeps it.
  chosen         = try(jsondecode(file("${local.lab_dir}/options.json")), {})
  topology       = coalesce(var.topology, try(local.chosen.topology, null), "small")
  without_groups = var.without_groups != null ? var.without_groups : try(local.chosen.airflow, "on") == "off" ? ["airflow"] : []
  subnet         = coalesce(var.subnet, try(local.chosen.subnet, null), cidrsubnet("10.64.0.0/10", 14, parseint(substr(sha256(local.lab_name), 0, 6), 16) % 16384))

  topology_file = try(
    file("${path.module}/../topologies/${local.topology}.yaml"),
    file(pathexpand(local.topology)),
  )

  tags = merge(var.tags, {
    Project   = "crypto-stream-lab"
    Lab       = local.lab_name
    ManagedBy = "terraform"
  })

  public_key_file  = coalesce(var.ssh_public_key_file == null ? null : abspath(pathexpand(var.ssh_public_key_file)), "${local.lab_dir}/id_ed25519.pub")
  private_key_file = trimsuffix(local.public_key_file, ".pub")
  public_key       = try(trimspace(file(local.public_key_file)), "")

  key_violations = concat(
    fileexists(local.public_key_file) ? [] : ["there is no SSH public key ${local.public_key_file}: make one (ssh-keygen -t ed25519 -N '' -f ${local.private_key_file}), or name yours (ssh_public_key_file)"],
    !fileexists(local.public_key_file) || can(regex("^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp[0-9]+|sk-[a-z0-9@.-]+) [A-Za-z0-9+/=]+( [^\n]*)?$", local.public_key)) ? [] : [
      "${local.public_key_file} is not one SSH public key, e.g. 'ssh-ed25519 AAAA... name'",
    ],
    !fileexists(local.public_key_file) || fileexists(local.private_key_file) ? [] : ["the private half of ${local.public_key_file} is not beside it: ${local.private_key_file} is missing"],
  )

  violations = concat(
    local.key_violations,
    module.topology.violations,
    local.network_violations,
    local.node_violations,
    local.security_violations,
  )
}

module "topology" {
  source = "../modules/topology"

  topology_yaml   = local.topology_file
  subnet          = local.subnet
  required_groups = var.required_groups
  without_groups  = local.without_groups
}

module "inventory" {
  source = "../modules/inventory"

  lab_name = local.lab_name
  target   = "aws"
  subnet   = local.subnet
  lab_dir  = local.lab_dir
  nodes    = module.topology.nodes
  groups   = module.topology.groups
  ssh = {
    user             = "lab"
    private_key_file = local.private_key_file
    known_hosts_dir  = "${local.lab_dir}/known_hosts.d"
    # Instances make their host keys at their first boot, and nothing but SSH leads to them.
    host_key_checking = "accept-new"
  }
  bastion = {
    address = aws_eip.bastion.public_ip
    user    = "lab"
  }
}

# Everything else depends on this: nothing is made while anything is wrong, and all of it is said at once.
resource "terraform_data" "checked" {
  input = local.lab_name

  lifecycle {
    precondition {
      condition     = length(local.violations) == 0
      error_message = "This lab cannot be built as asked:\n${join("\n", [for text in local.violations : "  - ${text}"])}"
    }
  }
}
