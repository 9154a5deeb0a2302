"""The programs that run on nodes: the topic's reader, the sampler and what is made of its samples."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from compare import ceiling, sampler
from compare.event import Event, classify
from compare.generator import Sender, Settings, Values, producer_settings, send
from compare.identity import decode
from compare.lab import Usage
from compare.load import GeneratorSpec, Steady
from compare.topic import Counts, read
from compare.usage import cost
from confluent_kafka import Producer

SYMBOLS = ["BTC-USD", "ETH-USD", "SOL-USD", "ADA-USD", "DOGE-USD"]


def spec(**more: Any) -> GeneratorSpec:  # noqa: ANN401
    return GeneratorSpec(tag=77, load=Steady(rate_per_s=2000, duration_s=0.2), lead_s=0.1, **more)


def values(**more: Any) -> list[bytes]:  # noqa: ANN401
    made = Values(spec(**more), SYMBOLS, 1_790_000_000_000_000).batch(0, [index * 500 for index in range(20)])
    return [message["value"] for message in made]


def test_topic_is_counted_event_by_event() -> None:
    found, sent = Counts(77, 20), values(malformed_every=7)
    # Number 3 and 4 are not there, number 9 is there twice, one is of another run, two are of nobody.
    stranger = Values(spec().model_copy(update={"tag": 78}), SYMBOLS, 0).batch(0, [0])[0]["value"]
    found.add([*sent[:3], *sent[5:], sent[9], stranger, None, b"no json"])
    assert found.to_json() == {
        "messages": 22, "foreign": 3, "missing": [(3, 5)], "duplicated": [(9, 10)],
    }  # fmt: skip


def test_events_beyond_the_run_are_foreign() -> None:
    found = Counts(77, 10)
    found.add(values())
    assert (found.to_json()["foreign"], found.to_json()["missing"]) == (10, [])


def test_topic_is_read_from_its_beginning_to_its_end() -> None:
    owner = Producer({"bootstrap.servers": "unused", "test.mock.num.brokers": 1, "log_level": 2})
    servers = [f"{broker.host}:{broker.port}" for broker in owner.list_topics("prices", timeout=10).brokers.values()]
    settings = Settings(bootstrap_servers=servers, topic="prices", symbols=SYMBOLS)
    sender = Sender(producer_settings(settings, spec()) | {"log_level": 2}, "prices")
    send(spec(), sender, SYMBOLS, lambda _line: None)
    found = Counts(77, 401)
    read(settings, found)
    assert found.to_json() == {"messages": 400, "foreign": 0, "missing": [(400, 401)], "duplicated": []}


# The sampler


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    folder = tmp_path / "proc"
    folder.mkdir()
    return folder


def process(
    proc: Path, pid: int, *, ticks: int, pages: int = 10, shared: int = 0, written: int = 0, started: int = 1
) -> None:
    (proc / str(pid)).mkdir(exist_ok=True)
    fields = ["S", *["0"] * 10, str(ticks), "0", *["0"] * 6, str(started), "0", str(pages), "0"]
    (proc / str(pid) / "stat").write_text(f"{pid} (a) name ) {' '.join(fields)}\n")
    (proc / str(pid) / "statm").write_text(f"99999 {pages} {shared} 1 0 1 0\n")
    (proc / str(pid) / "io").write_text(f"rchar: 1\nread_bytes: 0\nwrite_bytes: {written}\n")


def test_ended_processes_keep_counting(proc: Path) -> None:
    processes = sampler.Processes(proc)
    process(proc, 1, ticks=100, pages=1000, written=50)
    process(proc, 2, ticks=10)
    first = processes.sample([1, 2])
    assert first["cpu_us"] == 110 * 1_000_000 // sampler.TICKS_PER_S
    # The first ends, its number is given to another.
    process(proc, 1, ticks=3, started=99)
    second = processes.sample([1, 2])
    assert second["cpu_us"] == first["cpu_us"] + 3 * 1_000_000 // sampler.TICKS_PER_S
    assert second["write_bytes"] == 50
    assert second["peak_bytes"] == first["memory_bytes"] > second["memory_bytes"]
    # One that is gone before it is looked at is no failure.
    assert processes.sample([1, 2, 3])["cpu_us"] == second["cpu_us"]


def test_memory_in_common_counts_once(proc: Path) -> None:
    for pid in (1, 2, 3):
        process(proc, pid, ticks=1, pages=1000 + pid, shared=900)
    found = sampler.Processes(proc).sample([1, 2, 3])
    assert found["memory_bytes"] == (900 + 101 + 102 + 103) * sampler.PAGE_BYTES


def test_control_group_of_either_version_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "control_group", lambda unit: f"/system.slice/{unit}.service")
    two = tmp_path / "two" / "system.slice" / "kafka.service"
    two.mkdir(parents=True)
    (two / "cpu.stat").write_text("usage_usec 1500\nuser_usec 1000\n")
    (two / "memory.current").write_text("100\n")
    (two / "memory.peak").write_text("900\n")
    (two / "io.stat").write_text("8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=2 rios=1\n")
    assert list(sampler.Sampler(["kafka"], tmp_path / "two").sample()) == [
        {"unit": "kafka", "source": "cgroup2", "cpu_us": 1500, "memory_bytes": 100, "peak_bytes": 900,
         "read_bytes": 11, "write_bytes": 22}
    ]  # fmt: skip
    one = tmp_path / "one"
    for name, file, text in (
        ("cpuacct", "cpuacct.usage", "7000000"), ("memory", "memory.usage_in_bytes", "5"),
        ("memory", "memory.max_usage_in_bytes", "8"),
        ("blkio", "blkio.throttle.io_service_bytes", "8:0 Read 3\n8:0 Write 4\nTotal 7\n"),
    ):  # fmt: skip
        folder = one / name / "system.slice" / "kafka.service"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)
    found = next(sampler.Sampler(["kafka"], one).sample())
    assert (found["source"], found["cpu_us"], found["peak_bytes"]) == ("cgroup1", 7000, 8)
    assert (found["read_bytes"], found["write_bytes"]) == (3, 4)


def test_without_controllers_the_processes_are_summed(
    tmp_path: Path, proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def group(unit: str) -> str:
        asked.append(unit)
        return f"/system.slice/{unit}.service"

    monkeypatch.setattr(sampler, "control_group", group)
    folder = tmp_path / "cgroup" / "systemd" / "system.slice" / "kafka.service"
    (folder / "child").mkdir(parents=True)
    (folder / "cgroup.procs").write_text("5\n")
    (folder / "child" / "cgroup.procs").write_text("6\n")
    process(proc, 5, ticks=1)
    process(proc, 6, ticks=2)
    made = sampler.Sampler(["kafka"], tmp_path / "cgroup", proc)
    found = [next(made.sample()) for _ in range(3)]
    assert {entry["source"] for entry in found} == {"proc"}
    assert found[0]["cpu_us"] == 3 * 1_000_000 // sampler.TICKS_PER_S
    assert asked == ["kafka"], "systemd is asked once"


def test_sampler_ends_with_its_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sampler.select, "select", lambda *_arguments: ([1], [], []))
    monkeypatch.setattr(sampler.Sampler, "sample", lambda _self: iter([{"unit": "kafka", "cpu_us": 1}]))
    assert sampler.main(["kafka"], io.StringIO("")) == 0
    assert json.loads(capsys.readouterr().out)["unit"] == "kafka"


# What a load has cost


def usage(at_s: float, cpu_ms: int, unit: str = "spark-worker", **more: Any) -> Usage:  # noqa: ANN401
    return Usage(**{
        "at_us": round(at_s * 1e6), "node": "n", "unit": unit, "source": "proc", "cpu_us": cpu_ms * 1000,
        "memory_bytes": 10, "peak_bytes": 20, "read_bytes": None, "write_bytes": cpu_ms, **more,
    })  # fmt: skip


def test_cost_is_between_the_samples_around() -> None:
    samples = [usage(second, second * 100) for second in range(10)]
    found = cost(samples, {"spark-worker": "spark"}, 2_500_000, 6_500_000)["spark"]
    assert found["cpu_s"] == pytest.approx(0.5)
    assert found["write_bytes"] == 500
    assert found["read_bytes"] is None
    assert found["peak_bytes"] == 20
    assert found["seconds"] == 5


def test_counter_that_begins_anew_is_not_lost() -> None:
    samples = [usage(0, 100), usage(1, 200), usage(2, 30), usage(3, 60)]
    assert cost(samples, {"spark-worker": "spark"}, 0, 3_000_000)["spark"]["cpu_s"] == pytest.approx(0.16)


def test_units_of_a_component_are_added_and_others_left_out() -> None:
    samples = [
        usage(second, second * 100, unit) for second in range(3) for unit in ("spark-worker", "spark-job", "kafka")
    ]
    found = cost(samples, {"spark-worker": "spark", "spark-job": "spark"}, 0, 2_000_000)
    assert found.keys() == {"spark"}
    assert found["spark"]["cpu_s"] == pytest.approx(0.4)
    assert cost([usage(0, 1)], {"spark-worker": "spark"}, 0, 1) == {}


# The ceiling


def test_ceilings_rows_are_events_as_engines_write_them() -> None:
    lines = ceiling.block(10, 50, 1_790_000_000_000_000).decode().splitlines()
    assert len(lines) == 50
    for number, line in enumerate(lines):
        symbol, price, user, timestamp, event_id, produced_at, _, _ = line.split("\t")
        assert decode(event_id) == (0, 10 + number)
        document = {"event_id": event_id, "symbol": symbol, "price": float(price), "user": user,
                    "timestamp": int(timestamp), "produced_at": int(produced_at)}  # fmt: skip
        assert isinstance(classify(json.dumps(document).encode(), SYMBOLS, 65536), Event)
    ids: Iterator[str] = (line.split("\t")[4] for line in lines)
    assert len(set(ids)) == 50


def test_ceiling_that_cannot_be_measured_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    request = {"host": "127.0.0.1", "port": 9, "database": "d", "user": "u", "password": "p", "table": "t",
               "rows": 10, "connections": 2}  # fmt: skip
    assert ceiling.main([], io.StringIO(json.dumps(request))) == 2
    said = capsys.readouterr().err
    assert "lab-ceiling" in said
    assert "refused" in said
