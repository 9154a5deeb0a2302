"""The producer against a real Kafka and a real replay: nothing lost, nothing doubled, whatever dies."""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from producer_processes import Producer, Replay, feed_settings, read_topic
from services import KafkaServer, wait_until

RECORDING = Path(__file__).parents[4] / "shared" / "data" / "coinbase-exchange-ws-2026-07-07.ndjson"
SYMBOLS = {"BTC-USD", "ETH-USD", "SOL-USD", "ADA-USD", "DOGE-USD"}


def make_tape(path: Path, trades: int) -> Path:
    """A tape of `trades` trades, shared by three symbols that lie in different partitions or not."""
    with path.open("w") as file:
        for number in range(trades):
            message = {
                "type": "match",
                "trade_id": 1 + number // 3,
                "product_id": ("BTC-USD", "ETH-USD", "SOL-USD")[number % 3],
                "price": f"{1 + number % 977}.25",
                "size": "0.01",
                "side": "buy",
                "time": f"2026-07-07T22:{number // 60_000 % 60:02d}:{number // 1_000 % 60:02d}.{number % 1_000:03d}Z",
            }
            file.write(json.dumps(message) + "\n")
    return path


def test_rest_rounds_report_what_kafka_acknowledged(
    kafka: KafkaServer, topic: str, replay: Replay, tmp_path: Path, processes: list[Producer]
) -> None:
    producer = Producer(tmp_path / "p", kafka, topic, "coinbase_rest", feed_settings(replay))
    processes.append(producer)
    probe = producer.command("probe")
    assert probe.returncode == 0, probe.stderr
    assert probe.stdout.count("\n") == 1
    producer.start()
    producer.wait_log("✅ Successfully sent 5/5 cryptocurrency pairs to Kafka")
    producer.wait_acknowledged(10)
    assert producer.terminate() == 0
    events = read_topic(kafka, topic)
    assert {event["symbol"] for event in events.events} == SYMBOLS
    assert {event["user"] for event in events.events} == {"replay"}
    assert set(events.event_ids.values()) == {1}
    assert len(events.events) == producer.ledger()["acknowledged"] == producer.ledger()["accepted"]
    printed = json.loads(producer.command("ledger", "--json").stdout)
    assert printed.items() >= producer.ledger().items()
    assert set(printed["by_symbol"]) == SYMBOLS
    now_ms = time.time() * 1_000
    for event in events.events:
        assert now_ms - 600_000 < int(str(event["timestamp"])) <= now_ms
        assert int(str(event["produced_at"])) // 1_000 >= int(str(event["timestamp"]))


def test_probe_fails_readably_when_nobody_answers(
    kafka: KafkaServer, topic: str, replay: Replay, tmp_path: Path
) -> None:
    replay.stop()
    for source in ("coinbase_rest", "coinbase_ws"):
        producer = Producer(tmp_path / source, kafka, topic, source, feed_settings(replay))
        probe = producer.command("probe")
        assert probe.returncode == 1
        assert "127.0.0.1" in probe.stderr
        assert probe.stderr.count("\n") == 1


def test_gaps_drops_stalls_and_errors_of_the_feed_leave_no_trade_out(
    kafka: KafkaServer, topic: str, replay: Replay, tmp_path: Path, processes: list[Producer]
) -> None:
    producer = Producer(tmp_path / "p", kafka, topic, "coinbase_ws", feed_settings(replay, stale_after_s=3.0))
    processes.append(producer)
    producer.start()
    producer.wait_acknowledged(100)
    replay.admin("gap", {"product_id": "BTC-USD", "count": 150})
    replay.admin("gap", {"product_id": "ADA-USD", "count": 3})
    producer.wait_log("BTC-USD: gap")
    # While a gap is open and REST refuses: the fill has to wait and come through in the end.
    replay.admin("gap", {"product_id": "ETH-USD", "count": 20})
    replay.admin("rate_limit", {"seconds": 2})
    producer.wait_log("ETH-USD: gap")
    replay.admin("server_error", {"seconds": 2})
    wait_until(lambda: replay.admin("drop", {})["dropped"] != 0, "a connection to drop")
    wait_until(lambda: replay.admin("status")["clients"] == 1, "the producer to come back")
    replay.admin("stall_heartbeats", {"seconds": 4})
    producer.wait_log("no heartbeat of")
    # A restart of the exchange is a longer gap for all products.
    replay.stop()
    time.sleep(1)
    replay.start()
    wait_until(lambda: replay.admin("status")["clients"] == 1, "the producer to come back", 90)
    producer.wait_acknowledged(producer.ledger()["accepted"] + 300)
    metrics = producer.metrics()
    assert producer.terminate() == 0

    events = read_topic(kafka, topic)
    events.check_exactly_once_in_order()
    assert set(events.partition_of) == SYMBOLS
    ledger = producer.ledger()
    assert len(events.events) == ledger["accepted"] == ledger["acknowledged"]
    assert metrics['producer_gap_trades_filled_total{symbol="BTC-USD"}'] >= 150
    assert metrics['producer_gap_trades_unfilled_total{symbol="BTC-USD"}'] == 0
    assert metrics['producer_reconnects_total{reason="stale"}'] >= 1
    assert metrics['producer_reconnects_total{reason="closed"}'] >= 1
    assert metrics["producer_rate_limited_total"] >= 1
    for event in events.events:
        assert int(str(event["timestamp"])) * 1_000 <= int(str(event["produced_at"]))


