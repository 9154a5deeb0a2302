"""The role artifacts, stage.yml and push.yml: on this machine alone, as the nodes of a lab that share a folder."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
PLAY = [
    {
        "name": "Remember releases as the role does",
        "hosts": "localhost",
        "gather_facts": False,
        "tasks": [{"ansible.builtin.set_fact": {"artifacts_releases": "{{ given }}"}}],
    },
    {
        "name": "Stage",
        "hosts": "nodes[0]",
        "gather_facts": False,
        "tasks": [{"ansible.builtin.include_role": {"name": "artifacts", "tasks_from": "stage.yml"}}],
    },
    {
        "name": "Push",
        "hosts": "nodes",
        "gather_facts": False,
        "handlers": [{"name": "Use it", "ansible.builtin.meta": "noop"}],
        "tasks": [
            {
                "ansible.builtin.include_role": {"name": "artifacts", "tasks_from": "push.yml"},
                "vars": {
                    "artifacts_push_bundle": "compare",
                    "artifacts_push_path": "{{ folder }}/{{ inventory_hostname }}",
                    "artifacts_push_notify": "Use it",
                },
            }
        ],
    },
]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the role hands its files to root: run as root")


class Lab:
    """Two nodes that are this machine, and one bundle."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stage = folder / "shared"
        for node in ("node-1", "node-2"):
            (folder / node).mkdir()
        self.release: dict[str, Any] = {}
        self.bundle("1.0.0-aaaa", "first")

    def bundle(self, release: str, content: str) -> Path:
        """Make a bundle, the current one from now on."""
        file = self.folder / "content.txt"
        file.write_text(content)
        path = self.folder / f"compare-{release}.tar"
        with tarfile.open(path, "w") as archive:
            archive.add(file, arcname="content.txt")
        self.release = {
            "bundle": str(path),
            "release": release,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        return path

    def run(self, *options: str) -> tuple[int, dict[str, int]]:
        """Run the plays; returns the exit code and how many tasks changed something, by node."""
        play = self.folder / "play.yml"
        play.write_text(yaml.safe_dump(PLAY))
        (self.folder / "inventory.yml").write_text(
            yaml.safe_dump({"nodes": {"hosts": {"node-1": {}, "node-2": {}}, "vars": {"ansible_connection": "local"}}})
        )
        variables = {
            "given": {"compare": self.release}, "folder": str(self.folder), "artifacts_bundles": ["compare"],
            "artifacts_stage_path": str(self.stage), "artifacts_push_mount_path": str(self.stage),
            "ansible_python_interpreter": sys.executable,
        }  # fmt: skip
        done = subprocess.run(
            [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(self.folder / "inventory.yml"),
             str(play), "-v", "-e", json.dumps(variables), *options],
            capture_output=True, text=True, check=False, cwd=REPOSITORY,
            env={**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        )  # fmt: skip
        self.output = done.stdout + done.stderr
        recap = re.findall(r"^(node-\d)\s.*changed=(\d+)", self.output, re.MULTILINE)
        return done.returncode, {node: int(count) for node, count in recap}

    def content(self, node: str) -> str:
        """Return what a node has unpacked."""
        return (self.folder / node / "current" / "content.txt").read_text()


def test_a_bundle_is_staged_once_and_unpacked_from_there(tmp_path: Path) -> None:
    lab = Lab(tmp_path)

    # Check mode on a fresh node changes nothing.
    code, _ = lab.run("--check")
    assert code == 0, lab.output
    assert not lab.stage.exists()

    code, changed = lab.run()
    assert code == 0, lab.output
    assert changed["node-1"] > changed["node-2"] > 0
    assert [path.name for path in lab.stage.iterdir()] == ["compare-1.0.0-aaaa.tar"]
    assert lab.content("node-1") == lab.content("node-2") == "first"
    code, changed = lab.run()
    assert (code, changed) == (0, {"node-1": 0, "node-2": 0}), lab.output

    # What an interrupted run left, a file of another controller's making, and a release that goes.
    old = lab.stage / "compare-1.0.0-aaaa.tar"
    lab.bundle("1.0.0-bbbb", "second")
    (lab.stage / ".compare-1.0.0-bbbb.tar.partial").write_text("half")
    (lab.stage / "compare-1.0.0-bbbb.tar").write_text("not the same")
    code, _ = lab.run()
    assert code == 0, lab.output
    assert not old.exists()
    assert [path.name for path in lab.stage.iterdir()] == ["compare-1.0.0-bbbb.tar"]
    assert hashlib.sha256((lab.stage / "compare-1.0.0-bbbb.tar").read_bytes()).hexdigest() == lab.release["sha256"]
    assert lab.content("node-1") == lab.content("node-2") == "second"


def test_what_arrives_damaged_gets_no_name(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.release["sha256"] = "0" * 64
    code, _ = lab.run()
    assert code != 0
    assert not (lab.stage / "compare-1.0.0-aaaa.tar").exists()
