"""tools/lab/ui.py: which pages there are, on which ports they come, and the connections that bring them."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import ui
from context import Context, LabError
from test_tools_screen import NODES

# A stand-in for ssh: a connection is its socket's path as a file, which `-O exit` takes away.
SSH = """#!/bin/sh
echo "$@" >> "$SSH_CALLS"
socket=
for host; do :; done
case "$host" in -*) echo "hostname contains invalid characters" >&2; exit 255 ;; esac
while [ $# -gt 0 ]; do
  case "$1" in
    -S) socket=$2 ;;
    ControlPath=*) socket=${1#ControlPath=} ;;
    check) test -e "$socket"; exit ;;
    exit) rm "$socket"; exit ;;
    broken) echo "ssh: connect to host broken: No route to host" >&2; exit 255 ;;
  esac
  shift
done
touch "$socket"
"""

# Nodes with pages.
SERVING = len({page.node for page in ui.pages(NODES)})


@pytest.fixture
def calls(lab: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stand-in writes how it was called."""
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(SSH)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SSH_CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(ui, "is_free", lambda _: True)
    lab.lab_dir.mkdir(parents=True)
    return tmp_path / "calls"


def opened(calls: Path) -> list[str]:
    return [line for line in calls.read_text().splitlines() if " -M " in line] if calls.exists() else []


def test_every_page_has_a_port_of_its_own() -> None:
    known = json.loads(ui.PAGES_FILE.read_text())
    assert len({page["port"] for page in known}) == len(known)


def test_pages_of_the_nodes_that_there_are() -> None:
    found = ui.pages(NODES)
    assert ui.Page("Flink", "flink_jobmanager", "flink-1", "10.77.0.71", 8081) in found
    two: dict[str, Any] = {**NODES, "spark_worker": {"hosts": ["spark-1", "submitter-1"]}}
    assert [(page.name, page.node, page.port) for page in ui.pages(two) if "worker" in page.name] == [
        ("Spark worker 1", "spark-1", 8082), ("Spark worker 2", "submitter-1", 8083),
    ]  # fmt: skip
    without: dict[str, Any] = {**NODES, "flink_jobmanager": {"hosts": []}}
    assert "Flink" not in [page.name for page in ui.pages(without)]


def test_port_that_is_taken_gets_the_next_free_one() -> None:
    pages = [ui.Page("a", "g", "n", "10.0.0.1", 8080), ui.Page("b", "g", "n", "10.0.0.1", 8081)]
    assert ui.choose_ports(pages, lambda _: True) == {"a": 8080, "b": 8081}
    # The next one is another page's own, which it keeps.
    assert ui.choose_ports(pages, lambda port: port != 8080) == {"a": 8082, "b": 8081}
    assert ui.choose_ports(pages, lambda port: port not in {8081, 8082}) == {"a": 8080, "b": 8083}
    with pytest.raises(LabError, match="a: no port from 8080 on is free"):
        ui.choose_ports(pages, lambda _: False)


def test_port_that_somebody_listens_on_is_not_free() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert not ui.is_free(port)
    assert ui.is_free(port)


def test_one_connection_for_each_node(lab: Context, calls: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ui.up(lab, ui.pages(NODES))
    assert "Flink              http://localhost:8081\n" in capsys.readouterr().out
    lines = opened(calls)
    assert len(lines) == SERVING
    assert any("-L localhost:8081:10.77.0.71:8081" in line and line.endswith(" flink-1") for line in lines)
    assert all("ExitOnForwardFailure=yes" in line and "ServerAliveInterval" in line for line in lines)
    # A second time nothing is opened again, and what has died is.
    ui.up(lab, ui.pages(NODES))
    assert len(opened(calls)) == SERVING
    ui._socket(lab, "flink-1").unlink()
    ui.up(lab, ui.pages(NODES))
    assert len(opened(calls)) == SERVING + 1


def test_taken_port_is_said(
    lab: Context, calls: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ui, "is_free", lambda port: port != 8081)
    ui.up(lab, ui.pages(NODES))
    assert "http://localhost:8083  (8081 is taken on this machine)" in capsys.readouterr().out
    assert any("-L localhost:8083:10.77.0.71:8081" in line for line in opened(calls))
    assert json.loads((lab.lab_dir / "ui.json").read_text())["Flink"] == 8083


@pytest.mark.usefixtures("calls")
def test_taken_port_moves_no_other_nodes_page(lab: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next port after the Spark master's is Flink's, whose node comes later."""
    monkeypatch.setattr(ui, "is_free", lambda port: port != 8080)
    wanted = ui.pages(NODES)
    ui.up(lab, wanted)
    own = {page.name: page.port for page in wanted}
    chosen = json.loads((lab.lab_dir / "ui.json").read_text())
    assert {name for name, port in chosen.items() if port != own[name]} == {"Spark master"}


def test_stop_closes_all(lab: Context, calls: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ui.up(lab, ui.pages(NODES))
    capsys.readouterr()
    ui.stop(lab)
    assert capsys.readouterr().out == f"  closed {SERVING} connections\n"
    assert list(lab.connections.glob("ui-*")) == []
    ui.stop(lab)
    assert capsys.readouterr().out == "  nothing was open\n"
    assert len(opened(calls)) == SERVING


def test_node_that_cannot_be_reached_is_named(lab: Context, calls: Path) -> None:
    assert not calls.exists()
    hosts = {**NODES["_meta"]["hostvars"], "broken": {"ansible_host": "10.77.0.99"}}
    nodes: dict[str, Any] = {**NODES, "_meta": {"hostvars": hosts}, "flink_jobmanager": {"hosts": ["broken"]}}
    with pytest.raises(LabError, match=r"broken cannot be reached .*No route to host[\s\S]*ui\.log"):
        ui.up(lab, ui.pages(nodes))
