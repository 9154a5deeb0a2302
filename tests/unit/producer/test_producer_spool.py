"""The spool: order, bounds, ledger, and what a crash may do to its files."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import threading
from pathlib import Path
from uuid import UUID

import pytest
from crypto_producer import spool as spool_module
from crypto_producer.event import Cursor, Event
from crypto_producer.metrics import Metrics
from crypto_producer.sources.base import Intake, StoppedError
from crypto_producer.spool import (
    DATABASE_NAME,
    Counts,
    KafkaPosition,
    Spool,
    SpoolError,
    SpoolFullError,
    read_ledger,
    reset_spool,
)
from hypothesis import given, settings
from hypothesis import strategies as st

SYMBOLS = ("BTC-USD", "ETH-USD")


def event(number: int, size_bytes: int = 100) -> Event:
    return Event(UUID(int=number), SYMBOLS[number % 2], b"x" * size_bytes, Cursor("source", number))


def events(first: int, count: int) -> list[Event]:
    return [event(number) for number in range(first, first + count)]


def open_spool(directory: Path, **options: int) -> Spool:
    bounds = {"max_events": 1_000, "max_bytes": 1_000_000, **options}
    return Spool(directory, durability="process", **bounds)


def test_first_in_first_out_over_a_restart(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        spool.append(events(1, 5))
        spool.acknowledge(2, {0: 7})
    with open_spool(tmp_path) as spool:
        assert spool.closed_cleanly
        assert [(one.seq, one.event_id.int, one.symbol) for one in spool.read(0, 10)] == [
            (3, 3, "ETH-USD"),
            (4, 4, "BTC-USD"),
            (5, 5, "ETH-USD"),
        ]
        assert (spool.events, spool.bytes) == (3, 300)
        spool.append(events(6, 1))
        assert [one.seq for one in spool.read(4, 10)] == [5, 6]


def test_seq_is_never_used_again(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        spool.append(events(1, 3))
        spool.acknowledge(3, {})
    with open_spool(tmp_path) as spool:
        spool.append(events(4, 1))
        assert [one.seq for one in spool.read(0, 10)] == [4]


def test_ledger_counts_per_symbol_and_for_ever(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        spool.append(events(1, 5))
        spool.acknowledge(3, {})
    with open_spool(tmp_path) as spool:
        ledger = spool.ledger()
    assert ledger.by_symbol == {"BTC-USD": Counts(2, 1, 0), "ETH-USD": Counts(3, 2, 0)}
    assert ledger.total == Counts(5, 3, 0)
    assert ledger.total.pending == 2
    assert read_ledger(tmp_path) == ledger


def test_ledger_can_be_read_while_a_producer_writes(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        spool.append(events(1, 5))
        assert read_ledger(tmp_path).total == Counts(5, 0, 0)


def test_an_acknowledgement_says_how_many_of_which_symbol(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        spool.append(events(1, 5))
        assert spool.acknowledge(3, {}) == {"BTC-USD": 1, "ETH-USD": 2}
        assert spool.acknowledge(3, {}) == {}


def test_the_file_shrinks_to_what_is_pending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Several rounds, and the last one not a whole one.
    monkeypatch.setattr(spool_module, "_VACUUM_PAGES", 100, raising=False)
    file = tmp_path / DATABASE_NAME
    open_spool(tmp_path).close()
    empty_bytes = file.stat().st_size
    with open_spool(tmp_path, max_events=10_000, max_bytes=10_000_000) as spool:
        spool.append(events(1, 5_000))
        spool.acknowledge(4_990, {})
    # What lay behind the freed pages has moved, and is all there.
    assert file.stat().st_size <= empty_bytes + 2 * 4_096
    with open_spool(tmp_path) as spool:
        assert spool.closed_cleanly
        assert [one.seq for one in spool.read(0, 100)] == list(range(4_991, 5_001))
        assert spool.ledger().total == Counts(5_000, 4_990, 0)
        assert spool._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_shrinking_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "_VACUUM_WITHIN_S", 0.0, raising=False)
    with open_spool(tmp_path, max_events=10_000, max_bytes=10_000_000) as spool:
        spool.append(events(1, 5_000))
        spool.acknowledge(5_000, {})
    assert (tmp_path / DATABASE_NAME).stat().st_size > 500_000
    with open_spool(tmp_path) as spool:
        assert spool.closed_cleanly


def test_kafka_position_and_cursor_are_durable(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        assert spool.kafka_position() is None
        assert spool.cursor("source") is None
        spool.save_kafka_position(KafkaPosition("t", "id", {0: 5, 1: 6}))
        spool.append(events(1, 3))
        spool.acknowledge(2, {1: 9})
    with open_spool(tmp_path) as spool:
        assert spool.kafka_position() == KafkaPosition("t", "id", {0: 5, 1: 9})
        assert spool.cursor("source") == 3


def test_one_producer_per_spool(tmp_path: Path) -> None:
    with open_spool(tmp_path), pytest.raises(SpoolError, match="another producer"):
        open_spool(tmp_path)
    open_spool(tmp_path).close()


def test_bounds_hold_for_events_and_bytes(tmp_path: Path) -> None:
    with open_spool(tmp_path / "events", max_events=10) as spool:
        assert spool.append(events(1, 7)) == 7
        assert spool.append(events(8, 7)) == 3
        assert spool.cursor("source") == 10
        with pytest.raises(SpoolFullError):
            spool.append(events(11, 1))
        spool.acknowledge(1, {})
        assert spool.append(events(11, 2)) == 1
    with open_spool(tmp_path / "bytes", max_bytes=250) as spool:
        assert spool.append(events(1, 7)) == 2


def test_dropping_spares_what_may_have_been_sent(tmp_path: Path) -> None:
    with open_spool(tmp_path, protected_events=3) as spool:
        spool.append(events(1, 6))
        assert spool.drop_oldest(2) == 2
        assert [one.seq for one in spool.read(0, 10)] == [1, 2, 3, 6]
        assert spool.drop_oldest(5) == 1
        assert spool.drop_oldest(5) == 0
        total = spool.ledger().total
        assert (total.accepted, total.acknowledged, total.dropped, total.pending) == (6, 0, 3, 3)
        assert (spool.events, spool.bytes) == (3, 300)


def intake(spool: Spool, when_full: str, stop: threading.Event) -> Intake:
    return Intake(
        spool, Metrics(), source="test", when_full=when_full, on_append=lambda: None, touch=lambda: None, stop=stop
    )


def test_block_waits_for_room_and_loses_nothing(tmp_path: Path) -> None:
    with open_spool(tmp_path, max_events=10) as spool:
        gate = intake(spool, "block", threading.Event())
        writer = threading.Thread(target=gate.accept, args=(events(1, 25),))
        writer.start()
        seen: list[int] = []
        for _ in range(200):
            batch = spool.read(seen[-1] if seen else 0, 5)
            seen += [one.seq for one in batch]
            if batch:
                spool.acknowledge(batch[-1].seq, {})
            if len(seen) == 25:
                break
            spool.wait_for_room(0.05)
        writer.join(10)
        assert not writer.is_alive()
        assert seen == list(range(1, 26))
        assert not gate.full or spool.events == 0


def test_block_ends_with_the_producer_and_the_cursor_stays_behind(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with open_spool(tmp_path, max_events=10) as spool:
        with pytest.raises(StoppedError):
            intake(spool, "block", stop).accept(events(1, 12))
        assert spool.ledger().total == Counts(10, 0, 0)
        assert spool.cursor("source") == 10


def test_drop_oldest_counts_what_it_drops(tmp_path: Path) -> None:
    with open_spool(tmp_path, max_events=100, protected_events=50) as spool:
        gate = intake(spool, "drop_oldest", threading.Event())
        gate.accept(events(1, 130))
        total = spool.ledger().total
        assert total.accepted == 130
        assert total.dropped >= 30
        assert total.pending == spool.events <= 100
        kept = [one.seq for one in spool.read(0, 1_000)]
        assert kept[:50] == list(range(1, 51))
        assert kept[-1] == 130


def crash(source: Path, target: Path) -> None:
    """The files as a killed process leaves them: no checkpoint, no clean mark, and a new machine's memory."""
    target.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(source / f"{DATABASE_NAME}{suffix}", target / f"{DATABASE_NAME}{suffix}")


