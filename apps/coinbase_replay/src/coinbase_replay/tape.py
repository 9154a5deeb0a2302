"""Tapes: a recording of feed messages as NDJSON, read with clear errors."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_DECIMAL = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND_US = 1_000_000


class TapeError(Exception):
    """The tape cannot be played; the text names file and line."""


@dataclass(frozen=True, slots=True)
class TapeTrade:
    """One trade of a tape, `offset_us` microseconds behind the tape's start."""

    offset_us: int
    price: str
    size: str
    side: str


@dataclass(frozen=True, slots=True)
class Tape:
    """Per product its trades, ascending in time. `duration_us` is the period when the tape is played in a loop."""

    duration_us: int
    products: Mapping[str, tuple[TapeTrade, ...]]


def load_tape(path: Path) -> Tape:
    """Read the `match` messages of a recording; other feed messages are passed over.

    Raises TapeError.
    """
    found: dict[str, dict[int, tuple[int, str, str, str]]] = {}
    number = 0
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                number += 1
                if not line.strip():
                    continue
                message = _decode(line)
                # The last match happened before the recording began: it would be followed by an empty stretch.
                if message.get("type") == "match":
                    product, trade_id, time_us, price, size, side = _trade(message)
                    if trade_id in found.setdefault(product, {}):
                        raise ValueError(f"trade_id {trade_id} of {product} came before")
                    found[product][trade_id] = (time_us, price, size, side)
    except OSError as error:
        raise TapeError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise TapeError(f"{path}:{number}: {error}") from error
    if not found:
        raise TapeError(f"{path}: holds no `match` message")
    begin_us = min(trade[0] for trades in found.values() for trade in trades.values())
    end_us = max(trade[0] for trades in found.values() for trade in trades.values())
    products = {}
    for product, trades in found.items():
        ordered: list[TapeTrade] = []
        for trade_id in sorted(trades):
            time_us, price, size, side = trades[trade_id]
            # Ids say in which order trades happened; a clock that went back for a moment does not.
            offset_us = max(time_us - begin_us, ordered[-1].offset_us if ordered else 0)
            ordered.append(TapeTrade(offset_us, price, size, side))
        products[product] = tuple(ordered)
    duration_us = ((end_us - begin_us) // _SECOND_US + 1) * _SECOND_US
    return Tape(duration_us, products)


def write_tape(path: Path, tape: Tape, begin_us: int, first_trade_id: int = 1) -> int:
    """Write `tape` as a recording that begins at `begin_us` (epoch microseconds): the number of messages."""
    rows = [
        (trade.offset_us, product, first_trade_id + index, trade)
        for product, trades in tape.products.items()
        for index, trade in enumerate(trades)
    ]
    rows.sort(key=lambda row: row[:3])
    with path.open("w", encoding="utf-8") as file:
        for sequence, (offset_us, product, trade_id, trade) in enumerate(rows, start=1):
            message = {
                "type": "match",
                "trade_id": trade_id,
                "side": trade.side,
                "size": trade.size,
                "price": trade.price,
                "product_id": product,
                "sequence": sequence,
                "time": iso_time(begin_us + offset_us),
            }
            file.write(json.dumps(message, separators=(",", ":")) + "\n")
    return len(rows)


def iso_time(time_us: int) -> str:
    """Epoch microseconds as the exchange writes times: 2026-07-07T22:58:16.156605Z."""
    seconds, us = divmod(time_us, _SECOND_US)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{us:06d}Z"


def _decode(line: str) -> dict[str, object]:
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("is no JSON object")
    return message


def _trade(message: Mapping[str, object]) -> tuple[str, int, int, str, str, str]:
    product, trade_id, side = message.get("product_id"), message.get("trade_id"), message.get("side")
    if not isinstance(product, str) or not product:
        raise ValueError(f"product_id is no string: {product!r}")
    if not isinstance(trade_id, int) or isinstance(trade_id, bool) or trade_id < 0:
        raise ValueError(f"trade_id is no integer: {trade_id!r}")
    if side not in ("buy", "sell"):
        raise ValueError(f"side is neither buy nor sell: {side!r}")
    price, size = (_decimal(message, key) for key in ("price", "size"))
    time = message.get("time")
    if not isinstance(time, str):
        raise ValueError(f"time is no string: {time!r}")
    moment = datetime.fromisoformat(time)
    if moment.tzinfo is None:
        raise ValueError(f"time has no zone: {time!r}")
    delta = moment - _EPOCH
    return product, trade_id, (delta.days * 86_400 + delta.seconds) * _SECOND_US + delta.microseconds, price, size, side


def _decimal(message: Mapping[str, object], key: str) -> str:
    text = message.get(key)
    if not isinstance(text, str) or not _DECIMAL.fullmatch(text) or not float(text) > 0:
        raise ValueError(f"{key} is no decimal string > 0: {text!r}")
    return text
