"""Virtual machines: what libvirt was asked for is what there is, with a kernel, cloud-init and a boot of their own."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import screen
from live_lab import Lab

pytestmark = pytest.mark.target("libvirt")

GIB_IN_KIB = 1 << 20


def virsh(*arguments: str) -> str:
    return subprocess.run(
        ["virsh", "--connect", "qemu:///system", *arguments], capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture(scope="module")
def definitions(lab: Lab) -> dict[str, ET.Element]:
    """Each node's definition, as libvirt runs it."""
    return {node: ET.fromstring(virsh("dumpxml", f"{lab.context.lab}-{node}")) for node in lab.nodes}  # noqa: S314 - libvirt wrote it


def text(element: ET.Element, path: str) -> str:
    found = element.findtext(path)
    assert found is not None, path
    return found


def attribute(element: ET.Element, path: str, name: str) -> str:
    found = element.find(path)
    assert found is not None, path
    return found.attrib[name]


def output(lab: Lab, name: str) -> str:
    return subprocess.run(
        ["terraform", f"-chdir={lab.context.terraform_root}", "output", "-raw", name],
        capture_output=True, text=True, check=True, env=lab.context.environment,
    ).stdout  # fmt: skip


def test_machines_are_as_asked(lab: Lab, definitions: dict[str, ET.Element]) -> None:
    for node, machine in definitions.items():
        asked = lab.inventory["_meta"]["hostvars"][node]
        assert machine.attrib["type"] == output(lab, "virtualization")
        assert int(text(machine, "memory")) == asked["lab_node_memory_mib"] * 1024
        assert int(text(machine, "vcpu")) == asked["lab_node_vcpus"]
        assert attribute(machine, "devices/interface/source", "bridge") == f"{lab.context.lab}-br"


def test_disk_is_an_overlay_on_the_shared_base(definitions: dict[str, ET.Element]) -> None:
    for node, machine in definitions.items():
        (disk,) = (found for found in machine.findall("devices/disk") if found.attrib["device"] == "disk")
        assert attribute(disk, "driver", "type") == "qcow2"
        assert attribute(disk, "driver", "discard") == "unmap"
        path = attribute(disk, "source", "file")
        assert Path(path).name == f"{node}.qcow2"
        described = subprocess.run(
            ["qemu-img", "info", "--force-share", path], capture_output=True, text=True, check=True
        ).stdout
        assert "backing file: " in described
        assert "base.qcow2" in described


def test_addresses_are_fixed(lab: Lab, definitions: dict[str, ET.Element]) -> None:
    macs = set()
    for node, machine in definitions.items():
        mac = attribute(machine, "devices/interface/mac", "address").lower()
        assert mac.startswith("52:54:00:")
        macs.add(mac)
        host = lab.host(node)
        assert host.file("/sys/class/net/eth0/address").content_string.strip() == mac
        assert lab.inventory["_meta"]["hostvars"][node]["lab_node_address"] in host.interface("eth0").addresses
    assert len(macs) == len(definitions)


def test_kernel_and_init_are_their_own(lab: Lab) -> None:
    boot_ids = {Path("/proc/sys/kernel/random/boot_id").read_text()}
    for node in lab.nodes:
        host = lab.host(node)
        boot_ids.add(host.file("/proc/sys/kernel/random/boot_id").content_string)
        assert host.check_output("systemd-detect-virt") in ("qemu", "kvm")
        assert host.check_output("cloud-init status") == "status: done"
        assert host.check_output("hostname") == f"{lab.context.lab}-{node}"
    assert len(boot_ids) == len(lab.nodes) + 1


def test_console_is_logged(lab: Lab) -> None:
    for node in lab.nodes:
        log = (lab.context.logs / f"console-{node}.log").read_text(errors="replace")
        assert "Linux version" in log
        assert f"{lab.context.lab}-{node} login:" in log


def test_disk_has_grown_to_its_size(lab: Lab) -> None:
    for node in lab.nodes:
        assert int(lab.host(node).check_output("df --output=size / | tail -1")) > 7 * GIB_IN_KIB


def test_all_see_the_shared_state_directory(lab: Lab) -> None:
    name = f"seen-{uuid.uuid4()}"
    first = lab.host(lab.nodes[0])
    with first.sudo():
        first.check_output(f"install -o 4242 -m 640 /dev/null /srv/lab-state/{name}")
    try:
        for node in lab.nodes:
            host = lab.host(node)
            assert host.check_output("findmnt -n -o FSTYPE /srv/lab-state") == "virtiofs"
            assert host.check_output(f"stat -c '%u %a' /srv/lab-state/{name}") == "4242 640"
    finally:
        with first.sudo():
            first.check_output(f"rm /srv/lab-state/{name}")


def test_controllers_certificates_are_trusted(lab: Lab) -> None:
    folder = os.environ.get("TF_VAR_extra_ca_dir") or "/usr/local/share/ca-certificates"  # noqa: SIM112 - Terraform's spelling
    own = sorted(Path(folder).rglob("*.crt"))
    if not own:
        pytest.skip("this machine has no certificates of its own")
    for node in lab.nodes:
        trusted = lab.host(node).file("/etc/ssl/certs/ca-certificates.crt").content_string
        for certificate in own:
            assert certificate.read_text().strip() in trusted


def test_second_plan_is_empty(lab: Lab) -> None:
    applied = json.loads((lab.context.lab_dir / "applied.json").read_text())
    done = subprocess.run(
        ["terraform", f"-chdir={lab.context.terraform_root}", "plan", "-detailed-exitcode", "-no-color", "-lock=false",
         *applied],
        capture_output=True, text=True, check=False, env=lab.context.environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.disruptive
def test_machine_survives_a_reboot(lab: Lab) -> None:
    if lab.group("submitter"):
        pytest.skip("this lab has services, with which test_lab_recovery restarts each of its nodes")
    node = lab.nodes[-1]
    before = lab.host(node).file("/proc/sys/kernel/random/boot_id").content_string
    screen.on_node(lab.context, node, "sudo systemctl reboot")

    def booted_again() -> bool:
        done = screen.on_node(lab.context, node, "cat /proc/sys/kernel/random/boot_id; findmnt -n /srv/lab-state")
        return done.returncode == 0 and before not in done.stdout and "virtiofs" in done.stdout

    time.sleep(5)
    lab.wait_for(booted_again, f"{node} to boot again")
