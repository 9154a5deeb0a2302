"""A real Flink session cluster as plain processes on loopback: one JobManager, one TaskManager."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from services import artifact_tree, free_port, wait_until

# Java 17 needs these; Flink's own conf/config.yaml lists the same.
JAVA_OPTIONS = [
    f"--add-opens=java.base/java.{package}=ALL-UNNAMED"
    for package in (
        "lang", "net", "io", "nio", "lang.reflect", "text", "time", "util", "util.concurrent",
        "util.concurrent.atomic", "util.concurrent.locks",
    )
]  # fmt: skip
SLOTS = 4


# Without site-packages: what the job imports has to be in its tree, as on a node.
PYTHON = [sys.executable, "-S"]


def flink_home() -> Path:
    """Return the folder of Flink's own lib, bin and conf."""
    return artifact_tree("flink", "python", "pyflink")


def python_environment() -> dict[str, str]:
    """Return the environment in which `crypto_flink` and PyFlink can be imported, as on a node."""
    # PYTHONPATH and FLINK_HOME are the tests' own (run.py).
    return {**os.environ, "PYTHONUNBUFFERED": "1"}


def flink_jars() -> list[str]:
    """Return Flink's own jars."""
    return sorted(str(jar) for jar in (flink_home() / "lib").glob("*.jar"))


def connector_jars() -> list[str]:
    """Return the connectors' jars."""
    return sorted(str(jar) for jar in artifact_tree("flink", "jars").glob("*.jar"))


@dataclass
class FlinkCluster:
    """One JobManager and one TaskManager, with their configuration, logs and shared state in `directory`."""

    directory: Path
    rest_port: int = field(default_factory=free_port)
    rpc_port: int = field(default_factory=free_port)
    blob_port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def rest_url(self) -> str:
        """Base URL of the JobManager's REST API."""
        return f"http://127.0.0.1:{self.rest_port}"

    def prepare(self) -> None:
        """Write the configuration."""
        conf = self.directory / "conf"
        conf.mkdir(parents=True)
        for name in ("checkpoints", "savepoints", "supervisor"):
            (self.directory / "state" / name).mkdir(parents=True)
        settings = {
            "jobmanager.rpc.address": "127.0.0.1",
            "jobmanager.rpc.port": self.rpc_port,
            "jobmanager.bind-host": "127.0.0.1",
            "jobmanager.memory.process.size": "768m",
            "jobmanager.memory.jvm-metaspace.size": "192m",
            "jobmanager.memory.jvm-overhead.min": "96m",
            "taskmanager.host": "127.0.0.1",
            "taskmanager.bind-host": "127.0.0.1",
            "taskmanager.memory.process.size": "1024m",
            "taskmanager.memory.jvm-metaspace.size": "192m",
            "taskmanager.memory.jvm-overhead.min": "96m",
            "taskmanager.memory.network.min": "32m",
            "taskmanager.memory.network.max": "32m",
            "taskmanager.memory.managed.size": "96m",
            "taskmanager.numberOfTaskSlots": SLOTS,
            "rest.address": "127.0.0.1",
            "rest.bind-address": "127.0.0.1",
            "rest.port": self.rest_port,
            "rest.bind-port": self.rest_port,
            "blob.server.port": self.blob_port,
            "heartbeat.timeout": "10 s",
            "heartbeat.interval": "2 s",
            "cluster.registration.initial-timeout": "100 ms",
            "io.tmp.dirs": str(self.directory / "tmp"),
        }
        (conf / "config.yaml").write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items()))
        (conf / "log4j.properties").write_text(
            "rootLogger.level = INFO\nrootLogger.appenderRef.err.ref = err\n"
            "appender.err.type = Console\nappender.err.name = err\nappender.err.target = SYSTEM_ERR\n"
            "appender.err.layout.type = PatternLayout\nappender.err.layout.pattern = %d %p %c{1} %m%n\n",
        )
        (self.directory / "tmp").mkdir()

    @property
    def _classpath(self) -> str:
        return os.pathsep.join([*flink_jars(), *connector_jars()])

    def _start(self, name: str, main_class: str, jvm: list[str], arguments: list[str]) -> None:
        with (self.directory / f"{name}.out").open("ab") as out, (self.directory / f"{name}.err").open("ab") as err:
            self.processes[name] = subprocess.Popen(
                ["java", *jvm, "-XX:+UseSerialGC", *JAVA_OPTIONS,
                 f"-Dlog4j.configurationFile={self.directory / 'conf' / 'log4j.properties'}",
                 "-cp", self._classpath, main_class, "--configDir", str(self.directory / "conf"), *arguments],
                stdout=out, stderr=err,
            )  # fmt: skip

    def start_jobmanager(self) -> None:
        """Start the JobManager and wait for its REST API."""
        self._start(
            "jobmanager",
            "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint",
            ["-Xmx320m", "-Xms128m", "-XX:MaxMetaspaceSize=192m"],
            [],
        )
        wait_until(lambda: self.get("/overview") is not None, "the JobManager's REST API", 60)

    def start_taskmanager(self) -> None:
        """Start the TaskManager with the memory that Flink works out from its configuration."""
        tools = [f"{flink_home()}/bin/bash-java-utils.jar", *flink_jars()]
        printed = subprocess.run(
            ["java", "-Xmx64m", "-cp", os.pathsep.join(tools),
             "org.apache.flink.runtime.util.bash.BashJavaUtils", "GET_TM_RESOURCE_PARAMS",
             "--configDir", str(self.directory / "conf")],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        results = [
            line.removeprefix("BASH_JAVA_UTILS_EXEC_RESULT:")
            for line in printed.stdout.splitlines()
            if line.startswith("BASH_JAVA_UTILS_EXEC_RESULT:")
        ]
        jvm, dynamic = results[0].split(), results[1].split()
        self._start("taskmanager", "org.apache.flink.runtime.taskexecutor.TaskManagerRunner", jvm, dynamic)

    def wait_for_slots(self) -> None:
        """Wait until the TaskManager has registered."""
        wait_until(lambda: (self.get("/overview") or {}).get("slots-total") == SLOTS, "the TaskManager's slots", 60)

    def kill(self, name: str) -> None:
        """Kill a process as a crash would."""
        self.processes[name].kill()
        self.processes[name].wait()

    def stop(self) -> None:
        """End all processes."""
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        for process in self.processes.values():
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def get(self, path: str) -> dict | None:
        """Return an answer of the REST API, or None where there is none."""
        with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(self.rest_url + path, timeout=5) as reply:
            return json.load(reply)
        return None

    def active_jobs(self, name: str) -> list[dict]:
        """Return the jobs of this name that are not done."""
        jobs = (self.get("/jobs/overview") or {"jobs": []})["jobs"]
        return [job for job in jobs if job["name"] == name and job["state"] not in {"FAILED", "CANCELED", "FINISHED"}]

    def taskmanager_output(self) -> str:
        """Return what the TaskManager has written to its stdout."""
        return (self.directory / "taskmanager.out").read_text()


@contextlib.contextmanager
def running_cluster(directory: Path) -> Iterator[FlinkCluster]:
    """Run a session cluster while the context lasts."""
    cluster = FlinkCluster(directory)
    cluster.prepare()
    try:
        cluster.start_jobmanager()
        cluster.start_taskmanager()
        cluster.wait_for_slots()
        yield cluster
    finally:
        cluster.stop()
