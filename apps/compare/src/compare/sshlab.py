"""A real lab: its nodes over SSH, its settings through Ansible. Runs on the controller, and nowhere else."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import yaml

from compare.account import TopicFacts
from compare.audit import ENGINES
from compare.experiments import RunPlan
from compare.faults import Fault
from compare.identity import MAX_INDEX, decode, event_id
from compare.lab import Candles, GeneratorAccount, LabError, Offset, Usage
from compare.load import GeneratorSpec
from compare.parity import EngineFacts
from compare.rows import Rows, copy_statement, parse_copy

REPOSITORY = Path(__file__).resolve().parents[4]
sys.path.insert(0, str(REPOSITORY / "tools" / "lab"))
import screen  # noqa: E402 - found on the path set above
from context import Context  # noqa: E402 - found on the path set above
from context import LabError as ToolError  # noqa: E402 - found on the path set above

__all__ = ["REPOSITORY", "Context", "Nodes", "SshLab", "ToolError"]

# group => unit and what it belongs to; both engines pay for PostgreSQL and Kafka.
UNITS = {
    "spark_master": ("spark-master", "spark"), "spark_worker": ("spark-worker", "spark"),
    "flink_jobmanager": ("flink-jobmanager", "flink"), "flink_taskmanager": ("flink-taskmanager", "flink"),
    "postgres": ("postgresql@15-main", "postgres"), "kafka": ("kafka", "kafka"),
}  # fmt: skip
JOBS = {"spark": "spark-job", "flink": "flink-job"}
WORKERS = {"spark": "spark_worker", "flink": "flink_taskmanager"}
METRICS = {
    "spark": ("submitter", 9109, 'crypto_spark_query_active{query="prices"} 1.0'),
    "flink": ("submitter", 9110, "crypto_flink_job_up 1.0"),
}
MIN_FREE_MIB = 2048
# In the topic, a table, its indexes and PostgreSQL's log, which may be one disk's.
BYTES_PER_EVENT = 1024
EXECUTOR_WAIT_S = 60
# Two of Spark's batches, and more.
KEEP_WAIT_S = 40
# track_activity_query_size, less its end.
SHOWN_CHARACTERS = 1023
# What no run wants: a line in the journal for each event.
COMMON_VARIABLES = {"spark_job_log_events": False, "flink_job_log_events": False}
CLOCK_EXCHANGES = 8
CLOCK_PROGRAM = """
import sys, time
for _ in sys.stdin:
    sys.stdout.write(f"{time.time_ns() // 1000}\\n")
    sys.stdout.flush()
