"""Offsets, starvation, the checkpoint's topic, tables for the log, messages to systemd."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from crypto_spark.notify import Notifier
from crypto_spark.progress import StarvationWatch, lag, parse_offsets
from crypto_spark.show import format_table
from crypto_spark.topic import OperatorNeededError, Topic, check_topic, is_data_loss
from hypothesis import given
from hypothesis import strategies as st

offsets = st.dictionaries(st.integers(0, 50), st.integers(0, 2**60), max_size=10)


@given(offsets)
def test_offsets_round_trip(expected: dict[int, int]) -> None:
    text = json.dumps({"crypto_prices": {str(p): o for p, o in expected.items()}, "other": {"0": 1}})
    assert parse_offsets(text, "crypto_prices") == expected


@pytest.mark.parametrize("text", [None, "", "null", "-", "[]", "{}", '{"other": {"0": 1}}', '{"crypto_prices": null}'])
def test_no_offsets(text: str | None) -> None:
    assert parse_offsets(text, "crypto_prices") == {}


@given(offsets, offsets)
def test_lag_is_never_negative_and_counts_every_partition(end: dict[int, int], latest: dict[int, int]) -> None:
    behind = lag(end, latest)
    assert behind.keys() == latest.keys()
    for partition, rows in behind.items():
        assert rows >= 0
        assert end.get(partition, 0) + rows >= latest[partition]


def test_starvation() -> None:
    watch = StarvationWatch()
    # Nothing is known about the time before the first batch.
    assert watch.update({0: 0, 1: 0}, {0: 5, 1: 0}, {0: 5, 1: 7}) == []
    # Partition 1 had 7 records all the time and stood still; partition 0 had nothing to read.
    assert watch.update({0: 5, 1: 0}, {0: 5, 1: 0}, {0: 9, 1: 7}) == [1]
    # What came during a batch may wait for the next one.
    assert watch.update({0: 5, 1: 0}, {0: 9, 1: 7}, {0: 9, 1: 8}) == []
    assert watch.update({0: 9, 1: 7}, {0: 9, 1: 8}, {0: 9, 1: 8}) == []


def test_checkpoint_of_another_topic(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "checkpoints"
    topic = Topic("crypto_prices", "id-1", 3)
    check_topic(directory, topic)
    check_topic(directory, topic)
    with pytest.raises(OperatorNeededError, match=f"id-1.*id-2.*recreated.*move {directory} away"):
        check_topic(directory, Topic("crypto_prices", "id-2", 3))
    with pytest.raises(OperatorNeededError, match="another one is configured"):
        check_topic(directory, Topic("other", "id-1", 3))


def test_data_loss_is_told_from_other_errors() -> None:
    assert is_data_loss("Partition crypto_prices-0's offset was changed from 100 to 5, some data may have been missed.")
    assert not is_data_loss("FATAL: terminating connection due to administrator command")


def test_table_as_spark_shows_it() -> None:
    assert format_table(("symbol", "price"), [("BTC-USD", 86769.94), ("DOGE-USD", 0.1)], more=True) == (
        "+--------+--------+\n"
        "|symbol  |price   |\n"
        "+--------+--------+\n"
        "|BTC-USD |86769.94|\n"
        "|DOGE-USD|0.1     |\n"
        "+--------+--------+\n"
        "only showing top 2 rows"
    )
    assert format_table(("a", "b"), []) == "+---+---+\n|a  |b  |\n+---+---+\n+---+---+"


def test_notify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        server.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        Notifier().send(READY="1", STATUS="both queries run")
        assert server.recv(1000) == b"READY=1\nSTATUS=both queries run"
    # Neither without a socket nor without a listener does it fail.
    Notifier().send(READY="1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    Notifier().send(READY="1")
