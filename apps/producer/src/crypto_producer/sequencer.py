"""Per product: trades in the order of their ids, each once, and the gaps between them. Pure logic.

A trade behind a gap waits until the gap is filled or given up, so what leaves here is ascending. Then the largest id
that left is all the state that has to survive a crash.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from crypto_producer.event import Trade

# How far behind what was seen before a new connection may start (another server of the same exchange).
_LAG_TOLERATED = 1_000


@dataclass(frozen=True, slots=True)
class Gap:
    """The ids `low`..`high`, both included, are missing."""

    product_id: str
    low: int
    high: int

    @property
    def size(self) -> int:
        """How many trades are missing."""
        return self.high - self.low + 1


class Sequencer:
    """Orders the trades of one product.

    `high` is the largest trade id that has left (None: none yet). After each call `gap` is the gap that is to be
    filled, or None; `fill` ends it.
    """

    def __init__(self, product_id: str, high: int | None, max_buffered: int) -> None:
        self.product_id = product_id
        self.high = high
        self.gap: Gap | None = None
        self.duplicates = 0
        self.ids_ran_backwards = False
        self._max_buffered = max_buffered
        self._buffer: deque[Trade] = deque()
        self._claimed: int | None = None

    def connected(self) -> None:
        """A new connection: what heartbeats of the old one said is void."""
        self._claimed = None
        self.ids_ran_backwards = False

    def last_match(self, trade: Trade) -> list[Trade]:
        """The newest trade there was when the connection was made: the trades that may leave now."""
        self.ids_ran_backwards = self.high is not None and trade.trade_id < self.high - _LAG_TOLERATED
        return self.trade(trade)

    def trade(self, trade: Trade) -> list[Trade]:
        """A trade arrived: the trades that may leave now."""
        if self.gap is not None:
            # Beyond the bound the newest are let go: they become the next gap and are read again then.
            last = self._buffer[-1].trade_id if self._buffer else self.gap.high
            if trade.trade_id > last and len(self._buffer) < self._max_buffered:
                self._buffer.append(trade)
            elif trade.trade_id <= last:
                self.duplicates += 1
            return []
        if self.high is None or trade.trade_id == self.high + 1:
            self.high = trade.trade_id
            return [trade]
        if trade.trade_id <= self.high:
            self.duplicates += 1
            return []
        self.gap = Gap(self.product_id, self.high + 1, trade.trade_id - 1)
        self._buffer.append(trade)
        return []

    def heartbeat(self, last_trade_id: int) -> None:
        """A heartbeat said that `last_trade_id` has happened.

        Its trade may still be on its way, so a gap is what the heartbeat *before* this one promised in vain.
        """
        promised, self._claimed = self._claimed, last_trade_id
        if self.high is None or self.gap is not None:
            return
        if promised is not None and promised > self.high:
            self.gap = Gap(self.product_id, self.high + 1, promised)

    def fill(self, trades: Iterable[Trade]) -> list[Trade]:
        """The gap is over: `trades` of it were found, ascending; the trades that may leave now."""
        if self.gap is None:
            raise ValueError(f"{self.product_id}: there is no gap to fill")
        low, self.high = self.gap.low, self.gap.high
        ready = [trade for trade in trades if low <= trade.trade_id <= self.high]
        self.gap = None
        waiting, self._buffer = self._buffer, deque()
        for trade in waiting:
            ready += self.trade(trade)
        return ready
