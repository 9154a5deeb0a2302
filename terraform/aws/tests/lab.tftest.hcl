# What would be made, with a provider that answers from tests/mocks.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  lab_name            = "tftest"
  topology            = "small"
  subnet              = "10.77.4.0/24"
  bastion_ssh_cidr    = "203.0.113.7/32"
  ssh_public_key_file = "tests/keys/good.pub"
}

run "network" {
  assert {
    condition     = aws_vpc.lab.cidr_block == "10.77.4.0/23" && aws_subnet.private.cidr_block == "10.77.4.0/24" && aws_subnet.public.cidr_block == "10.77.5.0/24"
    error_message = "VPC ${aws_vpc.lab.cidr_block}, private ${aws_subnet.private.cidr_block}, public ${aws_subnet.public.cidr_block}"
  }
  assert {
    condition     = aws_vpc.lab.enable_dns_hostnames && aws_vpc.lab.enable_dns_support
    error_message = "Without DNS host names the file system's name is not known."
  }
  assert {
    condition     = !aws_subnet.private.map_public_ip_on_launch && !aws_subnet.public.map_public_ip_on_launch
    error_message = "A subnet hands out public addresses."
  }
  assert {
    # Zone a lacks a type.
    condition     = aws_subnet.private.availability_zone == "eu-central-1b" && aws_subnet.public.availability_zone == "eu-central-1b"
    error_message = "Zone ${aws_subnet.private.availability_zone}"
  }
  assert {
    condition     = aws_route.private.nat_gateway_id == aws_nat_gateway.lab.id && aws_route.private.gateway_id == null
    error_message = "The nodes' default route does not lead to the NAT gateway."
  }
  assert {
    condition     = aws_route.public.gateway_id == aws_internet_gateway.lab.id && aws_nat_gateway.lab.subnet_id == aws_subnet.public.id
    error_message = "The public subnet has no way out, or the NAT gateway is not in it."
  }
  assert {
    condition     = length(coalesce(aws_default_security_group.closed.ingress, [])) + length(coalesce(aws_default_security_group.closed.egress, [])) == 0
    error_message = "The VPC's default security group has rules."
  }
}

run "upper_half_of_the_vpc" {
  variables {
    subnet = "10.77.5.0/24"
  }
  assert {
    condition     = aws_vpc.lab.cidr_block == "10.77.4.0/23" && aws_subnet.public.cidr_block == "10.77.4.0/24"
    error_message = "VPC ${aws_vpc.lab.cidr_block}, public ${aws_subnet.public.cidr_block}"
  }
}

run "largest_subnet" {
  variables {
    subnet = "10.128.0.0/17"
  }
  assert {
    condition     = aws_vpc.lab.cidr_block == "10.128.0.0/16" && aws_subnet.public.cidr_block == "10.128.128.0/17"
    error_message = "VPC ${aws_vpc.lab.cidr_block}, public ${aws_subnet.public.cidr_block}"
  }
}

run "nodes" {
  assert {
    condition     = { for name, node in aws_instance.node : name => node.private_ip } == { for name, variables in output.ansible_inventory._meta.hostvars : name => variables.lab_node_address }
    error_message = "Addresses: ${jsonencode({ for name, node in aws_instance.node : name => node.private_ip })}"
  }
  assert {
    condition     = aws_instance.node["kafka-1"].private_ip == "10.77.4.11" && length(aws_instance.node) == 9
    error_message = "kafka-1 has ${aws_instance.node["kafka-1"].private_ip}, there are ${length(aws_instance.node)} nodes"
  }
  assert {
    condition     = alltrue([for node in values(aws_instance.node) : node.subnet_id == aws_subnet.private.id])
    error_message = "A node is not in the private subnet, which gives no public addresses."
  }
  assert {
    condition     = alltrue([for node in values(aws_instance.node) : node.ami == data.aws_ami.debian.id])
    error_message = "A node has another image."
  }
  assert {
    condition     = data.aws_ami.debian.owners == tolist(["136693071363"]) && one([for filter in data.aws_ami.debian.filter : one(filter.values) if filter.name == "name"]) == "debian-12-amd64-*" && data.aws_ami.debian.most_recent
    error_message = "The image is not Debian's newest of release 12."
  }
  assert {
    condition     = alltrue([for node in values(aws_instance.node) : length(node.instance_market_options) == 0])
    error_message = "A node is a spot instance, and nobody asked for it."
  }
  assert {
    condition     = aws_instance.bastion.subnet_id == aws_subnet.public.id && aws_instance.bastion.instance_type == "t3.micro" && aws_eip_association.bastion.instance_id == aws_instance.bastion.id
    error_message = "The bastion is not in the public subnet with the public address."
  }
}

