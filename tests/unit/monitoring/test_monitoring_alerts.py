"""The alert rules against made-up series, by Prometheus's own test program."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

TESTS = Path(__file__).with_name("alerts.yml")
RULES = TESTS.parents[3] / "ansible" / "roles" / "prometheus" / "files" / "rules" / "lab.yml"


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.fail("promtool is missing: `python3 tools/lab setup --tests` installs it (Debian's package prometheus)")
    return found


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)


def test_rules_are_sound(promtool: str) -> None:
    done = run(promtool, "check", "rules", RULES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_when_they_should_and_only_then(promtool: str) -> None:
    done = run(promtool, "test", "rules", TESTS)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("value", "kind"), [("0", "fires"), ("1", "is quiet")])
def test_tests_notice_a_rule_that_is_wrong(promtool: str, value: str, kind: str, tmp_path: Path) -> None:
    """With rules of which none fires, and of which each does, every test of the one kind and of the other fails."""
    alerts = re.findall(r"^ +- alert: (\w+)$", RULES.read_text(), re.MULTILINE)
    rules = [{"alert": alert, "expr": f"vector({value}) == 1"} for alert in alerts]
    (tmp_path / "lab.yml").write_text(json.dumps({"groups": [{"name": "broken", "rules": rules}]}))
    tests = tmp_path / "alerts.yml"
    tests.write_text(re.sub(r"rule_files: \[.*\]", "rule_files: [lab.yml]", TESTS.read_text()))
    done = run(promtool, "test", "rules", tests)
    assert done.returncode != 0
    failed = Counter(re.findall(r'expr: .*?alertname=\\"(\w+)', done.stdout + done.stderr))
    wanted = Counter(re.findall(rf"- name: (\w+) {kind}, ", TESTS.read_text()))
    assert wanted.keys() == set(alerts)
    assert wanted <= failed
