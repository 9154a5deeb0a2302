#!/usr/bin/env python3
"""What does the dashboard's server cost while it is looked at? CPU time and memory of its process, over a fake lab.

    PYTHONPATH=apps/dashboard/src .venv/bin/python apps/dashboard/benchmarks/cost.py --uplot FOLDER_OR_JAR

Opens `--pages` pages in a headless Chromium (0: none) and asks as often as `--viewers` more pages would; prints the
share of one core that the server took. The fake lab answers at once: what PostgreSQL and Prometheus take is not in it,
nor is psycopg2's part; tests/integration/dashboard has the statements' cost.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(REPOSITORY / "tests" / "integration" / "dashboard"))

from browser import dashboard, find_chromium  # noqa: E402 - found on the path set above

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PERIOD_S = 2.0
WARMUP_S = 10.0
LIMIT = 0.02


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has taken, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def rss_mib(pid: int) -> float:
    """Return the memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def view(url: str, stop: threading.Event) -> None:
    """Ask as a page does, until told to stop."""
    while not stop.wait(PERIOD_S):
        urllib.request.urlopen(f"{url}/api/state", timeout=10).read()  # noqa: S310 - our own server


@contextlib.contextmanager
def pages(url: str, count: int) -> Iterator[None]:
    """Have some pages open in one browser."""
    if count == 0:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="chromium-") as profile:
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        process = subprocess.Popen(
            [find_chromium(), "--headless", "--disable-gpu", "--no-first-run", "--window-size=1920,1080",
             "--remote-debugging-port=0", f"--user-data-dir={profile}", *root, *([url] * count)],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)


def main() -> int:
    """Measure and print; the exit code says whether the server stays below the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uplot", type=Path, required=True, help="uPlot's WebJar, or the folder it is in")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--pages", type=int, default=1)
    parser.add_argument("--viewers", type=int, default=0)
    options = parser.parse_args()
    stop = threading.Event()
    with dashboard(options.uplot) as (url, server), pages(url, options.pages):
        threads = [threading.Thread(target=view, args=(url, stop), daemon=True) for _ in range(options.viewers)]
        for thread in threads:
            thread.start()
        time.sleep(WARMUP_S)
        before_s, began_s = cpu_s(server.pid), time.monotonic()
        time.sleep(options.seconds)
        share = (cpu_s(server.pid) - before_s) / (time.monotonic() - began_s)
        memory_mib = rss_mib(server.pid)
        stop.set()
        for thread in threads:
            thread.join()
    print(f"{options.pages} pages, {options.viewers} more viewers, {options.seconds:.0f} s: "
          f"{share:.2%} of a core, {memory_mib:.0f} MiB")  # fmt: skip
    return 0 if share < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