def test_a_gap_beyond_the_limit_is_reported_and_not_silent(
    kafka: KafkaServer, topic: str, replay: Replay, tmp_path: Path, processes: list[Producer]
) -> None:
    producer = Producer(tmp_path / "p", kafka, topic, "coinbase_ws", feed_settings(replay, max_fill_trades=10))
    processes.append(producer)
    producer.start()
    producer.wait_acknowledged(50)
    replay.admin("gap", {"product_id": "BTC-USD", "count": 40})
    producer.wait_log("10 trades filled, 30 LOST: more than max_fill_trades = 10")
    assert producer.metrics()['producer_gap_trades_unfilled_total{symbol="BTC-USD"}'] == 30
    producer.wait_acknowledged(producer.ledger()["accepted"] + 50)
    assert producer.terminate() == 0
    ids = read_topic(kafka, topic).trade_ids("BTC-USD")
    assert ids == sorted(set(ids))
    assert ids[-1] - ids[0] + 1 - len(ids) == 30


def test_a_killed_producer_resumes_and_fills_what_it_missed(
    kafka: KafkaServer, topic: str, replay: Replay, tmp_path: Path, processes: list[Producer]
) -> None:
    producer = Producer(tmp_path / "p", kafka, topic, "coinbase_ws", feed_settings(replay))
    processes.append(producer)
    rng = random.Random(4)
    for _ in range(4):
        before = producer.ledger()["acknowledged"]
        producer.start()
        producer.wait_acknowledged(before + 100)
        time.sleep(rng.random() / 2)
        producer.kill()
    producer.start()
    producer.wait_acknowledged(producer.ledger()["accepted"] + 100)
    assert producer.terminate() == 0
    events = read_topic(kafka, topic)
    events.check_exactly_once_in_order()
    ledger = producer.ledger()
    assert len(events.events) == ledger["accepted"] == ledger["acknowledged"]


def test_kill_9_under_load_delivers_each_event_exactly_once(
    kafka: KafkaServer, topic: str, tmp_path: Path, processes: list[Producer]
) -> None:
    trades = 30_000
    producer = Producer(
        tmp_path / "p", kafka, topic, "tape",
        {"source.tape": {"path": make_tape(tmp_path / "tape", trades), "speed": 0}},
    )  # fmt: skip
    processes.append(producer)
    rng = random.Random(9)
    kills = 0
    while producer.ledger()["acknowledged"] < trades and kills < 6:
        before = producer.ledger()["acknowledged"]
        producer.start()
        wait_until(lambda before=before: producer.ledger()["acknowledged"] > before, "progress", 60, 0.02)
        time.sleep(rng.random() * 0.3)
        if producer.process is not None and producer.process.poll() is not None:
            break
        producer.kill()
        kills += 1
    assert kills >= 2
    if producer.process is None:
        producer.start()
    assert producer.process is not None
    assert producer.process.wait(120) == 0, producer.log
    events = read_topic(kafka, topic)
    events.check_exactly_once_in_order()
    assert len(events.events) == trades
    ledger = producer.ledger()
    assert (ledger["accepted"], ledger["acknowledged"], ledger["pending"]) == (trades, trades, 0)
    assert "the spool was not closed" in producer.log


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_kafka_away_loses_nothing_and_keeps_the_order(
    kafka: KafkaServer, topic: str, replay: Replay, tmp_path: Path, processes: list[Producer], kill: bool
) -> None:
    # The delivery timeout passes while Kafka is away: batches expire, and a new session must reconcile.
    settings = {**feed_settings(replay), "kafka": {"delivery_timeout_s": 5.0}}
    producer = Producer(tmp_path / "p", kafka, topic, "coinbase_ws", settings)
    processes.append(producer)
    producer.start()
    producer.wait_acknowledged(100)
    kafka.stop(kill=kill)
    try:
        producer.wait_accepted(producer.ledger()["accepted"] + 500)
        wait_until(lambda: producer.metrics()["producer_kafka_connected"] == 0, "the silence or the session's end")
        away = producer.ledger()
        assert away["pending"] >= 400
        producer.wait_log("events wait in the spool, next attempt")
        assert "Traceback" not in producer.log, "the session's client was not closed"
    finally:
        kafka.start()
    producer.wait_acknowledged(away["accepted"] + 100)
    assert producer.terminate() == 0
    events = read_topic(kafka, topic)
    events.check_exactly_once_in_order()
    ledger = producer.ledger()
    assert len(events.events) == ledger["accepted"] == ledger["acknowledged"]


