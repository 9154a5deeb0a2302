"""contract.yml is the one place: what apps, roles, schema, tools and docs assume is what it says."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import coinbase_replay.config
import coinbase_replay.generator
import crypto_dashboard.config
import crypto_flink.config
import crypto_kafka_ui.config
import crypto_producer.config
import crypto_spark.config
import pytest
from house_files import GROUP_VARS, REPOSITORY, ROLES, contract, defaults, environment, lab, resolve, tracked

MIGRATIONS = "\n".join(
    path.read_text() for path in sorted((REPOSITORY / "apps" / "schema" / "migrations").glob("*.sql"))
)
DOCS = (REPOSITORY / "docs" / "contract.md").read_text()
PAGES = REPOSITORY / "terraform" / "modules" / "inventory" / "pages.json"
SCREEN = REPOSITORY / "tools" / "lab" / "screen.py"


def constant(path: Path, name: str) -> Any:
    """Return a literal that a Python file assigns at its top."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and any(
            isinstance(found, ast.Name) and found.id == name for found in node.targets
        ):
            return ast.literal_eval(node.value)
    pytest.fail(f"{path.name} has no constant {name}")


def test_contract_is_as_promised() -> None:
    rules = contract()
    assert rules["contract_topic"] == "crypto_prices"
    assert rules["contract_partitions"] == 3
    assert rules["contract_symbols"] == ["BTC-USD", "ETH-USD", "SOL-USD", "ADA-USD", "DOGE-USD"]
    assert rules["contract_database"] == "crypto_db"
    assert rules["contract_tables"]["spark"]["prices"] == "crypto_prices_realtime"
    assert rules["contract_tables"]["flink"]["prices"] == "crypto_prices_flink"
    ports = rules["contract_ports"]
    assert {name: ports[name] for name in ("kafka", "postgres", "spark_master_ui", "spark_application_ui")} == {
        "kafka": 9092, "postgres": 5432, "spark_master_ui": 8080, "spark_application_ui": 4040,
    }  # fmt: skip
    assert (ports["flink_ui"], ports["kafka_ui"], ports["airflow"]) == (8081, 8000, 8085)


def test_ports_are_distinct() -> None:
    """One node may carry every group (topology mini)."""
    ports = [*contract()["contract_ports"].values()]
    # 0 leaves the service out.
    ports += [value for role in ROLES for name, value in defaults(role).items()
              if name.endswith("_port") and isinstance(value, int) and value and name not in lab()]  # fmt: skip
    # The schema role and the jobs talk to a port of another.
    assert len(ports) == len(set(ports)), sorted(port for port in ports if ports.count(port) > 1)


def test_messages_that_are_too_large_still_reach_the_engines() -> None:
    assert contract()["contract_topic_max_message_bytes"] > contract()["contract_max_event_bytes"]


def test_symbols() -> None:
    symbols = contract()["contract_symbols"]
    assert list(crypto_producer.config.SYMBOLS) == symbols
    assert list(coinbase_replay.config.SYMBOLS) == symbols
    assert list(crypto_dashboard.config.SYMBOLS) == symbols
    assert list(coinbase_replay.generator._MARKETS) == symbols
    assert constant(SCREEN, "SYMBOLS") == symbols


def test_event_id_namespace() -> None:
    assert str(crypto_producer.config.EVENT_ID_NAMESPACE) == contract()["contract_event_id_namespace"]


def test_tables_are_those_of_the_schema() -> None:
    tables = contract()["contract_tables"]
    created = set(re.findall(r"CREATE (?:UNLOGGED )?TABLE (\w+)", MIGRATIONS))
    wanted = {tables["rejected"], *tables["spark"].values(), *tables["flink"].values()}
    assert wanted <= created
    for engine in ("spark", "flink"):
        grants = " ".join(re.findall(rf"GRANT ([^;]+) TO {engine}_writer;", MIGRATIONS))
        for table in (*tables[engine].values(), tables["rejected"]):
            assert table in grants, f"{engine}_writer may not write {table}"
        other = {"spark": "flink", "flink": "spark"}[engine]
        assert not any(re.search(rf"\b{table}\b", grants) for table in tables[other].values())
    staging = {name for name in created if "staging" in name}
    assert staging == {
        getattr(crypto_spark.config.Tables(), f"staging_{kind}") for kind in ("prices", "candles", "rejected")
    }


