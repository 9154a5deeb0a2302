#!/usr/bin/env python3
"""Tell Terraform what libvirt's host is and has (the program of `data.external.host`).

Reads a JSON object of strings (uri, lab, bridge, subnet, network, network_uuid, pool, pool_path, virtualization, image,
image_sha512) on standard input, and writes one: memory_mib, vcpus, virtualization (kvm or qemu), image (its folder in
the cache) and violations (JSON: sentences).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

TERRAFORM = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TERRAFORM / "scripts"), str(TERRAFORM / "node_image")]
import build  # noqa: E402 - found on the path set above
import vm  # noqa: E402
from lab_host import has_kvm, memory_mib, subnet_conflicts  # noqa: E402

PROGRAMS = ("virsh", "mkisofs", "xsltproc", "qemu-img")


class NoAnswerError(Exception):
    """libvirt does not answer; the text is its own."""


def virsh(uri: str, *arguments: str) -> str:
    """Return what virsh prints; NoAnswerError where the connection cannot be made or the command is refused."""
    try:
        done = subprocess.run(
            ["virsh", "--connect", uri, *arguments], capture_output=True, text=True, check=False, timeout=60
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise NoAnswerError(str(error)) from error
    if done.returncode != 0:
        raise NoAnswerError(done.stderr.strip().replace("\n", "; "))
    return done.stdout


def strangers(query: dict[str, str]) -> list[str]:
    """Name what somebody else has under a name that this lab would use; NoAnswerError where libvirt does not answer."""
    uri = query["uri"]
    networks = virsh(uri, "net-list", "--all", "--uuid").split()
    names = virsh(uri, "net-list", "--all", "--name").split()
    ours = query["network_uuid"] in networks
    found = []
    if query["network"] in names and not ours:
        found.append(f"the network {query['network']}")
    if query["pool"] in virsh(uri, "pool-list", "--all", "--name").split():
        path = re.search(r"<path>(.*?)</path>", virsh(uri, "pool-dumpxml", query["pool"]))
        if path is None or path[1] != query["pool_path"]:
            found.append(f"the storage pool {query['pool']}")
    elif Path(query["pool_path"]).is_dir() and any(Path(query["pool_path"]).iterdir()):
        found.append(f"the folder {query['pool_path']}, which is not empty")
    if not ours:
        found += [
            f"the machine {name}"
            for name in virsh(uri, "list", "--all", "--name").split()
            if name.startswith(f"{query['lab']}-")
        ]
    if not found:
        return []
    return [
        f"{', '.join(found)}: there already, and not of this lab. Choose another name (make lab LAB=..., or lab_name, "
        "network, pool, pool_path), or remove it where it was made"
    ]


def survey(query: dict[str, str]) -> dict[str, str]:
    """Return the answer to Terraform's query; see the module's text."""
    violations = [
        f"the program {program} is not there: `make setup TARGET=libvirt` installs it"
        for program in PROGRAMS
        if shutil.which(program) is None
    ]
    kvm = has_kvm()
    if query["virtualization"] == "kvm" and not kvm:
        violations.append(
            "virtualization is kvm, and this machine has no usable KVM (/dev/kvm must open, and the CPU show vmx or "
            "svm): leave it out, or use qemu, which is about 8 times slower"
        )
    if "virsh" not in " ".join(violations):
        try:
            violations += strangers(query)
        except NoAnswerError as error:
            violations.append(
                f"libvirt does not answer at {query['uri']} ({error}): start it (`make setup TARGET=libvirt`), join "
                "the group libvirt and log in again, or correct libvirt_uri"
            )
    routes = json.loads(subprocess.run(["ip", "-json", "-4", "route"], check=True, capture_output=True).stdout or "[]")
    violations += subnet_conflicts(query["subnet"], query["bridge"], routes)
    image = build.cache_directory() / vm.image_name(query["image"], query["image_sha512"])
    violations += vm.faults(image)
    return {
        "memory_mib": str(memory_mib(Path("/proc/meminfo").read_text())),
        "vcpus": str(os.cpu_count() or 1),
        "virtualization": "kvm" if kvm else "qemu",
        "image": str(image),
        "violations": json.dumps(violations),
    }


if __name__ == "__main__":
    if shutil.which("ip") is None:
        sys.exit("the program ip is not there: apt-get install iproute2")
    json.dump(survey(json.load(sys.stdin)), sys.stdout)
