"""Which messages a page asks for; bytes as a person reads them; lag."""

from __future__ import annotations

import json

import pytest
from crypto_kafka_ui.decode import decode, laid_out
from crypto_kafka_ui.query import Query, QueryError, choose, parse, windows
from crypto_kafka_ui.readings import GroupPartition, Text
from fake_kafka import CLUSTER, NOW_MS, TOPIC, message
from hypothesis import given
from hypothesis import strategies as st

PRICES = next(topic for topic in CLUSTER.topics if topic.name == TOPIC)


def test_nothing_asked_for_is_the_newest_of_all() -> None:
    assert parse({"partition": "", "offset": " "}, PRICES, 50, 200) == Query(50)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"at": "middle"}, "messages are shown from newest, oldest, offset, time"),
        ({"partition": "9"}, "crypto_prices has no partition 9"),
        ({"partition": "-1"}, "is no number that Kafka knows"),
        ({"count": "0"}, "one page shows 1 to 200 messages"),
        ({"count": "201"}, "one page shows 1 to 200 messages"),
        ({"at": "offset"}, "at=offset needs an offset"),
        ({"at": "offset", "offset": "9" * 30}, "is no number that Kafka knows"),
        ({"at": "offset", "offset": "²"}, "is no number that Kafka knows"),
        ({"at": "time", "time": "noon"}, "at=time needs a time in UTC"),
        ({"at": "time"}, "at=time needs a time in UTC"),
        ({"at": "time", "time": "1969-12-31T23:59:59.999"}, "at=time needs a time in UTC"),
        ({"at": "time", "time": "0001-01-01"}, "at=time needs a time in UTC"),
        ({"at": "time", "time": "2026-11-26T09:30+07:00"}, "at=time needs a time in UTC"),
    ],
)
def test_wrong_addresses_are_refused_in_words(parameters: dict[str, str], words: str) -> None:
    with pytest.raises(QueryError, match=words):
        parse(parameters, PRICES, 50, 200)


@pytest.mark.parametrize(
    ("parameters", "wanted"),
    [
        # Partition 2 has no leader, and so no offsets.
        ({}, {0: (450, 500), 1: (0, 0)}),
        ({"partition": "0", "at": "oldest", "count": "7"}, {0: (100, 107)}),
        ({"partition": "0", "at": "offset", "offset": "495"}, {0: (495, 500)}),
        # Offsets that retention has taken, or that are still to come.
        ({"partition": "0", "at": "offset", "offset": "3", "count": "1"}, {0: (100, 101)}),
        ({"partition": "0", "at": "offset", "offset": "900"}, {0: (500, 500)}),
        ({"at": "time", "time": "2026-11-26T01:04:25", "count": "2"}, {0: (100, 102), 1: (0, 0)}),
    ],
)
def test_windows(parameters: dict[str, str], wanted: dict[int, tuple[int, int]]) -> None:
    query = parse(parameters, PRICES, 50, 200)
    assert windows(PRICES, query, {0: 100, 1: None}) == wanted


def test_times_are_utc() -> None:
    query = parse({"at": "time", "time": "2026-11-26T01:04:25"}, PRICES, 50, 200)
    assert query.time_ms == NOW_MS // 1000 * 1000
    assert query.parameters()["time"] == "2026-11-26T01:04:25"
    assert parse(query.parameters(), PRICES, 50, 200) == query


def test_newest_come_first_and_no_more_than_asked_for() -> None:
    read = [message(partition, offset) for partition in (0, 1) for offset in (1, 2, 3)]
    newest = choose(read, Query(4))
    assert [(entry.offset, entry.partition) for entry in newest] == [(3, 1), (3, 0), (2, 1), (2, 0)]
    oldest = choose(read, Query(2, at="oldest"))
    assert [(entry.offset, entry.partition) for entry in oldest] == [(1, 0), (1, 1)]


def test_one_partition_is_shown_in_its_own_order() -> None:
    """Times of a partition may go back, offsets do not."""
    read = [message(0, offset) for offset in (5, 6)]
    late = [read[0], type(read[1])(0, 6, 1, "producer", read[1].key, read[1].value)]
    assert [entry.offset for entry in choose(late, Query(9, partition=0))] == [6, 5]
    assert [entry.offset for entry in choose(late, Query(9))] == [5, 6]


@given(st.binary(max_size=300), st.integers(1, 400))
def test_any_bytes_are_shown_within_the_limit(data: bytes, limit: int) -> None:
    found = decode(data, limit)
    assert found.size == len(data)
    if found.form == "bytes":
        assert data.startswith(bytes.fromhex(found.text))
        assert len(found.text) <= max(limit, 2)
        assert found.cut == (len(bytes.fromhex(found.text)) < len(data))
    else:
        assert data.startswith(found.text.encode())
        assert len(found.text.encode()) <= limit
        assert found.cut == (len(data) > limit)


@pytest.mark.parametrize(
    ("data", "limit", "found"),
    [
        (None, 6, Text("null", "null", 0)),
        (b"", 6, Text("", "text", 0)),
        (b"\x00\xff", 6, Text("00 ff", "bytes", 2)),
        (b'{"a": 1.10}', 11, Text('{"a": 1.10}', "json", 11)),
        (b'{"a": 1.10}', 10, Text('{"a": 1.10', "text", 11, cut=True)),
        (b'{"a": ', 6, Text('{"a": ', "text", 6)),
        # The cut goes through a character.
        ("aéaé".encode(), 5, Text("aéa", "text", 6, cut=True)),
        # Would turn the line around that it is shown in.
        ("\u202eabc".encode(), 6, Text("e2 80", "bytes", 6, cut=True)),
    ],
)
def test_forms(data: bytes | None, limit: int, found: Text) -> None:
    assert decode(data, limit) == found


def test_json_is_laid_out_and_deep_json_is_text() -> None:
    assert json.loads(laid_out('{"a":[1,2]}')) == {"a": [1, 2]}
    assert laid_out('{"a":[1,2]}').count("\n") > 3
    assert laid_out("[" * 100_000) == ""
    assert laid_out("7") == ""


def test_json_whose_lines_would_be_far_too_long_is_text() -> None:
    """64 KiB of lists within lists, whose lines begin with hundreds of blanks."""
    nested = "[" + ",".join(["[" * 400 + "]" * 400] * 80) + "]"
    assert decode(nested.encode(), 65_536).form == "text"
    assert laid_out(nested) == ""


@pytest.mark.parametrize("escaped", [r"\ud800", r"\u202e", r"\u0000"])
def test_laid_out_is_text_that_can_be_sent_and_stays_in_its_place(escaped: str) -> None:
    said = laid_out(f'{{"é": "{escaped}"}}')
    assert escaped in said
    assert said.encode()
    assert "é" in laid_out('{"é": 1}')


@pytest.mark.parametrize(
    ("committed", "end", "lag", "note"),
    [
        (440, 500, 60, ""),
        (500, 500, 0, ""),
        (None, 500, None, "nothing committed"),
        (7, None, None, "has no leader"),
        (9, 3, None, "of an earlier topic"),
    ],
)
def test_lag(committed: int | None, end: int | None, lag: int | None, note: str) -> None:
    found = GroupPartition(TOPIC, 0, committed, end, None)
    assert found.lag == lag
    assert note in found.note
    assert bool(found.note) == (lag is None)


def test_lag_of_a_group_is_of_what_is_known() -> None:
    assert [group.lag for group in CLUSTER.groups] == [60, None, None]
