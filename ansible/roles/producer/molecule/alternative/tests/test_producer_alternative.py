"""Every changed setting is the one that the producer runs with."""

from __future__ import annotations

import json

from testinfra.host import Host

CONSUME = "kafka-console-consumer --bootstrap-server producer-1:19092 --topic trades --from-beginning"


def test_trades_of_the_chosen_symbols_are_in_the_topic(host: Host) -> None:
    """Every trade has an id of its own, by which events of the feed are told from spot prices, that have none."""
    with host.sudo():
        host.run_expect([0], "systemctl stop producer")
        ledger = json.loads(
            host.check_output("sudo -u sender crypto-producer ledger --config /etc/sender/config.toml --json")
        )
        consumed = host.run(f"{CONSUME} --timeout-ms 8000")
        host.run_expect([0], "systemctl start producer")
    events = [json.loads(line) for line in consumed.stdout.splitlines()]
    assert len({event["event_id"] for event in events}) == len(events) == ledger["acknowledged"] > 0
    assert {event["symbol"] for event in events} == {"BTC-USD", "SOL-USD"}
    assert all(event.get("trade_id") for event in events), events[:2]


def test_metrics(host: Host) -> None:
    assert "producer_ledger_acknowledged" in host.check_output("curl -sf http://127.0.0.1:19108/metrics")
    assert not host.socket("tcp://0.0.0.0:9108").is_listening


def test_user_and_places(host: Host) -> None:
    assert host.process.get(user="sender", comm="python3")
    assert host.user("sender").uid == 953
    with host.sudo():
        assert host.check_output("find /srv/sender -type f -user sender")
    for path in ("/etc/producer", "/opt/producer", "/srv/lab-state/producer"):
        assert not host.file(path).exists, path
