"""Options, recap and waiting of tools/lab/pipeline.py, and the command line."""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import clean
import pipeline
import pytest
import screen
import targets
from context import Context, LabError

REPOSITORY = Path(__file__).resolve().parents[3]


def options(**changes: Any) -> argparse.Namespace:
    return argparse.Namespace(**{**pipeline.DEFAULTS, **changes})


def nothing(**changes: Any) -> argparse.Namespace:
    """Options of a bare `make lab`."""
    return argparse.Namespace(**{**dict.fromkeys(pipeline.DEFAULTS), **changes})


@pytest.fixture
def command_line() -> ModuleType:
    """tools/lab/__main__.py."""
    spec = importlib.util.spec_from_file_location("lab_command_line", REPOSITORY / "tools" / "lab" / "__main__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Options


def test_defaults_are_right() -> None:
    pipeline.check_options(options(), "lxd")


def test_the_cloud_wants_to_know_who_may_log_in() -> None:
    with pytest.raises(LabError, match=r"TARGET=aws needs SSH_CIDR="):
        pipeline.check_options(options(), "aws")
    pipeline.check_options(options(ssh_cidr="203.0.113.7/32"), "aws")


def test_wrong_choices_for_machines_are_refused() -> None:
    with pytest.raises(
        LabError, match=r"IMAGE=ubuntu: known are debian, built[\s\S]*VIRTUALIZATION=xen: known are kvm"
    ):
        pipeline.check_options(options(image="ubuntu", virtualization="xen"), "libvirt")


def test_a_file_of_ones_own_may_be_the_topology(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("nodes: {}")
    pipeline.check_options(options(topology=str(tmp_path / "own.yaml")), "lxd")


def test_tape_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "tape.ndjson").write_text("")
    pipeline.check_options(options(source="tape", tape=str(tmp_path / "tape.ndjson"), speed="2.5"), "lxd")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"topology": "enormous"}, "TOPOLOGY=enormous: known are ha, mini, scale, small"),
        ({"subnet": "10.77.0.1/24"}, "SUBNET=10.77.0.1/24: give an IPv4 network in CIDR notation"),
        ({"subnet": "10.77.0.0"}, "SUBNET=10.77.0.0: give an IPv4 network in CIDR notation"),
        ({"source": "binance"}, "SOURCE=binance: known are coinbase_rest, coinbase_ws, tape"),
        ({"feed": "radio"}, "FEED=radio: known are auto, coinbase, replay"),
        ({"tape": "/nowhere/tape"}, "TAPE_FILE=/nowhere/tape: there is no such file"),
        ({"source": "tape"}, "SOURCE=tape needs TAPE_FILE="),
        ({"speed": "fast"}, "SPEED=fast: must be a positive number"),
        ({"speed": "0"}, "SPEED=0: must be a positive number"),
        ({"speed": "-1"}, "SPEED=-1: must be a positive number"),
        ({"speed": "nan"}, "SPEED=nan: must be a positive number"),
    ],
)
def test_wrong_option(changes: dict[str, str], text: str) -> None:
    with pytest.raises(LabError) as caught:
        pipeline.check_options(options(**changes), "lxd")
    # Topologies are added in time: the list may go on between the two.
    first, *rest = text.split(", small")
    assert f"  - {first}" in str(caught.value)
    assert rest == [] or "small" in str(caught.value)
    assert str(caught.value).count("\n  - ") == 1


def test_wrong_options_are_said_all_at_once() -> None:
    with pytest.raises(LabError) as caught:
        pipeline.check_options(
            options(topology="x", source="y", feed="z", monitoring="no", tape="/nowhere", speed="-1"), "lxd"
        )
    assert str(caught.value).count("\n  - ") == 6


def test_bare_command_takes_the_defaults(lab: Context) -> None:
    chosen = nothing()
    pipeline.complete_options(lab, chosen)
    assert vars(chosen) == pipeline.DEFAULTS


def test_later_command_keeps_what_the_lab_was_made_with(lab: Context) -> None:
    lab.lab_dir.mkdir(parents=True)
    first = nothing(topology="mini", feed="replay", speed="10", monitoring="off")
    pipeline.complete_options(lab, first)
    pipeline.remember_options(lab, first)

    again = nothing(speed="2")
    pipeline.complete_options(lab, again)
    assert (again.topology, again.feed, again.speed, again.monitoring) == ("mini", "replay", "2", "off")
    assert json.loads((lab.lab_dir / "variables.json").read_text())["lab_monitoring"] is False
    assert again.source == pipeline.DEFAULTS["source"]

    other = Context(target="lxd", lab="lab-2")
    untouched = nothing()
    pipeline.complete_options(other, untouched)
    assert vars(untouched) == pipeline.DEFAULTS


