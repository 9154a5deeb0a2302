# One compact base volume, and for each machine an overlay that holds what it has changed.

resource "libvirt_pool" "lab" {
  name = local.pool
  type = "dir"

  target {
    path = local.pool_path
  }

  depends_on = [terraform_data.checked]
}

# The image is kept when a lab goes: others use it.
resource "terraform_data" "image" {
  input            = local.host.image
  triggers_replace = [local.host.image]
  depends_on       = [terraform_data.checked]

  provisioner "local-exec" {
    command = "python3 ${abspath("${path.module}/../node_image/vm.py")} ${local.image} --url=${var.debian_image.url} --sha512=${var.debian_image.sha512}"
    quiet   = true
  }
}

resource "libvirt_volume" "base" {
  name   = "base.qcow2"
  pool   = libvirt_pool.lab.name
  source = "${local.host.image}/disk.qcow2"
  format = "qcow2"

  depends_on = [terraform_data.image]
  lifecycle {
    # A changed image does not replace what the machines' disks stand on: their data would go with it.
    ignore_changes = [source]
  }
}

resource "libvirt_volume" "boot" {
  for_each = local.direct_boot ? toset(["vmlinuz", "initrd"]) : toset([])

  name   = each.key
  pool   = libvirt_pool.lab.name
  source = "${local.host.image}/${each.key}"
  format = "raw"

  depends_on = [terraform_data.image]
  lifecycle {
    # The kernel belongs to the base volume's modules.
    ignore_changes = [source]
  }
}

resource "libvirt_volume" "node" {
  for_each = module.topology.nodes

  name           = "${each.key}.qcow2"
  pool           = libvirt_pool.lab.name
  base_volume_id = libvirt_volume.base.id
  format         = "qcow2"
  size           = var.disk_gib * pow(1024, 3)

  lifecycle {
    replace_triggered_by = [terraform_data.identity[each.key]]
  }
}

# What all machines see at the same path, so that checkpoints survive the loss of one.
resource "terraform_data" "state" {
  input = {
    lab     = local.lab_name
    path    = "${local.pool_path}-state"
    scripts = local.scripts
  }
  triggers_replace = ["${local.pool_path}-state"]
  depends_on       = [terraform_data.checked]

  provisioner "local-exec" {
    command     = "python3 ${self.input.scripts}/nodes.py state-up"
    environment = { SPEC = jsonencode(self.input) }
    quiet       = true
  }
  provisioner "local-exec" {
    when        = destroy
    command     = "python3 ${self.input.scripts}/nodes.py state-down"
    environment = { SPEC = jsonencode(self.input) }
    quiet       = true
  }
}
