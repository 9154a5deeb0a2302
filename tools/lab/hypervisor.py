"""libvirt on this machine: install, start, and what its nodes need done."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import screen
from context import REPOSITORY, Context, LabError, explain, progress
from machine import apt_install, as_root, run

URI = "qemu:///system"
# Program => Debian/Ubuntu package that brings it. The provider calls xsltproc.
PACKAGES = {
    "virsh": "libvirt-clients",
    "libvirtd": "libvirt-daemon-system",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "mkisofs": "genisoimage",
    "xsltproc": "xsltproc",
    "mke2fs": "e2fsprogs",
    # What libvirt lets its network's traffic through by.
    "iptables": "iptables",
    "dnsmasq": "dnsmasq-base",
}
BOOT_TIMEOUT_S = 120
SSH_FAILED = 255
IMAGE_TOOL = REPOSITORY / "terraform" / "node_image" / "vm.py"
SYSTEM_PATHS = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def uri() -> str:
    """Return the connection that LIBVIRT_URI names, by default this machine's."""
    return os.environ.get("LIBVIRT_URI") or URI


def install() -> None:
    """Have libvirt and the emulator installed and answering; a libvirt elsewhere needs its client only."""
    wanted = (
        PACKAGES if uri() == URI else {name: PACKAGES[name] for name in ("virsh", "mkisofs", "xsltproc", "qemu-img")}
    )
    missing = [package for program, package in wanted.items() if shutil.which(program, path=SYSTEM_PATHS) is None]
    if missing:
        apt_install(missing)
    if _answers():
        return
    if uri() != URI:
        raise LabError(f"libvirt does not answer at {uri()}: try `virsh -c {uri()} list`")
    if Path("/run/systemd/system").is_dir():
        run("start libvirtd", as_root(["systemctl", "start", "libvirtd"]), "see `journalctl -u libvirtd`")
    else:
        # Machines without an init system: the daemons run in the background until a reboot.
        for daemon in ("virtlogd", "libvirtd"):
            run(f"start {daemon}", as_root([shutil.which(daemon, path=SYSTEM_PATHS) or daemon, "-d"]), "run it by hand")
    with progress("wait for libvirt"):
        deadline = time.monotonic() + 60
        while not _answers():
            if time.monotonic() > deadline:
                raise LabError(
                    f"libvirt does not answer: try `virsh -c {URI} list` (you may have to join the group libvirt)"
                )
            time.sleep(0.5)


def _answers() -> bool:
    try:
        asked = subprocess.run(["virsh", "-c", uri(), "version"], capture_output=True, timeout=20, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


def image_command(context: Context, kind: str) -> list[str] | None:
    """Return the command that provides a disk image, or None where the cache has it."""
    url, sha512 = debian_image(context)
    command = [sys.executable, str(IMAGE_TOOL), kind, f"--url={url}", f"--sha512={sha512}"]
    there = subprocess.run([*command, "--is-there"], capture_output=True, check=False)
    return None if there.returncode == 0 else command


def debian_image(context: Context) -> tuple[str, str]:
    """Return address and SHA-512 of Debian's image, as the Terraform root has them by default or by its tfvars."""
    shown = subprocess.run(
        ["terraform", f"-chdir={context.terraform_root}", "console"], input="jsonencode(var.debian_image)\n",
        capture_output=True, text=True, check=False, env=context.environment,
    )  # fmt: skip
    if shown.returncode != 0:
        raise LabError("\n".join(["Terraform cannot tell which image is wanted:", *explain(shown.stderr)]))
    # The console prints a string in quotes of its own.
    image = json.loads(json.loads(shown.stdout.strip().splitlines()[-1]))
    return image["url"], image["sha512"]


def start_stopped_nodes(context: Context) -> None:
    """Start the lab's machines that are shut off, and wait until they answer."""
    shown = subprocess.run(
        ["virsh", "-c", uri(), "list", "--state-shutoff", "--name"], capture_output=True, text=True, check=False
    )
    nodes = screen.inventory(context)
    stopped = [node for node in nodes["_meta"]["hostvars"] if f"{context.lab}-{node}" in shown.stdout.split()]
    for node in stopped:
        name = f"{context.lab}-{node}"
        run(f"start the stopped node {name}", ["virsh", "-c", uri(), "start", name], f"see `virsh dominfo {name}`")
    for node in stopped:
        _wait_for_login(context, node, BOOT_TIMEOUT_S * screen.patience(nodes))


def _wait_for_login(context: Context, node: str, timeout_s: float) -> None:
    with progress(f"wait for {node}"):
        deadline = time.monotonic() + timeout_s
        while screen.on_node(context, node, "systemctl is-system-running --wait").returncode == SSH_FAILED:
            if time.monotonic() > deadline:
                raise LabError(f"{node} does not answer: {context.logs / f'console-{node}.log'}")
            time.sleep(2)
