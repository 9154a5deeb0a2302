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
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from compare.account import TopicFacts
from compare.audit import ENGINES
from compare.experiments import RunPlan
from compare.faults import Fault
from compare.identity import MAX_INDEX, decode, event_id
from compare.lab import Candles, GeneratorAccount, LabError, Offset, Usage
from compare.load import GeneratorSpec
from compare.nodes import Access, Nodes, end, pipes
from compare.parity import EngineFacts
from compare.rows import Rows, copy_statement, parse_copy
from compare.running import JOBS, WORKERS, RunningEngines
from compare.tools import REPOSITORY, Context, ToolError, screen

# group => unit and what it belongs to; both engines pay for PostgreSQL and Kafka.
UNITS = {
    "spark_master": ("spark-master", "spark"), "spark_worker": ("spark-worker", "spark"),
    "flink_jobmanager": ("flink-jobmanager", "flink"), "flink_taskmanager": ("flink-taskmanager", "flink"),
    "postgres": ("postgresql@15-main", "postgres"), "kafka": ("kafka", "kafka"),
}  # fmt: skip
METRICS = {
    "spark": ("submitter", 9109, 'crypto_spark_query_active{query="prices"} 1.0'),
    "flink": ("submitter", 9110, "crypto_flink_job_up 1.0"),
}
MIN_FREE_MIB = 2048
# In the topic, a table, its indexes and PostgreSQL's log, which may be one disk's.
BYTES_PER_EVENT = 1024
# Two of Spark's batches, and more.
KEEP_WAIT_S = 40
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


