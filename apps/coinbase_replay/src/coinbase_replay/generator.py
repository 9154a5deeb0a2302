"""Plausible trades for a seed: clustered arrivals, same-millisecond fills of one order, prices that walk in ticks."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from coinbase_replay.tape import Tape, TapeTrade

_SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True)
class _Market:
    """`price_ticks` where the walk begins, a tick being 10^-`decimals` dollars; `orders_per_s` taker orders."""

    decimals: int
    price_ticks: int
    orders_per_s: float
    volatility_ticks: float
    size: float


# Rates and prices near those of a minute recorded in July 2026 (BTC 5.7, ETH 1.5 trades/s) or guessed after them.
_MARKETS = {
    "BTC-USD": _Market(2, 6_351_946, 2.4, 120.0, 0.01),
    "ETH-USD": _Market(2, 177_492, 0.8, 8.0, 0.2),
    "SOL-USD": _Market(2, 7_815, 0.6, 1.2, 3.0),
    "ADA-USD": _Market(4, 4_312, 0.3, 1.5, 400.0),
    "DOGE-USD": _Market(5, 10_243, 0.35, 3.0, 900.0),
}
_OTHER = _Market(2, 10_000, 0.3, 2.0, 1.0)


def generate(seed: int, duration_s: int, products: Iterable[str]) -> Tape:
    """A tape of `duration_s` seconds, always the same for the same arguments.

    Each product has its own random numbers: its trades do not depend on which others are generated.
    """
    if duration_s < 1:
        raise ValueError("duration_s must be >= 1")
    return Tape(
        duration_s * _SECOND_US, {product: _trades(seed, duration_s * _SECOND_US, product) for product in products}
    )


def _trades(seed: int, duration_us: int, product: str) -> tuple[TapeTrade, ...]:
    # Reproducible on purpose; nothing here is a secret.
    rng = random.Random(f"{seed}|{product}|{duration_us}")  # noqa: S311
    market = _MARKETS.get(product, _OTHER)
    orders = _arrivals(rng, market.orders_per_s, duration_us) or [0]
    walk = _bridge(rng, len(orders), market.volatility_ticks)
    trades: list[TapeTrade] = []
    for at_us, moved in zip(orders, walk, strict=True):
        side = rng.choice(("buy", "sell"))
        ticks = max(1, market.price_ticks + moved)
        # A taker order eats into the book: a few fills in one millisecond, each at the last one's price or worse.
        for _ in range(min(12, 1 + int(rng.expovariate(0.9)))):
            size = max(1, int(rng.lognormvariate(0, 1.4) * market.size * 1e8 / 4))
            offset_us = min(duration_us - 1, at_us + rng.randrange(0, 900))
            if trades:
                offset_us = max(offset_us, trades[-1].offset_us)
            trades.append(TapeTrade(offset_us, _digits(ticks, market.decimals), _digits(size, 8), side))
            if rng.random() < 0.3:
                # The side is the maker's: a maker who sells is eaten upwards.
                ticks = max(1, ticks + (1 if side == "sell" else -1))
    return tuple(trades)


def _arrivals(rng: random.Random, orders_per_s: float, duration_us: int) -> list[int]:
    """Clusters: parents come by themselves, and some draw a burst of followers within a second or two."""
    followers = 0.8
    times: list[int] = []
    at_us = 0.0
    while True:
        at_us += rng.expovariate(orders_per_s / (1 + followers)) * _SECOND_US
        if at_us >= duration_us:
            break
        times.append(int(at_us))
        if rng.random() < 0.2:
            burst_us = at_us
            for _ in range(int(rng.expovariate(0.2 / followers))):
                burst_us += rng.expovariate(8.0) * _SECOND_US
                if burst_us < duration_us:
                    times.append(int(burst_us))
    return sorted(times)


def _bridge(rng: random.Random, steps: int, volatility_ticks: float) -> list[int]:
    """A random walk that ends where it began: a loop of the tape shows no jump."""
    positions, position = [], 0.0
    for _ in range(steps):
        position += rng.gauss(0, volatility_ticks)
        positions.append(position)
    return [round(value - position * (index + 1) / steps) for index, value in enumerate(positions)]


def _digits(units: int, decimals: int) -> str:
    whole, fraction = divmod(units, 10**decimals)
    return f"{whole}.{fraction:0{decimals}d}"
