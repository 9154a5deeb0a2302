"""The durable queue between source and Kafka, and the ledger of what went through it.

SQLite in WAL mode: events, counters, the source's cursors and Kafka offsets change in one transaction, so that no
crash can tell them apart. A transaction torn by a crash fails its checksum and is cut when the database is opened.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from uuid import UUID

from crypto_producer.event import Event

DATABASE_NAME = "spool.sqlite"
# Giving pages back in one transaction would first write as much into the WAL as is freed.
_VACUUM_PAGES = 1_000
_VACUUM_WITHIN_S = 5.0
_FORMAT = 1
_SCHEMA = """
CREATE TABLE event (seq INTEGER PRIMARY KEY, event_id BLOB NOT NULL, symbol TEXT NOT NULL, value BLOB NOT NULL);
CREATE TABLE ledger (
    symbol       TEXT PRIMARY KEY,
    accepted     INTEGER NOT NULL DEFAULT 0,
    acknowledged INTEGER NOT NULL DEFAULT 0,
    dropped      INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE cursor (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE kafka_offset (partition INTEGER PRIMARY KEY, next_offset INTEGER NOT NULL);
CREATE TABLE state (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
"""


class SpoolError(Exception):
    """The spool cannot be used; the text says why and what to do."""


class SpoolFullError(Exception):
    """The bound of the spool (or of the disk) is reached: nothing was stored."""


@dataclass(frozen=True, slots=True)
class SpooledEvent:
    """An event that waits to be acknowledged; `seq` rises by one with each event accepted."""

    seq: int
    event_id: UUID
    symbol: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of distinct events; accepted = acknowledged + dropped + pending."""

    accepted: int = 0
    acknowledged: int = 0
    dropped: int = 0

    @property
    def pending(self) -> int:
        """Accepted, but neither acknowledged nor dropped yet."""
        return self.accepted - self.acknowledged - self.dropped


@dataclass(frozen=True, slots=True)
class Ledger:
    """The durable counts since the spool was created (`created_at_ms`, epoch ms)."""

    created_at_ms: int
    by_symbol: Mapping[str, Counts]

    @property
    def total(self) -> Counts:
        """The sums over all symbols."""
        counts = self.by_symbol.values()
        return Counts(
            sum(count.accepted for count in counts),
            sum(count.acknowledged for count in counts),
            sum(count.dropped for count in counts),
        )


@dataclass(frozen=True, slots=True)
class KafkaPosition:
    """The topic as last seen: its name, its id, and per partition the offset behind the last acknowledged event."""

    topic: str
    topic_id: str
    next_offsets: Mapping[int, int]


class Spool:
    """A bounded, durable FIFO of events. All methods are thread-safe.

    `protected_events` of the oldest events are never dropped: they may have been sent already.
    Raises SpoolError when another process uses the directory or its content is damaged.
    """

    def __init__(
        self,
        directory: Path,
        *,
        max_events: int,
        max_bytes: int,
        durability: str = "power",
        protected_events: int = 0,
    ) -> None:
        self.max_events = max_events
        self.max_bytes = max_bytes
        self._protected_events = protected_events
        self.events: int = 0
        self.bytes: int = 0
        self._lock = threading.RLock()
        self._room = threading.Condition(self._lock)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock_file = _lock(directory / "lock")
        except OSError as error:
            raise SpoolError(f"{directory}: cannot be used as spool: {error.strerror}") from error
        try:
            self._db = self._open(directory / DATABASE_NAME, durability)
        except BaseException:
            self._lock_file.close()
            raise

    def _open(self, path: Path, durability: str) -> sqlite3.Connection:
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
        try:
            # Before the first table exists: later this setting would need a rewrite of the file.
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            db.execute("PRAGMA journal_mode = WAL")
            # FULL syncs at each commit and survives a power cut; NORMAL survives the death of the process.
            db.execute(f"PRAGMA synchronous = {'FULL' if durability == 'power' else 'NORMAL'}")
            tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if tables == 0:
                with _transaction(db):
                    for statement in _SCHEMA.split(";\n"):
                        db.execute(statement)
                    db.executemany(
                        "INSERT INTO state VALUES (?, ?)",
                        [("format", _FORMAT), ("created_at_ms", time.time_ns() // 1_000_000), ("clean", 1)],
                    )
            state = dict(db.execute("SELECT key, value FROM state"))
            if state.get("format") != _FORMAT:
                raise SpoolError(f"{path}: has format {state.get('format')}, this version reads {_FORMAT}")
            self.closed_cleanly = bool(state["clean"])
            if not self.closed_cleanly:
                found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
                if found != "ok":
                    raise SpoolError(f"{path}: is damaged ({found}); keep a copy and remove the spool directory")
            self.created_at_ms = int(state["created_at_ms"])
            self._next_seq = int(state.get("next_seq", 1))
            self.events, self.bytes = db.execute(
                "SELECT count(*), coalesce(sum(length(value)), 0) FROM event"
            ).fetchone()
            self._counts = {
                symbol: Counts(accepted, acknowledged, dropped)
                for symbol, accepted, acknowledged, dropped in db.execute("SELECT * FROM ledger")
            }
            db.execute("UPDATE state SET value = 0 WHERE key = 'clean'")
        except sqlite3.DatabaseError as error:
            db.close()
            raise SpoolError(f"{path}: is no usable spool ({error}); keep a copy and remove it") from error
        except BaseException:
            db.close()
            raise
        return db

    def __enter__(self) -> Self:
        """Closed at the end of the `with`."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close the spool; what is pending stays. The file shrinks to that, as far as a few seconds suffice."""
        with self._lock:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("UPDATE state SET value = 1 WHERE key = 'clean'")
                self._shrink()
            self._db.close()
            self._lock_file.close()

    def _shrink(self) -> None:
        deadline_s = time.monotonic() + _VACUUM_WITHIN_S
        free, before = self._free_pages(), math.inf
        while 0 < free < before and time.monotonic() < deadline_s:
            # Each step of this statement frees one page, and execute() takes the first step only.
            self._db.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")
            free, before = self._free_pages(), free

    def _free_pages(self) -> int:
        return int(self._db.execute("PRAGMA freelist_count").fetchone()[0])

    # --- the source's side

    def append(self, events: Sequence[Event]) -> int:
        """Store as many of `events` as there is room for, with their cursors: how many, from the first on.

        Raises SpoolFullError when there is room for none.
        """
        with self._lock:
            fitting, size_bytes = 0, 0
            for event in events:
                if (
                    self.events + fitting >= self.max_events
                    or self.bytes + size_bytes + len(event.value) > self.max_bytes
                ):
                    break
                fitting += 1
                size_bytes += len(event.value)
            if fitting == 0 and events:
                raise SpoolFullError(f"the spool holds {self.events} events, {self.bytes} bytes")
            stored = events[:fitting]
            first = self._next_seq
            counts = dict(self._counts)
            cursors: dict[str, int] = {}
            for event in stored:
                before = counts.get(event.symbol, Counts())
                counts[event.symbol] = Counts(before.accepted + 1, before.acknowledged, before.dropped)
                if event.cursor is not None:
                    cursors[event.cursor.key] = event.cursor.value
            try:
                with _transaction(self._db):
                    self._db.executemany(
                        "INSERT INTO event VALUES (?, ?, ?, ?)",
                        (
                            (seq, event.event_id.bytes, event.symbol, event.value)
                            for seq, event in enumerate(stored, start=first)
                        ),
                    )
                    self._save_counts(counts)
                    self._db.executemany(
                        "INSERT INTO cursor VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
                        cursors.items(),
                    )
                    self._save_state("next_seq", first + fitting)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                    raise SpoolFullError("the disk is full") from error
                raise
            self._next_seq = first + fitting
            self.events += fitting
            self.bytes += size_bytes
            self._counts = counts
            return fitting

    @property
    def next_seq(self) -> int:
        """The `seq` the next event accepted will have."""
        return self._next_seq

    def drop_oldest(self, count: int) -> int:
        """Drop up to `count` of the oldest events that cannot have been sent yet: how many were dropped."""
        with self._lock:
            border = self._db.execute(
                "SELECT seq FROM event ORDER BY seq LIMIT 1 OFFSET ?", (self._protected_events,)
            ).fetchone()
            if border is None:
                return 0
            rows = self._db.execute(
                "SELECT seq, symbol, length(value) FROM event WHERE seq >= ? ORDER BY seq LIMIT ?", (border[0], count)
            ).fetchall()
            counts = dict(self._counts)
            for _, symbol, _ in rows:
                before = counts[symbol]
                counts[symbol] = Counts(before.accepted, before.acknowledged, before.dropped + 1)
            with _transaction(self._db):
                self._db.execute("DELETE FROM event WHERE seq BETWEEN ? AND ?", (rows[0][0], rows[-1][0]))
                self._save_counts(counts)
            self._counts = counts
            self.events -= len(rows)
            self.bytes -= sum(size for _, _, size in rows)
            return len(rows)

    def wait_for_room(self, timeout_s: float) -> None:
        """Return when an acknowledgement made room, or after `timeout_s`."""
        with self._room:
            self._room.wait(timeout_s)

    def cursor(self, key: str) -> int | None:
        """How far the source `key` has been read; None: not at all."""
        with self._lock:
            row = self._db.execute("SELECT value FROM cursor WHERE key = ?", (key,)).fetchone()
        return None if row is None else int(row[0])

    # --- the sender's side

    def read(self, after_seq: int, limit: int) -> list[SpooledEvent]:
        """Up to `limit` pending events behind `after_seq`, ascending."""
        with self._lock:
            rows = self._db.execute(
                "SELECT seq, event_id, symbol, value FROM event WHERE seq > ? ORDER BY seq LIMIT ?", (after_seq, limit)
            ).fetchall()
        return [SpooledEvent(seq, UUID(bytes=event_id), symbol, value) for seq, event_id, symbol, value in rows]

    def acknowledge(self, through_seq: int, next_offsets: Mapping[int, int]) -> dict[str, int]:
        """All pending events up to `through_seq` are in the topic, before `next_offsets` of their partitions.

        Returns how many these are, by symbol.
        """
        with self._room:
            rows = self._db.execute(
                "SELECT symbol, count(*), sum(length(value)) FROM event WHERE seq <= ? GROUP BY symbol", (through_seq,)
            ).fetchall()
            counts = dict(self._counts)
            for symbol, count, _ in rows:
                before = counts[symbol]
                counts[symbol] = Counts(before.accepted, before.acknowledged + count, before.dropped)
            with _transaction(self._db):
                self._db.execute("DELETE FROM event WHERE seq <= ?", (through_seq,))
                self._save_counts(counts)
                self._save_offsets(next_offsets)
            self._counts = counts
            self.events -= sum(count for _, count, _ in rows)
            self.bytes -= sum(size for _, _, size in rows)
            self._room.notify_all()
            return {symbol: count for symbol, count, _ in rows}

    def kafka_position(self) -> KafkaPosition | None:
        """Where the topic stood; None: nothing was ever sent."""
        with self._lock:
            state = dict(self._db.execute("SELECT key, value FROM state WHERE key IN ('topic', 'topic_id')"))
            offsets = dict(self._db.execute("SELECT partition, next_offset FROM kafka_offset"))
        return KafkaPosition(state["topic"], state["topic_id"], offsets) if "topic" in state else None

    def save_kafka_position(self, position: KafkaPosition) -> None:
        """Replace the position, before the first event is sent to that topic."""
        with self._lock, _transaction(self._db):
            self._save_state("topic", position.topic)
            self._save_state("topic_id", position.topic_id)
            self._db.execute("DELETE FROM kafka_offset")
            self._save_offsets(position.next_offsets)

    def ledger(self) -> Ledger:
        """The counts as of now."""
        with self._lock:
            return Ledger(self.created_at_ms, dict(sorted(self._counts.items())))

    def _save_counts(self, counts: Mapping[str, Counts]) -> None:
        self._db.executemany(
            "INSERT OR REPLACE INTO ledger VALUES (?, ?, ?, ?)",
            [
                (symbol, count.accepted, count.acknowledged, count.dropped)
                for symbol, count in counts.items()
                if self._counts.get(symbol) != count
            ],
        )

    def _save_offsets(self, next_offsets: Mapping[int, int]) -> None:
        self._db.executemany("INSERT OR REPLACE INTO kafka_offset VALUES (?, ?)", next_offsets.items())

    def _save_state(self, key: str, value: object) -> None:
        self._db.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (key, value))


def read_ledger(directory: Path) -> Ledger:
    """The ledger of a spool that a producer may be using right now.

    Raises SpoolError where there is none that can be read.
    """
    path = directory / DATABASE_NAME
    if not path.exists():
        raise SpoolError(f"{path}: there is no spool yet; it is created by `crypto-producer run`")
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as db:
            db.execute("BEGIN")
            created_at_ms = db.execute("SELECT value FROM state WHERE key = 'created_at_ms'").fetchone()[0]
            rows = db.execute("SELECT symbol, accepted, acknowledged, dropped FROM ledger ORDER BY symbol").fetchall()
    except sqlite3.Error as error:
        raise SpoolError(f"{path}: cannot be read: {error}; run this as the producer's user or as root") from error
    return Ledger(int(created_at_ms), {symbol: Counts(*numbers) for symbol, *numbers in rows})


def reset_spool(directory: Path, *, keep_pending: bool) -> Ledger | None:
    """Begin the ledger anew and return the one of before; None where there was none that can be read.

    With `keep_pending` the events that wait stay, and are all that the new ledger counts; so do the cursors and
    the position in the topic, by which the next producer finds out whether the topic is still the same. Without it,
    nothing stays.

    Raises SpoolError while a producer uses the spool, and where the events that are to stay cannot be read.
    """
    path = directory / DATABASE_NAME
    if not path.exists():
        return None
    with contextlib.closing(_lock(directory / "lock")):
        if not keep_pending:
            before = None
            with contextlib.suppress(SpoolError):
                before = read_ledger(directory)
            for suffix in ("-wal", "-shm", ""):
                path.with_name(DATABASE_NAME + suffix).unlink(missing_ok=True)
            return before
        before = read_ledger(directory)
        try:
            with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as db, _transaction(db):
                db.execute("DELETE FROM ledger")
                db.execute("INSERT INTO ledger SELECT symbol, count(*), 0, 0 FROM event GROUP BY symbol")
                db.execute("UPDATE state SET value = ? WHERE key = 'created_at_ms'", (time.time_ns() // 1_000_000,))
        except sqlite3.Error as error:
            raise SpoolError(f"{path}: cannot be changed: {error}") from error
        return before


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # Some errors (a full disk) have rolled back already.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _lock(path: Path) -> IO[str]:
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise SpoolError(
            f"{path.parent}: another producer uses this spool; stop it, or give this one its own"
        ) from None
    return file
