#!/usr/bin/env python3
"""Run checkov over Terraform's roots that make machines elsewhere, without asking anybody on the network.

It lives in an environment of its own (.venv/checkov, from requirements/checkov.txt), which is made here at the first
time: it wants older releases of packages than the rest. An exception stands where it is made, with its reason:
`#checkov:skip=ID:reason`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
LOCK_FILE = REPOSITORY / "requirements" / "checkov.txt"
# Of the roots, those that are there.
ROOTS = ("aws", "libvirt")


def environment() -> Path:
    """Return checkov's environment, made anew when its lock file has changed."""
    venv = REPOSITORY / ".venv" / "checkov"
    stamp = venv / ".lock-sha256"
    wanted = hashlib.sha256(LOCK_FILE.read_bytes()).hexdigest()
    if not stamp.is_file() or stamp.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        subprocess.run(
            [str(venv / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check",
             "--require-hashes", "-r", str(LOCK_FILE)],
            check=True,
        )  # fmt: skip
        stamp.write_text(wanted)
    return venv


def main() -> int:
    """Return checkov's exit code, 0 when nothing is left to say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("roots", nargs="*", default=ROOTS, help=f"of {', '.join(ROOTS)}; all by default")
    options = parser.parse_args()
    command = [str(environment() / "bin" / "checkov"), "--framework", "terraform", "--quiet", "--compact",
               "--skip-download", "--download-external-modules", "false"]  # fmt: skip
    for name in options.roots:
        folder = REPOSITORY / "terraform" / name
        if list(folder.glob("*.tf")):
            command += ["--directory", str(folder)]
    return subprocess.run(
        command, check=False, cwd=REPOSITORY, env={**os.environ, "LOG_LEVEL": "ERROR", "ANSI_COLORS_DISABLED": "1"}
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
