"""An event of the topic becomes a row, a message that is none a reject; and the job comes back when it is killed."""

from __future__ import annotations

import json
import time
import uuid

from testinfra.host import Host

TOPIC = "--bootstrap-server lab-1:9092 --topic crypto_prices"


def sql(host: Host, query: str) -> str:
    """Return the one value that a query gives."""
    with host.sudo():
        return host.check_output(f'psql -U postgres -d crypto_db -Atc "{query}"').strip()


def send(host: Host, value: str) -> None:
    """Send one message to the topic."""
    host.run_expect([0], f"kafka-console-producer {TOPIC} <<'EOF'\n{value}\nEOF")


def arrives(host: Host, query: str, wanted: str, timeout_s: float = 120) -> bool:
    """Wait until a query gives the wanted value."""
    deadline = time.monotonic() + timeout_s
    while sql(host, query) != wanted:
        if time.monotonic() > deadline:
            return False
        time.sleep(1)
    return True


def event(price: float) -> tuple[str, str]:
    """Return an event's id and its message."""
    event_id = str(uuid.uuid4())
    now_ms = time.time_ns() // 1_000_000
    return event_id, json.dumps({
        "event_id": event_id, "symbol": "BTC-USD", "price": price, "user": "molecule", "timestamp": now_ms,
        "produced_at": now_ms * 1000,
    })  # fmt: skip


def test_event_becomes_a_row(host: Host) -> None:
    event_id, message = event(64090.5)
    send(host, message)
    assert arrives(host, f"SELECT price FROM crypto_prices_flink WHERE event_id = '{event_id}'", "64090.5")


def test_malformed_message_becomes_a_reject(host: Host) -> None:
    query = "SELECT count(*) FROM rejected_messages WHERE engine = 'flink' AND reason = 'not_json'"
    before = int(sql(host, query))
    send(host, "no-json")
    assert arrives(host, query, str(before + 1))


def test_killed_job_goes_on_where_it_was(host: Host) -> None:
    with host.sudo():
        host.run_expect([0], "systemctl kill --signal=KILL flink-job")
    event_id, message = event(64091.5)
    send(host, message)
    assert arrives(host, f"SELECT price FROM crypto_prices_flink WHERE event_id = '{event_id}'", "64091.5", 240)
    assert sql(host, "SELECT count(*) = count(DISTINCT event_id) FROM crypto_prices_flink") == "t"
