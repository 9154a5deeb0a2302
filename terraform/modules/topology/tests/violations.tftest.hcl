# One run for each rule: exactly this violation results, and no node.

variables {
  subnet          = "10.77.0.0/24"
  required_groups = []
  topology_yaml   = <<-EOT
    nodes:
      kafka-1: {groups: [kafka], vcpus: 2, memory_mib: 1024}
  EOT
}

run "a_right_topology_has_no_violation" {
  command = plan

  assert {
    condition     = length(output.violations) == 0
    error_message = "Violations: ${jsonencode(output.violations)}"
  }
  assert {
    condition     = output.nodes["kafka-1"].address == "10.77.0.11" && output.gateway == "10.77.0.1"
    error_message = "Nodes: ${jsonencode(output.nodes)}, gateway ${output.gateway}"
  }
}

run "text_that_is_no_yaml" {
  command = plan
  variables {
    topology_yaml   = "nodes: [unclosed"
    required_groups = ["kafka"]
  }
  assert {
    condition     = output.violations == ["the topology is not valid YAML"]
    error_message = "Violations: ${jsonencode(output.violations)}"
  }
}

run "no_nodes" {
  command = plan
  variables {
    topology_yaml   = "knoten: {}"
    required_groups = ["kafka"]
  }
  assert {
    condition     = output.violations == ["the topology has no mapping `nodes` with at least one node"]
    error_message = "Violations: ${jsonencode(output.violations)}"
  }
}

run "subnet_that_is_none" {
  command = plan
  variables {
    subnet = "10.77.0.0"
  }
  assert {
    condition     = output.violations == ["subnet '10.77.0.0' is no IPv4 network in CIDR notation, e.g. 10.77.0.0/24"]
    error_message = "Violations: ${jsonencode(output.violations)}"
  }
  assert {
    condition     = length(output.nodes) == 0 && output.gateway == null
    error_message = "There are nodes all the same: ${jsonencode(output.nodes)}"
  }
}

run "subnet_of_ipv6" {
  command = plan
  variables {
    subnet = "fd00::/64"
  }
  assert {
    condition     = output.violations == ["subnet 'fd00::/64' is no IPv4 network in CIDR notation, e.g. 10.77.0.0/24"]
    error_message = "Violations: ${jsonencode(output.violations)}"
  }
}

run "node_twice" {
  command = plan
  variables {
    # YAML itself would let the second one win in silence.
    topology_yaml = <<-EOT
      nodes:
        kafka-1: {groups: [kafka], vcpus: 2, memory_mib: 1024}
        kafka-1: {groups: [kafka], vcpus: 1, memory_mib: 512}
    EOT
  }
  assert {
    condition     = contains(output.violations, "node kafka-1 is there more than once: give each node its own name")
    error_message = "Violations: ${jsonencode(output.violations)}"
  }
  assert {
    condition     = length(output.violations) == 1
    error_message = "Violations: ${jsonencode(output.violations)}"
  }
}

run "node_twice_in_block_style" {
  command = plan
  variables {
    topology_yaml = <<-EOT
      nodes:
        "kafka-1":
          groups: [kafka]
          vcpus: 2
          memory_mib: 1024
        kafka-1:
          groups: [kafka]
          vcpus: 2
          memory_mib: 1024
    EOT
  }
  assert {
    condition     = output.violations == ["node kafka-1 is there more than once: give each node its own name"]
    error_message = "Violations: ${jsonencode(output.violations)}"
  }
}

run "name_that_no_host_can_have" {
  command = plan
  variables {
    topology_yaml = <<-EOT
      nodes:
        Kafka_1: {groups: [kafka], vcpus: 2, memory_mib: 1024}
    EOT
  }
  assert {
    condition     = output.violations == ["node name 'Kafka_1' is no host name: use a-z, 0-9 and '-', at most 40 characters"]
    error_message = "Violations: ${jsonencode(output.violations)}"
  }
}

run "key_that_is_unknown" {
  command = plan
  variables {
    topology_yaml = <<-EOT
      nodes:
        kafka-1: {groups: [kafka], vcpus: 2, memory_mib: 1024, memory_gib: 1}
    EOT
  }
  assert {
    condition     = output.violations == ["node kafka-1 has an unknown key 'memory_gib': known are groups, vcpus, memory_mib, host_number"]
    error_message = "Violations: ${jsonencode(output.violations)}"
  }
}

run "node_without_groups" {
  command = plan
  variables {
    topology_yaml = <<-EOT
      nodes:
        kafka-1: {groups: [], vcpus: 2, memory_mib: 1024}
    EOT
  }
  assert {
    condition = output.violations == [
      "node kafka-1 has no groups: list at least one of airflow, flink_jobmanager, flink_taskmanager, kafka, monitoring, postgres, producer, spark_master, spark_worker, submitter",
    ]
    error_message = "Violations: ${jsonencode(output.violations)}"
  }
}

