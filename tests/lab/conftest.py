"""The running lab, as testinfra hosts: `pytest tests/lab`, with --lab (or $LAB) for another one than `lab`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from live_lab import Context, Lab, LabError


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--lab", default=os.environ.get("LAB") or "lab", help="name of the lab")
    parser.addoption("--target", default=os.environ.get("TARGET") or "", help="where its nodes come from")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "disruptive: kills processes and restarts nodes of the lab; runs last")
    config.addinivalue_line("markers", "aged: wants a lab that has run for minutes; runs after those that do not")
    config.addinivalue_line("markers", "extended: takes minutes; `make test-all` runs it, `make test` does not")
    config.addinivalue_line("markers", "target(name): concerns only nodes from that terraform root")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    try:
        target = lab_context(config).target
    except LabError as error:
        raise pytest.UsageError(str(error)) from None

    def concerned(item: pytest.Item) -> bool:
        return all(mark.args[0] == target for mark in item.iter_markers("target"))

    others = [item for item in items if not concerned(item)]
    if others:
        # Deselected, not skipped: on CI a skipped test counts as a failure, and these have nothing to look at here.
        config.hook.pytest_deselected(items=others)
    items[:] = sorted(filter(concerned, items), key=turn)


def turn(item: pytest.Item) -> int:
    """Return a test's place in the order: a lab ages while others are tested, and is disturbed last."""
    if item.get_closest_marker("disruptive"):
        return 2
    return 1 if item.get_closest_marker("aged") else 0


def lab_context(config: pytest.Config) -> Context:
    return Context(target=config.getoption("--target", ""), lab=config.getoption("--lab", "lab"))


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Lab:
    context = lab_context(request.config)
    try:
        found = Lab(context)
    except LabError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    if not context.ssh_config.is_file():
        text = subprocess.run(
            ["terraform", f"-chdir={context.terraform_root}", "output", "-raw", "ssh_config"],
            capture_output=True, text=True, check=True, env=context.environment,
        ).stdout  # fmt: skip
        context.ssh_config.write_text(text)
    return found
