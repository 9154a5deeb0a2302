# Security groups. A node has one, shared by all nodes with the same groups: an interface takes five at most, and a node
# of the topology mini is in eight groups.

locals {
  profile_of    = { for name, node in module.topology.nodes : name => join("+", sort(node.groups)) }
  profiles      = { for name, profile in local.profile_of : profile => sort(module.topology.nodes[name].groups)... }
  profile_names = keys(local.profiles)

  # The matrix between groups, as rules between profiles: "<to>:<first>-<last><<from>" => services that need it.
  node_rules = {
    for rule in flatten([
      for service, row in local.port_matrix : [
        for to in local.profile_names : [
          for from in local.profile_names : {
            key     = "${to}:${join("-", flatten([row.ports]))}<${from}"
            service = service
            to      = to
            from    = from
            first   = flatten([row.ports])[0]
            last    = reverse(flatten([row.ports]))[0]
          }
          if contains(local.profiles[to][0], row.to) && length(setintersection(local.profiles[from][0], row.from)) > 0
        ]
      ]
    ]) : rule.key => rule...
  }

  rules_of = { for profile in local.profile_names : profile => length([for rules in values(local.node_rules) : 1 if rules[0].to == profile]) + 1 }
  # A quota of AWS that can be raised, but not by us.
  max_rules = 60

  security_violations = [
    for profile, count in local.rules_of :
    "nodes of ${profile} would need ${count} rules in their security group, AWS takes ${local.max_rules}: use fewer different sets of groups" if count > local.max_rules
  ]
}

resource "aws_security_group" "node" {
  #checkov:skip=CKV2_AWS_5:aws_instance.node uses it by a lookup, which the check does not follow
  for_each = local.profiles

  name_prefix = "${local.lab_name}-${each.key}-"
  description = "Nodes of the lab ${local.lab_name} in ${replace(each.key, "+", ", ")}"
  vpc_id      = aws_vpc.lab.id
  tags        = { Name = "${local.lab_name}-${each.key}" }

  lifecycle {
    # A node that changes its groups gets the new one before the old one goes.
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "node" {
  for_each = local.node_rules

  security_group_id            = aws_security_group.node[each.value[0].to].id
  referenced_security_group_id = aws_security_group.node[each.value[0].from].id
  ip_protocol                  = "tcp"
  from_port                    = each.value[0].first
  to_port                      = each.value[0].last
  description                  = join(", ", each.value[*].service)
  tags                         = { Name = join(", ", each.value[*].service) }
}

resource "aws_vpc_security_group_ingress_rule" "node_ssh" {
  #checkov:skip=CKV_AWS_24:its source is the bastion's group; the check takes a rule without a network for an open one
  for_each = local.profiles

  security_group_id            = aws_security_group.node[each.key].id
  referenced_security_group_id = aws_security_group.bastion.id
  ip_protocol                  = "tcp"
  from_port                    = 22
  to_port                      = 22
  description                  = "SSH through the bastion"
  tags                         = { Name = "ssh" }
}

# Out: to each other, where the other side's rules decide, and to the web (Debian's mirrors, Coinbase). DNS and time are
# AWS's own and need no rule.
resource "aws_vpc_security_group_egress_rule" "node_subnet" {
  for_each = local.profiles

  security_group_id = aws_security_group.node[each.key].id
  cidr_ipv4         = local.private_subnet
  ip_protocol       = "tcp"
  from_port         = 1
  to_port           = 65535
  description       = "the lab's own network"
  tags              = { Name = "subnet" }
}

resource "aws_vpc_security_group_egress_rule" "node_web" {
  for_each = { for pair in setproduct(local.profile_names, ["80", "443"]) : "${pair[0]}:${pair[1]}" => { profile = pair[0], port = tonumber(pair[1]) } }

  security_group_id = aws_security_group.node[each.value.profile].id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = each.value.port
  to_port           = each.value.port
  description       = "Debian's mirrors, Coinbase"
  tags              = { Name = "web" }
}

resource "aws_security_group" "bastion" {
  #checkov:skip=CKV2_AWS_5:aws_instance.bastion has it; the check does not see through depends_on
  name_prefix = "${local.lab_name}-bastion-"
  description = "Bastion of the lab ${local.lab_name}"
  vpc_id      = aws_vpc.lab.id
  tags        = { Name = "${local.lab_name}-bastion" }

  lifecycle {
    create_before_destroy = true
  }
}

# The one rule that lets anybody in from outside.
resource "aws_vpc_security_group_ingress_rule" "bastion_ssh" {
  security_group_id = aws_security_group.bastion.id
  cidr_ipv4         = var.bastion_ssh_cidr
  ip_protocol       = "tcp"
  from_port         = 22
  to_port           = 22
  description       = "SSH from where the lab is used"
  tags              = { Name = "ssh" }
}

resource "aws_vpc_security_group_egress_rule" "bastion_ssh" {
  security_group_id = aws_security_group.bastion.id
  cidr_ipv4         = local.private_subnet
  ip_protocol       = "tcp"
  from_port         = 22
  to_port           = 22
  description       = "SSH to the nodes"
  tags              = { Name = "ssh" }
}

resource "aws_vpc_security_group_egress_rule" "bastion_web" {
  for_each = toset(["80", "443"])

  security_group_id = aws_security_group.bastion.id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = tonumber(each.key)
  to_port           = tonumber(each.key)
  description       = "Debian's mirrors"
  tags              = { Name = "web" }
}

resource "aws_security_group" "state" {
  #checkov:skip=CKV2_AWS_5:aws_efs_mount_target.state has it, which the check does not know
  name_prefix = "${local.lab_name}-state-"
  description = "Shared state directory of the lab ${local.lab_name}"
  vpc_id      = aws_vpc.lab.id
  tags        = { Name = "${local.lab_name}-state" }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "state" {
  for_each = local.profiles

  security_group_id            = aws_security_group.state.id
  referenced_security_group_id = aws_security_group.node[each.key].id
  ip_protocol                  = "tcp"
  from_port                    = 2049
  to_port                      = 2049
  description                  = "NFS in TLS"
  tags                         = { Name = "nfs" }
}
