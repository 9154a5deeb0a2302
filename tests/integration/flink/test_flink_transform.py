"""The job's SQL and Java functions in batch: what they make of the shared fixture, and of awkward values beside it."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from flink_cluster import JAVA_OPTIONS, PYTHON, python_environment
from services import REPOSITORY

FIXTURE = REPOSITORY / "tests" / "fixtures" / "events.json"
UUID = "4cc7761a-e5e7-5c39-8a7b-0807932bd08c"


def run_transform(fixture: Path, functions_jar: Path, directory: Path) -> dict[str, list[dict[str, Any]]]:
    directory.mkdir()
    # The tree has none, and PyFlink refuses to run without; a node's own is in /etc.
    conf = directory / "conf"
    conf.mkdir()
    (conf / "config.yaml").write_text("parallelism.default: 1\n")
    finished = subprocess.run(
        [*PYTHON, str(Path(__file__).with_name("run_transform.py")), str(fixture), str(directory)],
        env={
            **python_environment(), "HADOOP_CLASSPATH": str(functions_jar), "JVM_ARGS": "-Xmx512m",
            "FLINK_CONF_DIR": str(conf), "FLINK_ENV_JAVA_OPTS": " ".join(JAVA_OPTIONS),
        },
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr[-4000:]
    return json.loads(finished.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def results(functions_jar: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    return run_transform(FIXTURE, functions_jar, tmp_path_factory.mktemp("transform") / "fixture")


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    return json.loads(FIXTURE.read_text())


def by_offset(row: dict[str, Any]) -> tuple[int, int]:
    return row["kafka_partition"], row["kafka_offset"]


def test_flink_transform_makes_the_fixtures_rows(results: dict, expected: dict) -> None:
    first: dict[str, dict] = {}
    for row in sorted(results["prices"], key=by_offset):
        first.setdefault(row["event_id"], row)
    assert sorted(first.values(), key=by_offset) == sorted(expected["rows"], key=by_offset)
    assert len(results["prices"]) == len(expected["rows"]) + 1, "the event sent twice is left to the table's key"


def test_flink_transform_makes_the_fixtures_rejects(results: dict, expected: dict) -> None:
    records = {(record["partition"], record["offset"]): record for record in expected["records"]}
    for row in results["rejected"]:
        record = records[row["kafka_partition"], row["kafka_offset"]]
        if "value_repeat" not in record:
            assert row.pop("payload") == record["value_base64"], record["note"]
        else:
            assert len(base64.b64decode(row.pop("payload"))) > 65536
        assert row.pop("engine") == "flink"
    assert sorted(results["rejected"], key=by_offset) == sorted(expected["rejected"], key=by_offset)


def test_flink_transform_makes_the_fixtures_candles(results: dict, expected: dict) -> None:
    def key(candle: dict) -> tuple:
        return candle["symbol"], candle["window_start"]

    assert sorted(results["candles"], key=key) == sorted(expected["candles"], key=key)


def test_flink_transform_writes_the_log_lines_people_look_for(results: dict) -> None:
    lines = [next(iter(row.values())) for row in results["log_lines"]]
    assert "[FLINK] BTC-USD: $86746.075" in lines
    assert "[FLINK] DOGE-USD: $0.0871" in lines


def event(**fields: object) -> str:
    return json.dumps({
        "symbol": "BTC-USD", "price": 1.5, "user": "replay", "timestamp": 1783465021000, "event_id": UUID,
        "produced_at": 1783465021000500, **fields,
    })  # fmt: skip


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


AWKWARD = [
    # text -> reason, None for an event
    ("no white space between two documents", event() + "{}", "not_json"),
    ("a second document that is no JSON", event() + "]", "not_json"),
    ("a comma after the document", event() + ",", "not_json"),
    ("a number that goes on as text", "42abc", "not_json"),
    ("two numbers", "4 2", "not_json"),
    ("a string that never ends", '"abc', "not_json"),
    ("a bad escape in an unknown field", event()[:-1] + r', "x": "\q"}', "not_json"),
    ("a control character in an unknown field", event()[:-1] + ', "x": "\x01"}', "not_json"),
    ("NaN is no JSON", event(price=float("nan")), "not_json"),
    ("a leading zero is no JSON", event(price=7).replace(": 7,", ": 07,"), "not_json"),
    ("a comment is no JSON", "/* */" + event(), "not_json"),
    ("single quotes are no JSON", event().replace('"', "'"), "not_json"),
    ("a byte order mark", "\ufeff" + event(), "not_json"),
    ("UTF-16 is not guessed", "{\0}\0", "not_json"),
    ("500 levels in an unknown field, the event's own included", event()[:-1] + f', "x": {nested(499)}}}', None),
    ("501 levels in an unknown field", event()[:-1] + f', "x": {nested(500)}}}', "not_json"),
    ("500 objects", '{"a": ' * 500 + "1" + "}" * 500, "missing_field:event_id"),
    ("501 objects", '{"a": ' * 501 + "1" + "}" * 501, "not_json"),
    ("500 arrays", nested(500), "not_object"),
    ("501 arrays", nested(501), "not_json"),
    ("as deep as the size allows", nested(32768), "not_json"),
    ("many levels, but one after the other", event()[:-1] + f', "x": [{", ".join(["[[]]"] * 1000)}]}}', None),
    ("a number of 2000 digits in an unknown field", event()[:-1] + f', "x": {"9" * 2000}}}', None),
    ("a price of 2000 digits", event(price=7).replace(": 7,", f": {'9' * 2000},"), "out_of_range:price"),
    ("a timestamp of 2000 digits", event(timestamp=7).replace(": 7,", f": {'9' * 2000},"), "wrong_type:timestamp"),
    ("a price that is too small for a double", event(price=7).replace(": 7,", ": 1e-400,"), "out_of_range:price"),
    ("the last of two equal names counts", event()[:-1] + ', "price": 2.5}', None),
    ("the last of two equal names counts against", event()[:-1] + ', "price": null}', "missing_field:price"),
    ("a field of the same name further in", event(symbol=1, x={"symbol": "BTC-USD"}), "wrong_type:symbol"),
    ("braces instead of a UUID's hyphens", event(event_id="{" + UUID[:-2] + "}"), "wrong_type:event_id"),
    ("a UUID without hyphens", event(event_id=UUID.replace("-", "")), "wrong_type:event_id"),
    ("an empty user is a user", event(user=""), None),
    ("a NUL, which PostgreSQL's text cannot hold", event(user="a\0b"), "wrong_type:user"),
    ("half a surrogate pair", event(user="\ud800"), None),
    ("the first moment", event(timestamp=946684800000), None),
    ("the moment before the first", event(timestamp=946684799999), "out_of_range:timestamp"),
    ("the last moment", event(timestamp=4102444799999), None),
    ("the moment after the last", event(timestamp=4102444800000), "out_of_range:timestamp"),
    ("the largest 64-bit integer", event(produced_at=2**63 - 1), None),
    ("one more", event(produced_at=2**63), "wrong_type:produced_at"),
    ("minus zero is an integer", event(produced_at=7).replace(": 7}", ": -0}"), None),
    ("one zero after the point is no integer", event(produced_at=7.0), "wrong_type:produced_at"),
    ("exactly the limit", event(pad="x" * (65536 - len(event(pad="")))), None),
    ("one byte over the limit", event(pad="x" * (65537 - len(event(pad="")))), "too_large"),
]


def write_fixture(path: Path, values: list[bytes]) -> Path:
    """Write values as records of partition 0, with offsets from 0 on."""
    records = [
        {
            "partition": 0, "offset": offset, "kafka_timestamp": 1,
            "value_base64": base64.b64encode(value).decode(),
        }
        for offset, value in enumerate(values)
    ]  # fmt: skip
    path.write_text(json.dumps({"records": records}))
    return path


def test_flink_transform_of_awkward_values(functions_jar: Path, tmp_path: Path) -> None:
    encoded = [(note, text.encode(), reason) for note, text, reason in AWKWARD]
    encoded += [
        ("an overlong encoding", event(user="x").encode().replace(b'"x"', b'"\xc0\x80"'), "not_utf8"),
        ("an encoded surrogate", event(user="x").encode().replace(b'"x"', b'"\xed\xa0\x80"'), "not_utf8"),
        ("a code point beyond the last", event(user="x").encode().replace(b'"x"', b'"\xf4\x90\x80\x80"'), "not_utf8"),
        ("a sequence cut off at the end", event().encode() + b"\xe1\xbb", "not_utf8"),
    ]
    fixture = write_fixture(tmp_path / "awkward.json", [value for _, value, _ in encoded])

    results = run_transform(fixture, functions_jar, tmp_path / "work")

    found: dict[int, str | None] = dict.fromkeys(row["kafka_offset"] for row in results["prices"])
    found.update((row["kafka_offset"], row["reason"]) for row in results["rejected"])
    assert {encoded[offset][0]: reason for offset, reason in found.items()} == {
        note: reason for note, _, reason in encoded
    }


def test_flink_transform_of_events_that_come_twice(functions_jar: Path, tmp_path: Path) -> None:
    later = {"timestamp": 1783465021500, "event_id": "9f4a5c4a-1327-52d1-b69d-9c613c895c0d"}
    a, b = event(price=86769.94, timestamp=1783465021000), event(price=86746.075, **later)
    fixture = write_fixture(tmp_path / "twice.json", [a.encode(), b.encode(), a.encode()])

    results = run_transform(fixture, functions_jar, tmp_path / "work")

    assert results["candles"] == [
        {
            "symbol": "BTC-USD", "window_start": 1783465020000, "open": 86769.94, "high": 86769.94, "low": 86746.075,
            "close": 86746.075, "event_count": 2,
        }
    ]  # fmt: skip
