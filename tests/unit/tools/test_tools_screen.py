"""The screens of tools/lab/screen.py, with nodes that answer as they are told."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import screen
from context import Context, LabError

NODES: dict[str, Any] = {
    "_meta": {"hostvars": {
        "kafka-1": {"ansible_host": "10.77.0.11"}, "postgres-1": {"ansible_host": "10.77.0.21"},
        "spark-1": {"ansible_host": "10.77.0.31"}, "flink-1": {"ansible_host": "10.77.0.71"},
        "producer-1": {"ansible_host": "10.77.0.111"}, "submitter-1": {"ansible_host": "10.77.0.121"},
        "airflow-1": {"ansible_host": "10.77.0.131"},
    }},
    "kafka": {"hosts": ["kafka-1"]}, "postgres": {"hosts": ["postgres-1"]},
    "spark_master": {"hosts": ["spark-1"]}, "spark_worker": {"hosts": ["spark-1"]},
    "flink_jobmanager": {"hosts": ["flink-1"]}, "flink_taskmanager": {"hosts": ["flink-1"]},
    "producer": {"hosts": ["producer-1"]}, "submitter": {"hosts": ["submitter-1"]},
    "monitoring": {"hosts": ["producer-1"]},
    "airflow": {"hosts": ["airflow-1"]},
}  # fmt: skip
RUNNING = '{"jobs":[{"name":"crypto-prices-flink","state":"RUNNING"},{"name":"crypto-prices-flink","state":"FAILED"}]}'
Answer = Callable[[str, str], tuple[int, str, str]]


def healthy(node: str, command: str) -> tuple[int, str, str]:
    """Answer as the nodes of a healthy lab do: exit code, output, errors."""
    if command.startswith("systemctl is-active"):
        units = command.split()[2:]
        return 0, "\n".join("inactive" if unit == "coinbase-replay" else "active" for unit in units), ""
    if "jobs/overview" in command:
        return 0, RUNNING, ""
    if "journalctl -u producer" in command:
        return 0, "started\nINFO Successfully sent BTC-USD 1.0\n", ""
    if "psql" in command and "extract(epoch" in command:
        return 0, "Spark|3.5\nFlink|0.4\n", ""
    if "psql" in command:
        return 0, "Spark||12\nFlink||13\nSpark|BTC-USD|63519.46 coinbase\n", ""
    raise AssertionError(f"{node} was asked: {command}")


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Answer]:
    """Who answers for the nodes; the last one counts."""
    found: list[Answer] = [healthy]

    def on_node(_: Context, node: str, command: str, timeout_s: float = 30) -> subprocess.CompletedProcess[str]:
        assert timeout_s > 0
        code, output, errors = found[-1](node, command)
        return subprocess.CompletedProcess([], code, output, errors)

    monkeypatch.setattr(screen, "on_node", on_node)
    monkeypatch.setattr(screen, "inventory", lambda _: NODES)
    return found


def test_healthy_lab(answers: list[Answer], lab: Context, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(answers) == 1
    assert screen.status(lab) == 0
    shown = capsys.readouterr().out
    assert "BAD" not in shown
    assert "Lab 'lab': 7 nodes" in shown
    assert "63519.46 coinbase" in shown
    assert "Producer: Successfully sent BTC-USD 1.0" in shown
    assert "http://10.77.0.71:8081" in shown
    assert "coinbase-replay" not in shown, "it is only there where Coinbase cannot be reached"


def without(*quiet: str) -> Answer:
    """Return nodes on which these units do not run."""

    def answer(node: str, command: str) -> tuple[int, str, str]:
        if command.startswith("systemctl is-active"):
            return 0, "\n".join("inactive" if unit in quiet else "active" for unit in command.split()[2:]), ""
        return healthy(node, command)

    return answer


def made_with(lab: Context, **options: str) -> None:
    """Leave what `make lab` remembers."""
    lab.lab_dir.mkdir(parents=True, exist_ok=True)
    (lab.lab_dir / "options.json").write_text(json.dumps(options))


def test_prometheus_is_shown_where_it_runs(
    answers: list[Answer], lab: Context, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen.status(lab)
    shown = capsys.readouterr().out
    assert "prometheus active" in shown
    assert ":9090" in shown
    made_with(lab, monitoring="off", feed="coinbase")
    answers.append(without("coinbase-replay", *screen.UNITS["monitoring"]))
    assert screen.status(lab) == 0
    shown = capsys.readouterr().out
    assert "prometheus" not in shown.lower()
    # A topology of one's own need not have the group.
    monkeypatch.setattr(screen, "inventory", lambda _: {**NODES, "monitoring": {"hosts": []}})
    assert screen.status(lab) == 0


@pytest.mark.parametrize("unit", screen.UNITS["monitoring"])
@pytest.mark.parametrize("options", [{}, {"monitoring": "on", "feed": "auto"}])
def test_monitoring_that_was_stopped_by_hand_is_bad(
    answers: list[Answer], lab: Context, capsys: pytest.CaptureFixture[str], unit: str, options: dict[str, str]
) -> None:
    if options:
        made_with(lab, **options)
    answers.append(without("coinbase-replay", unit))
    assert screen.status(lab) == 1
    assert [line for line in capsys.readouterr().out.splitlines() if "BAD" in line and f"{unit} inactive" in line]


@pytest.mark.parametrize(("feed", "code"), [("replay", 1), ("coinbase", 0), ("auto", 0)])
def test_replay_is_wanted_where_prices_come_from_it(answers: list[Answer], lab: Context, feed: str, code: int) -> None:
    made_with(lab, monitoring="on", feed=feed)
    answers.append(without("coinbase-replay"))
    assert screen.status(lab) == code


def test_other_labs_commands_name_the_lab(
    answers: list[Answer], checkout: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answers
    assert checkout
    screen.status(Context(target="lxd", lab="lab-2"))
    assert "make down LAB=lab-2" in capsys.readouterr().out


def test_page_with_a_login_says_where_its_password_is(
    answers: list[Answer], lab: Context, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answers
    screen.status(lab)
    shown = capsys.readouterr().out
    assert f"http://10.77.0.131:8085  (user airflow, password in .lab/{lab.lab}/secrets/airflow-web)" in shown


def test_lab_without_airflow(
    answers: list[Answer], lab: Context, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert answers
    hosts = {name: found for name, found in NODES["_meta"]["hostvars"].items() if name != "airflow-1"}
    nodes = {**NODES, "_meta": {"hostvars": hosts}, "airflow": {"hosts": []}}
    monkeypatch.setattr(screen, "inventory", lambda _: nodes)
    assert screen.status(lab) == 0
    assert "8085" not in capsys.readouterr().out


@pytest.mark.parametrize("unit", [unit for units in screen.UNITS.values() for unit in units])
def test_failed_unit_is_bad(answers: list[Answer], lab: Context, capsys: pytest.CaptureFixture[str], unit: str) -> None:
    def failed(node: str, command: str) -> tuple[int, str, str]:
        code, output, errors = healthy(node, command)
        if command.startswith("systemctl is-active") and unit in command.split():
            output = "\n".join("failed" if name == unit else "active" for name in command.split()[2:])
        return code, output, errors

    answers.append(failed)
    assert screen.status(lab) == 1
    shown = capsys.readouterr().out
    assert [line for line in shown.splitlines() if "BAD" in line and f"{unit} failed" in line]
    assert "docs/troubleshooting.md" in shown


def test_node_that_does_not_answer_is_bad(
    answers: list[Answer], lab: Context, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone(node: str, command: str) -> tuple[int, str, str]:
        return (255, "", "ssh: No route to host") if node == "kafka-1" else healthy(node, command)

    answers.append(gone)
    assert screen.status(lab) == 1
    assert "(node) ssh: No route to host" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("output", "state"),
    [
        (RUNNING, "RUNNING"),
        ('{"jobs":[]}', "no job"),
        ('{"jobs":[{"name":"crypto-prices-flink","state":"FAILED"}]}', "no job"),
        ('{"jobs":[{"name":"another","state":"RUNNING"}]}', "no job"),
        ('{"jobs":[{"name":"crypto-prices-flink","state":"RESTARTING"}]}', "RESTARTING"),
        ("", "no answer"),
        ("<html>", "no answer"),
    ],
)
def test_state_of_the_flink_job(answers: list[Answer], lab: Context, output: str, state: str) -> None:
    answers.append(lambda node, command: (0, output, "") if "overview" in command else healthy(node, command))
    assert screen.flink_job_state(lab, NODES) == state
    assert screen.status(lab) == (0 if state == "RUNNING" else 1)


@pytest.mark.parametrize(
    ("output", "ages", "code"),
    [
        ("Spark|3.5\nFlink|0.4\n", {"Spark": 3.5, "Flink": 0.4}, 0),
        ("Spark|\nFlink|0.4\n", {"Spark": None, "Flink": 0.4}, 1),
        ("Spark|3.5\nFlink|900\n", {"Spark": 3.5, "Flink": 900.0}, 1),
    ],
)
def test_ages_of_rows(
    answers: list[Answer], lab: Context, output: str, ages: dict[str, float | None], code: int
) -> None:
    answers.append(lambda node, command: (0, output, "") if "extract(epoch" in command else healthy(node, command))
    assert screen.newest_row_ages(lab) == ages
    assert screen.status(lab) == code


def test_database_that_does_not_answer(answers: list[Answer], lab: Context, capsys: pytest.CaptureFixture[str]) -> None:
    answers.append(
        lambda node, command: (2, "", "psql: connection refused") if "psql" in command else healthy(node, command)
    )
    assert screen.newest_row_ages(lab) == {"Spark": None, "Flink": None}
    assert screen.status(lab) == 1
    assert "psql: connection refused" in capsys.readouterr().out
    with pytest.raises(LabError, match="postgres-1: psql: psql: connection refused"):
        screen.query(lab, "SELECT 1")


def test_quotes_of_a_query_survive_the_shell(answers: list[Answer], lab: Context) -> None:
    """The command goes through the node's shell: what psql gets must be what was asked."""
    asked: list[str] = []

    def remember(_: str, command: str) -> tuple[int, str, str]:
        words = subprocess.run(
            ["sh", "-c", command.replace("psql", "printf '%s\\n'", 1)], capture_output=True, text=True, check=True
        ).stdout
        asked.append(words.split("\n-c\n")[1].rstrip("\n"))
        return 0, "", ""

    answers.append(remember)
    sql = """SELECT "user", 'it''s $HOME `x` \\' FROM crypto_prices_flink WHERE symbol = 'BTC-USD'"""
    screen.query(lab, sql)
    assert asked == [sql]


