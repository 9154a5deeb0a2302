"""The DAG data_quality: what is measured in the tables and the topic, and when it is good enough."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from crypto_airflow.settings import Settings
from crypto_airflow.topic import Reading, missing_trades

# A clock may be that far ahead of this one.
AHEAD_MS = 60_000
# Trades that the producer fetches again come late: what came that long before the window still fills holes in it.
OVERLAP_MS = 600_000
Connection = Any


@dataclass(frozen=True)
class Finding:
    """One check of one subject. `value` is None where there was nothing to measure, which never passes."""

    check: str
    subject: str
    value: float | None
    limit: float
    passed: bool
    detail: str


def at_most(check: str, subject: str, value: float | None, limit: float, detail: str) -> Finding:
    """Judge a value that must not exceed its limit."""
    return Finding(check, subject, value, limit, value is not None and value <= limit, detail)


def at_least(check: str, subject: str, value: float, limit: float, detail: str) -> Finding:
    """Judge a value that must reach its limit."""
    return Finding(check, subject, value, limit, value >= limit, detail)


@dataclass(frozen=True)
class Window:
    """Which events are looked at, by event time: from_ms <= timestamp < until_ms, seen from `now_ms`."""

    from_ms: int
    until_ms: int
    now_ms: int


def window(now_ms: int, window_s: float, settle_s: float) -> Window:
    """Return the window that ends where both engines must have written everything."""
    until_ms = now_ms - round(settle_s * 1000)
    return Window(until_ms - round(window_s * 1000), until_ms, now_ms)


def nothing_was_sent(oldest_ms: int | None, looked_at: Window) -> bool:
    """Tell whether the topic is so new, or so empty, that nothing has to be in the tables yet."""
    return oldest_ms is None or oldest_ms >= looked_at.until_ms


def owed(message: Mapping[str, Any], symbols: Sequence[str], looked_at: Window) -> bool:
    """Tell whether a message of the topic is an event whose row `_rows` looks for."""
    at_ms, produced_us, price = (message.get(name) for name in ("timestamp", "produced_at", "price"))
    return (
        message.get("symbol") in symbols
        and type(at_ms) is int and looked_at.from_ms <= at_ms < looked_at.until_ms
        and type(produced_us) is int and produced_us < looked_at.until_ms * 1000
        and type(price) in (int, float)
    )  # fmt: skip


def freshness(newest: Mapping[str, Mapping[str, int | None]], now_ms: int, limit_s: float) -> list[Finding]:
    """Judge each engine's newest row; `newest` is engine => symbol => event time in ms, None without a row."""
    findings = []
    for engine, symbols in newest.items():
        ages = {symbol: (now_ms - at) / 1000 for symbol, at in symbols.items() if at is not None}
        youngest = min(ages.values(), default=None)
        said = ", ".join(
            f"{symbol} {ages[symbol]:.0f} s" if symbol in ages else f"{symbol} no row" for symbol in symbols
        )
        findings.append(at_most("freshness_s", engine, youngest, limit_s, f"age of the newest row: {said}"))
    return findings


def closed_before_ms(newest: Mapping[str, Mapping[str, int | None]], settle_s: float, settings: Settings) -> int | None:
    """Return the time before which a candle's window must have begun for both engines to have written it.

    By the smallest of the symbols' newest event times, for that is what the slowest watermark follows.
    """
    times = [at for symbols in newest.values() for at in symbols.values() if at is not None]
    if not times:
        return None
    return min(times) - round((settings.candle_window_s + settings.candle_watermark_delay_s + settle_s) * 1000)


def gaps(reading: Reading, looked_at: Window) -> Finding:
    """Judge the trade ids of the topic."""
    holes = missing_trades(reading.trades, looked_at.from_ms, looked_at.until_ms)
    missing = sum(last - first + 1 for found in holes.values() for first, last in found)
    if holes:
        said = "; ".join(
            f"{key}: " + ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in found[:5])
            for key, found in sorted(holes.items())
        )
    else:
        said = f"{len(reading.trades)} trades" if reading.trades else "the source gives no trade ids"
    return at_most("missing_trade_ids", "topic", missing, 0, said)


