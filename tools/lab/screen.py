"""What people look at: the lab on one screen, a shell on a node, the tables, the topics, the audit."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ui
from context import Context, LabError

# group => the systemd units by which its nodes are judged
UNITS = {
    "kafka": ["kafka"],
    "postgres": ["postgresql@15-main"],
    "spark_master": ["spark-master"],
    "spark_worker": ["spark-worker"],
    "flink_jobmanager": ["flink-jobmanager"],
    "flink_taskmanager": ["flink-taskmanager"],
    "producer": ["producer", "coinbase-replay"],
    "submitter": ["spark-job", "flink-job"],
    "monitoring": ["prometheus", "dashboard", "kafka-ui"],
    "airflow": ["airflow-api-server", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer"],
}
# How long the engines of a lab under way may take to write what the topic holds: Spark writes every 15 seconds.
SETTLE_S = 60
# How long the audit itself may take to read topic and tables.
AUDIT_TIMEOUT_S = 600
# Older than that no engine's newest row is in a lab that is well.
STALE_S = 120
SYMBOLS = ["BTC-USD", "ETH-USD", "SOL-USD", "ADA-USD", "DOGE-USD"]
ENGINES = {"Spark": "crypto_prices_realtime", "Flink": "crypto_prices_flink"}


def inventory(context: Context) -> dict[str, Any]:
    """Return Terraform's inventory; LabError where there is no lab."""
    nodes: dict[str, Any] = {}
    # Before `make setup` there is no Terraform, and so no lab.
    with contextlib.suppress(FileNotFoundError):
        done = subprocess.run(
            ["terraform", f"-chdir={context.terraform_root}", "output", "-json", "ansible_inventory"],
            capture_output=True, text=True, check=False, env=context.environment,
        )  # fmt: skip
        nodes = json.loads(done.stdout) if done.returncode == 0 else {}
    if not nodes.get("_meta", {}).get("hostvars"):
        raise LabError(f"there is no lab '{context.lab}' here: make lab" + _suffix(context))
    return nodes


def patience(nodes: dict[str, Any]) -> int:
    """Return how many times longer than on bare metal things may take: more than 1 where CPUs are emulated."""
    return int(nodes.get("all", {}).get("vars", {}).get("lab_patience", 1))


def _suffix(context: Context) -> str:
    return "" if context.lab == "lab" else f" LAB={context.lab}"