run "metadata_service_takes_tokens_only" {
  assert {
    condition = alltrue([
      for instance in concat(values(aws_instance.node), [aws_instance.bastion]) :
      instance.metadata_options[0].http_tokens == "required" && instance.metadata_options[0].http_put_response_hop_limit == 1 && instance.metadata_options[0].http_endpoint == "enabled"
    ])
    error_message = "IMDSv1 is open, or a hop too far."
  }
}

run "everything_is_encrypted_at_rest" {
  assert {
    condition = alltrue([
      for instance in concat(values(aws_instance.node), [aws_instance.bastion]) :
      instance.root_block_device[0].encrypted && instance.root_block_device[0].volume_type == "gp3" && instance.root_block_device[0].delete_on_termination
    ])
    error_message = "A volume is not encrypted, not gp3, or outlives its instance."
  }
  assert {
    condition     = alltrue([for node in values(aws_instance.node) : node.root_block_device[0].volume_size == 30]) && aws_instance.bastion.root_block_device[0].volume_size == 8
    error_message = "Sizes of volumes"
  }
  assert {
    condition     = aws_efs_file_system.state.encrypted
    error_message = "The state directory is not encrypted."
  }
}

run "a_key_of_ones_own" {
  variables {
    kms_key_arn = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    volume_gib  = 100
  }
  assert {
    condition = alltrue([
      for instance in concat(values(aws_instance.node), [aws_instance.bastion]) : instance.root_block_device[0].kms_key_id == var.kms_key_arn
    ]) && aws_efs_file_system.state.kms_key_id == var.kms_key_arn
    error_message = "The key is not used everywhere."
  }
  assert {
    condition     = alltrue([for node in values(aws_instance.node) : node.root_block_device[0].volume_size == 100])
    error_message = "volume_gib is not what nodes get."
  }
}

run "state_directory_takes_tls_only" {
  assert {
    condition = one(jsondecode(aws_efs_file_system_policy.state.policy).Statement) == {
      Sid       = "MountThroughTheTargetInTLS"
      Effect    = "Allow"
      Principal = { AWS = "*" }
      Action    = ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite", "elasticfilesystem:ClientRootAccess"]
      Resource  = aws_efs_file_system.state.arn
      Condition = { Bool = { "aws:SecureTransport" = "true", "elasticfilesystem:AccessedViaMountTarget" = "true" } }
    }
    error_message = "Policy: ${aws_efs_file_system_policy.state.policy}"
  }
  assert {
    condition     = aws_efs_mount_target.state.ip_address == "10.77.4.254" && aws_efs_mount_target.state.subnet_id == aws_subnet.private.id && aws_efs_mount_target.state.security_groups == toset([aws_security_group.state.id])
    error_message = "Mount target ${aws_efs_mount_target.state.ip_address}"
  }
}

