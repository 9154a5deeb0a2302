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


def role_of(unit: str) -> str:
    """Return the role that a unit is of: the longest whose name it begins with, spark_job before spark."""
    return max((role for role in ROLES if f"{unit}-".startswith(f"{role.replace('_', '-')}-")), key=len, default="")


def shown(host: Host, unit: str, name: str) -> str:
    """Return a property of a unit."""
    return str(host.check_output(f"systemctl show --property={name} --value {unit}")).strip()


def test_role_has_its_units(units: list[str]) -> None:
    expected = any(ROLE.glob("templates/*.service.j2"))
    assert (ROLE.name in map(role_of, units)) == expected
    assert [unit for unit in units if not role_of(unit)] == []


def test_units_are_enabled_and_running(host: Host, units: list[str]) -> None:
    for unit in units:
        assert host.service(unit).is_enabled, unit
        assert host.service(unit).is_running, unit


def test_units_do_not_run_as_root(host: Host, units: list[str]) -> None:
    for unit in units:
        user = host.check_output(f"ps -o user:32= -p {shown(host, unit, 'MainPID')}").strip()
        assert user == shown(host, unit, "User") != "root", unit


def test_units_are_not_exposed(host: Host, units: list[str], variables: dict[str, Any]) -> None:
    wrong = {}
    for unit in units:
        if variables.get(f"{role_of(unit)}_systemd_sandbox", True):
            report = host.check_output(f"systemd-analyze security --no-pager {unit}.service")
            found = re.search(r"Overall exposure level for .*: ([\d.]+)", report)
            assert found, report
            if float(found[1]) > MAX_EXPOSURE:
                wrong[unit] = report
    assert not wrong, "\n".join(wrong.values())


def test_sandbox_is_as_it_is_switched(host: Host, units: list[str], variables: dict[str, Any]) -> None:
    for unit in units:
        sandbox = variables.get(f"{role_of(unit)}_systemd_sandbox", True)
        assert shown(host, unit, "ProtectSystem") == ("strict" if sandbox else "no"), unit


def test_units_hold_no_secret(host: Host, units: list[str], secrets: set[str]) -> None:
    for unit in units:
        for secret in secrets:
            assert secret not in host.check_output(f"systemctl cat {unit}"), unit
            assert secret not in shown(host, unit, "Environment"), unit