def test_ansible_gets_the_options_with_their_types(
    lab: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lab.lab_dir.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    chosen = options(source="tape", tape="tape.ndjson", speed="2")
    pipeline.complete_options(lab, chosen)
    pipeline.remember_options(lab, chosen)
    assert json.loads((lab.lab_dir / "variables.json").read_text()) == {
        "lab_source": "tape", "lab_feed": "auto", "lab_tape": str(tmp_path / "tape.ndjson"), "lab_speed": 2.0,
        "lab_monitoring": True,
    }  # fmt: skip


# Where prices come from


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (
            "    msg: 'Prices come from the replay of Coinbase on this node (Coinbase cannot be reached\n"
            "        from here): rows carry user = replay'\n",
            "Prices come from the replay of Coinbase on this node (Coinbase cannot be reached from here): "
            "rows carry user = replay",
        ),
        ("    msg: Prices come from Coinbase\n", "Prices come from Coinbase"),
        ("    msg: Prices come from the tape\n", "Prices come from the tape"),
        ("TASK [Say where prices come from] ***\nskipping: [producer-1]\n", ""),
    ],
)
def test_source_of_prices(output: str, said: str) -> None:
    assert pipeline.source_of_prices(output) == said


# Ansible's recap


def test_changed_adds_up_the_recap() -> None:
    output = (
        "TASK [x changed=99] ****\nchanged: [kafka-1]\n"
        "PLAY RECAP *****\n"
        "kafka-1    : ok=10   changed=3    unreachable=0    failed=0\n"
        "postgres-1 : ok=12   changed=4    unreachable=0    failed=0\n"
    )
    assert pipeline.changed(output) == 7
    assert pipeline.changed(output.replace("changed=3", "changed=0").replace("changed=4", "changed=0")) == 0


# Waiting for rows


