#!/usr/bin/env python3
"""Write every role's README.md from its meta/argument_specs.yml (`make docs`); --check only compares."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
ROLES = REPOSITORY / "ansible" / "roles"
# aar-doc's example names its task with a colon, which YAML refuses.
TEMPLATE = """<!-- Written by `make docs` from meta/argument_specs.yml and meta/main.yml -->
{{ content | replace("Importing role: ", "Run the role ") }}
"""


def readme(role: Path) -> str:
    """Return the README of a role as aar-doc writes it; CalledProcessError when it cannot."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, role.name)
        shutil.copytree(role / "meta", copy / "meta")
        if (role / "defaults").is_dir():
            shutil.copytree(role / "defaults", copy / "defaults")
        specs = copy / "meta" / "argument_specs.yml"
        content = yaml.safe_load(specs.read_text())
        # The same options as main's, said once.
        del content["argument_specs"]["preflight"]
        specs.write_text(yaml.safe_dump(content, sort_keys=False))
        subprocess.run(
            [Path(sys.executable).with_name("aar-doc"), "--output-mode=replace", f"--output-template={TEMPLATE}", copy,
             "markdown"],
            check=True,
        )  # fmt: skip
        return (copy / "README.md").read_text()


def main() -> int:
    """Return 1 when --check finds a README that is not current."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a README differs")
    check = parser.parse_args().check
    roles = sorted(path.parents[1] for path in ROLES.glob("*/meta/argument_specs.yml"))
    if not check:
        for role in roles:
            (role / "README.md").write_text(readme(role))
        return 0
    stale = [
        role for role in roles if not (role / "README.md").is_file() or (role / "README.md").read_text() != readme(role)
    ]
    for role in stale:
        print(f"{role.relative_to(REPOSITORY)}/README.md differs from meta/argument_specs.yml: make docs")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
