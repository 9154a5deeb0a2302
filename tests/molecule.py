#!/usr/bin/env python3
"""`make molecule`: the roles' molecule scenarios, two at a time, and how long each took.

Arguments are `role` or `role/scenario`; without one, every scenario of every role is run. With --changed (`make test`)
it is every `default` scenario, and of the roles that have changed the others too, as many as fit into --extra-s; what
is left out is named. A change is what differs, committed or not, from the base: --base or MOLECULE_BASE where one is
given; else, on a branch, where it left origin/main; else the commit before this one; where there is none, as in a clone
of one commit, every role counts as changed. So it does when what all scenarios share has changed.

The longest go first, by tests/molecule_seconds.json, which --record writes anew, and the table of CONTRIBUTING with it.
A scenario's output goes to .lab/molecule/<role>-<scenario>.log, and to the screen when it fails.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
ROLES = REPOSITORY / "ansible" / "roles"
LOGS = REPOSITORY / ".lab" / "molecule"
SECONDS = REPOSITORY / "tests" / "molecule_seconds.json"
CONTRIBUTING = REPOSITORY / "CONTRIBUTING.md"

sys.path.insert(0, str(REPOSITORY / "tools" / "lab"))
from context import Context, explain, wait  # noqa: E402 - found on the path set above

Scenario = tuple[str, str]
# Molecule writes an ansible.cfg and an inventory of its own.
NOT_FOR_MOLECULE = ["TF_WORKSPACE", "LAB", "TARGET", "ANSIBLE_CONFIG", "ANSIBLE_INVENTORY"]
# What every scenario is made with.
SHARED = (".config/molecule/", "ansible/molecule/", "ansible/conftest.py")
BUNDLES = "ansible/roles/artifacts/files/"
# Columns of the table, and of a scenario that has not been timed yet.
NAMES = ("default", "alternative", "cluster", "upgrade")
UNTIMED_S = 180.0


def scenarios() -> list[Scenario]:
    """Return role and name of every scenario."""
    return sorted((path.parents[2].name, path.parent.name) for path in ROLES.glob("*/molecule/*/molecule.yml"))


def named(wanted: list[str], known: list[Scenario]) -> list[Scenario]:
    """Return the scenarios that the arguments name; SystemExit for a name that there is not."""
    picked = []
    for text in wanted:
        role, _, name = text.partition("/")
        found = [scenario for scenario in known if scenario[0] == role and name in ("", scenario[1])]
        if not found:
            sys.exit(f"no scenario {text}: known are {', '.join('/'.join(scenario) for scenario in known)}")
        picked += found
    return picked


def git(*arguments: str) -> list[str] | None:
    """Return the lines that a git command prints, None when it fails or there is no git."""
    try:
        done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.splitlines() if done.returncode == 0 else None


def base_commit(asked: str) -> str | None:
    """Return the commit that changes are counted from, None where there is none; SystemExit for an unknown one."""
    if asked:
        found = git("rev-parse", "--verify", "--quiet", f"{asked}^{{commit}}")
        if not found:
            sys.exit(f"there is no commit {asked}")
        return found[0]
    head = git("rev-parse", "HEAD")
    # On main itself, the branch leaves main where it stands.
    for found in (git("merge-base", "origin/main", "HEAD"), git("rev-parse", "--verify", "--quiet", "HEAD~1")):
        if found and found != head:
            return found[0]
    return None


def changed_files(base: str | None) -> list[str] | None:
    """Return the files that differ from a commit, with those that git does not know yet; None: any of them may."""
    tracked = git("diff", "--name-only", base) if base else None
    return None if tracked is None else tracked + (git("ls-files", "--others", "--exclude-standard") or [])


def changed_roles(files: Iterable[str] | None, roles: set[str]) -> set[str]:
    """Return the roles that are concerned by changed files."""
    if files is None:
        return roles
    found = set()
    for name in files:
        if name.startswith(SHARED):
            return roles
        parts = Path(name).parts
        if parts[:2] == ("ansible", "roles") and parts[2] in roles and not name.endswith(".md"):
            found.add(parts[2])
        # Another release of a component is a change of the roles that run it.
        if name.startswith(BUNDLES):
            found |= roles & {parts[4], f"{parts[4]}_job"}
    return found


def bounded(
    known: list[Scenario], roles: set[str], seconds: dict[Scenario, float], *, jobs: int, extra_s: float
) -> tuple[list[Scenario], list[Scenario]]:
    """Return the scenarios to run, and the changed roles' that are left out.

    `default` is always run. Of the others the shortest come first, as long as all of them take no more than `extra_s`
    seconds of wall clock when `jobs` run at a time.
    """
    chosen = [scenario for scenario in known if scenario[1] == "default"]
    others = [scenario for scenario in known if scenario[1] != "default" and scenario[0] in roles]
    left: list[Scenario] = []
    spent_s = 0.0
    for scenario in sorted(others, key=lambda one: seconds.get(one, UNTIMED_S)):
        spent_s += seconds.get(scenario, UNTIMED_S)
        (chosen if spent_s <= extra_s * jobs else left).append(scenario)
    return chosen, sorted(left)


def longest_first(chosen: list[Scenario], seconds: dict[Scenario, float]) -> list[Scenario]:
    """Return the scenarios in the order in which those that run at the same time end together."""
    return sorted(chosen, key=lambda one: (-seconds.get(one, UNTIMED_S), one))


def read_seconds() -> dict[Scenario, float]:
    """Return how long each scenario took when it was last recorded."""
    kept = json.loads(SECONDS.read_text())
    return {(role, name): taken for text, taken in kept.items() for role, _, name in [text.partition("/")]}


def table(seconds: dict[Scenario, float]) -> str:
    """Return CONTRIBUTING's table of role x scenario x seconds."""
    lines = [f"| role | {' | '.join(NAMES)} |", "|---" * (len(NAMES) + 1) + "|"]
    for role in sorted({role for role, _ in seconds}):
        cells = [f"{seconds[role, name]:.0f}" if (role, name) in seconds else "" for name in NAMES]
        lines.append(f"| {role} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def record(results: list[tuple[Scenario, float, bool]]) -> None:
    """Keep the seconds of the scenarios that passed, and write the table."""
    seconds = read_seconds() | {scenario: round(taken) for scenario, taken, good in results if good}
    known = {scenario: seconds[scenario] for scenario in scenarios() if scenario in seconds}
    SECONDS.write_text(json.dumps({"/".join(scenario): taken for scenario, taken in known.items()}, indent=2) + "\n")
    text = CONTRIBUTING.read_text()
    CONTRIBUTING.write_text(re.sub(r"\| role \| default .*\n(\|.*\n)*", lambda _: table(known), text))


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
    parser.add_argument("--changed", action="store_true", help="every default, and the changed roles' others")
    parser.add_argument(
        "--base", default=os.environ.get("MOLECULE_BASE", ""), help="commit that changes are counted from"
    )
    parser.add_argument("--extra-s", type=float, default=300, help="wall clock for the changed roles' others (300)")
    parser.add_argument("--list", action="store_true", help="only say what would be run")
    parser.add_argument(
        "--record", action="store_true", help="keep the seconds of those that pass, and write the table"
    )
    options = parser.parse_args()
    if options.changed and options.scenarios:
        parser.error("--changed chooses the scenarios itself")
    known, seconds = scenarios(), read_seconds()
    chosen = named(options.scenarios, known) or known
    left: list[Scenario] = []
    if options.changed:
        base = base_commit(options.base)
        roles = changed_roles(changed_files(base), {role for role, _ in known})
        chosen, left = bounded(known, roles, seconds, jobs=options.jobs, extra_s=options.extra_s)
        since = f"since {base[:12]}" if base else "for there is no commit to compare with"
        print(f"Every default scenario; changed roles {since}: {', '.join(sorted(roles)) or 'none'}")
    for scenario in left:
        print(f"  left to `make test-all`, more than {options.extra_s:.0f} s would be needed: {'/'.join(scenario)}")
    chosen = longest_first(chosen, seconds)
    if options.list:
        print("\n".join("/".join(scenario) for scenario in chosen))
        return 0
    LOGS.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        results = sorted(pool.map(lambda one: run(one, options.sequence), chosen))
    if options.record and options.sequence == "test":
        record(results)
    print("\nRole                 scenario       seconds")
    for (role, name), taken, good in results:
        print(f"  {role:<18} {name:<12} {taken:>8.0f}  {'ok' if good else 'FAILED'}")
    failed = sum(1 for result in results if not result[2])
    print(f"molecule: {len(results) - failed} passed, {failed} failed", flush=True)
    if left:
        print(f"left to `make test-all`: {', '.join('/'.join(scenario) for scenario in left)}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
