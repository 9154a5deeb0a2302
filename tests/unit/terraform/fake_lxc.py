"""A stand-in for the `lxc` client: keeps instances, networks, pools and images in the JSON file $FAKE_LXC.

Strict where LXD is: what exists is not created again, and what is in use is not deleted. `faults` in the file maps the
beginning of a command line to how often it still fails; `calls` collects what changes something.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

STATE = Path(os.environ["FAKE_LXC"])


def fail(text: str) -> NoReturn:
    """Fail as the client does."""
    print(f"Error: {text}", file=sys.stderr)
    sys.exit(1)


def settings(arguments: list[str]) -> dict[str, str]:
    """Read `key=value` arguments."""
    return dict(argument.split("=", 1) for argument in arguments if "=" in argument)


def query(state: dict[str, Any], path: str) -> object:
    """Answer a GET of the API."""
    kind, *rest = path.removeprefix("/1.0").strip("/").split("?")[0].split("/")
    if kind == "":
        return {"api_status": "stable"}
    table: dict[str, Any] = state[kind]
    if not rest:
        return list(table.values()) if "recursion" in path else [f"/1.0/{kind}/{name}" for name in table]
    if rest[0] not in table:
        fail(f"{kind} not found")
    found: dict[str, Any] = table[rest[0]]
    if kind == "instances" and rest[1:] == ["state"]:
        return {"status": found["status"]}
    if kind == "storage-pools" and len(rest) == 4:
        if rest[3] not in found["volumes"]:
            fail("Storage volume not found")
        return {"name": rest[3]}
    return found


def users(state: dict[str, Any], **wanted: str) -> list[str]:
    """Name the instances that use a network or a pool."""
    return [
        name for name, made in state["instances"].items() if all(made[key] == value for key, value in wanted.items())
    ]


def execute(state: dict[str, Any], name: str, command: list[str]) -> None:
    """Run a command in an instance."""
    instance = state["instances"].get(name) or fail("Instance not found")
    if instance["status"] != "Running":
        fail("Instance is not running")
    if command[:2] == ["systemctl", "is-system-running"]:
        print(instance["boot"].pop(0) if len(instance["boot"]) > 1 else instance["boot"][0])
    elif command[0] == "install":
        instance["folders"] = [*instance.get("folders", []), command[-1]]
    else:
        fail(f"unknown command {command}")


def run(state: dict[str, Any], arguments: list[str]) -> None:  # noqa: C901 - one case for each command
    """Carry out one command line."""
    instances, networks, pools = state["instances"], state["networks"], state["storage-pools"]
    match arguments:
        case ["query", path]:
            print(json.dumps(query(state, path)))
        case ["image", "list", *_]:
            print(json.dumps(list(state["images"].values())))
        case ["image", "import", metadata, rootfs, "--alias", name, *rest]:
            if not (Path(metadata).is_file() and Path(rootfs).is_file()):
                fail("no such file")
            state["images"][name] = {"aliases": [{"name": name}], "properties": settings(rest)}
        case ["network", "create", name, *rest]:
            if name in networks:
                fail("The network already exists")
            networks[name] = {"name": name, "config": settings(rest)}
        case ["network", "delete", name]:
            if users(state, network=name):
                fail("The network is currently in use")
            del networks[name]
        case ["storage", "create", name, "dir", *rest]:
            if name in pools:
                fail("Storage pool already exists")
            pools[name] = {"name": name, "config": settings(rest), "volumes": []}
        case ["storage", "volume", "create", pool, volume]:
            pools[pool]["volumes"].append(volume)
        case ["storage", "volume", "delete", pool, volume]:
            if users(state, pool=pool):
                fail("The storage volume is still in use")
            pools[pool]["volumes"].remove(volume)
        case ["storage", "delete", name]:
            if users(state, pool=name) or pools[name]["volumes"]:
                fail("Storage pool is currently in use")
            del pools[name]
        case ["init", image, name, "--no-profiles", "--storage", pool, "--network", network, *rest]:
            if name in instances:
                fail(f'Instance "{name}" already exists')
            if pool not in pools or network not in networks:
                fail("not found")
            instances[name] = {
                "name": name, "image": image, "pool": pool, "network": network, "config": settings(rest),
                "devices": {}, "status": "Stopped", "boot": ["starting", "running"],
            }  # fmt: skip
        case ["config", "device", "set", name, device, *rest]:
            instances[name]["devices"].setdefault(device, {}).update(settings(rest))
        case ["config", "device", "add", name, device, _, *rest]:
            if device in instances[name]["devices"]:
                fail("The device already exists")
            instances[name]["devices"][device] = settings(rest)
        case ["config", "set", name, key, value]:
            instances[name]["config"][key] = value
        case ["config", "set", name, pair]:
            instances[name]["config"].update(settings([pair]))
        case ["start", name]:
            if instances[name]["status"] == "Running":
                fail("The instance is already running")
            instances[name]["status"] = "Running"
        case ["exec", name, "--", *command]:
            execute(state, name, command)
        case ["file", "push", "-", path, *_]:
            name, _, inside = path.partition("/")
            if str(Path("/", inside).parent) not in instances[name].get("folders", []):
                fail("no such folder")
            instances[name][Path(inside).name] = sys.stdin.read()
        case ["file", "pull", path, "-"]:
            name, _, inside = path.partition("/")
            if inside != "etc/ssh/ssh_host_ed25519_key.pub":
                fail("no such file")
            print(f"ssh-ed25519 HOSTKEYOF{name} root@{name}")
        case ["delete", "--force", name]:
            if name not in instances:
                fail("Instance not found")
            del instances[name]
        case _:
            fail(f"unknown command {arguments}")


def main() -> None:
    """Read the state, carry out the command line, write the state."""
    state = json.loads(STATE.read_text())
    arguments = sys.argv[1:]
    line = " ".join(arguments)
    try:
        if state.get("down"):
            fail(state["down"])
        for beginning, left in state["faults"].items():
            if line.startswith(beginning) and left > 0:
                state["faults"][beginning] -= 1
                fail(f"fault injected into {beginning}")
        if arguments[0] not in {"query", "exec", "file"} and arguments[:2] != ["image", "list"]:
            state["calls"].append(line)
        run(state, arguments)
    finally:
        STATE.write_text(json.dumps(state, indent=1))


if __name__ == "__main__":
    main()
