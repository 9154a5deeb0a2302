"""Events: identity, exact numbers, times."""

from __future__ import annotations

import json
from decimal import Decimal
from uuid import UUID, uuid5

import pytest
from crypto_producer.config import EVENT_ID_NAMESPACE
from crypto_producer.event import (
    Cursor,
    MalformedMessageError,
    json_number,
    parse_time_ms,
    parse_trade,
    price_event,
    trade_event,
    user_of_url,
    uuid7,
)
from hypothesis import given
from hypothesis import strategies as st

MATCH = {
    "type": "match",
    "trade_id": 7,
    "side": "sell",
    "size": "0.00000015",
    "price": "63519.28",
    "product_id": "BTC-USD",
    "time": "2026-07-07T22:58:17.204117Z",
}


def test_trade_event_follows_the_contract() -> None:
    event = trade_event(EVENT_ID_NAMESPACE, "replay", parse_trade(MATCH), Cursor("k", 7), 1_783_465_097_300_001)
    value = json.loads(event.value, parse_float=Decimal)
    assert value == {
        "event_id": str(uuid5(EVENT_ID_NAMESPACE, "replay|BTC-USD|7")),
        "symbol": "BTC-USD",
        "price": Decimal("63519.28"),
        "user": "replay",
        "timestamp": 1_783_465_097_204,
        "produced_at": 1_783_465_097_300_001,
        "trade_id": 7,
        "size": Decimal("0.00000015"),
        "side": "sell",
    }
    assert event.event_id == UUID(value["event_id"])
    assert event.cursor == Cursor("k", 7)


def test_price_event_keeps_the_digits_exchanged() -> None:
    event = price_event("coinbase", "BTC-USD", "64090.00", 1_783_465_097_204, 1_783_465_097_204_999)
    assert b'"price":64090.00,' in event.value
    value = json.loads(event.value)
    assert event.event_id == UUID(value["event_id"])
    assert event.event_id.version == 7
    assert "trade_id" not in value


@given(st.integers(0, 2**48 - 1))
def test_uuid7_has_time_version_and_variant(now_ms: int) -> None:
    made = uuid7(now_ms)
    assert made.version == 7
    assert made.variant == "specified in RFC 4122"
    assert made.int >> 80 == now_ms


def test_uuid7_does_not_repeat() -> None:
    assert len({uuid7(1) for _ in range(10_000)}) == 10_000


@given(st.decimals(min_value=Decimal("1e-12"), max_value=Decimal("1e12"), places=12))
def test_numbers_survive_exactly(number: Decimal) -> None:
    text = json_number(str(number), "price")
    assert json.loads(text, parse_float=Decimal, parse_int=Decimal) == number


@pytest.mark.parametrize(
    "text", ["", "0", "0.0", "-1", "abc", "NaN", "Infinity", "1e400", "1,5", "1" * 50, None, 1.5, True]
)
def test_other_prices_are_refused(text: object) -> None:
    with pytest.raises(MalformedMessageError):
        json_number(text, "price")


@given(st.text(max_size=30))
def test_whatever_the_text_a_number_is_json_or_refused(text: str) -> None:
    try:
        number = json_number(text, "price")
    except MalformedMessageError:
        return
    assert json.loads(number) >= 0


@given(
    st.dictionaries(
        st.sampled_from(["type", "trade_id", "side", "size", "price", "product_id", "time"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.lists(st.integers()),
    )
)
def test_a_malformed_trade_raises_one_kind_of_error(fields: dict[str, object]) -> None:
    try:
        trade = parse_trade({**MATCH, **fields})
    except MalformedMessageError:
        return
    json.loads(trade_event(EVENT_ID_NAMESPACE, "replay", trade, None, 1).value)


def test_times_are_rounded_down_to_milliseconds() -> None:
    assert parse_time_ms("1970-01-01T00:00:01.999999Z") == 1_999
    assert parse_time_ms("1970-01-01T01:00:00+01:00") == 0
    for wrong in ("1970-01-01T00:00:00", "yesterday", None, 5):
        with pytest.raises(MalformedMessageError):
            parse_time_ms(wrong)


@pytest.mark.parametrize(
    ("url", "user"),
    [
        ("https://api.coinbase.com", "coinbase"),
        ("wss://ws-feed.exchange.coinbase.com", "coinbase"),
        ("https://coinbase.com:443/x", "coinbase"),
        ("https://API.Coinbase.COM", "coinbase"),
        ("http://10.0.0.5:8090", "replay"),
        ("https://notcoinbase.com", "replay"),
        ("https://coinbase.com.example.org", "replay"),
        ("http://replay.lab/?coinbase.com", "replay"),
    ],
)
def test_user_says_who_the_source_is(url: str, user: str) -> None:
    assert user_of_url(url) == user