def test_a_short_absence_of_kafka_under_load_doubles_nothing(
    kafka: KafkaServer, topic: str, tmp_path: Path, processes: list[Producer]
) -> None:
    trades = 20_000
    producer = Producer(
        tmp_path / "p", kafka, topic, "tape",
        {"source.tape": {"path": make_tape(tmp_path / "tape", trades), "speed": 0}},
    )  # fmt: skip
    processes.append(producer)
    producer.start()
    wait_until(lambda: producer.ledger()["acknowledged"] > 0, "the first acknowledgement", 60, 0.02)
    kafka.stop(kill=True)
    kafka.start()
    assert producer.process is not None
    assert producer.process.wait(180) == 0, producer.log
    events = read_topic(kafka, topic)
    events.check_exactly_once_in_order()
    assert len(events.events) == trades == producer.ledger()["acknowledged"]


def test_sigterm_without_kafka_keeps_what_is_left(
    kafka: KafkaServer, topic: str, replay: Replay, tmp_path: Path, processes: list[Producer]
) -> None:
    settings = {**feed_settings(replay), "service": {"shutdown_timeout_s": 2.0}}
    producer = Producer(tmp_path / "p", kafka, topic, "coinbase_ws", settings)
    processes.append(producer)
    producer.start()
    producer.wait_acknowledged(50)
    kafka.stop()
    try:
        producer.wait_accepted(producer.ledger()["accepted"] + 100)
        # kafka-python gives nothing up before 120 s; that Kafka is away is told long before.
        wait_until(lambda: producer.metrics()["producer_kafka_connected"] == 0, "the silence to show", 20)
        assert producer.terminate(60) == 0
    finally:
        kafka.start()
    left = producer.ledger()
    assert left["pending"] > 0
    assert f"{left['pending']} events remain in the spool" in producer.log
    assert "Traceback" not in producer.log
    producer.start()
    producer.wait_acknowledged(left["accepted"])
    assert producer.terminate() == 0
    events = read_topic(kafka, topic)
    events.check_exactly_once_in_order()
    assert len(events.events) == producer.ledger()["accepted"]


@pytest.mark.parametrize("when_full", ["block", "drop_oldest"])
def test_a_full_spool_does_what_was_configured(
    kafka: KafkaServer, topic: str, tmp_path: Path, processes: list[Producer], when_full: str
) -> None:
    trades, bound = 6_000, 1_000
    producer = Producer(
        tmp_path / "p", kafka, topic, "tape",
        {
            "source.tape": {"path": make_tape(tmp_path / "tape", trades), "speed": 0},
            "spool": {"max_events": bound, "when_full": when_full},
        },
    )  # fmt: skip
    processes.append(producer)
    kafka.stop()
    try:
        producer.start()
        producer.wait_log("spool full")
        if when_full == "drop_oldest":
            producer.wait_accepted(trades)
        metrics = producer.metrics()
        assert metrics["producer_spool_full"] == 1
        assert metrics["producer_spool_events"] <= bound
    finally:
        kafka.start()
    assert producer.process is not None
    assert producer.process.wait(120) == 0, producer.log
    ledger = producer.ledger()
    events = read_topic(kafka, topic)
    assert set(events.event_ids.values()) == {1}
    assert len(events.events) == ledger["acknowledged"]
    assert ledger["accepted"] == trades
    assert ledger["accepted"] == ledger["acknowledged"] + ledger["dropped"]
    if when_full == "block":
        assert ledger["dropped"] == 0
        events.check_exactly_once_in_order()
    else:
        assert ledger["dropped"] >= trades - bound
        assert "dropped the" in producer.log
        for symbol in events.partition_of:
            assert events.trade_ids(symbol) == sorted(events.trade_ids(symbol))


