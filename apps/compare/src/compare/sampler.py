"""`lab-sampler`: the counters of this node's units, once a second, until standard input ends.

Each line is a JSON object: time, and for each unit CPU time, memory and its peak, bytes read and written, and where
that is from: `cgroup2` (the unit's control group), `cgroup1` (its controllers), or `proc`, the sum over the unit's
processes, where a container shows none of both. Of a process that ends between two samples `proc` counts what it had
used at the last one; its memory is what processes have of their own, and the largest part that they share, once.
Counters never descend while the unit runs.

Needs nothing but Python, and root to see other users' bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def control_group(unit: str) -> str:
    """Return the path of a unit's control group, "" where it does not run."""
    done = subprocess.run(
        ["systemctl", "show", unit, "-p", "ControlGroup", "--value"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def _number(path: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text())
    return None


def _from_cgroup2(folder: Path) -> dict[str, Any] | None:
    try:
        cpu = dict(line.split() for line in (folder / "cpu.stat").read_text().splitlines())
        memory = _number(folder / "memory.current")
    except (OSError, ValueError):
        return None
    if "usage_usec" not in cpu or memory is None:
        return None
    read = written = None
    with contextlib.suppress(OSError):
        read = written = 0
        for line in (folder / "io.stat").read_text().splitlines():
            values = dict(entry.split("=") for entry in line.split()[1:])
            read += int(values.get("rbytes", 0))
            written += int(values.get("wbytes", 0))
    return {
        "source": "cgroup2", "cpu_us": int(cpu["usage_usec"]), "memory_bytes": memory,
        "peak_bytes": _number(folder / "memory.peak") or memory, "read_bytes": read, "write_bytes": written,
    }  # fmt: skip


def _from_cgroup1(root: Path, group: str) -> dict[str, Any] | None:
    usage_ns = _number(root / "cpuacct" / group / "cpuacct.usage")
    memory = _number(root / "memory" / group / "memory.usage_in_bytes")
    if usage_ns is None or memory is None:
        return None
    read = written = None
    with contextlib.suppress(OSError):
        read = written = 0
        for line in (root / "blkio" / group / "blkio.throttle.io_service_bytes").read_text().splitlines():
            words = line.split()
            if len(words) == 3 and words[1] == "Read":
                read += int(words[2])
            elif len(words) == 3 and words[1] == "Write":
                written += int(words[2])
    peak = _number(root / "memory" / group / "memory.max_usage_in_bytes")
    return {
        "source": "cgroup1", "cpu_us": usage_ns // 1000, "memory_bytes": memory, "peak_bytes": peak or memory,
        "read_bytes": read, "write_bytes": written,
    }  # fmt: skip


class Processes:
    """Sums over the processes of a unit that keep what ended ones had used."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._last: dict[tuple[int, int], tuple[int, int, int]] = {}
        self._ended = (0, 0, 0)
        self._peak = 0

    def sample(self, pids: list[int]) -> dict[str, Any]:
        """Return the sums of these processes, and of all earlier ones."""
        found: dict[tuple[int, int], tuple[int, int, int]] = {}
        private = shared = 0
        for pid in pids:
            # It may have ended meanwhile.
            with contextlib.suppress(OSError, ValueError, IndexError):
                # The name in brackets may hold anything; what follows it are numbers.
                words = (self._proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
                cpu_us = (int(words[11]) + int(words[12])) * 1_000_000 // TICKS_PER_S
                read, written = self._bytes(pid)
                found[pid, int(words[19])] = (cpu_us, read, written)
                pages = (self._proc / str(pid) / "statm").read_text().split()
                private += (int(pages[1]) - int(pages[2])) * PAGE_BYTES
                # PostgreSQL's processes all have the same buffers: once is enough.
                shared = max(shared, int(pages[2]) * PAGE_BYTES)
        for process, values in self._last.items():
            if process not in found:
                self._ended = (
                    self._ended[0] + values[0], self._ended[1] + values[1], self._ended[2] + values[2]
                )  # fmt: skip
        self._last = found
        memory = private + shared
        self._peak = max(self._peak, memory)
        cpu_us, read, written = (
            self._ended[number] + sum(values[number] for values in found.values()) for number in range(3)
        )
        return {
            "source": "proc", "cpu_us": cpu_us, "memory_bytes": memory, "peak_bytes": self._peak, "read_bytes": read,
            "write_bytes": written,
        }  # fmt: skip

    def _bytes(self, pid: int) -> tuple[int, int]:
        with contextlib.suppress(OSError):
            lines = (self._proc / str(pid) / "io").read_text().splitlines()
            found = dict(line.split(": ") for line in lines)
            return int(found["read_bytes"]), int(found["write_bytes"])
        return 0, 0


def _pids(group: str, root: Path) -> list[int]:
    """Return the processes of a control group and of those below it, by whichever hierarchy names them."""
    for hierarchy in (root, root / "systemd", root / "unified"):
        folder = hierarchy / group
        if (folder / "cgroup.procs").is_file():
            found = []
            for path in folder.rglob("cgroup.procs"):
                with contextlib.suppress(OSError):
                    found += [int(line) for line in path.read_text().split()]
            return found
    return []


class Sampler:
    """Samples units; `root` is where control groups are mounted."""

    def __init__(self, units: list[str], root: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")) -> None:
        self._units = units
        self._root = root
        self._processes = {unit: Processes(proc) for unit in units}
        self._groups: dict[str, str] = {}

    def sample(self) -> Iterator[dict[str, Any]]:
        """Give the counters of each unit that runs."""
        for unit in self._units:
            group = self._group(unit)
            if not group:
                continue
            found = _from_cgroup2(self._root / group) or _from_cgroup1(self._root, group)
            if found is None:
                pids = _pids(group, self._root)
                if not pids:
                    continue
                found = self._processes[unit].sample(pids)
            yield {"unit": unit, **found}

    def _group(self, unit: str) -> str:
        # Asking systemd costs more than all the rest: only where there was no answer yet, or the group is gone.
        known = self._groups.get(unit, "")
        if not known or not any((self._root / part / known).is_dir() for part in ("", "systemd", "unified", "cpuacct")):
            self._groups[unit] = control_group(unit).lstrip("/")
        return self._groups[unit]


def main(arguments: list[str] | None = None, stdin: TextIO = sys.stdin) -> int:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("units", nargs="+", help="systemd units, for example kafka")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between samples")
    options = parser.parse_args(arguments)
    sampler = Sampler(options.units)
    while True:
        at_us = time.time_ns() // 1000
        for found in sampler.sample():
            print(json.dumps({"at_us": at_us, **found}), flush=True)
        # Who started this holds its input open: when that ends, however it ends, so does this.
        if select.select([stdin], [], [], options.interval)[0] and not stdin.read(1):
            return 0


if __name__ == "__main__":
    sys.exit(main())
