"""The candles that must come of what the generator sent, computed apart from both engines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from compare.lab import Candles
from compare.load import event_time_ms, is_malformed, price_parts

WINDOW_MS = 60_000
# Window, watermark's delay, and what an engine needs to write one that is closed, in event time.
CLOSED_AFTER_MS = 60_000 + 120_000 + 60_000


def expected(
    sent: Iterable[tuple[int, int, Sequence[int], float]], symbols: Sequence[str], malformed_every: int
) -> tuple[Candles, set[tuple[str, int]]]:
    """Return all candles, and the keys of those that every engine must have written.

    `sent` are loads in their order: (first event number, start in epoch us, offsets in us, event time speed).
    """
    groups: dict[tuple[str, int], list[float]] = {}
    newest_ms = 0
    for first, start_us, offsets_us, speed in sent:
        for number, offset_us in enumerate(offsets_us):
            index = first + number
            if is_malformed(index, malformed_every):
                continue
            event_ms = event_time_ms(start_us, offset_us, speed)
            newest_ms = max(newest_ms, event_ms)
            dollars, cents = price_parts(index)
            key = (symbols[index % len(symbols)], event_ms // WINDOW_MS * WINDOW_MS)
            groups.setdefault(key, []).append(float(f"{dollars}.{cents:02d}"))
    made = {key: (prices[0], max(prices), min(prices), prices[-1], len(prices)) for key, prices in groups.items()}
    return made, {key for key in made if key[1] + CLOSED_AFTER_MS <= newest_ms}


def compare(found: Candles, wanted: Candles, closed: set[tuple[str, int]]) -> dict[str, Any]:
    """Compare an engine's candles with those that were to come; `ok`: none is missing, different or strange."""
    missing = closed - found.keys()
    different = [key for key in found.keys() & wanted.keys() if found[key] != wanted[key]]
    strange = found.keys() - wanted.keys()
    return {
        "compared": len(found.keys() & wanted.keys()), "closed": len(closed), "missing": len(missing),
        "different": len(different), "strange": len(strange), "ok": not (missing or different or strange),
    }  # fmt: skip
