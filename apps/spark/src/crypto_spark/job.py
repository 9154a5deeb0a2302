"""The application: two streaming queries, and the loop that watches over them."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
from pyspark.sql import Observation
from pyspark.sql import functions as F  # noqa: N812 - the name every Spark program uses
from pyspark.sql.streaming import StreamingQueryListener

from crypto_spark import transform
from crypto_spark.kafka import KafkaError, TopicMissingError, TopicReader
from crypto_spark.postgres import AnotherApplicationError, Move, Staging, connect, newest_prices
from crypto_spark.progress import StarvationWatch, lag, parse_offsets
from crypto_spark.session import create_session, wait_for_slots
from crypto_spark.show import format_table
from crypto_spark.topic import OperatorNeededError, Topic, check_topic, is_data_loss, recreated, remedy

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming import StreamingQuery

    from crypto_spark.config import Settings
    from crypto_spark.metrics import AppMetrics
    from crypto_spark.notify import Notifier

log = logging.getLogger(__name__)

PRICES = "prices"
CANDLES = "candles"

_JDBC_BATCH_ROWS = 10_000
_WATCH_INTERVAL_S = 1.0
_KAFKA_INTERVAL_S = 10.0
_WRITER_CLASS = "lab.crypto.spark.PostgresEventWriter"


class QueryFailedError(Exception):
    """A query has ended by itself; the text says why."""


class TooFewSlotsError(Exception):
    """The cluster offers fewer task slots than the mode needs."""


EXPECTED_ERRORS = (
    QueryFailedError,
    TooFewSlotsError,
    KafkaError,
    AnotherApplicationError,
    psycopg2.OperationalError,
    # The next use of a connection that has broken.
    psycopg2.InterfaceError,
)
"""What the world around the application does to it: the text says enough, a traceback would hide it."""


@dataclass
class _QueryState:
    """What the queries report, as far as the watching loop needs it."""

    heard_at: float = field(default_factory=time.monotonic)
    batch_id: int = -1
    records: dict[int, int] = field(default_factory=dict)
    """Records of a batch, where Spark's own count cannot be used: it counts what is read twice as two."""
    end: dict[int, int] = field(default_factory=dict)
    lag_rows: int = 0


