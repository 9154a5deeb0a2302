# The port matrix, and that nothing but what it says is open.

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

run "matrix" {
  command = plan

  assert {
    condition = alltrue([
      for row in local.port_matrix : alltrue([for group in concat([row.to], row.from) : contains(keys(output.ansible_inventory), group)]) && length(row.why) > 0
    ])
    error_message = "A row names a group that the lab does not know, or no reason."
  }
  assert {
    condition = alltrue([
      for name, port in local.contract_ports : length([for row in local.port_matrix : 1 if contains(flatten([row.ports]), port)]) >= 1
    ])
    error_message = "A port of the contract is in no row: ${jsonencode(local.contract_ports)}"
  }
  assert {
    condition     = alltrue([for service, row in local.port_matrix : alltrue([for port in flatten([row.ports]) : (port > 1023 || port == 22) && port < 65536 && floor(port) == port])])
    error_message = "A row has a port that is none."
  }
  assert {
    condition     = local.port_matrix.kafka.ports == 9092 && local.port_matrix.postgres.ports == 5432 && local.port_matrix.flink_ui.ports == 8081 && local.port_matrix.spark_worker.ports == 7078 && local.port_matrix.flink_rpc.ports == 6123
    error_message = "Ports are not those of contract.yml and the roles."
  }
}

run "only_the_bastion_is_open_and_to_one_network" {
  assert {
    condition = alltrue([
      for rule in concat(values(aws_vpc_security_group_ingress_rule.node), values(aws_vpc_security_group_ingress_rule.node_ssh), values(aws_vpc_security_group_ingress_rule.state)) :
      rule.cidr_ipv4 == null && rule.cidr_ipv6 == null && rule.prefix_list_id == null && rule.referenced_security_group_id != null && rule.ip_protocol == "tcp"
    ])
    error_message = "A rule lets in addresses instead of a security group."
  }
  assert {
    condition     = aws_vpc_security_group_ingress_rule.bastion_ssh.cidr_ipv4 == "203.0.113.7/32" && aws_vpc_security_group_ingress_rule.bastion_ssh.from_port == 22 && aws_vpc_security_group_ingress_rule.bastion_ssh.to_port == 22 && aws_vpc_security_group_ingress_rule.bastion_ssh.security_group_id == aws_security_group.bastion.id
    error_message = "The bastion's door is not what was asked for."
  }
  assert {
    condition     = alltrue([for group in concat(values(aws_security_group.node), [aws_security_group.bastion, aws_security_group.state]) : length(coalesce(group.ingress, [])) == 0 || group.ingress == null])
    error_message = "A group has rules of its own beside the matrix."
  }
  assert {
    condition     = alltrue([for rule in values(aws_vpc_security_group_ingress_rule.node_ssh) : rule.referenced_security_group_id == aws_security_group.bastion.id && rule.from_port == 22 && rule.to_port == 22])
    error_message = "Nodes take SSH from others than the bastion."
  }
  assert {
    condition     = alltrue([for rule in values(aws_vpc_security_group_ingress_rule.state) : rule.security_group_id == aws_security_group.state.id && rule.from_port == 2049 && rule.to_port == 2049])
    error_message = "The state directory takes more than NFS."
  }
  assert {
    condition = alltrue([
      for rule in concat(values(aws_vpc_security_group_egress_rule.node_web), values(aws_vpc_security_group_egress_rule.bastion_web)) : contains([80, 443], rule.from_port) && rule.from_port == rule.to_port
    ]) && alltrue([for rule in values(aws_vpc_security_group_egress_rule.node_subnet) : rule.cidr_ipv4 == "10.77.4.0/24"])
    error_message = "More than the web is open on the way out."
  }
}

