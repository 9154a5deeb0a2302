"""From the spool to Kafka: in order per symbol, each event exactly once in the topic, whatever dies meanwhile.

Delivery goes in sessions. A session first reconciles: what may have been sent and is not acknowledged is looked up in
the topic itself, from the last acknowledged offset of each partition on. Then it sends. Any failure ends the session,
and the next one reconciles again: a lost broker, an expired batch and a killed producer all recover the same way.
"""

from __future__ import annotations

import json
import logging
import queue
import socket
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from crypto_producer.config import KafkaConfig
from crypto_producer.metrics import Metrics
from crypto_producer.pacing import Backoff, Clock
from crypto_producer.spool import KafkaPosition, Spool
from crypto_producer.systemd import Progress

log = logging.getLogger(__name__)

_LOOP = "delivery"
_BATCH_EVENTS = 1_000
_PERSIST_EVERY_S = 0.05
_IDLE_WAIT_S = 0.5
# Without an answer for so long Kafka counts as away, well before kafka-python gives a batch up (delivery_timeout_s).
_SILENT_AFTER_S = 5.0


class DeliveryError(Exception):
    """The session cannot go on; the next one takes over."""


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Where Kafka put an event."""

    partition: int
    offset: int


class AckWindow:
    """Events sent and not yet settled, in the order they were sent. Kafka may answer out of order.

    Only the prefix in which everything is acknowledged is settled: a crash repeats what is behind it.
    """

    def __init__(self, settled_seq: int = 0, clock: Clock = time.monotonic) -> None:
        self.settled_seq = settled_seq
        self._clock = clock
        self._sent: deque[int] = deque()
        self._acks: dict[int, Acknowledgement] = {}
        self._oldest_since_s = 0.0

    def __len__(self) -> int:
        """How many events are sent and not settled."""
        return len(self._sent)

    def sent(self, seq: int) -> None:
        """The event was handed over to Kafka."""
        if not self._sent:
            self._oldest_since_s = self._clock()
        self._sent.append(seq)

    def acknowledged(self, seq: int, ack: Acknowledgement) -> None:
        """Kafka has it."""
        self._acks[seq] = ack

    def is_acknowledged(self, seq: int) -> bool:
        """Tell whether Kafka has acknowledged this event."""
        return seq <= self.settled_seq or seq in self._acks

    @property
    def stalled_s(self) -> float:
        """For how long the oldest event without an answer has been just that; 0.0 where nothing is waited for.

        Not its age, which under mere load grows too, while answers keep coming.
        """
        if not self._sent or self._sent[0] in self._acks:
            return 0.0
        return self._clock() - self._oldest_since_s

    def settle(self) -> dict[int, int] | None:
        """Move the settled prefix on: the next offset of each partition in it, or None when nothing moved."""
        next_offsets: dict[int, int] = {}
        moved = False
        while self._sent and self._sent[0] in self._acks:
            self.settled_seq = self._sent.popleft()
            ack = self._acks.pop(self.settled_seq)
            next_offsets[ack.partition] = max(next_offsets.get(ack.partition, 0), ack.offset + 1)
            moved = True
        if moved:
            self._oldest_since_s = self._clock()
        return next_offsets if moved else None


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as the broker describes it now."""

    topic_id: str
    partitions: tuple[int, ...]
    begin_offsets: Mapping[int, int]
    end_offsets: Mapping[int, int]


def reconcile_from(position: KafkaPosition, state: TopicState) -> dict[int, int]:
    """The offset of each partition from which on unacknowledged events may lie in the topic.

    A recreated topic (another id, or shorter than what was acknowledged) is read from its beginning.
    """
    same_topic = position.topic_id == state.topic_id
    starts: dict[int, int] = {}
    for partition in state.partitions:
        begin, end = state.begin_offsets[partition], state.end_offsets[partition]
        known = position.next_offsets.get(partition, begin) if same_topic else begin
        starts[partition] = begin if known > end else max(known, begin)
    return starts


