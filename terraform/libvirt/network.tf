# Addresses are fixed, in the machines and in their MAC addresses: nothing waits for a lease.

resource "libvirt_network" "lab" {
  name      = local.network
  mode      = "nat"
  bridge    = local.bridge
  domain    = local.domain
  addresses = [local.subnet]
  autostart = false

  dhcp {
    enabled = false
  }
  dns {
    enabled    = true
    local_only = true
  }
  xml {
    xslt = replace(file("${path.module}/network.xslt"), "NETWORK-UUID", local.network_uuid)
  }

  depends_on = [terraform_data.checked, terraform_data.route]
}

# While the bridge is away, nothing meant for the lab leaves this machine.
resource "terraform_data" "route" {
  input = {
    lab     = local.lab_name
    subnet  = local.subnet
    scripts = local.scripts
  }
  triggers_replace = [local.subnet]
  depends_on       = [terraform_data.checked]

  provisioner "local-exec" {
    command     = "python3 ${self.input.scripts}/nodes.py routes-up"
    environment = { SPEC = jsonencode(self.input) }
    quiet       = true
  }
}