"""
SETTINGS_SQL = (
    "SELECT name, setting FROM pg_settings WHERE source NOT IN ('default', 'override') OR name IN ('fsync',"
    " 'synchronous_commit', 'full_page_writes', 'wal_level', 'server_version', 'max_wal_size', 'checkpoint_timeout',"
    " 'wal_compression', 'commit_delay') ORDER BY name;"
)
PLAYBOOK_TIMEOUT_S = 900
BLOCK_BYTES = 1 << 20


class Nodes:
    """Commands on nodes, over connections that are kept open."""

    def __init__(self, context: Context) -> None:
        context.connections.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._options = [
            "ssh", "-F", str(context.ssh_config), "-o", "BatchMode=yes", "-o", "ConnectTimeout=10",
            "-o", f"ControlPath={context.connections}/c-%C",
        ]  # fmt: skip
        self._connected: set[str] = set()
        self._connecting = threading.Lock()

    def _command(self, node: str, command: str) -> list[str]:
        with self._connecting:
            if node not in self._connected:
                # Apart from every command: what stays in the background would hold a command's output open. Where this
                # fails, the command itself says why.
                subprocess.run(
                    [*self._options, "-o", "ControlMaster=auto", "-o", "ControlPersist=600", node, "true"],
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
                )  # fmt: skip
                self._connected.add(node)
        return [*self._options, "-o", "ControlMaster=no", node, command]

    def run(self, node: str, command: str, *, stdin: str = "", timeout_s: float = 60) -> str:
        """Return what a command prints. Raises LabError with the node and its words where it fails."""
        try:
            done = subprocess.run(
                self._command(node, command), input=stdin, capture_output=True, text=True, check=False,
                timeout=timeout_s,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{node}: no answer in {timeout_s:.0f} s: {command[:80]}") from error
        if done.returncode != 0:
            words = (done.stderr.strip() or done.stdout.strip())[-500:]
            raise LabError(f"{node}: {command[:80]}: exit code {done.returncode}: {words}")
        return done.stdout

    def start(self, node: str, command: str) -> subprocess.Popen[bytes]:
        """Start a command whose input and output are this process's to use."""
        return subprocess.Popen(
            self._command(node, command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )


class SshLab:
    """The lab of a context; see compare.lab.Lab for what each method does."""

    def __init__(self, context: Context, nodes: Nodes | None = None, inventory: dict[str, Any] | None = None) -> None:
        self._context = context
        try:
            self._inventory = inventory if inventory is not None else screen.inventory(context)
        except ToolError as error:
            raise LabError(str(error)) from error
        self._nodes = nodes or Nodes(context)
        self._contract: dict[str, Any] = yaml.safe_load(
            (REPOSITORY / "ansible" / "playbooks" / "group_vars" / "all" / "contract.yml").read_text()
        )
        self._statements: dict[str, str] = {}
        self._offsets: dict[str, Offset] = {}
        self._static: dict[str, Any] = {}
        self._free_mib = MIN_FREE_MIB

    # Nodes

    def _group(self, name: str) -> list[str]:
        return list(self._inventory.get(name, {}).get("hosts", []))

    def _one(self, group: str) -> str:
        hosts = self._group(group)
        if not hosts:
            raise LabError(f"the lab has no node of the group {group}")
        return hosts[0]

    def _all_nodes(self) -> list[str]:
        return sorted(self._inventory["_meta"]["hostvars"])

    def _each(self, call: Callable[[str], Any], nodes: Sequence[str]) -> list[Any]:
        with ThreadPoolExecutor(max_workers=8) as pool:
            return list(pool.map(call, nodes))

    def _sql(self, text: str, timeout_s: float = 120) -> list[list[str]]:
        """Run SQL as the superuser; rows of text. By standard input: no shell reads the text."""
        found = self._nodes.run(
            self._one("postgres"), "psql -X -q -v ON_ERROR_STOP=1 -U postgres -d crypto_db -At -F '|' -f -", stdin=text,
            timeout_s=timeout_s,
        )  # fmt: skip
        return [line.split("|") for line in found.splitlines()]

    def _http(self, node: str, port: int, path: str) -> Any:  # noqa: ANN401
        text = self._nodes.run(node, f"curl -sfL --max-time 10 {shlex.quote(f'http://localhost:{port}{path}')}")
        try:
            return json.loads(text)
        except ValueError as error:
            raise LabError(f"{node}: port {port}, {path}: no JSON: {text[:80]!r}") from error

    # What the lab is

    def describe(self) -> dict[str, Any]:
        """Return the manifest's part that is the lab's."""
        if not self._static:
            hosts = self._inventory["_meta"]["hostvars"]
            groups = {
                node: sorted(name for name, group in self._inventory.items()
                             if name not in {"_meta", "all"} and node in group.get("hosts", []))
                for node in hosts
            }  # fmt: skip
            self._static = {
                "lab": self._context.lab, "target": self._context.target, "machine": machine(),
                "commit": _git("rev-parse", "HEAD"), "changed": bool(_git("status", "--porcelain")),
                "nodes": {
                    node: {
                        "groups": groups[node], "vcpus": hosts[node].get("lab_node_vcpus"),
                        "memory_mib": hosts[node].get("lab_node_memory_mib"),
                    }
                    for node in hosts
                },
                "releases": dict(zip(self._all_nodes(), self._each(self._releases, self._all_nodes()), strict=True)),
                "postgres": {row[0]: row[1] for row in self._sql(SETTINGS_SQL)},
            }  # fmt: skip
        return {**self._static, "load_average": os.getloadavg()}

    def _releases(self, node: str) -> list[str]:
        return self._nodes.run(node, "readlink -f /opt/*/current || true").split()

    def problems(self, events: int) -> list[str]:
        """Return what keeps runs of so many events from starting."""
        self._free_mib = MIN_FREE_MIB + events * BYTES_PER_EVENT // 2**20
        found = []
        for node, units in screen.service_states(self._context, self._inventory).items():
            found += [f"{node}: {unit} is {state}" for unit, state in units.items() if state != "active"]
        state = screen.flink_job_state(self._context, self._inventory)
        if state != "RUNNING":
            found.append(f"Flink's job is {state}, not RUNNING")
        for engine, (group, port, line) in METRICS.items():
            try:
                text = self._nodes.run(self._one(group), f"curl -sf --max-time 10 http://localhost:{port}/metrics")
            except LabError as error:
                found.append(f"{engine}: no metrics: {error}")
                continue
            if line not in text.splitlines():
                found.append(f"{engine}: its metrics do not say '{line}'")
        for node, words in zip(self._all_nodes(), self._each(self._node_problems, self._all_nodes()), strict=True):
            found += [f"{node}: {text}" for text in words]
        return found

    def _node_problems(self, node: str) -> list[str]:
        wanted = ["lab-sampler", "lab-ceiling"]
        if node in self._group("producer"):
            wanted += ["lab-generator", "lab-topic"]
        try:
            text = self._nodes.run(
                node,
                f"df --output=avail -BM / | tail -1; for p in {' '.join(wanted)}; do command -v $p || echo no $p; done",
            )
        except LabError as error:
            return [str(error)]
        lines = text.splitlines()
        found = [
            f"the program {line[3:]} is missing: `make lab` installs it" for line in lines if line.startswith("no ")
        ]
        free = int(re.sub(r"\D", "", lines[0]) or 0)
        if free < self._free_mib:
            found.append(f"only {free} MiB of disk are free, {self._free_mib} are needed")
        return found

    # Engines as they run

    def facts(self, engine: str) -> EngineFacts:
        """Return an engine's settings as they run."""
        submitter, unit = self._one("submitter"), JOBS[engine]
        text = self._nodes.run(
            submitter,
            f"sudo cat /etc/{unit}/config.toml; echo '# read:' $(sudo stat -c %Y /etc/{unit}/config.toml)"
            f' $(date -d "$(systemctl show {unit} -p ExecMainStartTimestamp --value)" +%s)',
        )
        config = tomllib.loads(text)
        written, started = (int(word) for word in text.rstrip().splitlines()[-1].split()[2:4])
        if written > started:
            raise LabError(f"{submitter}: {unit} has not read its configuration since it was changed")
        partitions = json.loads(self._nodes.run(self._one("producer"), "lab-topic --partitions"))
        workers = self._group(WORKERS[engine])
        sizes = self._each(lambda node: self._nodes.run(node, "nproc; grep MemTotal /proc/meminfo").split(), workers)
        common: dict[str, Any] = {
            "engine": engine, "topic": config["kafka"]["topic"], "partitions": len(partitions),
            "starting_offsets": config["kafka"]["starting_offsets"],
            "worker_cpus": sum(int(words[0]) for words in sizes),
            "worker_memory_mib": sum(int(words[2]) for words in sizes) // 1024,
            "sink_statement": self._statement(engine), "durability": self._durability(engine),
        }  # fmt: skip
        more = self._spark_facts(config) if engine == "spark" else self._flink_facts(config)
        return EngineFacts(**common, **more)

    def _spark_facts(self, config: dict[str, Any]) -> dict[str, Any]:
        node, port = self._one("submitter"), int(config["spark"]["ui_port"])
        applications = self._http(node, port, "/api/v1/applications")
        if not applications:
            raise LabError(f"{node}: Spark's interface knows no application")
        path = f"/api/v1/applications/{applications[0]['id']}"
        properties = dict(self._http(node, port, f"{path}/environment")["sparkProperties"])
        executors = self._executors(node, port, path)
        heap_mib = mebibytes(properties["spark.executor.memory"])
        # Spark's own rule for what a process takes beside its heap (spark.executor.memoryOverhead).
        each_mib = heap_mib + max(384, heap_mib // 10)
        return {
            "version": self._http(node, port, "/api/v1/version")["spark"],
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
                entry for entry in self._http(node, port, f"{path}/executors")
                if entry["id"] != "driver" and entry["isActive"]
            ]  # fmt: skip
            if found or time.monotonic() > deadline_s:
                return found
            time.sleep(1)

    def _flink_facts(self, config: dict[str, Any]) -> dict[str, Any]:
        node = self._one("flink_jobmanager")
        jobs = [
            job["jid"] for job in self._http(node, 8081, "/jobs/overview")["jobs"]
            if job["name"] == config["job"]["name"] and job["state"] == "RUNNING"
        ]  # fmt: skip
        if len(jobs) != 1:
            raise LabError(f"{node}: {len(jobs)} jobs of the name {config['job']['name']} run, not 1")
        job = self._http(node, 8081, f"/jobs/{jobs[0]}")
        checkpoints = self._http(node, 8081, f"/jobs/{jobs[0]}/checkpoints/config")
        managers = living(self._http(node, 8081, "/taskmanagers")["taskmanagers"])
        memory = [
            self._http(node, 8081, f"/taskmanagers/{manager['id']}")["memoryConfiguration"]["totalProcessMemory"]
            for manager in managers
        ]
        return {
            "version": self._http(node, 8081, "/overview")["flink-version"],
            "parallelism": max(vertex["parallelism"] for vertex in job["vertices"]),
            "task_memory_mib": sum(memory) // 2**20,
            "guarantee": config["job"]["delivery_guarantee"],
            "checkpoint_interval_ms": int(checkpoints["interval"]),
            "settings": {
                **{entry["key"]: entry["value"] for entry in self._http(node, 8081, "/jobmanager/config")},
                "checkpoints": checkpoints, "sink_flush_interval_ms": config["flink"]["sink_flush_interval_ms"],
                "slots": sum(manager["slotsNumber"] for manager in managers),
            },
        }  # fmt: skip

    def _statement(self, engine: str) -> str:
        """Return what the engine's sessions last said to its table, or said when it was looked at earlier."""
        table = ENGINES[engine][0]
        rows = self._sql(
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
        rows = self._sql(
            "SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit');"
        )
        found = {row[0]: row[1] for row in rows}
        # What the role sets for its sessions outweighs the server's file.
        for row in self._sql(
            "SELECT unnest(setconfig) FROM pg_db_role_setting JOIN pg_roles ON pg_roles.oid = setrole"  # noqa: S608
            f" WHERE rolname = '{engine}_writer';"
        ):
            name, _, value = row[0].partition("=")
            if name in found:
                found[name] = value
        return found

    # Making the lab ready

    def _playbook(self, variables: Mapping[str, Any]) -> None:
        self._context.logs.mkdir(parents=True, exist_ok=True)
        log = self._context.logs / "benchmark.log"
        with tempfile.NamedTemporaryFile("w", suffix=".json", dir=self._context.lab_dir) as extra:
            json.dump(dict(variables), extra)
            extra.flush()
            with log.open("w") as output:
                try:
                    done = subprocess.run(
                        ["ansible-playbook", str(REPOSITORY / "ansible" / "playbooks" / "benchmark.yml"),
                         "-e", f"@{extra.name}"],
                        stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=REPOSITORY, check=False,
                        env={**self._context.environment, "ANSIBLE_NOCOLOR": "1"}, timeout=PLAYBOOK_TIMEOUT_S,
                    )  # fmt: skip
                except subprocess.TimeoutExpired as error:
                    raise LabError(f"benchmark.yml took more than {PLAYBOOK_TIMEOUT_S} s: {log}") from error
        if done.returncode != 0:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise LabError(f"benchmark.yml failed; the whole log: {log}\n{tail}")

    def keep(self, folder: Path) -> dict[str, int]:
        """Keep what the tables hold."""
        producer, partial = self._one("producer"), folder.with_name(f"{folder.name}.partial")
        self._nodes.run(producer, "sudo systemctl stop producer")
        try:
            deadline_s = time.monotonic() + KEEP_WAIT_S
            # What was sent last is on its way; unequal for good where an engine was reset.
            while len({self.row_count(engine) for engine in ENGINES}) > 1 and time.monotonic() < deadline_s:
                time.sleep(1)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            tables = [*(table for names in ENGINES.values() for table in names), "rejected_messages"]
            counts = {table: self._keep_table(table, partial / f"{table}.csv.gz") for table in tables}
            partial.rename(folder)
        except BaseException:
            self._nodes.run(producer, "sudo systemctl start producer")
            raise
        return {table: count for table, count in counts.items() if count}

    def _keep_table(self, table: str, path: Path) -> int:
        rows = int(self._sql(f"SELECT count(*) FROM {table};", timeout_s=300)[0][0])  # noqa: S608
        if rows:
            statement = f"COPY {table} TO STDOUT (FORMAT csv, HEADER)"
            node = self._one("postgres")
            process = self._nodes.start(node, f"psql -X -q -U postgres -d crypto_db -c {shlex.quote(statement)}")
            stdin, stdout = _pipes(process)
            stdin.close()
            with gzip.open(path, "wb") as kept:
                shutil.copyfileobj(stdout, kept)
            words = _end(process)
            if process.returncode != 0:
                raise LabError(f"{node}: {table} could not be kept: {words}")
        return rows

    def prepare(self, run: RunPlan, *, start: bool) -> None:
        """Make topic, tables and checkpoints anew, and start what the run needs."""
        self._statements = {}
        self._playbook({
            **COMMON_VARIABLES, **run.variables, "benchmark_engines": ",".join(run.engines), "benchmark_start": start,
        })  # fmt: skip

    def start_engine(self, engine: str) -> None:
        """Start the job of an engine that stands ready."""
        self._nodes.run(self._one("submitter"), f"sudo systemctl start --no-block {JOBS[engine]}")

    def restore(self) -> None:
        """Give the lab back with its defaults, both engines and the producer."""
        self._playbook({"benchmark_engines": "spark,flink", "benchmark_start": True, "benchmark_producer": True})

    # Clocks

    def clock_nodes(self) -> tuple[str, str]:
        """Return the generator's and PostgreSQL's node."""
        return self._one("producer"), self._one("postgres")

    def clock_offsets(self) -> Mapping[str, Offset]:
        """Return the offset of each node's clock."""
        # Those between which latency is measured one after the other, undisturbed; the rest at once, for the time that
        # takes is every run's.
        ends = dict.fromkeys(self.clock_nodes())
        rest = [node for node in self._all_nodes() if node not in ends]
        self._offsets = {node: self._clock_offset(node) for node in ends}
        self._offsets |= dict(zip(rest, self._each(self._clock_offset, rest), strict=True))
        return self._offsets

    def _clock_offset(self, node: str) -> Offset:
        process = self._nodes.start(node, f"python3 -u -c {shlex.quote(CLOCK_PROGRAM)}")
        stdin, stdout = _pipes(process)
        best: Offset | None = None
        try:
            for _ in range(CLOCK_EXCHANGES):
                asked_us = time.time_ns() // 1000
                stdin.write(b"\n")
                stdin.flush()
                answer = stdout.readline()
                answered_us = time.time_ns() // 1000
                if not answer:
                    raise LabError(f"{node}: its clock could not be read")
                found = offset(asked_us, int(answer), answered_us)
                if best is None or found.uncertainty_us < best.uncertainty_us:
                    best = found
        except (OSError, ValueError) as error:
            raise LabError(f"{node}: its clock could not be read: {error}") from error
        finally:
            _end(process)
        assert best is not None
        return best

    # Load and what comes of it

    def generate(self, spec: GeneratorSpec, tick: Callable[[float, int], None]) -> GeneratorAccount:
        """Send a load and wait for its end."""
        node = self._one("producer")
        process = self._nodes.start(node, "sudo lab-generator")
        stdin, stdout = _pipes(process)
        account: GeneratorAccount | None = None
        try:
            stdin.write(spec.model_dump_json().encode())
            stdin.close()
            for line in stdout:
                found = json.loads(line)
                if found.get("done"):
                    account = GeneratorAccount.model_validate(found)
                elif "elapsed_us" in found:
                    tick(found["elapsed_us"] / 1e6, found["sent"])
            process.wait(30)
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise LabError(f"{node}: lab-generator: {error}") from error
        finally:
            words = _end(process)
        if account is None:
            raise LabError(f"{node}: lab-generator ended without an account: {words}")
        return account

    @contextlib.contextmanager
    def sampling(self) -> Iterator[list[Usage]]:
        """Sample the resources of all nodes until the block ends."""
        wanted: dict[str, list[str]] = {}
        for group, (unit, _) in UNITS.items():
            for node in self._group(group):
                wanted.setdefault(node, []).append(unit)
        for node in self._group("submitter"):
            wanted.setdefault(node, []).extend(JOBS.values())
        found: list[Usage] = []
        processes = {
            node: self._nodes.start(node, f"sudo lab-sampler {' '.join(map(shlex.quote, units))}")
            for node, units in wanted.items()
        }
        threads = [
            threading.Thread(target=_collect, args=(node, process, found), daemon=True)
            for node, process in processes.items()
        ]
        for thread in threads:
            thread.start()
        try:
            yield found
        finally:
            for process in processes.values():
                with contextlib.suppress(OSError):
                    _pipes(process)[0].close()
            for thread in threads:
                thread.join(10)
            ended = {node: _end(process) for node, process in processes.items()}
            silent = sorted(node for node in wanted if not any(sample.node == node for sample in list(found)))
        if silent:
            raise LabError("; ".join(f"{node}: lab-sampler said nothing: {ended[node]}" for node in silent))

    def components(self, engine: str) -> Mapping[str, str]:
        """Return unit => component."""
        found = {unit: component for unit, component in UNITS.values() if component in {engine, "postgres", "kafka"}}
        return {**found, JOBS[engine]: engine}

    def row_count(self, engine: str) -> int:
        """Return how many rows an engine's table has."""
        return int(self._sql(f"SELECT count(*) FROM {ENGINES[engine][0]};", timeout_s=300)[0][0])  # noqa: S608

    def rows(self, engine: str, tag: int, between: tuple[str, str] | None = None) -> Rows:
        """Return a run's rows in an engine's table."""
        node = self._one("postgres")
        statement = copy_statement(ENGINES[engine][0], *(between or ()))
        process = self._nodes.start(node, f"psql -X -q -U postgres -d crypto_db -c {shlex.quote(statement)}")
        stdin, stdout = _pipes(process)
        stdin.close()
        words = ""
        try:
            found = parse_copy(iter(lambda: stdout.read(BLOCK_BYTES), b""), tag)
        except ValueError as error:
            words = _end(process)
            raise LabError(f"{node}: rows of {engine}: {error} {words}") from error
        _end(process)
        return found

    def rejected(self, engine: str, tag: int) -> list[int]:
        """Return the event numbers in rejected_messages."""
        rows = self._sql(
            "SELECT encode(substring(payload from 14 for 36), 'hex') FROM rejected_messages"  # noqa: S608
            f" WHERE engine = '{engine}';"
        )
        return [index_in(row[0], tag) for row in rows]

    def topic(self, tag: int, events: int) -> TopicFacts:
        """Read the topic from its beginning to its end."""
        text = self._nodes.run(self._one("producer"), f"lab-topic --tag {tag} --events {events}", timeout_s=1800)
        found = json.loads(text)
        return TopicFacts(found["messages"], found["missing"], found["duplicated"], found["foreign"])

    def candles(self, engine: str) -> Candles:
        """Return an engine's candles."""
        rows = self._sql(
            f"SELECT symbol, window_start, open, high, low, close, event_count FROM {ENGINES[engine][1]};"  # noqa: S608
        )
        return {
            (row[0], int(row[1])): (float(row[2]), float(row[3]), float(row[4]), float(row[5]), int(row[6]))
            for row in rows
        }

    def symbols(self) -> list[str]:
        """Return the contract's symbols."""
        return list(self._contract["contract_symbols"])

    def ceiling(self, engine: str, rows: int) -> float:
        """Return rows per second of COPY into a table like the engine's, from its worker node."""
        table, role = f"compare_ceiling_{engine}", f"{engine}_writer"
        secret = self._context.lab_dir / "secrets" / f"postgres-{role}"
        request = {
            "host": self._one("postgres"), "port": self._contract["contract_ports"]["postgres"],
            "database": self._contract["contract_database"], "user": role, "password": secret.read_text().split()[0],
            "table": table, "rows": rows, "connections": int(self._contract["contract_parallelism"]),
        }  # fmt: skip
        self._sql(
            f"DROP TABLE IF EXISTS {table}; CREATE TABLE {table} (LIKE {ENGINES[engine][0]} INCLUDING ALL);"
            f" CREATE TRIGGER keep_first_row BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION keep_first_row();"
            f" GRANT INSERT ON {table} TO {role};"
        )
        try:
            text = self._nodes.run(self._one(WORKERS[engine]), "lab-ceiling", stdin=json.dumps(request), timeout_s=300)
        finally:
            # What the ceiling has left to be written is not to be the run's.
            self._sql(f"DROP TABLE IF EXISTS {table}; CHECKPOINT;")
        found = json.loads(text)
        return float(found["rows"] / found["seconds"])

    def inject(self, fault: Fault) -> int:
        """Kill what the fault names; returns when, by the generator node's clock."""
        node = self._one(fault.group)
        if fault.process:
            pid = f"$(pgrep -o -f {shlex.quote(fault.process)})"
        else:
            pid = f"$(systemctl show {fault.unit} -p MainPID --value)"
        text = self._nodes.run(node, f'pid={pid}; test "$pid" -gt 0 && date +%s%6N && sudo kill -9 "$pid"')
        at_us = int(text.split()[0])
        here, there = self._offsets.get(node), self._offsets.get(self._one("producer"))
        return at_us - (here.offset_us if here else 0) + (there.offset_us if there else 0)

    def live(self, engine: str) -> tuple[int, float | None]:
        """Return about how many rows there are, and a sampled p99 in ms of the newest."""
        table = ENGINES[engine][0]
        since = event_id(0, 0, self.now_us() - 5_000_000)
        self._statement(engine)
        rows = self._sql(
            f"SELECT n_live_tup, (SELECT percentile_disc(0.99) WITHIN GROUP (ORDER BY ms) FROM (SELECT"  # noqa: S608
            f" extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000 - produced_at / 1000.0 AS ms FROM {table}"
            f" WHERE event_id >= '{since}' LIMIT 500) AS newest) FROM pg_stat_user_tables WHERE relname = '{table}';"
        )
        return int(rows[0][0]), float(rows[0][1]) if rows[0][1] else None

    def delete_rows(self, engine: str, count: int) -> None:
        """Delete so many rows of an engine's table: for runs that are broken on purpose."""
        table = ENGINES[engine][0]
        self._sql(f"DELETE FROM {table} WHERE event_id IN (SELECT event_id FROM {table} LIMIT {count});")  # noqa: S608

    def pause_generator(self, seconds: float) -> None:
        """Stop the generator's process, and let it go on: for runs that are broken on purpose."""
        signal = "sudo pkill -{} -f 'compare[.]generator'"
        command = f"{signal.format('STOP')}; sleep {seconds}; {signal.format('CONT')}"
        self._nodes.run(self._one("producer"), command)

    def logs(self, engine: str, since_us: int) -> dict[str, str]:
        """Return the journals of an engine's units and of what both need."""
        found = {}
        places = [(group, unit) for group, (unit, owner) in UNITS.items() if owner in {engine, "postgres", "kafka"}]
        for group, unit in [*places, ("submitter", JOBS[engine])]:
            for node in self._group(group):
                found[f"{node}-{unit}.log"] = self._nodes.run(
                    node, f"sudo journalctl -u {unit} --since @{since_us // 1_000_000} -o short-iso --no-pager -n 3000"
                )
        return found

    def now_us(self) -> int:
        """Return the controller's time."""
        return time.time_ns() // 1000

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


def offset(asked_us: int, answer_us: int, answered_us: int) -> Offset:
    """Return a clock's offset from one exchange, as NTP reckons it: the answer lies somewhere between the two."""
    return Offset(answer_us - (asked_us + answered_us) // 2, (answered_us - asked_us + 1) // 2)


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


def index_in(hexadecimal: str, tag: int) -> int:
    """Return the event number in a rejected payload's id, given in hexadecimal; -1 where it is no event of the run."""
    with contextlib.suppress(ValueError):
        of_run, index = decode(bytes.fromhex(hexadecimal).decode())
        if of_run == tag and index <= MAX_INDEX:
            return index
    return -1


def machine() -> dict[str, Any]:
    """Return what machine this is: processor, cores, memory, kernel."""
    model = ""
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        model = found[1] if found else ""
    return {
        "processor": model or platform.machine(), "cores": os.cpu_count(), "kernel": platform.release(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
    }  # fmt: skip


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


def _collect(node: str, process: subprocess.Popen[bytes], found: list[Usage]) -> None:
    for line in _pipes(process)[1]:
        with contextlib.suppress(ValueError, TypeError):
            found.append(Usage(node=node, **json.loads(line)))


def _end(process: subprocess.Popen[bytes]) -> str:
    """End a command that was started, and return what it complained of."""
    with contextlib.suppress(OSError):
        if process.stdin is not None and not process.stdin.closed:
            process.stdin.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait(5)
    words = process.stderr.read().decode(errors="replace").strip() if process.stderr else ""
    return words[-500:]
