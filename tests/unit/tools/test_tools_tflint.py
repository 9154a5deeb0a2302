"""tools/tflint.py lints every folder of Terraform, and a fault in one of them counts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
TOOL = REPOSITORY / "tools" / "tflint.py"


def run_with(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    """Run the tool with a stand-in for tflint, and nothing else, on the PATH."""
    folder.joinpath("tflint").write_text(f"#!/bin/sh\n{body}\n")
    folder.joinpath("tflint").chmod(0o755)
    return subprocess.run(
        [sys.executable, str(TOOL)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": str(folder)},
    )


def test_every_root_and_module_is_linted(tmp_path: Path) -> None:
    done = run_with(tmp_path, f'echo "$@" >> {tmp_path}/calls')
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "calls").read_text()
    for folder in ("lxd", "libvirt", "aws", "modules/topology", "modules/inventory"):
        assert f"--chdir={REPOSITORY / 'terraform' / folder} " in calls
    assert calls.count(f"--config={REPOSITORY / '.tflint.hcl'}") == calls.count("--chdir=")


def test_one_folder_with_faults_is_enough(tmp_path: Path) -> None:
    done = run_with(tmp_path, 'case "$1" in */lxd) echo "a fault"; exit 2;; esac')
    assert done.returncode == 2
    assert "a fault" in done.stdout


def test_without_tflint_and_go_it_says_what_to_install(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(TOOL)], capture_output=True, text=True, check=False,
        env={**os.environ, "PATH": str(tmp_path), "CSL_CACHE": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 3
    assert "apt install golang-go" in done.stdout
