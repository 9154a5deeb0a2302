"""What the replay's server says to clients, without a network where that is possible, on loopback else."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType
from aiohttp.test_utils import TestClient, TestServer
from coinbase_replay.cli import build_timelines
from coinbase_replay.config import LimitsConfig, TimelineConfig
from coinbase_replay.server import RateLimit, Replay, SubscriptionError, parse_subscription
from hypothesis import given
from hypothesis import strategies as st

PRODUCTS = {"BTC-USD": None, "ETH-USD": None}


@asynccontextmanager
async def running(**limits: float) -> AsyncIterator[tuple[TestClient, TestClient]]:
    """A replay at speed 20, ten minutes after its anchor: clients of the public and of the admin port."""
    timelines = build_timelines(TimelineConfig(anchor=int(time.time()) - 600, speed=20.0, duration_s=60))
    replay = Replay(timelines, LimitsConfig.model_validate(limits))
    tasks = [asyncio.create_task(replay.pump(product)) for product in timelines]
    tasks.append(asyncio.create_task(replay.beat()))
    public, admin = TestServer(replay.public_application()), TestServer(replay.admin_application())
    try:
        async with TestClient(public) as client, TestClient(admin) as admin_client:
            yield client, admin_client
    finally:
        for task in tasks:
            task.cancel()


def run(test: Callable[[TestClient, TestClient], Awaitable[None]], **limits: float) -> None:
    async def main() -> None:
        async with running(**limits) as (client, admin), asyncio.timeout(60):
            await test(client, admin)

    asyncio.run(main())


async def subscribe(socket: ClientWebSocketResponse, *products: str) -> None:
    await socket.send_json({"type": "subscribe", "product_ids": list(products), "channels": ["matches", "heartbeat"]})


def test_rest_paths_answer_as_coinbase_does() -> None:
    async def test(client: TestClient, _admin: TestClient) -> None:
        spot = await (await client.get("/v2/prices/BTC-USD/spot")).json()
        assert spot["data"].keys() == {"amount", "base", "currency"}
        assert (spot["data"]["base"], spot["data"]["currency"]) == ("BTC", "USD")
        ticker = await (await client.get("/products/ETH-USD/ticker")).json()
        assert ticker.keys() == {"ask", "bid", "volume", "trade_id", "price", "size", "time"}
        assert float(ticker["bid"]) < float(ticker["price"]) < float(ticker["ask"])
        assert (await (await client.get("/time")).json()).keys() == {"iso", "epoch"}
        for path, body in (
            ("/products/XXX-USD/trades", {"message": "NotFound"}),
            ("/products/XXX-USD/ticker", {"message": "NotFound"}),
            ("/nothing", {"message": "NotFound"}),
            ("/v2/prices/XXX-USD/spot", {"errors": [{"id": "not_found", "message": "Invalid base currency"}]}),
        ):
            answer = await client.get(path)
            assert (answer.status, await answer.json()) == (404, body)

    run(test)


def test_trades_are_paged_back() -> None:
    async def test(client: TestClient, _admin: TestClient) -> None:
        first = await client.get("/products/BTC-USD/trades", params={"limit": 10})
        page = await first.json()
        ids = [trade["trade_id"] for trade in page]
        assert ids == list(range(ids[0], ids[0] - 10, -1))
        assert first.headers["CB-BEFORE"] == str(ids[0])
        assert first.headers["CB-AFTER"] == str(ids[-1])
        second = await client.get("/products/BTC-USD/trades", params={"limit": 5, "after": ids[-1]})
        assert [trade["trade_id"] for trade in await second.json()] == list(range(ids[-1] - 1, ids[-1] - 6, -1))
        for wrong in ({"limit": "x"}, {"limit": 1_001}, {"after": "-1"}):
            assert (await client.get("/products/BTC-USD/trades", params=wrong)).status == 400

    run(test, burst=100)


def test_too_many_requests_are_refused_for_a_while() -> None:
    async def test(client: TestClient, admin: TestClient) -> None:
        answers = [await client.get("/products/BTC-USD/ticker") for _ in range(6)]
        assert {answer.status for answer in answers[:3]} == {200}
        refused = [answer for answer in answers if answer.status == 429]
        assert refused
        assert int(refused[0].headers["Retry-After"]) >= 1
        assert await refused[0].json() == {"message": "Public rate limit exceeded"}
        await admin.post("/_admin/rate_limit", json={"seconds": 30})
        answer = await client.get("/v2/prices/BTC-USD/spot")
        assert answer.status == 429
        assert (await answer.json())["errors"][0]["id"] == "rate_limit_exceeded"
        await admin.post("/_admin/clear")
        await admin.post("/_admin/server_error", json={"seconds": 30})
        assert (await client.get("/v2/prices/BTC-USD/spot")).status == 503

    run(test, burst=3, requests_per_s=0.5)


def test_the_feed_is_contiguous_from_the_last_match_on() -> None:
    async def test(client: TestClient, _admin: TestClient) -> None:
        async with client.ws_connect("/") as socket:
            await subscribe(socket, "BTC-USD", "ETH-USD")
            kinds: list[str] = []
            ids: dict[str, list[int]] = {}
            while kinds.count("heartbeat") < 4:
                message = await socket.receive_json()
                kinds.append(message["type"])
                if message["type"] in {"last_match", "match"}:
                    ids.setdefault(message["product_id"], []).append(message["trade_id"])
                if message["type"] == "heartbeat":
                    assert message["last_trade_id"] == ids[message["product_id"]][-1]
            assert kinds[:3] == ["subscriptions", "last_match", "last_match"]
            for product, seen in ids.items():
                assert seen == list(range(seen[0], seen[0] + len(seen))), product
            assert len(ids["BTC-USD"]) > 10

    run(test)


def test_an_injected_gap_is_missing_from_the_feed_and_listed_by_rest() -> None:
    async def test(client: TestClient, admin: TestClient) -> None:
        async with client.ws_connect("/") as socket:
            await subscribe(socket, "BTC-USD")
            assert (await admin.post("/_admin/gap", json={"product_id": "BTC-USD", "count": 5})).status == 200
            ids: list[int] = []
            while len(ids) < 2 or ids[-1] == ids[-2] + 1:
                message = await socket.receive_json()
                if message["type"] in {"last_match", "match"}:
                    ids.append(message["trade_id"])
            assert ids[-1] - ids[-2] == 6
            listed = await (await client.get("/products/BTC-USD/trades", params={"after": ids[-1], "limit": 5})).json()
            assert [trade["trade_id"] for trade in listed] == list(range(ids[-1] - 1, ids[-2], -1))

    run(test)


def test_connections_are_dropped_on_request() -> None:
    async def test(client: TestClient, admin: TestClient) -> None:
        async with client.ws_connect("/") as socket:
            await subscribe(socket, "BTC-USD")
            await socket.receive_json()
            assert await (await admin.post("/_admin/drop")).json() == {"dropped": 1}
            while (await socket.receive()).type is WSMsgType.TEXT:
                pass
            assert socket.closed

    run(test)


def test_stalled_heartbeats_stop_while_matches_go_on() -> None:
    async def test(client: TestClient, admin: TestClient) -> None:
        await admin.post("/_admin/stall_heartbeats", json={"seconds": 60})
        async with client.ws_connect("/") as socket:
            await subscribe(socket, "BTC-USD")
            kinds = [(await socket.receive_json())["type"] for _ in range(150)]
            assert "heartbeat" not in kinds
            assert kinds.count("match") == 148

    run(test)


def test_who_does_not_subscribe_is_disconnected() -> None:
    async def test(client: TestClient, _admin: TestClient) -> None:
        async with client.ws_connect("/") as socket:
            message = await socket.receive()
            assert message.type is WSMsgType.CLOSE
            assert message.data == 1008

    run(test, subscribe_within_s=0.3)


def test_a_refused_subscription_gets_an_error() -> None:
    async def test(client: TestClient, _admin: TestClient) -> None:
        async with client.ws_connect("/") as socket:
            await subscribe(socket, "XXX-USD")
            assert await socket.receive_json() == {
                "type": "error",
                "message": "Failed to subscribe",
                "reason": "XXX-USD is not a valid product",
            }

    run(test)


def test_wrong_admin_requests_are_explained() -> None:
    async def test(_client: TestClient, admin: TestClient) -> None:
        for path, body in (
            ("gap", {"product_id": "XXX-USD", "count": 1}),
            ("gap", {"product_id": "BTC-USD", "count": 0}),
            ("rate_limit", {"seconds": -1}),
            ("rate_limit", {}),
            ("server_error", []),
        ):
            answer = await admin.post(f"/_admin/{path}", json=body)
            assert answer.status == 400
            assert "must be" in (await answer.json())["message"]
        status = await (await admin.get("/_admin/status")).json()
        assert status["products"]["BTC-USD"]["trades"] > 0
        assert "replay_clients 0" in await (await admin.get("/_admin/metrics")).text()

    run(test)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Malformed JSON"),
        ("[]", "Malformed JSON"),
        ('{"type": "hello"}', "Type has to be either subscribe or unsubscribe"),
        ('{"type": "subscribe", "product_ids": ["BTC-USD"]}', "Failed to subscribe"),
        ('{"type": "subscribe", "product_ids": ["BTC-USD"], "channels": ["level3"]}', "Failed to subscribe"),
        ('{"type": "subscribe", "channels": ["matches"]}', "Failed to subscribe"),
    ],
)
def test_bad_subscriptions(text: str, reason: str) -> None:
    with pytest.raises(SubscriptionError, match=reason):
        parse_subscription(text, PRODUCTS)


def test_channels_may_have_products_of_their_own() -> None:
    own = '{"name":"heartbeat","product_ids":["BTC-USD"]}'
    text = f'{{"type":"subscribe","product_ids":["ETH-USD"],"channels":["matches",{own}]}}'
    assert parse_subscription(text, PRODUCTS) == (True, {"matches": ["ETH-USD"], "heartbeat": ["BTC-USD"]})
    assert parse_subscription('{"type":"unsubscribe","channels":["matches"]}', PRODUCTS) == (
        False,
        {"matches": ["BTC-USD", "ETH-USD"]},
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("type", "product_ids", "channels"), json_values)))
def test_whatever_a_client_sends_it_gets_an_answer(message: dict[str, object]) -> None:
    for kind in ({}, {"type": "subscribe"}):
        # Any other error would end the connection without an answer.
        with suppress(SubscriptionError):
            parse_subscription(json.dumps({**message, **kind}), PRODUCTS)


def test_rate_limit_is_per_client() -> None:
    now_s = 0.0
    limit = RateLimit(10, 15, lambda: now_s)
    assert [limit.take("a") for _ in range(15)] == [0.0] * 15
    assert limit.take("a") == pytest.approx(0.1)
    assert limit.take("b") == 0
    now_s = 0.11
    assert limit.take("a") == 0
