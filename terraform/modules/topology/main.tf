# Turns a topology file into nodes with addresses, and lists everything that is wrong with it at once.
# Nothing here creates anything, so that all of it can be tested with `terraform test` in a second.

locals {
  # group => host number of the node in it whose name ends in "-0". A node's address follows from its first group and
  # the number at the end of its name, so that adding a node never moves another one.
  groups = {
    kafka             = 10
    postgres          = 20
    spark_master      = 30
    spark_worker      = 40
    flink_jobmanager  = 70
    flink_taskmanager = 80
    producer          = 110
    submitter         = 120
    airflow           = 130
    monitoring        = 140
  }
  # Roles that know one node of these only.
  single_groups = ["postgres", "spark_master", "flink_jobmanager", "airflow"]

  parsed    = try(yamldecode(var.topology_yaml), null)
  all_nodes = try({ for name, node in local.parsed.nodes : name => node }, {})
  # A node that has nothing to do without these groups is not made.
  raw_nodes = {
    for name, node in local.all_nodes : name => node
    if try(length(node.groups) == 0 || length(setsubtract(node.groups, var.without_groups)) > 0, true)
  }

  # YAML lets a later key replace an earlier one in silence, so duplicates are looked for in the text.
  names_in_text = [for match in regexall("(?m)^  ['\"]?([^\\s#:'\"]+)['\"]?:", var.topology_yaml) : match[0]]
  duplicates    = distinct([for name in local.names_in_text : name if length([for other in local.names_in_text : other if other == name]) > 1])

  candidates = {
    for name, node in local.raw_nodes : name => {
      groups     = try([for group in node.groups : tostring(group) if !contains(var.without_groups, group)], [])
      vcpus      = try(tonumber(node.vcpus), null)
      memory_mib = try(tonumber(node.memory_mib), null)
      unknown    = try(setsubtract(keys(node), ["groups", "vcpus", "memory_mib", "host_number"]), [])
      host_number = can(node.host_number) ? try(tonumber(node.host_number), null) : try(
        local.groups[node.groups[0]] + try(tonumber(regex("-([0-9]+)$", name)[0]), 0),
        null,
      )
    }
  }

  subnet_ok   = can(cidrnetmask(var.subnet))
  prefix      = local.subnet_ok ? tonumber(split("/", var.subnet)[1]) : 0
  subnet_size = local.subnet_ok ? pow(2, 32 - local.prefix) : 0
  # 0 is the network, 1 the gateway, the last one the broadcast address. A node without a number has a fault of its own.
  addressable = {
    for name, node in local.candidates : name => try(node.host_number > 1 && node.host_number < local.subnet_size - 1, true)
  }
  memory_mib = sum(concat([0], [for node in local.candidates : coalesce(node.memory_mib, 0)]))

  violations = concat(
    local.parsed == null ? ["the topology is not valid YAML"] : [],
    local.parsed != null && length(local.raw_nodes) == 0 ? ["the topology has no mapping `nodes` with at least one node"] : [],
    local.subnet_ok ? [] : ["subnet '${var.subnet}' is no IPv4 network in CIDR notation, e.g. 10.77.0.0/24"],
    [for name in local.duplicates : "node ${name} is there more than once: give each node its own name"],
    [for name in keys(local.candidates) : "node name '${name}' is no host name: use a-z, 0-9 and '-', at most 40 characters" if !can(regex("^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$", name))],
    flatten([for name, node in local.candidates : [for key in node.unknown : "node ${name} has an unknown key '${key}': known are groups, vcpus, memory_mib, host_number"]]),
    [for name, node in local.candidates : "node ${name} has no groups: list at least one of ${join(", ", keys(local.groups))}" if length(node.groups) == 0],
    flatten([for name, node in local.candidates : [for group in node.groups : "node ${name} is in an unknown group '${group}': known are ${join(", ", keys(local.groups))}" if !contains(keys(local.groups), group)]]),
    [for group in var.required_groups : "no node is in group ${group}: put it into the groups of one" if length(local.raw_nodes) > 0 && !contains(flatten(values(local.candidates)[*].groups), group)],
    [for group in local.single_groups : "${length([for node in local.candidates : 1 if contains(node.groups, group)])} nodes are in group ${group}: it can have one only" if length([for node in local.candidates : 1 if contains(node.groups, group)]) > 1],
    [for name, node in local.candidates : "node ${name}: vcpus must be a whole number of at least 1" if try(node.vcpus < 1 || floor(node.vcpus) != node.vcpus, true)],
    [for name, node in local.candidates : "node ${name}: memory_mib must be a whole number of at least 256" if try(node.memory_mib < 256 || floor(node.memory_mib) != node.memory_mib, true)],
    [for name, node in local.candidates : "node ${name} asks for ${node.vcpus} vCPUs, the host has ${var.host_vcpus}" if try(node.vcpus > var.host_vcpus, false)],
    var.host_memory_mib == null ? [] : (
      local.memory_mib <= var.host_memory_mib - var.host_memory_reserve_mib ? [] : [
        "the nodes ask for ${local.memory_mib} MiB of memory, the host has ${var.host_memory_mib} MiB and keeps ${var.host_memory_reserve_mib} MiB for itself: choose a smaller topology or lower memory_mib",
      ]
    ),
    [for name, node in local.candidates : "node ${name}: host_number must be a whole number" if can(local.raw_nodes[name].host_number) && try(floor(node.host_number) != node.host_number, true)],
    local.subnet_ok ? [for name, ok in local.addressable : "node ${name} has no address in ${var.subnet} (host number ${local.candidates[name].host_number}): use a larger subnet or set host_number" if !ok] : [],
    [
      for number in distinct([for node in local.candidates : node.host_number if node.host_number != null]) :
      "nodes ${join(" and ", [for name, node in local.candidates : name if node.host_number == number])} have the same host number ${number}: set host_number"
      if length([for node in local.candidates : 1 if node.host_number == number]) > 1
    ],
  )

  nodes = length(local.violations) > 0 ? {} : {
    for name, node in local.candidates : name => {
      groups     = node.groups
      vcpus      = node.vcpus
      memory_mib = node.memory_mib
      address    = cidrhost(var.subnet, node.host_number)
    }
  }
}