def test_unknown_node_is_told_the_known_ones(answers: list[Answer], lab: Context) -> None:
    assert answers
    with pytest.raises(LabError, match="NODE=kafka-9 is not in this lab: airflow-1, flink-1, kafka-1"):
        screen.ssh(lab, "kafka-9", [])


def test_lab_that_is_not_there(lab: Context, checkout: Any) -> None:
    """No Terraform state: the message says how to make one."""
    lab.terraform_root.mkdir(parents=True)
    with pytest.raises(LabError, match=r"there is no lab 'lab' here: make lab$"):
        screen.inventory(lab)
    assert checkout
    with pytest.raises(LabError, match=r"make lab LAB=lab-2$"):
        screen.inventory(Context(target="lxd", lab="lab-2"))


def test_lab_is_asked_for_before_setup(lab: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """There is no Terraform yet: no traceback."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match=r"there is no lab 'lab' here: make lab$"):
        screen.inventory(lab)


# The audit

REPORT: dict[str, Any] = {
    "ok": True, "producer_agrees": True,
    "producer": {"before": 100, "after": 100, "dropped": 0},
    "topic": {"events": 100, "duplicates": 2, "rejected": 1},
    "engines": {
        engine: {"rows": 100, "missing": 0, "unexpected": 0, "duplicates": 0, "rejected": 1, "rejects_missing": 0}
        for engine in ("spark", "flink")
    },
    "candles": {"compared": 5, "different": 0, "missing": 0},
}  # fmt: skip


def test_audit_that_agrees() -> None:
    text = screen.render_audit(REPORT)
    assert "100 events acknowledged, 0 dropped" in text
    assert "100 events, 2 duplicates, 1 malformed" in text
    assert text.count("0 missing") == 5
    assert text.endswith("producer = topic = rows in both tables")
    assert "NOT EQUAL" not in text


@pytest.mark.parametrize("key", ["ok", "producer_agrees"])
def test_audit_that_does_not_agree(key: str) -> None:
    report = copy.deepcopy(REPORT)
    report[key] = False
    report["engines"]["flink"]["missing"] = 7
    text = screen.render_audit(report)
    assert "7 missing" in text
    assert text.endswith("NOT EQUAL")


def test_audit_of_a_lab_under_way_shows_both_counts() -> None:
    report = copy.deepcopy(REPORT)
    report["producer"]["after"] = 120
    assert "100 .. 120 (still producing)" in screen.render_audit(report)
