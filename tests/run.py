#!/usr/bin/env python3
"""`make test`: every kind of test, from cheap to dear, with a lab of its own that is taken down at the end.

With --all (`make test-all`) also what takes long: every molecule scenario, instead of each role's `default` and the
changed roles' others (`tests/molecule.py --help`), and the slow integration tests.

The lab has its own name (TEST_LAB, by default `test-` and four digits drawn once for each clone, so that what a killed
run of another clone left cannot be in its way); a user's lab of that name stops the run. It is removed also after a
failure or an interruption. Its input is a recording where one is found (TAPE_FILE, or ../shared/data beside the
project), the replay's generated tape elsewhere.

Where the output goes to a file, the last lines of each part that failed are printed once more at the end.
"""

from __future__ import annotations

import argparse
import codecs
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PYTEST = str(REPOSITORY / ".venv" / "bin" / "pytest")
PYTHON = str(REPOSITORY / ".venv" / "bin" / "python")
SLOWEST_TASKS = 12
# `make test` is to end within 90 minutes; the virtual machine takes 7 on quiet cores, a multiple of that on busy ones.
VM_LATEST_START_S = 3900

LAST_LINES = 15
# How long the last words of a part that has ended are waited for.
READER_S = 5

outcomes: list[tuple[str, float, bool]] = []
last_lines: dict[str, deque[str]] = {}
keep_failed = False


def lab_name(folder: Path) -> str:
    """Return the name of this clone's test lab, which the folder keeps."""
    if os.environ.get("TEST_LAB"):
        return os.environ["TEST_LAB"]
    drawn = folder / "test-lab"
    if not drawn.is_file():
        folder.mkdir(exist_ok=True)
        drawn.write_text(f"test-{secrets.randbelow(10**4):04}\n")
    return drawn.read_text().strip()


LAB = lab_name(REPOSITORY / ".lab")
OURS = REPOSITORY / ".lab" / LAB / "made-by-make-test"


def show(name: str, process: subprocess.Popen[bytes]) -> None:
    """Print what a part prints, unless the screen is its own already, and keep the end of it."""
    last_lines[name] = deque([""], maxlen=LAST_LINES)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    # As it comes, not by lines: pytest writes a dot for each test.
    while process.stdout and (chunk := os.read(process.stdout.fileno(), 65_536)):
        text = decoder.decode(chunk)
        print(text, end="", flush=True)
        first, *others = text.splitlines(keepends=True) or [""]
        lines = last_lines[name]
        if lines[-1].endswith("\n"):
            lines.append(first)
        else:
            lines[-1] += first
        lines.extend(others)


def run(name: str, command: list[str], **environment: str) -> bool:
    """Run one part, its output on the screen; remember how it went."""
    print(f"\n=== {name}: {' '.join(command)}", flush=True)
    began = time.monotonic()
    # A terminal is handed on, for its colours and its living lines.
    piped = None if sys.stdout.isatty() else subprocess.PIPE
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env={**os.environ, **environment},
        stdout=piped, stderr=None if piped is None else subprocess.STDOUT,
    )  # fmt: skip
    # Not to its end of file, which a daemon that the part has started could hold open.
    reader = threading.Thread(target=show, args=(name, process), daemon=True)
    reader.start()
    try:
        code = process.wait()
        reader.join(READER_S)
    except KeyboardInterrupt:
        # It got the Ctrl-C too: let it put things in order before the lab is taken down.
        process.wait()
        raise
    outcomes.append((name, time.monotonic() - began, code == 0))
    return code == 0


def tape() -> str:
    """Return the path of a recorded feed, or nothing."""
    if os.environ.get("TAPE_FILE"):
        return os.environ["TAPE_FILE"]
    recordings = sorted(REPOSITORY.parent.glob("shared/data/coinbase-exchange-ws-*.ndjson"))
    return str(recordings[-1]) if recordings else ""


def print_slowest_tasks() -> None:
    """Print what Ansible's own profile says of the first run."""
    log = REPOSITORY / ".lab" / LAB / "logs" / "ansible.log"
    if log.is_file():
        profile = re.findall(r"^.+ -{3,} [0-9.]+s$", log.read_text(), re.MULTILINE)
        print("\nSlowest Ansible tasks:\n" + "\n".join(f"  {line}" for line in profile[:SLOWEST_TASKS]), flush=True)


def kept(name: str, before: int) -> bool:
    """Return whether a lab is to be left standing: it failed after `before` outcomes, under --keep-failed."""
    if not keep_failed or all(good for _, _, good in outcomes[before:]):
        return False
    print(f"\nthe lab '{name}' is left as it is: `make down LAB={name}` removes it", flush=True)
    return True


def lab_part(*, everything: bool = False) -> None:
    """Bring a lab up, run it a second time, test it, take it down."""
    before = len(outcomes)
    lab = [PYTHON, "tools/lab", "--target", "lxd", "--lab", LAB]
    if OURS.with_name("ssh_config").exists() and not OURS.exists():
        print(f"a lab named '{LAB}' is running that was not made by `make test`: TEST_LAB=name chooses another name")
        outcomes.append(("lab", 0, False))
        return
    OURS.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    OURS.touch()
    try:
        if run("lab up", [*lab, "up", "--feed", "replay", "--tape", tape()]):
            print_slowest_tasks()
            # The second run must find nothing to change.
            run("lab up again", [*lab, "up", "--expect-unchanged"])
            chosen = [] if everything else ["-m", "not extended"]
            run("lab tests", [PYTEST, "-q", "-W", "ignore", "tests/lab", f"--lab={LAB}", "--durations=8", *chosen])
            run("audit", [*lab, "audit"])
    finally:
        if not kept(LAB, before):
            run("lab down", [*lab, "down"])


