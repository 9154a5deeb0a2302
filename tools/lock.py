#!/usr/bin/env python3
"""Resolve every lock file again from its requirements.in (`make lock`)."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
# The nodes' Python; the controller's lock serves several.
NODE_PYTHON = "3.11"


def main() -> int:
    """Run uv for each file."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    for source in sorted([*REPOSITORY.glob("apps/*/requirements.in"), *REPOSITORY.glob("requirements/*.in")]):
        target = source.with_suffix(".txt")
        command = ["uv", "pip", "compile", "--quiet", "--upgrade", "--generate-hashes", "--no-header",
                   f"--python-version={NODE_PYTHON}", source.name, "-o", target.name]  # fmt: skip
        if source.parent.name == "requirements":
            command.insert(3, "--universal")
        print(target.relative_to(REPOSITORY))
        subprocess.run(command, check=True, cwd=source.parent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
