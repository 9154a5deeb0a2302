"""Which target a lab is on, and what the cloud asks first."""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

import context as context_module
import pytest
import targets
from context import Context, LabError


@pytest.mark.parametrize(("kvm", "target"), [(True, "libvirt"), (False, "lxd")])
def test_new_lab_is_on_machines_where_they_are_quick(
    lab: Context, monkeypatch: pytest.MonkeyPatch, kvm: bool, target: str
) -> None:
    monkeypatch.setattr(context_module, "has_kvm", lambda: kvm)
    assert Context(target="", lab=lab.lab).target == target


def test_lab_keeps_its_target_and_another_is_refused_while_it_runs(lab: Context) -> None:
    Context(target="aws", lab=lab.lab).remember_target()
    assert Context(target="", lab=lab.lab).target == "aws"
    # It is down: its name is free.
    assert Context(target="lxd", lab=lab.lab).target == "lxd"
    lab.ssh_config.write_text("")
    with pytest.raises(LabError, match=r"TARGET=lxd: the lab '\w+' is running on aws\. Take it down first"):
        Context(target="lxd", lab=lab.lab)
    assert Context(target="aws", lab=lab.lab).target == "aws"


@pytest.fixture
def cloud(lab: Context, monkeypatch: pytest.MonkeyPatch) -> targets.Target:
    """A cloud that costs half a dollar an hour."""
    plan = {"planned_values": {"outputs": {"cost_estimate": {"value": {"usd_per_hour": "0.5", "usd_per_day": "12"}}}}}
    lab.lab_dir.mkdir(parents=True)

    def shown(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 0, json.dumps(plan), "")

    monkeypatch.setattr("targets.machine.make_ssh_key", lambda _: None)
    monkeypatch.setattr("targets.subprocess.run", shown)
    monkeypatch.setattr(Context, "step", lambda *_, **__: "")
    return targets.of(Context(target="aws", lab=lab.lab))


def test_cloud_costs_nothing_before_consent(
    cloud: targets.Target, lab: Context, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(LabError, match=r"about 0\.5 USD an hour, 12 a day.* add CONFIRM="):
        cloud.before_apply([], argparse.Namespace(confirm=None))
    with pytest.raises(LabError, match="CONFIRM"):
        cloud.before_apply([], argparse.Namespace(confirm="another"))
    cloud.before_apply([], argparse.Namespace(confirm=lab.lab))
    assert "AWS will charge about 0.5 USD" in capsys.readouterr().out
    # A lab that runs is paid for.
    lab.ssh_config.write_text("")
    cloud.before_apply([], argparse.Namespace(confirm=None))


def test_destroying_remembers_who_may_log_in(cloud: targets.Target, lab: Context) -> None:
    assert cloud.variables(argparse.Namespace(ssh_cidr="203.0.113.7/32")) == ["-var=bastion_ssh_cidr=203.0.113.7/32"]
    Path(lab.lab_dir, "options.json").write_text(json.dumps({"ssh_cidr": "198.51.100.0/24"}))
    assert cloud.variables() == ["-var=bastion_ssh_cidr=198.51.100.0/24"]
