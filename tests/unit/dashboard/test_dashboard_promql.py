"""The one request to Prometheus, evaluated by Prometheus' own promtool on series as the lab has them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from crypto_dashboard.prometheus import MARK, query
from fake_lab import config

# A minute and more, every 15 s as the lab is scraped.
SERIES = {
    'kafka_log_end_offset{topic="crypto_prices",partition="0",node="kafka-1"}': "100x20",
    'kafka_log_end_offset{topic="crypto_prices",partition="0",node="kafka-2"}': "99x20",
    'kafka_log_end_offset{topic="crypto_prices",partition="1",node="kafka-1"}': "7x20",
    'kafka_log_end_offset{topic="another",partition="0",node="kafka-1"}': "1000x20",
    'producer_acknowledged_total{symbol="BTC-USD",job="producer"}': "0+15x20",
    'producer_acknowledged_total{symbol="ETH-USD",job="producer"}': "0+30x20",
    'up{job="producer",node="producer-1"}': "1x20",
    'up{job="kafka",node="kafka-1"}': "1x20",
    'up{job="kafka",node="kafka-2"}': "0x20",
    'crypto_spark_query_active{query="prices",job="spark_job"}': "1x20",
    'crypto_spark_query_active{query="candles",job="spark_job"}': "1x20",
    'up{job="spark_job",node="submitter-1"}': "1x20",
    # The supervisor is gone, and its metrics with it.
    'up{job="flink_job",node="submitter-1"}': "0x20",
    'node_cpu_seconds_total{node="spark-master-1",mode="user",cpu="0"}': "0+3x20",
    'node_cpu_seconds_total{node="spark-worker-1",mode="system",cpu="0"}': "0+3x20",
    'node_cpu_seconds_total{node="spark-worker-1",mode="idle",cpu="0"}': "0+9x20",
    'node_cpu_seconds_total{node="kafka-1",mode="user",cpu="0"}': "0+9x20",
    'node_memory_MemTotal_bytes{node="spark-master-1"}': "100x20",
    'node_memory_MemAvailable_bytes{node="spark-master-1"}': "40x20",
}
# Value, labels, number; what has no series is not there.
EXPECTED: list[tuple[str, dict[str, str], float]] = [
    ("topic_end", {"partition": "0"}, 100), ("topic_end", {"partition": "1"}, 7), ("produced_per_s", {}, 3),
    ("producer_up", {}, 1), ("brokers_up", {}, 1), ("brokers", {}, 2), ("spark_job", {}, 1), ("flink_job", {}, 0),
    ("spark_cpu", {}, 0.4), ("spark_memory", {}, 60),
]  # fmt: skip


def labels(found: dict[str, str]) -> str:
    return "{" + ", ".join(f'{name}="{value}"' for name, value in sorted(found.items())) + "}"


def test_expressions_say_what_they_should(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is missing (Debian's package prometheus)")
    samples = [{"labels": labels({**found, MARK: name}), "value": value} for name, found, value in EXPECTED]
    test = {
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in SERIES.items()],
        "promql_expr_test": [{"expr": query(config(Path("x"))), "eval_time": "4m", "exp_samples": samples}],
    }
    path = tmp_path / "test.yml"
    path.write_text(json.dumps({"rule_files": [], "evaluation_interval": "15s", "tests": [test]}))
    done = subprocess.run([promtool, "test", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
