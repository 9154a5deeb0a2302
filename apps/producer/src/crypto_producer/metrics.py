"""Prometheus metrics of the producer."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from crypto_producer.spool import Spool


class _SpoolCollector(Collector):
    """Reads the spool when Prometheus asks, so that ledger and metrics cannot differ."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def collect(self) -> list[GaugeMetricFamily]:
        ledger = self._spool.ledger()
        families = [
            GaugeMetricFamily(
                "producer_spool_events", "Events that wait for Kafka's acknowledgement", self._spool.events
            ),
            GaugeMetricFamily("producer_spool_bytes", "Bytes of the events that wait", self._spool.bytes),
            GaugeMetricFamily("producer_spool_max_events", "The spool's bound in events", self._spool.max_events),
            GaugeMetricFamily("producer_spool_max_bytes", "The spool's bound in bytes", self._spool.max_bytes),
        ]
        for name, text in (
            ("accepted", "Distinct events accepted since the spool was created (durable)"),
            ("acknowledged", "Distinct events acknowledged by Kafka since the spool was created (durable)"),
            ("dropped", "Events dropped by a full spool since it was created (durable)"),
        ):
            family = GaugeMetricFamily(f"producer_ledger_{name}", text, labels=["symbol"])
            for symbol, counts in ledger.by_symbol.items():
                family.add_metric([symbol], getattr(counts, name))
            families.append(family)
        return families


class Metrics:
    """All metrics of one producer, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"producer_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"producer_{name}", text, labels, registry=self.registry)

        self.events = counter("events", "Events accepted into the spool", "symbol", "source")
        self.acknowledged = counter("acknowledged", "Events acknowledged by Kafka", "symbol")
        self.send_errors = counter(
            "send_errors", "Delivery sessions that failed or could not begin; the next one takes over"
        )
        self.reconciled = counter(
            "reconciled", "Events found in the topic after a crash or a failed delivery, and not sent again"
        )
        self.kafka_connected = gauge(
            "kafka_connected", "1 while a delivery session stands and Kafka leaves nothing unanswered for 5 s"
        )
        self.spool_full = gauge("spool_full", "1 while the spool's bound is reached")
        self.spool_dropped = counter("spool_dropped", "Events dropped because the spool was full", "symbol")
        self.source_connected = gauge("source_connected", "1 while the source answers")
        self.source_errors = counter("source_errors", "Errors of the source", "kind")
        self.rate_limited = counter("rate_limited", "Answers 429 of the source")
        self.reconnects = counter("reconnects", "Connections to the feed that ended or could not be made", "reason")
        self.gaps = counter("gaps", "Gaps found in trade ids", "symbol")
        self.gap_trades = counter("gap_trades", "Trades missing in gaps", "symbol")
        self.gap_trades_filled = counter("gap_trades_filled", "Trades of gaps that were fetched", "symbol")
        self.gap_trades_unfilled = counter("gap_trades_unfilled", "Trades of gaps that were given up", "symbol")
        self.duplicates = counter("duplicates_suppressed", "Trades that came more than once", "symbol")
        self.feed_behind = gauge("feed_behind", "1 where the feed's trade ids are below those seen before", "symbol")
        self.rounds_skipped = counter("rounds_skipped", "Polling rounds that were not begun in time")
        self.last_event_timestamp = gauge("last_event_timestamp_seconds", "When the last event was accepted, epoch s")
        self.last_event_age = gauge("last_event_age_seconds", "Seconds since the last event was accepted")
        self._last_event_s = time.time()
        self.last_event_age.set_function(lambda: time.time() - self._last_event_s)

    def event_accepted(self) -> None:
        """An event was accepted now."""
        self._last_event_s = time.time()
        self.last_event_timestamp.set(self._last_event_s)

    def serve(self, host: str, port: int, spool: Spool) -> None:
        """Answer Prometheus at `host`:`port` from a background thread. Raises OSError when the port is taken."""
        self.registry.register(_SpoolCollector(spool))
        start_http_server(port, host, self.registry)