def check_prefix(spool: Spool, batches: list[int], acknowledge_each: int) -> None:
    """The spool is as it was after some whole number of transactions."""
    total = spool.ledger().total
    borders = {0}
    for batch in batches:
        borders.add(max(borders) + batch)
    assert total.accepted in borders
    pending = spool.read(0, 10_000)
    assert [one.seq for one in pending] == list(range(total.acknowledged + 1, total.accepted + 1))
    assert [one.event_id.int for one in pending] == [one.seq for one in pending]
    assert spool.cursor("source") == (total.accepted or None)
    assert spool.next_seq == total.accepted + 1
    position = spool.kafka_position()
    assert position is not None
    assert position.next_offsets == {0: total.acknowledged}
    assert total.acknowledged % acknowledge_each == 0


@settings(max_examples=60, deadline=None)
@given(
    batches=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    cut=st.floats(0, 1),
    damage=st.sampled_from(["truncate", "zero the rest", "flip one byte", "garbage at the end"]),
)
def test_a_torn_end_is_cut_to_whole_transactions(batches: list[int], cut: float, damage: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        live, torn = Path(folder) / "live", Path(folder) / "torn"
        with open_spool(live, max_events=10_000) as spool:
            spool.save_kafka_position(KafkaPosition("t", "id", {0: 0}))
            # Into the main file, as time would: the torn part is what came after.
            with sqlite3.connect(live / DATABASE_NAME) as checkpointer:
                checkpointer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            checkpointer.close()
            number, acknowledged = 1, 0
            for batch in batches:
                spool.append(events(number, batch))
                number += batch
                if number - 1 >= acknowledged + 10:
                    acknowledged += 10
                    spool.acknowledge(acknowledged, {0: acknowledged})
            crash(live, torn)
        wal = torn / f"{DATABASE_NAME}-wal"
        content = bytearray(wal.read_bytes())
        position = min(int(len(content) * cut), len(content) - 1)
        if damage == "truncate":
            del content[position:]
        elif damage == "zero the rest":
            content[position:] = bytes(len(content) - position)
        elif damage == "flip one byte":
            content[position] ^= 0xFF
        else:
            content += b"garbage" * 40
        wal.write_bytes(content)
        with open_spool(torn, max_events=10_000) as spool:
            assert not spool.closed_cleanly
            check_prefix(spool, batches, 10)
            before = spool.ledger().total.accepted
            spool.append(events(before + 1, 3))
            assert spool.ledger().total.accepted == before + 3


def test_whole_files_after_a_crash_lose_nothing(tmp_path: Path) -> None:
    with open_spool(tmp_path / "live") as spool:
        spool.append(events(1, 50))
        spool.acknowledge(20, {})
        crash(tmp_path / "live", tmp_path / "crashed")
    with open_spool(tmp_path / "crashed") as spool:
        assert not spool.closed_cleanly
        assert spool.ledger().total == Counts(50, 20, 0)
        assert [one.seq for one in spool.read(0, 100)] == list(range(21, 51))


def test_a_damaged_file_is_refused_readably(tmp_path: Path) -> None:
    (tmp_path / DATABASE_NAME).write_bytes(b"no database at all" * 100)
    with pytest.raises(SpoolError, match="no usable spool"):
        open_spool(tmp_path)


def test_another_format_is_refused(tmp_path: Path) -> None:
    open_spool(tmp_path).close()
    with sqlite3.connect(tmp_path / DATABASE_NAME) as db:
        db.execute("UPDATE state SET value = 99 WHERE key = 'format'")
    db.close()
    with pytest.raises(SpoolError, match="format 99"):
        open_spool(tmp_path)


def test_reset_counts_only_what_waits(tmp_path: Path) -> None:
    position = KafkaPosition("t", "id", {0: 7})
    with open_spool(tmp_path) as spool:
        spool.append(events(1, 5))
        spool.save_kafka_position(position)
        spool.acknowledge(2, {0: 7})
        with pytest.raises(SpoolError, match="another producer uses this spool"):
            reset_spool(tmp_path, keep_pending=True)
    before = reset_spool(tmp_path, keep_pending=True)
    assert before is not None
    assert (before.total.acknowledged, before.total.pending) == (2, 3)
    # Run again after an interruption: nothing more happens.
    reset_spool(tmp_path, keep_pending=True)
    with open_spool(tmp_path) as spool:
        assert dict(spool.ledger().by_symbol) == {"BTC-USD": Counts(1, 0, 0), "ETH-USD": Counts(2, 0, 0)}
        assert [one.seq for one in spool.read(0, 10)] == [3, 4, 5]
        assert (spool.cursor("source"), spool.kafka_position()) == (5, position)
        spool.acknowledge(5, {0: 3})
        assert spool.ledger().total == Counts(3, 3, 0)


def test_reset_leaves_nothing(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        spool.append(events(1, 5))
        spool.acknowledge(2, {0: 7})
        with pytest.raises(SpoolError, match="another producer uses this spool"):
            reset_spool(tmp_path, keep_pending=False)
    before = reset_spool(tmp_path, keep_pending=False)
    assert before is not None
    assert before.total == Counts(5, 2, 0)
    assert reset_spool(tmp_path, keep_pending=False) is None
    with open_spool(tmp_path) as spool:
        assert (spool.events, spool.ledger().total, spool.cursor("source")) == (0, Counts(), None)


def test_reset_cures_a_damaged_spool_only_when_nothing_is_to_stay(tmp_path: Path) -> None:
    (tmp_path / DATABASE_NAME).write_bytes(b"no database, and long enough not to look like an empty one" * 20)
    with pytest.raises(SpoolError, match="cannot be read"):
        reset_spool(tmp_path, keep_pending=True)
    assert reset_spool(tmp_path, keep_pending=False) is None
    with open_spool(tmp_path) as spool:
        assert spool.events == 0
