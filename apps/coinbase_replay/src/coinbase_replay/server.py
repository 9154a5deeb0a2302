"""Coinbase's REST and WebSocket protocols over the timelines, and an admin API that makes faults."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import signal
import socket
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import WSCloseCode, WSMsgType, web

from coinbase_replay.config import Config, LimitsConfig
from coinbase_replay.tape import iso_time
from coinbase_replay.timeline import Timeline, TradeAt

log = logging.getLogger(__name__)

CHANNELS = ("matches", "heartbeat")
_MAX_PAGE = 1_000
_MAX_CLIENTS_REMEMBERED = 10_000
_MAX_EMIT = 500
_MAX_FAULT_S = 86_400.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def now_us() -> int:
    """The wall clock, epoch microseconds."""
    return time.time_ns() // 1_000


class RateLimit:
    """A token bucket per client address."""

    def __init__(self, rate_per_s: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> float:
        """Take a token of `client`: 0.0 when there was one, else the seconds until there is."""
        now_s = self._clock()
        tokens, filled_s = self._buckets.pop(client, (float(self._burst), now_s))
        tokens = min(float(self._burst), tokens + (now_s - filled_s) * self._rate_per_s)
        allowed = tokens >= 1
        self._buckets[client] = (tokens - 1 if allowed else tokens, now_s)
        if len(self._buckets) > _MAX_CLIENTS_REMEMBERED:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - tokens) / self._rate_per_s


@dataclass(slots=True)
class Faults:
    """What the admin API has ordered. Times are those of time.monotonic()."""

    rate_limited_until_s: float = -math.inf
    server_error_until_s: float = -math.inf
    heartbeats_stalled_until_s: float = -math.inf
    swallow: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Counters:
    """What was done since the start."""

    requests: dict[int, int] = field(default_factory=dict)
    matches_sent: int = 0
    matches_swallowed: int = 0
    heartbeats_sent: int = 0
    connections: int = 0


class Client:
    """One WebSocket connection. `channels` maps a channel to the products subscribed."""

    def __init__(self, socket_: web.WebSocketResponse, transport: asyncio.Transport | None, max_queued: int) -> None:
        self.socket = socket_
        self._transport = transport
        self.channels: dict[str, set[str]] = {channel: set() for channel in CHANNELS}
        self.subscribed = asyncio.Event()
        self._queue: asyncio.Queue[str | None] = asyncio.Queue(max_queued)
        self.too_slow = False

    def put(self, message: str) -> None:
        """Queue a message; a client that lets too many pile up is let go, as the exchange does."""
        try:
            self._queue.put_nowait(message)
        except asyncio.QueueFull:
            self.too_slow = True

    async def write(self) -> None:
        """Send what is queued, in order, until `end` or an error."""
        with contextlib.suppress(ConnectionError):
            while not self.too_slow and (message := await self._queue.get()) is not None:
                await self.socket.send_str(message)
        await self.socket.close(code=WSCloseCode.GOING_AWAY)

    def abort(self) -> bool:
        """Cut the connection without a closing handshake: False when it is gone already."""
        if self._transport is None:
            return False
        self._transport.abort()
        return True

    def end(self) -> None:
        """Finish `write`; what is queued is void."""
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(None)


class SubscriptionError(Exception):
    """A message of a client that the exchange would refuse."""

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.body = {"type": "error", "message": message, **({"reason": reason} if reason else {})}


def parse_subscription(text: str, products: Mapping[str, object]) -> tuple[bool, dict[str, list[str]]]:
    """A `subscribe` (True) or `unsubscribe` (False) message: channel -> products. Raises SubscriptionError."""
    try:
        message = json.loads(text)
    except ValueError:
        raise SubscriptionError("Malformed JSON") from None
    if not isinstance(message, dict):
        raise SubscriptionError("Malformed JSON")
    kind = message.get("type")
    if kind not in ("subscribe", "unsubscribe"):
        raise SubscriptionError("Type has to be either subscribe or unsubscribe")
    failed = f"Failed to {kind}"
    common = message.get("product_ids", [])
    entries = message.get("channels")
    if not isinstance(entries, list) or not entries:
        raise SubscriptionError(failed, "channels must be specified")
    wanted: dict[str, list[str]] = {}
    for entry in entries:
        name, own = (
            (entry.get("name"), entry.get("product_ids", common)) if isinstance(entry, dict) else (entry, common)
        )
        if not isinstance(name, str) or name not in CHANNELS:
            raise SubscriptionError(failed, f"{name} is not a valid channel")
        if not isinstance(own, list) or (not own and kind == "subscribe"):
            raise SubscriptionError(failed, f"product_ids must be specified for channel {name}")
        for product in own:
            if not isinstance(product, str) or product not in products:
                raise SubscriptionError(failed, f"{product} is not a valid product")
        # Unsubscribing without products means all of them.
        wanted[str(name)] = list(own) or list(products)
    return kind == "subscribe", wanted


class Replay:
    """The server's state: timelines, clients, faults."""

    def __init__(self, timelines: Mapping[str, Timeline], limits: LimitsConfig) -> None:
        self.timelines = timelines
        self.faults = Faults()
        self.counters = Counters()
        self.clients: set[Client] = set()
        # How far each product's feed has been sent: heartbeats must not run ahead of it.
        self.emitted = {product: timeline.count(now_us()) for product, timeline in timelines.items()}
        self._limits = limits
        self._exchange_limit = RateLimit(limits.requests_per_s, limits.burst)
        self._spot_limit = RateLimit(limits.spot_requests_per_h / 3_600, max(1, int(limits.spot_requests_per_h / 60)))

    # --- applications

    def public_application(self) -> web.Application:
        """What a client of Coinbase sees."""
        application = web.Application(middlewares=[self._count, self._refuse])
        application.add_routes(
            [
                web.get("/", self.feed),
                web.get("/time", self.time),
                web.get("/v2/prices/{pair}/spot", self.spot),
                web.get("/products/{product}/ticker", self.ticker),
                web.get("/products/{product}/trades", self.trades),
            ]
        )
        return application

    def admin_application(self) -> web.Application:
        """What makes faults and shows the state."""
        application = web.Application(middlewares=[_json_errors])
        application.add_routes(
            [
                web.get("/_admin/status", self.status),
                web.get("/_admin/metrics", self.metrics),
                web.post("/_admin/drop", self.drop),
                web.post("/_admin/gap", self.inject_gap),
                web.post("/_admin/rate_limit", self.fault("rate_limited_until_s")),
                web.post("/_admin/server_error", self.fault("server_error_until_s")),
                web.post("/_admin/stall_heartbeats", self.fault("heartbeats_stalled_until_s")),
                web.post("/_admin/clear", self.clear),
            ]
        )
        return application

    # --- REST

    @web.middleware
    async def _count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            response = await handler(request)
            status = response.status
        except web.HTTPException as error:
            status = error.status
            response = _error(request, status, "not_found" if status == 404 else "invalid_request", error.reason)
        self.counters.requests[status] = self.counters.requests.get(status, 0) + 1
        return response

    @web.middleware
    async def _refuse(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        now_s = time.monotonic()
        if now_s < self.faults.server_error_until_s:
            return _error(request, 503, "internal_server_error", "Service Unavailable")
        wait_s = self.faults.rate_limited_until_s - now_s
        if wait_s <= 0:
            limit = self._spot_limit if request.path.startswith("/v2/") else self._exchange_limit
            wait_s = limit.take(request.remote or "")
        if wait_s > 0:
            text = "Too many requests" if request.path.startswith("/v2/") else "Public rate limit exceeded"
            response = _error(request, 429, "rate_limit_exceeded", text)
            response.headers["Retry-After"] = str(math.ceil(wait_s))
            return response
        return await handler(request)

    async def time(self, _request: web.Request) -> web.Response:
        """The exchange's clock."""
        now = now_us()
        return web.json_response({"iso": iso_time(now), "epoch": now / 1_000_000})

    async def spot(self, request: web.Request) -> web.Response:
        """The last trade's price, as api.coinbase.com says it."""
        pair = request.match_info["pair"].upper()
        last = self._last(pair)
        if last is None:
            return _error(request, 404, "not_found", "Invalid base currency")
        base, currency = pair.split("-", 1)
        return web.json_response({"data": {"amount": last.price, "base": base, "currency": currency}})

    async def ticker(self, request: web.Request) -> web.Response:
        """The last trade, and a book one tick around it."""
        last = self._last(request.match_info["product"])
        if last is None:
            return _error(request, 404, "not_found", "NotFound")
        tick = f"0.{'0' * (len(last.price.partition('.')[2]) - 1)}1" if "." in last.price else "1"
        bid, ask = _around(last.price, tick)
        return web.json_response(
            {
                "ask": ask,
                "bid": bid,
                "volume": self.timelines[last.product_id].volume(now_us()),
                "trade_id": last.trade_id,
                "price": last.price,
                "size": last.size,
                "time": iso_time(last.time_us),
            }
        )

    async def trades(self, request: web.Request) -> web.Response:
        """Past trades, newest first, paged by CB-BEFORE and CB-AFTER."""
        timeline = self.timelines.get(request.match_info["product"])
        if timeline is None:
            return _error(request, 404, "not_found", "NotFound")
        try:
            limit = _integer(request, "limit") or _MAX_PAGE
            after, before = _integer(request, "after"), _integer(request, "before")
        except ValueError as error:
            return _error(request, 400, "invalid_request", str(error))
        if not 1 <= limit <= _MAX_PAGE:
            return _error(request, 400, "invalid_request", f"limit must be between 1 and {_MAX_PAGE}")
        page = timeline.page(timeline.count(now_us()), limit, after, before)
        headers = {"CB-BEFORE": str(page[0].trade_id), "CB-AFTER": str(page[-1].trade_id)} if page else {}
        return web.json_response([trade.listing() for trade in page], headers=headers)

    def _last(self, product: str) -> TradeAt | None:
        timeline = self.timelines.get(product)
        count = timeline.count(now_us()) if timeline else 0
        return timeline.trade(count - 1) if timeline and count else None

    # --- WebSocket

    async def feed(self, request: web.Request) -> web.StreamResponse:
        """The feed: one message to subscribe, then matches and heartbeats."""
        response = web.WebSocketResponse(heartbeat=30, max_msg_size=65_536)
        if not response.can_prepare(request):
            return _error(request, 404, "not_found", "NotFound")
        await response.prepare(request)
        self.counters.connections += 1
        client = Client(response, request.transport, self._limits.max_queued_messages)
        writer = asyncio.create_task(client.write())
        timer = asyncio.create_task(self._expect_subscription(client))
        self.clients.add(client)
        try:
            async for message in response:
                if message.type is WSMsgType.TEXT:
                    self._on_text(client, message.data)
        finally:
            self.clients.discard(client)
            timer.cancel()
            client.end()
            await writer
        return response

    async def _expect_subscription(self, client: Client) -> None:
        try:
            async with asyncio.timeout(self._limits.subscribe_within_s):
                await client.subscribed.wait()
        except TimeoutError:
            await client.socket.close(
                code=WSCloseCode.POLICY_VIOLATION, message=b"Client did not send a valid subscribe message in time"
            )

    def _on_text(self, client: Client, text: str) -> None:
        try:
            subscribe, wanted = parse_subscription(text, self.timelines)
        except SubscriptionError as error:
            client.put(json.dumps(error.body))
            return
        fresh: list[str] = []
        for channel, products in wanted.items():
            if subscribe:
                fresh += [p for p in products if channel == "matches" and p not in client.channels[channel]]
                client.channels[channel].update(products)
            else:
                client.channels[channel].difference_update(products)
        if subscribe:
            client.subscribed.set()
        channels = [
            {"name": channel, "product_ids": sorted(products), "account_ids": None}
            for channel, products in client.channels.items()
            if products
        ]
        client.put(json.dumps({"type": "subscriptions", "channels": channels}))
        for product in fresh:
            # From what the feed has sent, not from the clock: the next match follows without a gap.
            if self.emitted[product]:
                last = self.timelines[product].trade(self.emitted[product] - 1)
                client.put(json.dumps(last.feed_message("last_match")))

    async def pump(self, product: str) -> None:
        """Send the product's matches when they happen."""
        timeline = self.timelines[product]
        while True:
            now = now_us()
            index = self.emitted[product]
            due = min(timeline.count(now), index + _MAX_EMIT)
            listeners = [client for client in self.clients if product in client.channels["matches"]]
            if not listeners:
                # Nobody hears them: no need to make them one by one after a long pause.
                due = timeline.count(now)
            else:
                for number in range(index, due):
                    if self.faults.swallow.get(product, 0) > 0:
                        self.faults.swallow[product] -= 1
                        self.counters.matches_swallowed += 1
                        continue
                    text = json.dumps(timeline.trade(number).feed_message("match"))
                    for client in listeners:
                        client.put(text)
                    self.counters.matches_sent += len(listeners)
            self.emitted[product] = due
            wait_s = (timeline.time_us(due) - now_us()) / 1e6
            await asyncio.sleep(min(max(0.0, wait_s), 0.25))

    async def beat(self) -> None:
        """Send the heartbeats, at each full second."""
        while True:
            await asyncio.sleep(1 - time.time() % 1)
            if time.monotonic() < self.faults.heartbeats_stalled_until_s:
                continue
            now = now_us()
            for product, timeline in self.timelines.items():
                text = json.dumps(timeline.heartbeat(self.emitted[product], now))
                for client in self.clients:
                    if product in client.channels["heartbeat"]:
                        client.put(text)
                        self.counters.heartbeats_sent += 1

    # --- admin

    async def status(self, _request: web.Request) -> web.Response:
        """Timelines, clients, faults and counters."""
        now, now_s = now_us(), time.monotonic()
        products = {}
        for product, timeline in self.timelines.items():
            count = timeline.count(now)
            products[product] = {
                "first_trade_id": timeline.first_id,
                "trades": count,
                "last_trade_id": timeline.first_id + count - 1 if count else None,
                "emitted": self.emitted[product],
                "swallow": self.faults.swallow.get(product, 0),
            }
        return web.json_response(
            {
                "time": iso_time(now),
                "products": products,
                "clients": len(self.clients),
                "faults": {
                    "rate_limit_s": max(0.0, self.faults.rate_limited_until_s - now_s),
                    "server_error_s": max(0.0, self.faults.server_error_until_s - now_s),
                    "stall_heartbeats_s": max(0.0, self.faults.heartbeats_stalled_until_s - now_s),
                },
                "counters": {
                    "requests": {str(status): count for status, count in sorted(self.counters.requests.items())},
                    "connections": self.counters.connections,
                    "matches_sent": self.counters.matches_sent,
                    "matches_swallowed": self.counters.matches_swallowed,
                    "heartbeats_sent": self.counters.heartbeats_sent,
                },
            }
        )

    async def metrics(self, _request: web.Request) -> web.Response:
        """The counters as Prometheus reads them."""
        lines = ["# TYPE replay_clients gauge", f"replay_clients {len(self.clients)}"]
        for name in ("connections", "matches_sent", "matches_swallowed", "heartbeats_sent"):
            lines += [f"# TYPE replay_{name}_total counter", f"replay_{name}_total {getattr(self.counters, name)}"]
        lines.append("# TYPE replay_requests_total counter")
        for status, count in sorted(self.counters.requests.items()):
            lines.append(f'replay_requests_total{{status="{status}"}} {count}')
        return web.Response(text="\n".join(lines) + "\n", headers={"Content-Type": "text/plain; version=0.0.4"})

    async def drop(self, _request: web.Request) -> web.Response:
        """Cut all WebSocket connections, without a closing handshake."""
        dropped = sum(client.abort() for client in list(self.clients))
        log.info("admin: dropped %d connections", dropped)
        return web.json_response({"dropped": dropped})

    async def inject_gap(self, request: web.Request) -> web.Response:
        """Keep the next `count` matches of `product_id` from the feed; REST lists them all the same."""
        body = await _body(request)
        product, count = body.get("product_id"), body.get("count")
        if not isinstance(product, str) or product not in self.timelines:
            raise ValueError(f"product_id must be one of {', '.join(self.timelines)}")
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ValueError("count must be an integer >= 1")
        self.faults.swallow[product] = self.faults.swallow.get(product, 0) + count
        log.info("admin: the next %d matches of %s are swallowed", count, product)
        return web.json_response({"product_id": product, "swallow": self.faults.swallow[product]})

    def fault(self, name: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        """A handler that has a fault last for `seconds` from now."""

        async def handler(request: web.Request) -> web.Response:
            seconds = (await _body(request)).get("seconds")
            if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 <= seconds <= _MAX_FAULT_S:
                raise ValueError(f"seconds must be a number from 0 to {_MAX_FAULT_S:g}")
            setattr(self.faults, name, time.monotonic() + seconds)
            log.info("admin: %s for %g s", name.removesuffix("_until_s"), seconds)
            return web.json_response({"seconds": seconds})

        return handler

    async def clear(self, _request: web.Request) -> web.Response:
        """End all faults."""
        self.faults = Faults()
        return web.json_response({})


async def serve(config: Config, timelines: Mapping[str, Timeline]) -> None:
    """Serve until SIGTERM or SIGINT. Raises OSError when a port is taken."""
    replay = Replay(timelines, config.limits)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runners = []
    for application, host, port in (
        (replay.public_application(), config.server.host, config.server.port),
        (replay.admin_application(), config.server.admin_host, config.server.admin_port),
    ):
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        runners.append(runner)
    tasks = [asyncio.create_task(replay.pump(product)) for product in timelines]
    tasks.append(asyncio.create_task(replay.beat()))
    log.info("ready: REST and WebSocket at %s:%d, admin at %s:%d", config.server.host, config.server.port,
             config.server.admin_host, config.server.admin_port)  # fmt: skip
    notify(f"READY=1\nSTATUS=serving {', '.join(timelines)}")
    stopping = asyncio.create_task(stop.wait())
    # A pump that fails must not leave a server behind that looks alive.
    await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
    notify("STOPPING=1")
    failures = [task.exception() for task in tasks if task.done() and not task.cancelled()]
    for task in (stopping, *tasks):
        task.cancel()
    for client in list(replay.clients):
        await client.socket.close(code=WSCloseCode.GOING_AWAY)
    for runner in runners:
        await runner.cleanup()
    for failure in failures:
        if failure is not None:
            raise failure


def notify(message: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Tell the service manager (sd_notify(3)): False when there is none."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
            connection.sendto(message.encode(), "\0" + address[1:] if address.startswith("@") else address)
    except OSError as error:
        log.warning("the service manager could not be told: %s", error)
        return False
    return True


@web.middleware
async def _json_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ValueError as error:
        return web.json_response({"message": str(error)}, status=400)


async def _body(request: web.Request) -> dict[str, object]:
    try:
        body = await request.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise ValueError("the body must be a JSON object")
    return body


def _error(request: web.Request, status: int, identifier: str, text: str) -> web.Response:
    if request.path.startswith("/v2/"):
        return web.json_response({"errors": [{"id": identifier, "message": text}]}, status=status)
    return web.json_response({"message": "NotFound" if status == 404 else text}, status=status)


def _integer(request: web.Request, name: str) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ValueError(f"{name} must be a positive integer")
    return int(text)


def _around(price: str, tick: str) -> tuple[str, str]:
    decimals = len(price.partition(".")[2])
    units, step = int(price.replace(".", "")), int(tick.replace(".", ""))

    def digits(value: int) -> str:
        text = str(value).rjust(decimals + 1, "0")
        return f"{text[:-decimals]}.{text[-decimals:]}" if decimals else text

    return digits(max(1, units - step)), digits(units + step)
