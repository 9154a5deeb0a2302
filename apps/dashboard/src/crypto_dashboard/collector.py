"""One snapshot for all who look: asked for on demand, never twice at a time, and by nobody when nobody looks."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from crypto_dashboard import database, prometheus
from crypto_dashboard.config import ENGINES, Config
from crypto_dashboard.readings import EngineRows, Rows, SourceError
from crypto_dashboard.state import Found, Source, build

log = logging.getLogger(__name__)

# A viewer waits no longer than this for a source that is slow; its answer is in the next snapshot.
PATIENCE_S = 1.5
# A source that failed is left alone for a moment.
RETRY_S = 5.0
WINDOW_S = 60.0


class Part:
    """One thing that is read again when it is due; keeps the newest answer, and why there is none."""

    def __init__(self, name: str, period_s: float, read: Callable[[], Awaitable[Any]]) -> None:
        self.name, self._period_s, self._read = name, period_s, read
        self.value: Any = None
        self.error = ""
        self.read_s: float | None = None
        self._due_s = 0.0
        self._task: asyncio.Task[None] | None = None

    def begin(self, now_s: float) -> asyncio.Task[None] | None:
        """Start to read if it is time to; return the reading that is under way, if any."""
        if self._task is not None and self._task.done():
            self._task = None
        if self._task is None and now_s >= self._due_s:
            self._task = asyncio.create_task(self._run(now_s))
        return self._task

    async def _run(self, now_s: float) -> None:
        try:
            self.value = await self._read()
        except SourceError as error:
            if not self.error:
                log.warning("%s: %s", self.name, error)
            self.error = str(error)
            self._due_s = now_s + max(RETRY_S, self._period_s)
            return
        if self.error:
            log.info("%s: answers again", self.name)
        self.error, self.read_s, self._due_s = "", now_s, now_s + self._period_s


class Collector:
    """Reads the sources and builds the state."""

    def __init__(
        self,
        config: Config,
        rows: database.Source,
        metrics: prometheus.Source | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self._database, self._prometheus, self._clock = config, rows, metrics, clock
        # One thread, for there is one connection.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="database")
        self._lock = asyncio.Lock()
        self._inserted: dict[str, deque[tuple[float, int]]] = {name: deque() for name in ENGINES}
        refresh = config.refresh
        self._rows = Part("PostgreSQL, rows", refresh.rows_s, self._in_thread(rows.rows))
        self._candles = Part("PostgreSQL, candles", refresh.candles_s, self._in_thread(rows.candles))
        self._history = Part("PostgreSQL, history", refresh.history_s, self._in_thread(rows.history))
        self._metrics = Part("Prometheus", refresh.metrics_s, metrics.metrics) if metrics else None
        self._parts = [part for part in (self._rows, self._candles, self._history, self._metrics) if part]
        self._noted_s: float | None = None
        self._built: bytes = b""
        self._built_s = -WINDOW_S

    async def snapshot(self) -> bytes:
        """Return the state as JSON, read now or a moment ago."""
        async with self._lock:
            now_s = self._clock()
            if self._built and now_s - self._built_s < self._config.refresh.rows_s * 0.9:
                return self._built
            reading = [task for part in self._parts if (task := part.begin(now_s)) is not None]
            if reading:
                done, _ = await asyncio.wait(reading, timeout=PATIENCE_S)
                for task in done:
                    # Anything but a SourceError is a fault of this program: it goes to the log and to the viewer.
                    task.result()
            # Also an answer that came after the last viewer had stopped waiting for it.
            if self._rows.read_s is not None and self._rows.read_s != self._noted_s:
                self._noted_s = self._rows.read_s
                self._note(self._noted_s, self._rows.value)
            self._built = json.dumps(build(self._config, self._found()), separators=(",", ":")).encode()
            self._built_s = now_s
            return self._built

    async def close(self) -> None:
        """Let go of both sources."""
        if self._prometheus is not None:
            await self._prometheus.close()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._database.close)
        self._thread.shutdown(wait=False)

    def _in_thread(self, call: Callable[[], Any]) -> Callable[[], Awaitable[Any]]:
        async def read() -> Any:  # noqa: ANN401 - one of the readings
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)

        return read

    def _note(self, now_s: float, rows: Rows) -> None:
        for name, engine in rows.engines.items():
            seen = self._inserted[name]
            if engine.inserted is None or (seen and engine.inserted < seen[-1][1]):
                seen.clear()  # the server's statistics began anew
            if engine.inserted is not None:
                seen.append((now_s, engine.inserted))
            while seen and now_s - seen[0][0] > WINDOW_S + 1:
                seen.popleft()

    def _rate(self, name: str) -> float | None:
        """Return rows per second: the last minute's rows, or, where these are too many to look at, by the counter."""
        engine: EngineRows = self._rows.value.engines[name]
        if engine.capped and len(seen := self._inserted[name]) > 1:
            (first_s, first), (last_s, last) = seen[0], seen[-1]
            return max((last - first) / (last_s - first_s), engine.rows / WINDOW_S)
        return engine.rows / WINDOW_S

    def _found(self) -> Found:
        metrics = self._metrics
        configured = metrics is not None
        return Found(
            rows=self._rows.value,
            candles=self._candles.value,
            history=self._history.value,
            # Metrics of before say nothing about now.
            metrics=metrics.value if metrics and not metrics.error else None,
            rates={name: self._rate(name) for name in ENGINES} if self._rows.value else None,
            database=_source(self._rows, "PostgreSQL"),
            prometheus=_source(metrics, "Prometheus") if metrics else Source(configured=configured),
        )


def _source(part: Part, name: str) -> Source:
    if part.error:
        return Source(answers=False, text=f"{name} does not answer: {part.error}")
    if part.value is None:
        return Source(answers=False, text=f"{name} has not answered yet")
    return Source(answers=True)
