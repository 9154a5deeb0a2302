# Instances: the bastion and the topology's nodes.

locals {
  # The smallest types of a few current families, from small to large; USD per hour on demand are cost.tf's.
  sizes = {
    burstable = [
      { type = "t3.micro", vcpus = 2, memory_mib = 1024 },
      { type = "t3.small", vcpus = 2, memory_mib = 2048 },
      { type = "t3.medium", vcpus = 2, memory_mib = 4096 },
      { type = "t3.large", vcpus = 2, memory_mib = 8192 },
      { type = "t3.xlarge", vcpus = 4, memory_mib = 16384 },
      { type = "t3.2xlarge", vcpus = 8, memory_mib = 32768 },
    ]
    steady = [
      { type = "c6i.large", vcpus = 2, memory_mib = 4096 },
      { type = "m6i.large", vcpus = 2, memory_mib = 8192 },
      { type = "r6i.large", vcpus = 2, memory_mib = 16384 },
      { type = "c6i.xlarge", vcpus = 4, memory_mib = 8192 },
      { type = "m6i.xlarge", vcpus = 4, memory_mib = 16384 },
      { type = "r6i.xlarge", vcpus = 4, memory_mib = 32768 },
      { type = "c6i.2xlarge", vcpus = 8, memory_mib = 16384 },
      { type = "m6i.2xlarge", vcpus = 8, memory_mib = 32768 },
      { type = "r6i.2xlarge", vcpus = 8, memory_mib = 65536 },
      { type = "c6i.4xlarge", vcpus = 16, memory_mib = 32768 },
      { type = "m6i.4xlarge", vcpus = 16, memory_mib = 65536 },
      { type = "r6i.4xlarge", vcpus = 16, memory_mib = 131072 },
    ]
  }
  table        = local.sizes[var.burstable ? "burstable" : "steady"]
  bastion_type = "t3.micro"

  # The first that fits is the cheapest: a test holds the table to that.
  fitting = {
    for name, node in module.topology.nodes : name => [
      for size in local.table : size.type if size.vcpus >= node.vcpus && size.memory_mib >= node.memory_mib
    ]
  }
  node_types     = { for name, types in local.fitting : name => types[0] if length(types) > 0 }
  instance_types = sort(distinct(concat([local.bastion_type], values(local.node_types))))

  node_violations = [
    for name, types in local.fitting :
    "node ${name} asks for ${module.topology.nodes[name].vcpus} vCPUs and ${module.topology.nodes[name].memory_mib} MiB: the largest type known here is ${reverse(local.table)[0].type}" if length(types) == 0
  ]
}

data "aws_ami" "debian" {
  most_recent = true
  # Debian's own account.
  owners = ["136693071363"]

  filter {
    name   = "name"
    values = ["debian-12-amd64-*"]
  }
  filter {
    name   = "architecture"
    values = ["x86_64"]
  }
  filter {
    name   = "virtualization-type"
    values = ["hvm"]
  }
}

resource "aws_eip" "bastion" {
  #checkov:skip=CKV2_AWS_19:aws_eip_association.bastion attaches it, which the check does not know
  domain = "vpc"
  tags   = { Name = "${local.lab_name}-bastion" }

  depends_on = [aws_internet_gateway.lab]
}

resource "aws_eip_association" "bastion" {
  allocation_id = aws_eip.bastion.id
  instance_id   = aws_instance.bastion.id
}

resource "aws_instance" "bastion" {
  #checkov:skip=CKV2_AWS_41:it calls no API of AWS, and no role grants less than the least one
  #checkov:skip=CKV_AWS_126:metrics by the minute cost money, and nobody reads them
  ami                    = data.aws_ami.debian.id
  instance_type          = local.bastion_type
  subnet_id              = aws_subnet.public.id
  vpc_security_group_ids = [aws_security_group.bastion.id]
  ebs_optimized          = true
  user_data              = "#cloud-config\n${jsonencode(local.bastion_config)}"
  tags                   = { Name = "${local.lab_name}-bastion" }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    instance_metadata_tags      = "disabled"
  }

  root_block_device {
    volume_type           = "gp3"
    volume_size           = 8
    encrypted             = true
    kms_key_id            = var.kms_key_arn
    delete_on_termination = true
    tags                  = merge(local.tags, { Name = "${local.lab_name}-bastion" })
  }

  lifecycle {
    # A newer image or other data for a first boot that is over is no reason to make it anew.
    ignore_changes = [ami, user_data]
  }
}

resource "aws_instance" "node" {
  #checkov:skip=CKV2_AWS_41:nodes call no API of AWS, and no role grants less than the least one
  #checkov:skip=CKV_AWS_126:metrics by the minute cost money, and nobody reads them
  for_each = module.topology.nodes

  ami = data.aws_ami.debian.id
  # Of a node that no type fits there is no plan.
  instance_type          = lookup(local.node_types, each.key, local.bastion_type)
  subnet_id              = aws_subnet.private.id
  private_ip             = each.value.address
  vpc_security_group_ids = [aws_security_group.node[local.profile_of[each.key]].id]
  ebs_optimized          = true
  user_data              = "#cloud-config\n${jsonencode(local.node_config[each.key])}"
  tags                   = { Name = "${local.lab_name}-${each.key}", Groups = join(" ", each.value.groups) }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    instance_metadata_tags      = "disabled"
  }

  root_block_device {
    volume_type           = "gp3"
    volume_size           = var.volume_gib
    encrypted             = true
    kms_key_id            = var.kms_key_arn
    delete_on_termination = true
    tags                  = merge(local.tags, { Name = "${local.lab_name}-${each.key}" })
  }

  # Stopped and not terminated when AWS takes it back: Kafka's log and PostgreSQL's rows are on its volume.
  dynamic "instance_market_options" {
    for_each = var.spot ? [1] : []
    content {
      market_type = "spot"
      spot_options {
        spot_instance_type             = "persistent"
        instance_interruption_behavior = "stop"
      }
    }
  }

  lifecycle {
    # A changed image does not replace a node: its data would go with it.
    ignore_changes = [ami, user_data]
  }

  # At its first boot it fetches packages and mounts the state directory.
  depends_on = [
    aws_efs_mount_target.state,
    aws_efs_file_system_policy.state,
    aws_route.private,
    aws_route_table_association.private,
    aws_vpc_security_group_ingress_rule.state,
    aws_vpc_security_group_egress_rule.node_subnet,
    aws_vpc_security_group_egress_rule.node_web,
  ]
}
