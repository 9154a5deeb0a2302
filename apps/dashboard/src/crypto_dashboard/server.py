"""The web server: one page, its files, and its state."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import zipfile
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path

from aiohttp import web

from crypto_dashboard import database, prometheus
from crypto_dashboard.collector import Collector
from crypto_dashboard.config import Config, ConfigError
from crypto_dashboard.database import Postgres
from crypto_dashboard.prometheus import Prometheus
from crypto_dashboard.systemd import notify, watchdog_period_s

log = logging.getLogger(__name__)

# Everything comes from here: the page works without internet, and loads nothing from elsewhere with it.
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
PAGE_FILES = {"/": "index.html", "/dashboard.css": "dashboard.css", "/dashboard.js": "dashboard.js"}
UPLOT_FILES = {"/uplot.js": "uPlot.iife.min.js", "/uplot.css": "uPlot.min.css"}
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}

COLLECTOR: web.AppKey[Collector] = web.AppKey("collector", Collector)


def find_uplot(path: Path) -> Path:
    """Return uPlot's WebJar: the file itself, or the newest in a folder. ConfigError where there is none."""
    if path.is_dir():
        found = sorted(path.glob("uplot-*.jar"))
        if not found:
            raise ConfigError(f"server.uplot: {path} has no uplot-*.jar")
        return found[-1]
    if not path.is_file():
        raise ConfigError(f"server.uplot: {path} is neither a file nor a folder")
    return path


def uplot_files(jar: Path) -> dict[str, bytes]:
    """Return path on this server => content, from uPlot's WebJar. ConfigError where it is none."""
    try:
        with zipfile.ZipFile(jar) as archive:
            names = {name.rpartition("/dist/")[2]: name for name in archive.namelist() if "/dist/" in name}
            return {path: archive.read(names[name]) for path, name in UPLOT_FILES.items()}
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ConfigError(f"server.uplot: {jar} is no WebJar of uPlot: {error}") from error


def make_app(
    config: Config, rows: database.Source | None = None, metrics: prometheus.Source | None = None
) -> web.Application:
    """Return the application, with the configured sources unless others are given. ConfigError without uPlot."""
    files = uplot_files(find_uplot(config.server.uplot))
    package = resources.files("crypto_dashboard") / "static"
    files |= {path: (package / name).read_bytes() for path, name in PAGE_FILES.items()}
    # With its symbols from the start, so that nothing has to move when figures come.
    files["/"] = files["/"].replace(b"@symbols@", " ".join(config.symbols).encode())
    if metrics is None and config.prometheus.url:
        metrics = Prometheus(config)
    app = web.Application()

    def give(path: str, body: bytes) -> None:
        kind = TYPES[Path({**PAGE_FILES, **UPLOT_FILES}[path]).suffix]

        async def handler(_request: web.Request) -> web.Response:
            return web.Response(body=body, content_type=kind, charset="utf-8", headers={"Cache-Control": "no-cache"})

        app.router.add_get(path, handler)

    for path, body in files.items():
        give(path, body)
    app.router.add_get("/api/state", _state)
    app.router.add_get("/healthz", _healthz)
    app.on_response_prepare.append(_add_headers)

    async def run_collector(app: web.Application) -> AsyncIterator[None]:
        app[COLLECTOR] = Collector(config, rows or Postgres(config), metrics)
        yield
        await app[COLLECTOR].close()

    app.cleanup_ctx.append(run_collector)
    return app


async def _state(request: web.Request) -> web.Response:
    body = await request.app[COLLECTOR].snapshot()
    return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "no-store"})


async def _healthz(_request: web.Request) -> web.Response:
    """Say that the server runs, without asking anybody."""
    return web.json_response({"ok": True})


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


async def serve(config: Config, app: web.Application) -> None:
    """Answer until SIGTERM or SIGINT. Raises OSError where the address cannot be had."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, config.server.host, config.server.port, reuse_address=True).start()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        address = f"http://{config.server.host}:{config.server.port}"
        log.info("the dashboard is at %s", address)
        notify(f"READY=1\nSTATUS=Answers at {address}")
        period_s = watchdog_period_s()
        while not stop.is_set():
            # From the loop that answers requests: while that is stuck, the watchdog hears nothing.
            notify("WATCHDOG=1")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), period_s)
        notify("STOPPING=1")
    finally:
        await runner.cleanup()
