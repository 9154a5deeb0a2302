"""Spot prices, polled: each round one request per symbol, at the same time."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from crypto_producer.config import CoinbaseRestConfig
from crypto_producer.event import MalformedMessageError, json_number, now_us, price_event, user_of_url
from crypto_producer.pacing import Schedule, TokenBucket
from crypto_producer.sources.base import Context, HttpClient, SourceError, StoppedError

log = logging.getLogger(__name__)

# What of a round's interval its requests may take, and then the acknowledgements.
_REQUESTS_SHARE = 0.6
_ACKNOWLEDGED_SHARE = 0.9


class CoinbaseRest:
    """`GET /v2/prices/<symbol>/spot` of all symbols, every `interval_s`."""

    name = "coinbase_rest"

    def __init__(self, config: CoinbaseRestConfig, symbols: list[str]) -> None:
        self._config = config
        self._symbols = symbols
        self._user = user_of_url(config.base_url)

    def run(self, context: Context) -> None:
        """Rounds on an absolute schedule until stopped."""
        client = self._client(
            context.stop,
            on_rate_limited=context.metrics.rate_limited.inc,
            on_error=lambda kind: context.metrics.source_errors.labels(kind).inc(),
        )
        schedule = Schedule(self._config.interval_s, time.monotonic())
        with ThreadPoolExecutor(len(self._symbols), "spot") as executor:
            try:
                while not context.stop.is_set():
                    skipped = schedule.skipped
                    due_s = schedule.next_due_s(time.monotonic())
                    if schedule.skipped > skipped:
                        log.warning("%d polling rounds were skipped", schedule.skipped - skipped)
                        context.metrics.rounds_skipped.inc(schedule.skipped - skipped)
                    context.progress.touch(self.name, self._config.interval_s * 2 + 60)
                    if context.stop.wait(max(0.0, due_s - time.monotonic())):
                        return
                    self._round(context, client, executor, time.monotonic())
            except StoppedError:
                pass
            finally:
                client.close()

    def probe(self) -> str:
        """Ask for one price."""
        client = self._client(threading.Event())
        price, _, _ = self._spot(client, self._symbols[0], time.monotonic() + self._config.timeout_s)
        client.close()
        return f"{self._config.base_url} answers: {self._symbols[0]} is at {price}"

    def _round(self, context: Context, client: HttpClient, executor: ThreadPoolExecutor, begun_s: float) -> None:
        deadline_s = begun_s + self._config.interval_s * _REQUESTS_SHARE
        answers = [executor.submit(self._spot, client, symbol, deadline_s) for symbol in self._symbols]
        events = []
        for symbol, answer in zip(self._symbols, answers, strict=True):
            try:
                price, timestamp_ms, produced_at_us = answer.result()
                events.append(price_event(self._user, symbol, price, timestamp_ms, produced_at_us))
            except (SourceError, MalformedMessageError) as error:
                context.metrics.source_errors.labels("price").inc()
                log.warning("no price of %s in this round: %s", symbol, error)
        if events:
            context.connected(self._config.base_url)
        else:
            context.disconnected(f"{self._config.base_url} gave no price in the last round")
        seqs = context.intake.accept(events)
        left_s = begun_s + self._config.interval_s * _ACKNOWLEDGED_SHARE - time.monotonic()
        sent = context.wait_acknowledged(seqs, max(0.0, left_s))
        level = logging.INFO if sent == len(self._symbols) else logging.WARNING
        log.log(level, "✅ Successfully sent %d/%d cryptocurrency pairs to Kafka", sent, len(self._symbols))
        if sent < len(seqs):
            log.warning("%d events of this round wait in the spool for Kafka", len(seqs) - sent)

    def _spot(self, client: HttpClient, symbol: str, deadline_s: float) -> tuple[str, int, int]:
        """Price, event time (epoch ms; a spot price has none, so its arrival) and production time (epoch us)."""
        body, _ = client.get(f"{self._config.base_url}/v2/prices/{symbol}/spot", deadline_s=deadline_s)
        data = body.get("data") if isinstance(body, dict) else None
        if not isinstance(data, dict) or f"{data.get('base')}-{data.get('currency')}" != symbol:
            raise MalformedMessageError(f"the answer is no price of {symbol}: {body!r:.200}")
        arrived_us = now_us()
        return json_number(data.get("amount"), "amount"), arrived_us // 1_000, arrived_us

    def _client(self, stop: threading.Event, **hooks: Any) -> HttpClient:  # noqa: ANN401
        # 10,000 requests an hour are allowed; the burst is one round.
        bucket = TokenBucket(10_000 / 3_600, max(10, len(self._symbols)))
        return HttpClient(timeout_s=self._config.timeout_s, bucket=bucket, stop=stop, **hooks)
