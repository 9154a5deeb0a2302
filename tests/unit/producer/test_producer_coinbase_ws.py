"""The feed's source against a feed that breaks off: nothing that has left a sequencer may be lost."""

from __future__ import annotations

import json
import queue
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Self

import pytest
from crypto_producer.config import EVENT_ID_NAMESPACE, CoinbaseWsConfig
from crypto_producer.event import Cursor, Trade, now_us, trade_event
from crypto_producer.metrics import Metrics
from crypto_producer.sequencer import Gap
from crypto_producer.sources import coinbase_ws
from crypto_producer.sources.base import Context, Intake
from crypto_producer.sources.coinbase_ws import CoinbaseWs
from crypto_producer.sources.trades_api import Filling
from crypto_producer.spool import Spool
from crypto_producer.systemd import Progress
from websockets.exceptions import ConnectionClosedError

SYMBOL = "BTC-USD"
SEEN = 10
CLOSED = ConnectionClosedError(None, None)
SUBSCRIBED: Mapping[str, object] = {"type": "subscriptions"}

# What a fake connection does at each recv(): send a message or raw text, or fail.
Step = Mapping[str, object] | str | Exception
Script = list[Step | Callable[[], Step]]


def match(trade_id: int) -> Mapping[str, object]:
    return {
        "type": "match",
        "trade_id": trade_id,
        "side": "buy",
        "size": "1.0",
        "price": "2.5",
        "product_id": SYMBOL,
        "time": "2026-07-07T22:58:17.204117Z",
    }


class FakeConnection:
    def __init__(self, script: Script) -> None:
        self._steps = iter(script)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def recv(self, timeout: float) -> str:
        del timeout
        step = next(self._steps, CLOSED)
        if callable(step):
            step = step()
        if isinstance(step, Exception):
            raise step
        return step if isinstance(step, str) else json.dumps(step)


class InstantFiller:
    """Finds the trades of each gap at once."""

    def __init__(self, _: object) -> None:
        self.fillings: queue.SimpleQueue[Filling] = queue.SimpleQueue()

    def start(self) -> None:
        pass

    def request(self, gap: Gap) -> None:
        trades = tuple(Trade(SYMBOL, number, "2.5", "1.0", "buy", number) for number in range(gap.low, gap.high + 1))
        self.fillings.put(Filling(gap, trades, 0, ""))

    def close(self) -> None:
        pass


class Feed:
    """A source whose connections follow scripts; it is stopped when the last of them has failed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        self.stop = threading.Event()
        self.delays_s: list[float] = []
        self.spool = Spool(directory, max_events=1_000, max_bytes=1_000_000, durability="process")
        self._source = CoinbaseWs(CoinbaseWsConfig(), [SYMBOL])
        self._scripts: Iterator[Script] = iter(())
        metrics = Metrics()
        self._context = Context(
            symbols=[SYMBOL],
            namespace=EVENT_ID_NAMESPACE,
            intake=Intake(
                self.spool, metrics, source="coinbase_ws", when_full="block", on_append=lambda: None,
                touch=lambda: None, stop=self.stop,
            ),
            spool=self.spool,
            metrics=metrics,
            progress=Progress(),
            stop=self.stop,
            wait_acknowledged=lambda *_: 0,
        )  # fmt: skip
        monkeypatch.setattr(coinbase_ws, "_Filler", InstantFiller)
        monkeypatch.setattr(self._source, "_connect", self._connect)
        monkeypatch.setattr(self._source, "_wait", self._wait)
        # Trades up to here were seen before.
        cursor = Cursor(f"trade_id|coinbase|{SYMBOL}", SEEN)
        trade = Trade(SYMBOL, SEEN, "2.5", "1.0", "buy", SEEN)
        self.spool.append([trade_event(EVENT_ID_NAMESPACE, "coinbase", trade, cursor, now_us())])

    def run(self, *scripts: Script) -> list[int]:
        """The ids of the trades that reached the spool."""
        self._scripts = iter(scripts)
        self._source.run(self._context)
        return [json.loads(event.value)["trade_id"] for event in self.spool.read(1, 1_000)]

    def _connect(self) -> FakeConnection:
        script = next(self._scripts, None)
        if script is None:
            self.stop.set()
            raise OSError("the test is over")
        return FakeConnection(script)

    def _wait(self, _context: object, _filler: object, delay_s: float) -> None:
        self.delays_s.append(delay_s)


@pytest.fixture
def feed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Feed]:
    feed = Feed(monkeypatch, tmp_path)
    with feed.spool:
        yield feed


@pytest.mark.parametrize(
    "failure",
    [CLOSED, {"type": "error", "message": "go away"}, "no JSON", OSError("reset")],
    ids=["closed", "refused", "malformed", "reset"],
)
def test_a_gap_that_is_filled_as_the_feed_breaks_off_reaches_the_spool(feed: Feed, failure: Step) -> None:
    # At the TimeoutError the gap 11..12 is requested; with the next round its trades are there.
    assert feed.run([SUBSCRIBED, match(13), TimeoutError(), failure]) == [11, 12, 13]
    assert feed.spool.cursor(f"trade_id|coinbase|{SYMBOL}") == 13


def test_a_gap_that_is_filled_as_the_producer_is_stopped_reaches_the_spool(feed: Feed) -> None:
    def stopped() -> Step:
        feed.stop.set()
        return CLOSED

    assert feed.run([SUBSCRIBED, match(13), TimeoutError(), stopped]) == [11, 12, 13]


@pytest.mark.parametrize("failure", [CLOSED, "no JSON"], ids=["closed", "malformed"])
def test_what_came_before_the_feed_broke_off_needs_no_second_reading(feed: Feed, failure: Step) -> None:
    assert feed.run([SUBSCRIBED, match(11), match(12), failure]) == [11, 12]


def test_a_feed_that_drops_each_connection_is_left_alone_for_longer_and_longer(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random.Random, "uniform", lambda _self, _low, high: high)
    feed.run(*[[SUBSCRIBED, TimeoutError(), CLOSED]] * 5)
    assert feed.delays_s == [0.25, 0.5, 1, 2, 4]
