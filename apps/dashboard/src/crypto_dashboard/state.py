"""From readings to what the page shows: figures, and for each part of the pipeline a state with a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from crypto_dashboard.config import ENGINES, Config
from crypto_dashboard.database import STEP_S
from crypto_dashboard.readings import Candle, Candles, EngineRows, History, Metrics, Rows

Health = Literal["ok", "idle", "warn", "down", "unknown"]
NAMES = {"spark": "Spark", "flink": "Flink"}
MAX_ALERTS = 8


@dataclass(frozen=True)
class Source:
    """A source and how it is: `text` is empty while it answers."""

    configured: bool = True
    answers: bool = False
    text: str = ""


@dataclass(frozen=True)
class Found:
    """Everything that was read; None where a source has not answered yet. `rates`: engine => rows per second."""

    rows: Rows | None = None
    candles: Candles | None = None
    history: History | None = None
    metrics: Metrics | None = None
    rates: Mapping[str, float | None] | None = None
    database: Source = Source()
    prometheus: Source = Source()


@dataclass(frozen=True)
class Judged:
    """A part's state and one sentence about it."""

    state: Health
    text: str

    def __iter__(self) -> Any:  # noqa: ANN401 - for dict(**)
        """Give the fields as pairs, for JSON."""
        yield "state", self.state
        yield "text", self.text