def test_tables_of_both_engines_are_alike() -> None:
    tables = contract()["contract_tables"]
    for kind in ("prices", "candles"):
        spark, flink = tables["spark"][kind], tables["flink"][kind]
        assert f"CREATE TABLE {flink} (LIKE {spark} INCLUDING ALL)" in MIGRATIONS


def test_tools_read_the_same_tables_and_ports() -> None:
    tables, ports = contract()["contract_tables"], contract()["contract_ports"]
    engines = {name.lower(): table for name, table in constant(SCREEN, "ENGINES").items()}
    assert engines == {engine: tables[engine]["prices"] for engine in ("spark", "flink")}
    pages = {(page["group"], page["port"]) for page in json.loads(PAGES.read_text())}
    assert {("spark_master", ports["spark_master_ui"]), ("submitter", ports["spark_application_ui"]),
            ("flink_jobmanager", ports["flink_ui"]), ("monitoring", ports["kafka_ui"])} <= pages  # fmt: skip


def test_audit_reads_the_same_tables() -> None:
    audit = REPOSITORY / "apps" / "compare" / "src" / "compare" / "audit.py"
    if not audit.is_file():
        pytest.fail("apps/compare has no audit")
    tables = contract()["contract_tables"]
    assert constant(audit, "ENGINES") == {
        engine: (tables[engine]["prices"], tables[engine]["candles"]) for engine in ("spark", "flink")
    }
    assert tables["rejected"] in audit.read_text()


def test_defaults_of_the_apps() -> None:
    rules, ports = contract(), contract()["contract_ports"]
    tables = crypto_spark.config.Tables()
    assert (tables.prices, tables.candles) == tuple(rules["contract_tables"]["spark"].values())
    assert tables.rejected == rules["contract_tables"]["rejected"]
    for module, events, candles, job in (
        (crypto_spark.config, "Events", "Candles", "Job"),
        (crypto_flink.config, "EventsConfig", "CandlesConfig", "JobConfig"),
    ):
        fields: Any = {name: getattr(module, name).model_fields for name in (events, candles, job)}
        assert fields[events]["max_event_bytes"].default == rules["contract_max_event_bytes"]
        assert fields[candles]["window_s"].default == rules["contract_candle_window_s"]
        assert fields[candles]["watermark_delay_s"].default == rules["contract_candle_watermark_delay_s"]
        assert fields[job]["parallelism"].default == rules["contract_parallelism"]
        assert fields[job]["checkpoint_interval_ms"].default == rules["contract_checkpoint_interval_ms"]
    assert crypto_producer.config.KafkaConfig.model_fields["topic"].default == rules["contract_topic"]
    assert crypto_producer.config.MetricsConfig().port == ports["producer_metrics"]
    assert coinbase_replay.config.ServerConfig().port == ports["replay"]
    assert crypto_dashboard.config.ServerConfig.model_fields["port"].default == ports["dashboard"]
    assert crypto_kafka_ui.config.ServerConfig().port == ports["kafka_ui"]
    assert crypto_dashboard.config.EnginesConfig().rejected == rules["contract_tables"]["rejected"]
    for engine in ("spark", "flink"):
        shown = getattr(crypto_dashboard.config.EnginesConfig(), engine)
        assert {"prices": shown.prices, "candles": shown.candles} == rules["contract_tables"][engine]
    assert crypto_spark.config.Spark.model_fields["ui_port"].default == ports["spark_application_ui"]


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_defaults_of_the_roles(role: Path) -> None:
    """A role used alone, in molecule say, behaves as it does in the lab."""
    rules = contract()
    for name, value in defaults(role).items():
        expression = re.fullmatch(r"\{\{ (contract_[\w.]+) \}\}", str(lab().get(name, "")))
        if expression:
            wanted: Any = rules
            for key in expression[1].split("."):
                wanted = wanted[key]
            assert value == wanted, name


def test_lab_sets_only_variables_that_roles_have() -> None:
    known = {name for role in ROLES for name in defaults(role)}
    known |= {name for role in ROLES for name in _options(role)}
    unknown = [name for name in lab() if not name.startswith("lab_") and name not in known]
    assert unknown == []


def _options(role: Path) -> set[str]:
    text = (role / "meta" / "argument_specs.yml").read_text()
    return set(re.findall(rf"^ +({role.name}_\w+):$", text, re.MULTILINE))


def test_every_contract_variable_is_used_and_every_used_one_exists() -> None:
    used = set()
    for path in tracked():
        if path.suffix in {".yml", ".j2"} and path != GROUP_VARS / "contract.yml" and "ansible" in path.parts:
            used |= set(re.findall(r"\b(contract_\w+)", path.read_text()))
    assert used - contract().keys() == set()
    assert contract().keys() - used == set()


