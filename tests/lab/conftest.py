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
    config.addinivalue_line("markers", "extended: takes minutes; `make test-all` runs it, `make test` does not")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("disruptive") is not None)


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Lab:
    context = Context(target=request.config.getoption("--target"), lab=request.config.getoption("--lab"))
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