def measure(
    connection: Connection, reading: Reading, settings: Settings, now_ms: int, *, window_s: float, freshness_s: float
) -> list[Finding]:
    """Make every check; all of the database's are of one moment."""
    looked_at = window(now_ms, window_s, settings.quality.settle_s)
    connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
    with connection, connection.cursor() as cursor:
        newest = {
            engine: newest_times(cursor, tables.prices, settings.symbols, now_ms + AHEAD_MS)
            for engine, tables in settings.engines.items()
        }
        findings = freshness(newest, now_ms, freshness_s)
        findings += _rows(cursor, settings, looked_at, reading.events)
        findings += _rejects(cursor, settings, looked_at)
        findings.append(
            _candles(cursor, settings, looked_at, closed_before_ms(newest, settings.quality.settle_s, settings))
        )
    connection.set_session(isolation_level="DEFAULT", readonly=False)
    return [*findings, gaps(reading, looked_at)]


def newest_times(cursor: Any, table: str, symbols: Sequence[str], before_ms: int) -> dict[str, int | None]:  # noqa: ANN401
    """Return the newest event time of each symbol, in ms; by the index, however large the table is."""
    cursor.execute(
        f"SELECT wanted, (SELECT max(timestamp) FROM {table} WHERE symbol = wanted AND timestamp < %s)"  # noqa: S608
        " FROM unnest(%s) AS wanted",
        (before_ms, list(symbols)),
    )
    return dict(cursor.fetchall())


def _rows(cursor: Any, settings: Settings, looked_at: Window, events: int) -> list[Finding]:  # noqa: ANN401
    # What a replay has sent late is of the window by its event time, and yet not settled: hence produced_at.
    inside = "symbol = ANY(%s) AND timestamp >= %s AND timestamp < %s AND produced_at < %s"
    values = (settings.symbols, looked_at.from_ms, looked_at.until_ms, looked_at.until_ms * 1000)
    findings = []
    for engine, tables in settings.engines.items():
        cursor.execute(
            "SELECT count(*), count(*) - count(DISTINCT (kafka_partition, kafka_offset))"  # noqa: S608
            f" FROM {tables.prices} WHERE {inside}",
            values,
        )
        rows, duplicates = cursor.fetchone()
        # Of an hour in which nothing was sent, because the nodes were off, there is nothing to be written.
        said = "rows in the window" if events else "rows in the window, of which the topic has no event"
        findings.append(at_least("rows", engine, rows, min(events, 1), said))
        # The primary key keeps an event from being stored twice; this is a message stored under two ids.
        findings.append(at_most("duplicates", engine, duplicates, 0, "rows of a message that has another row"))
    (one, first), (two, second) = settings.engines.items()
    cursor.execute(
        f"SELECT count(*) FILTER (WHERE a.event_id IS NULL), count(*) FILTER (WHERE b.event_id IS NULL)"  # noqa: S608
        f" FROM (SELECT event_id FROM {first.prices} WHERE {inside}) AS a"
        f" FULL JOIN (SELECT event_id FROM {second.prices} WHERE {inside}) AS b USING (event_id)",
        (*values, *values),
    )
    lacking = cursor.fetchone()
    for engine, other, count in ((one, two, lacking[0]), (two, one, lacking[1])):
        findings.append(at_most("missing_rows", engine, count, 0, f"events that only {other} has written"))
    return findings


def _rejects(cursor: Any, settings: Settings, looked_at: Window) -> list[Finding]:  # noqa: ANN401
    one, two = settings.engines
    part = (
        f"(SELECT kafka_partition, kafka_offset, kafka_timestamp, reason FROM {settings.rejected_table}"  # noqa: S608
        " WHERE engine = %s AND kafka_timestamp >= %s AND kafka_timestamp < %s)"
    )
    cursor.execute(
        f"SELECT count(*) FILTER (WHERE a.reason IS NULL), count(*) FILTER (WHERE b.reason IS NULL) FROM {part} AS a"  # noqa: S608
        f" FULL JOIN {part} AS b USING (kafka_partition, kafka_offset, kafka_timestamp, reason)",
        (one, looked_at.from_ms, looked_at.until_ms, two, looked_at.from_ms, looked_at.until_ms),
    )
    lacking = cursor.fetchone()
    return [
        at_most("missing_rejects", engine, count, 0, f"messages that only {other} has rejected for their reason")
        for engine, other, count in ((one, two, lacking[0]), (two, one, lacking[1]))
    ]


