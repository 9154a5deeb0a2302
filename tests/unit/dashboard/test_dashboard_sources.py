"""Statements, PromQL and answers of both sources; nothing is asked of a real one here (tests/integration does that)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from crypto_dashboard import database
from crypto_dashboard.config import Config
from crypto_dashboard.prometheus import EXPRESSIONS, MARK, Prometheus, parse_alerts, parse_values, query
from crypto_dashboard.readings import Quote, SourceError
from fake_lab import config

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
def settings() -> Config:
    return config(Path("uplot.jar"))


@pytest.mark.parametrize("template", ["NOW", "HISTORY", "CANDLES"])
def test_statements_name_their_table_and_only_known_parameters(template: str) -> None:
    text = database.statement(getattr(database, template), "crypto_prices_flink", since_min=20)
    assert "crypto_prices_flink" in text
    assert not re.search(r"[{}]", text.replace("'{}'", ""))
    known = {"symbols", "limit", "table", "engine", "step_s", "minutes"}
    assert set(re.findall(r"%\((\w+)\)s", text)) <= known
    assert not re.search(r"%(?!\()", text), "psycopg2 takes it for a parameter"


def test_newest_rows_are_found_by_the_index() -> None:
    """(symbol, timestamp DESC): one symbol, ordered, with a limit; nothing else selects rows of the big tables."""
    for template in (database.NOW, database.HISTORY):
        text = database.statement(template, "prices_table")
        assert text.count("FROM prices_table") == 1
        assert "WHERE symbol = wanted.symbol ORDER BY timestamp DESC LIMIT %(limit)s" in text


def test_rows_are_parsed() -> None:
    found = database.parse_rows({
        "rows": 3, "capped": False, "percentiles": [1.0, 2.0, 3.0], "committed_ms": 9.0, "inserted": 7,
        "offsets": {"0": 5, "2": 8}, "quotes": {"BTC-USD": [1.5, "replay", 4, 3.5]},
    })  # fmt: skip
    assert (found.p50_ms, found.p95_ms, found.p99_ms) == (1.0, 2.0, 3.0)
    assert found.offsets == {0: 5, 2: 8}
    assert found.quotes["BTC-USD"] == Quote(1.5, "replay", 4, 3.5)


def test_empty_table_is_parsed() -> None:
    found = database.parse_rows({
        "rows": 0, "capped": False, "percentiles": None, "committed_ms": None, "inserted": 0, "offsets": None,
        "quotes": None,
    })  # fmt: skip
    assert (found.p50_ms, found.committed_ms, found.offsets, found.quotes) == (None, None, {}, {})


def test_one_request_holds_every_expression(settings: Config) -> None:
    text = query(settings)
    assert text.count(f'"{MARK}"') == len(EXPRESSIONS) == text.count(" or label_replace(") + 1
    assert "$" not in text
    assert 'topic="crypto_prices"' in text
    assert 'node=~"spark-master-1|spark-worker-1"' in text


def test_engine_without_nodes_fits_no_node() -> None:
    assert 'node=~"none"' in query(config(Path("uplot.jar"), nodes=False))


def test_values_are_sorted_by_name_and_label() -> None:
    found = parse_values([
        {"metric": {MARK: "topic_end", "partition": "1"}, "value": [0, "42"]},
        {"metric": {MARK: "brokers"}, "value": [0, "3"]},
        {"metric": {MARK: "spark_cpu"}, "value": [0, "NaN"]},
        {"metric": {MARK: "unknown"}, "value": [0, "1"]},
    ])  # fmt: skip
    assert found == {"topic_end": {"1": 42.0}, "brokers": {"": 3.0}}


def test_alerts_are_sorted() -> None:
    found = parse_alerts([
        {"labels": {"alertname": "A"}, "state": "pending", "activeAt": "2026-11-25T12:00:00Z"},
        {"labels": {"alertname": "B", "severity": "critical"}, "annotations": {"summary": "words"}, "state": "firing",
         "activeAt": "2026-11-25T10:00:00.123456789Z"},
        {"labels": {"alertname": "C"}, "annotations": {"description": "more"}, "state": "firing", "activeAt": "?"},
    ])  # fmt: skip
    assert [(alert.name, alert.summary) for alert in found] == [("B", "words"), ("C", "more"), ("A", "")]
    assert found[0].since_ms == 1_795_600_800_123.456
    assert found[1].since_ms is None


def answered(settings: Config, handler: Handler | None) -> Any:  # noqa: ANN401 - Metrics, or what the test looks at
    """Return what the client makes of a server that answers as `handler` does; None: of no server."""

    async def run() -> Any:  # noqa: ANN401 - as above
        app = web.Application()
        if handler:
            app.router.add_route("*", "/api/v1/{what}", handler)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        if handler is None:
            await site.stop()
        client = Prometheus(settings.model_copy(update={
            "prometheus": settings.prometheus.model_copy(update={"url": f"http://127.0.0.1:{port}", "timeout_s": 0.5}),
        }))  # fmt: skip
        try:
            return await client.metrics()
        finally:
            await client.close()
            await runner.cleanup()

    return asyncio.run(run())


def test_prometheus_is_asked_by_its_api(settings: Config) -> None:
    async def handler(request: web.Request) -> web.Response:
        if request.match_info["what"] == "alerts":
            return web.json_response({"status": "success", "data": {"alerts": []}})
        assert (await request.post())["query"] == query(settings)
        result = [{"metric": {MARK: "brokers"}, "value": [0, "1"]}]
        return web.json_response({"status": "success", "data": {"resultType": "vector", "result": result}})

    assert answered(settings, handler).value("brokers") == 1.0


async def refused(_request: web.Request) -> web.Response:
    return web.json_response({"status": "error", "error": "parse error: x"}, status=400)


async def another_shape(_request: web.Request) -> web.Response:
    return web.json_response({"status": "success", "data": {}})


async def no_json(_request: web.Request) -> web.Response:
    return web.Response(text="<html>")


async def silence(_request: web.Request) -> web.Response:
    await asyncio.sleep(5)
    return web.Response()


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (refused, "parse error: x"), (another_shape, "another shape"), (no_json, "Expecting value"),
        (silence, "no answer in time"), (None, "Cannot connect"),
    ],
)  # fmt: skip
def test_prometheus_that_does_not_answer_is_a_source_error(
    settings: Config, handler: Handler | None, words: str
) -> None:
    with pytest.raises(SourceError, match=words):
        answered(settings, handler)


def test_database_that_is_away_is_a_source_error(settings: Config, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("x\n")
    source = database.Postgres(settings.model_copy(update={
        "postgres": settings.postgres.model_copy(update={"host": "127.0.0.1", "port": 9, "password_file": password}),
    }))  # fmt: skip
    with pytest.raises(SourceError, match="refused"):
        source.rows()
    password.unlink()
    with pytest.raises(SourceError, match="password cannot be read"):
        source.rows()
