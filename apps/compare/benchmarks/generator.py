#!/usr/bin/env python3
"""How fast and how punctual is the generator? Against librdkafka's own stand-in for a broker, so nothing else counts.

    PYTHONPATH=apps/compare/src .venv/bin/python apps/compare/benchmarks/generator.py [--repetitions 5]

Prints the median and the least and greatest of the repetitions: events per second of CPU time (of this process, the
stand-in in it) in a flood, and the 99th percentile of the delay behind the schedule at declared rates.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from compare.generator import Sender, Settings, producer_settings, send
from compare.hist import Latencies
from compare.load import GeneratorSpec, Steady

SETTINGS = Settings(
    bootstrap_servers=["unused"], topic="prices", symbols=["BTC-USD", "ETH-USD", "SOL-USD", "ADA-USD", "DOGE-USD"]
)
FLOOD_PER_S = 1_000_000.0
FLOOD_S = 1.0
RATES_PER_S = (1_000.0, 5_000.0, 20_000.0)
RATE_S = 5.0
WARMUP_S = 1.0


def account_of(rate_per_s: float, duration_s: float, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of the spec
    """Send one load; returns the generator's account."""
    spec = GeneratorSpec(tag=1, load=Steady(rate_per_s=rate_per_s, duration_s=duration_s), lead_s=0.5, **more)
    sender = Sender(producer_settings(SETTINGS, spec) | {"test.mock.num.brokers": 1, "log_level": 2}, SETTINGS.topic)
    sender.connect()
    return send(spec, sender, SETTINGS.symbols, lambda _line: None)


def told(values: list[float], form: str) -> str:
    """Return median, least and greatest."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    repetitions = range(parser.parse_args().repetitions)
    rates = []
    for _ in repetitions:
        account = account_of(FLOOD_PER_S, FLOOD_S, linger_ms=20)
        rates.append(account["acknowledged"] / account["cpu_s"])
    print(f"events per CPU second: {told(rates, ',.0f')}")
    for rate_per_s in RATES_PER_S:
        delays_ms = []
        for _ in repetitions:
            account = account_of(rate_per_s, RATE_S, warmup_s=WARMUP_S)
            found = Latencies()
            found.record_counts((step * account["delay_step_us"], count) for step, count in account["delays"])
            delays_ms.append(found.at_ms(99) or 0.0)
        print(f"p99 of the delay at {rate_per_s:,.0f}/s, ms: {told(delays_ms, '.2f')}")


if __name__ == "__main__":
    main()
