"""A headless Chromium, and a dashboard with a fake lab behind it for it to look at."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
FAKE_LAB = REPOSITORY / "tests" / "unit" / "dashboard" / "fake_lab.py"
NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
# Of the page's own time: three looks at the server.
VIRTUAL_MS = 5_000
TIMEOUT_S = 90


class NoBrowserError(Exception):
    """This machine has no Chromium; the text says how to get one."""


def find_chromium() -> str:
    """Return the path of a Chromium; NoBrowserError where there is none."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    raise NoBrowserError("no Chromium on this machine: `python3 tools/lab setup --tests` installs it")


def chromium(url: str, width: int, height: int, *options: str) -> str:
    """Let Chromium look at a page; returns what it prints."""
    with tempfile.TemporaryDirectory(prefix="chromium-") as profile:
        done = subprocess.run(
            [
                find_chromium(), "--headless", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
                "--disable-dev-shm-usage", f"--user-data-dir={profile}", f"--window-size={width},{height}",
                f"--virtual-time-budget={VIRTUAL_MS}", *(["--no-sandbox"] if os.geteuid() == 0 else []), *options, url,
            ],
            capture_output=True, text=True, check=True, timeout=TIMEOUT_S,
        )  # fmt: skip
    return done.stdout


def free_port() -> int:
    """Return a port that nobody has now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def dashboard(uplot: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Give URL and process of a dashboard over a fake lab (options of fake_lab.py)."""
    port = free_port()
    process = subprocess.Popen([sys.executable, str(FAKE_LAB), f"--uplot={uplot}", f"--port={port}", *options])
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"{url}/healthz", timeout=2).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        yield url, process
    finally:
        process.terminate()
        process.wait(20)


@dataclass
class Look:
    """What a person would find on the page: texts by id or place, and what the probe has found."""

    html: str

    def __post_init__(self) -> None:
        parser = _Texts()
        parser.feed(self.html)
        self.by_id, self.by_part, self.by_field = parser.by_id, parser.by_part, parser.by_field
        self.labels = parser.labels

    @property
    def states(self) -> dict[str, str]:
        """The state of each part of the pipeline."""
        return dict(re.findall(r'data-part="(\w+)" data-state="(\w+)"', self.html))

    def probe(self, name: str) -> str:
        """Return one of the probe's findings."""
        found = re.search(rf'<html[^>]* data-{name}="([^"]*)"', self.html)
        assert found, f"the probe has not said {name}"
        return found[1]


class _Texts(HTMLParser):
    """The text below each element that has an id, a data-part or a data-field."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.by_id: dict[str, str] = {}
        self.by_part: dict[str, str] = {}
        self.by_field: dict[tuple[str, str], str] = {}
        self.labels: list[str] = []
        self._open: list[tuple[str, dict[str, str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if "aria-label" in found:
            self.labels.append(found["aria-label"])
        if tag not in self.VOID:
            self._open.append((tag, found))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not data.strip() or any(tag in {"template", "script", "style"} for tag, _ in self._open):
            return
        ids = [found["id"] for _, found in self._open if "id" in found]
        for _, found in self._open:
            for kind, texts in (("id", self.by_id), ("data-part", self.by_part)):
                if kind in found:
                    texts[found[kind]] = f"{texts.get(found[kind], '')} {data.strip()}".strip()
            if "data-field" in found and ids:
                self.by_field[ids[0], found["data-field"]] = data.strip()


def look(url: str, width: int = 1280, height: int = 900, *options: str) -> Look:
    """Open the page with the probe and return what is on it after some seconds."""
    return Look(chromium(f"{url}/?probe", width, height, "--dump-dom", *options))