run "rules_of_small" {
  command = plan

  assert {
    condition = toset(keys(aws_vpc_security_group_ingress_rule.node)) == toset([
      "airflow:9100<monitoring+producer", "flink_jobmanager:22<airflow", "flink_taskmanager:22<airflow", "kafka:9092<airflow",
      "monitoring+producer:22<airflow", "postgres:5432<airflow", "postgres:5432<monitoring+producer", "submitter:22<airflow",
      "flink_jobmanager:32768-60999<flink_taskmanager", "flink_jobmanager:6123<flink_taskmanager",
      "flink_jobmanager:6124<flink_taskmanager", "flink_jobmanager:8081<flink_taskmanager", "flink_jobmanager:8081<submitter",
      "flink_jobmanager:9100<monitoring+producer", "flink_jobmanager:9249<monitoring+producer",
      "flink_taskmanager:32768-60999<flink_jobmanager", "flink_taskmanager:32768-60999<flink_taskmanager",
      "flink_taskmanager:9100<monitoring+producer", "flink_taskmanager:9250<monitoring+producer", "kafka:9092<flink_jobmanager",
      "kafka:9092<flink_taskmanager", "kafka:9092<kafka", "kafka:9092<monitoring+producer", "kafka:9092<spark_worker",
      "kafka:9092<submitter", "kafka:9093<kafka", "kafka:9100<monitoring+producer", "kafka:9404<monitoring+producer",
      "monitoring+producer:9100<monitoring+producer", "monitoring+producer:9108<monitoring+producer", "postgres:5432<flink_taskmanager",
      "postgres:5432<spark_worker", "postgres:5432<submitter", "postgres:9100<monitoring+producer", "postgres:9187<monitoring+producer",
      "spark_master:7077<spark_worker", "spark_master:7077<submitter", "spark_master:8080<monitoring+producer",
      "spark_master:8080<spark_worker", "spark_master:9100<monitoring+producer", "spark_worker:32768-60999<spark_worker",
      "spark_worker:32768-60999<submitter", "spark_worker:7078<spark_master", "spark_worker:8082<monitoring+producer",
      "spark_worker:9100<monitoring+producer", "submitter:32768-60999<spark_master", "submitter:32768-60999<spark_worker",
      "submitter:4040<monitoring+producer", "submitter:9100<monitoring+producer", "submitter:9109<monitoring+producer",
      "submitter:9110<monitoring+producer",
    ])
    error_message = "Rules: ${jsonencode(keys(aws_vpc_security_group_ingress_rule.node))}"
  }
  assert {
    condition     = alltrue([for key, rule in aws_vpc_security_group_ingress_rule.node : strcontains(key, ":${join("-", distinct([rule.from_port, rule.to_port]))}<")])
    error_message = "A rule opens other ports than its name says."
  }
}

run "a_node_has_the_rights_of_all_its_groups_and_one_security_group" {
  variables {
    topology        = "tests/topologies/mixed.yaml"
    required_groups = []
  }
  assert {
    condition = toset(keys(aws_vpc_security_group_ingress_rule.node)) == toset([
      "kafka:9092<kafka", "kafka:9092<monitoring", "kafka:9092<postgres+producer", "kafka:9093<kafka", "kafka:9100<monitoring", "kafka:9404<monitoring",
      "monitoring:9100<monitoring", "postgres+producer:5432<monitoring", "postgres+producer:9100<monitoring",
      "postgres+producer:9108<monitoring",
      "postgres+producer:9187<monitoring",
    ])
    error_message = "Rules: ${jsonencode(keys(aws_vpc_security_group_ingress_rule.node))}"
  }
  assert {
    condition     = alltrue([for node in values(aws_instance.node) : length(node.vpc_security_group_ids) == 1]) && aws_instance.node["both-1"].vpc_security_group_ids == toset([aws_security_group.node["postgres+producer"].id])
    error_message = "Security groups of nodes"
  }
}

run "mini_is_one_node_that_talks_to_itself" {
  command = plan
  variables {
    topology = "mini"
  }
  assert {
    condition     = length(aws_security_group.node) == 1 && length(aws_instance.node) == 1
    error_message = "Groups: ${jsonencode(keys(aws_security_group.node))}"
  }
}

run "scale_fits_into_the_quota_of_rules" {
  command = plan
  variables {
    topology = "scale"
  }
  assert {
    condition     = length(aws_instance.node) == 16 && max(values(local.rules_of)...) <= 20
    error_message = "Rules: ${jsonencode(local.rules_of)}"
  }
  assert {
    condition     = contains(keys(aws_vpc_security_group_ingress_rule.node), "spark_worker:8082-8085<monitoring+producer")
    error_message = "Prometheus does not reach every worker: ${jsonencode(keys(aws_vpc_security_group_ingress_rule.node))}"
  }
}

run "ha_needs_no_more_groups_than_small" {
  command = plan
  variables {
    topology = "ha"
  }
  assert {
    condition     = length(aws_security_group.node) == 9 && length(aws_instance.node) == 13
    error_message = "Groups: ${jsonencode(keys(aws_security_group.node))}"
  }
}
