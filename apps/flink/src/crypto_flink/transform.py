"""What the job makes of Kafka records, as SQL that knows no connector (docs/contract.md).

A *record table* has the columns `value` BYTES, `kafka_partition` INT, `kafka_offset` BIGINT and `kafka_timestamp`
BIGINT (epoch ms). `parsed()` makes a *parsed view* of it, and everything else reads that view, so that a record is
validated once however many sinks there are. On a stream the view's `event_time` has to be its rowtime attribute.
"""

# ruff: noqa: S608 - the names put into the SQL are this package's own.

from __future__ import annotations

PARSE_FUNCTION = "PARSE_EVENT"

# Digits of the fixed-width sort key of a candle's open and close: epoch ms, then a 64-bit offset.
_TIMESTAMP_DIGITS = 13
_OFFSET_DIGITS = 19
_PRICE_POSITION = _TIMESTAMP_DIGITS + _OFFSET_DIGITS + 1


def parsed(records: str) -> str:
    """Return the query that validates the table `records`: one row per record, `reason` NULL for an event."""
    # An event needs its raw value no more; what is not carried along is not copied between operators. The event time of
    # what is no event is not NULL, since a rowtime must not be; no window is made of it.
    return f"""
SELECT kafka_partition, kafka_offset, kafka_timestamp, TO_TIMESTAMP_LTZ(COALESCE(`timestamp`, 0), 3) AS event_time,
       reason, event_id, symbol, price, `user`, `timestamp`, produced_at,
       CASE WHEN reason IS NULL THEN CAST(NULL AS BYTES) ELSE `value` END AS payload
FROM {records}, LATERAL TABLE({PARSE_FUNCTION}(`value`))"""


def prices(view: str) -> str:
    """Return the query for the price table's rows; an event sent twice is there twice."""
    return f"""
SELECT symbol, price, `user`, `timestamp`, event_id, produced_at, kafka_partition, kafka_offset
FROM {view} WHERE reason IS NULL"""


def log_lines(view: str) -> str:
    """Return the query for one line of text per event, as people look for it in the task manager's log."""
    return f"""
SELECT '[FLINK] ' || symbol || ': $' || CAST(price AS STRING) FROM {view} WHERE reason IS NULL"""


def rejected(view: str) -> str:
    """Return the query for the rows of rejected_messages."""
    return f"""
SELECT 'flink' AS engine, kafka_partition, kafka_offset, kafka_timestamp, reason, payload
FROM {view} WHERE reason IS NOT NULL"""


def candles(view: str, window_s: int) -> str:
    """Return the query for candles of `window_s` seconds of event time.

    Open and close are the prices of the smallest and the largest (timestamp, kafka_offset), whatever the order of
    arrival: MIN and MAX over that pair written with a fixed width, with the price behind it. COUNT DISTINCT counts an
    event that comes twice once; where it shares its millisecond with another event of its symbol, its last copy takes
    part in the order, and not its first, as the contract says.

    One aggregation, on purpose. A first one per event would cure that, but a second one behind it closes windows too
    early whenever all partitions have been idle: the first of its inputs that is active again carries the watermark.
    """
    window_ms = window_s * 1000
    sort_key = (
        f"LPAD(CAST(`timestamp` AS STRING), {_TIMESTAMP_DIGITS}, '0')"
        f" || LPAD(CAST(kafka_offset AS STRING), {_OFFSET_DIGITS}, '0') || CAST(price AS STRING)"
    )
    # Windows start at multiples of their length since the epoch: arithmetic needs no session time zone.
    return f"""
SELECT symbol,
       earliest_ms - MOD(earliest_ms, {window_ms}) AS window_start,
       CAST(SUBSTRING(first_event FROM {_PRICE_POSITION}) AS DOUBLE) AS `open`,
       high, low,
       CAST(SUBSTRING(last_event FROM {_PRICE_POSITION}) AS DOUBLE) AS `close`,
       event_count
FROM (
    SELECT symbol, MIN(`timestamp`) AS earliest_ms, MAX(price) AS high, MIN(price) AS low,
           MIN(sort_key) AS first_event, MAX(sort_key) AS last_event, COUNT(DISTINCT event_id) AS event_count
    FROM (
        SELECT symbol, `timestamp`, price, event_id, window_start, window_end, {sort_key} AS sort_key
        FROM TABLE(TUMBLE(TABLE {view}, DESCRIPTOR(event_time), INTERVAL '{window_s}' SECOND({len(str(window_s))})))
        WHERE reason IS NULL
    )
    GROUP BY window_start, window_end, symbol
)"""
