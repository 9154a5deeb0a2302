"""The `crypto-dashboard` command."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from crypto_dashboard import __version__
from crypto_dashboard.config import Config, ConfigError, load_config
from crypto_dashboard.database import Postgres
from crypto_dashboard.prometheus import EXPRESSIONS, Prometheus
from crypto_dashboard.readings import SourceError
from crypto_dashboard.server import find_uplot, make_app, serve, uplot_files

_DESCRIPTION = """\
One page that shows both engines at work: prices and one-minute candles side by side, latency percentiles, rows per
second, lag, CPU and memory, the health of each step, and alerts. Reads PostgreSQL and, where there is one, Prometheus,
and only while somebody looks.
"""
_EPILOG = """\
a small configuration (every other key has a default; see apps/dashboard/README.md):
  [server]
  uplot = "/opt/dashboard/current/jars"
  [postgres]
  host = "postgres-1"
  password_file = "/etc/dashboard/postgres-password"
  [prometheus]
  url = "http://monitoring-1:9090"

first steps:
  crypto-dashboard check --config dashboard.toml    is the file right?
  crypto-dashboard probe --config dashboard.toml    do PostgreSQL and Prometheus answer, and which values are missing?
  crypto-dashboard serve --config dashboard.toml    serve the page until SIGTERM

exit codes: 0 done, 1 failed, 2 the configuration or the command line is wrong
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="crypto-dashboard",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("serve", "serve the page until SIGTERM or SIGINT"),
        ("check", "validate the configuration, ask nobody"),
        ("probe", "ask PostgreSQL and Prometheus once and say what they know: exit code 0 if the database answers"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--config", type=Path, required=True, metavar="PATH", help="the TOML configuration")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command: the exit code."""
    parsed = _parser().parse_args(arguments)
    try:
        config = load_config(parsed.config)
        if parsed.command != "check":
            uplot_files(find_uplot(config.server.uplot))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    logging.basicConfig(
        stream=sys.stdout, level=config.log_level, format="%(levelname)s %(name)s: %(message)s", force=True
    )
    if parsed.command == "check":
        print(f"{parsed.config}: valid; port {config.server.port}, Prometheus {config.prometheus.url or 'none'}")
        return 0
    if parsed.command == "probe":
        return asyncio.run(_probe(config))
    try:
        asyncio.run(serve(config, make_app(config)))
    except OSError as error:
        print(f"crypto-dashboard serve: {error}", file=sys.stderr)
        return 1
    return 0


async def _probe(config: Config) -> int:
    code = 0
    source = Postgres(config)
    try:
        for name, engine in source.rows().engines.items():
            age = "no rows" if engine.committed_ms is None else f"{engine.rows} rows in the last minute"
            print(f"PostgreSQL: {name}: {age}")
        source.candles()
        source.history()
    except SourceError as error:
        print(f"PostgreSQL: {error}")
        code = 1
    finally:
        source.close()
    if not config.prometheus.url:
        print("Prometheus: none is configured")
        return code
    prometheus = Prometheus(config)
    try:
        metrics = await prometheus.metrics()
        missing = [name for name in EXPRESSIONS if name not in metrics.values]
        print(f"Prometheus: {len(metrics.values)} of {len(EXPRESSIONS)} values, {len(metrics.alerts)} alerts")
        if missing:
            print(f"Prometheus: nothing for {', '.join(missing)}")
    except SourceError as error:
        print(f"Prometheus: {error}")
    finally:
        await prometheus.close()
    return code
