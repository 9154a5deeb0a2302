# What instances do at their first boot, as values that are encoded. Nothing in it is secret: it can be read on the
# instance and by whoever may describe it.

locals {
  # Nobody else can log in: without `default` in the list, Debian's own user `admin` is not made.
  user = {
    name                = "lab"
    uid                 = "1000"
    shell               = "/bin/bash"
    lock_passwd         = true
    ssh_authorized_keys = [local.public_key]
  }
  common_config = {
    ssh_pwauth        = false
    disable_root      = true
    timezone          = "UTC"
    package_update    = true
    preserve_hostname = false
  }
  apt_file = {
    path        = "/etc/apt/apt.conf.d/80lab"
    permissions = "0644"
    content     = "APT::Install-Recommends \"false\";\nAcquire::Retries \"5\";\n"
  }
  sshd_file = {
    path        = "/etc/ssh/sshd_config.d/lab.conf"
    permissions = "0644"
    content     = "PasswordAuthentication no\nPermitRootLogin no\nX11Forwarding no\nAllowAgentForwarding no\nUseDNS no\n"
  }

  # systemd's name for the mount of /srv/lab-state.
  state_unit = "srv-lab\\x2dstate.mount"
  tunnel_unit = join("\n", [
    "[Unit]",
    "Description=TLS to the shared state directory",
    "Wants=network-online.target",
    "After=network-online.target nss-lookup.target",
    # So that it ends after the mount.
    "Before=remote-fs-pre.target",
    "StartLimitIntervalSec=0",
    "[Service]",
    "ExecStart=/usr/bin/stunnel4 /etc/lab-state/stunnel.conf",
    "Restart=always",
    "RestartSec=2",
    "DynamicUser=true",
    "NoNewPrivileges=true",
    "CapabilityBoundingSet=",
    "ProtectSystem=strict",
    "ProtectHome=true",
    "PrivateDevices=true",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
    "[Install]",
    "WantedBy=multi-user.target",
    "",
  ])
  mount_unit = join("\n", [
    "[Unit]",
    "Description=Shared state directory of the lab",
    "Requires=lab-state-tunnel.service",
    "After=lab-state-tunnel.service network-online.target",
    "[Mount]",
    "What=127.0.0.1:/",
    "Where=${local.state_path}",
    "Type=nfs4",
    # Hard: a program waits while the file system does not answer, and is not told that a write was lost.
    "Options=nfsvers=4.1,port=${local.state_tunnel_port},rsize=1048576,wsize=1048576,hard,timeo=600,retrans=2,noresvport,noatime,_netdev",
    "TimeoutSec=180",
    "[Install]",
    "WantedBy=multi-user.target remote-fs.target",
    "",
  ])
  stunnel_conf = join("\n", [
    "foreground = yes",
    "syslog = no",
    "pid =",
    "[state]",
    "client = yes",
    "accept = 127.0.0.1:${local.state_tunnel_port}",
    "connect = ${aws_efs_file_system.state.dns_name}:2049",
    "sslVersionMin = TLSv1.2",
    "verifyChain = yes",
    "CAfile = /etc/ssl/certs/ca-certificates.crt",
    "checkHost = ${aws_efs_file_system.state.dns_name}",
    "TIMEOUTclose = 0",
    "",
  ])

  node_config = {
    for name in keys(module.topology.nodes) : name => merge(local.common_config, {
      hostname = name
      users    = [merge(local.user, { sudo = "ALL=(ALL) NOPASSWD:ALL" })]
      packages = ["acl", "ca-certificates", "nfs-common", "python3", "python3-apt", "stunnel4"]
      write_files = [
        local.apt_file,
        local.sshd_file,
        # As in the image of the other targets: the role postgres makes the cluster.
        { path = "/etc/postgresql-common/createcluster.conf", permissions = "0644", content = "create_main_cluster = false\nstart_conf = 'auto'\n" },
        { path = "/etc/lab-state/stunnel.conf", permissions = "0644", content = local.stunnel_conf },
        { path = "/etc/systemd/system/lab-state-tunnel.service", permissions = "0644", content = local.tunnel_unit },
        { path = "/etc/systemd/system/${local.state_unit}", permissions = "0644", content = local.mount_unit },
      ]
      runcmd = [
        ["systemctl", "try-reload-or-restart", "ssh"],
        ["mkdir", "-p", local.state_path],
        ["systemctl", "daemon-reload"],
        # Nothing may run into the empty folder below the mount; the file system's name can take a minute to be known.
        ["chattr", "+i", local.state_path],
        ["systemctl", "enable", "--now", "lab-state-tunnel.service"],
        ["systemctl", "enable", local.state_unit],
        ["sh", "-c", "for attempt in $(seq 60); do systemctl start '${local.state_unit}' && exit 0; sleep 5; done; exit 1"],
      ]
    })
  }

  bastion_config = merge(local.common_config, {
    hostname = "bastion"
    # It passes connections on to the nodes and does nothing else: no shell, no sudo.
    users = [merge(local.user, {
      shell               = "/usr/sbin/nologin"
      ssh_authorized_keys = ["restrict,port-forwarding ${local.public_key}"]
    })]
    package_upgrade = true
    packages        = ["unattended-upgrades"]
    write_files     = [local.apt_file, local.sshd_file]
    runcmd          = [["systemctl", "try-reload-or-restart", "ssh"]]
  })
}
