"""What all sources share: the way into the spool, and a patient HTTP client."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

import requests
from requests.adapters import HTTPAdapter

from crypto_producer import __version__
from crypto_producer.event import Event
from crypto_producer.metrics import Metrics
from crypto_producer.pacing import Backoff, TokenBucket, retry_after_s
from crypto_producer.spool import Spool, SpoolFullError
from crypto_producer.systemd import Progress

log = logging.getLogger(__name__)

_CHUNK_EVENTS = 1_000
USER_AGENT = f"crypto-producer/{__version__}"


class StoppedError(Exception):
    """The producer is being stopped."""


class SourceError(Exception):
    """The source answered, or failed to, in a way that repeating the request does not cure (now)."""


@dataclass(slots=True)
class SourceState:
    """What people are told about the source."""

    connected: bool = False
    text: str = "starting"


class Intake:
    """The way into the spool: blocks or drops when it is full, as configured."""

    def __init__(
        self,
        spool: Spool,
        metrics: Metrics,
        *,
        source: str,
        when_full: str,
        on_append: Callable[[], None],
        touch: Callable[[], None],
        stop: threading.Event,
    ) -> None:
        self._spool = spool
        self._metrics = metrics
        self._source = source
        self._when_full = when_full
        self._on_append = on_append
        self._touch = touch
        self._stop = stop
        self.full = False

    def accept(self, events: Sequence[Event]) -> range:
        """Store all of `events` durably: the `seq` of each. One thread calls this.

        Raises StoppedError when the producer is stopped while the spool is full; the events not stored are not
        accepted, and no cursor has moved past them.
        """
        first = self._spool.next_seq
        start = 0
        while start < len(events):
            try:
                stored = self._spool.append(events[start : start + _CHUNK_EVENTS])
            except SpoolFullError as error:
                self._make_room(error, len(events) - start)
                continue
            if self.full and self._when_full == "block":
                log.warning("the spool has room again; reading the source goes on")
                self._set_full(full=False)
            for event in events[start : start + stored]:
                self._metrics.events.labels(event.symbol, self._source).inc()
            self._metrics.event_accepted()
            self._on_append()
            start += stored
        if self.full and self._spool.events < self._spool.max_events // 2:
            log.warning("the spool has room again; nothing is dropped any more")
            self._set_full(full=False)
        return range(first, first + len(events))

    def _make_room(self, error: SpoolFullError, wanted: int) -> None:
        if not self.full:
            self._set_full(full=True)
            policy = "the source is not read" if self._when_full == "block" else "the oldest events are dropped"
            log.error("spool full: %s; %s until Kafka takes events again", error, policy)
        if self._when_full == "drop_oldest":
            before = self._spool.ledger().by_symbol
            # A hundredth at a time: dropping one by one would cost a transaction each.
            dropped = self._spool.drop_oldest(max(wanted, self._spool.max_events // 100))
            if dropped:
                for symbol, counts in self._spool.ledger().by_symbol.items():
                    self._metrics.spool_dropped.labels(symbol).inc(counts.dropped - before[symbol].dropped)
                log.error("spool full: dropped the %d oldest events", dropped)
                return
        self._touch()
        if self._stop.is_set():
            raise StoppedError
        self._spool.wait_for_room(0.5)

    def _set_full(self, *, full: bool) -> None:
        self.full = full
        self._metrics.spool_full.set(int(full))


@dataclass(slots=True)
class Context:
    """What a source gets to work with."""

    symbols: Sequence[str]
    namespace: UUID
    intake: Intake
    spool: Spool
    metrics: Metrics
    progress: Progress
    stop: threading.Event
    wait_acknowledged: Callable[[Sequence[int], float], int]
    state: SourceState = field(default_factory=SourceState)

    def connected(self, text: str) -> None:
        """The source answers."""
        self.state.connected, self.state.text = True, text
        self.metrics.source_connected.set(1)

    def disconnected(self, text: str) -> None:
        """The source does not answer."""
        self.state.connected, self.state.text = False, text
        self.metrics.source_connected.set(0)


class Source(Protocol):
    """A source runs in a thread of its own until it is stopped or at its end."""

    name: str

    def run(self, context: Context) -> None:
        """Read until `context.stop` is set, or until there is nothing left to read."""

    def probe(self) -> str:
        """Reach the source once: one line about it. Raises SourceError."""


class HttpClient:
    """GETs of JSON with timeouts, repeats, jittered backoff and respect for 429. Thread-safe."""

    def __init__(
        self,
        *,
        timeout_s: float,
        bucket: TokenBucket,
        stop: threading.Event,
        pool_size: int = 8,
        on_rate_limited: Callable[[], None] = lambda: None,
        on_error: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._timeout_s = timeout_s
        self._bucket = bucket
        self._stop = stop
        self._on_rate_limited = on_rate_limited
        self._on_error = on_error
        self._session = requests.Session()
        self._session.headers["User-Agent"] = USER_AGENT
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=pool_size))

    def get(
        self, url: str, *, deadline_s: float, params: Mapping[str, str | int] | None = None
    ) -> tuple[object, Mapping[str, str]]:
        """The decoded JSON and the headers (case-insensitive) of a 200 answer.

        Repeats what may be passing (no connection, timeout, 429, 5xx) until `deadline_s` (time.monotonic()).
        Raises SourceError otherwise, StoppedError when the producer is stopped meanwhile.
        """
        backoff = Backoff(0.2, 10.0)
        while True:
            self._wait_for_token(url, deadline_s)
            wait_s: float | None = None
            try:
                response = self._session.get(url, params=params, timeout=self._timeout_s)
                if response.status_code == requests.codes.ok:
                    return response.json(), response.headers
                problem = f"HTTP {response.status_code}: {response.text[:200]}"
                if response.status_code == requests.codes.too_many_requests:
                    self._on_rate_limited()
                    wait_s = retry_after_s(response.headers.get("Retry-After"), backoff.next_delay_s())
                    self._bucket.pause(wait_s)
                elif response.status_code < requests.codes.internal_server_error:
                    raise SourceError(f"{url}: {problem}")
            except requests.exceptions.JSONDecodeError as error:
                problem = f"not JSON: {error}"
            except requests.exceptions.RequestException as error:
                problem = type(error).__name__
            self._on_error(problem.split(":")[0])
            if wait_s is None:
                wait_s = backoff.next_delay_s()
            if time.monotonic() + wait_s >= deadline_s:
                raise SourceError(f"{url}: {problem}")
            log.warning("%s: %s; again in %.1f s", url, problem, wait_s)
            if self._stop.wait(wait_s):
                raise StoppedError

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _wait_for_token(self, url: str, deadline_s: float) -> None:
        while (wait_s := self._bucket.take()) > 0:
            if time.monotonic() + wait_s >= deadline_s:
                raise SourceError(f"{url}: the rate limit leaves no request before the deadline")
            if self._stop.wait(wait_s):
                raise StoppedError
