"""The real lab's side: what is made of the words of nodes. The nodes are a table of commands and answers."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from compare import running, sshlab
from compare.experiments import RunPlan
from compare.faults import FAULTS
from compare.identity import event_id
from compare.lab import LabError, Offset
from compare.load import GeneratorSpec, Steady
from compare.running import mebibytes
from compare.sshlab import COMMON_VARIABLES, SshLab, index_in, offset
from compare.tools import Context
from test_compare_figures import T0, wire

REPOSITORY = Path(__file__).resolve().parents[3]
INVENTORY: dict[str, Any] = {
    "kafka": {"hosts": ["kafka-1"]}, "postgres": {"hosts": ["postgres-1"]}, "producer": {"hosts": ["producer-1"]},
    "spark_master": {"hosts": ["spark-master-1"]}, "spark_worker": {"hosts": ["spark-worker-1", "spark-worker-2"]},
    "flink_jobmanager": {"hosts": ["jobmanager-1"]}, "flink_taskmanager": {"hosts": ["taskmanager-1"]},
    "submitter": {"hosts": ["submitter-1"]},
}  # fmt: skip
INVENTORY["_meta"] = {
    "hostvars": {node: {"lab_node_vcpus": 2} for group in list(INVENTORY.values()) for node in group["hosts"]}
}
SPARK_CONFIG = """
[kafka]
topic = "crypto_prices"
starting_offsets = "earliest"
[job]
name = "crypto-prices-spark"
checkpoint_interval_ms = 15000
[spark]
ui_port = 4040
mode = "continuous"
trigger_interval_ms = 15000
# read: 100 200
"""
FLINK_CONFIG = """
[kafka]
topic = "crypto_prices"
starting_offsets = "earliest"
[job]
name = "crypto-prices-flink"
delivery_guarantee = "at_least_once"
[flink]
sink_flush_interval_ms = 10
# read: 100 200
"""
ANSWERS: list[tuple[str, str]] = [
    ("cat /etc/spark-job", SPARK_CONFIG),
    ("cat /etc/flink-job", FLINK_CONFIG),
    ("lab-topic --partitions", "[0, 1, 2]"),
    ("nproc", "2\nMemTotal: 2097152 kB\n"),
    ("api/v1/version", '{"spark": "4.2.0"}'),
    ("/environment", json.dumps({"sparkProperties": [
        ["spark.executor.memory", "1024m"], ["spark.sql.shuffle.partitions", "3"],
    ]})),
    ("/executors", json.dumps([
        {"id": "driver", "isActive": True, "totalCores": 0}, {"id": "0", "isActive": True, "totalCores": 4},
        {"id": "1", "isActive": False, "totalCores": 4},
    ])),
    ("api/v1/applications'? *$", '[{"id": "app-1"}]'),
    ("/jobs/overview", json.dumps({"jobs": [
        {"jid": "old", "name": "crypto-prices-flink", "state": "CANCELED"},
        {"jid": "abc", "name": "crypto-prices-flink", "state": "RUNNING"},
    ]})),
    ("/jobs/abc/checkpoints/config", '{"interval": 15000, "mode": "exactly_once"}'),
    ("/jobs/abc", '{"vertices": [{"parallelism": 1}, {"parallelism": 3}]}'),
    ("/taskmanagers/tm", '{"memoryConfiguration": {"totalProcessMemory": 1409286144}}'),
    ("/taskmanagers", '{"taskmanagers": [{"id": "tm", "slotsNumber": 4}]}'),
    ("/overview", '{"flink-version": "2.3.0"}'),
    ("/jobmanager/config", '[{"key": "taskmanager.memory.process.size", "value": "1344m"}]'),
]  # fmt: skip


class FakeNodes:
    """Answers commands by the first pattern that is found in them; SQL comes by standard input."""

    def __init__(self, answers: list[tuple[str, str]]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str]] = []
        self.started: list[tuple[str, str]] = []
        self.program = ""

    def run(self, node: str, command: str, *, stdin: str = "", timeout_s: float = 60) -> str:  # noqa: ARG002
        text = f"{command} {stdin}"
        self.asked.append((node, text))
        for pattern, answer in self.answers:
            if re.search(pattern, text):
                return answer
        raise AssertionError(f"{node}: nobody knows an answer to {text}")

    def start(self, node: str, command: str) -> subprocess.Popen[bytes]:
        self.started.append((node, command))
        return subprocess.Popen(
            [sys.executable, "-u", "-c", self.program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip


def sql(settings: str = "", role: str = "", statement: str = "") -> list[tuple[str, str]]:
    usual = "fsync|on\nfull_page_writes|on\nsynchronous_commit|on\n"
    return [("pg_db_role_setting", role), ("pg_stat_activity", statement), ("FROM pg_settings", settings or usual)]


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setattr(Context, "lab_dir", property(lambda _self: tmp_path))
    return Context(target="lxd", lab="test")


def lab_of(context: Context, answers: list[tuple[str, str]]) -> tuple[SshLab, FakeNodes]:
    nodes = FakeNodes(answers)
    return SshLab(context, nodes, INVENTORY), nodes  # type: ignore[arg-type]


def test_spark_is_told_by_what_it_says_of_itself(context: Context) -> None:
    lab, _ = lab_of(context, [*sql(), *ANSWERS])
    found = lab.facts("spark")
    assert (found.version, found.partitions, found.parallelism) == ("4.2.0", 3, 3)
    # Of two executors one is gone; a heap of 1 GiB has 384 MiB beside it.
    assert found.task_memory_mib == 1024 + 384
    # Two workers.
    assert (found.worker_cpus, found.worker_memory_mib) == (4, 4096)
    assert (found.checkpoint_interval_ms, found.guarantee) == (15000, "at_least_once")
    assert found.settings["spark.executor.memory"] == "1024m"


def test_flink_is_told_by_what_it_says_of_itself(context: Context) -> None:
    lab, _ = lab_of(context, [*sql(), *ANSWERS])
    found = lab.facts("flink")
    assert (found.version, found.partitions, found.parallelism) == ("2.3.0", 3, 3)
    assert (found.task_memory_mib, found.worker_cpus) == (1344, 2)
    assert (found.checkpoint_interval_ms, found.guarantee) == (15000, "at_least_once")
    assert found.settings["slots"] == 4


def test_role_that_is_less_durable_is_noticed(context: Context) -> None:
    lab, _ = lab_of(context, [*sql(role="synchronous_commit=off\nwork_mem=64MB\n"), *ANSWERS])
    assert lab.facts("flink").durability["synchronous_commit"] == "off"


def test_statement_that_was_seen_once_is_remembered(context: Context) -> None:
    lab, nodes = lab_of(context, [*sql(statement="35|INSERT INTO x ON CONFLICT DO NOTHING\n"), *ANSWERS])
    assert lab.facts("spark").sink_statement.startswith("INSERT")
    nodes.answers = [*sql(), *ANSWERS]
    assert lab.facts("spark").sink_statement.startswith("INSERT")


def test_statement_that_is_shown_in_part_is_not_judged() -> None:
    cut = "INSERT INTO x VALUES " + "($1), " * 170
    whole = "INSERT INTO x VALUES ($1) ON CONFLICT DO NOTHING"
    bare = "INSERT INTO x VALUES ($1)"
    assert running.whole_statements([(1023, cut)]) == []
    assert running.whole_statements([(1023, cut), (len(whole), whole), (len(bare), bare)]) == [bare, whole]


def test_configuration_that_was_not_read_is_no_fact(context: Context) -> None:
    stale = SPARK_CONFIG.replace("100 200", "300 200")
    lab, _ = lab_of(context, [("cat /etc/spark-job", stale), *sql(), *ANSWERS])
    with pytest.raises(LabError, match="has not read its configuration"):
        lab.facts("spark")


def test_two_jobs_of_a_name_are_no_fact(context: Context) -> None:
    twice = json.dumps({"jobs": [{"jid": name, "name": "crypto-prices-flink", "state": "RUNNING"} for name in "ab"]})
    lab, _ = lab_of(context, [("/jobs/overview", twice), *sql(), *ANSWERS])
    with pytest.raises(LabError, match="2 jobs of the name"):
        lab.facts("flink")


def test_run_is_made_ready_by_the_playbook(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    def run(command: list[str], **_more: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401
        if command[0] == "ansible-playbook":
            assert (Path(command[1])).is_file()
            calls.append(json.loads(Path(command[3].removeprefix("@")).read_text()))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(sshlab.subprocess, "run", run)
    lab, _ = lab_of(context, [])
    plan = RunPlan(
        id="a/b/1", configuration="b", title="B", engines=["spark"], variables={"spark_job_mode": "realtime"},
        cycle_s=1, repetition=1, steps=[], late_after_s=1, settle_s=1, generator_p99_ms=1, clock_offset_ms=1,
    )  # fmt: skip
    lab.prepare(plan, start=False)
    lab.restore()
    assert calls[0] == {
        **COMMON_VARIABLES, "spark_job_mode": "realtime", "benchmark_engines": "spark", "benchmark_start": False,
    }  # fmt: skip
    # Given back with the lab's own settings, and all of it running.
    assert calls[1] == {"benchmark_engines": "spark,flink", "benchmark_start": True, "benchmark_producer": True}


def test_playbook_reads_what_it_is_told() -> None:
    text = (REPOSITORY / "ansible" / "playbooks" / "benchmark.yml").read_text()
    for name in ("benchmark_engines", "benchmark_start", "benchmark_producer"):
        assert f"{name} | default" in text
    plays = yaml.safe_load(text)
    assert plays[-1]["vars"]["spark_job_defer_restart"] is True
    assert plays[-1]["vars"]["flink_job_defer_restart"] is True


def test_playbook_that_fails_says_so(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **more: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401
        more["stdout"].write("fatal: [kafka-1]: UNREACHABLE\n")
        return subprocess.CompletedProcess(command, 4)

    monkeypatch.setattr(sshlab.subprocess, "run", run)
    lab, _ = lab_of(context, [])
    with pytest.raises(LabError, match="UNREACHABLE"):
        lab.restore()


# Programs at work on nodes


def test_rows_are_read_as_they_come(context: Context, tmp_path: Path) -> None:
    lab, nodes = lab_of(context, [])
    stream = tmp_path / "stream"
    stream.write_bytes(wire([(9, index, T0, T0 + 500) for index in range(5000)]))
    nodes.program = f"import sys; sys.stdout.buffer.write(open({str(stream)!r}, 'rb').read())"
    rows = lab.rows("spark", 9)
    assert len(rows) == 5000
    assert nodes.started[0][0] == "postgres-1"
    assert "crypto_prices_realtime" in nodes.started[0][1]
    lab.rows("flink", 9, ("a", "b"))
    assert "crypto_prices_flink" in nodes.started[1][1]
    assert "event_id >=" in nodes.started[1][1]


def test_rows_that_break_off_are_no_rows(context: Context) -> None:
    lab, nodes = lab_of(context, [])
    nodes.program = "import sys; sys.stderr.write('psql: server closed the connection'); sys.exit(2)"
    with pytest.raises(LabError, match="server closed the connection"):
        lab.rows("spark", 9)


def test_tables_are_kept_with_the_producer_stopped(context: Context, tmp_path: Path) -> None:
    lab, nodes = lab_of(context, [("systemctl stop producer", ""), ("FROM rejected_messages", "0\n"), ("psql", "2\n")])
    nodes.program = "print('event_id,price'); print('a,1'); print('b,2')"
    assert set(lab.keep(tmp_path / "before").values()) == {2}
    assert nodes.asked[0] == ("producer-1", "sudo systemctl stop producer ")
    kept = sorted(path.name for path in (tmp_path / "before").iterdir())
    assert "crypto_prices_flink.csv.gz" in kept
    assert "rejected_messages.csv.gz" not in kept
    with gzip.open(tmp_path / "before" / "crypto_prices_realtime.csv.gz", "rt") as found:
        assert found.read() == "event_id,price\na,1\nb,2\n"


def test_producer_goes_on_where_tables_cannot_be_kept(context: Context, tmp_path: Path) -> None:
    lab, nodes = lab_of(context, [("systemctl st(op|art) producer", ""), ("psql", "2\n")])
    nodes.program = "import sys; print('event_id'); sys.exit('psql: the server closed the connection')"
    with pytest.raises(LabError, match=r"could not be kept: .*closed the connection"):
        lab.keep(tmp_path / "before")
    assert "start producer" in nodes.asked[-1][1]
    assert not (tmp_path / "before").exists()


GENERATOR = """
import json, sys
spec = json.loads(sys.stdin.read())
print(json.dumps({"started": True, "start_us": 5, "count": 3}))
print(json.dumps({"elapsed_us": 1500000, "sent": 2, "due": 2}), flush=True)
if spec["tag"] == 13:
    sys.exit("lab-generator: Kafka is away")
