#!/usr/bin/env python3
"""Tell Terraform what exists on this machine (the program of `data.external.host`).

Reads a JSON object of strings (client, lab, owner, bridge, subnet, lab_dir) on standard input, and writes one:
memory_mib, vcpus, image, artifacts (a folder), new_generation, generations (JSON: thing => label) and violations (JSON:
sentences).
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from lab_host import cache, memory_mib, subnet_conflicts

# A booted node holds about a dozen; LXD's own advice for production is far higher.
MIN_INOTIFY_INSTANCES = 1024
NODE_IMAGE = Path(__file__).resolve().parents[2] / "node_image" / "build.py"


def _builder() -> Any:  # noqa: ANN401 - a module
    spec = importlib.util.spec_from_file_location("node_image_build", NODE_IMAGE)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(NODE_IMAGE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _query(client: str, path: str) -> Any:  # noqa: ANN401 - JSON
    return json.loads(
        subprocess.run([client, "query", path], check=True, capture_output=True, text=True, timeout=60).stdout
    )


def inotify_shortage(max_user_instances: int) -> list[str]:
    """Complain when the host's inotify limit, which all nodes share, stops their systemd from booting."""
    if max_user_instances >= MIN_INOTIFY_INSTANCES:
        return []
    return [
        f"fs.inotify.max_user_instances is {max_user_instances}, and all nodes share it: `make setup` raises it, or "
        f"sysctl -w fs.inotify.max_user_instances={MIN_INOTIFY_INSTANCES}"
    ]


def own(config: dict[str, str], owner: str) -> bool:
    """Tell whether a thing's labels name this lab directory as its maker."""
    return config.get("user.csl.owner") == owner


def read_things(client: str) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """Return instances, networks, storage pools and images by kind, and what keeps the client from answering."""
    kinds = ("instances", "networks", "storage-pools", "images")
    nothing: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    try:
        return {kind: _query(client, f"/1.0/{kind}?recursion=1") for kind in kinds}, []
    except FileNotFoundError:
        return nothing, [f"the program {client} is not there: `make setup` installs LXD, or set the variable client"]
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = error.stderr if isinstance(error, subprocess.CalledProcessError) else ""
        text = (said or "no answer").strip()
        return nothing, [
            f"the container manager does not answer {client} ({text}): start it (`make setup`), "
            "or join its group and log in again"
        ]


def compare_with_lab(
    things: dict[str, list[dict[str, Any]]], query: dict[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Return the labels of what this lab has made already, and the names that somebody else's lab has taken."""
    lab, owner = query["lab"], query["owner"]
    generations: dict[str, str] = {}
    strangers = []
    for instance in things["instances"]:
        name = instance["name"]
        if instance["config"].get("user.csl.lab") == lab:
            if not own(instance["config"], owner):
                strangers.append(f"{name} (of {instance['config'].get('user.csl.owner')})")
            elif instance["config"].get("user.csl.ready") == "true":
                generations[f"node/{name.removeprefix(lab + '-')}"] = instance["config"]["user.csl.generation"]
    for kind, label, found, wanted in (
        ("network", "network", things["networks"], query["bridge"]),
        ("storage pool", "storage", things["storage-pools"], lab),
    ):
        for thing in found:
            if thing["name"] == wanted:
                if own(thing["config"], owner):
                    generations[label] = thing["config"]["user.csl.generation"]
                else:
                    strangers.append(f"the {kind} {wanted}")
    return generations, strangers


def survey(query: dict[str, str]) -> dict[str, str]:
    """Return the answer to Terraform's query; see the module's text."""
    things, violations = read_things(query["client"])
    generations, strangers = compare_with_lab(things, query)
    if strangers:
        violations.append(
            f"a lab named {query['lab']} is there already, made from another directory: {', '.join(strangers)}. "
            "Choose another name (make lab LAB=..., or lab_name), or remove that lab where it was made"
        )

    public_key = Path(query["lab_dir"], "id_ed25519.pub")
    if public_key.is_file() and public_key.with_suffix("").is_file():
        generations["ssh-key"] = public_key.read_text().split()[-1]

    routes = json.loads(subprocess.run(["ip", "-json", "-4", "route"], check=True, capture_output=True).stdout or "[]")
    violations += subnet_conflicts(query["subnet"], query["bridge"], routes)

    violations += inotify_shortage(int(Path("/proc/sys/fs/inotify/max_user_instances").read_text()))

    new_generation = f"g{time.time_ns():x}"
    image = _builder().image_name(json.loads(NODE_IMAGE.with_name("recipe.json").read_text()))
    for found in things["images"]:
        if any(alias["name"] == image for alias in found["aliases"]):
            generations["image"] = found["properties"].get("generation", "")
    return {
        "memory_mib": str(memory_mib(Path("/proc/meminfo").read_text())),
        "vcpus": str(os.cpu_count() or 1),
        "image": image,
        "artifacts": str(cache(os.environ) / "artifacts" / "bundles"),
        "new_generation": new_generation,
        "generations": json.dumps(generations, sort_keys=True),
        "violations": json.dumps(violations),
    }


if __name__ == "__main__":
    if shutil.which("ip") is None:
        sys.exit("the program ip is not there: apt-get install iproute2")
    json.dump(survey(json.load(sys.stdin)), sys.stdout)
