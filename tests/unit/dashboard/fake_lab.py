"""A lab for the dashboard to look at, in any state, without a database: prices walk, engines write, parts can be away.

    python tests/unit/dashboard/fake_lab.py --state flink_down --uplot FOLDER_OR_JAR [--port 8050]

serves the page for a person (or a screenshot); the tests use the classes.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "apps" / "dashboard" / "src"))

from crypto_dashboard.config import ENGINES, SYMBOLS, Config
from crypto_dashboard.readings import Alert, Candle, Candles, EngineRows, History, Metrics, Quote, Rows, SourceError
from crypto_dashboard.server import make_app, serve

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

STATES = ("healthy", "empty", "flink_down", "spark_down", "prometheus_away", "database_away", "no_prometheus")
START = {"BTC-USD": 63_514.19, "ETH-USD": 1_774.42, "SOL-USD": 78.17, "ADA-USD": 0.4309, "DOGE-USD": 0.10247}
# Of the newest minute: seconds-long for Spark's batches of 15 s, milliseconds for Flink.
LATENCY_MS = {"spark": (8_230.0, 15_410.0, 15_930.0), "flink": (14.2, 31.5, 58.0)}
DOWN_S = 214
RATE_PER_S = 4.6


def price(symbol: str, at_s: float) -> float:
    """Return a symbol's price at a moment: the same whoever asks."""
    phase = sum(map(ord, symbol))
    wave = sum(math.sin(at_s / period + phase * period) / weight
               for period, weight in ((2_600, 90), (540, 260), (97, 700), (23, 1_900)))  # fmt: skip
    start = START.get(symbol, 1.0)
    return round(start * (1 + wave), 2 if start > 500 else 3 if start > 10 else 5)


def candle(symbol: str, minute: int) -> Candle:
    """Return the candle of a minute since the epoch."""
    found = [price(symbol, minute * 60 + second) for second in range(0, 60, 5)]
    return minute * 60_000, found[0], max(found), min(found), found[-1]


