"""One question to Kafka at a time, one answer for all who ask within a moment, and none when nobody looks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from crypto_kafka_ui.config import LimitsConfig
from crypto_kafka_ui.reader import Source
from crypto_kafka_ui.readings import Cluster, SourceError

log = logging.getLogger(__name__)

# A cluster that did not answer is left alone for a moment.
RETRY_S = 3.0

T = TypeVar("T")


class BusyError(Exception):
    """More questions wait than are let wait."""


class Collector:
    """Asks the source from one thread, for it has one set of connections."""

    def __init__(self, source: Source, limits: LimitsConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._source, self._limits, self._clock = source, limits, clock
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kafka")
        self._waiting = 0
        self._lock = asyncio.Lock()
        self._cluster: Cluster | None = None
        self._due_s = 0.0
        self._error = ""

    async def ask(self, question: Callable[[Source], T]) -> T:
        """Return the source's answer. Raises SourceError, and BusyError where too many wait."""
        if self._waiting >= self._limits.waiting:
            raise BusyError(f"{self._waiting} questions wait for Kafka already")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, question, self._source)
        finally:
            self._waiting -= 1

    async def cluster(self) -> Cluster:
        """Return the cluster as it is, or was a moment ago. Raises SourceError, BusyError."""
        async with self._lock:
            now_s = self._clock()
            if now_s < self._due_s:
                if self._error:
                    raise SourceError(self._error)
                if self._cluster:
                    return self._cluster
            try:
                self._cluster = await self.ask(lambda source: source.cluster())
            except SourceError as error:
                if not self._error:
                    log.warning("Kafka does not answer: %s", error)
                self._error, self._due_s = str(error), self._clock() + RETRY_S
                raise
            if self._error:
                log.info("Kafka answers again")
            self._error, self._due_s = "", self._clock() + self._limits.refresh_s
            return self._cluster

    async def close(self) -> None:
        """Let go of the source."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._source.close)
        self._thread.shutdown(wait=False)
