#!/usr/bin/env python3
"""Run tflint over Terraform's roots and modules, by the rules of .tflint.hcl.

It comes from the PATH where it is there; else it is built once, from the sources that requirements/tflint pins, into
the cache. Exit code: tflint's own, 0 when it has nothing to say; 3 where there is neither tflint nor Go.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = REPOSITORY / "requirements" / "tflint"
PACKAGE = "github.com/terraform-linters/tflint"
CANNOT_BE_HAD = 3

sys.path.insert(0, str(REPOSITORY / "terraform" / "scripts"))
from lab_host import cache  # noqa: E402 - found on the path set above


def folders() -> list[Path]:
    """Return the folders of roots and modules."""
    terraform = REPOSITORY / "terraform"
    return sorted({path.parent for pattern in ("*/*.tf", "modules/*/*.tf") for path in terraform.glob(pattern)})


def built() -> Path | None:
    """Return the tflint in the cache, made where there is none of the pinned version; None without Go."""
    found = re.search(rf"{re.escape(PACKAGE)} (v\S+)", (SOURCES / "go.mod").read_text())
    if found is None:
        sys.exit(f"{SOURCES / 'go.mod'} does not require {PACKAGE}")
    program = cache(os.environ) / "tflint" / f"tflint-{found[1]}"
    if program.is_file():
        return program
    if shutil.which("go") is None:
        return None
    print(f"building tflint {found[1]} from its pinned sources, once", flush=True)
    program.parent.mkdir(parents=True, exist_ok=True)
    partial = program.with_suffix(f".partial-{os.getpid()}")
    subprocess.run(
        ["go", "build", "-mod=mod", "-trimpath", "-o", str(partial), PACKAGE],
        cwd=SOURCES, env={**os.environ, "GOFLAGS": ""}, check=True,
    )  # fmt: skip
    partial.rename(program)
    return program


def main() -> int:
    """Lint folder by folder, all of them also when one has faults."""
    program = shutil.which("tflint") or built()
    if program is None:
        print("no tflint here, and no Go to build it with: install one of them (`apt install golang-go`)")
        return CANNOT_BE_HAD
    codes = [
        subprocess.run(
            [str(program), f"--chdir={folder}", f"--config={REPOSITORY / '.tflint.hcl'}", "--no-color"], check=False
        ).returncode
        for folder in folders()
    ]
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
