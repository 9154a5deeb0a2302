"""One snapshot serves all viewers, and a source that is slow or away holds nobody up."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from crypto_dashboard import collector
from crypto_dashboard.collector import Collector
from crypto_dashboard.readings import Rows
from fake_lab import FakeDatabase, FakePrometheus, config


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def run(
    steps: Callable[[Collector, Clock], Awaitable[None]], database: FakeDatabase, prometheus: FakePrometheus | None
) -> None:
    async def body() -> None:
        clock = Clock()
        made = Collector(config(Path("uplot.jar")), database, prometheus, clock)
        try:
            await steps(made, clock)
        finally:
            await made.close()

    asyncio.run(body())


async def look(made: Collector) -> dict[str, Any]:
    return dict(json.loads(await made.snapshot()))


def test_ten_viewers_cost_what_one_costs() -> None:
    database, prometheus = FakeDatabase(), FakePrometheus()

    async def steps(made: Collector, clock: Clock) -> None:
        found = await asyncio.gather(*(made.snapshot() for _ in range(10)))
        assert len(set(found)) == 1
        assert database.asked == {"rows": 1, "candles": 1, "history": 1}
        assert prometheus.asked == 1
        clock.now_s += 2
        await asyncio.gather(*(made.snapshot() for _ in range(10)))
        # Candles, history and metrics are asked for less often.
        assert database.asked == {"rows": 2, "candles": 1, "history": 1}
        assert prometheus.asked == 1

    run(steps, database, prometheus)


def test_nobody_is_asked_while_nobody_looks() -> None:
    database, prometheus = FakeDatabase(), FakePrometheus()

    async def steps(made: Collector, clock: Clock) -> None:
        await made.snapshot()
        clock.now_s += 3_600
        await asyncio.sleep(0.05)
        assert (database.asked["rows"], prometheus.asked) == (1, 1)

    run(steps, database, prometheus)


def test_source_that_goes_and_comes_back() -> None:
    database, prometheus = FakeDatabase(), FakePrometheus()

    async def steps(made: Collector, clock: Clock) -> None:
        assert (await look(made))["headline"]["state"] == "ok"
        database.state = "database_away"
        clock.now_s += 2
        gone = await look(made)
        assert gone["headline"]["text"] == "PostgreSQL does not answer: the figures are the last ones known."
        assert "Connection refused" in gone["sources"]["database"]["text"]
        assert gone["engines"]["spark"]["p50_ms"] > 0
        # It is left alone for some seconds.
        asked = database.asked["rows"]
        clock.now_s += 2
        await look(made)
        assert database.asked["rows"] == asked
        database.state = "healthy"
        clock.now_s += 5
        assert (await look(made))["headline"]["state"] == "ok"

    run(steps, database, prometheus)


def test_metrics_of_before_are_not_shown_as_of_now() -> None:
    database, prometheus = FakeDatabase(), FakePrometheus()

    async def steps(made: Collector, clock: Clock) -> None:
        assert (await look(made))["engines"]["spark"]["cpu_cores"] is not None
        prometheus.state = "prometheus_away"
        clock.now_s += 10
        found = await look(made)
        assert found["engines"]["spark"]["cpu_cores"] is None
        assert found["engines"]["spark"]["note"] == "Prometheus is away"
        assert found["alerts"] == {"text": "Prometheus does not answer: alerts are not known.", "more": 0, "items": []}
        assert found["headline"]["state"] == "ok"

    run(steps, database, prometheus)


def test_slow_source_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "PATIENCE_S", 0.1)
    database = FakeDatabase()

    class Slow(FakePrometheus):
        async def metrics(self) -> Any:  # noqa: ANN401 - Metrics
            await asyncio.sleep(0.4)
            return await super().metrics()

    async def steps(made: Collector, clock: Clock) -> None:
        began = time.monotonic()
        found = await look(made)
        assert time.monotonic() - began < 0.35
        assert found["sources"]["prometheus"] == {
            "configured": True, "answers": False, "text": "Prometheus has not answered yet",
        }  # fmt: skip
        await asyncio.sleep(0.5)
        clock.now_s += 2
        assert (await look(made))["sources"]["prometheus"]["answers"]

    run(steps, database, Slow())


class Busy(FakeDatabase):
    """More rows than are looked at: the last minute's are a lower bound, the server's counter knows."""

    inserted = 1_000_000
    pause_s = 0.0

    def rows(self) -> Rows:
        time.sleep(self.pause_s)
        found = super().rows()
        busy = {name: replace(engine, rows=2_500, capped=True, inserted=self.inserted)
                for name, engine in found.engines.items()}  # fmt: skip
        return replace(found, engines=busy)


def test_rate_is_told_where_no_answer_comes_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "PATIENCE_S", 0.05)
    database = Busy()
    database.pause_s = 0.1

    async def steps(made: Collector, clock: Clock) -> None:
        for _ in range(4):
            found = await look(made)
            await asyncio.sleep(0.3)
            clock.now_s += 2
            database.inserted += 10_000
        assert found["engines"]["spark"]["rows_per_s"] == pytest.approx(5_000)

    run(steps, database, None)


def test_rate_of_many_rows_is_told_by_the_counter() -> None:
    database = Busy()

    async def steps(made: Collector, clock: Clock) -> None:
        assert (await look(made))["engines"]["spark"]["rows_per_s"] == pytest.approx(2_500 / 60)
        for _ in range(40):
            clock.now_s += 2
            database.inserted += 10_000
            found = await look(made)
        assert found["engines"]["spark"]["rows_per_s"] == pytest.approx(5_000)
        # A server that was restarted after a crash counts from zero.
        database.inserted = 0
        clock.now_s += 2
        assert (await look(made))["engines"]["spark"]["rows_per_s"] == pytest.approx(2_500 / 60)

    run(steps, database, None)
