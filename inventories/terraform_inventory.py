#!/usr/bin/env python3
"""Ansible dynamic inventory: the nodes that a target's Terraform root has made.

Each target's folder here has a link to this program, and the folder's name is the target's: inventories/lxd reads
terraform/lxd.

Which lab: the Terraform workspace, chosen by the environment variable TF_WORKSPACE or by `terraform workspace select`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

# Of the link, and not of what it leads to.
TARGET = Path(__file__).absolute().parent.name
ROOT = Path(__file__).resolve().parents[1] / "terraform" / TARGET


def read_inventory() -> dict[str, Any]:
    """Return Terraform's output `ansible_inventory`; SystemExit with a message where there is none."""
    if shutil.which("terraform") is None:
        sys.exit("inventory: the program terraform is not there: `make setup` installs it")
    done = subprocess.run(
        ["terraform", f"-chdir={ROOT}", "output", "-json", "ansible_inventory"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        sys.exit(
            f"inventory: no {TARGET} lab has been applied here. Make one: make lab TARGET={TARGET}, "
            f"or terraform -chdir=terraform/{TARGET} apply\n({done.stderr.strip()})"
        )
    inventory: dict[str, Any] = json.loads(done.stdout)
    # What the lab was brought up with (`make lab SOURCE=...`), so that a playbook run by hand keeps it.
    chosen = Path(inventory["all"]["vars"]["lab_dir"], "variables.json")
    if chosen.is_file():
        for variables in inventory["_meta"]["hostvars"].values():
            variables.update(json.loads(chosen.read_text()))
    return inventory


def main() -> int:
    """Answer --list with everything; --host is not needed beside _meta."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print the whole inventory")
    parser.add_argument("--host", help="print one host's variables")
    arguments = parser.parse_args()
    if arguments.host:
        print("{}")
        return 0
    json.dump(read_inventory(), sys.stdout, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