def test_a_recreated_topic_gets_the_events_from_then_on(
    kafka: KafkaServer, topic: str, replay: Replay, tmp_path: Path, processes: list[Producer]
) -> None:
    producer = Producer(tmp_path / "p", kafka, topic, "coinbase_ws", feed_settings(replay))
    processes.append(producer)
    producer.start()
    producer.wait_acknowledged(100)
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    admin.delete_topics([topic])
    wait_until(lambda: topic not in admin.list_topics(), "the topic to go")
    admin.create_topics([NewTopic(topic, num_partitions=3, replication_factor=1)])
    admin.close()
    producer.wait_acknowledged(producer.ledger()["accepted"] + 200, 150)
    assert producer.terminate() == 0
    events = read_topic(kafka, topic)
    assert set(events.event_ids.values()) == {1}
    assert len(events.events) >= 200


def test_the_service_manager_is_told(
    kafka: KafkaServer, topic: str, replay: Replay, tmp_path: Path, processes: list[Producer]
) -> None:
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    address = tmp_path / "notify"
    manager.bind(str(address))
    manager.settimeout(30)
    producer = Producer(
        tmp_path / "p", kafka, topic, "coinbase_rest", feed_settings(replay),
        {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "3000000"},
    )  # fmt: skip
    processes.append(producer)
    producer.start()
    assert manager.recv(4_096) == b"READY=1"
    status = b""
    for _ in range(30):
        status = manager.recv(4_096)
        assert b"WATCHDOG=1" in status
        if b"Kafka connected" in status and b"acknowledged 5" in status:
            break
    assert b"Kafka connected" in status
    assert producer.terminate() == 0
    manager.settimeout(0)
    last = b""
    with suppress(BlockingIOError):
        while b"STOPPING=1" not in last:
            last = manager.recv(4_096)
    assert b"STOPPING=1" in last


def test_a_second_producer_on_the_same_spool_is_refused(
    kafka: KafkaServer, topic: str, replay: Replay, tmp_path: Path, processes: list[Producer]
) -> None:
    producer = Producer(tmp_path / "p", kafka, topic, "coinbase_rest", feed_settings(replay))
    processes.append(producer)
    producer.start()
    producer.wait_log("ready")
    second = producer.command("run")
    assert second.returncode == 1
    assert "another producer uses this spool" in second.stderr


def make_recording(path: Path) -> Path:
    """A minute of the feed as the exchange sends it: 435 matches of two products, and all that comes between."""

    def lines() -> Iterator[dict[str, object]]:
        yield {"type": "subscriptions", "channels": [{"name": "matches", "product_ids": ["BTC-USD", "ETH-USD"]}]}
        for number in range(437):
            yield {
                "type": "match" if number >= 2 else "last_match",
                "trade_id": 1_000 + number // 2,
                "product_id": ("BTC-USD", "ETH-USD")[number % 2],
                "price": f"{1 + number % 7}.25",
                "size": "0.01",
                "side": ("buy", "sell")[number // 2 % 2],
                "sequence": 5_000 + number,
                "time": f"2026-07-07T22:58:{number // 8:02d}.{number % 8 * 125:03d}000Z",
            }
            if number % 8 == 7:
                yield {"type": "heartbeat", "product_id": "BTC-USD", "last_trade_id": 1_000 + number // 2}

    path.write_text("".join(json.dumps(line) + "\n" for line in lines()))
    return path


# The real one lies beside the repository, on some machines: it is not part of the project.
@pytest.mark.parametrize("kind", ["made", *(["real"] if RECORDING.exists() else [])])
@pytest.mark.parametrize("source", ["tape", "coinbase_ws"])
def test_a_recording_is_delivered(
    kafka: KafkaServer, topic: str, tmp_path: Path, processes: list[Producer], source: str, kind: str
) -> None:
    recording = RECORDING if kind == "real" else make_recording(tmp_path / "recording")
    if source == "tape":
        settings: dict[str, dict[str, object]] = {"source.tape": {"path": recording, "speed": 0}}
        producer = Producer(tmp_path / "p", kafka, topic, source, settings)
        processes.append(producer)
        producer.start()
        assert producer.process is not None
        assert producer.process.wait(60) == 0, producer.log
        events = read_topic(kafka, topic)
        # 435 matches and the last match of either product before them.
        assert len(events.events) == 437 == producer.ledger()["acknowledged"]
        events.check_exactly_once_in_order()
        if kind == "real":
            assert {event["timestamp"] for event in events.events} >= {1_783_465_096_833, 1_783_465_097_164}
        return
    replay = Replay(tmp_path / "replay", tape=recording)
    replay.start()
    try:
        producer = Producer(tmp_path / "p", kafka, topic, source, feed_settings(replay))
        processes.append(producer)
        producer.start()
        producer.wait_acknowledged(400)
        assert producer.terminate() == 0
    finally:
        replay.stop()
    events = read_topic(kafka, topic)
    events.check_exactly_once_in_order()
    assert set(events.partition_of) == SYMBOLS
