"""The `coinbase-replay` command."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from coinbase_replay import __version__
from coinbase_replay.config import SYMBOLS, ConfigError, TimelineConfig, load_config
from coinbase_replay.generator import generate
from coinbase_replay.server import serve
from coinbase_replay.tape import Tape, TapeError, load_tape, write_tape
from coinbase_replay.timeline import Timeline, make_timelines

_DESCRIPTION = """\
A stand-in for Coinbase. Serves the REST paths and the WebSocket feed a producer reads, from an endless tape that is a
function of the wall clock: a restart goes on with the same trade ids and times, as if it had never been away.
"""
_EPILOG = """\
a small configuration:
  [timeline]
  anchor = 1783465000         # epoch seconds of the deployment; a new tape or speed needs a new anchor
  speed = 20.0
  tape = "recording.ndjson"   # without it, and for products it has not, trades are generated

faults (the admin port is 8091 unless configured otherwise):
  curl -X POST localhost:8091/_admin/drop
  curl -X POST localhost:8091/_admin/gap -d '{"product_id": "BTC-USD", "count": 50}'
  curl -X POST localhost:8091/_admin/rate_limit -d '{"seconds": 10}'         429 with Retry-After
  curl -X POST localhost:8091/_admin/server_error -d '{"seconds": 10}'       503
  curl -X POST localhost:8091/_admin/stall_heartbeats -d '{"seconds": 30}'
  curl -X POST localhost:8091/_admin/clear
  curl localhost:8091/_admin/status

exit codes: 0 done, 1 failed, 2 the configuration or the command line is wrong
"""


def build_timelines(config: TimelineConfig) -> dict[str, Timeline]:
    """The timelines of all five products. Raises TapeError, ValueError (too fast)."""
    tape = load_tape(config.tape) if config.tape is not None else generate(config.seed, config.duration_s, SYMBOLS)
    missing = [symbol for symbol in SYMBOLS if symbol not in tape.products]
    filled = generate(config.seed, tape.duration_us // 1_000_000, missing)
    products = {symbol: (tape.products.get(symbol) or filled.products[symbol]) for symbol in SYMBOLS}
    return make_timelines(Tape(tape.duration_us, products), config.anchor, config.speed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="coinbase-replay",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser("serve", help="serve until SIGTERM or SIGINT")
    command.add_argument("--config", type=Path, required=True, metavar="PATH", help="the TOML configuration")
    command = commands.add_parser("generate", help="write a generated tape, the same for the same arguments")
    command.add_argument("--seed", type=int, required=True, help="what the random numbers begin with")
    command.add_argument("--duration", type=int, default=600, metavar="SECONDS", help="length (default: 600)")
    command.add_argument("--out", type=Path, required=True, metavar="PATH", help="the NDJSON file to write")
    command = commands.add_parser("inspect", help="say what is on a tape, and whether it is valid")
    command.add_argument("tape", type=Path, help="an NDJSON file of feed messages")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command: the exit code."""
    parsed = _parser().parse_args(arguments)
    logging.basicConfig(stream=sys.stdout, level="INFO", format="%(levelname)s %(name)s: %(message)s", force=True)
    try:
        if parsed.command == "serve":
            config = load_config(parsed.config)
            if config.timeline.anchor > time.time():
                raise ConfigError(
                    f"{parsed.config}: timeline.anchor: {config.timeline.anchor} is in the future, and nothing would "
                    "have happened yet; set it to a past instant, such as the output of `date +%s`"
                )
            asyncio.run(serve(config, build_timelines(config.timeline)))
        elif parsed.command == "generate":
            # A fixed beginning: the file must depend on the arguments alone.
            tape = generate(parsed.seed, parsed.duration, SYMBOLS)
            print(f"{parsed.out}: {write_tape(parsed.out, tape, begin_us=1_767_225_600_000_000)} trades")
        else:
            tape = load_tape(parsed.tape)
            print(f"{parsed.tape}: period {tape.duration_us / 1e6:.0f} s")
            for product, trades in sorted(tape.products.items()):
                rate_per_s = len(trades) / tape.duration_us * 1e6
                prices = f"{trades[0].price} .. {trades[-1].price}"
                print(f"{product:<10} {len(trades):>8} trades {rate_per_s:>8.2f} /s   {prices}")
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except (TapeError, OSError, ValueError) as error:
        print(f"coinbase-replay {parsed.command}: {error}", file=sys.stderr)
        return 1
    return 0
