#!/usr/bin/env python3
"""What terraform/libvirt does beside libvirt's provider, one verb each: `nodes.py VERB`, the specification in $SPEC.

Every verb can be repeated; `*-down` verbs succeed when the thing is gone already.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from lab_host import blackhole

Spec = dict[str, Any]
RETRY_S = 2
ATTEMPT_S = 60
CONSOLE_LINES = 15


class VerbError(Exception):
    """Something the user should read; the message says what to do."""


def as_root(*command: str) -> None:
    """Run a command as root; VerbError with its own words when it fails."""
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
    done = subprocess.run([*prefix, *command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise VerbError(f"{' '.join(command)}: {done.stderr.strip()}")


def state_up(spec: Spec) -> None:
    """Make the folder that all machines see; what is in it stays."""
    as_root("install", "-d", "-m", "755", spec["path"])


def state_down(spec: Spec) -> None:
    """Remove the folder with all that the services have put into it."""
    if not spec["path"].endswith("-state"):
        raise VerbError(f"{spec['path']} is no folder that state-up makes")
    as_root("rm", "-rf", "--one-file-system", spec["path"])


def seed_up(spec: Spec) -> None:
    """Make the image by which cloud-init's NoCloud source knows a machine.

    The three documents come packed (gzip, base64) in $USER_DATA, $META_DATA and $NETWORK_CONFIG.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name in ("user-data", "meta-data", "network-config"):
            packed = os.environ[name.upper().replace("-", "_")]
            Path(folder, name).write_bytes(gzip.decompress(base64.b64decode(packed)))
        as_root("mkisofs", "-quiet", "-volid", "cidata", "-joliet", "-rock", "-output", spec["path"], folder)


def seed_down(spec: Spec) -> None:
    """Remove the image."""
    as_root("rm", "-f", spec["path"])


def console_up(spec: Spec) -> None:
    """Begin the log of a machine's console, where there is none."""
    path = Path(spec["path"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def leftover_down(spec: Spec) -> None:
    """Remove the definition of a machine that never started; one that runs is the provider's to remove."""
    machine = f"{spec['lab']}-{spec['name']}"
    shut_off = subprocess.run(
        ["virsh", "--connect", spec["uri"], "list", "--state-shutoff", "--name"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if machine in shut_off.stdout.split():
        subprocess.run(["virsh", "--connect", spec["uri"], "undefine", machine], capture_output=True, check=False)


def access_up(spec: Spec) -> None:
    """Wait until the machine has booted and cloud-init is done; the first login learns its host key."""
    known = Path(spec["known_hosts_dir"], spec["name"])
    known.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    known.unlink(missing_ok=True)
    command = [
        "ssh", "-F", "/dev/null", "-i", spec["private_key"], "-o", f"UserKnownHostsFile={known}", "-o", "BatchMode=yes",
        "-o", "StrictHostKeyChecking=accept-new", "-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=10",
        "-o", "ServerAliveInterval=15", f"{spec['user']}@{spec['address']}", "cloud-init status --wait --long",
    ]  # fmt: skip
    deadline = time.monotonic() + spec["timeout_s"]
    said = "no answer"
    while time.monotonic() < deadline:
        remaining = max(ATTEMPT_S, deadline - time.monotonic())
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=remaining
            )
        except subprocess.TimeoutExpired:
            break
        # 255 is SSH's own: not there yet. 2 is cloud-init's for done with warnings.
        if done.returncode in (0, 2):
            return
        said = (done.stderr.strip() or done.stdout.strip()).replace("\n", "; ")
        if done.returncode != 255:
            raise VerbError(f"cloud-init has failed ({said}): {_console(spec)}")
        time.sleep(RETRY_S)
    raise VerbError(f"{spec['address']} does not answer after {spec['timeout_s']} s ({said}): {_console(spec)}")


def _console(spec: Spec) -> str:
    path = Path(spec["console"])
    try:
        lines = path.read_text(errors="replace").splitlines()[-CONSOLE_LINES:]
    except OSError:
        lines = []
    return f"its console, {path}, ends with:\n" + "\n".join(f"    {line}" for line in lines)


def access_down(spec: Spec) -> None:
    """Forget the machine's host key."""
    Path(spec["known_hosts_dir"], spec["name"]).unlink(missing_ok=True)


def routes_up(spec: Spec) -> None:
    """Add the blackhole rules."""
    blackhole("add", spec["subnet"])


def routes_down(spec: Spec) -> None:
    """Remove the blackhole route (`make clean`)."""
    blackhole("del", spec["subnet"])


VERBS: dict[str, Callable[[Spec], None]] = {
    "state-up": state_up,
    "state-down": state_down,
    "seed-up": seed_up,
    "seed-down": seed_down,
    "console-up": console_up,
    "leftover-down": leftover_down,
    "access-up": access_up,
    "access-down": access_down,
    "routes-up": routes_up,
    "routes-down": routes_down,
}


def main() -> int:
    """Run the verb on the command line."""
    if len(sys.argv) != 2 or sys.argv[1] not in VERBS:
        print(f"usage: SPEC=JSON {sys.argv[0]} {'|'.join(VERBS)}", file=sys.stderr)
        return 2
    spec = json.loads(os.environ["SPEC"])
    try:
        VERBS[sys.argv[1]](spec)
    except VerbError as error:
        print(f"{sys.argv[1]} of {spec.get('name', spec['lab'])}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
