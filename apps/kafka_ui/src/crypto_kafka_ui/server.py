"""The web server: pages made here, without a script, and the same as JSON below /api. It knows GET and HEAD only."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import resources
from typing import Any
from urllib.parse import quote, urlencode

import jinja2
from aiohttp import web

from crypto_kafka_ui.collector import BusyError, Collector
from crypto_kafka_ui.config import Config
from crypto_kafka_ui.decode import laid_out
from crypto_kafka_ui.query import Query, QueryError, choose, parse, windows
from crypto_kafka_ui.reader import Kafka, Source
from crypto_kafka_ui.readings import Cluster, Reading, SourceError, Topic
from crypto_kafka_ui.systemd import notify, watchdog_period_s

log = logging.getLogger(__name__)

# There is no script, and nothing comes from elsewhere: what a message says stays text.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
REFRESH_S = 5
PACKAGE = resources.files("crypto_kafka_ui")

CONFIG: web.AppKey[Config] = web.AppKey("config", Config)
COLLECTOR: web.AppKey[Collector] = web.AppKey("collector", Collector)
TEMPLATES: web.AppKey[jinja2.Environment] = web.AppKey("templates", jinja2.Environment)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
# What a page says, by the names that its template uses.
View = Callable[[web.Request], Awaitable[dict[str, Any]]]


class NotThereError(Exception):
    """The cluster has no such thing; the text says what."""


def make_app(config: Config, source: Source | None = None) -> web.Application:
    """Return the application, with the configured cluster unless another source is given."""
    app = web.Application(middlewares=[_look_only])
    app[CONFIG] = config
    app[TEMPLATES] = _templates(config)
    for path, view, template in (
        ("/", _cluster, "cluster.html"),
        ("/topics/{topic}", _topic, "topic.html"),
        ("/topics/{topic}/{partition}/{offset}", _message, "message.html"),
        ("/groups/{group:.+}", _group, "group.html"),
    ):
        app.router.add_get(path, _page(view, template))
        app.router.add_get("/api/cluster" if path == "/" else f"/api{path}", _json(view))
    css = (PACKAGE / "static" / "kafka_ui.css").read_text()

    async def style(_request: web.Request) -> web.Response:
        return web.Response(text=css, content_type="text/css")

    async def healthz(_request: web.Request) -> web.Response:
        """Say that the server runs, without asking Kafka."""
        return web.json_response({"ok": True})

    app.router.add_get("/kafka_ui.css", style)
    app.router.add_get("/healthz", healthz)
    app.on_response_prepare.append(_add_headers)

    async def run_collector(app: web.Application) -> AsyncIterator[None]:
        app[COLLECTOR] = Collector(source or Kafka(config), config.limits)
        yield
        await app[COLLECTOR].close()

    app.cleanup_ctx.append(run_collector)
    return app


def _templates(config: Config) -> jinja2.Environment:
    found = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (PACKAGE / "templates" / name).read_text()),
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    found.filters |= {
        "number": lambda value: "-" if value is None else f"{value:,}",
        "time": _time,
        "part": lambda value: quote(str(value), safe=""),
        "laid_out": laid_out,
    }
    found.globals |= {"lab": config.lab, "refresh_s": REFRESH_S, "limits": config.limits}
    return found


def _time(value_ms: int | None) -> str:
    if value_ms is None:
        return "-"
    try:
        return dt.datetime.fromtimestamp(value_ms / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    except (ValueError, OverflowError, OSError):
        # Whoever sends a message may give it any time.
        return f"{value_ms} ms"


@web.middleware
async def _look_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse every method that could be meant to change something, whatever the address."""
    if request.method not in {"GET", "HEAD"}:
        raise web.HTTPMethodNotAllowed(request.method, ["GET", "HEAD"])
    return await handler(request)


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


async def _answer(view: View, request: web.Request) -> tuple[int, dict[str, Any]]:
    """Return status and what there is to say, or {"error": ...}."""
    try:
        return 200, await view(request)
    except NotThereError as error:
        return 404, {"error": str(error)}
    except QueryError as error:
        return 400, {"error": str(error)}
    except BusyError as error:
        return 503, {"error": f"Too many ask at the same time: {error}"}
    except SourceError as error:
        return 503, {"error": f"Kafka does not answer as it should: {error}"}


