# The lab's nodes as LXD (or Incus) system containers on this machine.
#
# LXD's own Terraform provider cannot be had everywhere, so the resources here call the `lxc` client through
# scripts/lxd.py, each by one verb that can be repeated safely. What exists is read at plan time (scripts/host_state.py):
# a node that was deleted behind Terraform's back is planned again, and a name or a subnet that somebody else uses stops
# the plan before anything is made.

locals {
  lab_name = coalesce(var.lab_name, terraform.workspace == "default" ? "lab" : terraform.workspace)
  # What `make lab` was last asked for, so that an apply by hand keeps it.
  chosen         = try(jsondecode(file("${local.lab_dir}/options.json")), {})
  topology       = coalesce(var.topology, try(local.chosen.topology, null), "small")
  without_groups = var.without_groups != null ? var.without_groups : try(local.chosen.airflow, "on") == "off" ? ["airflow"] : []
  subnet         = coalesce(var.subnet, try(local.chosen.subnet, null), cidrsubnet("10.64.0.0/10", 14, parseint(substr(sha256(local.lab_name), 0, 6), 16) % 16384))
  bridge         = "${local.lab_name}-br"
  domain         = "${local.lab_name}.internal"

  topology_file = try(
    file("${path.module}/../topologies/${local.topology}.yaml"),
    file(pathexpand(local.topology)),
  )
  scripts = abspath("${path.module}/scripts")
  lab_dir = abspath("${path.module}/../../.lab/${local.lab_name}")

  # What exists now. A generation is the label that a thing got when it was made; one that does not exist gets a new
  # label, which makes Terraform (re)create it.
  host           = data.external.host.result
  new_generation = local.host.new_generation
  generations    = jsondecode(local.host.generations)

  image_generation = lookup(local.generations, "image", local.new_generation)

  base = {
    client = var.client
    lab    = local.lab_name
    owner  = local.lab_dir
  }
}

module "topology" {
  source = "../modules/topology"

  topology_yaml   = local.topology_file
  subnet          = local.subnet
  host_memory_mib = tonumber(local.host.memory_mib)
  host_vcpus      = tonumber(local.host.vcpus)
  required_groups = var.required_groups
  without_groups  = local.without_groups
}

module "inventory" {
  source = "../modules/inventory"

  lab_name = local.lab_name
  target   = "lxd"
  subnet   = local.subnet
  lab_dir  = local.lab_dir
  nodes    = module.topology.nodes
  groups   = module.topology.groups
  ssh = {
    user             = "lab"
    private_key_file = terraform_data.ssh_key.output.path
    known_hosts_dir  = "${local.lab_dir}/known_hosts.d"
  }
  # Where nodes see the controller's artifacts (scripts/lxd.py mounts them).
  variables = { lab_artifacts_path = "/srv/lab-artifacts" }
}

data "external" "host" {
  program = ["python3", "${local.scripts}/host_state.py"]
  query = {
    client  = var.client
    lab     = local.lab_name
    owner   = local.lab_dir
    bridge  = local.bridge
    subnet  = local.subnet
    lab_dir = local.lab_dir
  }
}

# Everything else depends on this: nothing is made while anything is wrong, and all of it is said at once.
resource "terraform_data" "checked" {
  input = local.lab_name

  lifecycle {
    precondition {
      condition     = length(concat(module.topology.violations, jsondecode(local.host.violations))) == 0
      error_message = "This lab cannot be built as asked:\n${join("\n", [for text in concat(jsondecode(local.host.violations), module.topology.violations) : "  - ${text}"])}"
    }
  }
}

resource "terraform_data" "ssh_key" {
  input = merge(local.base, {
    path       = "${local.lab_dir}/id_ed25519"
    generation = lookup(local.generations, "ssh-key", local.new_generation)
    scripts    = local.scripts
  })
  triggers_replace = [lookup(local.generations, "ssh-key", local.new_generation)]
  depends_on       = [terraform_data.checked]

  provisioner "local-exec" {
    command     = "python3 ${self.input.scripts}/lxd.py ssh-key-up"
    environment = { SPEC = jsonencode(self.input) }
    quiet       = true
  }
}

resource "terraform_data" "network" {
  input = merge(local.base, {
    name       = local.bridge
    address    = "${module.topology.gateway}/${split("/", local.subnet)[1]}"
    subnet     = local.subnet
    domain     = local.domain
    generation = lookup(local.generations, "network", local.new_generation)
    scripts    = local.scripts
  })
  triggers_replace = [local.subnet, lookup(local.generations, "network", local.new_generation)]
  depends_on       = [terraform_data.checked]

  provisioner "local-exec" {
    command     = "python3 ${self.input.scripts}/lxd.py network-up"
    environment = { SPEC = jsonencode(self.input) }
    quiet       = true
  }
  provisioner "local-exec" {
    when        = destroy
    command     = "python3 ${self.input.scripts}/lxd.py network-down"
    environment = { SPEC = jsonencode(self.input) }
    quiet       = true
  }
}

