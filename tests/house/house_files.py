"""What the house tests read: roles, shared variables, tracked files."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import jinja2.nativetypes
import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
ROLES = sorted(path for path in (REPOSITORY / "ansible" / "roles").iterdir() if path.is_dir())
GROUP_VARS = REPOSITORY / "ansible" / "playbooks" / "group_vars" / "all"
# The one in C, where PyYAML was built with it, is ten times as fast.
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Keys of a task that hold more tasks.
BLOCKS = ("block", "rescue", "always")


@cache
def read(path: Path) -> Any:
    """Return the content of a YAML file, or nothing where there is no file; not to be changed by who reads it."""
    return yaml.load(path.read_text(), Loader) if path.is_file() else None  # noqa: S506 - it is the safe one


def defaults(role: Path) -> dict[str, Any]:
    """Return a role's defaults."""
    return read(role / "defaults" / "main.yml") or {}


def entry_points(role: Path) -> dict[str, dict[str, Any]]:
    """Return a role's argument specs: entry point => option => spec."""
    specs = (read(role / "meta" / "argument_specs.yml") or {}).get("argument_specs", {})
    return {entry: spec.get("options", {}) for entry, spec in specs.items()}


def options(role: Path) -> dict[str, Any]:
    """Return the options of all of a role's entry points."""
    return {name: spec for found in entry_points(role).values() for name, spec in found.items()}


def contract() -> dict[str, Any]:
    """Return the variables of contract.yml."""
    return dict(read(GROUP_VARS / "contract.yml"))


def lab() -> dict[str, Any]:
    """Return the variables of lab.yml, unrendered."""
    return dict(read(GROUP_VARS / "lab.yml"))


def task_files(role: Path) -> list[Path]:
    """Return a role's files with tasks or handlers."""
    return sorted([*role.glob("tasks/*.yml"), *role.glob("handlers/*.yml")])


def tasks(path: Path) -> Iterator[dict[str, Any]]:
    """Give every task of a file, blocks and what is inside them."""

    def walk(found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for task in found:
            yield task
            for key in BLOCKS:
                yield from walk(task.get(key, []))

    yield from walk(read(path) or [])


def environment(native: bool = False) -> jinja2.Environment:
    """Return a Jinja environment with those of Ansible's filters that templates here use; unknown names are errors."""
    kind = jinja2.nativetypes.NativeEnvironment if native else jinja2.Environment
    made = kind(undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    made.filters |= {
        "bool": lambda value: str(value).lower() in {"1", "true", "yes", "on"},
        "to_json": json.dumps,
        "regex_replace": lambda value, pattern, new: re.sub(pattern, new, value),
        "b64encode": lambda value: value,
    }
    return made


def resolve(variables: dict[str, Any]) -> dict[str, Any]:
    """Render variables that refer to each other, keeping the types of single expressions."""
    made = environment(native=True)

    def render(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: render(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [render(entry) for entry in value]
        if isinstance(value, str) and "{{" in value:
            return made.from_string(value).render(found)
        return value

    found = variables
    # A variable may stand for one that stands for another.
    for _ in range(5):
        found = {name: render(value) for name, value in found.items()}
    return found


@cache
def tracked() -> tuple[Path, ...]:
    """Return the files that git knows; skips outside a git checkout."""
    done = subprocess.run(["git", "-C", str(REPOSITORY), "ls-files", "-z"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return tuple(path for name in done.stdout.split("\0") if name and (path := REPOSITORY / name).is_file())


def relative(path: Path) -> str:
    """Return a path as it is said in messages and test names."""
    return str(path.relative_to(REPOSITORY))
