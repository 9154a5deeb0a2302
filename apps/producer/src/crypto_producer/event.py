"""Events as docs/contract.md defines them, and how they are made of what a source says."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from urllib.parse import urlsplit
from uuid import UUID, uuid5

_JSON_NUMBER = re.compile(r"(0|[1-9][0-9]*)(\.[0-9]+)?")
_MAX_DIGITS = 40


class MalformedMessageError(ValueError):
    """A source sent something that cannot be made into an event."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a source has been read, durable together with the event that moved it there."""

    key: str
    value: int


@dataclass(frozen=True, slots=True)
class Event:
    """One event, ready to be spooled: `value` is the Kafka record's value (UTF-8 JSON)."""

    event_id: UUID
    symbol: str
    value: bytes
    cursor: Cursor | None = None


@dataclass(frozen=True, slots=True)
class Trade:
    """One trade of the exchange: `price` and `size` are the decimal digits exchanged, `time_ms` is epoch ms."""

    product_id: str
    trade_id: int
    price: str
    size: str
    side: str
    time_ms: int


def uuid7(now_ms: int | None = None) -> UUID:
    """UUIDv7 (RFC 9562, section 5.7): 48 bits of epoch milliseconds, then 74 random bits."""
    if now_ms is None:
        now_ms = time.time_ns() // 1_000_000
    random = secrets.randbits(74)
    bits = (now_ms & (2**48 - 1)) << 80 | 0x7 << 76 | (random >> 62) << 64 | 0b10 << 62 | (random & (2**62 - 1))
    return UUID(int=bits)


def trade_event_id(namespace: UUID, user: str, symbol: str, trade_id: int) -> UUID:
    """The identity of a trade: the same for whoever produces it, as often as it is produced."""
    return uuid5(namespace, f"{user}|{symbol}|{trade_id}")


def user_of_url(url: str) -> str:
    """`coinbase` for coinbase.com and its subdomains, else `replay`."""
    host = (urlsplit(url).hostname or "").rstrip(".").lower()
    return "coinbase" if host == "coinbase.com" or host.endswith(".coinbase.com") else "replay"


def json_number(text: object, what: str) -> str:
    """A decimal string as a JSON number with exactly its digits (a float would add noise).

    Raises MalformedMessageError where `text` is no finite number > 0.
    """
    if not isinstance(text, str) or len(text) > _MAX_DIGITS:
        raise MalformedMessageError(f"{what} is no decimal string: {text!r:.60}")
    if not _JSON_NUMBER.fullmatch(text):
        try:
            number = Decimal(text)
        except InvalidOperation:
            raise MalformedMessageError(f"{what} is no number: {text!r}") from None
        if not number.is_finite() or abs(number.adjusted()) > _MAX_DIGITS:
            raise MalformedMessageError(f"{what} is out of range: {text!r}")
        text = format(number, "f")
    if Decimal(text) <= 0:
        raise MalformedMessageError(f"{what} is not > 0: {text!r}")
    return text


def parse_time_ms(text: object) -> int:
    """An ISO 8601 time with a zone as epoch milliseconds (rounded down)."""
    if not isinstance(text, str):
        raise MalformedMessageError(f"time is no string: {text!r:.60}")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise MalformedMessageError(f"time is not ISO 8601: {text!r:.60}") from None
    if moment.tzinfo is None:
        raise MalformedMessageError(f"time has no zone: {text!r}")
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return delta.days * 86_400_000 + delta.seconds * 1_000 + delta.microseconds // 1_000


def parse_trade(message: Mapping[str, object], product_id: str | None = None) -> Trade:
    """A `match` or `last_match` of the feed, or (with `product_id`) an entry of `/products/<id>/trades`.

    Raises MalformedMessageError.
    """
    product = product_id if product_id is not None else message.get("product_id")
    trade_id = message.get("trade_id")
    side = message.get("side")
    if not isinstance(product, str):
        raise MalformedMessageError(f"product_id is no string: {product!r:.60}")
    if not isinstance(trade_id, int) or isinstance(trade_id, bool) or not 0 < trade_id < 2**63:
        raise MalformedMessageError(f"trade_id is no positive integer: {trade_id!r:.60}")
    if side not in ("buy", "sell"):
        raise MalformedMessageError(f"side is neither buy nor sell: {side!r:.60}")
    return Trade(
        product_id=product,
        trade_id=trade_id,
        price=json_number(message.get("price"), "price"),
        size=json_number(message.get("size"), "size"),
        side=str(side),
        time_ms=parse_time_ms(message.get("time")),
    )


def trade_event(namespace: UUID, user: str, trade: Trade, cursor: Cursor | None, produced_at_us: int) -> Event:
    """The event of a trade."""
    event_id = trade_event_id(namespace, user, trade.product_id, trade.trade_id)
    value = (
        f'{{"event_id":"{event_id}","symbol":{json.dumps(trade.product_id)},"price":{trade.price},'
        f'"user":{json.dumps(user)},"timestamp":{trade.time_ms},"produced_at":{produced_at_us},'
        f'"trade_id":{trade.trade_id},"size":{trade.size},"side":"{trade.side}"}}'
    )
    return Event(event_id, trade.product_id, value.encode(), cursor)


def price_event(user: str, symbol: str, price: str, timestamp_ms: int, produced_at_us: int) -> Event:
    """The event of a spot price, which has no identity and no time of its own."""
    event_id = uuid7(produced_at_us // 1_000)
    value = (
        f'{{"event_id":"{event_id}","symbol":{json.dumps(symbol)},"price":{json_number(price, "price")},'
        f'"user":{json.dumps(user)},"timestamp":{timestamp_ms},"produced_at":{produced_at_us}}}'
    )
    return Event(event_id, symbol, value.encode())


def now_us() -> int:
    """The wall clock, epoch microseconds."""
    return time.time_ns() // 1_000
