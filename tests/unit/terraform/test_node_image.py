"""terraform/node_image/build.py: names, metadata, and that nothing half-made looks finished."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

RECIPE: dict[str, Any] = {
    "suite": "bookworm", "components": ["main"], "packages": ["sudo", "python3"],
    "files": {"/etc/sudoers.d/lab": "lab ALL=(ALL) NOPASSWD: ALL\n", "/etc/motd": "grüß\n"}, "commands": ["true"],
}  # fmt: skip


@pytest.fixture(autouse=True)
def _small_images_are_fine(node_image: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_image, "MIN_ROOTFS_BYTES", 1)


MIRRORS = {"mirror": "http://mirror.invalid/debian", "security_mirror": "http://mirror.invalid/security"}


def test_name_does_not_depend_on_the_order_of_keys(node_image: ModuleType) -> None:
    name = node_image.image_name(RECIPE)
    assert name == node_image.image_name(dict(reversed(RECIPE.items())))
    prefix, _, digits = name.rpartition("-")
    assert prefix == "csl-node"
    assert len(digits) == 12
    assert int(digits, 16) >= 0


@pytest.mark.parametrize(
    "change",
    [
        {"suite": "trixie"},
        {"components": ["main", "contrib"]},
        {"packages": ["sudo"]},
        {"packages": ["python3", "sudo"]},
        {"files": {"/etc/motd": "other\n"}},
        {"commands": ["true", "false"]},
    ],
)
def test_name_changes_with_the_recipe(node_image: ModuleType, change: dict[str, Any]) -> None:
    assert node_image.image_name({**RECIPE, **change}) != node_image.image_name(RECIPE)


def test_metadata(node_image: ModuleType, tmp_path: Path) -> None:
    node_image.write_metadata(RECIPE, "csl-node-x", tmp_path / "metadata.tar")
    with tarfile.open(tmp_path / "metadata.tar") as archive:
        content = {member.name: archive.extractfile(member).read().decode() for member in archive}  # type: ignore[union-attr]
    assert set(content) == {"metadata.yaml", "templates/hostname.tpl"}
    metadata = json.loads(content["metadata.yaml"])
    assert metadata["architecture"]
    assert metadata["properties"] == {
        "description": "crypto-stream-lab node, Debian bookworm", "os": "debian", "release": "bookworm",
        "name": "csl-node-x",
    }  # fmt: skip
    template = metadata["templates"]["/etc/hostname"]
    assert template["when"] == ["create", "copy"]
    assert f"templates/{template['template']}" in content


def test_build(node_image: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_image, "bootstrap", lambda _recipe, rootfs, **_: rootfs.write_text("root"))
    node_image.build(RECIPE, tmp_path / "csl-node-x", **MIRRORS)
    assert sorted(path.name for path in (tmp_path / "csl-node-x").iterdir()) == ["metadata.tar", "rootfs.tar"]
    assert [path.name for path in tmp_path.iterdir()] == ["csl-node-x"]


@pytest.mark.parametrize("error", [subprocess.CalledProcessError(25, ["mmdebstrap"]), KeyboardInterrupt()])
def test_interrupted_build_leaves_no_image(
    node_image: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def interrupted(_recipe: dict[str, Any], rootfs: Path, **_: str) -> None:
        rootfs.write_text("half")
        raise error

    monkeypatch.setattr(node_image, "bootstrap", interrupted)
    with pytest.raises(type(error)):
        node_image.build(RECIPE, tmp_path / "csl-node-x", **MIRRORS)
    assert not (tmp_path / "csl-node-x").exists()

    # The next attempt begins anew: nothing of the first is in it.
    monkeypatch.setattr(node_image, "bootstrap", lambda _recipe, rootfs, **_: rootfs.write_text("whole"))
    node_image.build(RECIPE, tmp_path / "csl-node-x", **MIRRORS)
    assert (tmp_path / "csl-node-x" / "rootfs.tar").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["csl-node-x"]


def test_bootstrap_hands_over_the_recipe(node_image: ModuleType, host: Any, tmp_path: Path) -> None:
    host.program(
        "mmdebstrap",
        f"printf '%s\\n' \"$@\" > {tmp_path}/arguments\n"
        'for word in "$@"; do case "$word" in\n'
        f'  --essential-hook=tar-in*) set -- $word; cp "$2" {tmp_path}/overlay.tar;;\n'
        f'  --customize-hook=copy-in*) set -- $word; cp "$2" {tmp_path}/customize.sh;;\n'
        "esac; done",
    )
    node_image.bootstrap(RECIPE, tmp_path / "rootfs.tar", **MIRRORS)
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert "--include=sudo,python3" in arguments
    assert arguments[-5:] == [
        "bookworm",
        str(tmp_path / "rootfs.tar"),
        "deb http://mirror.invalid/debian bookworm main",
        "deb http://mirror.invalid/debian bookworm-updates main",
        "deb http://mirror.invalid/security bookworm-security main",
    ]
    assert (tmp_path / "customize.sh").read_text() == "set -eu\ntrue\n"
    with tarfile.open(tmp_path / "overlay.tar") as archive:
        modes = {member.name: member.mode for member in archive}
        motd = archive.extractfile("etc/motd")
        assert motd is not None
        assert motd.read().decode() == "grüß\n"
    # sudo ignores, with a complaint, what others may write.
    assert modes == {"etc/sudoers.d/lab": 0o440, "etc/motd": 0o644}


def test_no_variable_leads_tar_astray(
    node_image: ModuleType, host: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # GNU tar, which mmdebstrap calls, writes to the file that TAPE names: a user's recording was lost that way once.
    monkeypatch.setenv("TAPE", str(tmp_path / "recording"))
    host.program("mmdebstrap", f'printf "%s" "${{TAPE-unset}}" > {tmp_path}/tape')
    node_image.bootstrap(RECIPE, tmp_path / "rootfs.tar", **MIRRORS)
    assert (tmp_path / "tape").read_text() == "unset"


def test_an_empty_root_file_system_is_refused(
    node_image: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_image, "MIN_ROOTFS_BYTES", 5)
    monkeypatch.setattr(node_image, "bootstrap", lambda _recipe, rootfs, **_: rootfs.write_text("tiny"))
    with pytest.raises(node_image.ImageError, match="too small"):
        node_image.build(RECIPE, tmp_path / "csl-node-x", **MIRRORS)
    assert not (tmp_path / "csl-node-x").exists()


@pytest.fixture
def command(
    node_image: ModuleType, host: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[ModuleType, list[str]]:
    """The command line with a bootstrap that notes its calls; images go to a cache of the test's own."""
    host.program("mmdebstrap", "exit 99")
    built: list[str] = []

    def bootstrap(_recipe: dict[str, Any], rootfs: Path, *, mirror: str, security_mirror: str) -> None:
        built.append(f"{mirror} {security_mirror}")
        rootfs.write_text("root")

    monkeypatch.setattr(node_image, "bootstrap", bootstrap)
    monkeypatch.setenv("CSL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DEBIAN_MIRROR", raising=False)
    monkeypatch.delenv("DEBIAN_SECURITY_MIRROR", raising=False)
    monkeypatch.setattr("sys.argv", ["build.py", "--client", "lxc", "--generation", "g9"])
    return node_image, built


