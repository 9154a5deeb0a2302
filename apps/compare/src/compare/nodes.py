"""The nodes of a real lab, over SSH: commands, SQL, and what their services answer."""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

from compare.lab import LabError
from compare.tools import Context


class Nodes:
    """Commands on nodes, over connections that are kept open."""

    def __init__(self, context: Context) -> None:
        context.connections.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._options = [
            "ssh", "-F", str(context.ssh_config), "-o", "BatchMode=yes", "-o", "ConnectTimeout=10",
            "-o", f"ControlPath={context.connections}/c-%C",
        ]  # fmt: skip
        self._connected: set[str] = set()
        self._connecting = threading.Lock()

    def _command(self, node: str, command: str) -> list[str]:
        with self._connecting:
            if node not in self._connected:
                # Apart from every command: what stays in the background would hold a command's output open. Where this
                # fails, the command itself says why.
                subprocess.run(
                    [*self._options, "-o", "ControlMaster=auto", "-o", "ControlPersist=600", node, "true"],
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
                )  # fmt: skip
                self._connected.add(node)
        return [*self._options, "-o", "ControlMaster=no", node, command]

    def run(self, node: str, command: str, *, stdin: str = "", timeout_s: float = 60) -> str:
        """Return what a command prints. Raises LabError with the node and its words where it fails."""
        try:
            done = subprocess.run(
                self._command(node, command), input=stdin, capture_output=True, text=True, check=False,
                timeout=timeout_s,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{node}: no answer in {timeout_s:.0f} s: {command[:80]}") from error
        if done.returncode != 0:
            words = (done.stderr.strip() or done.stdout.strip())[-500:]
            raise LabError(f"{node}: {command[:80]}: exit code {done.returncode}: {words}")
        return done.stdout

    def start(self, node: str, command: str) -> subprocess.Popen[bytes]:
        """Start a command whose input and output are this process's to use."""
        return subprocess.Popen(
            self._command(node, command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )


class Access:
    """The nodes of an inventory, by their groups."""

    def __init__(self, nodes: Nodes, inventory: dict[str, Any]) -> None:
        self.nodes = nodes
        self.inventory = inventory

    def group(self, name: str) -> list[str]:
        """Return the names of a group's nodes."""
        return list(self.inventory.get(name, {}).get("hosts", []))

    def one(self, group: str) -> str:
        """Return a group's first node. Raises LabError where there is none."""
        hosts = self.group(group)
        if not hosts:
            raise LabError(f"the lab has no node of the group {group}")
        return hosts[0]

    def all_nodes(self) -> list[str]:
        """Return the names of all nodes, sorted."""
        return sorted(self.inventory["_meta"]["hostvars"])

    def each(self, call: Callable[[str], Any], nodes: Sequence[str]) -> list[Any]:
        """Call something for each node, eight at once; results in the nodes' order."""
        with ThreadPoolExecutor(max_workers=8) as pool:
            return list(pool.map(call, nodes))

    def of_each(self, call: Callable[[str], Any]) -> dict[str, Any]:
        """Call something for all nodes; returns node => result."""
        return dict(zip(self.all_nodes(), self.each(call, self.all_nodes()), strict=True))

    def sql(self, text: str, timeout_s: float = 120) -> list[list[str]]:
        """Run SQL as the superuser; returns rows of text. By standard input: no shell reads the text."""
        found = self.nodes.run(
            self.one("postgres"), "psql -X -q -v ON_ERROR_STOP=1 -U postgres -d crypto_db -At -F '|' -f -", stdin=text,
            timeout_s=timeout_s,
        )  # fmt: skip
        return [line.split("|") for line in found.splitlines()]

    def copy_out(self, statement: str) -> subprocess.Popen[bytes]:
        """Start a COPY ... TO STDOUT as the superuser, whose output is to be read; `end` says how it went."""
        command = f"psql -X -q -U postgres -d crypto_db -c {shlex.quote(statement)}"
        process = self.nodes.start(self.one("postgres"), command)
        pipes(process)[0].close()
        return process

    def http(self, node: str, port: int, path: str) -> Any:  # noqa: ANN401
        """Return the JSON that a node's own service answers. Raises LabError where it is none."""
        text = self.nodes.run(node, f"curl -sfL --max-time 10 {shlex.quote(f'http://localhost:{port}{path}')}")
        try:
            return json.loads(text)
        except ValueError as error:
            raise LabError(f"{node}: port {port}, {path}: no JSON: {text[:80]!r}") from error


def pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    """Return the input and output of a command that was started."""
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


def end(process: subprocess.Popen[bytes]) -> str:
    """End a command that was started, and return what it complained of."""
    with contextlib.suppress(OSError):
        if process.stdin is not None and not process.stdin.closed:
            process.stdin.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait(5)
    words = process.stderr.read().decode(errors="replace").strip() if process.stderr else ""
    return words[-500:]
