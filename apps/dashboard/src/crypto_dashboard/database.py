"""What is asked of PostgreSQL: few rows, each found by an index, so that a page left open costs the engines nothing.

The index on (symbol, timestamp DESC) gives the newest rows of each symbol, whatever the kind of their event ids; the
end of an event's latency is the commit of its row, `pg_xact_commit_timestamp(xmin)`, as everywhere in this lab.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import psycopg2

from crypto_dashboard.config import ENGINES, Config
from crypto_dashboard.readings import Candle, Candles, EngineRows, History, Quote, Rows, SourceError, Step

log = logging.getLogger(__name__)
T = TypeVar("T")

# Rows looked at per engine and symbol: every two seconds, and every half minute.
NEWEST_ROWS = 500
HISTORY_ROWS = 4_000
CANDLES_MIN = 40
STEP_S = 30
HISTORY_MIN = 15

# One moment for the whole statement and of the columns' own type: else no index is used for what is compared with it.
_NOW_MS = "(extract(epoch FROM statement_timestamp()) * 1000)::bigint"

_NEWEST = """\
SELECT one.* FROM unnest(%(symbols)s::text[]) AS wanted (symbol) CROSS JOIN LATERAL (
    SELECT symbol, price, "user", timestamp, produced_at, kafka_partition, kafka_offset,
           pg_xact_commit_timestamp(xmin) AS committed_at
    FROM {table} WHERE symbol = wanted.symbol{since} ORDER BY timestamp DESC LIMIT %(limit)s
) AS one"""

# Rejects: one look into the index per partition, also where there is no row: nothing else tells that it is done with.
NOW = """\
WITH RECURSIVE newest AS MATERIALIZED (
{newest}
), rejects AS (
    (SELECT kafka_partition, kafka_offset FROM {rejected} WHERE engine = %(engine)s
     ORDER BY kafka_partition DESC, kafka_offset DESC LIMIT 1)
    UNION ALL
    SELECT next.* FROM rejects CROSS JOIN LATERAL (
        SELECT kafka_partition, kafka_offset FROM {rejected}
        WHERE engine = %(engine)s AND kafka_partition < rejects.kafka_partition
        ORDER BY kafka_partition DESC, kafka_offset DESC LIMIT 1
    ) AS next
), latency AS (
    SELECT symbol, extract(epoch FROM committed_at) * 1000 - produced_at / 1000.0 AS ms
    FROM newest WHERE committed_at > clock_timestamp() - interval '60 s'
)
SELECT json_build_object(
    'now_ms', extract(epoch FROM clock_timestamp()) * 1000,
    'rows', (SELECT count(*) FROM latency),
    'capped', EXISTS (SELECT FROM latency GROUP BY symbol HAVING count(*) >= %(limit)s),
    'percentiles', (SELECT percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY ms) FROM latency),
    'committed_ms', (SELECT extract(epoch FROM max(committed_at)) * 1000 FROM newest),
    'offsets', (SELECT json_object_agg(kafka_partition, highest) FROM (
        SELECT kafka_partition, max(kafka_offset) AS highest FROM (
            SELECT kafka_partition, kafka_offset FROM newest UNION ALL SELECT kafka_partition, kafka_offset FROM rejects
        ) AS stored GROUP BY kafka_partition) AS partitions),
    'quotes', (SELECT json_object_agg(symbol, json_build_array(price, "user", timestamp, produced_at / 1000.0)) FROM (
        SELECT DISTINCT ON (symbol) * FROM newest ORDER BY symbol, timestamp DESC, produced_at DESC) AS quotes),
    'inserted', (SELECT n_tup_ins FROM pg_stat_user_tables WHERE relid = %(table)s::regclass))"""

# A symbol with more rows than are looked at is known only from some moment on; what is before it is left out.
HISTORY = """\
WITH newest AS MATERIALIZED (
{newest}
), known AS (
    SELECT max(since) AS since FROM (
        SELECT CASE WHEN count(*) >= %(limit)s THEN min(committed_at) END AS since FROM newest GROUP BY symbol
    ) AS symbols
), latency AS (
    SELECT date_bin(make_interval(secs => %(step_s)s), committed_at, 'epoch') AS step,
           extract(epoch FROM committed_at) * 1000 - produced_at / 1000.0 AS ms
    FROM newest
    WHERE committed_at > clock_timestamp() - make_interval(mins => %(minutes)s)
)
SELECT coalesce(json_agg(json_build_array(extract(epoch FROM step) * 1000, rows, p[1], p[2]) ORDER BY step), '[]')
FROM (
    SELECT step, count(*) AS rows, percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY ms) AS p
    FROM latency GROUP BY step
) AS steps
-- Steps that are complete: not the first, which the minutes cut, nor the one that is under way.
WHERE step >= clock_timestamp() - make_interval(mins => %(minutes)s)
  AND step + make_interval(secs => %(step_s)s) <= clock_timestamp()
  AND step > coalesce((SELECT since FROM known), '-infinity')"""

CANDLES = """\
SELECT coalesce(json_object_agg(symbol, candles), '{{}}') FROM (
    SELECT symbol, json_agg(json_build_array(window_start, open, high, low, close) ORDER BY window_start) AS candles
    FROM {table} WHERE symbol = ANY(%(symbols)s)
      AND window_start >= {now_ms} - %(minutes)s * 60000
    GROUP BY symbol
) AS symbols"""


def statement(template: str, table: str, *, rejected: str = "rejected_messages", since_min: int | None = None) -> str:
    """Return a statement for one table; `since_min` bounds the newest rows by event time, in minutes from now."""
    since = "" if since_min is None else (
        f"\n      AND timestamp >= {_NOW_MS} - {since_min * 60_000}"
    )  # fmt: skip
    return template.format(
        table=table, rejected=rejected, newest=_NEWEST.format(table=table, since=since), now_ms=_NOW_MS
    )


class Source(Protocol):
    """Where rows come from. Each call may block, and raises SourceError where there is no answer."""

    def rows(self) -> Rows:
        """Return both engines now."""

    def candles(self) -> Candles:
        """Return the newest candles of both engines."""

    def history(self) -> History:
        """Return the last quarter of an hour in steps of STEP_S seconds."""

    def close(self) -> None:
        """Let go of the connection."""


def parse_rows(found: Mapping[str, Any]) -> EngineRows:
    """Make an engine's rows of the answer to NOW."""
    p50, p95, p99 = found["percentiles"] or (None, None, None)
    return EngineRows(
        rows=found["rows"], capped=found["capped"], p50_ms=p50, p95_ms=p95, p99_ms=p99,
        committed_ms=found["committed_ms"], inserted=found["inserted"],
        offsets={int(partition): offset for partition, offset in (found["offsets"] or {}).items()},
        quotes={symbol: Quote(*quote) for symbol, quote in (found["quotes"] or {}).items()},
    )  # fmt: skip