class FakeDatabase:
    """What PostgreSQL would say in a state of the lab."""

    def __init__(self, state: str = "healthy", now_s: float | None = None) -> None:
        self.state, self._now_s = state, now_s
        self.asked = {"rows": 0, "candles": 0, "history": 0}

    def _now(self) -> float:
        return time.time() if self._now_s is None else self._now_s

    def _note(self, what: str) -> None:
        self.asked[what] += 1
        if self.state == "database_away":
            raise SourceError('connection to server at "postgres-1", port 5432 failed: Connection refused')

    def _written_s(self, engine: str, now_s: float) -> float:
        """Return up to when an engine has written."""
        if self.state == f"{engine}_down":
            return now_s - DOWN_S
        return now_s - (now_s % 15 if engine == "spark" else now_s % 2)

    def rows(self) -> Rows:
        self._note("rows")
        now_s = self._now()
        engines = {}
        for engine in ENGINES:
            if self.state == "empty":
                engines[engine] = EngineRows(inserted=0)
                continue
            at_s = self._written_s(engine, now_s)
            is_down = now_s - at_s > 60
            jitter = 1 + 0.08 * math.sin(now_s / 11 + len(engine))
            engines[engine] = EngineRows(
                rows=0 if is_down else round(RATE_PER_S * 60 * (1 + 0.02 * math.sin(now_s / 9))),
                p50_ms=None if is_down else LATENCY_MS[engine][0] * jitter,
                p95_ms=None if is_down else LATENCY_MS[engine][1] * jitter,
                p99_ms=None if is_down else LATENCY_MS[engine][2] * jitter,
                committed_ms=at_s * 1000,
                offsets={partition: int(at_s * RATE_PER_S / 3) % 1_000_000 for partition in range(3)},
                quotes={symbol: Quote(price(symbol, at_s), "replay", int(at_s * 1000), at_s * 1000)
                        for symbol in SYMBOLS},
                inserted=int(at_s * RATE_PER_S),
            )  # fmt: skip
        return Rows(now_s * 1000, engines)

    def candles(self) -> Candles:
        self._note("candles")
        found: dict[str, dict[str, list[Candle]]] = {engine: {} for engine in ENGINES}
        if self.state != "empty":
            for engine in ENGINES:
                # A candle is written when its watermark has passed: two minutes after its end.
                last = int(self._written_s(engine, self._now()) // 60) - 3
                for symbol in SYMBOLS:
                    found[engine][symbol] = [candle(symbol, minute) for minute in range(last - 36, last + 1)]
        return found

    def history(self) -> History:
        self._note("history")
        if self.state == "empty":
            return {engine: [] for engine in ENGINES}
        found = {}
        for engine in ENGINES:
            end = int(self._written_s(engine, self._now()) // 30)
            steps = []
            for step in range(int(self._now() // 30) - 30, end):
                dice = random.Random(f"{engine}{step}")
                p50 = LATENCY_MS[engine][0] * dice.uniform(0.88, 1.15)
                p99 = LATENCY_MS[engine][2] * dice.uniform(0.95, 1.1 if engine == "spark" else 2.2)
                steps.append((step * 30_000, round(RATE_PER_S * 30 * dice.uniform(0.9, 1.1)), p50, p99))
            found[engine] = steps
        return found

    def close(self) -> None:
        pass


class FakePrometheus:
    """What Prometheus would say in a state of the lab."""

    def __init__(self, state: str = "healthy", now_s: float | None = None) -> None:
        self.state, self._now_s = state, now_s
        self.asked = 0

    async def metrics(self) -> Metrics:
        self.asked += 1
        if self.state == "prometheus_away":
            raise SourceError("Cannot connect to host monitoring-1:9090")
        now_s = time.time() if self._now_s is None else self._now_s
        is_empty = self.state == "empty"
        down = {engine for engine in ENGINES if self.state == f"{engine}_down"}
        one = {
            "produced_per_s": 0.0 if is_empty else RATE_PER_S, "producer_pending": 0, "source_connected": 1,
            "kafka_connected": 1, "brokers": 1, "brokers_up": 1, "under_replicated": 0, "offline_partitions": 0,
            "spark_job": int("spark" not in down), "flink_job": int("flink" not in down), "producer_up": 1,
            "spark_cpu": 0.02 if is_empty else 0.31, "flink_cpu": 0.02 if is_empty or "flink" in down else 0.09,
            "spark_memory": 2.61e9, "flink_memory": 0.41e9 if "flink" in down else 1.37e9,
        }  # fmt: skip
        values: dict[str, dict[str, float]] = {name: {"": value} for name, value in one.items()}
        end = 0 if is_empty else int(now_s * RATE_PER_S / 3) % 1_000_000 + 1
        values["topic_end"] = {str(partition): end for partition in range(3)}
        alerts = []
        for engine in sorted(down):
            name = engine.capitalize()
            alerts += [
                Alert(f"{name}NoRows", "firing", "critical", f"{name} has written no rows for 3 minutes",
                      (now_s - 95) * 1000),
                Alert(f"{name}LagGrowing", "pending", "warning", f"The lag of {name} is growing", (now_s - 40) * 1000),
            ]  # fmt: skip
        return Metrics(values, alerts)

    async def close(self) -> None:
        pass


def config(uplot: Path, port: int = 8050, *, nodes: bool = True, lab: str = "lab") -> Config:
    """Return a configuration for the fakes."""
    engines = {
        "spark": {"prices": "crypto_prices_realtime", "candles": "candles_1m_spark",
                  "nodes": ["spark-master-1", "spark-worker-1"] if nodes else []},
        "flink": {"prices": "crypto_prices_flink", "candles": "candles_1m_flink",
                  "nodes": ["flink-jobmanager-1", "flink-taskmanager-1"] if nodes else []},
    }  # fmt: skip
    return Config.model_validate({
        "lab": lab,
        "server": {"uplot": uplot, "port": port},
        "postgres": {"host": "postgres-1", "password_file": "unused"},
        "engines": engines,
    })  # fmt: skip


# What a browser that is driven from outside can be asked by its DOM alone: `/?probe` has it on board.
PROBE = """\
const told = document.documentElement.dataset;
let shift = 0, faults = [], moved = [];
addEventListener("error", (event) => faults.push(event.message));
addEventListener("securitypolicyviolation", (event) => faults.push(`${event.violatedDirective} ${event.blockedURI}`));
new PerformanceObserver((list) => list.getEntries().forEach((entry) => {
  shift += entry.value;
  moved.push(...entry.sources.map(({node}) => node?.id || node?.className || node?.nodeName));
}))
  .observe({type: "layout-shift", buffered: true});
setInterval(() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  told.shift = shift.toFixed(4);
  told.moved = moved.join("; ");
  told.faults = faults.join("; ");
  told.overflow = document.scrollingElement.scrollWidth - document.documentElement.clientWidth;
  told.cut = all("dd, .quote, .path .text, h1, h2:not(.visually-hidden), h3, #headline")
    .filter((found) => found.scrollWidth > found.clientWidth + 1)
    .map((found) => found.textContent.trim()).join("; ");
  told.charts = all("canvas").length;
  told.unnamed = all("[role=img]:not([aria-label]), [role=img][aria-label='']").length;
  told.heights = all("section, article").map((found) => found.offsetHeight).join(" ");
}, 100);
"""


def add_probe(app: web.Application) -> None:
    """Let the page carry PROBE where it is asked for as `/?probe`."""

    @web.middleware
    async def insert(request: web.Request, handler: Handler) -> web.StreamResponse:
        answer = await handler(request)
        if request.path == "/" and "probe" in request.query and isinstance(answer, web.Response):
            assert isinstance(answer.body, bytes)
            answer.body = answer.body.replace(b"</head>", b'<script src="/probe.js"></script></head>')
        return answer

    async def probe(_request: web.Request) -> web.Response:
        return web.Response(text=PROBE, content_type="text/javascript")

    app.middlewares.append(insert)
    app.router.add_get("/probe.js", probe)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", choices=STATES, default="healthy", help="what the lab is like (default: healthy)")
    parser.add_argument("--uplot", type=Path, required=True, help="uPlot's WebJar, or the folder it is in")
    parser.add_argument("--port", type=int, default=8050, help="port on loopback (default: 8050)")
    parser.add_argument("--lab", default="lab", help="its name")
    parser.add_argument("--now", type=float, help="freeze the lab at this moment, epoch seconds")
    options = parser.parse_args()
    settings = config(options.uplot, options.port, lab=options.lab)
    metrics = None if options.state == "no_prometheus" else FakePrometheus(options.state, options.now)
    app = make_app(settings, FakeDatabase(options.state, options.now), metrics)
    add_probe(app)
    asyncio.run(serve(settings, app))


if __name__ == "__main__":
    main()
