"""The `crypto-producer` command."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from crypto_producer import __version__
from crypto_producer.config import Config, ConfigError, load_config
from crypto_producer.service import Service, make_source
from crypto_producer.sources.base import SourceError, StoppedError
from crypto_producer.spool import DATABASE_NAME, Counts, SpoolError, read_ledger, reset_spool

_DESCRIPTION = """\
Reads crypto prices from a source, stores each event in a durable spool, and delivers it to Kafka: in order per
symbol, and once also when Kafka is away or this process is killed (what that rests on, and its limits: README.md).
"""
_EPILOG = """\
sources ([source] kind = ...):
  coinbase_rest  spot prices of all symbols every 10 s; a line `Successfully sent 5/5 cryptocurrency pairs to Kafka`
                 says after each round how many Kafka has acknowledged
  coinbase_ws    all trades, pushed; gaps in trade ids are found and filled by REST
  tape           a recording of feed messages

a small configuration (every other key has a default; see apps/producer/README.md):
  [kafka]
  bootstrap_servers = ["127.0.0.1:9092"]
  [spool]
  dir = "/var/lib/crypto-producer"

first steps:
  crypto-producer check  --config producer.toml    is the file right?
  crypto-producer probe  --config producer.toml    does the source answer?
  crypto-producer run    --config producer.toml    produce until SIGTERM
  crypto-producer ledger --config producer.toml    how many events were accepted and acknowledged, ever?
  crypto-producer reset  --config producer.toml    count from zero, with an empty spool

exit codes: 0 done, 1 failed, 2 the configuration or the command line is wrong
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="crypto-producer",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("run", "produce until SIGTERM or SIGINT (a tape: until its end)"),
        ("check", "validate the configuration, touch nothing"),
        ("probe", "reach the configured source once: exit code 0 if it answers, else 1"),
        ("ledger", "print the durable counts of events, also while a producer runs"),
        ("reset", "delete the spool: counts, waiting events, how far the source was read; no producer may run"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--config", type=Path, required=True, metavar="PATH", help="the TOML configuration")
        if name == "ledger":
            command.add_argument("--json", action="store_true", help="one JSON object instead of a table")
        if name == "reset":
            command.add_argument(
                "--keep-pending", action="store_true", help="only the counts: what waits is sent later"
            )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command: the exit code."""
    parsed = _parser().parse_args(arguments)
    # A unit's locale may be C, and the log has a character beyond ASCII.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    try:
        config = load_config(parsed.config)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    logging.basicConfig(
        stream=sys.stdout, level=config.service.log_level, format="%(levelname)s %(name)s: %(message)s", force=True
    )
    # One line per attempt of a client library says nothing that our own line does not.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    try:
        if parsed.command == "run":
            return Service(config).run()
        if parsed.command == "probe":
            print(make_source(config).probe())
        elif parsed.command == "ledger":
            _print_ledger(config, as_json=parsed.json)
        elif parsed.command == "reset":
            _reset(config, keep_pending=parsed.keep_pending)
        else:
            print(f"{parsed.config}: valid; source {config.source.kind}, topic {config.kafka.topic}")
    except (SpoolError, SourceError, StoppedError, OSError, ValueError) as error:
        print(f"crypto-producer {parsed.command}: {error}", file=sys.stderr)
        return 1
    return 0


def _print_ledger(config: Config, *, as_json: bool) -> None:
    ledger = read_ledger(config.spool.dir)
    rows = {**ledger.by_symbol, "total": ledger.total}
    if as_json:
        total = _row(ledger.total)
        by_symbol = {symbol: _row(counts) for symbol, counts in ledger.by_symbol.items()}
        print(json.dumps({**total, "by_symbol": by_symbol, "created_at_ms": ledger.created_at_ms}))
        return
    print(f"{'symbol':<10} {'accepted':>12} {'acknowledged':>12} {'dropped':>10} {'pending':>10}")
    for symbol, counts in rows.items():
        print(f"{symbol:<10} {counts.accepted:>12} {counts.acknowledged:>12} {counts.dropped:>10} {counts.pending:>10}")


def _reset(config: Config, *, keep_pending: bool) -> None:
    existed = (config.spool.dir / DATABASE_NAME).exists()
    ledger = reset_spool(config.spool.dir, keep_pending=keep_pending)
    if ledger is None:
        print("Deleted a spool that could not be read" if existed else "there is no spool: nothing to delete")
        return
    total = ledger.total
    print(f"Deleted the producer's count of {total.acknowledged} events in Kafka, {total.dropped} dropped")
    print(f"{'Kept' if keep_pending else 'Deleted'} {total.pending} events that wait in the producer's spool")


def _row(counts: Counts) -> dict[str, int]:
    return {**dataclasses.asdict(counts), "pending": counts.pending}
