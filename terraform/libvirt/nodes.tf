locals {
  state_tag   = "lab-state"
  state_path  = "/srv/lab-state"
  ca_dir      = trimsuffix(var.extra_ca_dir, "/")
  trusted_cas = [for name in try(fileset(local.ca_dir, "**/*.crt"), []) : file("${local.ca_dir}/${name}")]

  # 52:54:00 is QEMU's own prefix.
  macs = { for name in keys(module.topology.nodes) : name => join(":", concat(["52", "54", "00"], regexall("..", substr(sha256("${local.owner}/${name}"), 0, 6)))) }

  user_data = {
    for name in keys(module.topology.nodes) : name => merge(
      {
        hostname         = "${local.lab_name}-${name}"
        manage_etc_hosts = false
        users = [{
          name                = "lab"
          shell               = "/bin/bash"
          sudo                = "ALL=(ALL) NOPASSWD:ALL"
          lock_passwd         = true
          ssh_authorized_keys = [local.ssh_public_key]
        }]
        disable_root   = true
        ssh_pwauth     = false
        ssh_deletekeys = false
        package_update = false
        # The image has none to choose from.
        locale = false
        mounts = [[local.state_tag, local.state_path, "virtiofs", "defaults", "0", "0"]]
      },
      length(local.trusted_cas) == 0 ? {} : { ca_certs = { trusted = local.trusted_cas } },
    )
  }

  meta_data = {
    for name in keys(module.topology.nodes) : name => {
      instance-id    = "${local.lab_name}-${name}-${local.owner}"
      local-hostname = "${local.lab_name}-${name}"
    }
  }

  network_config = {
    for name, node in module.topology.nodes : name => {
      version = 2
      ethernets = {
        eth0 = {
          match       = { macaddress = local.macs[name] }
          set-name    = "eth0"
          addresses   = ["${node.address}/${split("/", local.subnet)[1]}"]
          gateway4    = module.topology.gateway
          nameservers = { addresses = [module.topology.gateway], search = [local.domain] }
        }
      }
    }
  }
}

# A machine is another one when its address is: disk and cloud-init data, which it has read once, go with it.
resource "terraform_data" "identity" {
  for_each = module.topology.nodes

  triggers_replace = [each.value.address, local.subnet]
  depends_on       = [terraform_data.checked]
}

# What cloud-init reads at the first boot, and only then: a change does not concern a machine that is there. The
# provider's own libvirt_cloudinit_disk reads the image back for every plan, and now and then gets only a part of it.
resource "terraform_data" "seed" {
  for_each = module.topology.nodes

  input = {
    lab     = local.lab_name
    name    = each.key
    path    = "${local.pool_path}/${each.key}-cloudinit.iso"
    scripts = local.scripts
  }
  triggers_replace = ["${local.pool_path}/${each.key}-cloudinit.iso"]
  depends_on       = [libvirt_pool.lab]

  lifecycle {
    replace_triggered_by = [terraform_data.identity[each.key]]
  }

  provisioner "local-exec" {
    command = "python3 ${self.input.scripts}/nodes.py seed-up"
    environment = {
      SPEC = jsonencode(self.input)
      # Packed, since one variable holds 128 KiB and certificates may be many.
      USER_DATA      = base64gzip("#cloud-config\n${yamlencode(local.user_data[each.key])}")
      META_DATA      = base64gzip(yamlencode(local.meta_data[each.key]))
      NETWORK_CONFIG = base64gzip(yamlencode(local.network_config[each.key]))
    }
    quiet = true
  }
  provisioner "local-exec" {
    when        = destroy
    command     = "python3 ${self.input.scripts}/nodes.py seed-down"
    environment = { SPEC = jsonencode(self.input) }
    quiet       = true
  }
}

# The log of all boots, kept for diagnosis also when the machine is gone. libvirt wants the file to be there.
resource "terraform_data" "console" {
  for_each = module.topology.nodes

  input = {
    lab     = local.lab_name
    name    = each.key
    uri     = var.libvirt_uri
    path    = "${local.lab_dir}/logs/console-${each.key}.log"
    scripts = local.scripts
  }
  triggers_replace = [local.lab_dir]
  depends_on       = [terraform_data.checked]

  provisioner "local-exec" {
    command     = "python3 ${self.input.scripts}/nodes.py console-up"
    environment = { SPEC = jsonencode(self.input) }
    quiet       = true
  }
  # The provider does not know of a machine that could be defined but not started.
  provisioner "local-exec" {
    when        = destroy
    command     = "python3 ${self.input.scripts}/nodes.py leftover-down"
    environment = { SPEC = jsonencode(self.input) }
    quiet       = true
  }
}

resource "libvirt_domain" "node" {
  for_each = module.topology.nodes

  name      = "${local.lab_name}-${each.key}"
  type      = local.virtualization
  vcpu      = each.value.vcpus
  memory    = each.value.memory_mib
  autostart = false

  # Options with a value in one mapping, the others in the next: so the provider reads them back.
  kernel  = local.direct_boot ? libvirt_volume.boot["vmlinuz"].id : null
  initrd  = local.direct_boot ? libvirt_volume.boot["initrd"].id : null
  cmdline = local.direct_boot ? [{ console = "ttyS0", root = "/dev/vda", "net.ifnames" = "0" }, { "_" = "rw" }] : []

  cpu {
    # Which model, domain.xslt says.
    mode = local.virtualization == "kvm" ? "host-passthrough" : "custom"
  }

  disk {
    volume_id = libvirt_volume.node[each.key].id
  }
  disk {
    file = terraform_data.seed[each.key].output.path
  }

  network_interface {
    network_id     = libvirt_network.lab.id
    mac            = upper(local.macs[each.key])
    wait_for_lease = false
  }

  filesystem {
    source     = terraform_data.state.output.path
    target     = local.state_tag
    accessmode = "passthrough"
    readonly   = false
  }

  xml {
    # The provider cannot say these itself.
    xslt = replace(replace(
      file("${path.module}/domain.xslt"),
      "POOL-PATH", local.pool_path),
      "CONSOLE-LOG", terraform_data.console[each.key].output.path,
    )
  }

  lifecycle {
    replace_triggered_by = [terraform_data.identity[each.key]]
  }
}

# Waits until cloud-init is done, and learns the host key. No prompt later, and no other key accepted.
resource "terraform_data" "access" {
  for_each = module.topology.nodes

  input = {
    lab             = local.lab_name
    name            = each.key
    address         = each.value.address
    user            = "lab"
    private_key     = trimsuffix(local.ssh_public_key_file, ".pub")
    known_hosts_dir = "${local.lab_dir}/known_hosts.d"
    console         = terraform_data.console[each.key].output.path
    timeout_s       = local.virtualization == "kvm" ? 300 : 1200
    scripts         = local.scripts
  }
  triggers_replace = [libvirt_domain.node[each.key].id, libvirt_volume.node[each.key].id]

  provisioner "local-exec" {
    command     = "python3 ${self.input.scripts}/nodes.py access-up"
    environment = { SPEC = jsonencode(self.input) }
    quiet       = true
  }
  provisioner "local-exec" {
    when        = destroy
    command     = "python3 ${self.input.scripts}/nodes.py access-down"
    environment = { SPEC = jsonencode(self.input) }
    quiet       = true
  }
}