def test_second_run_does_nothing(command: tuple[ModuleType, list[str]], host: Any, tmp_path: Path) -> None:
    module, built = command
    name = module.image_name(json.loads(module.RECIPE.read_text()))
    assert module.main() == 0
    assert built == [f"{module.DEFAULT_MIRROR} {module.DEFAULT_SECURITY_MIRROR}"]
    assert host.state["images"][name]["properties"] == {"generation": "g9"}
    assert len(host.calls()) == 1

    assert module.main() == 0
    assert len(built) == 1
    assert host.calls() == []
    assert (tmp_path / "cache" / "images" / name / "rootfs.tar").is_file()


def test_image_is_imported_again_from_the_cache(command: tuple[ModuleType, list[str]], host: Any) -> None:
    module, built = command
    module.main()
    host.update({"images": {}})
    assert module.main() == 0
    assert len(built) == 1
    assert len(host.state["images"]) == 1


def test_mirrors_come_from_the_environment(
    command: tuple[ModuleType, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, built = command
    monkeypatch.setenv("DEBIAN_MIRROR", MIRRORS["mirror"])
    monkeypatch.setenv("DEBIAN_SECURITY_MIRROR", MIRRORS["security_mirror"])
    assert module.main() == 0
    assert built == [f"{MIRRORS['mirror']} {MIRRORS['security_mirror']}"]


def test_failed_bootstrap_is_said(
    command: tuple[ModuleType, list[str]],
    host: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module, _ = command

    def fails(*_: object, **__: object) -> None:
        raise subprocess.CalledProcessError(25, ["mmdebstrap"])

    monkeypatch.setattr(module, "bootstrap", fails)
    assert module.main() == 1
    assert "mmdebstrap failed with exit code 25" in capsys.readouterr().err
    assert host.state["images"] == {}


def test_missing_mmdebstrap_is_said(
    command: tuple[ModuleType, list[str]],
    host: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module, built = command
    (host.bin / "mmdebstrap").unlink()
    monkeypatch.setenv("PATH", str(host.bin))
    assert module.main() == 1
    assert "apt-get install mmdebstrap" in capsys.readouterr().err
    assert built == []


def test_name_is_printed_without_building(
    command: tuple[ModuleType, list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, built = command
    monkeypatch.setattr("sys.argv", ["build.py", "--name"])
    assert module.main() == 0
    assert capsys.readouterr().out.strip() == module.image_name(json.loads(module.RECIPE.read_text()))
    assert built == []


def test_recipe_of_the_repository(node_image: ModuleType) -> None:
    recipe = json.loads(node_image.RECIPE.read_text())
    assert set(recipe) == {"suite", "components", "packages", "files", "commands"}
    assert recipe["packages"] == sorted(set(recipe["packages"]))
    assert {"openssh-server", "python3", "python3-apt", "sudo", "systemd-sysv"} <= set(recipe["packages"])
    assert all(path.startswith("/etc/") for path in recipe["files"])