run "first_boot_of_a_node" {
  assert {
    condition     = alltrue([for node in values(aws_instance.node) : startswith(node.user_data, "#cloud-config\n")]) && startswith(aws_instance.bastion.user_data, "#cloud-config\n")
    error_message = "User data is no cloud-config."
  }
  assert {
    condition = alltrue([
      for name, node in aws_instance.node : jsondecode(trimprefix(node.user_data, "#cloud-config\n")).hostname == name
    ])
    error_message = "A node does not know its name."
  }
  assert {
    condition = jsondecode(trimprefix(aws_instance.node["kafka-1"].user_data, "#cloud-config\n")).users == [{
      name                = "lab"
      uid                 = "1000"
      shell               = "/bin/bash"
      lock_passwd         = true
      sudo                = "ALL=(ALL) NOPASSWD:ALL"
      ssh_authorized_keys = [trimspace(file("tests/keys/good.pub"))]
    }]
    error_message = "Users: ${aws_instance.node["kafka-1"].user_data}"
  }
  assert {
    condition = alltrue([
      for text in [
        "Where=/srv/lab-state\n", "Type=nfs4\n", "nfsvers=4.1,port=20490,", ",hard,", "What=127.0.0.1:/\n", "Requires=lab-state-tunnel.service\n",
        ] : strcontains(one([
          for file in jsondecode(trimprefix(aws_instance.node["kafka-1"].user_data, "#cloud-config\n")).write_files : file.content
          if file.path == "/etc/systemd/system/srv-lab\\x2dstate.mount"
      ]), text)
    ])
    error_message = "The state directory's mount is not as it should be."
  }
  assert {
    condition = alltrue([
      for text in [
        "accept = 127.0.0.1:20490\n", "connect = fs-0123456789abcdef0.efs.eu-central-1.amazonaws.com:2049\n", "verifyChain = yes\n",
        "checkHost = fs-0123456789abcdef0.efs.eu-central-1.amazonaws.com\n", "sslVersionMin = TLSv1.2\n",
        ] : strcontains(one([
          for file in jsondecode(trimprefix(aws_instance.node["kafka-1"].user_data, "#cloud-config\n")).write_files : file.content
          if file.path == "/etc/lab-state/stunnel.conf"
      ]), text)
    ])
    error_message = "The tunnel does not verify whom it talks to."
  }
  assert {
    # EC2 takes 16 KiB.
    condition     = alltrue([for node in values(aws_instance.node) : length(node.user_data) < 12000])
    error_message = "User data is too long."
  }
}

run "bastion_has_no_shell" {
  assert {
    condition = alltrue([
      for user in jsondecode(trimprefix(aws_instance.bastion.user_data, "#cloud-config\n")).users :
      user.shell == "/usr/sbin/nologin" && !can(user.sudo) && startswith(one(user.ssh_authorized_keys), "restrict,port-forwarding ssh-ed25519 ")
    ])
    error_message = "Users: ${aws_instance.bastion.user_data}"
  }
}

run "spot_and_burstable" {
  variables {
    spot      = true
    burstable = true
  }
  assert {
    condition = alltrue([
      for node in values(aws_instance.node) : node.instance_market_options[0].market_type == "spot"
      && node.instance_market_options[0].spot_options[0].spot_instance_type == "persistent"
      && node.instance_market_options[0].spot_options[0].instance_interruption_behavior == "stop"
    ])
    error_message = "Nodes are no spot instances that stop."
  }
  assert {
    condition     = length(aws_instance.bastion.instance_market_options) == 0
    error_message = "The bastion is a spot instance."
  }
  assert {
    condition     = alltrue([for type in values(output.instance_types) : startswith(type, "t3.")]) && output.instance_types["producer-1"] == "t3.micro" && output.instance_types["spark-worker-1"] == "t3.medium"
    error_message = "Types: ${jsonencode(output.instance_types)}"
  }
  assert {
    condition     = output.cost_estimate.spot == "assumed at 40 % of the list price"
    error_message = "Cost: ${jsonencode(output.cost_estimate)}"
  }
}