# A pool of the lab's own (a plain directory), with the volume that every node mounts as its shared state directory.
resource "terraform_data" "storage" {
  input = merge(local.base, {
    pool       = local.lab_name
    volume     = "state"
    generation = lookup(local.generations, "storage", local.new_generation)
    scripts    = local.scripts
  })
  triggers_replace = [lookup(local.generations, "storage", local.new_generation)]
  depends_on       = [terraform_data.checked]

  provisioner "local-exec" {
    command     = "python3 ${self.input.scripts}/lxd.py storage-up"
    environment = { SPEC = jsonencode(self.input) }
    quiet       = true
  }
  provisioner "local-exec" {
    when        = destroy
    command     = "python3 ${self.input.scripts}/lxd.py storage-down"
    environment = { SPEC = jsonencode(self.input) }
    quiet       = true
  }
}

# The image is kept when a lab goes: others use it, and building one takes a minute.
resource "terraform_data" "image" {
  triggers_replace = [local.host.image, local.image_generation]
  depends_on       = [terraform_data.checked]

  provisioner "local-exec" {
    command = "python3 ${abspath("${path.module}/../node_image/build.py")} --client ${var.client} --generation ${local.image_generation}"
    quiet   = true
  }
}

resource "terraform_data" "node" {
  for_each = module.topology.nodes

  input = merge(local.base, {
    name       = each.key
    instance   = "${local.lab_name}-${each.key}"
    network    = terraform_data.network.input.name
    pool       = terraform_data.storage.input.pool
    volume     = terraform_data.storage.input.volume
    address    = each.value.address
    generation = lookup(local.generations, "node/${each.key}", local.new_generation)
    scripts    = local.scripts
  })
  # A changed image does not replace a node: its data would go with it.
  triggers_replace = [
    each.value.address,
    lookup(local.generations, "node/${each.key}", local.new_generation),
    terraform_data.storage.id,
    terraform_data.network.id,
  ]
  depends_on = [terraform_data.image]

  provisioner "local-exec" {
    command = "python3 ${self.input.scripts}/lxd.py node-up"
    environment = {
      SPEC  = jsonencode(self.input)
      IMAGE = local.host.image
      # Only a new node gets it mounted; where it is not there, artifacts come over SSH.
      ARTIFACTS = local.host.artifacts
      # The first start already has the limits; a change of them later is terraform_data.limits alone.
      VCPUS      = each.value.vcpus
      MEMORY_MIB = each.value.memory_mib
    }
    quiet = true
  }
  provisioner "local-exec" {
    when        = destroy
    command     = "python3 ${self.input.scripts}/lxd.py node-down"
    environment = { SPEC = jsonencode(self.input) }
    quiet       = true
  }
}

# Limits are changed on the running node.
resource "terraform_data" "limits" {
  for_each = module.topology.nodes

  input = merge(local.base, {
    instance   = "${local.lab_name}-${each.key}"
    vcpus      = each.value.vcpus
    memory_mib = each.value.memory_mib
    scripts    = local.scripts
  })
  triggers_replace = [terraform_data.node[each.key].id, each.value.vcpus, each.value.memory_mib]

  provisioner "local-exec" {
    command     = "python3 ${self.input.scripts}/lxd.py limits-up"
    environment = { SPEC = jsonencode(self.input) }
    quiet       = true
  }
}

# Our key goes into the node, the node's host key goes into our known_hosts: no prompt, and no blind trust either.
resource "terraform_data" "access" {
  for_each = module.topology.nodes

  input = merge(local.base, {
    name       = each.key
    instance   = "${local.lab_name}-${each.key}"
    address    = each.value.address
    public_key = "${terraform_data.ssh_key.input.path}.pub"
    hosts_dir  = "${local.lab_dir}/known_hosts.d"
    scripts    = local.scripts
  })
  triggers_replace = [terraform_data.node[each.key].id, terraform_data.ssh_key.id]

  provisioner "local-exec" {
    command     = "python3 ${self.input.scripts}/lxd.py access-up"
    environment = { SPEC = jsonencode(self.input) }
    quiet       = true
  }
  provisioner "local-exec" {
    when        = destroy
    command     = "python3 ${self.input.scripts}/lxd.py access-down"
    environment = { SPEC = jsonencode(self.input) }
    quiet       = true
  }
}
