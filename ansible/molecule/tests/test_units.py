"""Every unit that a role has put on a node runs, and as the role promises."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from testinfra.host import Host

ROLE = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
ROLES = sorted(path.name for path in ROLE.parent.iterdir())
MAX_EXPOSURE = 3.5
Units = dict[str, dict[str, str]]


def role_of(unit: str) -> str:
    """Return the role that a unit is of: the longest whose name it begins with, spark_job before spark."""
    return max((role for role in ROLES if f"{unit}-".startswith(f"{role.replace('_', '-')}-")), key=len, default="")


def is_sandboxed(unit: str, variables: dict[str, Any]) -> bool:
    """Tell whether the scenario leaves the unit's sandbox on."""
    return bool(variables.get(f"{role_of(unit)}_systemd_sandbox", True))


def test_role_has_its_units(units: Units) -> None:
    expected = any(ROLE.glob("templates/*.service.j2"))
    assert (ROLE.name in map(role_of, units)) == expected
    assert [unit for unit in units if not role_of(unit)] == []


def test_units_are_enabled_and_running(units: Units) -> None:
    found = {unit: (shown["UnitFileState"], shown["ActiveState"]) for unit, shown in units.items()}
    assert found == dict.fromkeys(units, ("enabled", "active"))


def test_units_do_not_run_as_root(host: Host, units: Units) -> None:
    if units:
        pids = ",".join(shown["MainPID"] for shown in units.values())
        users = dict(line.split() for line in host.check_output(f"ps -o pid= -o user:32= -p {pids}").splitlines())
        assert {unit: users.get(shown["MainPID"]) for unit, shown in units.items()} == {
            unit: shown["User"] for unit, shown in units.items()
        }
        assert "root" not in users.values()


def test_units_are_not_exposed(host: Host, units: Units, variables: dict[str, Any]) -> None:
    wrong = []
    for unit in units:
        if is_sandboxed(unit, variables):
            report = host.check_output(f"systemd-analyze security --no-pager {unit}.service")
            found = re.search(r"Overall exposure level for .*: ([\d.]+)", report)
            assert found, report
            if float(found[1]) > MAX_EXPOSURE:
                wrong.append(report)
    assert not wrong, "\n".join(wrong)


def test_sandbox_is_as_it_is_switched(units: Units, variables: dict[str, Any]) -> None:
    expected = {unit: "strict" if is_sandboxed(unit, variables) else "no" for unit in units}
    assert {unit: shown["ProtectSystem"] for unit, shown in units.items()} == expected


def test_units_hold_no_secret(host: Host, units: Units, secrets: set[str]) -> None:
    if units and secrets:
        text = host.check_output(f"systemctl cat {' '.join(units)}") + str(list(units.values()))
        assert [secret for secret in secrets if secret in text] == []