def on_node(context: Context, node: str, command: str, timeout_s: float = 30) -> subprocess.CompletedProcess[str]:
    """Run a command on a node over SSH; exit code 255 means that the node was not reached."""
    try:
        return subprocess.run(
            ["ssh", "-F", str(context.ssh_config), "-o", "ConnectTimeout=5", "-o", "BatchMode=yes", node, command],
            capture_output=True, text=True, check=False, timeout=timeout_s, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess([], 255, "", f"no answer in {timeout_s:.0f} s")


def query(context: Context, sql: str, node: str | None = None) -> list[list[str]]:
    """Run SQL on the postgres node; returns rows of text. Raises LabError with psql's words."""
    node = node or inventory(context)["postgres"]["hosts"][0]
    quoted = sql.replace("'", "'\"'\"'")
    done = on_node(context, node, f"psql -X -U postgres -d crypto_db -At -F '|' -c '{quoted}'")
    if done.returncode != 0:
        raise LabError(f"{node}: psql: {done.stderr.strip()}")
    return [line.split("|") for line in done.stdout.splitlines()]


def newest_row_ages(context: Context) -> dict[str, float | None]:
    """Return for each engine the age in seconds of its newest row (by produced_at), or None without rows."""
    sql = " UNION ALL ".join(
        f"SELECT '{engine}', extract(epoch FROM now()) - max(produced_at) / 1e6 FROM {table}"
        for engine, table in ENGINES.items()
    )
    try:
        rows = query(context, sql)
    except LabError:
        return dict.fromkeys(ENGINES)
    return {engine: float(age) if age else None for engine, age in rows}


def optional_units(options: dict[str, str]) -> set[str]:
    """Return the units that a lab brought up with these options may be without."""
    found: set[str] = set()
    if options.get("monitoring") == "off":
        found.update(UNITS["monitoring"])
    if options.get("feed") != "replay":
        # It is there where Coinbase cannot be reached.
        found.add("coinbase-replay")
    return found


def service_states(context: Context, nodes: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return node => unit => state, as systemd has it; the unit `(node)` says why a node did not answer.

    An inactive unit is left out where the lab's options do without it.
    """
    optional = optional_units(context.options)
    wanted: dict[str, list[str]] = {
        node: [
            unit for group, units in UNITS.items() if node in nodes.get(group, {}).get("hosts", []) for unit in units
        ]
        for node in nodes["_meta"]["hostvars"]
    }

    def ask(node: str) -> dict[str, str]:
        units = wanted[node]
        done = on_node(context, node, "systemctl is-active " + " ".join(units) if units else "true")
        if done.returncode == 255:
            return {"(node)": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "not reached"}
        states = dict(zip(units, done.stdout.split(), strict=False))
        return {unit: state for unit, state in states.items() if not (unit in optional and state == "inactive")}

    with ThreadPoolExecutor(max_workers=8) as pool:
        return dict(zip(wanted, pool.map(ask, wanted), strict=True))


def served_pages(nodes: dict[str, Any], states: dict[str, dict[str, str]]) -> list[ui.Page]:
    """Return the web pages of what is a part of this lab."""
    return [page for page in ui.pages(nodes) if set(UNITS[page.group]) & states[page.node].keys()]


def flink_job_state(context: Context, nodes: dict[str, Any]) -> str:
    """Return the state of Flink's job by its REST API."""
    node = nodes["flink_jobmanager"]["hosts"][0]
    done = on_node(context, node, "curl -s --max-time 5 http://localhost:8081/jobs/overview")
    try:
        jobs = [job["state"] for job in json.loads(done.stdout)["jobs"] if job["name"] == "crypto-prices-flink"]
    except (ValueError, KeyError):
        return "no answer"
    active = [state for state in jobs if state not in {"FAILED", "CANCELED", "FINISHED"}]
    return ", ".join(active) or "no job"


def status(context: Context, ages: dict[str, float | None] | None = None) -> int:
    """Print the lab on one screen; returns 1 when something is not healthy, else 0."""
    nodes = inventory(context)
    with ThreadPoolExecutor(max_workers=8) as pool:
        states = pool.submit(service_states, context, nodes)
        job = pool.submit(flink_job_state, context, nodes)
        table = pool.submit(_prices, context)
        sent = pool.submit(_last_sent, context, nodes)
        fresh = pool.submit(newest_row_ages, context)
    ages = ages or fresh.result()
    healthy = True
    print(f"\nLab '{context.lab}': {len(nodes['_meta']['hostvars'])} nodes\n")
    for node, units in states.result().items():
        address = nodes["_meta"]["hostvars"][node]["ansible_host"]
        words = ", ".join(f"{unit} {state}" for unit, state in units.items())
        good = all(state == "active" for state in units.values())
        healthy &= good
        print(f"  {'ok ' if good else 'BAD'}  {node:<20} {address:<15} {words}")
    running = job.result() == "RUNNING"
    healthy &= running
    print(f"  {'ok ' if running else 'BAD'}  Flink job            crypto-prices-flink {job.result()}")
    print()
    for line in table.result():
        print(f"  {line}")
    for engine, age in ages.items():
        if age is None or age > STALE_S * patience(nodes):
            healthy = False
            print(f"  BAD  {engine}: " + ("no rows" if age is None else f"newest row is {age:.0f} s old"))
    print(f"\n  Producer: {sent.result()}")
    print(f"\nWeb pages (`make ui{_suffix(context)}` brings them to localhost):")
    for page in served_pages(nodes, states.result()):
        print(f"  {page.name:<18} http://{page.address}:{page.port}{ui.login(context, page)}")
    suffix = _suffix(context)
    print(
        "\nNext:\n"
        f"  make status{suffix}                  this screen\n"
        f"  make psql{suffix}                    SQL in crypto_db\n"
        f"  make topics{suffix}                  topics and offsets\n"
        f"  make ssh NODE={nodes['kafka']['hosts'][0]}{suffix}        a shell on a node\n"
        f"  make audit{suffix}                   producer = topic = rows, event by event\n"
        f"  make down{suffix}                    remove the nodes"
    )
    if not healthy:
        print("\nSomething is BAD above: docs/troubleshooting.md goes from symptom to cure.")
    return 0 if healthy else 1


def _prices(context: Context) -> list[str]:
    counts = " UNION ALL ".join(
        f"SELECT '{engine}', '', count(*)::text FROM {table}" for engine, table in ENGINES.items()
    )
    newest = " UNION ALL ".join(
        f"(SELECT DISTINCT ON (symbol) '{engine}', symbol, price || ' ' || \"user\" FROM {table} "
        "ORDER BY symbol, timestamp DESC)"
        for engine, table in ENGINES.items()
    )
    try:
        found = {(engine, symbol): text for engine, symbol, text in query(context, f"{counts} UNION ALL {newest}")}
    except LabError as error:
        return [f"BAD  {error}"]
    lines = [f"{'':<10}" + "".join(f"{engine:>24}" for engine in ENGINES)]
    lines.append(f"{'rows':<10}" + "".join(f"{found.get((engine, ''), '0'):>24}" for engine in ENGINES))
    lines += [
        f"{symbol:<10}" + "".join(f"{found.get((engine, symbol), '-'):>24}" for engine in ENGINES) for symbol in SYMBOLS
    ]
    return lines


def _last_sent(context: Context, nodes: dict[str, Any]) -> str:
    node = nodes["producer"]["hosts"][0]
    done = on_node(context, node, "sudo journalctl -u producer -n 200 -o cat --no-pager")
    lines = [line for line in done.stdout.splitlines() if "Successfully sent" in line]
    if lines:
        return lines[-1][lines[-1].index("Successfully sent") :]
    lines = done.stdout.strip().splitlines()
    return lines[-1] if lines else "nothing in its journal"


def ssh(context: Context, node: str, remote: list[str]) -> None:
    """Replace this process by an SSH session on a node."""
    known = sorted(inventory(context)["_meta"]["hostvars"])
    if node not in known:
        raise LabError(f"NODE={node} is not in this lab: {', '.join(known)}")
    os.execvp("ssh", ["ssh", "-F", str(context.ssh_config), node, *remote])


def psql(context: Context, sql: str) -> None:
    """Replace this process by psql on the postgres node."""
    node = inventory(context)["postgres"]["hosts"][0]
    command = ["psql", "-U", "postgres", "-d", "crypto_db"]
    if sql:
        quoted = sql.replace("'", "'\"'\"'")
        os.execvp("ssh", ["ssh", "-F", str(context.ssh_config), node, " ".join(command) + f" -c '{quoted}'"])
    os.execvp("ssh", ["ssh", "-t", "-F", str(context.ssh_config), node, " ".join(command)])


def topics(context: Context) -> None:
    """Print the topics, their newest offsets and the consumer groups."""
    node = inventory(context)["kafka"]["hosts"][0]
    for command in (
        "kafka-topics --bootstrap-server localhost:9092 --describe --exclude-internal",
        "kafka-get-offsets --bootstrap-server localhost:9092 --topic crypto_prices",
    ):
        done = on_node(context, node, command, timeout_s=60)
        if done.returncode != 0:
            raise LabError(f"{node}: {command}: {done.stderr.strip()}")
        print(done.stdout.rstrip())


def lab_audit(context: Context, nodes: dict[str, Any]) -> dict[str, Any]:
    """Return the report of `lab-audit`, which lets the engines of a lab under way catch up with the topic first."""
    node, settle_s = nodes["submitter"]["hosts"][0], SETTLE_S * patience(nodes)
    command = f"sudo lab-audit --json --settle-s {settle_s}"
    done = on_node(context, node, command, timeout_s=settle_s + AUDIT_TIMEOUT_S * patience(nodes))
    if done.returncode not in (0, 1):
        raise LabError(f"{node}: lab-audit: {done.stderr.strip()}")
    return dict(json.loads(done.stdout))


def audit(context: Context, attempts: int = 3) -> int:
    """Print producer's count, topic's count and rows of both tables, and what differs; returns 0 when all agree."""
    nodes = inventory(context)
    producer = nodes["producer"]["hosts"][0]
    report: dict[str, Any] = {}
    for attempt in range(attempts):
        before = _ledger(context, producer)
        report = lab_audit(context, nodes)
        after = _ledger(context, producer)
        # The producer goes on while the topic is read: its count is right if it lies within the two readings.
        report["producer"] = {
            "before": before["acknowledged"],
            "after": after["acknowledged"],
            "dropped": after["dropped"],
        }
        report["producer_agrees"] = (
            before["acknowledged"] <= report["topic"]["events"] <= after["accepted"] and after["dropped"] == 0
        )
        if report["ok"] and report["producer_agrees"]:
            break
        if attempt + 1 < attempts:
            time.sleep(5)
    print(render_audit(report))
    return 0 if report["ok"] and report["producer_agrees"] else 1


def _ledger(context: Context, node: str) -> dict[str, Any]:
    done = on_node(context, node, "sudo crypto-producer ledger --config /etc/producer/config.toml --json", timeout_s=60)
    if done.returncode != 0:
        raise LabError(f"{node}: crypto-producer ledger: {done.stderr.strip()}")
    return dict(json.loads(done.stdout))


def render_audit(report: dict[str, Any]) -> str:
    """Lay the audit out as a table with a verdict."""
    producer, topic = report["producer"], report["topic"]
    count = str(producer["before"])
    if producer["after"] != producer["before"]:
        count += f" .. {producer['after']} (still producing)"
    lines = [
        f"  producer          {count} events acknowledged, {producer['dropped']} dropped",
        f"  topic             {topic['events']} events, {topic['duplicates']} duplicates, "
        f"{topic['rejected']} malformed",
    ]
    for engine, found in report["engines"].items():
        lines.append(
            f"  {engine:<17} {found['rows']} rows up to the same offsets: {found['missing']} missing, "
            f"{found['unexpected']} unexpected, {found['duplicates']} duplicates, "
            f"{found['rejected']} rejects ({found['rejects_missing']} missing)"
        )
    lines.append(
        f"  candles           {report['candles']['compared']} compared, {report['candles']['different']} different, "
        f"{report['candles']['missing']} missing"
    )
    good = report["ok"] and report["producer_agrees"]
    lines.append("  producer = topic = rows in both tables" if good else "  NOT EQUAL")
    return "\n".join(lines)
