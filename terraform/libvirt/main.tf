# The lab's nodes as virtual machines of libvirt on this machine.
#
# What the host is and has is read at plan time (scripts/host_state.py), so that everything that is wrong is said at
# once, before anything is made.

locals {
  lab_name = coalesce(var.lab_name, terraform.workspace == "default" ? "lab" : terraform.workspace)
  lab_dir  = abspath("${path.module}/../../.lab/${local.lab_name}")
  scripts  = abspath("${path.module}/scripts")
  # What `make lab` was last asked for, so that an apply by hand keeps it.
  chosen         = try(jsondecode(file("${local.lab_dir}/options.json")), {})
  topology       = coalesce(var.topology, try(local.chosen.topology, null), "small")
  without_groups = var.without_groups != null ? var.without_groups : try(local.chosen.airflow, "on") == "off" ? ["airflow"] : []
  subnet         = coalesce(var.subnet, try(local.chosen.subnet, null), cidrsubnet("10.64.0.0/10", 14, parseint(substr(sha256(local.lab_name), 0, 6), 16) % 16384))
  image          = coalesce(var.image, try(local.chosen.image, null), "debian")
  virtualization = coalesce(var.virtualization, try(local.chosen.virtualization, null), local.host.virtualization)

  # Two checkouts may each have a lab of this name: the folder's hash tells whose a thing is.
  owner     = substr(sha256(local.lab_dir), 0, 12)
  bridge    = "${local.lab_name}-br"
  network   = coalesce(var.network, "${local.lab_name}-net")
  pool      = coalesce(var.pool, local.lab_name)
  pool_path = coalesce(var.pool_path, "/var/lib/libvirt/images/${local.lab_name}-${local.owner}")
  domain    = "${local.lab_name}.internal"
  # By which a later plan knows the network for its own.
  network_uuid = uuidv5("url", "file://${local.lab_dir}/network")

  topology_file = try(
    file("${path.module}/../topologies/${local.topology}.yaml"),
    file(pathexpand(local.topology)),
  )

  ssh_public_key_file = coalesce(var.ssh_public_key_file, "${local.lab_dir}/id_ed25519.pub")
  ssh_public_key      = try(trimspace(file(local.ssh_public_key_file)), "")
  # Built images have no boot loader.
  direct_boot = local.image == "built"
  host        = data.external.host.result
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
  target   = "libvirt"
  subnet   = local.subnet
  lab_dir  = local.lab_dir
  nodes    = module.topology.nodes
  groups   = module.topology.groups
  ssh = {
    user             = "lab"
    private_key_file = trimsuffix(local.ssh_public_key_file, ".pub")
    known_hosts_dir  = "${local.lab_dir}/known_hosts.d"
  }
  # Health checks wait that many times longer.
  variables = { lab_patience = local.virtualization == "kvm" ? "1" : "10" }
}

data "external" "host" {
  program = ["python3", "${local.scripts}/host_state.py"]
  query = {
    uri            = var.libvirt_uri
    lab            = local.lab_name
    bridge         = local.bridge
    subnet         = local.subnet
    network        = local.network
    network_uuid   = local.network_uuid
    pool           = local.pool
    pool_path      = local.pool_path
    virtualization = try(coalesce(var.virtualization, try(local.chosen.virtualization, null)), "")
    image          = local.image
    image_sha512   = var.debian_image.sha512
  }
}

# Everything else depends on this: nothing is made while anything is wrong, and all of it is said at once.
resource "terraform_data" "checked" {
  input = local.lab_name

  lifecycle {
    precondition {
      condition     = length(local.violations) == 0
      error_message = "This lab cannot be built as asked:\n${join("\n", [for text in local.violations : "  - ${text}"])}"
    }
  }
}

locals {
  violations = concat(
    jsondecode(local.host.violations),
    local.ssh_public_key == "" ? ["there is no SSH key ${local.ssh_public_key_file}: make one (ssh-keygen -t ed25519 -f ${trimsuffix(local.ssh_public_key_file, ".pub")}), or let `make lab` do it"] : [],
    module.topology.violations,
  )
}

check "speed" {
  assert {
    condition     = local.virtualization == "kvm"
    error_message = "Machines are emulated (qemu): there is no usable KVM here, or it was not asked for. Everything takes about 8 times as long."
  }
}