class Job:
    """One run of the application.

    Args:
        settings: the configuration.
        metrics: to be kept up to date.
        notifier: to systemd.
    """

    def __init__(self, settings: Settings, metrics: AppMetrics, notifier: Notifier) -> None:
        self._settings = settings
        self._metrics = metrics
        self._notifier = notifier
        self._password = settings.postgres.read_password()
        self._run_id = uuid.uuid4().hex
        self._stopping = threading.Event()
        self._progress: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._states = {PRICES: _QueryState(), CANDLES: _QueryState()}
        self._starvation = StarvationWatch()
        self._latest: dict[int, int] = {}

    def stop(self) -> None:
        """Ask :meth:`run` to stop the queries and return. Safe in a signal handler and from any thread."""
        self._stopping.set()

    def run(self) -> None:
        """Run until :meth:`stop`.

        Raises:
            QueryFailedError: a query failed.
            OperatorNeededError: the checkpoint does not belong to this topic.
            TooFewSlotsError: Real-Time Mode would leave partitions unread.
            KafkaError: Kafka does not answer, or has no such topic.
            psycopg2.Error: PostgreSQL does not answer.
        """
        session = create_session(self._settings)
        try:
            self._run(session)
        finally:
            session.stop()

    def _run(self, session: SparkSession) -> None:
        settings = self._settings
        jvm = session._jvm  # noqa: SLF001 - the only way to the JVM
        reader = TopicReader(jvm, settings.kafka.bootstrap_servers, settings.kafka.topic)
        topic = reader.describe()
        check_topic(Path(settings.job.checkpoint_dir), topic)
        self._check_slots(session, topic)
        session.streams.addListener(_Listener(self._progress))
        queries: dict[str, StreamingQuery] = {}
        closing: list[Callable[[], None]] = []
        try:
            # In this order: Real-Time Mode takes its slots once and for all.
            queries[PRICES] = self._start_prices(session, closing)
            queries[CANDLES] = self._start_candles(session, closing)
            log.info("Both queries run: mode %s, run %s", settings.spark.mode, self._run_id)
            self._watch(queries, reader, topic, closing)
        finally:
            for query in queries.values():
                _stop_quietly(query)
            for close in closing:
                close()

    # Before the start

    def _check_slots(self, session: SparkSession, topic: Topic) -> None:
        if self._settings.spark.mode != "realtime":
            return
        # One more for the candles, whose short tasks take turns in it.
        wanted = topic.partitions + 1
        slots = wait_for_slots(session, wanted, self._settings.spark.executor_wait_s)
        if slots < wanted:
            raise TooFewSlotsError(
                f"spark.mode 'realtime' needs {wanted} task slots ({topic.partitions} partitions of {topic.name!r}, "
                "each served by a task of its own all the time, and 1 for the candles), but the executors offer "
                f"{slots}: partitions would stay unread. Give the application more cores (spark.max_cores, "
                "spark.executor_cores, more workers) or use another spark.mode"
            )

    # The queries

    def _parsed(self, session: SparkSession, options: dict[str, str]) -> DataFrame:
        settings = self._settings
        records = (
            session.readStream.format("kafka")
            .option("kafka.bootstrap.servers", settings.kafka.bootstrap_servers)
            .option("subscribe", settings.kafka.topic)
            .option("startingOffsets", settings.kafka.starting_offsets)
            # Records that are gone before they were read, or a topic made anew: stop and say so.
            .option("failOnDataLoss", "true")
            .options(**options)
            .load()
        )
        return transform.parse(
            records, symbols=settings.events.symbols, max_event_bytes=settings.events.max_event_bytes
        )

    def _start_prices(self, session: SparkSession, closing: list[Callable[[], None]]) -> StreamingQuery:
        settings = self._settings
        session.sparkContext.setLocalProperty("spark.scheduler.pool", PRICES)
        fast = {"kafka.fetch.max.wait.ms": "10"}
        limit = {"maxOffsetsPerTrigger": str(settings.spark.max_offsets_per_trigger)}
        if settings.spark.mode == "realtime":
            return self._start_realtime_prices(session, self._parsed(session, fast))
        staging = Staging(PRICES, settings.postgres, self._password, self._price_moves())
        closing.append(staging.close)
        if settings.spark.mode == "continuous":
            writer = self._parsed(session, limit | fast).writeStream
        else:
            interval = f"{settings.spark.trigger_interval_ms} milliseconds"
            writer = self._parsed(session, limit).writeStream.trigger(processingTime=interval)

        def write(batch: DataFrame, batch_id: int) -> None:
            self._write_prices(staging, batch, batch_id)

        return (
            writer.queryName(PRICES)
            .option("checkpointLocation", str(Path(settings.job.checkpoint_dir) / PRICES))
            .foreachBatch(write)
            .start()
        )

    def _start_realtime_prices(self, session: SparkSession, parsed: DataFrame) -> StreamingQuery:
        settings = self._settings
        writer = (
            parsed.select(*transform.PRICE_COLUMNS, "kafka_timestamp", "reason", "payload")
            .writeStream.queryName(PRICES)
            .outputMode("update")
            .trigger(realTime=f"{settings.job.checkpoint_interval_ms} milliseconds")
            .option("checkpointLocation", str(Path(settings.job.checkpoint_dir) / PRICES))
        )
        make = _java_class(session, _WRITER_CLASS)
        writer._jwrite.foreach(  # noqa: SLF001 - a Python writer would deliver at the end of each batch only
            make(
                settings.postgres.jdbc_url,
                settings.postgres.user,
                self._password,
                settings.tables.prices,
                settings.tables.rejected,
                settings.spark.realtime_flush_interval_ms,
                settings.spark.realtime_flush_rows,
            )
        )
        return writer.start()

    def _start_candles(self, session: SparkSession, closing: list[Callable[[], None]]) -> StreamingQuery:
        settings = self._settings
        session.sparkContext.setLocalProperty("spark.scheduler.pool", CANDLES)
        move = Move(
            settings.tables.staging_candles,
            settings.tables.candles,
            transform.CANDLE_COLUMNS,
            ("symbol", "window_start"),
        )
        staging = Staging(CANDLES, settings.postgres, self._password, [move])
        closing.append(staging.close)
        limit = {"maxOffsetsPerTrigger": str(settings.spark.max_offsets_per_trigger)}
        candles = transform.candles(
            transform.events(self._parsed(session, limit)),
            window_s=settings.candles.window_s,
            watermark_delay_s=settings.candles.watermark_delay_s,
        )

        def write(batch: DataFrame, batch_id: int) -> None:
            self._write_candles(staging, batch, batch_id)

        return (
            candles.writeStream.queryName(CANDLES)
            .outputMode("append")
            .trigger(processingTime=f"{settings.spark.trigger_interval_ms} milliseconds")
            .option("checkpointLocation", str(Path(settings.job.checkpoint_dir) / CANDLES))
            .foreachBatch(write)
            .start()
        )

    # One batch

    def _price_moves(self) -> list[Move]:
        tables = self._settings.tables
        position = ("kafka_partition", "kafka_offset")
        return [
            Move(tables.staging_prices, tables.prices, transform.PRICE_COLUMNS, position),
            Move(tables.staging_rejected, tables.rejected, transform.REJECTED_COLUMNS, position),
        ]

    def _write_prices(self, staging: Staging, parsed: DataFrame, batch_id: int) -> None:
        settings = self._settings
        key = self._batch_key(PRICES, batch_id)
        # Counted on the way, so that the source is read a second time only for batches that hold rejects.
        counts = Observation()
        counted = parsed.observe(counts, F.count(F.lit(1)).alias("records"), F.count(F.col("reason")).alias("rejects"))
        self._append(transform.events(counted), settings.tables.staging_prices, key)
        records, rejects = counts.get["records"], counts.get["rejects"]
        self._states[PRICES].records[batch_id] = records
        if rejects:
            self._append(transform.rejects(parsed), settings.tables.staging_rejected, key)
        sample_rows = settings.events.log_rows if settings.events.log_events else 0
        batch = staging.commit(key, [records - rejects, rejects], sample_rows=sample_rows)
        self._metrics.staged_rows.labels(PRICES).inc(records - rejects)
        self._metrics.inserted_rows.labels(PRICES).inc(batch.inserted)
        self._metrics.rejected_rows.labels(PRICES).inc(rejects)
        log.info(
            "Batch: %d\n%s",
            batch_id,
            format_table(("symbol", "price"), batch.sample, more=records - rejects > len(batch.sample))
            if settings.events.log_events
            else f"{records - rejects} events, {batch.inserted} of them new, {rejects} rejects",
        )

    def _write_candles(self, staging: Staging, candles: DataFrame, batch_id: int) -> None:
        key = self._batch_key(CANDLES, batch_id)
        counts = Observation()
        self._append(
            candles.observe(counts, F.count(F.lit(1)).alias("rows")), self._settings.tables.staging_candles, key
        )
        rows = counts.get["rows"]
        if not rows:
            return
        batch = staging.commit(key, [rows])
        self._metrics.staged_rows.labels(CANDLES).inc(rows)
        self._metrics.inserted_rows.labels(CANDLES).inc(batch.inserted)
        log.info("Candles of batch %d: %d, %d of them new", batch_id, rows, batch.inserted)

    def _batch_key(self, query: str, batch_id: int) -> str:
        return f"{self._run_id}/{query}/{batch_id}"

    def _append(self, rows: DataFrame, table: str, batch_key: str) -> None:
        postgres = self._settings.postgres
        (
            rows.withColumn("batch_key", F.lit(batch_key))
            .write.format("jdbc")
            .option("url", postgres.jdbc_url)
            .option("driver", "org.postgresql.Driver")
            .option("dbtable", table)
            .option("user", postgres.user)
            .option("password", self._password)
            .option("batchsize", _JDBC_BATCH_ROWS)
            .mode("append")
            .save()
        )

    # While it runs

    def _watch(
        self,
        queries: dict[str, StreamingQuery],
        reader: TopicReader,
        topic: Topic,
        closing: list[Callable[[], None]],
    ) -> None:
        reading = None
        if self._settings.spark.mode == "realtime" and self._settings.events.log_events:
            reading = connect(self._settings.postgres, self._password, "crypto_spark log")
            closing.append(reading.close)
        for name in queries:
            # A query without workers reports nothing at all: its age counts from here.
            self._metrics.last_progress_s.labels(name).set(time.time())
        self._notifier.send(READY="1", STATUS="both queries run")
        asked_kafka_at = 0.0
        while not self._stopping.wait(_WATCH_INTERVAL_S):
            for name, query in queries.items():
                # Also tells that the JVM still answers: it raises where it does not.
                active = query.isActive
                self._metrics.up.labels(name).set(int(active))
                if not active:
                    raise self._failure(name, query)
            if time.monotonic() - asked_kafka_at >= _KAFKA_INTERVAL_S:
                asked_kafka_at = time.monotonic()
                self._ask_kafka(reader, topic)
            self._take_progress(reading)
            self._report()

    def _failure(self, name: str, query: StreamingQuery) -> Exception:
        error = query.exception()
        # Without the query plans that Spark adds: they fill pages.
        text = "it was stopped" if error is None else str(error).partition("\n=== Streaming Query ===")[0][:2000]
        if is_data_loss(text):
            directory = self._settings.job.checkpoint_dir
            return OperatorNeededError(
                f"query {name!r} stopped, because Kafka no longer has the offsets it wants to read: the topic was "
                f"recreated, or records expired before they were read. {remedy(directory)}. Kafka's words: {text}"
            )
        return QueryFailedError(f"query {name!r} failed: {text}")

    def _ask_kafka(self, reader: TopicReader, topic: Topic) -> None:
        try:
            now = reader.describe()
            self._latest = reader.end_offsets(now.partitions)
        except TopicMissingError:
            raise
        except KafkaError as error:
            # Kafka may be starting again. How long they wait for it is for the queries to say.
            log.warning("%s", error)
            return
        if now.topic_id != topic.topic_id:
            raise OperatorNeededError(recreated(self._settings.job.checkpoint_dir, topic, now))
        for name, state in self._states.items():
            # Before a query has said where it is, nothing can be said about what it lacks.
            if state.end:
                behind = lag(state.end, self._latest)
                state.lag_rows = sum(behind.values())
                for partition, rows in behind.items():
                    self._metrics.offsets_behind.labels(name, partition).set(rows)

    def _take_progress(self, reading: Any) -> None:  # noqa: ANN401 - psycopg2 has no types
        shown = False
        while not self._progress.empty():
            name, progress = self._progress.get()
            state = self._states.get(name)
            if state is None:
                continue
            state.heard_at = time.monotonic()
            self._metrics.last_progress_s.labels(name).set(time.time())
            if progress is None:
                continue
            self._take_batch(name, state, progress)
            shown = shown or (name == PRICES and progress.numInputRows > 0)
        if shown and reading is not None:
            rows = newest_prices(reading, self._settings.tables.prices, self._settings.events.symbols)
            log.info("Batch: %d\n%s", self._states[PRICES].batch_id, format_table(("symbol", "price"), rows))

    def _take_batch(self, name: str, state: _QueryState, progress: Any) -> None:  # noqa: ANN401 - as in pyspark
        metrics = self._metrics
        state.batch_id = progress.batchId
        metrics.batches.labels(name).inc()
        reported = progress.numInputRows
        records = state.records.pop(progress.batchId, reported)
        share = records / reported if reported else 1.0
        metrics.input_rows.labels(name).inc(records)
        metrics.input_rows_per_s.labels(name).set(_finite(progress.inputRowsPerSecond) * share)
        metrics.processed_rows_per_s.labels(name).set(_finite(progress.processedRowsPerSecond) * share)
        metrics.last_batch.labels(name).set(progress.batchId)
        metrics.batch_duration_ms.labels(name).set(progress.batchDuration)
        for number, operator in enumerate(progress.stateOperators):
            label = f"{number}-{operator.operatorName}"
            metrics.state_rows.labels(name, label).set(operator.numRowsTotal)
            metrics.state_memory_bytes.labels(name, label).set(operator.memoryUsedBytes)
        metrics.late_rows.labels(name).set(
            sum(operator.numRowsDroppedByWatermark for operator in progress.stateOperators)
        )
        for source in progress.sources:
            topic = self._settings.kafka.topic
            start, end = parse_offsets(source.startOffset, topic), parse_offsets(source.endOffset, topic)
            state.end = end or state.end
            for partition, offset in end.items():
                metrics.processed_offset.labels(name, partition).set(offset)
            if name == PRICES and self._settings.spark.mode == "realtime":
                starving = self._starvation.update(start, end, self._latest)
                for partition in end:
                    metrics.starving.labels(name, partition).set(int(partition in starving))
                if starving:
                    log.error(
                        "Partitions %s have records, but no task reads them: there are too few task slots", starving
                    )

    def _report(self) -> None:
        prices, candles = self._states[PRICES], self._states[CANDLES]
        status = (
            f"{self._settings.spark.mode}: prices batch {prices.batch_id}, lag {prices.lag_rows}; "
            f"candles batch {candles.batch_id}, lag {candles.lag_rows}"
        )
        quiet_s = time.monotonic() - min(prices.heard_at, candles.heard_at)
        if quiet_s < self._settings.spark.stall_timeout_s:
            self._notifier.send(STATUS=status, WATCHDOG="1")
        else:
            # No more keep-alives: the watchdog of systemd starts the application again.
            self._notifier.send(STATUS=f"stalled for {quiet_s:.0f} s: {status}")


