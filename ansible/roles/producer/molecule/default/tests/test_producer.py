"""What the producer counts is what is in Kafka."""

from __future__ import annotations

import json

from testinfra.host import Host

CONSUME = "kafka-console-consumer --bootstrap-server producer-1:9092 --topic crypto_prices --from-beginning"


def test_events_are_in_kafka(host: Host) -> None:
    with host.sudo():
        # A clean stop flushes first.
        host.run_expect([0], "systemctl stop producer")
        ledger = json.loads(
            host.check_output("sudo -u producer crypto-producer ledger --config /etc/producer/config.toml --json")
        )
        consumed = host.run(f"{CONSUME} --timeout-ms 8000")
        host.run_expect([0], "systemctl start producer")
    events = [json.loads(line) for line in consumed.stdout.splitlines()]
    assert len({event["event_id"] for event in events}) == len(events) == ledger["acknowledged"] > 0
    assert ledger["accepted"] == ledger["acknowledged"]
    assert {event["symbol"] for event in events} == {"BTC-USD", "ETH-USD", "SOL-USD", "ADA-USD", "DOGE-USD"}


def test_metrics(host: Host) -> None:
    assert "producer" in host.check_output("curl -sf http://127.0.0.1:9108/metrics")
