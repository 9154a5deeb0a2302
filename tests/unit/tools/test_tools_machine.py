"""What tools/lab/machine.py makes of this machine; nothing is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import machine
import providers
import pytest
from context import Context, LabError


@pytest.mark.parametrize(
    "os_release",
    [
        'ID=debian\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
        'PRETTY_NAME="Ubuntu 24.04"\nID=ubuntu\nID_LIKE=debian\n',
        'ID="linuxmint"\nID_LIKE="ubuntu debian"\n',
    ],
)
def test_systems_with_apt(os_release: str) -> None:
    machine.check_distribution(os_release)


@pytest.mark.parametrize(
    ("os_release", "name"),
    [
        ('ID=fedora\nPRETTY_NAME="Fedora Linux 43"\n', "Fedora Linux 43"),
        ('ID="rhel"\nID_LIKE="fedora"\nPRETTY_NAME="RHEL 10"', "RHEL 10"),
        ("ID=debianish\n", "an unknown system"),
        ("", "an unknown system"),
    ],
)
def test_systems_without_apt_are_refused(os_release: str, name: str) -> None:
    with pytest.raises(LabError, match=r"knows Debian 12/13 and Ubuntu 24\.04") as caught:
        machine.check_distribution(os_release)
    assert name in str(caught.value)


def test_small_machine_is_told_everything_at_once(lab: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "MIN_MEMORY_MIB", 10**9)
    monkeypatch.setattr(machine, "ARTIFACTS_GIB", 10**9)
    with pytest.raises(LabError) as caught:
        machine.check_resources(lab)
    text = str(caught.value)
    assert "MiB of memory: the smallest topology needs 1000000000 MiB" in text
    assert f"GiB free below {lab.cache}" in text
    assert "CSL_CACHE" in text
    assert text.count("\n  - ") == 2


def test_large_machine_passes(lab: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "MIN_MEMORY_MIB", 1)
    for part in ("ARTIFACTS_GIB", "IMAGE_GIB", "NODES_GIB"):
        monkeypatch.setattr(machine, part, 0)
    machine.check_resources(lab)
    assert lab.cache.is_dir()


def test_space_is_asked_for_what_is_not_there_yet(lab: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("ARTIFACTS_GIB", "IMAGE_GIB", "NODES_GIB"):
        monkeypatch.setattr(machine, part, 10**9)
    assert machine.disk_shortage(lab)
    (lab.cache / "artifacts" / "bundles").mkdir(parents=True)
    lab.lab_dir.mkdir(parents=True, exist_ok=True)
    lab.ssh_config.touch()
    assert machine.disk_shortage(lab) == []


@pytest.mark.parametrize(
    ("found", "in_apt", "expected"),
    [
        ({"google-chrome"}, False, []),
        (set(), True, [["apt", "chromium"]]),
        ({"snap"}, False, [["snap", "install", "chromium"]]),
    ],
)
def test_browser_for_the_tests(
    monkeypatch: pytest.MonkeyPatch, found: set[str], in_apt: bool, expected: list[list[str]]
) -> None:
    done: list[list[str]] = []
    monkeypatch.setattr(shutil, "which", lambda name: name if name in found else None)
    monkeypatch.setattr(machine, "_is_in_apt", lambda _name: in_apt)
    monkeypatch.setattr(machine, "as_root", lambda command: command)
    monkeypatch.setattr(machine, "apt_install", lambda packages: done.append(["apt", *packages]))
    monkeypatch.setattr(machine, "run", lambda _name, command, _remedy: done.append(command))
    machine.install_browser()
    assert done == expected


def test_machine_without_any_way_to_a_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    monkeypatch.setattr(machine, "_is_in_apt", lambda _name: False)
    with pytest.raises(LabError, match="Chromium"):
        machine.install_browser()


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Terraform v1.11.4\non linux_amd64\n", (1, 11)),
        ("Terraform v1.9.0-rc1\n", (1, 9)),
        ("Terraform v2.0.0\n\nYour version of Terraform is out of date! The latest version is v3.1.0", (2, 0)),
        ("", (0, 0)),
        ("command not found", (0, 0)),
    ],
)
def test_terraform_version(text: str, version: tuple[int, int]) -> None:
    assert machine.terraform_version(text) == version


def test_terraform_versions_are_compared_as_numbers() -> None:
    assert machine.terraform_version("Terraform v1.10.0") >= machine.MIN_TERRAFORM
    assert machine.terraform_version("Terraform v1.8.5") < machine.MIN_TERRAFORM


def test_root_needs_no_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert machine.as_root(["apt-get", "update"]) == ["apt-get", "update"]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/sudo")
    assert machine.as_root(["apt-get", "update"]) == ["sudo", "apt-get", "update"]
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(LabError, match="`apt-get update` needs root"):
        machine.as_root(["apt-get", "update"])


def test_failed_run_quotes_the_program() -> None:
    with pytest.raises(LabError) as caught:
        machine.run("try", ["sh", "-c", "echo first; echo the reason >&2; exit 2"], "do this instead")
    text = str(caught.value)
    assert text.startswith("try: `sh -c ")
    assert "    the reason" in text
    assert text.endswith("do this instead")


def test_run_passes_environment_and_folder(tmp_path: Path) -> None:
    machine.run("try", ["sh", "-c", 'test "$MORE" = yes && test "$PWD" = "$WANTED"'], "",
                {"MORE": "yes", "WANTED": str(tmp_path)}, tmp_path)  # fmt: skip


@pytest.mark.parametrize(
    ("there", "name"), [({"lxc", "incus"}, "lxc"), ({"lxc"}, "lxc"), ({"incus"}, "incus"), (set(), "")]
)
def test_client(monkeypatch: pytest.MonkeyPatch, there: set[str], name: str) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}" if program in there else None)
    assert machine.client() == name


@pytest.mark.parametrize(
    ("policy", "there"),
    [
        ("incus:\n  Installed: (none)\n  Candidate: 6.0.4-2\n", True),
        ("lxd:\n  Installed: (none)\n  Candidate: (none)\n", False),
        ("lxd:\n  Installed: (none)\n  Candidate: 1:0.10\n  500 http://x noble/universe lxd snap", False),
        ("", False),
    ],
)
def test_what_apt_offers(monkeypatch: pytest.MonkeyPatch, policy: str, there: bool) -> None:
    def run(command: list[str], **_: object) -> Any:
        return subprocess.CompletedProcess(command, 0, policy, "")

    monkeypatch.setattr(subprocess, "run", run)
    assert machine._is_in_apt("lxd") is there


def test_only_missing_packages_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(machine, "apt_install", asked.append)
    monkeypatch.setattr(shutil, "which", lambda program: None if program in {"mvn", "ip"} else "/usr/bin/x")
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, "", ""))
    machine.install_packages()
    assert [set(packages) for packages in asked] == [{"maven", "iproute2"}]
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/x")
    machine.install_packages()
    assert len(asked) == 1


@pytest.mark.parametrize("has_policy", [False, True])
def test_promtool_comes_without_a_service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, has_policy: bool) -> None:
    unit, policy = tmp_path / "system" / "prometheus.service", tmp_path / "policy-rc.d"
    if has_policy:
        policy.write_text("theirs")
    seen: list[tuple[list[str], Path, str]] = []
    monkeypatch.setattr(machine, "PROMETHEUS_UNIT", unit)
    monkeypatch.setattr(machine, "START_POLICY", policy)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(machine, "as_root", lambda command: command)
    monkeypatch.setattr(
        machine, "apt_install", lambda packages: seen.append((packages, unit.readlink(), policy.read_text()))
    )
    machine._install_promtool()
    assert seen == [(["prometheus"], Path("/dev/null"), "theirs" if has_policy else "#!/bin/sh\nexit 101\n")]
    assert policy.exists() == has_policy
    assert unit.is_symlink()


def test_old_terraform_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/terraform")
    monkeypatch.setattr(
        subprocess,
        "run",
        lambda command, **_: subprocess.CompletedProcess(command, 0, "Terraform v1.5.7\n", ""),
    )
    with pytest.raises(LabError, match=r"terraform is too old \(Terraform v1\.5\.7\)"):
        machine.install_terraform()


def test_rules_agree_with_those_of_terraform() -> None:
    """The same limits stand in the scripts that Terraform calls, which work without these tools."""
    repository = Path(__file__).resolve().parents[3]
    host_state = (repository / "terraform" / "lxd" / "scripts" / "host_state.py").read_text()
    assert f"MIN_INOTIFY_INSTANCES = {machine.INOTIFY_INSTANCES}" in host_state
    versions = (repository / "terraform" / "lxd" / "versions.tf").read_text()
    assert f">= {machine.MIN_TERRAFORM[0]}.{machine.MIN_TERRAFORM[1]}.0" in versions
    assert f">= {providers.EXTERNAL.version}," in versions
    for provider in (providers.EXTERNAL, providers.LIBVIRT):
        pinned = (repository / "terraform" / "providers" / provider.name / "go.mod").read_text()
        assert f"{provider.package} v{provider.version}" in pinned


@pytest.mark.parametrize(("there", "installed"), [("nft", []), ("iptables", []), ("", ["nftables"])])
def test_a_firewall_program_is_installed_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch, there: str, installed: list[str]
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(shutil, "which", lambda name, **_: name if name == there else None)
    monkeypatch.setattr(machine, "apt_install", asked.extend)
    machine.install_firewall_program()
    assert asked == installed
