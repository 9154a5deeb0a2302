"""The tape source: what it makes of a recording."""

from __future__ import annotations

import json
from pathlib import Path

from crypto_producer.sources.tape import Tape, load_tape
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SYMBOLS = ["BTC-USD", "ETH-USD"]


def load(path: Path, trades: list[tuple[str, int, int]]) -> Tape:
    """A tape of trades (product, id, second), in this order."""
    with path.open("w") as file:
        for product, trade_id, second in trades:
            message = {
                "type": "match",
                "trade_id": trade_id,
                "side": "buy",
                "size": "1.0",
                "price": "2.5",
                "product_id": product,
                "time": f"1970-01-01T00:00:{second:02d}Z",
            }
            file.write(json.dumps(message) + "\n")
    return load_tape(path, SYMBOLS)


def test_trades_out_of_order_are_put_in_order_and_kept(tmp_path: Path) -> None:
    tape = load(tmp_path / "tape", [("BTC-USD", number, number) for number in (1, 3, 2, 4)])
    assert [(trade.trade_id, trade.time_ms) for trade in tape.trades] == [(n, n * 1_000) for n in (1, 2, 3, 4)]


def test_products_keep_their_places_and_repeated_trades_are_played_once(tmp_path: Path) -> None:
    tape = load(
        tmp_path / "tape",
        [("BTC-USD", 9, 1), ("ETH-USD", 2, 2), ("BTC-USD", 8, 3), ("BTC-USD", 9, 4), ("ETH-USD", 1, 5)],
    )
    assert [(trade.product_id, trade.trade_id) for trade in tape.trades] == [
        ("BTC-USD", 8),
        ("ETH-USD", 1),
        ("BTC-USD", 9),
        ("ETH-USD", 2),
    ]
    # Trade 8 happened at 3 s and 1 at 5 s: nothing behind them is earlier.
    assert [trade.time_ms for trade in tape.trades] == [3_000, 5_000, 5_000, 5_000]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.sampled_from(SYMBOLS), st.integers(1, 20), st.integers(0, 59)), min_size=1, max_size=40))
def test_whatever_the_order_each_trade_is_played_once_ascending(
    tmp_path: Path, trades: list[tuple[str, int, int]]
) -> None:
    tape = load(tmp_path / "tape", trades)
    for product in SYMBOLS:
        played = [trade.trade_id for trade in tape.trades if trade.product_id == product]
        assert played == sorted({number for name, number, _ in trades if name == product})
    times = [trade.time_ms for trade in tape.trades]
    assert times == sorted(times)