def _page(view: View, template: str) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        status, found = await _answer(view, request)
        again = request.query.get("refresh") == "on"
        # The address without the switch, to which the switch's link adds it.
        kept = {name: value for name, value in request.query.items() if name != "refresh"}
        switch = urlencode(kept if again else {**kept, "refresh": "on"})
        text = (
            request.app[TEMPLATES]
            .get_template(template if status == 200 else "error.html")
            .render(**found, status=status, again=again, switch=f"{request.rel_url.raw_path}?{switch}")
        )
        return web.Response(text=text, status=status, content_type="text/html")

    return handler


def _json(view: View) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        status, found = await _answer(view, request)
        # The cluster has an address of its own.
        said = found if len(found) == 1 else {name: value for name, value in found.items() if name != "cluster"}
        return web.json_response({name: _plain(value) for name, value in said.items()}, status=status)

    return handler


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a view says
    """Return a view's value as JSON has it, with what follows from the plain values (lag, counts, states)."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        names += [name for name, found in vars(type(value)).items() if isinstance(found, property)]
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return {name: _plain(entry) for name, entry in value.items()} if isinstance(value, dict) else value


async def _cluster(request: web.Request) -> dict[str, Any]:
    return {"cluster": await request.app[COLLECTOR].cluster()}


async def _find_topic(request: web.Request) -> tuple[Cluster, Topic]:
    cluster = await request.app[COLLECTOR].cluster()
    topic = cluster.topic(request.match_info["topic"])
    if topic is None:
        raise NotThereError(f"There is no topic {request.match_info['topic']}.")
    return cluster, topic


async def _topic(request: web.Request) -> dict[str, Any]:
    cluster, topic = await _find_topic(request)
    collector, limits = request.app[COLLECTOR], request.app[CONFIG].limits
    query = parse(request.query, topic, limits.messages, limits.max_messages)

    def ask(source: Source) -> tuple[dict[str, str], Reading]:
        led = [found.number for found in topic.partitions if found.leader is not None]
        at_time = source.offsets_at(topic.name, led, query.time_ms) if query.at == "time" else {}
        return source.settings(topic.name), source.messages(topic.name, windows(topic, query, at_time))

    settings, reading = await collector.ask(ask)
    messages = choose(reading.messages, query)
    return {
        "cluster": cluster, "topic": topic, "groups": cluster.groups_of(topic.name), "settings": settings,
        "messages": messages, "note": reading.note, "around": _around(topic, query),
        "query": {"partition": "", "offset": "", "time": "", **query.parameters()},
    }  # fmt: skip


def _around(topic: Topic, query: Query) -> dict[str, str]:
    """Return the addresses of the messages before and after the page's; of one partition, for that has an order."""
    partition = topic.partition(query.partition) if query.partition is not None else None
    if partition is None or partition.start is None or partition.end is None or query.at == "time":
        return {"older": "", "newer": ""}
    first, last = windows(topic, query, {})[partition.number]
    found = {"older": "", "newer": ""}
    if first > partition.start:
        # Of the messages before, no more than there are.
        start = max(partition.start, first - query.count)
        found["older"] = urlencode(dataclasses.replace(query.from_offset(start), count=first - start).parameters())
    if last < partition.end:
        found["newer"] = urlencode(query.from_offset(last).parameters())
    return found


async def _message(request: web.Request) -> dict[str, Any]:
    cluster, topic = await _find_topic(request)
    # The same words as for an address with a query.
    place = {name: request.match_info[name] for name in ("partition", "offset")}
    query = parse({**place, "at": "offset", "count": "1"}, topic, 1, 1)
    partition = topic.partition(query.partition or 0)
    first, last = windows(topic, query, {}).get(query.partition or 0, (0, 0))
    reading = Reading()
    if first == query.offset < last:
        reading = await request.app[COLLECTOR].ask(
            lambda source: source.messages(topic.name, {query.partition or 0: (first, last)}, whole=True)
        )
    if not reading.messages:
        raise NotThereError(f"{topic.name} has no message at offset {query.offset} of partition {query.partition}.")
    return {"cluster": cluster, "topic": topic, "message": reading.messages[0], "partition": partition}


async def _group(request: web.Request) -> dict[str, Any]:
    cluster = await request.app[COLLECTOR].cluster()
    group = cluster.group(request.match_info["group"])
    if group is None:
        raise NotThereError(f"There is no consumer group {request.match_info['group']}.")
    return {"cluster": cluster, "group": group}


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
        log.info("Kafka's pages are at %s", address)
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
