"""Command line: ``python3 -m crypto_spark --config PATH [--check]``."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crypto_spark.config import ConfigError, Settings, load
from crypto_spark.topic import OperatorNeededError

if TYPE_CHECKING:
    from types import FrameType

log = logging.getLogger("crypto_spark")

EXIT_FAILED = 1
EXIT_CONFIG = 2
EXIT_OPERATOR = 3

_HELP = """\
Reads crypto prices from Kafka with Spark Structured Streaming and writes them, one-minute candles and rejected
messages to PostgreSQL.

exit codes:
  0  stopped by SIGTERM
  1  a query, Kafka, PostgreSQL or the cluster failed: starting again goes on where it stopped
  2  the configuration is wrong
  3  the checkpoint does not fit the topic: somebody has to act, see the message
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the application; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="crypto-spark", description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True, metavar="PATH", help="TOML file with all settings")
    parser.add_argument("--check", action="store_true", help="only check the configuration, then exit")
    options = parser.parse_args(arguments)
    # No time: the journal has its own.
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(levelname)s %(name)s: %(message)s")
    # A failed batch is reported by its query, and an interrupted one when stopping is none.
    logging.getLogger("py4j").setLevel(logging.CRITICAL)
    try:
        settings = load(options.config)
        if options.check:
            settings.postgres.read_password()
            settings.find_jars()
            print(f"{options.config}: good")
            return 0
        return _run(settings)
    except ConfigError as error:
        text = str(error)
        print(text if text.startswith(str(options.config)) else f"{options.config}: {text}", file=sys.stderr)
        return EXIT_CONFIG


def _run(settings: Settings) -> int:
    # Imported late: --check and a bad configuration do not wait for Spark.
    from crypto_spark.job import EXPECTED_ERRORS, Job  # noqa: PLC0415
    from crypto_spark.metrics import AppMetrics  # noqa: PLC0415
    from crypto_spark.notify import Notifier  # noqa: PLC0415

    metrics, notifier = AppMetrics(), Notifier()
    job = Job(settings, metrics, notifier)
    stopping = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        job.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        metrics.serve(settings.metrics.host, settings.metrics.port)
        job.run()
    except ConfigError:
        raise
    except OperatorNeededError as error:
        log.error("%s", error)
        notifier.send(STATUS=str(error))
        return EXIT_OPERATOR
    except Exception as error:
        # While stopping, the JVM may be gone before the queries are: no failure.
        if stopping:
            log.warning("Stopped, though not cleanly: %s", error)
            return 0
        if isinstance(error, EXPECTED_ERRORS):
            kind = type(error)
            # "connection already closed" does not say whose; its kind, psycopg2.InterfaceError, does.
            whose = "" if kind.__module__.startswith("crypto_spark") else f"{kind.__module__}.{kind.__name__}: "
            log.error("%s%s", whose, str(error).strip())
        else:
            log.exception("Failed")
        notifier.send(STATUS=f"failed: {error}"[:500])
        return EXIT_FAILED
    log.info("Stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