def test_waiting_ends_with_fresh_rows(lab: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [{"Spark": None, "Flink": 5.0}, {"Spark": 500.0, "Flink": 5.0}, {"Spark": 3.0, "Flink": 5.0}]
    monkeypatch.setattr(screen, "inventory", lambda _: {})
    monkeypatch.setattr(screen, "newest_row_ages", lambda _: answers.pop(0))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    assert pipeline.wait_for_rows(lab) == {"Spark": 3.0, "Flink": 5.0}
    assert answers == []


def test_waiting_in_vain_names_the_engine_and_where_to_look(lab: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "inventory", lambda _: {})
    monkeypatch.setattr(screen, "newest_row_ages", lambda _: {"Spark": None, "Flink": 5.0})
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(pipeline, "ROWS_TIMEOUT_S", 0)
    with pytest.raises(LabError) as caught:
        pipeline.wait_for_rows(lab)
    text = str(caught.value)
    assert "No rows flow through Spark (none so far)" in text
    assert "journalctl -u spark-job" in text
    assert "Flink" not in text


# Labs of a checkout


def test_workspaces_are_the_labs_with_a_state(lab: Context) -> None:
    assert clean.workspaces(lab.terraform_root) == []
    for name in ("lab-2", "dev"):
        (lab.terraform_root / "terraform.tfstate.d" / name).mkdir(parents=True)
    assert clean.workspaces(lab.terraform_root) == ["dev", "lab-2"]
    (lab.terraform_root / "terraform.tfstate").write_text("{}")
    assert clean.workspaces(lab.terraform_root) == ["dev", "lab", "lab-2"]


def test_down_without_a_lab_does_nothing(lab: Context, capsys: pytest.CaptureFixture[str]) -> None:
    clean.down(lab)
    assert "nothing to do" in capsys.readouterr().out
    assert not lab.lab_dir.exists()


def test_down_starts_what_makes_the_nodes_first(lab: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    (lab.terraform_root / ".terraform").mkdir(parents=True)
    monkeypatch.setattr(targets.of(lab).__class__, "install", lambda _: done.append("install"))
    monkeypatch.setattr(Context, "step", lambda *_, **kind: done.append(kind["log"]))
    clean.down(lab)
    assert done == ["install", "terraform-destroy"]


# The command line


def test_options_come_from_the_environment_of_make(command_line: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LAB", "TARGET", "TOPOLOGY", "SOURCE", "FEED", "TAPE_FILE", "SPEED", "MONITORING"):
        monkeypatch.delenv(name, raising=False)
    bare = command_line.parse(["up"])
    assert (bare.lab, bare.target) == ("lab", "")
    assert all(getattr(bare, name) is None for name in pipeline.DEFAULTS)
    # make exports every variable, also an empty one.
    monkeypatch.setenv("LAB", "")
    monkeypatch.setenv("TOPOLOGY", "")
    monkeypatch.setenv("SPEED", "3")
    set_by_make = command_line.parse(["up"])
    assert (set_by_make.lab, set_by_make.topology, set_by_make.speed) == ("lab", None, "3")
    assert command_line.parse(["--lab", "x", "up", "--topology", "mini"]).topology == "mini"


@pytest.mark.parametrize(
    "name", ["setup", "up", "image", "artifacts", "status", "topics", "audit", "reset", "down", "clean"]
)
def test_commands_of_the_makefile_are_known(command_line: ModuleType, name: str) -> None:
    assert command_line.parse([name]).command == name
    assert f"$(LAB_TOOL) {name}" in (REPOSITORY / "Makefile").read_text()


def test_command_for_a_node_is_passed_on_whole(command_line: ModuleType) -> None:
    parsed = command_line.parse(["ssh", "kafka-1", "systemctl", "status", "--no-pager", "kafka"])
    assert (parsed.node, parsed.remote) == ("kafka-1", ["systemctl", "status", "--no-pager", "kafka"])


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [(LabError("the disk is full"), 1, "the disk is full"), (KeyboardInterrupt(), 130, "`make down LAB=x` cleans up")],
)
def test_ends_without_a_traceback(
    command_line: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    error: BaseException, code: int, text: str,
) -> None:  # fmt: skip
    def fails(_: Context) -> None:
        raise error

    monkeypatch.setattr(command_line.clean, "down", fails)
    monkeypatch.setattr("sys.argv", ["lab", "--lab", "x", "down"])
    assert command_line.main() == code
    assert text in capsys.readouterr().err


def test_wrong_name_is_said_before_anything_else(
    command_line: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["lab", "--lab", "Not A Lab", "down"])
    assert command_line.main() == 1
    assert "LAB=Not A Lab" in capsys.readouterr().err


def change(name: str, index: str | None, *actions: str) -> dict[str, object]:
    return {"type": "terraform_data", "name": name, "index": index, "change": {"actions": list(actions)}}


@pytest.mark.parametrize(("airflow", "groups"), [("on", []), ("off", ["airflow"])])
def test_parts_that_are_switched_off_have_no_nodes(airflow: str, groups: list[str]) -> None:
    assert pipeline.without_groups(options(airflow=airflow)) == groups


def test_airflow_is_on_or_off() -> None:
    with pytest.raises(LabError, match="AIRFLOW=maybe: known are on, off"):
        pipeline.check_options(options(airflow="maybe"), "lxd")


def test_groups_of_a_node() -> None:
    inventory = {
        "all": {"vars": {}}, "_meta": {"hostvars": {"a": {}}}, "airflow": {"hosts": ["a"]}, "kafka": {"hosts": ["b"]},
    }  # fmt: skip
    assert pipeline.groups_of(inventory, "a") == {"airflow"}
    assert pipeline.groups_of(inventory, "c") == set()


def test_nodes_that_leave_are_those_that_are_only_deleted() -> None:
    plan = {
        "resource_changes": [
            change("node", "kafka-4", "delete"),
            change("node", "kafka-1", "no-op"),
            change("node", "postgres-1", "delete", "create"),
            change("node", "spark-worker-2", "create"),
            change("limits", "flink-taskmanager-2", "delete"),
            change("network", None, "delete"),
        ]
    }
    assert pipeline.nodes_that_leave(plan, ("terraform_data", "node")) == ["kafka-4"]
    assert pipeline.nodes_that_leave({}, ("terraform_data", "node")) == []


@pytest.mark.parametrize("known", [True, False])
def test_an_unchanged_topology_is_not_planned(lab: Context, monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    lab.lab_dir.mkdir(parents=True)
    if known:
        lab.ssh_config.touch()
    asked = options(topology="small")
    (lab.lab_dir / "topology.yaml").write_text(pipeline.topology_text(asked))

    def step(*_arguments: object, **_options: object) -> str:
        pytest.fail("nothing was to be done")

    monkeypatch.setattr(Context, "step", step)
    pipeline.drain(lab, asked, [])
