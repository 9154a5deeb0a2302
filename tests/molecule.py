#!/usr/bin/env python3
"""`make molecule`: the roles' molecule scenarios, two at a time, and how long each took.

Arguments are `role` or `role/scenario`; without one, every scenario of every role is run. A scenario's output goes to
.lab/molecule/<role>-<scenario>.log, and to the screen when it fails.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import re
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
ROLES = REPOSITORY / "ansible" / "roles"
LOGS = REPOSITORY / ".lab" / "molecule"

sys.path.insert(0, str(REPOSITORY / "tools" / "lab"))
from context import Context, explain, wait  # noqa: E402 - found on the path set above

Scenario = tuple[str, str]
# Molecule writes an ansible.cfg and an inventory of its own.
NOT_FOR_MOLECULE = ["TF_WORKSPACE", "LAB", "TARGET", "ANSIBLE_CONFIG", "ANSIBLE_INVENTORY"]


def scenarios() -> list[Scenario]:
    """Return role and name of every scenario."""
    return sorted((path.parents[2].name, path.parent.name) for path in ROLES.glob("*/molecule/*/molecule.yml"))


def chosen(wanted: list[str]) -> list[Scenario]:
    """Return the scenarios that the arguments name; SystemExit for a name that there is not."""
    known = scenarios()
    picked = []
    for text in wanted:
        role, _, name = text.partition("/")
        found = [scenario for scenario in known if scenario[0] == role and name in ("", scenario[1])]
        if not found:
            sys.exit(f"no scenario {text}: known are {', '.join('/'.join(scenario) for scenario in known)}")
        picked += found
    return picked or known


def run(scenario: Scenario, sequence: str) -> tuple[Scenario, float, bool]:
    """Run one scenario; returns it with its seconds and whether it passed."""
    role, name = scenario
    began = time.monotonic()
    # Terraform's workspace is the scenario's own.
    environment = {
        key: value for key, value in Context(target="lxd", lab="lab").environment.items()
        if key not in NOT_FOR_MOLECULE
    }  # fmt: skip
    log = LOGS / f"{role}-{name}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            ["molecule", sequence, "--scenario-name", name], cwd=ROLES / role, env=environment, text=True,
            stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        code = wait(process)
    seconds = time.monotonic() - began
    print(f"  {'ok' if code == 0 else 'FAILED':<6} {role}/{name} ({seconds:.0f} s)", flush=True)
    if code != 0:
        plain = re.sub(r"(?m)^ *│ ?", "", re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(errors="replace")))
        print("\n".join(f"    {line}" for line in explain(plain)) + f"\n  The whole log: {log}", flush=True)
    return scenario, seconds, code == 0


def main() -> int:
    """Return 0 when every scenario passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", metavar="role[/scenario]")
    parser.add_argument("--sequence", default="test", help="another of molecule's commands, e.g. converge")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (2)")
    options = parser.parse_args()
    LOGS.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(lambda one: run(one, options.sequence), chosen(options.scenarios)))
    print("\nRole                 scenario       seconds")
    for (role, name), seconds, good in results:
        print(f"  {role:<18} {name:<12} {seconds:>8.0f}  {'ok' if good else 'FAILED'}")
    failed = sum(1 for result in results if not result[2])
    print(f"molecule: {len(results) - failed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