run "group_that_is_unknown" {
  command = plan
  variables {
    topology_yaml = <<-EOT
      nodes:
        kafka-1: {groups: [kafca], vcpus: 2, memory_mib: 1024}
    EOT
  }
  assert {
    condition = output.violations == [
      "node kafka-1 is in an unknown group 'kafca': known are airflow, flink_jobmanager, flink_taskmanager, kafka, monitoring, postgres, producer, spark_master, spark_worker, submitter",
    ]
    error_message = "Violations: ${jsonencode(output.violations)}"
  }
}

run "group_without_a_node" {
  command = plan
  variables {
    required_groups = ["kafka", "postgres"]
  }
  assert {
    condition     = output.violations == ["no node is in group postgres: put it into the groups of one"]
    error_message = "Violations: ${jsonencode(output.violations)}"
  }
}

run "two_nodes_of_a_single_group" {
  command = plan
  variables {
    topology_yaml = <<-EOT
      nodes:
        postgres-1: {groups: [postgres], vcpus: 2, memory_mib: 1024}
        postgres-2: {groups: [postgres], vcpus: 2, memory_mib: 1024}
    EOT
  }
  assert {
    condition     = output.violations == ["2 nodes are in group postgres: it can have one only"]
    error_message = "Violations: ${jsonencode(output.violations)}"
  }
}

run "two_nodes_of_another_group" {
  command = plan
  variables {
    topology_yaml = <<-EOT
      nodes:
        kafka-1: {groups: [kafka], vcpus: 2, memory_mib: 1024}
        kafka-2: {groups: [kafka], vcpus: 2, memory_mib: 1024}
    EOT
  }
  assert {
    condition     = length(output.violations) == 0 && output.nodes["kafka-2"].address == "10.77.0.12"
    error_message = "Violations: ${jsonencode(output.violations)}, nodes: ${jsonencode(output.nodes)}"
  }
}

run "vcpus_missing" {
  command = plan
  variables {
    topology_yaml = <<-EOT
      nodes:
        kafka-1: {groups: [kafka], memory_mib: 1024}
    EOT
  }
  assert {
    condition     = output.violations == ["node kafka-1: vcpus must be a whole number of at least 1"]
    error_message = "Violations: ${jsonencode(output.violations)}"
  }
}

run "vcpus_in_halves" {
  command = plan
  variables {
    host_vcpus    = 4
    topology_yaml = <<-EOT
      nodes:
        kafka-1: {groups: [kafka], vcpus: 1.5, memory_mib: 1024}
    EOT
  }
  assert {
    condition     = output.violations == ["node kafka-1: vcpus must be a whole number of at least 1"]
    error_message = "Violations: ${jsonencode(output.violations)}"
  }
}

run "memory_too_small" {
  command = plan
  variables {
    topology_yaml = <<-EOT
      nodes:
        kafka-1: {groups: [kafka], vcpus: 2, memory_mib: 255}
    EOT
  }
  assert {
    condition     = output.violations == ["node kafka-1: memory_mib must be a whole number of at least 256"]
    error_message = "Violations: ${jsonencode(output.violations)}"
  }
}

run "memory_with_a_unit" {
  command = plan
  variables {
    topology_yaml = <<-EOT
      nodes:
        kafka-1: {groups: [kafka], vcpus: 2, memory_mib: 1 GiB}
    EOT
  }
  assert {
    condition     = output.violations == ["node kafka-1: memory_mib must be a whole number of at least 256"]
    error_message = "Violations: ${jsonencode(output.violations)}"
  }
}

run "more_vcpus_than_the_host_has" {
  command = plan
  variables {
    host_vcpus = 1
  }
  assert {
    condition     = output.violations == ["node kafka-1 asks for 2 vCPUs, the host has 1"]
    error_message = "Violations: ${jsonencode(output.violations)}"
  }
}

run "more_memory_than_the_host_can_give" {
  command = plan
  variables {
    # The node's 1024 MiB would fit, were it not for the reserve.
    host_memory_mib         = 2047
    host_memory_reserve_mib = 1024
  }
  assert {
    condition = output.violations == [
      "the nodes ask for 1024 MiB of memory, the host has 2047 MiB and keeps 1024 MiB for itself: choose a smaller topology or lower memory_mib",
    ]
    error_message = "Violations: ${jsonencode(output.violations)}"
  }
}

run "all_the_memory_that_the_host_can_give" {
  command = plan
  variables {
    host_memory_mib         = 2048
    host_memory_reserve_mib = 1024
  }
  assert {
    condition     = length(output.violations) == 0
    error_message = "Violations: ${jsonencode(output.violations)}"
  }
}

