"""`ui` and `ui-stop`: the lab's web pages on this machine's own ports, through one SSH connection for each node."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from context import REPOSITORY, Context, LabError, ask_connection, close_connection

PAGES_FILE = REPOSITORY / "terraform" / "modules" / "inventory" / "pages.json"
CONNECT_TIMEOUT_S = 20
HIGHEST_PORT = 65535


@dataclass(frozen=True)
class Page:
    """A web page of the lab."""

    name: str
    group: str
    node: str
    address: str
    port: int


def pages(nodes: dict[str, Any]) -> list[Page]:
    """Return the pages that an inventory's nodes may serve; further nodes of a group have the ports that follow."""
    found = []
    for known in json.loads(PAGES_FILE.read_text()):
        hosts = nodes.get(known["group"], {}).get("hosts", [])
        for number, node in enumerate(hosts):
            name = known["name"] if len(hosts) == 1 else f"{known['name']} {number + 1}"
            address = nodes["_meta"]["hostvars"][node]["ansible_host"]
            found.append(Page(name, known["group"], node, address, known["port"] + number))
    return found


def login(context: Context, page: Page) -> str:
    """Return who may log in to a page that asks, as a remark behind its address."""
    return f"  (user airflow, password in .lab/{context.lab}/secrets/airflow-web)" if page.group == "airflow" else ""


def is_free(port: int) -> bool:
    """Tell whether nobody listens on a port of this machine, under either of localhost's addresses."""
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((address, port))
        except OSError:
            # A machine without IPv6 has no ::1 that could be taken.
            if family == socket.AF_INET or _has_address(address):
                return False
    return True


def _has_address(address: str) -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def choose_ports(
    wanted: list[Page], free: Callable[[int], bool] = is_free, others: Collection[int] = ()
) -> dict[str, int]:
    """Return page => port here: its own one, else the next that is free and no other page's. LabError without one.

    `others` are ports of pages that have them later, or by another connection.
    """
    given: dict[str, int] = {}
    own = {page.port for page in wanted}.union(others)
    for page in wanted:
        port = page.port
        while not free(port) or port in given.values() or (port != page.port and port in own):
            port += 1
            if port > HIGHEST_PORT:
                raise LabError(f"{page.name}: no port from {page.port} on is free on this machine")
        given[page.name] = port
    return given


def up(context: Context, wanted: list[Page]) -> None:
    """Open what is not open yet, and list the addresses."""
    state = _read(context)
    own = {page.port for page in wanted}
    for node in dict.fromkeys(page.node for page in wanted):
        mine = [page for page in wanted if page.node == node]
        if ask_connection(_socket(context, node), "check") and all(page.name in state for page in mine):
            continue
        close_connection(_socket(context, node))
        for page in mine:
            state.pop(page.name, None)
        taken = set(state.values())
        chosen = choose_ports(mine, lambda port, taken=taken: port not in taken and is_free(port), own)  # type: ignore[misc]
        _open(context, mine, chosen)
        state |= chosen
        _file(context).write_text(json.dumps(state))
    for page in wanted:
        port = state[page.name]
        note = "" if port == page.port else f"  ({page.port} is taken on this machine)"
        print(f"  {page.name:<18} http://localhost:{port}{note}{login(context, page)}")
    suffix = "" if context.lab == "lab" else f" LAB={context.lab}"
    print(f"\n`make ui-stop{suffix}` closes them; so does `make down{suffix}`.")


def stop(context: Context) -> None:
    """Close the connections."""
    closed = [close_connection(path) for path in sorted(context.connections.glob("ui-*"))]
    _file(context).unlink(missing_ok=True)
    print(f"  closed {sum(closed)} connections" if any(closed) else "  nothing was open")


def _file(context: Context) -> Path:
    return context.lab_dir / "ui.json"


def _read(context: Context) -> dict[str, int]:
    return dict(json.loads(_file(context).read_text())) if _file(context).is_file() else {}


def _socket(context: Context, node: str) -> Path:
    # Sockets have short paths; here `make down` finds and closes it too.
    return context.connections / f"ui-{hashlib.sha256(node.encode()).hexdigest()[:8]}"


def _open(context: Context, mine: list[Page], chosen: dict[str, int]) -> None:
    context.connections.mkdir(parents=True, exist_ok=True, mode=0o700)
    node = mine[0].node
    forwards = [
        part for page in mine for part in ("-L", f"localhost:{chosen[page.name]}:{page.address}:{page.port}")
    ]  # fmt: skip
    command = [
        "ssh", "-F", str(context.ssh_config), "-f", "-N", "-M", "-S", str(_socket(context, node)),
        "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_TIMEOUT_S}", "-o", "ExitOnForwardFailure=yes",
        "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4", *forwards, node,
    ]  # fmt: skip
    log = context.logs / "ui.log"
    context.logs.mkdir(parents=True, exist_ok=True)
    # To a file: what stays in the background would hold a pipe open.
    with log.open("a") as output:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False)
    if done.returncode != 0:
        words = log.read_text(errors="replace").strip().splitlines()[-3:]
        raise LabError(f"{node} cannot be reached for its pages: {' '.join(words)}\n  The whole log: {log}")
