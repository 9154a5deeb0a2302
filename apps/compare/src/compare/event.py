"""What an event is, by docs/contract.md, in plain Python: the yardstick that is neither engine's own code."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

UUID_FORM = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
FIRST_TIMESTAMP_MS = 946_684_800_000
END_TIMESTAMP_MS = 4_102_444_800_000
MAX_NESTING = 500


@dataclass(frozen=True, slots=True)
class Event:
    """A valid event: its identity, and what candles need of it."""

    event_id: str
    symbol: str
    price: float
    timestamp_ms: int


class _RejectedError(Exception):
    pass


def _no_constant(text: str) -> NoReturn:
    # Python's parser takes NaN and Infinity, JSON does not.
    raise ValueError(text)


class _Number(str):
    """A JSON number as it was written."""

    __slots__ = ()


def classify(value: bytes | None, symbols: Sequence[str], max_event_bytes: int) -> Event | str:
    """Return the event in a record's value, or the reason why it is none."""
    try:
        return _parse(value, symbols, max_event_bytes)
    except _RejectedError as reason:
        return str(reason)


def _parse(value: bytes | None, symbols: Sequence[str], max_event_bytes: int) -> Event:
    document = _document(value, max_event_bytes)
    event_id = _text(document, "event_id")
    if not UUID_FORM.fullmatch(event_id):
        raise _RejectedError("wrong_type:event_id")
    symbol = _text(document, "symbol")
    price = float(_typed(document, "price", _Number))
    if "\0" in _text(document, "user"):
        # PostgreSQL's text cannot hold it.
        raise _RejectedError("wrong_type:user")
    timestamp_ms = _integer(document, "timestamp")
    _integer(document, "produced_at")
    if symbol not in symbols:
        raise _RejectedError("unknown_symbol")
    if not math.isfinite(price) or price <= 0:
        raise _RejectedError("out_of_range:price")
    if not FIRST_TIMESTAMP_MS <= timestamp_ms < END_TIMESTAMP_MS:
        raise _RejectedError("out_of_range:timestamp")
    return Event(event_id.lower(), symbol, price, timestamp_ms)


def _document(value: bytes | None, max_event_bytes: int) -> dict[str, Any]:
    if value is None:
        raise _RejectedError("null_value")
    if len(value) > max_event_bytes:
        raise _RejectedError("too_large")
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        raise _RejectedError("not_utf8") from None
    if _nesting(text) > MAX_NESTING:
        raise _RejectedError("not_json")
    try:
        document = json.loads(text, parse_int=_Number, parse_float=_Number, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise _RejectedError("not_json") from None
    if not isinstance(document, dict):
        raise _RejectedError("not_object")
    return document


def _nesting(text: str) -> int:
    """Return how deep objects and arrays lie in each other, 1 for a plain object; the text may be no JSON at all."""
    depth = deepest = 0
    for bracket in re.findall(r"[\[{\]}]", re.sub(r'"(?:[^"\\]|\\.)*+"', "", text, flags=re.DOTALL)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _typed(document: dict[str, Any], field: str, kind: type[str]) -> str:
    found = document.get(field)
    if found is None:
        raise _RejectedError(f"missing_field:{field}")
    if type(found) is not kind:
        raise _RejectedError(f"wrong_type:{field}")
    return str(found)


def _text(document: dict[str, Any], field: str) -> str:
    return _typed(document, field, str)


def _integer(document: dict[str, Any], field: str) -> int:
    text = _typed(document, field, _Number)
    # Python refuses to read numbers of thousands of digits; 64 bits have 19.
    if not re.fullmatch(r"-?[0-9]{1,19}", text) or not -(2**63) <= int(text) < 2**63:
        raise _RejectedError(f"wrong_type:{field}")
    return int(text)
