# One VPC in one availability zone: a private subnet for the nodes, and its sibling for the bastion and the NAT gateway.

locals {
  prefix = try(tonumber(split("/", local.subnet)[1]), 0)
  # AWS takes VPCs from /16 to /28, and the VPC is twice the subnet. A subnet below /27 has no room for the topologies.
  subnet_fits    = can(cidrnetmask(local.subnet)) && local.prefix >= 17 && local.prefix <= 27
  subnet_first   = local.subnet_fits ? cidrhost(local.subnet, 0) : null
  subnet_private = local.subnet_fits ? can(regex("^(10[.]|192[.]168[.]|172[.](1[6-9]|2[0-9]|3[01])[.]|100[.](6[4-9]|[7-9][0-9]|1[01][0-9]|12[0-7])[.])", local.subnet_first)) : false

  vpc_cidr = local.subnet_fits ? cidrsubnet("${local.subnet_first}/${local.prefix - 1}", 0, 0) : "10.64.0.0/23"
  halves   = cidrsubnets(local.vpc_cidr, 1, 1)
  # With a wrong subnet there is no plan; what is computed then only has to be a network.
  private_subnet = local.subnet_fits ? "${local.subnet_first}/${local.prefix}" : local.halves[0]
  public_subnet  = local.subnet_fits ? one([for half in local.halves : half if half != local.private_subnet]) : local.halves[1]

  # AWS keeps the first four addresses and the last; the state directory's mount target gets the one before that.
  mount_target_address = local.subnet_fits ? cidrhost(local.subnet, -2) : null
  reserved_addresses   = local.subnet_fits ? [for number in [0, 1, 2, 3, -2, -1] : cidrhost(local.subnet, number)] : []

  network_violations = concat(
    # What is no network at all, the topology says.
    local.subnet_fits || !can(cidrnetmask(local.subnet)) ? [] : ["subnet ${local.subnet}: AWS needs /17 to /27 here (the VPC is twice as large, a /16 at most)"],
    !local.subnet_fits || try(split("/", local.subnet)[0], "") == local.subnet_first ? [] : ["subnet ${local.subnet} does not begin at its first address: write ${local.subnet_first}/${local.prefix}"],
    !local.subnet_fits || local.subnet_private ? [] : ["subnet ${local.subnet} is not of a private range (10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10)"],
    [for name, node in module.topology.nodes : "node ${name} has the address ${node.address}, which AWS or the state directory needs: set host_number" if contains(local.reserved_addresses, node.address)],
    local.availability_zone != null ? [] : ["no availability zone${var.availability_zone == null ? " of ${data.aws_region.current.name}" : " ${var.availability_zone}"} offers all of ${join(", ", local.instance_types)}: choose another zone or region"],
  )

  # Of the zones that offer everything, the first by name.
  availability_zones = [
    for zone in sort(distinct(data.aws_ec2_instance_type_offerings.wanted.locations)) : zone
    if length(setsubtract(local.instance_types, [
      for index, location in data.aws_ec2_instance_type_offerings.wanted.locations :
      data.aws_ec2_instance_type_offerings.wanted.instance_types[index] if location == zone
    ])) == 0 && (var.availability_zone == null || zone == var.availability_zone)
  ]
  availability_zone = try(local.availability_zones[0], null)
}

data "aws_region" "current" {}

data "aws_ec2_instance_type_offerings" "wanted" {
  location_type = "availability-zone"

  filter {
    name   = "instance-type"
    values = local.instance_types
  }
}

resource "aws_vpc" "lab" {
  #checkov:skip=CKV2_AWS_11:flow logs need a log group, a role and money, for a network that lives for hours
  cidr_block           = local.vpc_cidr
  enable_dns_support   = true
  enable_dns_hostnames = true
  tags                 = { Name = local.lab_name }

  depends_on = [terraform_data.checked]
}

# Without rules: what forgets to name a security group reaches nothing.
resource "aws_default_security_group" "closed" {
  vpc_id = aws_vpc.lab.id
  tags   = { Name = "${local.lab_name}-default-closed" }
}

resource "aws_subnet" "private" {
  vpc_id                  = aws_vpc.lab.id
  cidr_block              = local.private_subnet
  availability_zone       = local.availability_zone
  map_public_ip_on_launch = false
  tags                    = { Name = "${local.lab_name}-private" }
}

resource "aws_subnet" "public" {
  vpc_id                  = aws_vpc.lab.id
  cidr_block              = local.public_subnet
  availability_zone       = local.availability_zone
  map_public_ip_on_launch = false
  tags                    = { Name = "${local.lab_name}-public" }
}

resource "aws_internet_gateway" "lab" {
  vpc_id = aws_vpc.lab.id
  tags   = { Name = local.lab_name }
}

resource "aws_eip" "nat" {
  #checkov:skip=CKV2_AWS_19:it belongs to the NAT gateway, which the check does not know
  domain = "vpc"
  tags   = { Name = "${local.lab_name}-nat" }

  depends_on = [aws_internet_gateway.lab]
}

# The nodes' way out, to Debian's mirrors and Coinbase; there is no way in.
resource "aws_nat_gateway" "lab" {
  allocation_id = aws_eip.nat.id
  subnet_id     = aws_subnet.public.id
  tags          = { Name = local.lab_name }

  depends_on = [aws_internet_gateway.lab]
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.lab.id
  tags   = { Name = "${local.lab_name}-public" }
}

resource "aws_route" "public" {
  route_table_id         = aws_route_table.public.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.lab.id
}

resource "aws_route_table_association" "public" {
  subnet_id      = aws_subnet.public.id
  route_table_id = aws_route_table.public.id
}

resource "aws_route_table" "private" {
  vpc_id = aws_vpc.lab.id
  tags   = { Name = "${local.lab_name}-private" }
}

resource "aws_route" "private" {
  route_table_id         = aws_route_table.private.id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.lab.id
}

resource "aws_route_table_association" "private" {
  subnet_id      = aws_subnet.private.id
  route_table_id = aws_route_table.private.id
}
