"""The whole job on a real session cluster, from a real Kafka to a real PostgreSQL, kept up by the supervisor."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extensions
import pytest
from flink_cluster import PYTHON, FlinkCluster, connector_jars, flink_home, python_environment
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from services import REPOSITORY, KafkaServer, PostgresServer, free_port, wait_until

FIXTURE = json.loads((REPOSITORY / "tests" / "fixtures" / "events.json").read_text())
MINUTE_MS = 60_000
START_MS = 1783465020000


@dataclass
class Lab:
    """One topic and one job, with its own configuration, state and supervisor."""

    cluster: FlinkCluster
    kafka: KafkaServer
    postgres: PostgresServer
    functions_jar: Path
    directory: Path
    name: str
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    supervisor: subprocess.Popen[bytes] | None = None
    metrics_port: int = field(default_factory=free_port)

    @property
    def state(self) -> Path:
        return self.cluster.directory / "state"

    @property
    def config_path(self) -> Path:
        return self.directory / "config.toml"

    def configure(self, **changes: dict[str, Any]) -> None:
        sections: dict[str, dict[str, Any]] = {
            "kafka": {"bootstrap_servers": self.kafka.bootstrap_servers, "topic": self.name},
            "postgres": {
                "host": self.postgres.host, "port": self.postgres.port, "database": self.postgres.database,
                "user": "flink_writer", "password_file": str(self.postgres.password_file("flink_writer")),
            },
            "tables": {
                "prices": "crypto_prices_flink", "candles": "candles_1m_flink", "rejected": "rejected_messages",
            },
            "events": {"symbols": ["BTC-USD", "ETH-USD", "SOL-USD", "ADA-USD", "DOGE-USD"]},
            "candles": {"watermark_delay_s": 120},
            "job": {
                "name": self.name, "parallelism": 3, "checkpoint_dir": str(self.state / "checkpoints"),
                "checkpoint_interval_ms": 500,
            },
            "metrics": {"port": self.metrics_port},
            "flink": {
                "home": str(flink_home()), "rest_url": self.cluster.rest_url,
                "jars_dir": str(Path(connector_jars()[0]).parent),
                "functions_jar": str(self.functions_jar), "poll_interval_ms": 200, "source_idle_timeout_ms": 2000,
            },
        }  # fmt: skip
        for section, values in changes.items():
            self.settings.setdefault(section, {}).update(values)
        for section, values in self.settings.items():
            sections[section].update(values)
        self.config_path.write_text(
            "".join(
                f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
                for section, values in sections.items()
            ),
        )

    def command(self, command: str) -> list[str]:
        return [
            *PYTHON, "-m", "crypto_flink.supervisor", "--config", str(self.config_path), command,
        ]  # fmt: skip

    def call(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(command), env=python_environment(), capture_output=True, text=True, check=False, timeout=120
        )

    def start(self, *, ready: bool = True) -> None:
        """Start the supervisor and wait for what systemd would wait for."""
        # A path in the tests' own folder may be too long for a socket.
        address = f"\0lab-{uuid.uuid4()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener, self.log.open("ab") as log:
            listener.bind(address)
            listener.settimeout(0)
            self.supervisor = subprocess.Popen(
                self.command("run"), stdout=log, stderr=log,
                env={**python_environment(), "NOTIFY_SOCKET": address.replace("\0", "@")},
            )  # fmt: skip
            received: list[str] = []

            def is_ready() -> bool:
                assert self.supervisor is not None
                assert self.supervisor.poll() is None, self.log.read_text()
                with contextlib.suppress(BlockingIOError):
                    while True:
                        received.extend(listener.recv(4096).decode().splitlines())
                return "READY=1" in received

            if ready:
                wait_until(is_ready, f"READY=1 of the supervisor of {self.name}", 120)
                assert "WATCHDOG=1" in received

    @property
    def log(self) -> Path:
        return self.directory / "supervisor.log"

    def stop(self, how: int = signal.SIGTERM) -> int:
        assert self.supervisor is not None
        self.supervisor.send_signal(how)
        return self.supervisor.wait(timeout=60)

    def end(self) -> None:
        """Leave nothing behind: neither supervisor nor job."""
        if self.supervisor is not None and self.supervisor.poll() is None:
            self.supervisor.kill()
            self.supervisor.wait()
        for job in self.cluster.active_jobs(self.name):
            request = urllib.request.Request(
                f"{self.cluster.rest_url}/jobs/{job['jid']}?mode=cancel", data=b"{}", method="PATCH",
                headers={"Content-Type": "application/json"},
            )  # fmt: skip
            with urllib.request.urlopen(request, timeout=10):
                pass
        wait_until(lambda: not self.cluster.active_jobs(self.name), f"the end of the jobs of {self.name}", 60)

    def submissions(self) -> list[dict[str, Any]]:
        return json.loads((self.state / "supervisor" / f"{self.name}.json").read_text())["submissions"]

    def checkpoints(self, job_id: str) -> int:
        answer = self.cluster.get(f"/jobs/{job_id}/checkpoints") or {}
        return int(answer.get("counts", {}).get("completed", 0))

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(name + " "):
                    return float(line.split()[-1])
        raise AssertionError(f"no metric {name}")


@pytest.fixture
def lab(
    cluster: FlinkCluster,
    kafka: KafkaServer,
    postgres: PostgresServer,
    functions_jar: Path,
    clean_database: object,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[Lab]:
    del clean_database
    name = f"{request.node.name.removeprefix('test_flink_').replace('_', '-')[:40]}-{uuid.uuid4().hex[:6]}"
    kafka.create_topic(name)
    made = Lab(cluster, kafka, postgres, functions_jar, tmp_path, name)
    made.configure()
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def producer(kafka: KafkaServer) -> Iterator[KafkaProducer]:
    sender = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers, max_request_size=2097152, acks="all")
    yield sender
    sender.close(timeout=10)


@dataclass
class Database:
    connection: psycopg2.extensions.connection

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.connection.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())

    def count(self, table: str) -> int:
        return int(self.rows(f"SELECT count(*) FROM {table}")[0][0])


@pytest.fixture
def database(clean_database: psycopg2.extensions.connection) -> Database:
    return Database(clean_database)


def event(
    symbol: str = "BTC-USD", timestamp_ms: int = START_MS, price: float = 1.0, event_id: str | None = None
) -> bytes:
    return json.dumps({
        "symbol": symbol, "price": price, "user": "replay", "timestamp": timestamp_ms,
        "event_id": event_id or str(uuid.uuid4()), "produced_at": time.time_ns() // 1000,
    }).encode()  # fmt: skip


def send(producer: KafkaProducer, topic: str, partition: int, value: bytes | None) -> tuple[int, int]:
    """Send a record and return its offset and its timestamp.

    The timestamp is always the present: a broker soon deletes a segment of records from long ago.
    """
    metadata = producer.send(topic, value=value, key=b"k", partition=partition).get(timeout=30)
    return metadata.offset, metadata.timestamp


def record_value(record: dict[str, Any]) -> bytes | None:
    if repeat := record.get("value_repeat"):
        return (repeat["prefix"] + repeat["fill"] * repeat["count"] + repeat["suffix"]).encode()
    return None if record["value_base64"] is None else base64.b64decode(record["value_base64"])


def move_watermark(producer: KafkaProducer, topic: str, timestamp_ms: int) -> list[str]:
    """Send one event to each partition, so that windows that end 120 s before it are complete; return their ids."""
    ids = [str(uuid.uuid4()) for _ in range(3)]
    for partition, event_id in enumerate(ids):
        send(producer, topic, partition, event(timestamp_ms=timestamp_ms, event_id=event_id))
    return ids


def test_flink_stream_of_the_fixture(
    lab: Lab, producer: KafkaProducer, database: Database, cluster: FlinkCluster
) -> None:
    # What the fixture calls (partition, offset) -> offset and timestamp in the topic.
    sent: dict[tuple[int, int], tuple[int, int]] = {}
    for record in FIXTURE["records"]:
        sent[record["partition"], record["offset"]] = send(
            producer, lab.name, record["partition"], record_value(record)
        )
    huge = event(price=2.0)[:-1] + b', "pad": "' + b"x" * 1024 * 1024 + b'"}'
    huge_offset, huge_timestamp_ms = send(producer, lab.name, 0, huge)
    fillers = move_watermark(producer, lab.name, START_MS + 10 * MINUTE_MS)
    lab.start()

    def expected(rows: list[dict[str, Any]], *columns: str) -> set[tuple[Any, ...]]:
        def value(row: dict[str, Any], column: str) -> Any:  # noqa: ANN401 - whatever the fixture holds
            if column in {"kafka_offset", "kafka_timestamp"}:
                return sent[row["kafka_partition"], row["kafka_offset"]][column == "kafka_timestamp"]
            return row[column]

        return {tuple(value(row, column) for column in columns) for row in rows}

    row_columns = (
        "symbol", "price", "user", "timestamp", "event_id", "produced_at", "kafka_partition", "kafka_offset",
    )  # fmt: skip
    wanted_rows = expected(FIXTURE["rows"], *row_columns)
    wait_until(
        lambda: database.count("crypto_prices_flink") >= len(wanted_rows) + len(fillers), "the fixture's rows", 60
    )
    select = (
        'SELECT symbol, price, "user", timestamp, event_id::text, produced_at, kafka_partition, kafka_offset'
        f" FROM crypto_prices_flink WHERE event_id::text <> ALL (ARRAY{fillers})"
    )
    assert set(database.rows(select)) == wanted_rows

    reject_columns = ("kafka_partition", "kafka_offset", "kafka_timestamp", "reason")
    wanted_rejects = expected(FIXTURE["rejected"], *reject_columns) | {(0, huge_offset, huge_timestamp_ms, "too_large")}
    wait_until(lambda: database.count("rejected_messages") >= len(wanted_rejects), "the fixture's rejects", 60)
    assert (
        set(database.rows(f"SELECT {', '.join(reject_columns)} FROM rejected_messages WHERE engine = 'flink'"))
        == wanted_rejects
    )
    payloads = {
        (partition, offset): payload
        for partition, offset, payload in database.rows(
            "SELECT kafka_partition, kafka_offset, payload FROM rejected_messages"
        )
    }
    assert bytes(payloads[0, huge_offset]) == huge
    for reject in FIXTURE["rejected"]:
        record = next(
            record for record in FIXTURE["records"]
            if (record["partition"], record["offset"]) == (reject["kafka_partition"], reject["kafka_offset"])
        )  # fmt: skip
        payload = payloads[record["partition"], sent[record["partition"], record["offset"]][0]]
        assert (None if payload is None else bytes(payload)) == record_value(record), record["note"]

    candle_columns = ("symbol", "window_start", "open", "high", "low", "close", "event_count")
    wanted_candles = expected(FIXTURE["candles"], *candle_columns)
    candle_query = f"SELECT {', '.join(candle_columns)} FROM candles_1m_flink"
    wait_until(lambda: database.count("candles_1m_flink") >= len(wanted_candles), "the fixture's candles", 60)
    assert set(database.rows(candle_query)) == wanted_candles

    lines = cluster.taskmanager_output().splitlines()
    assert "[FLINK] BTC-USD: $86746.075" in lines

    # The same events once more, and one that is later than its window.
    before = (
        set(database.rows(select)),
        database.rows("SELECT event_id, xmin::text FROM crypto_prices_flink ORDER BY 1"),
    )
    for record in FIXTURE["records"]:
        send(producer, lab.name, record["partition"], record_value(record))
    late = str(uuid.uuid4())
    send(producer, lab.name, 0, event(timestamp_ms=START_MS, event_id=late))
    wait_until(
        lambda: database.count(f"crypto_prices_flink WHERE event_id = '{late}'") == 1, "the row of the late event", 60
    )
    wait_until(
        lambda: database.count("rejected_messages") == 2 * len(FIXTURE["rejected"]) + 1, "the rejects once more", 60
    )
    assert {row for row in database.rows(select) if row[4] != late} == before[0]
    after = database.rows(
        f"SELECT event_id, xmin::text FROM crypto_prices_flink WHERE event_id <> '{late}' ORDER BY event_id"
    )
    assert after == before[1], "a row that was there has been written again"
    assert set(database.rows(candle_query)) == wanted_candles
    assert lab.metric("crypto_flink_job_up") == 1


def test_flink_candles_do_not_wait_for_rejects(lab: Lab, producer: KafkaProducer, database: Database) -> None:
    """Messages that are no events, into partitions that hold nothing else, neither hold nor move the watermark."""
    lab.configure(flink={"source_idle_timeout_ms": 1500})
    stop = threading.Event()

    def send_rejects() -> None:
        while not stop.wait(0.3):
            for partition, value in ((1, b"{"), (2, None)):
                producer.send(lab.name, value=value, key=b"k", partition=partition)

    rejects = threading.Thread(target=send_rejects, daemon=True)
    rejects.start()
    try:
        lab.start()
        first, second, third = (event(timestamp_ms=START_MS + 1, price=price) for price in (10.0, 30.0, 20.0))
        for value in (first, second, third):
            send(producer, lab.name, 0, value)
        wait_until(lambda: database.count("rejected_messages") > 20, "rejects of the new job", 60)
        # Far in the future, and rejected for it.
        send(producer, lab.name, 0, event(timestamp_ms=4102444800000))
        send(producer, lab.name, 0, event(timestamp_ms=START_MS, price=40.0))
        send(producer, lab.name, 0, event(timestamp_ms=START_MS + 10 * MINUTE_MS))
        wait_until(lambda: database.count("candles_1m_flink") == 1, "the candle", 30)
        before = database.count("rejected_messages")
        wait_until(lambda: database.count("rejected_messages") > before, "rejects after the candle", 10)
    finally:
        stop.set()
        rejects.join()
    assert database.rows("SELECT open, high, low, close, event_count FROM candles_1m_flink") == [
        (40.0, 40.0, 10.0, 20.0, 4)
    ]


class Load(threading.Thread):
    """Sends events with growing event time, some of them twice, until told to stop."""

    def __init__(self, producer: KafkaProducer, topic: str) -> None:
        super().__init__(daemon=True)
        self.ids: list[str] = []
        self._producer = producer
        self._topic = topic
        self._stopped = threading.Event()

    def run(self) -> None:
        symbols = ("BTC-USD", "ETH-USD", "SOL-USD")
        while not self._stopped.wait(0.005):
            number = len(self.ids)
            self.ids.append(str(uuid.uuid4()))
            value = event(symbols[number % 3], START_MS + number * 100, float(number + 1), self.ids[-1])
            for _ in range(2 if number % 10 == 0 else 1):
                self._producer.send(self._topic, value=value, partition=number % 3)

    def finish(self) -> None:
        self._stopped.set()
        self.join()
        self._producer.flush(timeout=60)


def test_flink_job_survives_what_it_stands_on(
    lab: Lab, producer: KafkaProducer, database: Database, cluster: FlinkCluster, postgres: PostgresServer,
    kafka: KafkaServer,
) -> None:  # fmt: skip
    lab.start()
    load = Load(producer, lab.name)
    load.start()

    def job_id() -> str:
        return lab.submissions()[-1]["job_id"]

    def rows_follow(what: str) -> None:
        """Wait until something sent from now on has arrived."""
        mark = len(load.ids)
        wait_until(lambda: len(load.ids) > mark, "the next event", 10)
        query = f"crypto_prices_flink WHERE event_id = '{load.ids[mark]}'"
        wait_until(lambda: database.count(query) == 1, f"rows after {what}", 90)

    rows_follow("the start")
    wait_until(lambda: lab.checkpoints(job_id()) > 0, "a checkpoint", 60)

    cluster.kill("taskmanager")
    cluster.start_taskmanager()
    rows_follow("the TaskManager's death")
    assert len(lab.submissions()) == 1, "the cluster restarts the job by itself"

    postgres.stop()
    time.sleep(2)  # longer than the sink's own retries last
    postgres.start()
    database.connection = psycopg2.connect(postgres.superuser_dsn)
    database.connection.autocommit = True
    rows_follow("PostgreSQL's restart")

    kafka.stop()
    kafka.start()
    rows_follow("Kafka's restart")
    assert len(lab.submissions()) == 1

    first = job_id()
    done = lab.checkpoints(first)
    wait_until(lambda: lab.checkpoints(first) > done, "one more checkpoint", 60)
    cluster.kill("jobmanager")
    cluster.start_jobmanager()
    wait_until(lambda: len(lab.submissions()) == 2, "the supervisor's next submission", 90)
    rows_follow("the JobManager's death")
    assert f"/{first}/chk-" in lab.submissions()[-1]["restored_from"]
    assert len(cluster.active_jobs(lab.name)) == 1

    load.finish()
    wait_until(lambda: database.count("crypto_prices_flink") >= len(load.ids), "every event", 60)
    assert [row[0] for row in database.rows("SELECT event_id::text FROM crypto_prices_flink ORDER BY 1")] == sorted(
        load.ids
    )

    # Candles come out as if nothing had happened: the windows that were open were carried over.
    end_ms = START_MS + len(load.ids) * 100
    move_watermark(producer, lab.name, end_ms + 10 * MINUTE_MS)
    wanted: dict[tuple[str, int], list[float]] = {}
    for number in range(len(load.ids)):
        timestamp_ms = START_MS + number * 100
        key = (("BTC-USD", "ETH-USD", "SOL-USD")[number % 3], timestamp_ms - timestamp_ms % MINUTE_MS)
        wanted.setdefault(key, []).append(float(number + 1))
    wait_until(lambda: database.count("candles_1m_flink") >= len(wanted), "every candle", 60)
    found = database.rows("SELECT symbol, window_start, open, high, low, close, event_count FROM candles_1m_flink")
    assert set(found) == {
        (*key, prices[0], prices[-1], prices[0], prices[-1], len(prices)) for key, prices in wanted.items()
    }


def test_flink_supervisor_keeps_one_job_and_its_state(
    lab: Lab, producer: KafkaProducer, database: Database, cluster: FlinkCluster
) -> None:
    lab.configure(job={"parallelism": 1}, events={"log_events": True})
    lab.start()
    send(producer, lab.name, 0, event(price=10.0))
    wait_until(lambda: database.count("crypto_prices_flink") == 1, "the first row", 60)
    first = lab.submissions()[-1]["job_id"]

    # A second supervisor is refused.
    refused = lab.call("run")
    assert refused.returncode == 1
    assert "another supervisor watches" in refused.stderr

    # A supervisor that ends leaves the job, and finds it again.
    assert lab.stop() == 0
    assert [job["jid"] for job in cluster.active_jobs(lab.name)] == [first]
    lab.start()
    assert [entry["job_id"] for entry in lab.submissions()] == [first]

    # A changed definition: stopped with a savepoint, resumed from it.
    assert lab.stop() == 0
    lab.configure(events={"log_events": False}, flink={"sink_flush_interval_ms": 20})
    lab.start()
    wait_until(lambda: len(lab.submissions()) == 2, "the resubmission with the new definition", 90)
    second = lab.submissions()[-1]
    assert "/savepoint-" in second["restored_from"]
    wait_until(
        lambda: [job["jid"] for job in cluster.active_jobs(lab.name)] == [second["job_id"]], "the new job alone", 60
    )
    send(producer, lab.name, 0, event(price=30.0))
    wait_until(lambda: database.count("crypto_prices_flink") == 2, "a row of the new job", 60)

    # `stop` while the supervisor runs: the job ends, and is not brought back.
    stopped = lab.call("stop")
    assert stopped.returncode == 0, stopped.stderr
    assert not cluster.active_jobs(lab.name)
    wait_until(lambda: "stopped on request" in lab.log.read_text(), "the supervisor to notice", 10)
    assert lab.call("status").returncode == 1
    assert lab.stop() == 0
    assert len(lab.submissions()) == 2

    # The next start resumes: the candle that was open all the time has each event once.
    lab.start()
    assert "/savepoint-" in lab.submissions()[-1]["restored_from"]
    assert lab.call("status").returncode == 0
    send(producer, lab.name, 0, event(price=20.0))
    move_watermark(producer, lab.name, START_MS + 10 * MINUTE_MS)
    wait_until(lambda: database.count("candles_1m_flink") == 1, "the candle", 60)
    assert database.rows("SELECT open, high, low, close, event_count FROM candles_1m_flink") == [
        (10.0, 30.0, 10.0, 20.0, 3)
    ]

    # A job of the same name by another hand: both are left alone, and it is said loudly.
    other = subprocess.run(
        [*PYTHON, "-m", "crypto_flink.client", "--config", str(lab.config_path)],
        env=python_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert other.returncode == 0, other.stdout + other.stderr
    assert lab.supervisor is not None
    assert lab.supervisor.wait(timeout=60) == 4
    assert "run at once" in lab.log.read_text()
    assert len(cluster.active_jobs(lab.name)) == 2
    lab.end()

    # A checkpoint that cannot be read: no start from scratch.
    job_id = lab.submissions()[-1]["job_id"]
    broken = lab.state / "checkpoints" / job_id / "chk-999999"
    broken.mkdir(parents=True)
    (broken / "_metadata").write_bytes(os.urandom(64))
    lab.start(ready=False)
    assert lab.supervisor.wait(timeout=120) == 3
    assert "could not resume from" in lab.log.read_text()
    assert not cluster.active_jobs(lab.name)
    assert database.count("crypto_prices_flink") == 6


def test_flink_job_skips_no_events_in_silence(
    lab: Lab, producer: KafkaProducer, database: Database, cluster: FlinkCluster, kafka: KafkaServer
) -> None:
    """A topic that was created anew, or cut off beyond what was read, is exit code 3, as Spark refuses it."""

    def run_refused(cause: str) -> None:
        lab.start(ready=False)
        assert lab.supervisor is not None
        assert lab.supervisor.wait(timeout=120) == 3
        said = lab.log.read_text().splitlines()[-1]
        assert cause in said
        assert "start_fresh" in said
        assert not cluster.active_jobs(lab.name)

    lab.configure(job={"parallelism": 1}, events={"log_events": False})
    lab.start()
    for number in range(3):
        send(producer, lab.name, 0, event(price=number + 1.0))
    wait_until(lambda: database.count("crypto_prices_flink") == 3, "the first rows", 60)
    assert lab.call("stop").returncode == 0
    assert lab.stop() == 0

    # The same name, and more messages than before: Flink would go on with the fourth.
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    admin.delete_topics([lab.name])
    wait_until(lambda: lab.name not in admin.list_topics(), "the topic's end", 30)
    kafka.create_topic(lab.name)
    for number in range(5):
        send(producer, lab.name, 0, event(price=number + 10.0))
    run_refused("belongs to another topic")

    lab.configure(flink={"on_incompatible_checkpoint": "start_fresh"})
    lab.start()
    wait_until(lambda: database.count("crypto_prices_flink") == 8, "the new topic's rows", 60)
    assert lab.call("stop").returncode == 0
    assert lab.stop() == 0

    # Cut off beyond what was read.
    for number in range(3):
        send(producer, lab.name, 0, event(price=number + 20.0))
    admin.delete_records({TopicPartition(lab.name, 0): 7})
    admin.close()
    lab.configure(flink={"on_incompatible_checkpoint": "fail"})
    run_refused("OffsetOutOfRange")
    assert database.count("crypto_prices_flink") == 8


def test_flink_client_refuses_a_bad_configuration(lab: Lab) -> None:
    lab.configure(job={"parallelism": 0})
    finished = lab.call("run")
    assert finished.returncode == 2
    assert str(lab.config_path) in finished.stderr
    assert "job.parallelism" in finished.stderr
    assert "Traceback" not in finished.stderr
