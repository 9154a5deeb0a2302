#!/usr/bin/env python3
"""Write every role's README.md from its meta/argument_specs.yml (`make docs`); --check only compares."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
ROLES = REPOSITORY / "ansible" / "roles"
# aar-doc's example names its task with a colon, which YAML refuses.
TEMPLATE = """<!-- Written by `make docs` from meta/argument_specs.yml and meta/main.yml -->
{{ content | replace("Importing role: ", "Run the role ") }}
"""


def write(role: Path) -> None:
    """Let aar-doc write the README of a role; CalledProcessError when it cannot."""
    subprocess.run(
        [Path(sys.executable).with_name("aar-doc"), "--output-mode=replace", f"--output-template={TEMPLATE}", role,
         "markdown"],
        check=True,
    )  # fmt: skip


def is_current(role: Path) -> bool:
    """Tell whether a role's README is what would be written now."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, role.name)
        shutil.copytree(role / "meta", copy / "meta")
        if (role / "defaults").is_dir():
            shutil.copytree(role / "defaults", copy / "defaults")
        write(copy)
        readme = role / "README.md"
        return readme.is_file() and readme.read_text() == (copy / "README.md").read_text()


def main() -> int:
    """Return 1 when --check finds a README that is not current."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a README differs")
    check = parser.parse_args().check
    roles = sorted(path.parents[1] for path in ROLES.glob("*/meta/argument_specs.yml"))
    if not check:
        for role in roles:
            write(role)
        return 0
    stale = [role for role in roles if not is_current(role)]
    for role in stale:
        print(f"{role.relative_to(REPOSITORY)}/README.md differs from meta/argument_specs.yml: make docs")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