print(json.dumps({
    "done": True, "tag": spec["tag"], "first_index": 0, "count": 3, "start_us": 5, "sent": 3, "handed_over_us": 9,
    "acknowledged": 2, "unanswered": 0, "failed": [[2, 3]], "delay_step_us": 10, "delays": [[0, 3]], "cpu_s": 0.1}))
"""


def test_generator_is_followed_to_its_account(context: Context) -> None:
    lab, nodes = lab_of(context, [])
    nodes.program = GENERATOR
    ticks: list[tuple[float, int]] = []
    load = Steady(rate_per_s=1, duration_s=3)
    account = lab.generate(GeneratorSpec(tag=5, load=load), lambda seconds, sent: ticks.append((seconds, sent)))
    assert ticks == [(1.5, 2)]
    assert (account.acknowledged, account.failed) == (2, [(2, 3)])
    with pytest.raises(LabError, match="Kafka is away"):
        lab.generate(GeneratorSpec(tag=13, load=load), lambda _seconds, _sent: None)


SAMPLER = """
import json, sys
print(json.dumps({"at_us": 1, "unit": "kafka", "source": "proc", "cpu_us": 2, "memory_bytes": 3, "peak_bytes": 4,
                  "read_bytes": None, "write_bytes": 5}), flush=True)