def event_id_of(value: bytes | None) -> UUID | None:
    """The event id in a record's value; None where the record is no event."""
    if value is None:
        return None
    try:
        message = json.loads(value)
        return UUID(message["event_id"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):  # whatever others put into the topic
        return None


class Delivery:
    """The sender's thread and what others may ask it."""

    def __init__(self, config: KafkaConfig, spool: Spool, metrics: Metrics, progress: Progress) -> None:
        self._config = config
        self._spool = spool
        self._metrics = metrics
        self._progress = progress
        # Half of the spool may be in flight at most, so that a full one always holds something that can be dropped.
        self.window_events = in_flight_limit(config, spool.max_events)
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._changed = threading.Condition()
        self._window = AckWindow()
        self._unanswered = 0
        self._thread = threading.Thread(target=self._run, name=_LOOP, daemon=True)
        self.failure: BaseException | None = None
        self.state = "not connected yet"

    def start(self) -> None:
        """Begin to deliver."""
        self._progress.touch(_LOOP, 120)
        self._thread.start()

    def wake(self) -> None:
        """There is something new in the spool."""
        self._wake.set()

    def wait_acknowledged(self, seqs: Iterable[int], timeout_s: float, stop: threading.Event) -> int:
        """Wait until Kafka has acknowledged all of `seqs`, `timeout_s` is over or `stop` is set: how many it has."""
        wanted = list(seqs)
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while True:
                count = sum(self._window.is_acknowledged(seq) for seq in wanted)
                left_s = deadline_s - time.monotonic()
                if count == len(wanted) or left_s <= 0 or stop.is_set():
                    return count
                self._changed.wait(min(left_s, 0.2))

    def drain(self, timeout_s: float) -> int:
        """Wait until the spool is empty or `timeout_s` is over: how many events remain in it."""
        deadline_s = time.monotonic() + timeout_s
        self.wake()
        with self._changed:
            while self._spool.events and self._thread.is_alive():
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    break
                self._changed.wait(min(left_s, 0.2))
        return self._spool.events

    def close(self, timeout_s: float = 15.0) -> None:
        """End the thread; what is not acknowledged stays in the spool."""
        self._stop.set()
        self._wake.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        self._progress.done(_LOOP)

    def _run(self) -> None:
        backoff = Backoff(0.2, 5.0)
        try:
            while not self._stop.is_set():
                try:
                    self._session(backoff)
                # kafka-python lets errors of its sockets through as OSError or ValueError; SQLite's is a full disk.
                except (KafkaError, DeliveryError, OSError, ValueError, sqlite3.OperationalError) as error:
                    self._metrics.kafka_connected.set(0)
                    self._metrics.send_errors.inc()
                    delay_s = backoff.next_delay_s()
                    self.state = f"away: {_text(error)}"
                    log.warning(
                        "Kafka at %s: %s; %d events wait in the spool, next attempt in %.1f s",
                        ",".join(self._config.bootstrap_servers), _text(error), self._spool.events, delay_s,
                    )  # fmt: skip
                    self._progress.touch(_LOOP, 120)
                    self._stop.wait(delay_s)
        except BaseException as error:
            self.failure = error
            log.exception("delivery ended by an error nobody foresaw")
            raise
        finally:
            self._metrics.kafka_connected.set(0)

    # --- one session

    def _session(self, backoff: Backoff) -> None:
        found = self._reconcile()
        producer = KafkaProducer(
            bootstrap_servers=self._config.bootstrap_servers,
            client_id="crypto-producer",
            acks="all",
            enable_idempotence=True,
            # One request at a time keeps the order of a key also where a request is repeated.
            max_in_flight_requests_per_connection=1,
            linger_ms=self._config.linger_ms,
            batch_size=131_072,
            allow_auto_create_topics=False,
            bootstrap_timeout_ms=10_000,
            max_block_ms=10_000,
            request_timeout_ms=min(30_000, int(self._config.delivery_timeout_s * 500)),
            delivery_timeout_ms=int(self._config.delivery_timeout_s * 1_000),
            reconnect_backoff_max_ms=1_000,
        )
        answers: queue.SimpleQueue[tuple[int, Acknowledgement | BaseException]] = queue.SimpleQueue()
        with self._changed:
            self._window = AckWindow(self._window.settled_seq)
        self._unanswered = 0
        try:
            self._send_loop(producer, answers, found, backoff)
        finally:
            self._metrics.kafka_connected.set(0)
            _close(producer)
            # Once each future is answered, the closed producer's own thread sends nothing more.
            deadline_s = time.monotonic() + 5
            while self._unanswered and time.monotonic() < deadline_s:
                with suppress(queue.Empty, DeliveryError):
                    self._take(answers.get(timeout=0.2))
            self._settle()

    def _send_loop(
        self,
        producer: Any,  # noqa: ANN401  kafka-python has no types
        answers: queue.SimpleQueue[tuple[int, Acknowledgement | BaseException]],
        found: dict[UUID, Acknowledgement],
        backoff: Backoff,
    ) -> None:
        read_seq = self._window.settled_seq
        persisted_s = 0.0
        self._report_answers()
        while not self._stop.is_set():
            self._progress.touch(_LOOP, 120)
            self._wake.clear()
            room = self.window_events - len(self._window)
            events = self._spool.read(read_seq, min(room, _BATCH_EVENTS)) if room > 0 else []
            for event in events:
                read_seq = event.seq
                self._window.sent(event.seq)
                ack = found.pop(event.event_id, None)
                if ack is not None:
                    self._metrics.reconciled.inc()
                    self._window.acknowledged(event.seq, ack)
                    continue
                future = producer.send(self._config.topic, key=event.symbol.encode(), value=event.value)
                self._unanswered += 1
                future.add_callback(self._on_success, answers, event.seq)
                future.add_errback(self._on_error, answers, event.seq)
            taken = self._take_all(answers)
            if taken:
                backoff.connected()
            self._report_answers()
            if time.monotonic() - persisted_s >= _PERSIST_EVERY_S:
                self._settle()
                persisted_s = time.monotonic()
            if not events and not taken:
                # Acknowledgements wake us as new events do.
                self._wake.wait(_PERSIST_EVERY_S if len(self._window) else _IDLE_WAIT_S)
        # Clean end: what was handed over is waited for.
        with suppress(KafkaError):
            producer.flush(timeout=5)
        self._take_all(answers)
        self._settle()

    def _report_answers(self) -> None:
        """Kafka that has gone shows only in what it does not acknowledge: kafka-python keeps trying for long."""
        silent_s = self._window.stalled_s
        if silent_s < _SILENT_AFTER_S:
            if self.state.startswith("silent"):
                log.info("Kafka answers again")
            self._metrics.kafka_connected.set(1)
            self.state = "connected"
            return
        if self.state == "connected":
            log.warning("Kafka at %s does not answer", ",".join(self._config.bootstrap_servers))
        self._metrics.kafka_connected.set(0)
        self.state = f"silent for {silent_s:.0f} s"

    def _on_success(self, answers: queue.SimpleQueue[Any], seq: int, metadata: Any) -> None:  # noqa: ANN401
        answers.put((seq, Acknowledgement(metadata.partition, metadata.offset)))
        self._wake.set()

    def _on_error(self, answers: queue.SimpleQueue[Any], seq: int, error: BaseException) -> None:
        answers.put((seq, error))
        self._wake.set()

    def _take_all(self, answers: queue.SimpleQueue[tuple[int, Acknowledgement | BaseException]]) -> int:
        taken = 0
        with suppress(queue.Empty):
            while True:
                self._take(answers.get_nowait())
                taken += 1
        return taken

    def _take(self, answer: tuple[int, Acknowledgement | BaseException]) -> None:
        seq, outcome = answer
        self._unanswered -= 1
        if isinstance(outcome, BaseException):
            raise DeliveryError(f"an event was not delivered: {_text(outcome)}")
        self._window.acknowledged(seq, outcome)

    def _settle(self) -> None:
        """Make the acknowledged prefix durable, and tell those who wait for it."""
        with self._changed:
            next_offsets = self._window.settle()
            if next_offsets is not None:
                for symbol, count in self._spool.acknowledge(self._window.settled_seq, next_offsets).items():
                    self._metrics.acknowledged.labels(symbol).inc(count)
            self._changed.notify_all()

    # --- reconciliation

    def _reconcile(self) -> dict[UUID, Acknowledgement]:
        """What lies in the topic behind the last acknowledged events: event id -> where it lies."""
        # A client of kafka-python that finds no broker leaves a thread and sockets behind: none is made in vain.
        self._reach_a_broker()
        self.state = "reconciling"
        position = self._spool.kafka_position()
        if position is not None and self._spool.events and position.topic == self._config.topic:
            # A request of a dead session may still be on its way through the broker.
            self._stop.wait(self._config.settle_s)
        topic_id = self._topic_id()
        with closing(
            KafkaConsumer(
                bootstrap_servers=self._config.bootstrap_servers,
                client_id="crypto-producer-reconcile",
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                allow_auto_create_topics=False,
                bootstrap_timeout_ms=10_000,
                request_timeout_ms=15_000,
                max_poll_records=5_000,
            )
        ) as consumer:
            state = self._topic_state(consumer, topic_id)
            if position is None or position.topic != self._config.topic:
                # Nothing of ours can be in a topic we never wrote to.
                self._spool.save_kafka_position(KafkaPosition(self._config.topic, topic_id, dict(state.end_offsets)))
                return {}
            starts = reconcile_from(position, state)
            if position.topic_id != topic_id:
                log.warning("topic %s was recreated; its offsets begin anew", self._config.topic)
                self._spool.save_kafka_position(KafkaPosition(self._config.topic, topic_id, starts))
            if self._spool.events == 0 and self._spool.closed_cleanly:
                return {}
            return self._read_topic(consumer, starts, state.end_offsets)

    def _read_topic(
        self,
        consumer: Any,  # noqa: ANN401
        starts: Mapping[int, int],
        ends: Mapping[int, int],
    ) -> dict[UUID, Acknowledgement]:
        unread = {TopicPartition(self._config.topic, p): end for p, end in ends.items() if starts[p] < end}
        found: dict[UUID, Acknowledgement] = {}
        if not unread:
            return found
        consumer.assign(list(unread))
        for partition in unread:
            consumer.seek(partition, starts[partition.partition])
        records = 0
        deadline_s = time.monotonic() + 60
        while unread and not self._stop.is_set():
            self._progress.touch(_LOOP, 120)
            for partition, batch in consumer.poll(timeout_ms=500).items():
                deadline_s = time.monotonic() + 60
                records += len(batch)
                for record in batch:
                    event_id = event_id_of(record.value)
                    if event_id is not None:
                        found.setdefault(event_id, Acknowledgement(partition.partition, record.offset))
            for partition in [p for p, end in unread.items() if consumer.position(p) >= end]:
                del unread[partition]
            if time.monotonic() > deadline_s:
                raise DeliveryError(f"the topic's end could not be read: {sorted(p.partition for p in unread)}")
        log.info("reconciled with topic %s: read %d records behind the last acknowledged event, %d events wait",
                 self._config.topic, records, self._spool.events)  # fmt: skip
        return found

    def _reach_a_broker(self) -> None:
        problems = []
        for server in self._config.bootstrap_servers:
            host, _, port = server.rpartition(":")
            try:
                with socket.create_connection((host.strip("[]"), int(port)), timeout=5):
                    return
            except OSError as error:
                problems.append(f"{server}: {error.strerror or error}")
        raise DeliveryError(f"no broker can be reached ({'; '.join(problems)})")

    def _topic_id(self) -> str:
        with closing(
            KafkaAdminClient(
                bootstrap_servers=self._config.bootstrap_servers,
                client_id="crypto-producer-admin",
                bootstrap_timeout_ms=10_000,
                request_timeout_ms=15_000,
            )
        ) as admin:
            for topic in admin.describe_topics([self._config.topic]):
                if topic["name"] == self._config.topic and not topic["error_code"]:
                    return str(topic.get("topic_id"))
        raise DeliveryError(f"topic {self._config.topic} does not exist; create it")

    def _topic_state(self, consumer: Any, topic_id: str) -> TopicState:  # noqa: ANN401
        numbers = consumer.partitions_for_topic(self._config.topic)
        if not numbers:
            raise DeliveryError(f"topic {self._config.topic} has no partitions")
        partitions = [TopicPartition(self._config.topic, number) for number in sorted(numbers)]
        begins, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
        return TopicState(
            topic_id,
            tuple(partition.partition for partition in partitions),
            {partition.partition: offset for partition, offset in begins.items()},
            {partition.partition: offset for partition, offset in ends.items()},
        )


def in_flight_limit(config: KafkaConfig, spool_max_events: int) -> int:
    """How many events may be sent and unacknowledged: at most half of what the spool holds."""
    return max(1, min(config.max_in_flight_events, spool_max_events // 2))


def _close(producer: Any) -> None:  # noqa: ANN401
    """Close a client of kafka-python for good: nothing it still holds is sent later."""
    try:
        producer.close(timeout=1)
    except KafkaError:
        # Its flush has run out of time, and close() ends there: the sender's thread goes on, and would send what the
        # next session sends as well, once Kafka is back.
        producer._sender.force_close()  # noqa: SLF001 - close() offers no way to drop what is left
        producer._sender.join(5)  # noqa: SLF001
        with suppress(KafkaError):
            producer.close(timeout=1)


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
