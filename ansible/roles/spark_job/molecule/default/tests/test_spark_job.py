"""An event of the topic becomes a row, a message that is none a reject; and the job comes back when it is killed."""

from __future__ import annotations

from typing import Any

from testinfra.host import Host


def price_of(event_id: str) -> str:
    """Return the query for an event's price."""
    return f"SELECT price FROM crypto_prices_realtime WHERE event_id = '{event_id}'"


def test_event_becomes_a_row(stream: Any) -> None:
    assert stream.arrives(price_of(stream.send_event(64090.5)), "64090.5")


def test_malformed_message_becomes_a_reject(stream: Any) -> None:
    query = "SELECT count(*) FROM rejected_messages WHERE engine = 'spark' AND reason = 'not_json'"
    before = int(stream.sql(query))
    stream.send("no-json")
    assert stream.arrives(query, str(before + 1))


def test_killed_job_goes_on_where_it_was(host: Host, stream: Any) -> None:
    with host.sudo():
        host.run_expect([0], "systemctl kill --signal=KILL spark-job")
    assert stream.arrives(price_of(stream.send_event(64091.5)), "64091.5", timeout_s=240)
    assert stream.sql("SELECT count(*) = count(DISTINCT event_id) FROM crypto_prices_realtime") == "t"
