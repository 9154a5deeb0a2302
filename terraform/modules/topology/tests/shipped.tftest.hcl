# The topologies in terraform/topologies.

run "every_shipped_topology_is_right" {
  command = plan

  module {
    source = "./tests/every"
  }

  assert {
    condition     = length(output.violations) >= 2
    error_message = "No topologies were found: ${jsonencode(keys(output.violations))}"
  }
  assert {
    condition     = alltrue([for texts in values(output.violations) : length(texts) == 0])
    error_message = "Violations: ${jsonencode(output.violations)}"
  }
  assert {
    condition = alltrue([
      for nodes in values(output.nodes) : length(distinct(values(nodes)[*].address)) == length(nodes) && length(nodes) > 0
    ])
    error_message = "Two nodes of a topology share an address: ${jsonencode(output.nodes)}"
  }
  assert {
    condition = alltrue([
      for name, nodes in output.nodes : sum(values(nodes)[*].memory_mib) == output.memory_mib[name]
    ])
    error_message = "memory_mib is not the sum of the nodes' memory: ${jsonencode(output.memory_mib)}"
  }
  assert {
    condition = alltrue(flatten([
      for name, groups in output.groups : [
        for group, names in groups : [for node in names : contains(output.nodes[name][node].groups, group)]
      ]
    ]))
    error_message = "A group names a node that is not in it: ${jsonencode(output.groups)}"
  }
  assert {
    condition = alltrue(flatten([
      for groups in values(output.groups) : [
        for group in ["postgres", "spark_master", "flink_jobmanager", "producer", "submitter"] : length(groups[group]) == 1
      ]
    ]))
    error_message = "A topology lacks a group or has it twice: ${jsonencode(output.groups)}"
  }
}

run "small_has_these_addresses" {
  command = plan

  module {
    source = "./tests/every"
  }

  assert {
    condition = { for name, node in output.nodes.small : name => node.address } == {
      kafka-1             = "10.77.0.11"
      postgres-1          = "10.77.0.21"
      spark-master-1      = "10.77.0.31"
      spark-worker-1      = "10.77.0.41"
      flink-jobmanager-1  = "10.77.0.71"
      flink-taskmanager-1 = "10.77.0.81"
      producer-1          = "10.77.0.111"
      submitter-1         = "10.77.0.121"
      airflow-1           = "10.77.0.131"
    }
    error_message = "An address has moved; a running lab's node would be made anew: ${jsonencode(output.nodes.small)}"
  }
  assert {
    condition     = output.memory_mib.small <= 12288
    error_message = "small's nodes must fit into 12 GiB: they ask for ${output.memory_mib.small} MiB"
  }
  assert {
    condition     = output.groups.small.kafka == ["kafka-1"] && output.groups.small.monitoring == ["producer-1"] && output.groups.small.airflow == ["airflow-1"]
    error_message = "Groups: ${jsonencode(output.groups.small)}"
  }
}

run "mini_has_everything_on_one_node" {
  command = plan

  module {
    source = "./tests/every"
  }

  assert {
    condition     = keys(output.nodes.mini) == tolist(["lab-1"]) && output.nodes.mini["lab-1"].address == "10.77.0.11"
    error_message = "Nodes: ${jsonencode(output.nodes.mini)}"
  }
  assert {
    condition = alltrue([
      for group, names in output.groups.mini : group == "airflow" || names == ["lab-1"]
    ])
    error_message = "Groups: ${jsonencode(output.groups.mini)}"
  }
}
