"""The endless, periodic timeline: what has happened by a given instant follows from that instant alone.

Loop k's trade i of a product has the id first_id + k * trades_per_loop + i, and happens at
anchor + (k * duration + offset_i) / speed, rounded up to a microsecond. Nothing is remembered, so a restart goes on
with the same ids and times, and history can be listed back to the anchor. All arithmetic is exact.
"""

from __future__ import annotations

import uuid
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import accumulate

from coinbase_replay.tape import Tape, TapeTrade, iso_time

# An anchor one second later begins 10,000 ids later: ids of an older anchor do not come again, as long as a product has
# fewer than 10,000 trades a second.
IDS_PER_ANCHOR_SECOND = 10_000
_SEQUENCE_STEP = 64
_ORDER_NAMESPACE = uuid.UUID("2f1d7d0a-5a51-5c0e-8d3c-3a5e2f0a9b10")


@dataclass(frozen=True, slots=True)
class TradeAt:
    """A trade that happens at `time_us` (epoch microseconds)."""

    product_id: str
    trade_id: int
    sequence: int
    time_us: int
    price: str
    size: str
    side: str

    def feed_message(self, kind: str) -> dict[str, object]:
        """As the feed says it; `kind` is `match` or `last_match`."""
        return {
            "type": kind,
            "trade_id": self.trade_id,
            "maker_order_id": self._order_id("maker"),
            "taker_order_id": self._order_id("taker"),
            "side": self.side,
            "size": self.size,
            "price": self.price,
            "product_id": self.product_id,
            "sequence": self.sequence,
            "time": iso_time(self.time_us),
        }

    def listing(self) -> dict[str, object]:
        """As `/products/<id>/trades` lists it."""
        return {
            "trade_id": self.trade_id,
            "side": self.side,
            "size": self.size,
            "price": self.price,
            "time": iso_time(self.time_us),
        }

    def _order_id(self, role: str) -> str:
        return str(uuid.uuid5(_ORDER_NAMESPACE, f"{role}|{self.product_id}|{self.trade_id}"))


class Timeline:
    """One product's timeline. `index` counts its trades from the anchor on, from 0."""

    def __init__(
        self, product_id: str, trades: Sequence[TapeTrade], duration_us: int, anchor_s: int, speed: float
    ) -> None:
        if not trades or trades[-1].offset_us >= duration_us:
            raise ValueError(f"{product_id}: the tape must hold trades, all of them before its end")
        self.product_id = product_id
        self.first_id = anchor_s * IDS_PER_ANCHOR_SECOND
        self._trades = trades
        self._offsets_us = [trade.offset_us for trade in trades]
        self._sizes = [Decimal(0), *accumulate(Decimal(trade.size) for trade in trades)]
        self._duration_us = duration_us
        self._anchor_us = anchor_s * 1_000_000
        # The decimal a person wrote, not its nearest binary float.
        self._speed = Fraction(str(speed))
        rate_per_s = self._speed * len(trades) * 1_000_000 / duration_us
        if rate_per_s >= IDS_PER_ANCHOR_SECOND:
            raise ValueError(
                f"{product_id}: {float(rate_per_s):.0f} trades/s is too fast, ids allow {IDS_PER_ANCHOR_SECOND}"
            )

    def count(self, now_us: int) -> int:
        """How many trades have happened by `now_us` (epoch microseconds)."""
        elapsed_us = now_us - self._anchor_us
        if elapsed_us < 0:
            return 0
        position_us = elapsed_us * self._speed.numerator // self._speed.denominator
        loop, offset_us = divmod(position_us, self._duration_us)
        return loop * len(self._trades) + bisect_right(self._offsets_us, offset_us)

    def time_us(self, index: int) -> int:
        """When the trade happens: the first microsecond at which `count` includes it."""
        loop, number = divmod(index, len(self._trades))
        position_us = loop * self._duration_us + self._offsets_us[number]
        return self._anchor_us - (-position_us * self._speed.denominator // self._speed.numerator)

    def trade(self, index: int) -> TradeAt:
        """The trade number `index`. Raises IndexError below 0."""
        if index < 0:
            raise IndexError(f"{self.product_id}: there is no trade before the anchor")
        trade = self._trades[index % len(self._trades)]
        trade_id = self.first_id + index
        return TradeAt(
            self.product_id,
            trade_id,
            trade_id * _SEQUENCE_STEP,
            self.time_us(index),
            trade.price,
            trade.size,
            trade.side,
        )

    def heartbeat(self, emitted: int, now_us: int) -> dict[str, object]:
        """The heartbeat of a feed that has sent `emitted` trades; `sequence` lies between its trades'."""
        last_id = self.first_id + emitted - 1 if emitted else 0
        last_us = self.time_us(emitted - 1) if emitted else now_us
        quiet_s = max(0, now_us - last_us) // 1_000_000
        return {
            "type": "heartbeat",
            "last_trade_id": last_id,
            "product_id": self.product_id,
            "sequence": last_id * _SEQUENCE_STEP + min(1 + quiet_s, _SEQUENCE_STEP - 1),
            "time": iso_time(now_us - now_us % 1_000_000),
        }

    def volume(self, now_us: int, window_us: int = 86_400_000_000) -> str:
        """The sum of the sizes traded in the `window_us` before `now_us`."""
        return f"{self._size_of(self.count(now_us)) - self._size_of(self.count(now_us - window_us)):f}"

    def _size_of(self, count: int) -> Decimal:
        loop, number = divmod(count, len(self._trades))
        return loop * self._sizes[-1] + self._sizes[number]

    def page(self, count: int, limit: int, after: int | None, before: int | None) -> list[TradeAt]:
        """Of the first `count` trades the newest `limit` with before < trade_id < after, newest first."""
        newest = count - 1 if after is None else min(count - 1, after - 1 - self.first_id)
        oldest = 0 if before is None else max(0, before + 1 - self.first_id)
        return [self.trade(index) for index in range(newest, max(oldest, newest - limit + 1) - 1, -1)]


def make_timelines(tape: Tape, anchor_s: int, speed: float) -> dict[str, Timeline]:
    """The timelines of all products of `tape`."""
    return {
        product: Timeline(product, trades, tape.duration_us, anchor_s, speed)
        for product, trades in tape.products.items()
    }