class _Listener(StreamingQueryListener):  # type: ignore[misc]
    """Hands on what the queries report as (query name, progress or None)."""

    def __init__(self, progress: queue.SimpleQueue[Any]) -> None:
        self._progress = progress
        self._names: dict[uuid.UUID, str] = {}

    def onQueryStarted(self, event: Any) -> None:  # noqa: ANN401, N802 - pyspark's name
        self._names[event.id] = event.name

    def onQueryProgress(self, event: Any) -> None:  # noqa: ANN401, N802
        self._progress.put((event.progress.name, event.progress))

    def onQueryIdle(self, event: Any) -> None:  # noqa: ANN401, N802
        self._progress.put((self._names.get(event.id), None))

    def onQueryTerminated(self, event: Any) -> None:  # noqa: ANN401, N802
        """The watching loop sees it by itself."""


def _finite(value: float | None) -> float:
    # A first batch has no rate: Spark says NaN or infinity there.
    return value if value is not None and math.isfinite(value) else 0.0


def _java_class(session: SparkSession, name: str) -> Any:  # noqa: ANN401
    found: Any = session._jvm  # noqa: SLF001
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _stop_quietly(query: StreamingQuery) -> None:
    try:
        query.stop()
    except Exception as error:  # noqa: BLE001 - the other query has to be stopped too, whatever this one says
        log.warning("Query did not stop cleanly: %s", error)
