"""The engines of a real lab as they run: settings from their own interfaces, statements from PostgreSQL."""

from __future__ import annotations

import json
import re
import time
import tomllib
from collections.abc import Sequence
from typing import Any

from compare.audit import ENGINES
from compare.lab import LabError
from compare.nodes import Access
from compare.parity import EngineFacts

JOBS = {"spark": "spark-job", "flink": "flink-job"}
WORKERS = {"spark": "spark_worker", "flink": "flink_taskmanager"}
EXECUTOR_WAIT_S = 60
# track_activity_query_size, less its end.
SHOWN_CHARACTERS = 1023


class RunningEngines:
    """Tells how the engines of a lab run."""

    def __init__(self, lab: Access) -> None:
        self._lab = lab
        self._statements: dict[str, str] = {}

    def forget(self) -> None:
        """Forget the statements that were seen: other runs, other statements."""
        self._statements = {}

    def facts(self, engine: str) -> EngineFacts:
        """Return an engine's settings as they run."""
        submitter, unit = self._lab.one("submitter"), JOBS[engine]
        text = self._lab.nodes.run(
            submitter,
            f"sudo cat /etc/{unit}/config.toml; echo '# read:' $(sudo stat -c %Y /etc/{unit}/config.toml)"
            f' $(date -d "$(systemctl show {unit} -p ExecMainStartTimestamp --value)" +%s)',
        )
        config = tomllib.loads(text)
        written, started = (int(word) for word in text.rstrip().splitlines()[-1].split()[2:4])
        if written > started:
            raise LabError(f"{submitter}: {unit} has not read its configuration since it was changed")
        partitions = json.loads(self._lab.nodes.run(self._lab.one("producer"), "lab-topic --partitions"))
        workers = self._lab.group(WORKERS[engine])
        sizes = self._lab.each(
            lambda node: self._lab.nodes.run(node, "nproc; grep MemTotal /proc/meminfo").split(), workers
        )
        common: dict[str, Any] = {
            "engine": engine, "topic": config["kafka"]["topic"], "partitions": len(partitions),
            "starting_offsets": config["kafka"]["starting_offsets"],
            "worker_cpus": sum(int(words[0]) for words in sizes),
            "worker_memory_mib": sum(int(words[2]) for words in sizes) // 1024,
            "sink_statement": self.statement(engine), "durability": self._durability(engine),
        }  # fmt: skip
        more = self._spark_facts(config) if engine == "spark" else self._flink_facts(config)
        return EngineFacts(**common, **more)

    def _spark_facts(self, config: dict[str, Any]) -> dict[str, Any]:
        node, port = self._lab.one("submitter"), int(config["spark"]["ui_port"])
        applications = self._lab.http(node, port, "/api/v1/applications")
        if not applications:
            raise LabError(f"{node}: Spark's interface knows no application")
        path = f"/api/v1/applications/{applications[0]['id']}"
        properties = dict(self._lab.http(node, port, f"{path}/environment")["sparkProperties"])
        executors = self._executors(node, port, path)
        heap_mib = mebibytes(properties["spark.executor.memory"])
        # Spark's own rule for what a process takes beside its heap (spark.executor.memoryOverhead).
        each_mib = heap_mib + max(384, heap_mib // 10)
        return {
            "version": self._lab.http(node, port, "/api/v1/version")["spark"],
            "parallelism": int(properties["spark.sql.shuffle.partitions"]),
            "task_memory_mib": each_mib * len(executors),
            # foreachBatch and the writer of Real-Time Mode repeat a batch that failed; the key makes that once.
            "guarantee": "at_least_once",
            "checkpoint_interval_ms": int(config["job"]["checkpoint_interval_ms"]),
            "settings": {
                **dict(sorted(properties.items())), "mode": config["spark"]["mode"],
                "trigger_interval_ms": config["spark"]["trigger_interval_ms"],
                "executors": len(executors), "cores": sum(entry["totalCores"] for entry in executors),
            },
        }  # fmt: skip

    def _executors(self, node: str, port: int, path: str) -> list[dict[str, Any]]:
        """Return the executors that are there; one that was just asked for takes its time to come."""
        deadline_s = time.monotonic() + EXECUTOR_WAIT_S
        while True:
            found = [
                entry for entry in self._lab.http(node, port, f"{path}/executors")
                if entry["id"] != "driver" and entry["isActive"]
            ]  # fmt: skip
            if found or time.monotonic() > deadline_s:
                return found
            time.sleep(1)

    def _flink_facts(self, config: dict[str, Any]) -> dict[str, Any]:
        node = self._lab.one("flink_jobmanager")
        jobs = [
            job["jid"] for job in self._lab.http(node, 8081, "/jobs/overview")["jobs"]
            if job["name"] == config["job"]["name"] and job["state"] == "RUNNING"
        ]  # fmt: skip
        if len(jobs) != 1:
            raise LabError(f"{node}: {len(jobs)} jobs of the name {config['job']['name']} run, not 1")
        job = self._lab.http(node, 8081, f"/jobs/{jobs[0]}")
        checkpoints = self._lab.http(node, 8081, f"/jobs/{jobs[0]}/checkpoints/config")
        managers = living(self._lab.http(node, 8081, "/taskmanagers")["taskmanagers"])
        memory = [
            self._lab.http(node, 8081, f"/taskmanagers/{manager['id']}")["memoryConfiguration"]["totalProcessMemory"]
            for manager in managers
        ]
        return {
            "version": self._lab.http(node, 8081, "/overview")["flink-version"],
            "parallelism": max(vertex["parallelism"] for vertex in job["vertices"]),
            "task_memory_mib": sum(memory) // 2**20,
            "guarantee": config["job"]["delivery_guarantee"],
            "checkpoint_interval_ms": int(checkpoints["interval"]),
            "settings": {
                **{entry["key"]: entry["value"] for entry in self._lab.http(node, 8081, "/jobmanager/config")},
                "checkpoints": checkpoints, "sink_flush_interval_ms": config["flink"]["sink_flush_interval_ms"],
                "slots": sum(manager["slotsNumber"] for manager in managers),
            },
        }  # fmt: skip

    def statement(self, engine: str) -> str:
        """Return what the engine's sessions last said to its table, or said when it was looked at earlier."""
        table = ENGINES[engine][0]
        rows = self._lab.sql(
            # A statement may hold the separator and line breaks: its form is all that is wanted.
            "SELECT length(query), translate(regexp_replace(query, '\\s+', ' ', 'g'), '|', ' ')"  # noqa: S608
            f" FROM pg_stat_activity WHERE usename = '{engine}_writer'"
            f" AND query ~* '^\\s*(insert into|copy) [\"]?{table}' ORDER BY query_start DESC;"
        )
        found = whole_statements([(int(row[0]), row[1]) for row in rows])
        if found:
            self._statements[engine] = found[0]
        return self._statements.get(engine, "")

    def _durability(self, engine: str) -> dict[str, str]:
        rows = self._lab.sql(
            "SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit');"
        )
        found = {row[0]: row[1] for row in rows}
        # What the role sets for its sessions outweighs the server's file.
        for row in self._lab.sql(
            "SELECT unnest(setconfig) FROM pg_db_role_setting JOIN pg_roles ON pg_roles.oid = setrole"  # noqa: S608
            f" WHERE rolname = '{engine}_writer';"
        ):
            name, _, value = row[0].partition("=")
            if name in found:
                found[name] = value
        return found


def whole_statements(found: Sequence[tuple[int, str]]) -> list[str]:
    """Return of (length, text) the statements of which enough is known, those without a conflict's clause first.

    PostgreSQL shows so many characters only, and a statement of many rows ends with what it does on conflict.
    """
    known = [text for size, text in found if size < SHOWN_CHARACTERS or "on conflict" in text.lower()]
    return sorted(known, key=lambda text: "on conflict" in text.lower())


def mebibytes(text: str) -> int:
    """Return a size as Spark writes it (1g, 1024m) in MiB. Raises ValueError for another form."""
    match = re.fullmatch(r"(\d+)([mg])", text.lower())
    if match is None:
        raise ValueError(f"{text!r} is no size in m or g")
    return int(match[1]) * (1024 if match[2] == "g" else 1)


def living(managers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one task manager for each host, the one heard of last: a killed one is listed until it is given up."""
    found: dict[str, dict[str, Any]] = {}
    for manager in sorted(managers, key=lambda entry: int(entry.get("timeSinceLastHeartbeat", 0))):
        host = re.search(r"@([^:/]+)", manager.get("path", ""))
        found[host[1] if host else manager["id"]] = manager
    return list(found.values())
