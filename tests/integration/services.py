"""Real Kafka and PostgreSQL servers as plain processes on loopback, for the integration tests of the apps."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg2

REPOSITORY = Path(__file__).resolve().parents[2]
MIGRATIONS = REPOSITORY / "apps" / "schema" / "migrations"
WRITER_ROLES = ("spark_writer", "flink_writer", "lab_reader", "airflow_dags")
TABLES = (
    "crypto_prices_realtime",
    "crypto_prices_flink",
    "candles_1m_spark",
    "candles_1m_flink",
    "rejected_messages",
    "data_quality_results",
    "spark_staging_prices",
    "spark_staging_rejected",
    "spark_staging_candles",
)


def artifacts_directory() -> Path:
    """Where `make artifacts` leaves what it fetched and built: $CSL_CACHE/artifacts, below the XDG cache by default."""
    cache = os.environ.get("CSL_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / (
        "crypto-stream-lab"
    )
    return Path(cache) / "artifacts"


def artifact_tree(name: str, *parts: str) -> Path:
    """Return a folder or file of one of the trees `make artifacts` leaves, as a node gets it.

    Raises:
        FileNotFoundError: it is not there.
    """
    path = artifacts_directory().joinpath("trees", name, "current", *parts)
    if not path.exists():
        raise FileNotFoundError(f"no {path}: run `make artifacts` first")
    return path.resolve()


def built_jar(name: str, jar: str, project: Path, work: Path) -> Path:
    """Return the jar that `make artifacts` built from a project of this repository, or a new one where it is too old.

    Args:
        name: the tree that holds the jar
        jar: file name of the jar, in the tree's `jars` and in the project's `target`
        project: the Maven project
        work: where to build, so that two runs do not meet
    """
    built = artifacts_directory() / "trees" / name / "current" / "jars" / jar
    sources = [project / "pom.xml", *(path for path in (project / "src").rglob("*") if path.is_file())]
    if built.exists() and all(source.stat().st_mtime <= built.stat().st_mtime for source in sources):
        return built.resolve()
    copy = work / project.parent.name
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns("target"))
    subprocess.run(["mvn", "-q", "-B", "package"], cwd=copy, check=True)
    return copy / "target" / jar


def free_port() -> int:
    """Return a TCP port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 60.0, interval_s: float = 0.1) -> None:
    """Poll `condition`; raise TimeoutError naming `what` after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(interval_s)
    raise TimeoutError(f"waited {timeout_s:.0f} s for {what}")


def port_is_open(port: int) -> bool:
    """Tell whether something accepts connections on this loopback port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@dataclass
class KafkaServer:
    """One KRaft broker (and controller) with its data in `directory`; the data survive stop() and start()."""

    directory: Path
    port: int = field(default_factory=free_port)
    controller_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        """host:port to give to clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def _classpath(self) -> str:
        return f"{artifact_tree('kafka', 'libs')}/*"

    def prepare(self) -> None:
        """Write the configuration and format the storage."""
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "log4j2.yaml").write_text(
            "Configuration:\n"
            "  Appenders: {Console: {name: out, PatternLayout: {pattern: '%d %p %m (%c)%n'}}}\n"
            "  Loggers: {Root: {level: WARN, AppenderRef: [{ref: out}]}}\n",
        )
        (self.directory / "server.properties").write_text(
            f"""process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{self.controller_port}
listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}
controller.listener.names=CONTROLLER
log.dirs={self.directory / "data"}
auto.create.topics.enable=false
message.max.bytes=2097152
offsets.topic.replication.factor=1
offsets.topic.num.partitions=3
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=3
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
""",
        )
        subprocess.run(
            ["java", "-cp", self._classpath, "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg",
             "-c", str(self.directory / "server.properties")],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def start(self) -> None:
        """Start the broker and wait until it accepts connections."""
        with (self.directory / "kafka.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["java", "-Xmx384m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", self._classpath,
                 f"-Dlog4j2.configurationFile={self.directory / 'log4j2.yaml'}", "kafka.Kafka",
                 str(self.directory / "server.properties")],
                stdout=log, stderr=log,
            )  # fmt: skip
        process = self.process

        def up() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"Kafka ended with {process.returncode}: see {self.directory / 'kafka.log'}")
            return port_is_open(self.port)

        wait_until(up, "Kafka's port")

    def stop(self, *, kill: bool = False) -> None:
        """Stop the broker, by SIGTERM or, with `kill`, by SIGKILL."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            self.process.wait(timeout=60)
        self.process = None

    def create_topic(self, name: str, partitions: int = 3) -> str:
        """Create a topic that takes messages up to 2 MiB, and return its name."""
        from kafka import KafkaAdminClient
        from kafka.admin import NewTopic

        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        try:
            admin.create_topics(
                [NewTopic(name, num_partitions=partitions, replication_factor=1,
                          topic_configs={"max.message.bytes": "2097152", "retention.ms": "-1"})],
            )  # fmt: skip
        finally:
            admin.close()
        return name


