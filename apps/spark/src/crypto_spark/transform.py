"""From raw Kafka records to rows, rejects and candles. DataFrames in, DataFrames out; no connector is known here.

The rules are those of ``docs/contract.md``. Only Spark's built-in functions are used, because Real-Time Mode refuses
Python functions and all modes must give the same answer.

How a record is judged
----------------------
Nearly all records are well formed, so they are parsed once into typed columns, and a cheap test proves that this
parse can be trusted. Only where the proof fails, the slow checks find the reason (or that the record is an event
after all, such as one with a nested object in an unknown field).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pyspark.sql import functions as F  # noqa: N812 - the name every Spark program uses

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

MIN_TIMESTAMP_MS: Final = 946_684_800_000
MAX_TIMESTAMP_MS: Final = 4_102_444_800_000

PRICE_COLUMNS: Final = (
    "symbol",
    "price",
    "user",
    "timestamp",
    "event_id",
    "produced_at",
    "kafka_partition",
    "kafka_offset",
)
REJECTED_COLUMNS: Final = ("engine", "kafka_partition", "kafka_offset", "kafka_timestamp", "reason", "payload")
CANDLE_COLUMNS: Final = ("symbol", "window_start", "open", "high", "low", "close", "event_count")

ENGINE: Final = "spark"

# Stricter than Spark's defaults, which take single quotes and NaN for JSON. Lengths: whatever fits into a message;
# depth: the contract's.
_JSON_OPTIONS: Final = {
    "mode": "PERMISSIVE",
    "allowSingleQuotes": "false",
    "allowNonNumericNumbers": "false",
    "maxNumLen": "1048576",
    "maxNestingDepth": "500",
    "columnNameOfCorruptRecord": "malformed",
}
_EVENT_SCHEMA: Final = (
    "event_id STRING, symbol STRING, price DOUBLE, user STRING, timestamp BIGINT, produced_at BIGINT, malformed STRING"
)
# A variant keeps the JSON type, which the typed parse loses for strings: 5 and "5" are both '5' there.
_VARIANT_SCHEMA: Final = (
    "event_id VARIANT, symbol VARIANT, price VARIANT, user VARIANT, timestamp VARIANT, produced_at VARIANT"
)
_UUID_PATTERN: Final = "^[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\\z"
_FIELDS: Final = ("event_id", "symbol", "price", "user", "timestamp", "produced_at")

# Session settings this module's results depend on.
REQUIRED_CONF: Final = {
    "spark.sql.session.timeZone": "UTC",
    # A field named twice: the last one counts, as in the typed parse (and in nearly every JSON library).
    "spark.sql.variant.allowDuplicateKeys": "true",
}


def parse(records: DataFrame, *, symbols: Sequence[str], max_event_bytes: int) -> DataFrame:
    """Parse and judge Kafka records, one row out for each row in.

    Args:
        records: at least ``value`` binary, ``partition`` int, ``offset`` bigint, ``timestamp`` timestamp, as Spark's
            Kafka source delivers them. Batch or streaming.
        symbols: the symbols that are known.
        max_event_bytes: values longer than this are not parsed.

    Returns:
        The columns of ``PRICE_COLUMNS`` (meaningful where ``reason`` is null), ``kafka_timestamp`` (epoch ms),
        ``reason`` (null: an event) and ``payload`` (the raw value of a reject, else null).
    """
    small = F.length("value") <= max_event_bytes
    prepared = records.select(
        F.col("partition").alias("kafka_partition"),
        F.col("offset").alias("kafka_offset"),
        F.unix_millis("timestamp").alias("kafka_timestamp"),
        F.col("value"),
        # Null for what must not reach the parser, however large it is.
        F.when(small, F.col("value").cast("string")).alias("text"),
    )
    # Each step is a projection of its own: Spark then evaluates each parse once, not once for each use of it.
    parsed = prepared.withColumn("event", F.from_json("text", _EVENT_SCHEMA, _JSON_OPTIONS))
    doubtful = parsed.withColumn("doubtful", ~F.coalesce(_is_surely_event(symbols), F.lit(0).cast("boolean")))
    typed = doubtful.withColumn("typed", F.when(F.col("doubtful"), F.from_json("text", _VARIANT_SCHEMA, _JSON_OPTIONS)))
    types = F.struct(
        *(F.coalesce(F.schema_of_variant(F.col("typed")[field]), F.lit("VOID")).alias(field) for field in _FIELDS)
    )
    judged = typed.withColumn("types", F.when(F.col("doubtful"), types)).withColumn(
        "reason", F.when(F.col("doubtful"), _reason(symbols, max_event_bytes))
    )
    return judged.select(
        F.col("event.symbol").alias("symbol"),
        F.col("event.price").alias("price"),
        F.col("event.user").alias("user"),
        F.col("event.timestamp").alias("timestamp"),
        F.lower("event.event_id").alias("event_id"),
        F.col("event.produced_at").alias("produced_at"),
        "kafka_partition",
        "kafka_offset",
        "kafka_timestamp",
        "reason",
        F.when(F.col("reason").isNotNull(), F.col("value")).alias("payload"),
    )


def events(parsed: DataFrame) -> DataFrame:
    """The rows of the price table: ``PRICE_COLUMNS`` of those records of :func:`parse` that are events."""
    return parsed.where(F.col("reason").isNull()).select(*PRICE_COLUMNS)


def rejects(parsed: DataFrame) -> DataFrame:
    """The rows of ``rejected_messages``: ``REJECTED_COLUMNS`` of the other records of :func:`parse`."""
    return parsed.where(F.col("reason").isNotNull()).select(F.lit(ENGINE).alias("engine"), *REJECTED_COLUMNS[1:])


def candles(prices: DataFrame, *, window_s: int, watermark_delay_s: int) -> DataFrame:
    """Candles by event time, each distinct ``event_id`` counted once.

    Args:
        prices: rows as :func:`events` gives them. On a stream the result suits append mode only.
        window_s: length of a candle.
        watermark_delay_s: how far the watermark stays behind the largest event time seen.

    Returns:
        ``CANDLE_COLUMNS``; ``window_start`` in epoch ms.
    """
    # Duplicates are dropped per window, not per event time: state then lives exactly as long as the window, and an
    # event counts as late when its window has closed, not as soon as the watermark has passed the event itself.
    return (
        prices.withColumn("event_time", F.timestamp_millis("timestamp"))
        .withWatermark("event_time", f"{watermark_delay_s} seconds")
        .select(
            F.window("event_time", f"{window_s} seconds").alias("window"),
            "symbol",
            "price",
            "event_id",
            F.struct("timestamp", "kafka_offset").alias("position"),
        )
        .dropDuplicates(["window", "event_id"])
        .groupBy("window", "symbol")
        .agg(
            F.min_by("price", "position").alias("open"),
            F.max("price").alias("high"),
            F.min("price").alias("low"),
            F.max_by("price", "position").alias("close"),
            F.count(F.lit(1)).alias("event_count"),
        )
        .select("symbol", F.unix_millis("window.start").alias("window_start"), *CANDLE_COLUMNS[2:])
    )


def _is_surely_event(symbols: Sequence[str]) -> Column:
    """True only for events, false or null where the slow checks have to look.

    The typed parse is too lenient in these places, each excluded here:

    * It reads the first document and ignores the rest. If the only ``}`` is the last character, there is no rest.
    * It gives a string for any JSON type. A UUID and a known symbol cannot come from anything but a string; the user
      could, so it must not look like a number, an object, an array or a boolean.
    * Of a field named twice it keeps a good first value when the second has another type, but marks the record.
    * It replaces malformed UTF-8.
    """
    text, event = F.col("text"), F.col("event")
    return (
        (F.instr(text, "}") == F.length(text))
        & F.is_valid_utf8(text)
        & event["malformed"].isNull()
        & event["symbol"].isin(list(symbols))
        & (event["price"] > 0)
        & (event["price"] < float("inf"))
        & ~F.substring(event["user"], 1, 1).isin(list("-0123456789{["))
        & ~event["user"].isin("true", "false")
        & ~F.contains(event["user"], F.lit("\0"))
        & event["timestamp"].between(MIN_TIMESTAMP_MS, MAX_TIMESTAMP_MS - 1)
        & event["produced_at"].isNotNull()
        & event["event_id"].rlike(_UUID_PATTERN)
    )


def _reason(symbols: Sequence[str], max_event_bytes: int) -> Column:
    """Why a record is no event, null where it is one: the contract's checks in the contract's order."""
    value, text, event = F.col("value"), F.col("text"), F.col("event")
    reason = (
        F.when(value.isNull(), "null_value")
        .when(F.length(value) > max_event_bytes, "too_large")
        .when(~F.is_valid_utf8(text), "not_utf8")
        .when(~_is_one_document(text), "not_json")
        .when(~text.rlike("\\A[ \\t\\n\\r]*\\{"), "not_object")
    )
    for field in _FIELDS:
        json_type = F.col("types")[field]
        if field == "price":
            right = json_type.isin("BIGINT", "DOUBLE") | json_type.startswith("DECIMAL")
        elif field in ("timestamp", "produced_at"):
            right = json_type == "BIGINT"
        else:
            right = json_type == "STRING"
        if field == "event_id":
            right &= event["event_id"].rlike(_UUID_PATTERN)
        if field == "user":
            # PostgreSQL's text cannot hold U+0000: such a row would stop the whole batch, again and again.
            right &= ~F.contains(event["user"], F.lit("\0"))
        reason = reason.when(json_type == "VOID", f"missing_field:{field}").when(~right, f"wrong_type:{field}")
    return (
        reason.when(~event["symbol"].isin(list(symbols)), "unknown_symbol")
        .when(~((event["price"] > 0) & (event["price"] < float("inf"))), "out_of_range:price")
        .when(~event["timestamp"].between(MIN_TIMESTAMP_MS, MAX_TIMESTAMP_MS - 1), "out_of_range:timestamp")
    )


def _is_one_document(text: Column) -> Column:
    """Whether ``text`` is exactly one JSON document; never null for a text.

    Spark's parsers stop after the first document. So the text becomes the first of two array elements, the other one
    being its own digest: whatever closes the array early or adds elements to it does not end in that digest.
    """
    digest = F.sha2(text, 256)
    # The line break ends an unclosed string of the text, which may not hold one.
    wrapped = F.concat(F.lit("[\n"), text, F.lit('\n,"'), digest, F.lit('"]'))
    elements = F.from_json(wrapped, "array<string>", _JSON_OPTIONS)
    return F.coalesce((F.size(elements) == 2) & (elements[1] == digest), F.lit(0).cast("boolean"))
