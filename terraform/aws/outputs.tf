output "lab_name" {
  description = "Name of the lab."
  value       = local.lab_name
}

output "ansible_inventory" {
  description = "The nodes and groups in the form of an Ansible dynamic inventory (the JSON of `--list`)."
  value       = module.inventory.ansible_inventory
}

output "ssh_config" {
  description = "OpenSSH client configuration for all nodes, through the bastion: ssh -F .lab/<lab_name>/ssh_config <node>."
  value       = module.inventory.ssh_config
}

output "cost_estimate" {
  description = "About what the lab costs while it exists, in USD at list prices of us-east-1: per hour in all and by part, per day, and for 30 days. Traffic (NAT gateway, internet) and EFS throughput come on top, by the GB."
  value = {
    usd_per_hour         = format("%.3f", local.cost_sum_per_hour)
    usd_per_day          = format("%.2f", local.cost_sum_per_hour * 24)
    usd_per_30_days      = format("%.2f", local.cost_sum_per_hour * 24 * 30)
    usd_per_hour_by_part = { for part, usd in local.cost_per_hour : part => format("%.3f", usd) }
    spot                 = var.spot ? "assumed at ${local.prices.spot_share * 100} % of the list price" : "no"
  }
}

output "instance_types" {
  description = "Node => EC2 instance type."
  value       = local.node_types
}

output "open_ports" {
  description = "Who may talk to whom: services by groups, from the port matrix; only what nodes of this topology need is opened."
  value = [
    for service, row in local.port_matrix :
    "${service}: ${join(", ", row.from)} -> ${row.to} ${join("-", flatten([row.ports]))}/tcp (${row.why})" if length(row.from) > 0
  ]
}

output "image" {
  description = "The Debian image that new instances start from."
  value       = { id = data.aws_ami.debian.id, name = data.aws_ami.debian.name }
}

output "network" {
  description = "VPC, its networks, its availability zone, and the state directory's file system."
  value = {
    vpc_id            = aws_vpc.lab.id
    vpc_cidr          = local.vpc_cidr
    private_subnet    = local.private_subnet
    public_subnet     = local.public_subnet
    availability_zone = local.availability_zone
    state             = aws_efs_file_system.state.id
  }
}

output "bastion_address" {
  description = "Public address of the bastion."
  value       = aws_eip.bastion.public_ip
}