class SshLab:
    """The lab of a context; see compare.lab.Lab for what each method does."""

    def __init__(self, context: Context, nodes: Nodes | None = None, inventory: dict[str, Any] | None = None) -> None:
        self._context = context
        try:
            known = inventory if inventory is not None else screen.inventory(context)
        except ToolError as error:
            raise LabError(str(error)) from error
        self._access = Access(nodes or Nodes(context), known)
        self._engines = RunningEngines(self._access)
        self._contract: dict[str, Any] = yaml.safe_load(
            (REPOSITORY / "ansible" / "playbooks" / "group_vars" / "all" / "contract.yml").read_text()
        )
        self._offsets: dict[str, Offset] = {}
        self._static: dict[str, Any] = {}
        self._free_mib = MIN_FREE_MIB

    # What the lab is

    def describe(self) -> dict[str, Any]:
        """Return the manifest's part that is the lab's."""
        if not self._static:
            hosts = self._access.inventory["_meta"]["hostvars"]
            groups = {
                node: sorted(name for name, group in self._access.inventory.items()
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
                "releases": self._access.of_each(self._releases),
                "postgres": {row[0]: row[1] for row in self._access.sql(SETTINGS_SQL)},
            }  # fmt: skip
        return {**self._static, "load_average": os.getloadavg()}

    def _releases(self, node: str) -> list[str]:
        return self._access.nodes.run(node, "readlink -f /opt/*/current || true").split()

    def problems(self, events: int) -> list[str]:
        """Return what keeps runs of so many events from starting."""
        self._free_mib = MIN_FREE_MIB + events * BYTES_PER_EVENT // 2**20
        found = []
        for node, units in screen.service_states(self._context, self._access.inventory).items():
            found += [f"{node}: {unit} is {state}" for unit, state in units.items() if state != "active"]
        state = screen.flink_job_state(self._context, self._access.inventory)
        if state != "RUNNING":
            found.append(f"Flink's job is {state}, not RUNNING")
        for engine, (group, port, line) in METRICS.items():
            try:
                text = self._access.nodes.run(
                    self._access.one(group), f"curl -sf --max-time 10 http://localhost:{port}/metrics"
                )
            except LabError as error:
                found.append(f"{engine}: no metrics: {error}")
                continue
            if line not in text.splitlines():
                found.append(f"{engine}: its metrics do not say '{line}'")
        for node, words in self._access.of_each(self._node_problems).items():
            found += [f"{node}: {text}" for text in words]
        return found

    def _node_problems(self, node: str) -> list[str]:
        wanted = ["lab-sampler", "lab-ceiling"]
        if node in self._access.group("producer"):
            wanted += ["lab-generator", "lab-topic"]
        try:
            text = self._access.nodes.run(
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

    def facts(self, engine: str) -> EngineFacts:
        """Return an engine's settings as they run."""
        return self._engines.facts(engine)

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
        producer, partial = self._access.one("producer"), folder.with_name(f"{folder.name}.partial")
        self._access.nodes.run(producer, "sudo systemctl stop producer")
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
            self._access.nodes.run(producer, "sudo systemctl start producer")
            raise
        return {table: count for table, count in counts.items() if count}

    def _keep_table(self, table: str, path: Path) -> int:
        rows = int(self._access.sql(f"SELECT count(*) FROM {table};", timeout_s=300)[0][0])  # noqa: S608
        if rows:
            process = self._access.copy_out(f"COPY {table} TO STDOUT (FORMAT csv, HEADER)")
            with gzip.open(path, "wb") as kept:
                shutil.copyfileobj(pipes(process)[1], kept)
            words = end(process)
            if process.returncode != 0:
                raise LabError(f"{table} could not be kept: {words}")
        return rows

    def prepare(self, run: RunPlan, *, start: bool) -> None:
        """Make topic, tables and checkpoints anew, and start what the run needs."""
        self._engines.forget()
        self._playbook({
            **COMMON_VARIABLES, **run.variables, "benchmark_engines": ",".join(run.engines), "benchmark_start": start,
        })  # fmt: skip

    def start_engine(self, engine: str) -> None:
        """Start the job of an engine that stands ready."""
        self._access.nodes.run(self._access.one("submitter"), f"sudo systemctl start --no-block {JOBS[engine]}")

    def restore(self) -> None:
        """Give the lab back with its defaults, both engines and the producer."""
        self._playbook({"benchmark_engines": "spark,flink", "benchmark_start": True, "benchmark_producer": True})

    # Clocks

    def clock_nodes(self) -> tuple[str, str]:
        """Return the generator's and PostgreSQL's node."""
        return self._access.one("producer"), self._access.one("postgres")

    def clock_offsets(self) -> Mapping[str, Offset]:
        """Return the offset of each node's clock."""
        # Those between which latency is measured one after the other, undisturbed; the rest at once, for the time that
        # takes is every run's.
        ends = dict.fromkeys(self.clock_nodes())
        rest = [node for node in self._access.all_nodes() if node not in ends]
        self._offsets = {node: self._clock_offset(node) for node in ends}
        self._offsets |= dict(zip(rest, self._access.each(self._clock_offset, rest), strict=True))
        return self._offsets

    def _clock_offset(self, node: str) -> Offset:
        process = self._access.nodes.start(node, f"python3 -u -c {shlex.quote(CLOCK_PROGRAM)}")
        stdin, stdout = pipes(process)
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
            end(process)
        assert best is not None
        return best

    # Load and what comes of it

    def generate(self, spec: GeneratorSpec, tick: Callable[[float, int], None]) -> GeneratorAccount:
        """Send a load and wait for its end."""
        node = self._access.one("producer")
        process = self._access.nodes.start(node, "sudo lab-generator")
        stdin, stdout = pipes(process)
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
            words = end(process)
        if account is None:
            raise LabError(f"{node}: lab-generator ended without an account: {words}")
        return account

    @contextlib.contextmanager
    def sampling(self) -> Iterator[list[Usage]]:
        """Sample the resources of all nodes until the block ends."""
        wanted: dict[str, list[str]] = {}
        for group, (unit, _) in UNITS.items():
            for node in self._access.group(group):
                wanted.setdefault(node, []).append(unit)
        for node in self._access.group("submitter"):
            wanted.setdefault(node, []).extend(JOBS.values())
        found: list[Usage] = []
        processes = {
            node: self._access.nodes.start(node, f"sudo lab-sampler {' '.join(map(shlex.quote, units))}")
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
                    pipes(process)[0].close()
            for thread in threads:
                thread.join(10)
            ended = {node: end(process) for node, process in processes.items()}
            silent = sorted(node for node in wanted if not any(sample.node == node for sample in list(found)))
        if silent:
            raise LabError("; ".join(f"{node}: lab-sampler said nothing: {ended[node]}" for node in silent))

    def components(self, engine: str) -> Mapping[str, str]:
        """Return unit => component."""
        found = {unit: component for unit, component in UNITS.values() if component in {engine, "postgres", "kafka"}}
        return {**found, JOBS[engine]: engine}

    def row_count(self, engine: str) -> int:
        """Return how many rows an engine's table has."""
        return int(self._access.sql(f"SELECT count(*) FROM {ENGINES[engine][0]};", timeout_s=300)[0][0])  # noqa: S608

    def rows(self, engine: str, tag: int, between: tuple[str, str] | None = None) -> Rows:
        """Return a run's rows in an engine's table."""
        process = self._access.copy_out(copy_statement(ENGINES[engine][0], *(between or ())))
        stdout = pipes(process)[1]
        try:
            found = parse_copy(iter(lambda: stdout.read(BLOCK_BYTES), b""), tag)
        except ValueError as error:
            raise LabError(f"rows of {engine}: {error} {end(process)}") from error
        end(process)
        return found

    def rejected(self, engine: str, tag: int) -> list[int]:
        """Return the event numbers in rejected_messages."""
        rows = self._access.sql(
            "SELECT encode(substring(payload from 14 for 36), 'hex') FROM rejected_messages"  # noqa: S608
            f" WHERE engine = '{engine}';"
        )
        return [index_in(row[0], tag) for row in rows]

    def topic(self, tag: int, events: int) -> TopicFacts:
        """Read the topic from its beginning to its end."""
        text = self._access.nodes.run(
            self._access.one("producer"), f"lab-topic --tag {tag} --events {events}", timeout_s=1800
        )
        found = json.loads(text)
        return TopicFacts(found["messages"], found["missing"], found["duplicated"], found["foreign"])

    def candles(self, engine: str) -> Candles:
        """Return an engine's candles."""
        rows = self._access.sql(
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
            "host": self._access.one("postgres"), "port": self._contract["contract_ports"]["postgres"],
            "database": self._contract["contract_database"], "user": role, "password": secret.read_text().split()[0],
            "table": table, "rows": rows, "connections": int(self._contract["contract_parallelism"]),
        }  # fmt: skip
        self._access.sql(
            f"DROP TABLE IF EXISTS {table}; CREATE TABLE {table} (LIKE {ENGINES[engine][0]} INCLUDING ALL);"
            f" CREATE TRIGGER keep_first_row BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION keep_first_row();"
            f" GRANT INSERT ON {table} TO {role};"
        )
        try:
            text = self._access.nodes.run(
                self._access.one(WORKERS[engine]), "lab-ceiling", stdin=json.dumps(request), timeout_s=300
            )
        finally:
            # What the ceiling has left to be written is not to be the run's.
            self._access.sql(f"DROP TABLE IF EXISTS {table}; CHECKPOINT;")
        found = json.loads(text)
        return float(found["rows"] / found["seconds"])

    def inject(self, fault: Fault) -> int:
        """Kill what the fault names; returns when, by the generator node's clock."""
        node = self._access.one(fault.group)
        if fault.process:
            pid = f"$(pgrep -o -f {shlex.quote(fault.process)})"
        else:
            pid = f"$(systemctl show {fault.unit} -p MainPID --value)"
        text = self._access.nodes.run(node, f'pid={pid}; test "$pid" -gt 0 && date +%s%6N && sudo kill -9 "$pid"')
        at_us = int(text.split()[0])
        here, there = self._offsets.get(node), self._offsets.get(self._access.one("producer"))
        return at_us - (here.offset_us if here else 0) + (there.offset_us if there else 0)

    def live(self, engine: str) -> tuple[int, float | None]:
        """Return about how many rows there are, and a sampled p99 in ms of the newest."""
        table = ENGINES[engine][0]
        since = event_id(0, 0, self.now_us() - 5_000_000)
        self._engines.statement(engine)
        rows = self._access.sql(
            f"SELECT n_live_tup, (SELECT percentile_disc(0.99) WITHIN GROUP (ORDER BY ms) FROM (SELECT"  # noqa: S608
            f" extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000 - produced_at / 1000.0 AS ms FROM {table}"
            f" WHERE event_id >= '{since}' LIMIT 500) AS newest) FROM pg_stat_user_tables WHERE relname = '{table}';"
        )
        return int(rows[0][0]), float(rows[0][1]) if rows[0][1] else None

    def delete_rows(self, engine: str, count: int) -> None:
        """Delete so many rows of an engine's table: for runs that are broken on purpose."""
        table = ENGINES[engine][0]
        self._access.sql(f"DELETE FROM {table} WHERE event_id IN (SELECT event_id FROM {table} LIMIT {count});")  # noqa: S608

    def pause_generator(self, seconds: float) -> None:
        """Stop the generator's process, and let it go on: for runs that are broken on purpose."""
        signal = "sudo pkill -{} -f 'compare[.]generator'"
        command = f"{signal.format('STOP')}; sleep {seconds}; {signal.format('CONT')}"
        self._access.nodes.run(self._access.one("producer"), command)

    def logs(self, engine: str, since_us: int) -> dict[str, str]:
        """Return the journals of an engine's units and of what both need."""
        found = {}
        places = [(group, unit) for group, (unit, owner) in UNITS.items() if owner in {engine, "postgres", "kafka"}]
        for group, unit in [*places, ("submitter", JOBS[engine])]:
            for node in self._access.group(group):
                found[f"{node}-{unit}.log"] = self._access.nodes.run(
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


def _collect(node: str, process: subprocess.Popen[bytes], found: list[Usage]) -> None:
    for line in pipes(process)[1]:
        with contextlib.suppress(ValueError, TypeError):
            found.append(Usage(node=node, **json.loads(line)))
