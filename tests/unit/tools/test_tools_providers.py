"""Where Terraform's providers come from."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import providers
import pytest
from context import REPOSITORY, Context, LabError


def make_mirror(place: Path, *, complete: bool = True) -> Path:
    folder = place / "registry.terraform.io/hashicorp/external/1.2.0/linux_amd64"
    folder.mkdir(parents=True, exist_ok=True)
    if complete:
        (folder / "terraform-provider-external_v1.2.0").touch()
    return place


def test_mirror_is_the_first_that_has_the_provider(tmp_path: Path) -> None:
    places = [
        tmp_path / "missing",
        # A build that failed leaves folders behind.
        make_mirror(tmp_path / "empty", complete=False),
        make_mirror(tmp_path / "first"),
        make_mirror(tmp_path / "second"),
    ]
    assert providers.find_mirror(providers.EXTERNAL, places) == tmp_path / "first"
    assert providers.find_mirror(providers.EXTERNAL, places[:2]) is None
    assert providers.find_mirror(providers.LIBVIRT, places) is None
    assert providers.find_mirror(providers.EXTERNAL, []) is None


def test_mirrors_that_are_named_come_first(lab: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CSL_TERRAFORM_MIRROR", "/one:/two")
    assert providers.places(lab)[:3] == [Path("/one"), Path("/two"), lab.cache / "terraform-providers"]
    monkeypatch.delenv("CSL_TERRAFORM_MIRROR")
    assert providers.places(lab)[0] == lab.cache / "terraform-providers"


@pytest.fixture
def calls(lab: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Programs that are called, in a world where no registry answers; init puts a provider where Terraform would."""
    made: list[str] = []

    def refused(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        made.append(f"{Path(command[0]).name} {command[2]}")
        return subprocess.CompletedProcess(command, 1, "", "Error: no registry")

    def run(_name: str, command: list[str], _remedy: str, env: dict[str, str], *_: Any) -> None:
        made.append(f"mirror {command[2]} {Path(env['TF_CLI_CONFIG_FILE']).read_text().count('filesystem_mirror')}")
        make_mirror(lab.terraform_root / ".terraform" / "providers")

    (lab.terraform_root / ".terraform").mkdir(parents=True)
    (lab.terraform_root / "main.tf").write_text("terraform {}")
    monkeypatch.setattr("providers.subprocess.run", refused)
    monkeypatch.setattr(providers, "run", run)
    monkeypatch.setattr(providers, "need", lambda *_: "terraform")
    monkeypatch.setenv("CSL_TERRAFORM_MIRROR", str(make_mirror(tmp_path / "mirror")))
    return made


def test_init_is_done_once_and_again_for_a_changed_root(lab: Context, calls: list[str]) -> None:
    providers.initialise(lab)
    assert calls == ["terraform init", "mirror init 1"]
    providers.initialise(lab)
    assert len(calls) == 2
    # A module that is new in it has to be installed too.
    (lab.terraform_root / "main.tf").write_text('module "new" {}')
    providers.initialise(lab)
    assert len(calls) == 4
    # Terraform writes a lock file; one that git has brought back holds other checksums.
    (lab.terraform_root / ".terraform.lock.hcl").write_text("provider {}")
    providers.initialise(lab)
    assert calls.count("terraform init") == 3
    assert not (lab.terraform_root / ".terraform.lock.hcl").exists()
    providers.initialise(lab)
    assert calls.count("terraform init") == 3


def test_provider_that_cannot_be_built_says_where_to_put_it(lab: Context) -> None:
    with pytest.raises(LabError, match=r"hashicorp/aws cannot be had.* CSL_TERRAFORM_MIRROR"):
        providers._build(lab, providers.AWS)


def test_committed_lock_is_of_the_registry() -> None:
    """A mirror's build has a checksum of its own; committed, it would stop everybody else."""
    shown = subprocess.run(
        ["git", "-C", str(REPOSITORY), "show", ":terraform/libvirt/.terraform.lock.hcl"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if shown.returncode != 0:
        pytest.skip("not a git checkout")
    assert f'version     = "{providers.LIBVIRT.version}"' in shown.stdout
    for block in re.findall(r"hashes = \[(.*?)\]", shown.stdout, re.DOTALL):
        assert block.count('"zh:') > 10
