"""Paths, programs and progress lines that the commands share."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "terraform" / "scripts"))
from lab_host import has_kvm  # noqa: E402 - found on the path set above

TARGETS = ("lxd", "libvirt", "aws")


class LabError(Exception):
    """What went wrong, where, and what to do, for the user to read."""


@dataclass
class Context:
    """One lab on one target.

    An empty target is the one that the lab was made on; for a new lab libvirt where KVM works, else lxd.
    Raises LabError for an unknown target, another than the running lab's, or a name that no lab can have.
    """

    target: str
    lab: str
    timings_s: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check target and name."""
        if self.target and self.target not in TARGETS:
            raise LabError(f"TARGET={self.target} is unknown: known are {', '.join(TARGETS)}")
        if not re.fullmatch(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?", self.lab):
            raise LabError(f"LAB={self.lab}: use 1 to 12 of a-z, 0-9 and '-', starting with a letter, e.g. lab-2")
        made_on = self._target_file.read_text().strip() if self._target_file.is_file() else ""
        if self.target and made_on and self.target != made_on and self.ssh_config.is_file():
            raise LabError(
                f"TARGET={self.target}: the lab '{self.lab}' is running on {made_on}. Take it down first "
                f"(make down LAB={self.lab}), or choose another LAB"
            )
        self.target = self.target or made_on or ("libvirt" if has_kvm() else "lxd")

    @property
    def _target_file(self) -> Path:
        return self.lab_dir / "target"

    def remember_target(self) -> None:
        """Keep the target, so that the next command about this lab need not name it."""
        self.lab_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._target_file.write_text(f"{self.target}\n")

    @property
    def terraform_root(self) -> Path:
        """Folder of the target's Terraform root."""
        return REPOSITORY / "terraform" / self.target

    @property
    def lab_dir(self) -> Path:
        """What this lab keeps on the controller: keys, secrets, logs."""
        return REPOSITORY / ".lab" / self.lab

    @property
    def options(self) -> dict[str, str]:
        """What the lab was last brought up with; empty where that was not by `make lab`."""
        remembered = self.lab_dir / "options.json"
        return dict(json.loads(remembered.read_text())) if remembered.is_file() else {}

    @property
    def ssh_config(self) -> Path:
        """OpenSSH client configuration of the nodes."""
        return self.lab_dir / "ssh_config"

    @property
    def logs(self) -> Path:
        """Folder of the steps' logs."""
        return self.lab_dir / "logs"

    @property
    def connections(self) -> Path:
        """Folder of the sockets of SSH connections that Ansible keeps open (their paths must be short)."""
        return Path.home() / ".ansible" / "cp" / f"csl-{self.lab}"

    @property
    def cache(self) -> Path:
        """What is kept between labs: artifacts, images, providers."""
        root = os.environ.get("CSL_CACHE")
        if root:
            return Path(root)
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crypto-stream-lab"

    @property
    def workspace(self) -> str:
        """Terraform workspace of this lab."""
        return "default" if self.lab == "lab" else self.lab

    @property
    def environment(self) -> dict[str, str]:
        """Environment for Terraform and Ansible: the lab's workspace, and this folder's tools first."""
        return {
            **os.environ,
            "PATH": f"{REPOSITORY / '.venv' / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "TF_WORKSPACE": self.workspace,
            "TF_IN_AUTOMATION": "1",
            "TF_INPUT": "0",
            "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
            "ANSIBLE_INVENTORY": str(REPOSITORY / "inventories" / self.target),
            # Connections of this lab's own, so that `down` can close them and no others.
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.connections),
            **mitogen(),
        }

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second command from changing the same lab at the same time."""
        self.lab_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.lab_dir / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise LabError(
                    f"another command is working on the lab '{self.lab}': wait for it, or choose another LAB"
                ) from error
            yield

    def step(self, name: str, command: list[str], *, log: str, failed: str, env: dict[str, str] | None = None) -> str:
        """Run one long step: its output goes to a log, a line with the elapsed time to the screen.

        Returns the output. Raises LabError with `failed`, the end of the log and its path when the step fails.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        path = self.logs / f"{log}.log"
        began = time.monotonic()
        with path.open("w") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=REPOSITORY, text=True,
                env={**self.environment, **(env or {})},
            )  # fmt: skip
            with progress(name, path):
                if wait(process) != 0:
                    tail = "\n".join(f"    {line}" for line in explain(path.read_text(errors="replace")))
                    raise LabError(f"{failed}\n{tail}\n  The whole log: {path}")
        self.timings_s[name] = time.monotonic() - began
        return path.read_text(errors="replace")