run "tags" {
  variables {
    tags = { Owner = "streaming" }
  }
  assert {
    condition     = local.tags == { Project = "crypto-stream-lab", Lab = "tftest", ManagedBy = "terraform", Owner = "streaming" }
    error_message = "Tags: ${jsonencode(local.tags)}"
  }
  assert {
    # Volumes do not get the provider's default tags.
    condition = alltrue([
      for instance in concat(values(aws_instance.node), [aws_instance.bastion]) :
      alltrue([for key, value in local.tags : instance.root_block_device[0].tags[key] == value])
    ])
    error_message = "A volume lacks tags."
  }
  assert {
    condition = alltrue([
      for name in concat(
        [for node in values(aws_instance.node) : node.tags.Name], [for group in values(aws_security_group.node) : group.tags.Name],
        [
          aws_vpc.lab.tags.Name, aws_subnet.private.tags.Name, aws_subnet.public.tags.Name, aws_internet_gateway.lab.tags.Name, aws_nat_gateway.lab.tags.Name,
          aws_eip.nat.tags.Name, aws_eip.bastion.tags.Name, aws_route_table.private.tags.Name, aws_route_table.public.tags.Name, aws_instance.bastion.tags.Name,
          aws_efs_file_system.state.tags.Name, aws_security_group.bastion.tags.Name, aws_security_group.state.tags.Name,
        ],
      ) : name == "tftest" || startswith(name, "tftest-")
    ])
    error_message = "A name does not begin with the lab's."
  }
}

run "outputs" {
  assert {
    condition     = output.lab_name == "tftest"
    error_message = output.lab_name
  }
  assert {
    condition     = output.bastion_address == "198.51.100.10"
    error_message = output.bastion_address
  }
  assert {
    condition     = output.image == { id = "ami-0debian12", name = "debian-12-amd64-20250601-2130" }
    error_message = jsonencode(output.image)
  }
  assert {
    condition = output.network == {
      vpc_id            = aws_vpc.lab.id
      vpc_cidr          = "10.77.4.0/23"
      private_subnet    = "10.77.4.0/24"
      public_subnet     = "10.77.5.0/24"
      availability_zone = "eu-central-1b"
      state             = "fs-0123456789abcdef0"
    }
    error_message = jsonencode(output.network)
  }
  assert {
    condition     = output.instance_types["producer-1"] == "c6i.large" && keys(output.instance_types) == keys(output.ansible_inventory._meta.hostvars)
    error_message = jsonencode(output.instance_types)
  }
  assert {
    # 9 c6i.large, t3.micro, NAT gateway, two addresses, 9 x 30 + 8 GiB, 5 GiB of state.
    condition     = output.cost_estimate.usd_per_hour == format("%.3f", 9 * 0.085 + 0.0104 + 0.045 + 2 * 0.005 + 278 * 0.08 / 730 + 5 * 0.3 / 730) && output.cost_estimate.usd_per_hour_by_part.nodes == "0.765" && output.cost_estimate.spot == "no"
    error_message = jsonencode(output.cost_estimate)
  }
  assert {
    condition     = output.cost_estimate.usd_per_day == "20.71" && output.cost_estimate.usd_per_30_days == "621.30"
    error_message = jsonencode(output.cost_estimate)
  }
  assert {
    condition     = output.ansible_inventory.kafka.hosts == tolist(["kafka-1"]) && output.ansible_inventory.all.vars.lab_target == "aws" && output.ansible_inventory.all.vars.lab_subnet == "10.77.4.0/24"
    error_message = jsonencode(output.ansible_inventory)
  }
  assert {
    condition = alltrue([
      for name, variables in output.ansible_inventory._meta.hostvars : variables.ansible_user == "lab"
      && strcontains(variables.ansible_ssh_common_args, "StrictHostKeyChecking=accept-new") && strcontains(variables.ansible_ssh_common_args, "-W %h:%p lab@198.51.100.10")
      && variables.ansible_ssh_private_key_file == abspath("tests/keys/good")
    ])
    error_message = jsonencode(output.ansible_inventory._meta.hostvars)
  }
  assert {
    condition     = strcontains(output.ssh_config, "Host bastion tftest-bastion\n") && strcontains(output.ssh_config, "HostName 198.51.100.10\n") && length(regexall("ProxyJump bastion", output.ssh_config)) == 9
    error_message = output.ssh_config
  }
  assert {
    condition     = contains(output.open_ports, "kafka_controller: kafka -> kafka 9093/tcp (the brokers' quorum)") && length(output.open_ports) == length([for row in local.port_matrix : row if length(row.from) > 0])
    error_message = jsonencode(output.open_ports)
  }
}
