"""The replay answers as Coinbase does, and comes back when it is killed."""

from __future__ import annotations

import json

import pytest
from testinfra.host import Host

URL = "http://127.0.0.1:8090"


@pytest.mark.parametrize("symbol", ["BTC-USD", "ETH-USD", "SOL-USD", "ADA-USD", "DOGE-USD"])
def test_spot_price(host: Host, symbol: str) -> None:
    answer = json.loads(host.check_output(f"curl -sf {URL}/v2/prices/{symbol}/spot"))["data"]
    assert (answer["base"], answer["currency"]) == tuple(symbol.split("-"))
    assert float(answer["amount"]) > 0


def test_unknown_product_gets_coinbases_error(host: Host) -> None:
    code = host.check_output(f"curl -s -o /dev/null -w '%{{http_code}}' {URL}/products/NO-SUCH/ticker")
    assert code == "404"


def test_unit_comes_back_after_a_kill(host: Host) -> None:
    with host.sudo():
        host.run_expect([0], "systemctl kill --signal=KILL coinbase-replay")
        host.run_expect(
            [0], f"for i in $(seq 40); do curl -sf {URL}/v2/prices/BTC-USD/spot && exit 0; sleep 0.5; done; exit 1"
        )
    assert host.process.get(user="coinbase-replay")
