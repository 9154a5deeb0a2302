"""What the targets on this machine ask of it, and the routing rules they leave behind. Standard library alone."""

from __future__ import annotations

import ipaddress
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Before the main table's own (32766).
BLACKHOLE_PREFERENCE = 32700


def memory_mib(meminfo: str) -> int:
    """Return the total of /proc/meminfo's text, in MiB."""
    for line in meminfo.splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // 1024
    raise ValueError("/proc/meminfo has no MemTotal")


def has_kvm(device: Path = Path("/dev/kvm"), cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tell whether the device opens and the CPU can: some hosts have the one without the other."""
    try:
        os.close(os.open(device, os.O_RDWR))
    except OSError:
        return False
    return re.search(r"^flags\s*:.*\b(vmx|svm)\b", cpuinfo.read_text(), re.MULTILINE) is not None


def subnet_conflicts(subnet: str, bridge: str, routes: list[dict[str, Any]]) -> list[str]:
    """Name the routes of `ip -json route` that overlap with the subnet, other than the lab's own and the default."""
    try:
        wanted = ipaddress.ip_network(subnet)
    except ValueError as error:
        return [f"subnet {subnet}: {error}: give an IPv4 network in CIDR notation, e.g. 10.77.0.0/24"]
    conflicts = []
    for route in routes:
        destination = route["dst"]
        if destination == "default" or route.get("type") == "blackhole" or route.get("dev") == bridge:
            continue
        if wanted.overlaps(ipaddress.ip_network(destination, strict=False)):
            device = route.get("dev", "?")
            conflicts.append(
                f"subnet {subnet} overlaps with the route to {destination} by {device}: choose another one, "
                "e.g. make lab SUBNET=10.77.0.0/24"
            )
    return conflicts


def cache(environment: Mapping[str, str]) -> Path:
    """Return the folder that keeps artifacts between labs; the rule of the role artifacts and of tools/lab."""
    if environment.get("CSL_CACHE"):
        return Path(environment["CSL_CACHE"])
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crypto-stream-lab"


def blackhole(action: str, subnet: str) -> None:
    """Add or remove (`add`, `del`) the rules that swallow what is meant for a lab that is down.

    The first rule lets routes to the lab count, but not the default route; the second refuses what is left. A route
    of type blackhole would do, but libvirt takes it for another network on the subnet. Needs root; without it the lab
    works all the same, but such traffic follows the default route.
    """
    for rule in (
        ["to", subnet, "lookup", "main", "suppress_prefixlength", "0", "pref", str(BLACKHOLE_PREFERENCE)],
        ["to", subnet, "blackhole", "pref", str(BLACKHOLE_PREFERENCE + 1)],
    ):
        # A rule that is there already is refused.
        subprocess.run(["ip", "rule", action, *rule], capture_output=True, check=False)
