"""Airflow in the lab: its page, its DAGs green, each red with its fault and green again, and what it may not do."""

from __future__ import annotations

import base64
import contextlib
import json
import shlex
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from live_lab import Lab, restarted

# The checks leave the newest minutes alone, so that there is something to judge after about seven.
pytestmark = pytest.mark.aged

DAGS = ["comparison_report", "data_quality", "pipeline_restart", "retention"]
# Older than the checks' settle time, and well inside of their window.
SETTLED_S = 260
# Sends values with times and keys of their own, which the console's producer cannot.
SEND = """
import base64, json, sys, time
from kafka import KafkaProducer
job = json.loads(base64.b64decode(sys.argv[1]))
producer = KafkaProducer(bootstrap_servers=job["servers"], acks="all")
for age_s, value in job["messages"]:
    at_ms = round((time.time() - age_s) * 1000)
    producer.send("crypto_prices", json.dumps(value).encode(), key=b"GAP-USD", timestamp_ms=at_ms).get(60)
producer.close()
"""


class Airflow:
    """The API of the lab's Airflow, as the web user. Secrets go by standard input, not by a command line."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.node = lab.group("airflow")[0]
        password = (lab.context.lab_dir / "secrets" / "airflow-web").read_text().strip()
        self.token = self.login("airflow", password)["access_token"]

    def curl(self, arguments: str, given: str) -> str:
        """Run curl on Airflow's node; what is given comes by standard input."""
        done = subprocess.run(
            ["ssh", "-F", str(self.lab.context.ssh_config), "-o", "BatchMode=yes", self.node, f"curl -sS {arguments}"],
            input=given, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def login(self, user: str, password: str) -> dict[str, Any]:
        """Ask for a token; returns what Airflow answers."""
        body = json.dumps({"username": user, "password": password})
        address = "http://localhost:8085/auth/token"
        return dict(json.loads(self.curl(f"-H 'Content-Type: application/json' -d @- {address}", body)))

    def text(self, path: str, body: dict[str, Any] | None = None) -> str:
        """Call a path; with a body, post it."""
        data = "" if body is None else f"-H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}"
        address = shlex.quote(f"http://localhost:8085{path}")
        return self.curl(f"-H @- {data} {address}", f"Authorization: Bearer {self.token}\n")

    def ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Call a path of the API."""
        return dict(json.loads(self.text(f"/api/v2{path}", body)))

    def begin(self, dag: str, **conf: Any) -> str:  # noqa: ANN401 - as JSON has them
        """Trigger a DAG; returns the path of its run."""
        run_id = f"test-{uuid.uuid4().hex[:12]}"
        begun = self.ask(f"/dags/{dag}/dagRuns", {"dag_run_id": run_id, "logical_date": None, "conf": conf})
        assert begun.get("dag_run_id") == run_id, begun
        return f"/dags/{dag}/dagRuns/{run_id}"

    def end(self, run: str, timeout_s: float = 240) -> tuple[str, dict[str, str]]:
        """Wait for a run's end; returns its state and the states of its tasks."""
        state = self.lab.wait_for(
            lambda: (found := self.ask(run)["state"]) in {"success", "failed"} and found, f"the end of {run}", timeout_s
        )
        tasks = self.ask(f"{run}/taskInstances")["task_instances"]
        return state, {task["task_id"]: task["state"] for task in tasks}

    def run(self, dag: str, timeout_s: float = 240, **conf: Any) -> tuple[str, dict[str, str]]:  # noqa: ANN401
        """Trigger a DAG and wait for its end."""
        return self.end(self.begin(dag, **conf), timeout_s)

    def log(self, run: str, task: str) -> str:
        """Return what a task has said."""
        return self.text(f"/api/v2{run}/taskInstances/{task}/logs/1?full_content=true")

    def red(self, dag: str, task: str, **conf: Any) -> str:  # noqa: ANN401
        """Trigger a DAG, whose task must fail; returns what the task has said."""
        run = self.begin(dag, **conf)
        state, tasks = self.end(run)
        assert (state, tasks[task]) == ("failed", "failed"), (tasks, self.log(run, task)[-3000:])
        return self.log(run, task)

    def green(self, dag: str, task: str, timeout_s: float = 300, **conf: Any) -> None:  # noqa: ANN401
        """Trigger a DAG until it is green: engines may still be catching up with what was put right."""

        def once() -> bool:
            run = self.begin(dag, **conf)
            state, tasks = self.end(run)
            assert (state, tasks[task]) == ("success", "success"), self.log(run, task)[-2000:]
            return True

        self.lab.wait_for(once, f"{dag} to be green", timeout_s)


@pytest.fixture(scope="module")
def airflow(lab: Lab) -> Airflow:
    if not lab.group("airflow"):
        pytest.skip("this lab is without Airflow (AIRFLOW=off)")
    return Airflow(lab)


@pytest.fixture(scope="module")
def settled(airflow: Airflow) -> Airflow:
    """Airflow in a lab that is old enough to be judged, and in which nothing is wrong."""
    airflow.green("data_quality", "judge", timeout_s=600)
    return airflow


def test_user_comes_in_with_the_generated_password_only(airflow: Airflow) -> None:
    assert airflow.token
    assert "access_token" not in airflow.login("airflow", "airflow")
    status = "-o /dev/null -w '%{http_code}'"
    for path in ("api/v2/dags", "api/v2/connections", "reports/latest"):
        assert airflow.curl(f"{status} http://localhost:8085/{path}", "") == "401", path


def test_dags_are_there_without_errors_and_not_paused(airflow: Airflow) -> None:
    found = airflow.ask("/dags")["dags"]
    assert {dag["dag_id"]: dag["is_paused"] for dag in found} == dict.fromkeys(DAGS, False)
    assert airflow.ask("/importErrors")["import_errors"] == []


def test_page_is_answered_on_the_labs_network(lab: Lab, airflow: Airflow) -> None:
    page = lab.one("submitter").check_output(f"curl -sfL http://{airflow.node}:8085/")
    assert "<title>Airflow</title>" in page


def test_quality_is_measured_and_kept(lab: Lab, settled: Airflow) -> None:
    assert settled.token
    kept = lab.sql(
        "SELECT count(*), count(DISTINCT check_name), bool_and(passed) FROM data_quality_results"
        " WHERE run_id = (SELECT run_id FROM data_quality_results ORDER BY id DESC LIMIT 1)"
    )
    assert kept == [["12", "7", "t"]]


def test_quality_is_red_while_a_row_is_missing(lab: Lab, settled: Airflow) -> None:
    old = f"timestamp < (extract(epoch FROM now()) - {SETTLED_S}) * 1000"
    # A lab that has just been made has none yet.
    lab.wait_for(
        lambda: lab.sql(f"SELECT count(*) FROM crypto_prices_flink WHERE {old}") != [["0"]],
        "an old row",
        SETTLED_S + 60,
    )
    lab.sql(
        "CREATE TABLE lab_test_kept AS SELECT * FROM crypto_prices_flink"
        f" WHERE {old} ORDER BY timestamp DESC LIMIT 1;"
        " DELETE FROM crypto_prices_flink WHERE event_id IN (SELECT event_id FROM lab_test_kept)"
    )
    try:
        assert "missing_rows of flink: 1, limit 0" in settled.red("data_quality", "judge")
    finally:
        lab.sql("INSERT INTO crypto_prices_flink SELECT * FROM lab_test_kept; DROP TABLE lab_test_kept")
    settled.green("data_quality", "judge")


def send(lab: Lab, *messages: tuple[float, dict[str, Any]]) -> None:
    """Send messages of a given age to the topic, from the producer's node."""
    servers = [f"{node}:9092" for node in lab.group("kafka")]
    job = base64.b64encode(json.dumps({"servers": servers, "messages": messages}).encode()).decode()
    host = lab.one("producer")
    host.check_output(f"cat > /tmp/send_trades.py <<'SCRIPT'\n{SEND}\nSCRIPT")
    host.check_output(f"PYTHONPATH=/opt/producer/current/python python3 -W ignore /tmp/send_trades.py {job}")


def test_quality_is_red_while_a_trade_is_missing(lab: Lab, settled: Airflow) -> None:
    """Of a pair that both engines reject: neither tables nor the audit's counts of events are touched."""
    # It ends in zeros, so that all three begin alike.
    first = time.time_ns() // 1_000_000 * 1000

    def trade(number: int) -> dict[str, Any]:
        return {"symbol": "GAP-USD", "user": "synthetic", "trade_id": first + number}

    def rejected(count: int) -> Callable[[], bool]:
        query = (
            "SELECT count(DISTINCT engine), count(*) FROM rejected_messages"
            f" WHERE encode(payload, 'escape') LIKE '%{first // 1000}%'"
        )
        return lambda: lab.sql(query) == [["2", str(2 * count)]]

    send(lab, (SETTLED_S, trade(0)), (SETTLED_S - 1, trade(2)))
    lab.wait_for(rejected(2), "the rejects of both engines", 120)
    try:
        said = settled.red("data_quality", "judge")
        assert "missing_trade_ids of topic: 1, limit 0" in said
        assert f"synthetic GAP-USD: {first + 1}" in said
    finally:
        send(lab, (SETTLED_S - 2, trade(1)))
        lab.wait_for(rejected(3), "the rejects of both engines", 120)
    settled.green("data_quality", "judge")


def test_report_compares_both_engines(settled: Airflow) -> None:
    assert settled.run("comparison_report", hours=1) == ("success", {"write": "success"})
    page = settled.text("/reports/latest")
    for text in ("Spark", "Flink", "BTC-USD", "<polyline"):
        assert text in page
    assert "http" not in page


def test_report_is_red_where_it_may_not_read(lab: Lab, settled: Airflow) -> None:
    """A view that is out of reach; the retry that the DAG has for such cases comes at once, when asked for."""
    lab.sql("REVOKE SELECT ON event_latency FROM airflow_dags")
    try:
        run = settled.begin("comparison_report", hours=1)
        lab.wait_for(
            lambda: "permission denied for view event_latency" in settled.log(run, "write"), "the task's failure", 120
        )
    finally:
        lab.sql("GRANT SELECT ON event_latency TO airflow_dags")
    again = {"dry_run": False, "dag_run_id": run.rpartition("/")[2], "only_failed": False}
    settled.ask("/dags/comparison_report/clearTaskInstances", again)
    assert settled.end(run, 300) == ("success", {"write": "success"})


def days_ago_ms(days: int) -> str:
    """Return SQL for a time in the past, in epoch ms."""
    return f"(extract(epoch FROM now()) * 1000 - {days * 86_400_000})"


def test_old_rows_go_and_new_ones_stay(lab: Lab, settled: Airflow) -> None:
    before = int(lab.sql("SELECT count(*) FROM crypto_prices_flink")[0][0])
    # Of offsets that the topic does not have, so that an audit at the same time leaves them alone.
    for table in ("crypto_prices_realtime", "crypto_prices_flink"):
        lab.sql(
            f"INSERT INTO {table}"
            " SELECT 'BTC-USD', 1, 'synthetic', at, gen_random_uuid(), at * 1000, 0, 1::bigint << 40"
            f" FROM (SELECT {days_ago_ms(40)}::bigint + n AS at FROM generate_series(1, 50) AS n) AS old"
        )
    settled.green("retention", "expire")
    old = f"WHERE timestamp < {days_ago_ms(30)}"
    for table in ("crypto_prices_realtime", "crypto_prices_flink"):
        assert lab.sql(f"SELECT count(*) FROM {table} {old}") == [["0"]]
    assert int(lab.sql("SELECT count(*) FROM crypto_prices_flink")[0][0]) >= before


def test_retention_is_red_where_a_table_is_locked(lab: Lab, settled: Airflow) -> None:
    host = lab.one("postgres")
    sql = "LOCK TABLE data_quality_results IN SHARE MODE; SELECT pg_sleep(120)"
    unit = "--collect --unit=lab-test-lock --setenv=PGAPPNAME=lab-test-lock"
    host.check_output(f"sudo systemd-run --quiet {unit} psql -U postgres -d crypto_db -c '{sql}'")
    try:
        said = settled.red("retention", "expire")
        assert "data_quality_results: locked by somebody else" in said
    finally:
        # A server process sleeps on, with its lock, when its client has gone.
        lab.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lab-test-lock'")
    settled.green("retention", "expire")


def test_role_of_the_dags_may_delete_nothing_itself(lab: Lab, airflow: Airflow) -> None:
    assert airflow.token
    host = lab.one("postgres")
    for statement in (
        "DELETE FROM crypto_prices_flink",
        "TRUNCATE candles_1m_spark",
        "DELETE FROM data_quality_results",
    ):
        done = host.run(f'psql -U postgres -d crypto_db -c "SET ROLE airflow_dags; {statement}"')
        assert "permission denied" in done.stderr


def test_secrets_are_airflows_alone(lab: Lab, airflow: Airflow) -> None:
    host = lab.host(airflow.node)
    for path, mode in (
        ("/etc/airflow/secrets/database-url", "640 root airflow"),
        ("/etc/airflow/secrets/connections.json", "640 root airflow"),
        ("/var/lib/airflow/passwords.json", "600 airflow airflow"),
        ("/var/lib/airflow/ssh/id_ed25519", "600 airflow airflow"),
    ):
        assert host.check_output(f"sudo stat -c '%a %U %G' {path}") == mode
        assert host.run(f"cat {path}").rc != 0
    shown = host.check_output("ps -eo args; sudo journalctl -o cat --no-pager -u 'airflow-*'")
    for secret in (lab.context.lab_dir / "secrets").iterdir():
        assert secret.read_text().strip() not in shown, secret.name


KEY = "sudo -u airflow ssh -F none -T -i /var/lib/airflow/ssh/id_ed25519 -o BatchMode=yes"
SSH = f"{KEY} -o StrictHostKeyChecking=yes -o UserKnownHostsFile=/var/lib/airflow/ssh/known_hosts"


@pytest.mark.parametrize("command", ["id", "restart ssh", "restart spark-job; id", ""])
def test_key_of_airflow_opens_no_shell(lab: Lab, airflow: Airflow, command: str) -> None:
    node = lab.group("submitter")[0]
    done = lab.host(airflow.node).run(f"{SSH} lab-restart@{node} '{command}' < /dev/null")
    assert done.rc == 64, done.stderr
    assert "lab-restart takes: restart spark-job, restart flink-job" in done.stderr
    assert "uid=" not in done.stdout


def test_key_of_airflow_is_refused_where_it_has_nothing_to_do(lab: Lab, airflow: Airflow) -> None:
    # Airflow does not know that node's host key, by which it would be turned away before its own key is looked at.
    anywhere = f"{KEY} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    # testinfra takes 255 for a failure of its own connection.
    done = lab.host(airflow.node).run(f"{anywhere} lab-restart@{lab.group('postgres')[0]} id < /dev/null; echo $?")
    assert done.stdout.split() == ["255"]
    assert "Permission denied" in done.stderr


@contextlib.contextmanager
def stopped(lab: Lab, group: str, unit: str) -> Iterator[None]:
    """Stop a unit while the context lasts."""
    host = lab.one(group)
    host.check_output(f"sudo systemctl stop {unit}")
    try:
        yield
    finally:
        host.check_output(f"sudo systemctl start {unit}")


@pytest.mark.disruptive
def test_quality_is_red_while_an_engine_stands_still(lab: Lab, settled: Airflow) -> None:
    with stopped(lab, "submitter", "spark-job"):
        time.sleep(45 * lab.patience)
        said = settled.red("data_quality", "judge", freshness_s=40)
    assert "freshness_s of spark: " in said
    assert "limit 40" in said
    assert "freshness_s of flink" not in said
    settled.green("data_quality", "judge", timeout_s=600)


@pytest.mark.disruptive
@pytest.mark.parametrize(
    ("service", "units"),
    [
        ("producer", {("producer", "producer")}),
        ("spark", {("submitter", "spark-job")}),
        (
            "flink",
            {
                ("flink_jobmanager", "flink-jobmanager"),
                ("flink_taskmanager", "flink-taskmanager"),
                ("submitter", "flink-job"),
            },
        ),
    ],
)  # fmt: skip
def test_service_is_restarted_and_rows_flow_again(
    lab: Lab, settled: Airflow, service: str, units: set[tuple[str, str]]
) -> None:
    before = lab.started()
    assert settled.run("pipeline_restart", timeout_s=900, service=service) == (
        "success", {"restart_service": "success", "wait_for_rows": "success"},
    )  # fmt: skip
    wanted = {(node, unit) for group, unit in units for node in lab.group(group)}
    assert restarted(before, lab.started()) == wanted
    lab.assert_all_accounted_for()


@pytest.mark.disruptive
def test_restart_is_red_where_the_node_refuses(lab: Lab, settled: Airflow) -> None:
    host = lab.one("submitter")
    keys = "/var/lib/lab-restart/.ssh/authorized_keys"
    host.check_output(f"sudo mv {keys} {keys}.away")
    try:
        said = settled.red("pipeline_restart", "restart_service", service="spark")
        assert "spark-job on " in said
        assert "Permission denied" in said
    finally:
        host.check_output(f"sudo mv {keys}.away {keys}")
    assert settled.run("pipeline_restart", timeout_s=900, service="spark")[0] == "success"