run "subnet_too_small_for_an_address" {
  command = plan
  variables {
    subnet = "10.77.0.0/29"
  }
  assert {
    condition     = output.violations == ["node kafka-1 has no address in 10.77.0.0/29 (host number 11): use a larger subnet or set host_number"]
    error_message = "Violations: ${jsonencode(output.violations)}"
  }
}

run "host_number_of_the_gateway" {
  command = plan
  variables {
    topology_yaml = <<-EOT
      nodes:
        kafka-1: {groups: [kafka], vcpus: 2, memory_mib: 1024, host_number: 1}
    EOT
  }
  assert {
    condition     = output.violations == ["node kafka-1 has no address in 10.77.0.0/24 (host number 1): use a larger subnet or set host_number"]
    error_message = "Violations: ${jsonencode(output.violations)}"
  }
}

run "host_number_of_the_broadcast_address" {
  command = plan
  variables {
    topology_yaml = <<-EOT
      nodes:
        kafka-1: {groups: [kafka], vcpus: 2, memory_mib: 1024, host_number: 255}
    EOT
  }
  assert {
    condition     = output.violations == ["node kafka-1 has no address in 10.77.0.0/24 (host number 255): use a larger subnet or set host_number"]
    error_message = "Violations: ${jsonencode(output.violations)}"
  }
}

run "host_number_that_is_no_whole_number" {
  command = plan
  variables {
    topology_yaml = <<-EOT
      nodes:
        kafka-1: {groups: [kafka], vcpus: 2, memory_mib: 1024, host_number: 11.5}
        kafka-2: {groups: [kafka], vcpus: 2, memory_mib: 1024, host_number: first}
    EOT
  }
  assert {
    condition = output.violations == [
      "node kafka-1: host_number must be a whole number",
      "node kafka-2: host_number must be a whole number",
    ]
    error_message = "Violations: ${jsonencode(output.violations)}"
  }
}

run "host_number_of_ones_own" {
  command = plan
  variables {
    topology_yaml = <<-EOT
      nodes:
        broker: {groups: [kafka, producer], vcpus: 2, memory_mib: 1024, host_number: 200}
    EOT
  }
  assert {
    condition     = length(output.violations) == 0 && output.nodes.broker.address == "10.77.0.200"
    error_message = "Violations: ${jsonencode(output.violations)}, nodes: ${jsonencode(output.nodes)}"
  }
  assert {
    condition     = output.groups.kafka == ["broker"] && output.groups.producer == ["broker"]
    error_message = "Groups: ${jsonencode(output.groups)}"
  }
}

run "two_nodes_with_one_host_number" {
  command = plan
  variables {
    topology_yaml = <<-EOT
      nodes:
        kafka-1: {groups: [kafka], vcpus: 2, memory_mib: 1024}
        other-1: {groups: [kafka], vcpus: 2, memory_mib: 1024}
    EOT
  }
  assert {
    condition     = output.violations == ["nodes kafka-1 and other-1 have the same host number 11: set host_number"]
    error_message = "Violations: ${jsonencode(output.violations)}"
  }
}

run "everything_at_once" {
  command = plan
  variables {
    required_groups = ["producer"]
    host_vcpus      = 4
    host_memory_mib = 2048
    topology_yaml   = <<-EOT
      nodes:
        postgres-1: {groups: [postgres], vcpus: 8, memory_mib: 4096}
        postgres-2: {groups: [postgres], vcpus: 0, memory_mib: 128, disk: big}
    EOT
  }
  assert {
    condition     = length(output.violations) == 7
    error_message = "Violations: ${jsonencode(output.violations)}"
  }
  assert {
    condition     = length(output.nodes) == 0 && alltrue([for names in values(output.groups) : length(names) == 0])
    error_message = "There are nodes all the same: ${jsonencode(output.nodes)}"
  }
}

run "groups_that_are_left_out_take_their_nodes_along" {
  command = plan
  variables {
    without_groups = ["airflow"]
    topology_yaml  = <<-EOT
      nodes:
        kafka-1:   {groups: [kafka], vcpus: 2, memory_mib: 1024}
        airflow-1: {groups: [airflow], vcpus: 2, memory_mib: 1280}
        lab-2:     {groups: [airflow, producer], vcpus: 2, memory_mib: 1024}
    EOT
  }
  assert {
    condition     = length(output.violations) == 0 && keys(output.nodes) == tolist(["kafka-1", "lab-2"]) && output.memory_mib == 2048
    error_message = "Nodes: ${jsonencode(output.nodes)}, violations ${jsonencode(output.violations)}"
  }
  assert {
    condition     = output.groups.airflow == [] && output.groups.producer == ["lab-2"] && output.nodes["lab-2"].address == "10.77.0.132"
    error_message = "Groups: ${jsonencode(output.groups)}, nodes: ${jsonencode(output.nodes)}"
  }
}
