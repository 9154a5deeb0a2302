#!/usr/bin/env python3
"""What terraform/lxd's resources do, one verb each: `lxd.py VERB`, the specification as JSON in $SPEC.

Every verb can be repeated: it makes what is missing and leaves alone what is as asked. `*-down` verbs succeed when the
thing is gone already, and touch nothing that carries another lab's label.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from lab_host import blackhole

STATE_PATH = "/srv/lab-state"
# The controller's artifacts, read-only: a node unpacks them from here instead of getting them over SSH.
ARTIFACTS_PATH = "/srv/lab-artifacts"
# The user that the node image has for SSH (terraform/node_image/recipe.json).
LAB_UID = 1000
LAB_SSH_FOLDER = "/home/lab/.ssh"
BOOT_TIMEOUT_S = 120
EXEC_TIMEOUT_S = 10

Spec = dict[str, Any]


class VerbError(Exception):
    """Something the user should read; the message says what to do."""


class Client:
    """The `lxc` or `incus` command line client."""

    def __init__(self, program: str) -> None:
        self.program = program

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Run a command and return what it printed; VerbError with its own words when it fails."""
        done = subprocess.run(
            [self.program, *arguments], input=stdin or "", capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise VerbError(f"{self.program} {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def get(self, path: str) -> Any:  # noqa: ANN401 - JSON
        """Return the object at an API path, or None where there is none."""
        done = subprocess.run([self.program, "query", path], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            if "not found" in done.stderr.lower():
                return None
            raise VerbError(f"{self.program} query {path}: {done.stderr.strip()}")
        return json.loads(done.stdout)


def labels(spec: Spec) -> dict[str, str]:
    """Return the labels by which a later run recognises what this one made."""
    return {
        "user.csl.lab": spec["lab"],
        "user.csl.owner": spec["owner"],
        "user.csl.generation": spec["generation"],
    }


def is_ours(thing: dict[str, Any] | None, spec: Spec) -> bool:
    """Tell whether a thing exists and was made by this lab."""
    return thing is not None and thing["config"].get("user.csl.owner") == spec["owner"]


def _options(config: dict[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in config.items()]


def _retry(action: Callable[[], object], attempts: int = 10) -> None:
    # LXD lets go of a volume a moment after the last node that used it is gone.
    for attempt in range(1, attempts + 1):
        try:
            action()
        except VerbError:
            if attempt == attempts:
                raise
            time.sleep(1)
        else:
            return


def _delete_leftovers(client: Client, spec: Spec) -> None:
    # Terraform runs no destroy step for a node whose creation failed; what it left goes with the network and the pool.
    for instance in client.get("/1.0/instances?recursion=1"):
        if is_ours(instance, spec):
            # Network and pool go at the same time, and each sees the other's deletion under way.
            _retry(lambda name=instance["name"]: _delete_if_there(client, name))  # type: ignore[misc]


def _delete_if_there(client: Client, name: str) -> None:
    if client.get(f"/1.0/instances/{name}") is not None:
        client.run("delete", "--force", name)


def ssh_key_up(_client: Client, spec: Spec) -> None:
    """Make the lab's SSH key; its comment is the generation."""
    path = Path(spec["path"])
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    public = Path(f"{path}.pub")
    if path.is_file() and public.is_file() and public.read_text().split()[-1] == spec["generation"]:
        return
    path.unlink(missing_ok=True)
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", spec["generation"], "-f", str(path)], check=True
    )


def network_up(client: Client, spec: Spec) -> None:
    """Make the lab's bridge with DHCP, DNS and NAT."""
    blackhole("add", spec["subnet"])
    network = client.get(f"/1.0/networks/{spec['name']}")
    if is_ours(network, spec) and network["config"]["ipv4.address"] == spec["address"]:
        return
    client.run(
        "network", "create", spec["name"],
        *_options({
            "ipv4.address": spec["address"],
            "ipv4.nat": "true",
            "ipv6.address": "none",
            "dns.domain": spec["domain"],
            **labels(spec),
        }),
    )  # fmt: skip


def network_down(client: Client, spec: Spec) -> None:
    """Remove the bridge; the blackhole rules stay, so that nothing meant for the lab leaves this machine."""
    if is_ours(client.get(f"/1.0/networks/{spec['name']}"), spec):
        _delete_leftovers(client, spec)
        _retry(lambda: client.run("network", "delete", spec["name"]))


def storage_up(client: Client, spec: Spec) -> None:
    """Make the lab's storage pool, and in it the volume for the shared state directory."""
    if not is_ours(client.get(f"/1.0/storage-pools/{spec['pool']}"), spec):
        client.run("storage", "create", spec["pool"], "dir", *_options(labels(spec)))
    if client.get(f"/1.0/storage-pools/{spec['pool']}/volumes/custom/{spec['volume']}") is None:
        client.run("storage", "volume", "create", spec["pool"], spec["volume"])


def storage_down(client: Client, spec: Spec) -> None:
    """Remove the volume and the pool."""
    if not is_ours(client.get(f"/1.0/storage-pools/{spec['pool']}"), spec):
        return
    _delete_leftovers(client, spec)
    if client.get(f"/1.0/storage-pools/{spec['pool']}/volumes/custom/{spec['volume']}") is not None:
        _retry(lambda: client.run("storage", "volume", "delete", spec["pool"], spec["volume"]))
    _retry(lambda: client.run("storage", "delete", spec["pool"]))


def node_up(client: Client, spec: Spec) -> None:
    """Make and start a node with its address, limits and the shared state directory, and wait until it has booted."""
    name = spec["instance"]
    instance = client.get(f"/1.0/instances/{name}")
    if instance is not None and not is_ours(instance, spec):
        raise VerbError(f"an instance {name} is there already and is not this lab's: choose another lab name")
    if instance is not None and (
        instance["config"].get("user.csl.ready") != "true"
        or instance["config"].get("user.csl.generation") != spec["generation"]
    ):
        # Left half-made by an interrupted run.
        node_down(client, spec)
        instance = None
    if instance is None:
        config = {
            **labels(spec),
            "limits.cpu": os.environ["VCPUS"],
            "limits.memory": f"{os.environ['MEMORY_MIB']}MiB",
            "boot.autostart": "true",
        }
        client.run(
            "init", os.environ["IMAGE"], name, "--no-profiles", "--storage", spec["pool"], "--network", spec["network"],
            *(part for option in _options(config) for part in ("-c", option)),
        )  # fmt: skip
        client.run("config", "device", "set", name, "eth0", f"ipv4.address={spec['address']}")
        client.run(
            "config", "device", "add", name, "state", "disk",
            f"pool={spec['pool']}", f"source={spec['volume']}", f"path={STATE_PATH}",
        )  # fmt: skip
        artifacts = Path(os.environ["ARTIFACTS"])
        artifacts.mkdir(parents=True, exist_ok=True)
        # The node's root is nobody here.
        artifacts.chmod(0o755)
        client.run(
            "config", "device", "add", name, "artifacts", "disk", f"source={artifacts}",
            f"path={ARTIFACTS_PATH}", "readonly=true", "required=false",
        )  # fmt: skip
    if client.get(f"/1.0/instances/{name}/state")["status"] != "Running":
        client.run("start", name)
    _wait_for_boot(client, name)
    client.run("config", "set", name, "user.csl.ready", "true")


def _wait_for_boot(client: Client, name: str) -> None:
    deadline = time.monotonic() + BOOT_TIMEOUT_S
    state = ""
    while time.monotonic() < deadline:
        state = _system_state(client, name)
        if state in {"running", "degraded"}:
            return
        time.sleep(0.3)
    raise VerbError(
        f"{name} did not finish booting in {BOOT_TIMEOUT_S} s ({state}): {client.program} console {name} --show-log"
    )


def _system_state(client: Client, name: str) -> str:
    # A command that is sent into a container in its first moments can wait for ever: it is asked again.
    try:
        done = subprocess.run(
            [client.program, "exec", name, "--", "systemctl", "is-system-running"],
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=EXEC_TIMEOUT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "no answer"
    return done.stdout.strip()


def node_down(client: Client, spec: Spec) -> None:
    """Remove a node."""
    if is_ours(client.get(f"/1.0/instances/{spec['instance']}"), spec):
        # LXD may be starting it at this moment, after the machine was started anew.
        _retry(lambda: _delete_if_there(client, spec["instance"]))


def limits_up(client: Client, spec: Spec) -> None:
    """Give a running node its limits."""
    wanted = {"limits.cpu": str(spec["vcpus"]), "limits.memory": f"{spec['memory_mib']}MiB"}
    instance = client.get(f"/1.0/instances/{spec['instance']}")
    if not is_ours(instance, spec):
        raise VerbError(f"there is no instance {spec['instance']} of this lab: run terraform apply again")
    for key, value in wanted.items():
        if instance["config"].get(key) != value:
            client.run("config", "set", spec["instance"], f"{key}={value}")


def access_up(client: Client, spec: Spec) -> None:
    """Let our SSH key in and learn the node's host key."""
    name = spec["instance"]
    public_key = Path(spec["public_key"]).read_text()
    client.run("exec", name, "--", "install", "-d", "-m", "700", "-o", "lab", "-g", "lab", LAB_SSH_FOLDER)
    # Not through `exec`: on a busy host it now and then loses what a short command reads or prints.
    client.run(
        "file", "push", "-", f"{name}{LAB_SSH_FOLDER}/authorized_keys",
        f"--uid={LAB_UID}", f"--gid={LAB_UID}", "--mode=0600",
        stdin=public_key,
    )  # fmt: skip
    kind, key, *_ = client.run("file", "pull", f"{name}/etc/ssh/ssh_host_ed25519_key.pub", "-").split()
    known = Path(spec["hosts_dir"], spec["name"])
    known.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    known.write_text(f"{spec['address']} {kind} {key}\n")


def access_down(_client: Client, spec: Spec) -> None:
    """Forget the node's host key."""
    Path(spec["hosts_dir"], spec["name"]).unlink(missing_ok=True)


def routes_down(_client: Client, spec: Spec) -> None:
    """Remove the blackhole rules (`make clean`)."""
    blackhole("del", spec["subnet"])


VERBS: dict[str, Callable[[Client, Spec], None]] = {
    "ssh-key-up": ssh_key_up,
    "network-up": network_up,
    "network-down": network_down,
    "storage-up": storage_up,
    "storage-down": storage_down,
    "node-up": node_up,
    "node-down": node_down,
    "limits-up": limits_up,
    "access-up": access_up,
    "access-down": access_down,
    "routes-down": routes_down,
}


def main() -> int:
    """Run the verb on the command line."""
    if len(sys.argv) != 2 or sys.argv[1] not in VERBS:
        print(f"usage: SPEC=JSON {sys.argv[0]} {'|'.join(VERBS)}", file=sys.stderr)
        return 2
    spec = json.loads(os.environ["SPEC"])
    try:
        VERBS[sys.argv[1]](Client(spec["client"]), spec)
    except VerbError as error:
        print(f"{sys.argv[1]} of {spec.get('name', spec['lab'])}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
