"""The audit tells equal from unequal."""

from __future__ import annotations

import json
from typing import Any

from testinfra.host import Host

TOPIC = "--bootstrap-server lab-1:9092 --topic crypto_prices"


def audit(host: Host) -> tuple[int, dict[str, Any]]:
    """Run the audit; returns its exit code and its report."""
    with host.sudo():
        done = host.run("lab-audit --json")
    assert done.rc in {0, 1}, done.stderr
    return done.rc, json.loads(done.stdout)


def test_a_message_that_no_engine_stored_is_found(host: Host) -> None:
    before, report = audit(host)
    assert (before == 0) == (report["topic"]["rejected"] == 0)
    assert host.run(f"echo no-json | kafka-console-producer {TOPIC}").rc == 0
    code, after = audit(host)
    assert code == 1
    assert after["topic"]["rejected"] == report["topic"]["rejected"] + 1
    assert {name: found["rejects_missing"] for name, found in after["engines"].items()} == {
        "spark": after["topic"]["rejected"], "flink": after["topic"]["rejected"],
    }  # fmt: skip


def test_every_event_of_a_load_is_in_the_topic(host: Host) -> None:
    # Into a topic of its own: the audit's stays as the other test leaves it.
    config = host.check_output("sed 's/crypto_prices/loads/' /etc/compare/generator.toml")
    load = {"kind": "steady", "rate_per_s": 2000, "duration_s": 2}
    spec = {"tag": 5, "load": load, "lead_s": 1}
    with host.sudo():
        host.run_test(f"cat > /tmp/loads.toml <<'END'\n{config}\nEND")
        before = json.loads(host.check_output("lab-topic --config /tmp/loads.toml --tag 5 --events 4000"))
        sent = host.run(f"echo '{json.dumps(spec)}' | lab-generator --config /tmp/loads.toml")
        found = json.loads(host.check_output("lab-topic --config /tmp/loads.toml --tag 5 --events 4000"))
    assert sent.rc == 0, sent.stderr
    account = json.loads(sent.stdout.splitlines()[-1])
    assert (account["sent"], account["acknowledged"]) == (4000, 4000)
    assert found["messages"] == before["messages"] + 4000
    assert (found["missing"], found["foreign"]) == ([], 0)
    assert json.loads(host.check_output("lab-topic --config /tmp/loads.toml --partitions")) == [0, 1, 2]


def test_sampler_sees_the_units_work(host: Host) -> None:
    with host.sudo():
        lines = host.check_output("sleep 3 | lab-sampler kafka postgresql@15-main").splitlines()
    samples = [json.loads(line) for line in lines]
    assert {sample["unit"] for sample in samples} == {"kafka", "postgresql@15-main"}
    kafka = [sample for sample in samples if sample["unit"] == "kafka"]
    assert len(kafka) >= 2
    assert kafka[0]["cpu_us"] > 0
    assert kafka[0]["memory_bytes"] > 50 * 2**20
    assert [sample["cpu_us"] for sample in kafka] == sorted(sample["cpu_us"] for sample in kafka)


def test_ceiling_is_measured(host: Host) -> None:
    psql = "psql -X -q -v ON_ERROR_STOP=1 -U postgres -d crypto_db -c"
    request = {
        "host": "lab-1", "port": 5432, "database": "crypto_db", "user": "flink_writer", "password": "kept-from-logs",
        "table": "ceiling", "rows": 3000, "connections": 3,
    }  # fmt: skip
    with host.sudo():
        host.check_output(
            f"{psql} 'DROP TABLE IF EXISTS ceiling; CREATE TABLE ceiling (LIKE crypto_prices_flink INCLUDING ALL);"
            " GRANT INSERT ON ceiling TO flink_writer'"
        )
        found = json.loads(host.check_output(f"echo '{json.dumps(request)}' | lab-ceiling"))
        rows = host.check_output(f"{psql.replace('-c', '-At -c')} 'SELECT count(DISTINCT event_id) FROM ceiling'")
        host.check_output(f"{psql} 'DROP TABLE ceiling'")
    assert found["rows"] == int(rows) == 3000
    assert found["seconds"] > 0
