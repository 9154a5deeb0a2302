"""Every alert is explained, tested, and made of metrics that somebody shows."""

from __future__ import annotations

import re

import crypto_flink.metrics
import crypto_producer.metrics
import crypto_spark.metrics
import pytest
import yaml
from alert_rules import alerts, metrics, rules
from house_files import REPOSITORY, contract, lab

TROUBLESHOOTING = (REPOSITORY / "docs" / "troubleshooting.md").read_text()
OPERATIONS = (REPOSITORY / "docs" / "operations.md").read_text()
TESTS = REPOSITORY / "tests" / "unit" / "monitoring" / "alerts.yml"
ROLES = REPOSITORY / "ansible" / "roles"
ALERTS = alerts()
STEPS = ("**Look:**", "**Cause:**", "**Cure:**")

every_alert = pytest.mark.parametrize("alert", ALERTS)


def runbooks() -> dict[str, str]:
    """Return heading => text of the sections below `Alerts`."""
    chapter = TROUBLESHOOTING.partition("\n## Alerts\n")[2].partition("\n## ")[0]
    sections = re.split(r"^### (.+)$", chapter, flags=re.MULTILINE)[1:]
    return dict(zip(sections[::2], sections[1::2], strict=True))


def test_alerts_are_found() -> None:
    assert len(ALERTS) > 10
    assert len(ALERTS) == len([rule for rule in rules() if "alert" in rule]), "two alerts of one name"


@every_alert
def test_alert_says_what_is_wrong_and_what_to_do(alert: str) -> None:
    rule = ALERTS[alert]
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert all(rule["annotations"].values())
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}


@every_alert
def test_alert_has_its_runbook(alert: str) -> None:
    assert ALERTS[alert]["annotations"]["runbook"] == f"docs/troubleshooting.md#{alert.lower()}"
    text = runbooks().get(alert, "")
    assert [step for step in STEPS if step not in text] == []


def test_every_runbook_is_an_alerts() -> None:
    assert runbooks().keys() - ALERTS.keys() == set()


@every_alert
def test_alert_is_in_the_docs_list(alert: str) -> None:
    assert f"| [{alert}](troubleshooting.md#{alert.lower()}) |" in OPERATIONS


@every_alert
def test_alert_is_tested_both_ways(alert: str) -> None:
    names = [test["name"] for test in yaml.safe_load(TESTS.read_text())["tests"]]
    assert any(name.startswith(f"{alert} fires, ") for name in names)
    assert any(name.startswith(f"{alert} is quiet, ") for name in names)


def test_tests_do_what_their_names_say() -> None:
    for test in yaml.safe_load(TESTS.read_text())["tests"]:
        (query,) = test["promql_expr_test"]
        alert = test["name"].partition(" ")[0]
        assert f'alertname="{alert}", alertstate="firing"' in query["expr"]
        assert bool(query["exp_samples"]) == (" fires, " in test["name"]), test["name"]


def test_metrics_of_our_own_are_shown_by_somebody() -> None:
    """A rule about a metric that nobody has never fires."""
    shown = {rule["record"] for rule in rules() if "record" in rule}
    for registry in (crypto_spark.metrics.AppMetrics().registry, crypto_flink.metrics.Metrics().registry,
                     crypto_producer.metrics.Metrics().registry):  # fmt: skip
        for family in registry.collect():
            # A counter's samples have a suffix, and none before the first label.
            shown.add(f"{family.name}_total" if family.type == "counter" else family.name)
    shown |= set(
        re.findall(
            r'"(producer_spool_\w+)"', (ROLES.parents[1] / "apps/producer/src/crypto_producer/metrics.py").read_text()
        )
    )
    shown |= set(re.findall(r"name: (kafka_\w+)", (ROLES / "kafka/templates/jmx-exporter.yaml.j2").read_text()))
    questions = yaml.safe_load((ROLES / "prometheus_postgres_exporter/files/queries.yaml").read_text())
    shown |= {f"{name}_{column}" for name, spec in questions.items() for entry in spec["metrics"] for column in entry}
    used = {name for rule in rules() for name in metrics(rule["expr"])}
    ours = {name for name in used if name.startswith(("crypto_", "producer_", "kafka_")) or ":" in name}
    assert len(ours) > 10
    assert ours - shown == set()


def test_questions_are_those_of_the_schema() -> None:
    migrations = "\n".join(path.read_text() for path in (REPOSITORY / "apps" / "schema" / "migrations").glob("*.sql"))
    questions = yaml.safe_load((ROLES / "prometheus_postgres_exporter/files/queries.yaml").read_text())
    for name, spec in questions.items():
        view = re.findall(r"FROM (\w+)", spec["query"])[0]
        assert f"CREATE VIEW {view} AS" in migrations, name
        assert re.search(rf"GRANT SELECT ON [^;]*\b{view}\b[^;]* TO lab_monitor;", migrations), name
        for entry in spec["metrics"]:
            assert all(re.search(rf"\b{column}\b", spec["query"]) for column in entry)


def test_rules_are_about_the_contracts_topic_and_tables() -> None:
    text = " ".join(rule["expr"] for rule in rules())
    assert set(re.findall(r'topic="(\w+)"', text)) == {contract()["contract_topic"]}
    tables = contract()["contract_tables"]
    for pattern in re.findall(r'table=~?"([^"]+)"', text):
        matched = {engine for engine in ("spark", "flink") if re.fullmatch(pattern, tables[engine]["prices"])}
        assert matched == {"spark", "flink"} or pattern == tables["rejected"]


def test_every_target_is_at_a_port_of_the_contract() -> None:
    ports = {f"{{{{ contract_ports.{name} }}}}" for name in contract()["contract_ports"]}
    targets = lab()["prometheus_targets"]
    assert [target["job"] for target in targets if target["port"] not in ports] == []
    # Alerts ask for one job by its name.
    jobs = {match for rule in rules() for match in re.findall(r'\bjob="(\w+)"', rule["expr"])}
    assert jobs - {target["job"] for target in targets} == set()
