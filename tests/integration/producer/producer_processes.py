"""Real replay and producer processes, and what is in a topic."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from crypto_producer.spool import Counts, SpoolError, read_ledger
from kafka import KafkaConsumer, TopicPartition
from services import KafkaServer, free_port, wait_until

# Without site-packages: what the apps import has to be in their trees, as on a node.
PYTHON = [sys.executable, "-S"]
# PYTHONPATH is the tests' own (run.py).
ENVIRONMENT = {
    **{key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"},
    "PYTHONUNBUFFERED": "1",
    # Everything is on loopback; a proxy of the machine must not get in between.
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
}
SPEED = 20.0


def _toml(value: object) -> str:
    return json.dumps(str(value) if isinstance(value, Path) else value)


@dataclass
class Replay:
    """A `coinbase-replay serve` process that can be stopped and started on the same timeline."""

    directory: Path
    tape: Path | None = None
    port: int = field(default_factory=free_port)
    admin_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until both ports answer."""
        config = self.directory / "replay.toml"
        if not config.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            tape = f"tape = {_toml(self.tape)}\n" if self.tape else ""
            config.write_text(
                f"[server]\nport = {self.port}\nadmin_port = {self.admin_port}\n"
                f"[timeline]\nanchor = {int(time.time()) - 300}\nspeed = {SPEED}\nduration_s = 120\n{tape}"
            )
        with (self.directory / "replay.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*PYTHON, "-m", "coinbase_replay", "serve", "--config", str(config)],
                env=ENVIRONMENT, stdout=log, stderr=log,
            )  # fmt: skip

        def up() -> bool:
            with suppress(OSError):
                return bool(self.admin("status"))
            return False

        wait_until(up, "the replay's admin port")

    def stop(self) -> None:
        """Stop it."""
        if self.process is not None:
            self.process.terminate()
            assert self.process.wait(20) == 0
            self.process = None

    def admin(self, path: str, body: dict[str, object] | None = None) -> dict[str, object]:
        """GET, or with `body` POST, an admin path."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.admin_port}/_admin/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10) as answer:
            decoded: dict[str, object] = json.load(answer)
            return decoded


@dataclass
class Producer:
    """A producer process with a spool of its own; may be killed and started again."""

    directory: Path
    kafka: KafkaServer
    topic: str
    source: str
    settings: dict[str, dict[str, object]] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    metrics_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        """The configuration file, written when first asked for."""
        path = self.directory / "producer.toml"
        if not path.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            tables: dict[str, dict[str, object]] = {
                "source": {"kind": self.source},
                "kafka": {"bootstrap_servers": [self.kafka.bootstrap_servers], "topic": self.topic},
                "spool": {"dir": self.directory / "spool"},
                "metrics": {"port": self.metrics_port},
            }
            for table, values in self.settings.items():
                tables[table] = {**tables.get(table, {}), **values}
            path.write_text(
                "".join(
                    f"[{table}]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in values.items())
                    for table, values in tables.items()
                )
            )
        return path

    def start(self) -> None:
        """Start it; `run` is under way when this returns, nothing more."""
        with (self.config.parent / "producer.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*PYTHON, "-m", "crypto_producer", "run", "--config", str(self.config)],
                env={**ENVIRONMENT, **self.environment}, stdout=log, stderr=log,
            )  # fmt: skip

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        assert self.process.poll() is None, f"the producer had ended by itself:\n{self.log}"
        self.process.kill()
        self.process.wait(20)
        self.process = None

    def terminate(self, timeout_s: float = 40) -> int:
        """SIGTERM: the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout_s)
        self.process = None
        return code

    @property
    def log(self) -> str:
        """All it has logged."""
        path = self.config.parent / "producer.log"
        return path.read_text() if path.exists() else ""

    def command(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another subcommand."""
        return subprocess.run(
            [*PYTHON, "-m", "crypto_producer", name, "--config", str(self.config), *arguments],
            env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def ledger(self) -> dict[str, int]:
        """What `ledger --json` prints, without the cost of a process; all zero while there is no spool."""
        try:
            total = read_ledger(self.config.parent / "spool").total
        except SpoolError:
            total = Counts()
        return {**dataclasses.asdict(total), "pending": total.pending}

    def wait_accepted(self, count: int, timeout_s: float = 90) -> None:
        """Wait until the ledger has at least `count` events accepted."""
        self._wait(lambda: self.ledger()["accepted"] >= count, f"{count} accepted events", timeout_s)

    def wait_acknowledged(self, count: int, timeout_s: float = 90) -> None:
        """Wait until the ledger has at least `count` events acknowledged."""
        self._wait(lambda: self.ledger()["acknowledged"] >= count, f"{count} acknowledged events", timeout_s)

    def wait_log(self, text: str, timeout_s: float = 60) -> None:
        """Wait until `text` was logged."""
        self._wait(lambda: text in self.log, f"{text!r} in the log", timeout_s)

    def metrics(self) -> dict[str, float]:
        """Prometheus metrics: name with labels -> value."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    def _wait(self, condition: object, what: str, timeout_s: float) -> None:
        assert callable(condition)
        try:
            wait_until(condition, what, timeout_s, 0.2)
        except TimeoutError as error:
            raise AssertionError(f"{error}; the producer's log:\n{self.log[-4_000:]}") from error


@dataclass
class Topic:
    """All that is in a topic, read from its beginning to its end."""

    events: list[dict[str, object]]
    partition_of: dict[str, set[int]]

    @property
    def event_ids(self) -> Counter[object]:
        """How often each event is there."""
        return Counter(event["event_id"] for event in self.events)

    def trade_ids(self, symbol: str) -> list[int]:
        """The trade ids of a symbol in the topic's order."""
        return [int(str(event["trade_id"])) for event in self.events if event["symbol"] == symbol]

    def check_exactly_once_in_order(self) -> None:
        """Each event once, one partition per symbol, and trade ids contiguous and ascending."""
        doubled = [event for event, count in self.event_ids.items() if count > 1]
        assert not doubled, f"{len(doubled)} events are there more than once"
        for symbol, partitions in self.partition_of.items():
            assert len(partitions) == 1, symbol
            ids = self.trade_ids(symbol)
            assert ids == list(range(ids[0], ids[0] + len(ids))), f"{symbol}: not contiguous, or out of order"


def read_topic(kafka: KafkaServer, topic: str) -> Topic:
    """Read `topic` to its end as of now."""
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, enable_auto_commit=False)
    partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
    consumer.assign(partitions)
    consumer.seek_to_beginning()
    ends = consumer.end_offsets(partitions)
    records = []
    deadline_s = time.monotonic() + 60
    while any(consumer.position(partition) < end for partition, end in ends.items()):
        assert time.monotonic() < deadline_s, f"waited 60 s for the end of {topic}"
        for batch in consumer.poll(timeout_ms=500).values():
            records += batch
    consumer.close()
    result = Topic([], {})
    for record in sorted(records, key=lambda record: (record.partition, record.offset)):
        event = json.loads(record.value)
        assert record.key == event["symbol"].encode()
        result.events.append(event)
        result.partition_of.setdefault(event["symbol"], set()).add(record.partition)
    return result


def feed_settings(replay: Replay, **more: object) -> dict[str, dict[str, object]]:
    """Both Coinbase sources, turned to the replay."""
    base = f"127.0.0.1:{replay.port}"
    return {
        "source.coinbase_rest": {"base_url": f"http://{base}", "interval_s": 2.0},
        "source.coinbase_ws": {"ws_url": f"ws://{base}", "rest_url": f"http://{base}", **more},
    }
