"""Names, paths, steps and locks of tools/lab/context.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from context import Context, LabError, explain, need, progress


@pytest.mark.parametrize("name", ["a", "lab", "lab-2", "a1", "twelve-chars", "a" * 12])
def test_names_that_labs_can_have(name: str) -> None:
    assert Context(target="lxd", lab=name).lab == name


@pytest.mark.parametrize("name", ["", "Lab", "2lab", "lab-", "-lab", "a" * 13, "lab_2", "lab 2", "läb", "a\n", "../x"])
def test_names_that_labs_cannot_have(name: str) -> None:
    with pytest.raises(LabError, match="use 1 to 12 of a-z"):
        Context(target="lxd", lab=name)


def test_unknown_target_is_named_with_the_known_ones() -> None:
    with pytest.raises(LabError, match="TARGET=azure is unknown: known are lxd"):
        Context(target="azure", lab="lab")


def test_names_fit_terraforms_own_rule() -> None:
    """The bridge is <lab>-br, and an interface's name has 15 characters at most."""
    text = (Path(__file__).resolve().parents[3] / "terraform" / "lxd" / "variables.tf").read_text()
    assert "^[a-z]([a-z0-9-]{0,10}[a-z0-9])?$" in text
    assert len("a" * 12 + "-br") <= 15


def test_paths(lab: Context, checkout: Path, tmp_path: Path) -> None:
    other = Context(target="lxd", lab="lab-2")
    assert lab.terraform_root == other.terraform_root == checkout / "terraform" / "lxd"
    assert (lab.lab_dir, other.lab_dir) == (checkout / ".lab" / "lab", checkout / ".lab" / "lab-2")
    assert lab.ssh_config.parent == lab.logs.parent == lab.lab_dir
    assert lab.cache == tmp_path / "cache"


def test_cache_follows_the_xdg_rule(lab: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CSL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert lab.cache == Path("/somewhere/crypto-stream-lab")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert lab.cache == Path.home() / ".cache" / "crypto-stream-lab"


def test_default_lab_is_terraforms_default_workspace(lab: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_WORKSPACE", "left-over")
    assert lab.environment["TF_WORKSPACE"] == "default"
    assert Context(target="lxd", lab="lab-2").environment["TF_WORKSPACE"] == "lab-2"


def test_environment_puts_the_checkouts_tools_first(lab: Context, checkout: Path) -> None:
    assert lab.environment["PATH"].startswith(str(checkout / ".venv" / "bin"))
    assert lab.environment["ANSIBLE_CONFIG"] == str(checkout / "ansible.cfg")
    assert lab.environment["ANSIBLE_INVENTORY"] == str(checkout / "inventories" / "lxd")
    assert lab.environment["TF_INPUT"] == "0"


def test_mitogen_serves_where_it_is_installed(lab: Context, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MITOGEN", raising=False)
    assert "ANSIBLE_STRATEGY" not in lab.environment
    plugins = checkout / ".venv" / "lib" / "python3.11" / "site-packages" / "ansible_mitogen" / "plugins" / "strategy"
    plugins.mkdir(parents=True)
    assert lab.environment["ANSIBLE_STRATEGY"] == "mitogen_free"
    assert lab.environment["ANSIBLE_STRATEGY_PLUGINS"] == str(plugins)
    monkeypatch.setenv("MITOGEN", "off")
    assert "ANSIBLE_STRATEGY" not in lab.environment


def test_second_command_is_turned_away(lab: Context) -> None:
    with lab.locked():
        with pytest.raises(LabError, match="another command is working on the lab 'lab'"), lab.locked():
            pass
        with Context(target="lxd", lab="lab-2").locked():
            pass
    with lab.locked():
        assert lab.lab_dir.stat().st_mode & 0o077 == 0


def test_step_keeps_its_output(lab: Context, capsys: pytest.CaptureFixture[str]) -> None:
    output = lab.step("say hello", [sys.executable, "-c", "print('hello')"], log="hello", failed="no hello")
    assert output == "hello\n"
    assert (lab.logs / "hello.log").read_text() == "hello\n"
    assert list(lab.timings_s) == ["say hello"]
    shown = capsys.readouterr().out
    assert "ok     say hello (" in shown
    assert "hello\n" not in shown.replace("say hello", "")


def test_step_gets_the_labs_environment_and_no_terminal(lab: Context) -> None:
    script = "import os, sys; print(os.environ['TF_WORKSPACE'], os.environ['MORE'], repr(sys.stdin.read()))"
    output = lab.step("look", [sys.executable, "-c", script], log="look", failed="", env={"MORE": "yes"})
    assert output == "default yes ''\n"


def test_failed_step_says_what_where_and_why(lab: Context, capsys: pytest.CaptureFixture[str]) -> None:
    script = "print('fine so far'); print('Error: the disk is full'); raise SystemExit(3)"
    with pytest.raises(LabError) as caught:
        lab.step("fill the disk", [sys.executable, "-c", script], log="disk", failed="The disk could not be filled.")
    text = str(caught.value)
    assert text.startswith("The disk could not be filled.\n")
    assert "    Error: the disk is full" in text
    assert "fine so far" not in text
    assert str(lab.logs / "disk.log") in text
    assert "failed fill the disk (" in capsys.readouterr().out


@pytest.mark.parametrize(
    "line",
    [
        "Error: Resource precondition failed",
        "│ Error: Resource precondition failed",
        "[ERROR]: Task failed: Module failed",
        "fatal: [kafka-1]: FAILED! => changed=false",
        "FAILED! => changed=false",
        "\x1b[31m╷\x1b[0m\x1b[31mError: \x1b[0mcoloured",
    ],
)
def test_explain_begins_with_the_first_error(line: str) -> None:
    log = "\n".join([*(f"step {number}" for number in range(100)), line, "because of this", "Error: a later one"])
    shown = explain(log)
    assert len(shown) == 3
    assert "\x1b" not in shown[0]
    assert shown[1] == "because of this"


def test_what_is_tried_again_is_no_error() -> None:
    tries = [f"FAILED - RETRYING: [kafka-1]: Wait for the port ({left} retries left)." for left in range(40, 0, -1)]
    shown = explain("\n".join([*tries, "ok: [kafka-1]", "fatal: [kafka-1]: FAILED! => the real cause"]))
    assert shown == ["fatal: [kafka-1]: FAILED! => the real cause"]


def test_explain_shows_the_end_where_no_error_is_marked() -> None:
    assert explain("\n".join(str(number) for number in range(100))) == [str(number) for number in range(70, 100)]
    assert explain("a\nb") == ["a", "b"]
    assert explain("") == []


def test_explain_is_short() -> None:
    assert len(explain("Error: x\n" + "line\n" * 100)) == 30


def test_progress_tells_failure(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="x"), progress("try"):
        raise ValueError("x")
    assert capsys.readouterr().out.startswith("  failed try (")


def test_needed_program(checkout: Path) -> None:
    assert Path(need("sh", "")).name == "sh"
    own = checkout / ".venv" / "bin" / "sh"
    own.parent.mkdir(parents=True)
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    assert need("sh", "") == str(own) or Path(need("sh", "")).name == "sh"
    with pytest.raises(LabError, match="the program no-such-program is missing: do this"):
        need("no-such-program", "do this")
