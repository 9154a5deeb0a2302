"""The `crypto-kafka-ui` command."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from crypto_kafka_ui import __version__
from crypto_kafka_ui.config import Config, ConfigError, load_config
from crypto_kafka_ui.reader import Kafka
from crypto_kafka_ui.readings import SourceError
from crypto_kafka_ui.server import make_app, serve

_DESCRIPTION = """\
Web pages of a Kafka cluster, to look at only: topics, partitions, messages, consumer groups and their lag. Nothing that
these pages do changes anything: requests that are not known to read are not sent.
"""
_EPILOG = """\
a small configuration (every other key has a default; see apps/kafka_ui/README.md):
  [kafka]
  bootstrap_servers = ["kafka-1:9092"]

first steps:
  crypto-kafka-ui check --config kafka_ui.toml    is the file right?
  crypto-kafka-ui probe --config kafka_ui.toml    does Kafka answer, and with what?
  crypto-kafka-ui serve --config kafka_ui.toml    serve the pages until SIGTERM

exit codes: 0 done, 1 failed, 2 the configuration or the command line is wrong
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="crypto-kafka-ui",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("serve", "serve the pages until SIGTERM or SIGINT"),
        ("check", "validate the configuration, ask nobody"),
        ("probe", "ask Kafka once and say what it has: exit code 0 if it answers"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--config", type=Path, required=True, metavar="PATH", help="the TOML configuration")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command: the exit code."""
    parsed = _parser().parse_args(arguments)
    try:
        config = load_config(parsed.config)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    logging.basicConfig(
        stream=sys.stdout, level=config.log_level, format="%(levelname)s %(name)s: %(message)s", force=True
    )
    if parsed.command == "check":
        print(f"{parsed.config}: valid; port {config.server.port}, Kafka {', '.join(config.kafka.bootstrap_servers)}")
        return 0
    if parsed.command == "probe":
        return _probe(config)
    try:
        asyncio.run(serve(config, make_app(config)))
    except OSError as error:
        print(f"crypto-kafka-ui serve: {error}", file=sys.stderr)
        return 1
    return 0


def _probe(config: Config) -> int:
    source = Kafka(config)
    try:
        cluster = source.cluster()
    except SourceError as error:
        print(f"Kafka: {error}")
        return 1
    finally:
        source.close()
    for topic in cluster.topics:
        print(f"topic {topic.name}: {len(topic.partitions)} partitions, {topic.messages} messages, {topic.state}")
    for group in cluster.groups:
        print(f"group {group.name}: {group.state}, lag {group.lag}")
    print(f"Kafka: {len(cluster.brokers)} brokers, {len(cluster.topics)} topics, {len(cluster.groups)} groups")
    return 0