@dataclass
class PostgresServer:
    """A PostgreSQL server with the lab's schema, passwords for its roles and commit timestamps switched on."""

    directory: Path
    host: str = "127.0.0.1"
    port: int = field(default_factory=free_port)
    database: str = "crypto_db"
    passwords: dict[str, str] = field(default_factory=dict)

    @property
    def superuser_dsn(self) -> str:
        """libpq connection string of the superuser."""
        password = self.passwords["postgres"]
        return f"host={self.host} port={self.port} dbname={self.database} user=postgres password={password}"

    def password_file(self, role: str) -> Path:
        """Path of a file that holds only the password of `role`."""
        return self.directory / f"password-{role}"

    def _as_server_user(self, *command: str) -> None:
        # PostgreSQL refuses to run as root.
        extra = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", **extra)  # type: ignore[call-overload]

    def _program(self, name: str) -> str:
        found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}")) or [Path(shutil.which(name) or "")]
        if not found[-1].is_file():
            raise FileNotFoundError(f"no {name}: install Debian's package postgresql")
        return str(found[-1])

    def prepare(self) -> None:
        """Create the cluster."""
        self.directory.mkdir(parents=True)
        self.directory.chmod(0o755)
        for role in ("postgres", *WRITER_ROLES):
            self.passwords[role] = secrets.token_urlsafe(12)
            self.password_file(role).write_text(self.passwords[role])
        data = self.directory / "data"
        data.mkdir()
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(data, owner.pw_uid, owner.pw_gid)
        self._as_server_user(
            self._program("initdb"), "-D", str(data), "-U", "postgres", "-A", "scram-sha-256", "-E", "UTF8",
            "--locale=C.UTF-8", "--no-sync", f"--pwfile={self.password_file('postgres')}",
        )  # fmt: skip
        with (data / "postgresql.conf").open("a") as settings:
            settings.write(
                f"port={self.port}\nlisten_addresses='127.0.0.1'\nunix_socket_directories=''\n"
                "track_commit_timestamp=on\nfsync=off\nshared_buffers=64MB\n",
            )

    def start(self) -> None:
        """Start the server and wait for it."""
        data = self.directory / "data"
        self._as_server_user(self._program("pg_ctl"), "-D", str(data), "-w", "-l", str(data / "server.log"), "start")

    def stop(self) -> None:
        """Stop the server, cutting its connections."""
        self._as_server_user(self._program("pg_ctl"), "-D", str(self.directory / "data"), "-w", "-m", "fast", "stop")

    def migrate(self) -> None:
        """Create the database, apply the migrations in order, and give the roles their passwords."""
        with contextlib.closing(psycopg2.connect(self.superuser_dsn, dbname="postgres")) as connection:
            connection.autocommit = True
            connection.cursor().execute(f"CREATE DATABASE {self.database}")
        with contextlib.closing(psycopg2.connect(self.superuser_dsn)) as connection, connection:
            cursor = connection.cursor()
            for migration in sorted(MIGRATIONS.glob("*.sql")):
                cursor.execute(migration.read_text())
            for role in WRITER_ROLES:
                cursor.execute(f"ALTER ROLE {role} PASSWORD %s", (self.passwords[role],))


@contextlib.contextmanager
def running_kafka(directory: Path) -> Iterator[KafkaServer]:
    """Run a fresh broker while the context lasts."""
    server = KafkaServer(directory)
    server.prepare()
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def running_postgres(directory: Path) -> Iterator[PostgresServer]:
    """Run a fresh, migrated server while the context lasts."""
    server = PostgresServer(directory)
    server.prepare()
    server.start()
    try:
        server.migrate()
        yield server
    finally:
        server.stop()