class Postgres:
    """The tables, over one connection that reads and nothing else. Used by one thread at a time."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._connection: Any = None

    def rows(self) -> Rows:
        """Return both engines now."""

        def ask(cursor: Any) -> Rows:  # noqa: ANN401 - psycopg2 has no types of its own
            engines, now_ms = {}, 0.0
            for engine in ENGINES:
                table = self._config.engine(engine).prices
                cursor.execute(
                    statement(NOW, table, rejected=self._config.engines.rejected),
                    {**self._symbols, "limit": NEWEST_ROWS, "table": table, "engine": engine},
                )
                found = cursor.fetchone()[0]
                now_ms = found["now_ms"]
                engines[engine] = parse_rows(found)
            return Rows(now_ms, engines)

        return self._ask(ask)

    def candles(self) -> Candles:
        """Return the newest candles of both engines."""

        def ask(cursor: Any) -> Candles:  # noqa: ANN401 - psycopg2 has no types of its own
            found: dict[str, dict[str, list[Candle]]] = {}
            for engine in ENGINES:
                table = self._config.engine(engine).candles
                cursor.execute(statement(CANDLES, table), {**self._symbols, "minutes": CANDLES_MIN})
                found[engine] = cursor.fetchone()[0]
            return found

        return self._ask(ask)

    def history(self) -> History:
        """Return the last quarter of an hour in steps of STEP_S seconds."""

        def ask(cursor: Any) -> History:  # noqa: ANN401 - psycopg2 has no types of its own
            found: dict[str, list[Step]] = {}
            for engine in ENGINES:
                table = self._config.engine(engine).prices
                # Event time is before commit time; rows that were much later than this are not of a healthy hour.
                text = statement(HISTORY, table, since_min=HISTORY_MIN + 5)
                cursor.execute(text, {**self._symbols, "limit": HISTORY_ROWS, "step_s": STEP_S, "minutes": HISTORY_MIN})
                found[engine] = cursor.fetchone()[0]
            return found

        return self._ask(ask)

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def _symbols(self) -> dict[str, Any]:
        return {"symbols": list(self._config.symbols)}

    def _ask(self, ask: Callable[[Any], T]) -> T:
        # A connection that stood idle may be of a server that has been restarted since: it gets a second try.
        for attempt in (1, 2) if self._connection is not None else (2,):
            try:
                if self._connection is None:
                    self._connection = self._connect()
                with self._connection.cursor() as cursor:
                    return ask(cursor)
            except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
                self.close()
                if attempt == 2 or isinstance(error, psycopg2.extensions.QueryCanceledError):
                    raise SourceError(_one_line(error)) from error
            except psycopg2.Error as error:
                self.close()
                raise SourceError(_one_line(error)) from error
        raise AssertionError("unreachable")

    def _connect(self) -> Any:  # noqa: ANN401 - psycopg2 has no types of its own
        settings = self._config.postgres
        try:
            password = settings.password_file.read_text().strip()
        except OSError as error:
            raise SourceError(f"the password cannot be read: {error}") from error
        timeout_ms = round(settings.timeout_s * 1000)
        connection = psycopg2.connect(
            host=settings.host, port=settings.port, dbname=settings.database, user=settings.user, password=password,
            connect_timeout=max(2, round(settings.timeout_s)), tcp_user_timeout=timeout_ms,
            application_name="crypto-dashboard",
            options=f"-c statement_timeout={timeout_ms} -c default_transaction_read_only=on -c jit=off",
        )  # fmt: skip
        connection.autocommit = True
        return connection


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
