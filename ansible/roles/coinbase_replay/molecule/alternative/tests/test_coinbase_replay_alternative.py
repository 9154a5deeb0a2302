"""Every changed setting is the one that the replay runs with."""

from __future__ import annotations

import json
import time

from testinfra.host import Host

URL = "http://replay-1:18090"


def test_prices_are_the_tapes(host: Host) -> None:
    """All trades of the tape have one price, by the node's name as other nodes would ask."""
    answer = json.loads(host.check_output(f"curl -sf {URL}/v2/prices/BTC-USD/spot"))
    assert answer["data"]["amount"] == "12345.67"


def test_symbols_that_the_tape_lacks_are_generated(host: Host) -> None:
    answer = json.loads(host.check_output(f"curl -sf {URL}/v2/prices/ETH-USD/spot"))
    assert float(answer["data"]["amount"]) > 0


def test_tape_is_played_at_twice_its_pace(host: Host) -> None:
    """The tape has a trade a second; ids go on by one with each."""

    def trade_id() -> int:
        return int(json.loads(host.check_output(f"curl -sf {URL}/products/BTC-USD/ticker"))["trade_id"])

    first, began = trade_id(), time.monotonic()
    time.sleep(6)
    per_s = (trade_id() - first) / (time.monotonic() - began)
    assert 1.4 < per_s < 2.6


def test_admin_listens_on_loopback_only(host: Host) -> None:
    assert host.socket("tcp://127.0.0.1:18091").is_listening
    assert not host.socket("tcp://0.0.0.0:18091").is_listening


def test_user_and_places(host: Host) -> None:
    assert host.process.get(user="quotes", comm="python3")
    assert host.user("quotes").uid == 954
    assert host.file("/srv/quotes/timeline.json").exists
    for path in ("/etc/coinbase-replay", "/opt/coinbase-replay", "/var/lib/coinbase-replay"):
        assert not host.file(path).exists, path
