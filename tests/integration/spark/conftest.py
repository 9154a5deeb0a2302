# ruff: noqa: ANN401 - fixtures of a conftest have no importable type, and psycopg2 has none at all
"""The Spark application as a process, its configuration, and the shared fixture as Kafka records."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from services import REPOSITORY, KafkaServer, PostgresServer, artifact_tree, built_jar, free_port, wait_until

APP = REPOSITORY / "apps" / "spark"
SYMBOLS = ["BTC-USD", "ETH-USD", "SOL-USD", "ADA-USD", "DOGE-USD"]


@dataclass(frozen=True)
class Record:
    """One record of the shared fixture."""

    partition: int
    offset: int
    timestamp_ms: int
    value: bytes | None


@dataclass(frozen=True)
class Fixture:
    """tests/fixtures/events.json, with values decoded."""

    records: list[Record]
    rows: list[dict[str, Any]]
    rejected: list[dict[str, Any]]
    candles: list[dict[str, Any]]


@pytest.fixture(scope="session")
def fixture() -> Fixture:
    data = json.loads((REPOSITORY / "tests" / "fixtures" / "events.json").read_text())

    def value(record: dict[str, Any]) -> bytes | None:
        if "value_repeat" in record:
            repeat = record["value_repeat"]
            return (repeat["prefix"] + repeat["fill"] * repeat["count"] + repeat["suffix"]).encode()
        return None if record["value_base64"] is None else base64.b64decode(record["value_base64"])

    records = [Record(r["partition"], r["offset"], r["kafka_timestamp"], value(r)) for r in data["records"]]
    return Fixture(records, data["rows"], data["rejected"], data["candles"])


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """A local session without connectors, for the transform alone."""
    from crypto_spark.transform import REQUIRED_CONF

    session = (
        SparkSession.builder.master("local[2]")
        .config("spark.driver.memory", "512m")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.shuffle.partitions", "2")
        .config(map=REQUIRED_CONF)
        .getOrCreate()
    )
    yield session
    session.stop()


@pytest.fixture(scope="session")
def jars_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All jars in one place, as on a node."""
    directory = tmp_path_factory.mktemp("jars")
    writer = built_jar("spark_job", "crypto-spark-writer-1.0.0.jar", APP / "jvm", tmp_path_factory.mktemp("writer"))
    for jar in [*artifact_tree("spark_job", "jars").glob("*.jar"), writer]:
        (directory / jar.name).unlink(missing_ok=True)
        (directory / jar.name).symlink_to(jar)
    return directory


@dataclass
class SparkApp:
    """One configuration of the application, and the process that runs it."""

    directory: Path
    settings: dict[str, dict[str, Any]]
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    logs: list[Path] = field(default_factory=list)

    def start(self) -> None:
        """Start the application; does not wait."""
        config = self.directory / "config.toml"
        config.write_text(
            "\n".join(
                f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
                for section, values in self.settings.items()
            )
        )
        self.starts += 1
        self.logs.append(self.directory / f"app-{self.starts}.log")
        with self.logs[-1].open("wb") as log:
            self.process = subprocess.Popen(
                # Without site-packages: what it imports has to be in the trees, as on a node.
                [sys.executable, "-S", str(APP / "spark_stream_processor.py"), "--config", str(config)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    @property
    def log(self) -> str:
        """What the newest process has said so far."""
        return self.logs[-1].read_text(errors="replace")

    def wait_for_log(self, text: str, timeout_s: float = 300.0) -> None:
        """Wait until the newest process has said `text`."""
        self.wait_until(lambda: text in self.log, f"{text!r} in the application's log", timeout_s)

    def wait_until(self, condition: Any, what: str, timeout_s: float = 300.0) -> None:
        """Wait for a condition while the application runs; fail with its log where it ends or the time is over."""
        process = self.process
        assert process is not None

        def check() -> bool:
            if condition():
                return True
            if process.poll() is not None:
                raise AssertionError(f"application ended with {process.returncode} before {what}:\n{self.log[-6000:]}")
            return False

        try:
            wait_until(check, what, timeout_s, interval_s=0.2)
        except TimeoutError as error:
            raise AssertionError(f"{error}:\n{self.log[-6000:]}") from error

    def wait_for_exit(self, timeout_s: float = 300.0) -> int:
        """Wait for the process to end by itself; return its exit code."""
        assert self.process is not None
        return self.process.wait(timeout_s)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal to the driver process and return its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(120)


@pytest.fixture
def spark_app(tmp_path: Path, kafka: KafkaServer, postgres: PostgresServer, jars_dir: Path) -> Iterator[Any]:
    """Factory: `spark_app(topic, mode=..., cores=...)` gives a SparkApp with a checkpoint of its own."""
    apps: list[SparkApp] = []

    def make(topic: str, mode: str, cores: int = 4) -> SparkApp:
        directory = tmp_path / f"app{len(apps)}"
        directory.mkdir()
        settings: dict[str, dict[str, Any]] = {
            "kafka": {"bootstrap_servers": kafka.bootstrap_servers, "topic": topic, "starting_offsets": "earliest"},
            "postgres": {
                "host": postgres.host,
                "port": postgres.port,
                "database": postgres.database,
                "user": "spark_writer",
                "password_file": str(postgres.password_file("spark_writer")),
            },
            "events": {"symbols": SYMBOLS, "max_event_bytes": 65536, "log_events": True},
            "candles": {"window_s": 60, "watermark_delay_s": 120},
            "job": {
                "name": f"test-{topic}",
                "parallelism": 2,
                "checkpoint_dir": str(directory / "checkpoints"),
                "checkpoint_interval_ms": 5000,
            },
            "metrics": {"host": "127.0.0.1", "port": free_port()},
            "spark": {
                "master": f"local[{cores}]",
                "mode": mode,
                "trigger_interval_ms": 500,
                "jars_dir": str(jars_dir),
                "driver_memory": "640m",
                "driver_host": "127.0.0.1",
                "driver_bind_address": "127.0.0.1",
                "executor_wait_s": 1,
                "ui_port": free_port(),
                "local_dir": str(directory / "local"),
                "stall_timeout_s": 300,
            },
            "spark.conf": {'"spark.ui.enabled"': "false"},
        }
        app = SparkApp(directory, settings)
        apps.append(app)
        return app

    yield make
    for app in apps:
        # Its JVM ends with it. A test that ended well has stopped it in good order.
        if app.process is not None and app.process.poll() is None:
            app.process.kill()
            app.process.wait()