def _candles(cursor: Any, settings: Settings, looked_at: Window, closed_ms: int | None) -> Finding:  # noqa: ANN401
    first, second = settings.engines.values()
    if closed_ms is None:
        return at_most("different_candles", "both", 0, 0, "no window is closed yet")
    part = "(SELECT * FROM {} WHERE symbol = ANY(%s) AND window_start >= %s AND window_start < %s)"
    cursor.execute(
        "SELECT count(*), count(*) FILTER (WHERE (a.open, a.high, a.low, a.close, a.event_count)"  # noqa: S608
        " IS DISTINCT FROM (b.open, b.high, b.low, b.close, b.event_count))"
        f" FROM {part.format(first.candles)} AS a FULL JOIN {part.format(second.candles)} AS b"
        " USING (symbol, window_start)",
        (settings.symbols, looked_at.from_ms, closed_ms) * 2,
    )
    compared, different = cursor.fetchone()
    if not compared and _closed_rows(cursor, settings, looked_at, closed_ms):
        said = "neither engine has written a candle, though windows with rows are closed"
        return at_most("different_candles", "both", None, 0, said)
    return at_most(
        "different_candles", "both", different, 0, f"of {compared} that both engines must have written alike"
    )


def _closed_rows(cursor: Any, settings: Settings, looked_at: Window, closed_ms: int) -> bool:  # noqa: ANN401
    """Tell whether a row belongs into a candle that begins in the window and before `closed_ms`."""
    window_ms = settings.candle_window_s * 1000
    from_ms, until_ms = (-(-at_ms // window_ms) * window_ms for at_ms in (looked_at.from_ms, closed_ms))
    part = (
        "SELECT FROM {} WHERE symbol = ANY(%s) AND timestamp >= %s AND timestamp < %s"
        # What was sent so late may be after the watermark, and in no candle.
        " AND produced_at < (timestamp + %s) * 1000"
    )
    values = (settings.symbols, from_ms, until_ms, settings.candle_watermark_delay_s * 1000)
    first, second = settings.engines.values()
    cursor.execute(
        f"SELECT EXISTS ({part.format(first.prices)}) OR EXISTS ({part.format(second.prices)})",
        values * 2,
    )
    return bool(cursor.fetchone()[0])


def store(connection: Connection, table: str, run_id: str, findings: Iterable[Finding]) -> None:
    """Keep the findings of a run."""
    with connection, connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO {table} (run_id, check_name, subject, value, limit_value, passed, detail)"  # noqa: S608
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            [(run_id, f.check, f.subject, f.value, f.limit, f.passed, f.detail) for f in findings],
        )


def line(found: Finding) -> str:
    """Return a finding as one line for people: check, subject, value, limit."""
    value = "nothing" if found.value is None else f"{found.value:g}"
    word = "ok    " if found.passed else "FAILED"
    return f"{word} {found.check} of {found.subject}: {value}, limit {found.limit:g} ({found.detail})"


def complaint(findings: Sequence[Finding]) -> str | None:
    """Return what is wrong, naming check, value and limit of each; None where all is well."""
    failed = [found for found in findings if not found.passed]
    if not failed:
        return None
    return f"{len(failed)} of {len(findings)} checks failed:\n" + "\n".join(line(found) for found in failed)


def to_json(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Return findings as what Airflow hands from task to task."""
    return [asdict(found) for found in findings]


def from_json(found: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """Return the findings that `to_json` has made."""
    return [Finding(**entry) for entry in found]