def ask_connection(socket: Path, verb: str) -> bool:
    """Give an order (`check`, `exit`) to the SSH connection that has this socket; returns whether it was there."""
    if not socket.exists():
        return False
    # The socket tells which one; ssh wants the name of a host beside it, any that is valid.
    command = ["ssh", "-o", f"ControlPath={socket}", "-O", verb, "node"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def close_connection(socket: Path) -> bool:
    """End the SSH connection that has this socket; returns whether there was one."""
    ended = ask_connection(socket, "exit")
    # One that was killed leaves its socket behind.
    socket.unlink(missing_ok=True)
    return ended


def mitogen() -> dict[str, str]:
    """Return the environment that lets Ansible keep one Python per node running instead of starting one per task.

    Empty where Mitogen is not installed, or MITOGEN=off asks for plain Ansible (docs/decisions/0004).
    """
    plugins = next(REPOSITORY.glob(".venv/lib/python3.*/site-packages/ansible_mitogen/plugins/strategy"), None)
    if plugins is None or os.environ.get("MITOGEN") == "off":
        return {}
    return {
        "ANSIBLE_STRATEGY_PLUGINS": str(plugins),
        "ANSIBLE_STRATEGY": "mitogen_free",
        # Ansible warns of every strategy that is not its own; its version is locked here.
        "ANSIBLE_DEPRECATION_WARNINGS": "0",
    }


def wait(process: subprocess.Popen[str]) -> int:
    """Wait for a program; on Ctrl-C, which it got too, let it put things in order first. Returns its exit code."""
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise


def explain(log: str) -> list[str]:
    """Return the lines of a log that say what failed: from the first error on, 30 at most, without colours.

    What Ansible tried again is no error yet.
    """
    lines = re.sub(r"\x1b\[[0-9;]*m", "", log).splitlines()
    lines = [line for line in lines if not line.startswith("FAILED - RETRYING")]
    starts = [
        number for number, line in enumerate(lines) if re.match(r"\W*(Error:|\[ERROR\]|fatal:|FAILED|ERROR)", line)
    ]
    first = starts[0] if starts else max(0, len(lines) - 30)
    return lines[first : first + 30]


@contextlib.contextmanager
def progress(name: str, log: Path | None = None) -> Iterator[None]:
    """Show what is being done and for how long; on a terminal the line is alive, elsewhere it is printed at the end."""
    began = time.monotonic()
    done = threading.Event()

    def current() -> str:
        if log is None or not log.is_file():
            return ""
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 4000))
            tail = stream.read().decode(errors="replace")
        tasks = re.findall(
            r"^(?:TASK \[(.+?)\]|(?:module\.\S+\.)?terraform_data\.(\S+?): Creating)", tail, re.MULTILINE
        )
        return f" - {tasks[-1][0] or tasks[-1][1]}"[:60] if tasks else ""

    def draw() -> None:
        while not done.wait(1.0):
            print(f"\r\x1b[K  .. {name} {time.monotonic() - began:4.0f} s{current()}", end="", flush=True)

    drawer = threading.Thread(target=draw, daemon=True) if sys.stdout.isatty() else None
    if drawer:
        drawer.start()
    outcome = "failed"
    try:
        yield
        outcome = "ok"
    finally:
        done.set()
        if drawer:
            drawer.join()
            print("\r\x1b[K", end="")
        print(f"  {outcome:<6} {name} ({time.monotonic() - began:.0f} s)", flush=True)


def need(program: str, remedy: str) -> str:
    """Return the path of a program; LabError with the remedy where it is missing."""
    found = shutil.which(
        program, path=f"{REPOSITORY / '.venv' / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    )
    if found is None:
        raise LabError(f"the program {program} is missing: {remedy}")
    return found