def terraform_part() -> None:
    """Test the roots and modules; plans of terraform/libvirt ask a libvirt."""
    if run("set up libvirt", [PYTHON, "tools/lab", "--target", "libvirt", "setup"]):
        run("terraform tests", [PYTEST, "-q", "-W", "ignore", "tests/terraform"])


def certificates(folder: Path) -> Path:
    """Make a folder with this machine's own certificates and one more, for machines to trust; returns it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in Path("/usr/local/share/ca-certificates").rglob("*.crt"):
        shutil.copy(path, folder)
    if (folder / "test.crt").exists():
        # A machine that an earlier run has left trusts this one.
        return folder
    subject = ["-subj", "/CN=crypto-stream-lab test", "-days", "30"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "/dev/null", *subject,
         "-out", str(folder / "test.crt")],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


def machine_part(*, everything: bool = False) -> None:
    """Make a virtual machine, give it a role, look at it, remove it; with `everything` the whole lab on one machine.

    Emulated, also where KVM works: so that it is the same everywhere.
    """
    name, before = f"{LAB}-vm", len(outcomes)
    trusted = certificates(REPOSITORY / ".lab" / name / "certificates")
    kind = {"IMAGE": "built", "VIRTUALIZATION": "qemu", "TF_VAR_extra_ca_dir": str(trusted)}
    lab = [PYTHON, "tools/lab", "--target", "libvirt", "--lab", name]
    environment = {"TF_WORKSPACE": name, "ANSIBLE_INVENTORY": str(REPOSITORY / "inventories" / "libvirt")}
    try:
        if not run("VM: set up libvirt", [*lab, "setup"]):
            return
        if everything:
            # Two emulated CPUs have enough to do with the pipeline.
            up = ["up", "--topology", "mini", "--monitoring", "off", "--feed", "replay", "--tape", tape()]
            if run("VM: lab up", [*lab, *up], **kind):
                run(
                    "VM: lab tests",
                    [PYTEST, "-q", "-W", "ignore", "tests/lab", f"--lab={name}", "--durations=8", "-m", "not extended"],
                    **kind,
                )
                run("VM: audit", [*lab, "audit"])
        elif run("VM: nodes", [*lab, "nodes", "--topology", "tests/fixtures/one-machine.yaml"], **kind):
            run("VM: role", [str(REPOSITORY / ".venv/bin/ansible-playbook"), "tests/fixtures/base.yml"], **environment)
            run("VM: tests", [PYTEST, "-q", "-W", "ignore", "tests/lab/test_lab_machines.py", f"--lab={name}"], **kind)
    finally:
        if not kept(name, before):
            run("VM: down", [*lab, "down"])
            run("VM: nothing is left", [PYTHON, "tests/fixtures/nothing_left.py", name])


PARTS: dict[str, Callable[[], object]] = {
    # First, since the unit tests of the Spark job use PySpark from the artifacts.
    "artifacts": lambda: run("artifacts", [PYTHON, "tools/lab", "--target", "lxd", "artifacts"]),
    "check": lambda: run("check", ["tests/check"]),
    "terraform": terraform_part,
    "integration": lambda: run("integration tests", [PYTHON, "tests/integration/run.py"]),
    "molecule": lambda: run("molecule", [PYTHON, "tests/molecule.py", "--changed"]),
    "lab": lab_part,
    "vm": machine_part,
}
# What these do instead with --all.
ALL: dict[str, Callable[[], object]] = {
    "integration": lambda: run("integration tests", [PYTHON, "tests/integration/run.py", "--all"]),
    "molecule": lambda: run("molecule", [PYTHON, "tests/molecule.py"]),
    "lab": lambda: lab_part(everything=True),
    "vm": lambda: machine_part(everything=True),
}


def main() -> int:
    """Run the parts named on the command line, all by default; returns 0 when all of them passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # No choices=: argparse would hold them against the empty list.
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--all", action="store_true", help="also what takes long")
    parser.add_argument("--keep-failed", action="store_true", help="leave a lab standing in which something has failed")
    options = parser.parse_args()
    global keep_failed  # noqa: PLW0603 - set once, here
    keep_failed = options.keep_failed
    unknown = set(options.parts) - PARTS.keys()
    if unknown:
        parser.error(f"unknown part {', '.join(sorted(unknown))}: known are {', '.join(PARTS)}")
    began = time.monotonic()
    for name in options.parts or PARTS:
        if name == "vm" and not options.parts and not options.all and time.monotonic() - began > VM_LATEST_START_S:
            print(f"\nleft out: vm, since the parts before it took more than {VM_LATEST_START_S} s, and an emulated")
            print("CPU would take too long on this machine; `python tests/run.py vm` runs it alone", flush=True)
            continue
        ({**PARTS, **ALL} if options.all else PARTS)[name]()
    print("\nPart                      seconds")
    for name, seconds, good in outcomes:
        print(f"  {name:<22} {seconds:>8.0f}  {'ok' if good else 'FAILED'}")
    passed = sum(1 for outcome in outcomes if outcome[2])
    print(f"parts: {passed} passed, {len(outcomes) - passed} failed", flush=True)
    for name, _, good in outcomes:
        said = "".join(f"  {line}" for line in last_lines.get(name, ()) if line)
        if not good and said:
            print(f"\nThe last lines of '{name}':\n{said}", end="" if said.endswith("\n") else "\n", flush=True)
    return 0 if passed == len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