sys.stdin.read()
"""


def test_samplers_run_on_every_node_with_units_and_end(context: Context) -> None:
    lab, nodes = lab_of(context, [])
    nodes.program = SAMPLER
    with lab.sampling() as found:
        pass
    assert {sample.node for sample in found} == set(INVENTORY["_meta"]["hostvars"]) - {"producer-1"}
    commands = dict(nodes.started)
    assert "spark-job flink-job" in commands["submitter-1"]
    assert "postgresql@15-main" in commands["postgres-1"]


def test_a_silent_sampler_is_said(context: Context) -> None:
    lab, nodes = lab_of(context, [])
    nodes.program = "import sys; sys.exit('sudo: lab-sampler: command not found')"
    with pytest.raises(LabError, match="command not found"), lab.sampling():
        pass


def test_clock_is_read_by_the_shortest_exchange(context: Context) -> None:
    lab, nodes = lab_of(context, [])
    nodes.program = sshlab.CLOCK_PROGRAM
    found = lab.clock_offsets()
    assert found.keys() == INVENTORY["_meta"]["hostvars"].keys()
    # The same clock: the truth lies within what is said.
    assert all(abs(entry.offset_us) <= entry.uncertainty_us + 1 for entry in found.values())
    assert lab.clock_nodes() == ("producer-1", "postgres-1")


def test_offset_is_reckoned_as_ntp_does() -> None:
    # The node is 1,000 ahead, and each way takes 50.
    assert offset(10_000, 11_050, 10_100) == Offset(1000, 50)


def test_kill_is_timed_by_the_generators_clock(context: Context) -> None:
    lab, nodes = lab_of(context, [("MainPID.*kill -9", "1790000000000500\n"), ("pgrep.*kill -9", "1790000000000500\n")])
    lab._offsets = {"taskmanager-1": Offset(500, 1), "producer-1": Offset(200, 1)}
    assert lab.inject(FAULTS["flink-taskmanager"]) == 1790000000000200
    assert nodes.asked[0][0] == "taskmanager-1"
    lab.inject(FAULTS["spark-executor"])
    assert nodes.asked[1][0] == "spark-worker-1"
    assert "CoarseGrainedExecutorBackend" in nodes.asked[1][1]


def test_damage_is_done_to_the_lab_itself(context: Context) -> None:
    lab, nodes = lab_of(context, [("psql", ""), ("pkill -STOP.*sleep 1.*pkill -CONT", "")])
    lab.delete_rows("flink", 10)
    lab.pause_generator(1.0)
    assert "DELETE FROM crypto_prices_flink" in nodes.asked[0][1]
    assert nodes.asked[1][0] == "producer-1"
    # The pattern does not fit the command that holds it.
    assert not re.search("compare[.]generator", nodes.asked[1][1])


def test_password_of_the_ceiling_is_on_no_command_line(context: Context) -> None:
    secrets = context.lab_dir / "secrets"
    secrets.mkdir()
    (secrets / "postgres-spark_writer").write_text("verysecret\n")
    lab, nodes = lab_of(context, [("lab-ceiling", '{"rows": 3000, "seconds": 0.5}'), ("psql", "")])
    runs = nodes.run
    commands: list[str] = []

    def run(node: str, command: str, *, stdin: str = "", timeout_s: float = 60) -> str:
        commands.append(command)
        return runs(node, command, stdin=stdin, timeout_s=timeout_s)

    nodes.run = run  # type: ignore[method-assign]
    assert lab.ceiling("spark", 3000) == 6000
    assert not any("verysecret" in command for command in commands)
    places = [node for node, text in nodes.asked if "lab-ceiling" in text]
    assert places == ["spark-worker-1"]
    # The table is like the engine's, and is gone afterwards.
    assert "LIKE crypto_prices_realtime INCLUDING ALL" in nodes.asked[0][1]
    assert "DROP TABLE" in nodes.asked[-1][1]


def test_rejects_are_known_by_their_ids(context: Context) -> None:
    of_run = str(event_id(7, 42, T0)).encode().hex()
    of_other = str(event_id(8, 42, T0)).encode().hex()
    lab, _ = lab_of(context, [("rejected_messages", f"{of_run}\n{of_other}\n{b'no id at all'.hex()}\n\n")])
    assert lab.rejected("spark", 7) == [42, -1, -1, -1]
    assert index_in("zz", 7) == -1


def test_live_figures_are_cheap_words_for_the_screen(context: Context) -> None:
    lab, _ = lab_of(context, [("n_live_tup", "1234|56.5\n"), *sql()])
    assert lab.live("flink") == (1234, 56.5)
    lab, _ = lab_of(context, [("n_live_tup", "0|\n"), *sql()])
    assert lab.live("flink") == (0, None)


@pytest.mark.parametrize(("text", "wanted"), [("1g", 1024), ("768m", 768), ("2G", 2048)])
def test_sizes_of_spark(text: str, wanted: int) -> None:
    assert mebibytes(text) == wanted


def test_a_killed_task_manager_is_not_counted_beside_its_successor() -> None:
    found = [
        {"id": "new", "path": "pekko.tcp://flink@tm-1:1/x", "timeSinceLastHeartbeat": 200},
        {"id": "old", "path": "pekko.tcp://flink@tm-1:2/x", "timeSinceLastHeartbeat": 100},
        {"id": "two", "path": "pekko.tcp://flink@tm-2:1/x", "timeSinceLastHeartbeat": 50},
    ]
    assert sorted(entry["id"] for entry in running.living(found)) == ["new", "two"]


def test_a_size_without_a_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="no size"):
        mebibytes("1024")


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    states: dict[str, Any] = {"units": {"kafka-1": {"kafka": "active"}}, "job": "RUNNING"}
    monkeypatch.setattr(sshlab.screen, "service_states", lambda *_arguments: states["units"])
    monkeypatch.setattr(sshlab.screen, "flink_job_state", lambda *_arguments: states["job"])
    return states


METRICS = [
    ("9109/metrics", '# HELP x\ncrypto_spark_query_active{query="prices"} 1.0\n'),
    ("9110/metrics", "crypto_flink_job_up 1.0\n"),
]


def test_healthy_lab_has_no_problem(context: Context, healthy: dict[str, Any]) -> None:
    assert healthy
    lab, _ = lab_of(context, [*METRICS, ("df --output", " 9000M\n/usr/local/bin/lab-sampler\n")])
    assert lab.problems(1000) == []


def test_every_problem_is_said(context: Context, healthy: dict[str, Any]) -> None:
    healthy["units"] = {"kafka-1": {"kafka": "failed"}}
    healthy["job"] = "no job"
    metrics = [("9109/metrics", ""), ("9110/metrics", "crypto_flink_job_up 0.0\n")]
    lab, _ = lab_of(context, [*metrics, ("lab-generator", " 9000M\nno lab-generator\n"), ("df --output", " 100M\n")])
    found = lab.problems(4 * 2**20)
    assert "kafka-1: kafka is failed" in found
    assert "Flink's job is no job, not RUNNING" in found
    assert sum("its metrics do not say" in text for text in found) == 2
    assert "producer-1: the program lab-generator is missing: `make lab` installs it" in found
    assert "postgres-1: only 100 MiB of disk are free, 6144 are needed" in found