def test_docs_say_the_same() -> None:
    rules = contract()
    for text in (
        f"`{rules['contract_topic']}`",
        f"{rules['contract_partitions']} partitions",
        f"{rules['contract_max_event_bytes']:,} bytes",
        f"window_start + {rules['contract_candle_window_s']} s",
        f"- {rules['contract_candle_watermark_delay_s']} s)",
        *(f"`{table}`" for engine in ("spark", "flink") for table in rules["contract_tables"][engine].values()),
        f"`{rules['contract_tables']['rejected']}`",
    ):
        assert text in DOCS, text


@pytest.mark.parametrize("source", get_args(crypto_producer.config.SourceKind))
def test_producers_configuration_is_what_the_app_reads(source: str, tmp_path: Path) -> None:
    role = next(role for role in ROLES if role.name == "producer")
    settings = {name: value for name, value in lab().items() if name.startswith(("producer_", "lab_replay"))}
    # What comes from the inventory, from the command line, or through filters of Ansible's.
    settings |= {"lab_source": source, "lab_uses_replay": False, "lab_tape": "", "lab_speed": 1}
    settings |= {"lab_state_path": "/srv/lab-state", "lab_kafka_bootstrap_servers": "kafka-1:9092,kafka-2:9092"}
    settings |= {"producer_kafka_bootstrap_servers": ["kafka-1:9092"], "producer_feed_url": "wss://feed.example"}
    values = resolve({**defaults(role), **settings, **contract(), "ansible_managed": "managed"})
    path = tmp_path / "config.toml"
    path.write_text(environment().from_string((role / "templates" / "config.toml.j2").read_text()).render(values))
    config = crypto_producer.config.load_config(path)
    assert config.source.kind == source
    assert list(config.symbols) == contract()["contract_symbols"]
    assert str(config.event_id_namespace) == contract()["contract_event_id_namespace"]
    assert config.kafka.topic == contract()["contract_topic"]


@pytest.mark.parametrize("tape", ["", "tape.ndjson"])
def test_replays_configuration_is_what_the_app_reads(tape: str, tmp_path: Path) -> None:
    role = next(role for role in ROLES if role.name == "coinbase_replay")
    values = {
        **defaults(role), "coinbase_replay_tape_file": tape, "ansible_managed": "managed",
        "__coinbase_replay_anchor": 1767225600,
    }  # fmt: skip
    path = tmp_path / "config.toml"
    path.write_text(environment().from_string((role / "templates" / "config.toml.j2").read_text()).render(values))
    assert ("tape" in tomllib.loads(path.read_text())["timeline"]) == bool(tape)
    assert coinbase_replay.config.load_config(path).server.port == contract()["contract_ports"]["replay"]


def test_dashboards_configuration_is_what_the_app_reads(tmp_path: Path) -> None:
    role = next(role for role in ROLES if role.name == "dashboard")
    values = {**defaults(role), "dashboard_postgres_host": "postgres-1", "ansible_managed": "managed",
              "dashboard_spark_nodes": ["spark-master-1"]}  # fmt: skip
    path = tmp_path / "config.toml"
    path.write_text(environment().from_string((role / "templates" / "config.toml.j2").read_text()).render(values))
    config = crypto_dashboard.config.load_config(path)
    assert config.symbols == contract()["contract_symbols"]
    assert config.topic == contract()["contract_topic"]
    assert config.server.port == contract()["contract_ports"]["dashboard"]
    assert config.engines.spark.nodes == ["spark-master-1"]


def test_kafka_pages_configuration_is_what_the_app_reads(tmp_path: Path) -> None:
    role = next(role for role in ROLES if role.name == "kafka_ui")
    values = {**defaults(role), "kafka_ui_kafka_bootstrap_servers": ["kafka-1:9092"], "ansible_managed": "managed"}
    path = tmp_path / "config.toml"
    path.write_text(environment().from_string((role / "templates" / "config.toml.j2").read_text()).render(values))
    config = crypto_kafka_ui.config.load_config(path)
    assert config.server.port == contract()["contract_ports"]["kafka_ui"]
    assert config.kafka.bootstrap_servers == ["kafka-1:9092"]
    # What the role says by default is what the app would do without.
    small = crypto_kafka_ui.config.Config(kafka=config.kafka, server=config.server)
    assert config == small
