"""The scripts beside Terraform, imported by their paths, and a PATH on which `lxc` and `ip` are stand-ins."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
FAKE_LXC = Path(__file__).with_name("fake_lxc.py")


def load(path: str) -> ModuleType:
    """Import a script of the repository; a module of its own for each test."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, REPOSITORY / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def host_state() -> ModuleType:
    """terraform/lxd/scripts/host_state.py."""
    return load("terraform/lxd/scripts/host_state.py")


@pytest.fixture
def lxd(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """terraform/lxd/scripts/lxd.py, without pauses."""
    module = load("terraform/lxd/scripts/lxd.py")
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    return module


@pytest.fixture
def libvirt_host_state() -> ModuleType:
    """terraform/libvirt/scripts/host_state.py."""
    return load("terraform/libvirt/scripts/host_state.py")


@pytest.fixture
def nodes() -> ModuleType:
    """terraform/libvirt/scripts/nodes.py."""
    return load("terraform/libvirt/scripts/nodes.py")


@pytest.fixture
def vm() -> ModuleType:
    """terraform/node_image/vm.py."""
    return load("terraform/node_image/vm.py")


@pytest.fixture
def node_image() -> ModuleType:
    """terraform/node_image/build.py."""
    return load("terraform/node_image/build.py")


class FakeHost:
    """The container manager and the routes of a machine that does not exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        self._state = folder / "lxc.json"
        self.update({"instances": {}, "networks": {}, "storage-pools": {}, "images": {}, "calls": [], "faults": {}})
        self.program("lxc", f'exec {sys.executable} -I -S {FAKE_LXC} "$@"')
        self.routes: list[dict[str, Any]] = []
        self.set_routes([])

    def program(self, name: str, body: str) -> None:
        """Put a shell script on the PATH."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def set_routes(self, routes: list[dict[str, Any]]) -> None:
        """Say what `ip -json -4 route` shows; every call of `ip` is noted."""
        (self.folder / "routes.json").write_text(json.dumps(routes))
        self.program("ip", f'echo "$@" >> {self.folder}/ip.log\ncat {self.folder}/routes.json')

    @property
    def ip_calls(self) -> list[str]:
        """The command lines that `ip` got."""
        log = self.folder / "ip.log"
        return log.read_text().splitlines() if log.is_file() else []

    @property
    def state(self) -> dict[str, Any]:
        """What the container manager holds."""
        return dict(json.loads(self._state.read_text()))

    def update(self, changes: dict[str, Any]) -> None:
        """Replace parts of what the container manager holds."""
        state = self.state if self._state.is_file() else {}
        self._state.write_text(json.dumps({**state, **changes}))

    def things(self) -> dict[str, Any]:
        """What exists, without the record of calls."""
        return {kind: things for kind, things in self.state.items() if kind not in {"calls", "faults"}}

    def calls(self) -> list[str]:
        """What has changed something since the last time of asking."""
        calls: list[str] = self.state["calls"]
        self.update({"calls": []})
        return calls


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """A machine with an empty container manager and no routes."""
    folder = tmp_path / "host"
    folder.mkdir()
    fake = FakeHost(folder)
    monkeypatch.setenv("PATH", f"{fake.bin}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_LXC", str(folder / "lxc.json"))
    return fake
