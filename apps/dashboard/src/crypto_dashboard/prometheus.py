"""What is asked of Prometheus. Every expression stands in EXPRESSIONS, and each may come to nothing."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import aiohttp

from crypto_dashboard.config import Config, EngineConfig
from crypto_dashboard.readings import Alert, Metrics, SourceError

# value => (PromQL, the label that tells its numbers apart; '' for one number). $topic, $spark and $flink (regular
# expressions of node names) are filled in from the configuration.
EXPRESSIONS: dict[str, tuple[str, str]] = {
    "topic_end": ('max by (partition) (kafka_log_end_offset{topic="$topic"})', "partition"),
    "producer_up": ('min(up{job="producer"})', ""),
    "produced_per_s": ("sum(rate(producer_acknowledged_total[1m]))", ""),
    "producer_pending": ("sum(producer_spool_events)", ""),
    "source_connected": ("min(producer_source_connected)", ""),
    "kafka_connected": ("min(producer_kafka_connected)", ""),
    "brokers_up": ('sum(up{job="kafka"})', ""),
    "brokers": ('count(up{job="kafka"})', ""),
    "under_replicated": ("sum(kafka_under_replicated_partitions)", ""),
    "offline_partitions": ("sum(kafka_offline_partitions)", ""),
    # A process that is not there has no metrics, and `up` is 0.
    "spark_job": ('min(crypto_spark_query_active or up{job="spark_job"} == 0)', ""),
    "flink_job": ('min(crypto_flink_job_up or up{job="flink_job"} == 0)', ""),
    "spark_cpu": ('sum(rate(node_cpu_seconds_total{node=~"$spark",mode!~"idle|iowait|steal"}[1m]))', ""),
    "flink_cpu": ('sum(rate(node_cpu_seconds_total{node=~"$flink",mode!~"idle|iowait|steal"}[1m]))', ""),
    "spark_memory": (
        'sum(node_memory_MemTotal_bytes{node=~"$spark"} - node_memory_MemAvailable_bytes{node=~"$spark"})', "",
    ),
    "flink_memory": (
        'sum(node_memory_MemTotal_bytes{node=~"$flink"} - node_memory_MemAvailable_bytes{node=~"$flink"})', "",
    ),
}  # fmt: skip
# By which the answers to one request are told apart.
MARK = "dashboard_value"


class Source(Protocol):
    """Where metrics come from."""

    async def metrics(self) -> Metrics:
        """Return all there is; SourceError where nobody answers."""

    async def close(self) -> None:
        """Let go of connections."""


def nodes_expression(engine: EngineConfig) -> str:
    """Return the regular expression of an engine's nodes, as it stands in PromQL; one that fits none without nodes."""
    return "|".join(name.replace(".", r"\\.") for name in engine.nodes) or "none"


def query(config: Config) -> str:
    """Return all expressions as one, so that a look costs Prometheus and the network one request."""
    parts = []
    for name, (expression, _) in EXPRESSIONS.items():
        filled = (
            expression.replace("$topic", config.topic)
            .replace("$spark", nodes_expression(config.engines.spark))
            .replace("$flink", nodes_expression(config.engines.flink))
        )
        parts.append(f'label_replace({filled}, "{MARK}", "{name}", "", "")')
    return " or ".join(parts)


def parse_values(result: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Sort the answer's numbers by value and label; what is no number is left out."""
    values: dict[str, dict[str, float]] = {}
    for entry in result:
        labels = entry["metric"]
        name = labels.get(MARK, "")
        number = float(entry["value"][1])
        if name in EXPRESSIONS and number == number:  # NaN is not equal to itself
            values.setdefault(name, {})[labels.get(EXPRESSIONS[name][1], "")] = number
    return values


def parse_alerts(found: Sequence[Mapping[str, Any]]) -> list[Alert]:
    """Return the alerts, firing before pending, the newest first."""
    alerts = []
    for entry in found:
        labels, notes = entry.get("labels", {}), entry.get("annotations", {})
        alerts.append(
            Alert(
                name=labels.get("alertname", "?"),
                state=entry.get("state", "?"),
                severity=labels.get("severity", ""),
                summary=notes.get("summary") or notes.get("description") or "",
                since_ms=_epoch_ms(entry.get("activeAt", "")),
            )
        )
    return sorted(alerts, key=lambda alert: (alert.state != "firing", -(alert.since_ms or 0), alert.name))


def _epoch_ms(text: str) -> float | None:
    # Prometheus writes nanoseconds, of which Python reads the first six digits.
    try:
        return dt.datetime.fromisoformat(text).timestamp() * 1000
    except ValueError:
        return None


class Prometheus:
    """Prometheus' HTTP API."""

    def __init__(self, config: Config) -> None:
        self._url = config.prometheus.url
        self._timeout = aiohttp.ClientTimeout(total=config.prometheus.timeout_s)
        self._query = query(config)
        self._session: aiohttp.ClientSession | None = None

    async def metrics(self) -> Metrics:
        """Return all there is; SourceError where nobody answers."""
        data = await self._get("query", {"query": self._query})
        alerts = await self._get("alerts", {})
        try:
            return Metrics(parse_values(data["result"]), parse_alerts(alerts["alerts"]))
        except (KeyError, TypeError, ValueError) as error:
            raise SourceError(f"an answer of another shape than Prometheus': {error!r}") from error

    async def close(self) -> None:
        """Let go of connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _get(self, path: str, form: dict[str, str]) -> Any:  # noqa: ANN401 - JSON
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        url = f"{self._url}/api/v1/{path}"
        try:
            # A POST where there is something to ask: the expression is long for a URL.
            async with self._session.request("POST" if form else "GET", url, data=form or None) as response:
                answer = json.loads(await response.text())
        except TimeoutError as error:
            raise SourceError("no answer in time") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise SourceError(str(error).splitlines()[0] if str(error) else type(error).__name__) from error
        if not isinstance(answer, dict) or answer.get("status") != "success":
            raise SourceError(str(answer.get("error", "an error") if isinstance(answer, dict) else "no JSON object"))
        return answer["data"]
