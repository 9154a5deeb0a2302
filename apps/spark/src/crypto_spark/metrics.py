"""Prometheus metrics of the application."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, start_http_server


class AppMetrics:
    """All metrics, in a registry of their own. Label ``query`` is ``prices`` or ``candles``."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"crypto_spark_{name}", text, ("query", *labels), registry=self.registry)

        def counter(name: str, text: str) -> Counter:
            return Counter(f"crypto_spark_{name}", text, ("query",), registry=self.registry)

        self.input_rows = counter("input_rows", "Records read from Kafka")
        self.batches = counter("batches", "Batches finished")
        self.staged_rows = counter("staged_rows", "Events brought to PostgreSQL, repeated ones included")
        self.inserted_rows = counter("inserted_rows", "Rows that were new to their table")
        self.rejected_rows = counter("rejected_rows", "Messages recorded as rejects")
        self.input_rows_per_s = gauge("input_rows_per_s", "Records read per second, in the last batch")
        self.processed_rows_per_s = gauge("processed_rows_per_s", "Records processed per second, in the last batch")
        self.batch_duration_ms = gauge("batch_duration_ms", "Duration of the last batch")
        self.last_batch = gauge("last_batch_id", "Number of the last batch")
        self.last_progress_s = gauge("last_progress_timestamp_seconds", "When the query last reported, or began")
        self.processed_offset = gauge("processed_offset", "Offset after the last record of the last batch", "partition")
        self.offsets_behind = gauge("offsets_behind_latest", "Records in Kafka that are not processed", "partition")
        self.starving = gauge("partition_starving", "1: records to read, and no task reads them", "partition")
        self.state_rows = gauge("state_rows", "Rows in the state store", "operator")
        self.state_memory_bytes = gauge("state_memory_bytes", "Memory of the state store", "operator")
        self.late_rows = gauge("late_rows", "Rows the last batch dropped because of the watermark")
        self.up = gauge("query_active", "1 while the query runs")

    def serve(self, host: str, port: int) -> None:
        """Answer on http://host:port/metrics from a thread of its own."""
        start_http_server(port, host, registry=self.registry)
