"""The name of the test lab, and what tests/run.py prints of a part that failed."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module of another name."""
    monkeypatch.setenv("TEST_LAB", "unit")
    spec = importlib.util.spec_from_file_location("run_tests", REPOSITORY / "tests" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.delenv("TEST_LAB")
    return module


def test_a_clone_keeps_the_name_that_it_drew(runner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = runner.lab_name(tmp_path / ".lab")
    assert re.fullmatch(r"test-\d{4}", name)
    monkeypatch.setattr(runner.secrets, "randbelow", lambda _: 7)
    assert runner.lab_name(tmp_path / ".lab") == name
    assert runner.lab_name(tmp_path / "another clone") == "test-0007"


def test_a_failed_part_is_told_again_at_the_end(
    runner: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def part(name: str, code: int) -> Any:
        program = f"import sys; print('{name} begins'); print('{name} ends', file=sys.stderr); sys.exit({code})"
        return lambda: runner.run(name, [sys.executable, "-c", program])

    dots = "import time; print('..', end='', flush=True); time.sleep(0.2); print('F'); raise SystemExit(1)"
    parts = {"dots": lambda: runner.run("dots", [sys.executable, "-c", dots])}
    monkeypatch.setattr(runner, "PARTS", {**parts, "first": part("first", 3), "second": part("second", 0)})
    monkeypatch.setattr("sys.argv", ["run.py"])
    assert runner.main() == 1
    table = capfd.readouterr().out.partition("Part  ")[2]
    assert "parts: 1 passed, 2 failed" in table
    assert "The last lines of 'first':\n" in table
    assert "The last lines of 'dots':\n  ..F\n" in table
    assert "  first ends\n" in table
    assert "second ends" not in table
