"""Trades, pushed by the exchange's WebSocket feed; what the feed leaves out is fetched by REST."""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from crypto_producer.config import CoinbaseWsConfig
from crypto_producer.event import Cursor, MalformedMessageError, Trade, now_us, parse_trade, trade_event, user_of_url
from crypto_producer.pacing import Backoff, TokenBucket
from crypto_producer.sequencer import Gap, Sequencer
from crypto_producer.sources.base import USER_AGENT, Context, HttpClient, SourceError, StoppedError
from crypto_producer.sources.trades_api import Filling, TradesApi

log = logging.getLogger(__name__)

_MAX_BATCH = 500
_MAX_BACKOFF_S = 15.0
_SUBSCRIBED_WITHIN_S = 10.0


class _FeedError(Exception):
    """The connection is of no more use."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class _Filler(threading.Thread):
    """Fetches the trades of gaps, one gap after the other, while the feed is read on."""

    def __init__(self, api: TradesApi) -> None:
        super().__init__(name="gap-filler", daemon=True)
        self._api = api
        self._gaps: queue.SimpleQueue[Gap | None] = queue.SimpleQueue()
        self.fillings: queue.SimpleQueue[Filling] = queue.SimpleQueue()

    def request(self, gap: Gap) -> None:
        """Fetch this gap; its Filling appears in `fillings`."""
        self._gaps.put(gap)

    def run(self) -> None:
        while (gap := self._gaps.get()) is not None:
            try:
                self.fillings.put(self._api.fill(gap))
            except StoppedError:
                return
            except Exception as error:
                # Whatever it was: a gap without an answer would hold its product back for ever.
                log.exception("%s: filling trades %d..%d failed", gap.product_id, gap.low, gap.high)
                self.fillings.put(Filling(gap, (), gap.size, f"{type(error).__name__}: {error}"))

    def close(self) -> None:
        """End after the gap at hand."""
        self._gaps.put(None)


class CoinbaseWs:
    """The channels `matches` and `heartbeat` of all symbols."""

    name = "coinbase_ws"

    def __init__(self, config: CoinbaseWsConfig, symbols: list[str]) -> None:
        self._config = config
        self._symbols = symbols
        self._user = user_of_url(config.ws_url)
        self._sequencers: dict[str, Sequencer] = {}
        self._heard_s: dict[str, float] = {}
        self._requested: set[str] = set()
        # Trades that have left a sequencer, which never gives them again, and are not in the spool yet.
        self._ready: list[Trade] = []

    def run(self, context: Context) -> None:
        """Connections, one after the other, until stopped."""
        self._sequencers = {
            symbol: Sequencer(symbol, context.spool.cursor(self._cursor_key(symbol)), self._config.max_buffered_trades)
            for symbol in self._symbols
        }
        client = HttpClient(
            timeout_s=self._config.timeout_s,
            bucket=TokenBucket(self._config.requests_per_s, max(1, int(self._config.requests_per_s))),
            stop=context.stop,
            on_rate_limited=context.metrics.rate_limited.inc,
            on_error=lambda kind: context.metrics.source_errors.labels(kind).inc(),
        )
        api = TradesApi(
            client,
            self._config.rest_url,
            max_trades=self._config.max_fill_trades,
            timeout_s=self._config.fill_timeout_s,
            wait=context.stop.wait,
        )
        filler = _Filler(api)
        filler.start()
        backoff = Backoff(0.25, _MAX_BACKOFF_S)
        try:
            while not context.stop.is_set():
                context.progress.touch(self.name)
                try:
                    self._connection(context, filler, backoff)
                except (_FeedError, ConnectionClosed, WebSocketException, OSError) as error:
                    if context.stop.is_set():
                        break
                    reason = error.reason if isinstance(error, _FeedError) else "closed"
                    context.metrics.reconnects.labels(reason).inc()
                    delay_s = backoff.next_delay_s()
                    context.disconnected(f"{self._config.ws_url}: {error}")
                    log.warning("feed %s: %s; again in %.1f s", self._config.ws_url, error, delay_s)
                    self._wait(context, filler, delay_s)
        except StoppedError:
            pass
        finally:
            filler.close()
            client.close()

    def probe(self) -> str:
        """Connect, subscribe and wait for the answer."""
        try:
            with self._connect() as connection:
                deadline_s = time.monotonic() + _SUBSCRIBED_WITHIN_S
                while time.monotonic() < deadline_s:
                    message = _decode(connection.recv(timeout=_SUBSCRIBED_WITHIN_S))
                    if message.get("type") == "error":
                        raise SourceError(f"{self._config.ws_url}: {_error_text(message)}")
                    if message.get("type") == "subscriptions":
                        return f"{self._config.ws_url} answers: subscribed to {', '.join(self._symbols)}"
        except (OSError, WebSocketException, MalformedMessageError) as error:
            raise SourceError(f"{self._config.ws_url}: {type(error).__name__}: {error}") from error
        raise SourceError(f"{self._config.ws_url}: the subscription was not answered")

    # --- one connection

    def _connect(self) -> ClientConnection:
        connection = connect(
            self._config.ws_url,
            open_timeout=self._config.timeout_s,
            close_timeout=1,
            user_agent_header=USER_AGENT,
            max_size=1_048_576,
        )
        # The exchange closes a connection that has not subscribed after 5 s.
        connection.send(
            json.dumps({"type": "subscribe", "product_ids": self._symbols, "channels": ["matches", "heartbeat"]})
        )
        return connection

    def _connection(self, context: Context, filler: _Filler, backoff: Backoff) -> None:
        with self._connect() as connection:
            now_s = time.monotonic()
            self._heard_s = dict.fromkeys(self._symbols, now_s)
            for sequencer in self._sequencers.values():
                sequencer.connected()
            while not context.stop.is_set():
                context.progress.touch(self.name)
                try:
                    self._take_fillings(context, filler)
                    for message in self._receive(connection, patient=not self._ready and not self._requested):
                        self._on_message(context, message, backoff)
                finally:
                    # Whatever ends the connection: what has left the sequencers is in nobody else's hands.
                    self._accept(context)
                self._request_gaps(context, filler)
                self._check_heartbeats()
            with suppress(WebSocketException, OSError):
                connection.close()

    @staticmethod
    def _receive(connection: ClientConnection, *, patient: bool) -> Iterator[Mapping[str, object]]:
        """What has arrived, one by one: waits for the first message, takes the rest as it is there."""
        timeout_s = 0.25 if patient else 0.02
        for _ in range(_MAX_BATCH):
            try:
                data = connection.recv(timeout=timeout_s)
            except TimeoutError:
                return
            yield _decode(data)
            timeout_s = 0

    def _on_message(self, context: Context, message: Mapping[str, object], backoff: Backoff) -> None:
        kind = message.get("type")
        if kind == "error":
            raise _FeedError("refused", f"the feed refused: {_error_text(message)}")
        if kind == "subscriptions":
            backoff.connected()
            context.connected(self._config.ws_url)
            log.info("feed %s: subscribed to %s", self._config.ws_url, ", ".join(self._symbols))
            return
        product = message.get("product_id")
        sequencer = self._sequencers.get(product) if isinstance(product, str) else None
        if sequencer is None:
            return
        try:
            if kind == "heartbeat":
                self._heard_s[sequencer.product_id] = time.monotonic()
                last_trade_id = message.get("last_trade_id")
                if isinstance(last_trade_id, int):
                    sequencer.heartbeat(last_trade_id)
            elif kind == "last_match":
                self._ready += sequencer.last_match(parse_trade(message))
                self._report_feed_behind(context, sequencer, message)
            elif kind == "match":
                before = sequencer.duplicates
                self._ready += sequencer.trade(parse_trade(message))
                if sequencer.duplicates > before:
                    context.metrics.duplicates.labels(sequencer.product_id).inc()
        except MalformedMessageError as error:
            # Its trade becomes a gap, and is read again by REST.
            context.metrics.source_errors.labels("malformed").inc()
            log.warning("feed %s: %s in %r", self._config.ws_url, error, message)

    def _report_feed_behind(self, context: Context, sequencer: Sequencer, message: Mapping[str, object]) -> None:
        context.metrics.feed_behind.labels(sequencer.product_id).set(int(sequencer.ids_ran_backwards))
        if sequencer.ids_ran_backwards:
            log.error(
                "feed %s: %s is at trade %s, but %s were seen before: all up to there is taken for a duplicate. "
                "Is this another exchange? Then give it a spool.dir of its own.",
                self._config.ws_url, sequencer.product_id, message.get("trade_id"), sequencer.high,
            )  # fmt: skip

    def _check_heartbeats(self) -> None:
        now_s = time.monotonic()
        silent = [symbol for symbol, heard_s in self._heard_s.items() if now_s - heard_s > self._config.stale_after_s]
        if silent:
            raise _FeedError("stale", f"no heartbeat of {', '.join(silent)} for {self._config.stale_after_s:g} s")

    # --- gaps

    def _request_gaps(self, context: Context, filler: _Filler) -> None:
        for product, sequencer in self._sequencers.items():
            if sequencer.gap is not None and product not in self._requested:
                gap = sequencer.gap
                self._requested.add(product)
                context.metrics.gaps.labels(product).inc()
                context.metrics.gap_trades.labels(product).inc(gap.size)
                log.warning("%s: gap of %d trades, %d..%d; fetching them", product, gap.size, gap.low, gap.high)
                filler.request(gap)

    def _take_fillings(self, context: Context, filler: _Filler) -> None:
        with suppress(queue.Empty):
            while True:
                filling = filler.fillings.get_nowait()
                product = filling.gap.product_id
                self._requested.discard(product)
                context.metrics.gap_trades_filled.labels(product).inc(len(filling.trades))
                context.metrics.gap_trades_unfilled.labels(product).inc(filling.unfilled)
                if filling.unfilled:
                    log.error(
                        "%s: gap %d..%d: %d trades filled, %d LOST: %s", product, filling.gap.low, filling.gap.high,
                        len(filling.trades), filling.unfilled, filling.reason,
                    )  # fmt: skip
                else:
                    log.info("%s: gap %d..%d filled", product, filling.gap.low, filling.gap.high)
                self._ready += self._sequencers[product].fill(filling.trades)

    def _wait(self, context: Context, filler: _Filler, seconds: float) -> None:
        """Between two connections: gaps are filled on."""
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0 and not context.stop.wait(min(left_s, 0.2)):
            context.progress.touch(self.name)
            self._take_fillings(context, filler)
            self._accept(context)
            self._request_gaps(context, filler)

    def _accept(self, context: Context) -> None:
        trades, self._ready = self._ready, []
        produced_at_us = now_us()
        context.intake.accept(
            [
                trade_event(
                    context.namespace,
                    self._user,
                    trade,
                    Cursor(self._cursor_key(trade.product_id), trade.trade_id),
                    produced_at_us,
                )
                for trade in trades
            ]
        )

    def _cursor_key(self, symbol: str) -> str:
        return f"trade_id|{self._user}|{symbol}"


def _decode(data: str | bytes) -> Mapping[str, object]:
    try:
        message = json.loads(data)
    except ValueError as error:
        raise _FeedError("malformed", f"the feed sent no JSON: {error}") from error
    if not isinstance(message, dict):
        raise _FeedError("malformed", f"the feed sent no JSON object: {message!r:.100}")
    return message


def _error_text(message: Mapping[str, object]) -> str:
    return ": ".join(str(message[key]) for key in ("message", "reason") if key in message)