def duration(seconds: float) -> str:
    """Say a duration in its largest sensible unit."""
    seconds = max(0, round(seconds))
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7_200:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h" if seconds < 172_800 else f"{seconds // 86_400} days"


def events(count: int) -> str:
    """Say a number of events."""
    return "1 event" if count == 1 else f"{count:,} events"


def topic_end(rows: Rows | None, metrics: Metrics | None) -> dict[int, int]:
    """Return partition => offset after the last message that anybody knows of.

    Prometheus knows Kafka's own, some seconds old; a row that is stored meanwhile was in the topic too.
    """
    end: dict[int, int] = {}
    if metrics is not None:
        end = {int(label): int(value) for label, value in metrics.values.get("topic_end", {}).items() if label}
    for engine in rows.engines.values() if rows else ():
        for partition, offset in engine.offsets.items():
            end[partition] = max(end.get(partition, 0), offset + 1)
    return end


def lag(engine: EngineRows, end: Mapping[int, int]) -> int:
    """Return how many messages of the topic lie after the engine's newest row, over all partitions."""
    return sum(max(0, offset - engine.offsets.get(partition, -1) - 1) for partition, offset in end.items())


def newest_produced_ms(engine: EngineRows) -> float | None:
    """Return when the newest event that an engine has stored was made."""
    return max((quote.produced_ms for quote in engine.quotes.values()), default=None)


def judge_engine(name: str, found: Found, waiting: int, stale_after_s: float) -> Judged:
    """Tell how an engine is, by its table first, and by what Prometheus knows of its job."""
    job = found.metrics.value(f"{name}_job") if found.metrics else None
    if found.rows is None:
        return Judged("down", "its job does not run") if job == 0 else Judged("unknown", "its table cannot be read")
    engine = found.rows.engines[name]
    if engine.committed_ms is None:
        if job == 0:
            return Judged("down", "its job does not run, and it has no rows")
        if waiting:
            return Judged("warn", f"no rows yet, {events(waiting)} wait")
        return Judged("idle", "no rows yet")
    age_s = (found.rows.now_ms - engine.committed_ms) / 1000
    if job == 0:
        return Judged("down", f"its job does not run, last row {duration(age_s)} ago")
    if age_s > stale_after_s:
        if waiting:
            return Judged("down", f"has written nothing for {duration(age_s)}, {events(waiting)} wait")
        return Judged("idle", f"nothing to write for {duration(age_s)}")
    newest = [made for other in found.rows.engines.values() if (made := newest_produced_ms(other)) is not None]
    behind_s = (max(newest) - (newest_produced_ms(engine) or 0)) / 1000
    if behind_s > stale_after_s:
        return Judged("warn", f"writes, but is {duration(behind_s)} behind")
    return Judged("ok", "writes")


def judge_producer(found: Found, stale_after_s: float) -> Judged:
    """Tell how the producer is: by its metrics, else by the newest event in the tables."""
    metrics, age_s = found.metrics, None
    if found.rows is not None:
        newest = [made for engine in found.rows.engines.values() if (made := newest_produced_ms(engine)) is not None]
        age_s = (found.rows.now_ms - max(newest)) / 1000 if newest else None
    if metrics is not None and metrics.value("producer_up") == 0:
        return Judged("down", "does not run")
    if metrics is not None and metrics.value("kafka_connected") is not None:
        if metrics.value("source_connected") == 0:
            return Judged("down", "its source of prices does not answer")
        if metrics.value("kafka_connected") == 0:
            pending = int(metrics.value("producer_pending") or 0)
            return Judged("down", f"Kafka does not take its events, {events(pending)} wait in its spool")
        rate = metrics.value("produced_per_s")
        if rate:
            return Judged("ok", f"{rate:,.1f} events/s")
        return Judged("idle", "sends nothing at the moment")
    if age_s is None:
        return Judged("unknown", "no event has reached a table")
    if age_s <= stale_after_s:
        return Judged("ok", f"newest event {duration(age_s)} ago")
    return Judged("unknown", f"newest event {duration(age_s)} ago, no metrics to tell why")


def judge_kafka(found: Found, engines: Sequence[Judged]) -> Judged:
    """Tell how Kafka is, by its metrics."""
    metrics = found.metrics
    brokers = metrics.value("brokers") if metrics else None
    if metrics is None or brokers is None:
        if any(engine.state == "ok" for engine in engines):
            return Judged("ok", "events pass through, no metrics")
        return Judged("unknown", "no metrics")
    up = int(metrics.value("brokers_up") or 0)
    words = f"{up} of {int(brokers)} broker{'s' if brokers != 1 else ''} up"
    if up == 0 or metrics.value("offline_partitions"):
        return Judged("down", words + (", partitions without a leader" if up else ""))
    if up < brokers or metrics.value("under_replicated"):
        missing = int(metrics.value("under_replicated") or 0)
        return Judged("warn", words + (f", {missing} partitions lack a copy" if missing else ""))
    return Judged("ok", words)


def agreement(spark: Sequence[Candle], flink: Sequence[Candle]) -> tuple[int, int]:
    """Return how many candles both engines have, and how many of those are equal."""
    known = {candle[0]: candle for candle in map(tuple, spark)}
    both = [(known[candle[0]], tuple(candle)) for candle in flink if candle[0] in known]
    return len(both), sum(one == other for one, other in both)


def judge_tables(found: Found) -> Judged:
    """Tell how PostgreSQL is, and whether the engines' candles are the same."""
    if not found.database.answers:
        return Judged("down", "does not answer")
    compared = equal = 0
    candles = found.candles or {}
    for symbol in {symbol for engine in candles.values() for symbol in engine}:
        count, same = agreement(candles.get("spark", {}).get(symbol, ()), candles.get("flink", {}).get(symbol, ()))
        compared, equal = compared + count, equal + same
    if compared == 0:
        return Judged("ok", "answers, no candles of both yet")
    if equal < compared:
        return Judged("warn", f"{compared - equal} of {compared} candles differ")
    return Judged("ok", f"all {compared} candles agree")


def headline(found: Found, parts: Mapping[str, Judged]) -> Judged:
    """Sum the page up in one sentence without numbers, so that it is read out only when something has changed."""
    engines = {name: parts[name] for name in ENGINES}
    down = [name for name in ENGINES if engines[name].state == "down"]
    if not found.database.answers:
        known = "the figures are the last ones known" if found.rows else "there are no figures"
        return Judged("down", f"PostgreSQL does not answer: {known}.")
    if len(down) == 2:
        return Judged("down", "Neither engine writes, while events wait for both.")
    if down:
        other = NAMES["flink" if down[0] == "spark" else "spark"]
        rest = f", {other} goes on" if engines["flink" if down[0] == "spark" else "spark"].state == "ok" else ""
        return Judged("down", f"{NAMES[down[0]]} is down{rest}.")
    for part in ("kafka", "producer"):
        if parts[part].state == "down":
            return Judged("down", f"{part.capitalize()}: {parts[part].text.split(',')[0]}.")
    if found.rows and all(engine.committed_ms is None for engine in found.rows.engines.values()):
        return Judged("idle", "The lab is empty: no rows yet.")
    if all(engine.state == "idle" for engine in engines.values()):
        return Judged("idle", "No new events arrive.")
    if any(part.state == "warn" for part in parts.values()):
        slow = [NAMES[name] for name in ENGINES if engines[name].state == "warn"]
        return Judged("warn", f"{' and '.join(slow)} lags behind." if slow else "Running, with a warning below.")
    return Judged("ok", "Both engines write.")


def cost(name: str, config: Config, found: Found) -> dict[str, Any]:
    """Return an engine's CPU and memory; `note` says in words why there are none."""
    spark, flink = (set(config.engine(engine).nodes) for engine in ENGINES)
    cpu = found.metrics.value(f"{name}_cpu") if found.metrics else None
    memory = found.metrics.value(f"{name}_memory") if found.metrics else None
    note = ""
    if spark & flink:
        # On one node they cannot be told apart by the node's counters.
        return {"cpu_cores": None, "memory_bytes": None, "note": "not told apart on a shared node"}
    if not config.engine(name).nodes:
        note = "no nodes configured"
    elif cpu is None and memory is None:
        note = _why_no_metrics(found)
    return {"cpu_cores": cpu, "memory_bytes": memory, "note": note}


def _why_no_metrics(found: Found) -> str:
    if not found.prometheus.configured:
        return "no Prometheus in this lab"
    return "no such metrics yet" if found.prometheus.answers else "Prometheus is away"


def build(config: Config, found: Found) -> dict[str, Any]:
    """Return the page's state as it goes out in JSON. Without a source its parts are None, and a text says why."""
    end = topic_end(found.rows, found.metrics)
    has_end = bool(found.metrics and found.metrics.values.get("topic_end"))
    parts: dict[str, Judged] = {}
    engines: dict[str, Any] = {}
    for name in ENGINES:
        rows = found.rows.engines[name] if found.rows else None
        waiting = lag(rows, end) if rows else 0
        parts[name] = judge_engine(name, found, waiting, config.stale_after_s)
        engines[name] = {
            "name": NAMES[name], **dict(parts[name]),
            "p50_ms": rows.p50_ms if rows else None,
            "p95_ms": rows.p95_ms if rows else None,
            "p99_ms": rows.p99_ms if rows else None,
            "rows": rows.rows if rows else None,
            "capped": rows.capped if rows else False,
            "rows_per_s": (found.rates or {}).get(name),
            "lag": waiting if rows else None,
            "lag_of": "topic" if has_end else "other engine",
            **cost(name, config, found),
        }  # fmt: skip
    parts["producer"] = judge_producer(found, config.stale_after_s)
    parts["kafka"] = judge_kafka(found, [parts[name] for name in ENGINES])
    parts["tables"] = judge_tables(found)
    alerts = found.metrics.alerts if found.metrics and found.prometheus.answers else None
    return {
        "lab": config.lab,
        "now_ms": found.rows.now_ms if found.rows else None,
        "headline": dict(headline(found, parts)),
        "sources": {
            "database": {"answers": found.database.answers, "text": found.database.text},
            "prometheus": {
                "configured": found.prometheus.configured, "answers": found.prometheus.answers,
                "text": found.prometheus.text,
            },
        },
        "path": {name: dict(part) for name, part in parts.items()},
        "engines": engines,
        "symbols": [_symbol(symbol, found) for symbol in config.symbols],
        "history": {"step_s": STEP_S, "engines": found.history or {}},
        "alerts": {
            "text": _alerts_text(found, alerts),
            "more": max(0, len(alerts or ()) - MAX_ALERTS),
            "items": [
                {"name": alert.name, "state": alert.state, "severity": alert.severity, "summary": alert.summary,
                 "since_ms": alert.since_ms}
                for alert in (alerts or ())[:MAX_ALERTS]
            ],
        },
    }  # fmt: skip


def _alerts_text(found: Found, alerts: Sequence[Any] | None) -> str:
    if alerts is None:
        if not found.prometheus.configured:
            return "There is no Prometheus in this lab, and so no alerts."
        return "Prometheus does not answer: alerts are not known."
    firing = sum(alert.state == "firing" for alert in alerts)
    if not alerts:
        return "No alerts."
    pending = len(alerts) - firing
    return ", ".join(filter(None, (f"{firing} firing" if firing else "", f"{pending} pending" if pending else "")))


def _symbol(symbol: str, found: Found) -> dict[str, Any]:
    quotes: dict[str, Any] = {}
    for name in ENGINES:
        quote = found.rows.engines[name].quotes.get(symbol) if found.rows else None
        quotes[name] = None if quote is None else {
            "price": quote.price, "user": quote.user, "timestamp_ms": quote.timestamp_ms,
        }  # fmt: skip
    candles = {name: (found.candles or {}).get(name, {}).get(symbol, ()) for name in ENGINES}
    compared, equal = agreement(candles["spark"], candles["flink"])
    return {"symbol": symbol, "quotes": quotes, "candles": candles, "compared": compared, "equal": equal}
