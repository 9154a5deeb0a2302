"""Both engines run on equal terms: the same settings, from the same variables, in the same words."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from crypto_flink.config import load_config as load_flink
from crypto_spark.config import load as load_spark
from house_files import REPOSITORY, contract, defaults, environment, lab, options, resolve

ROLE = {engine: REPOSITORY / "ansible" / "roles" / f"{engine}_job" for engine in ("spark", "flink")}
# What cannot be the same, since both run on one node and write tables of their own.
OWN = {
    "user", "install_path", "config_path", "work_path", "bundle", "name", "postgres_user", "postgres_password",
    "prices_table", "candles_table", "state_path", "metrics_port",
}  # fmt: skip
# What a comparison would be worthless without, and the one variable that says it.
EQUAL_TERMS = {
    "kafka_bootstrap_servers": "lab_kafka_bootstrap_servers",
    "topic": "contract_topic",
    "starting_offsets": "contract_starting_offsets",
    "postgres_host": "lab_postgres_host",
    "postgres_port": "contract_ports.postgres",
    "postgres_database": "contract_database",
    "rejected_table": "contract_tables.rejected",
    "symbols": "contract_symbols",
    "max_event_bytes": "contract_max_event_bytes",
    "candle_window_s": "contract_candle_window_s",
    "candle_watermark_delay_s": "contract_candle_watermark_delay_s",
    "parallelism": "contract_parallelism",
    "checkpoint_interval_ms": "contract_checkpoint_interval_ms",
}


def neutral(value: object, engine: str) -> str:
    """Return a text in which the engine's name is replaced."""
    return re.sub(engine, "ENGINE", str(value), flags=re.IGNORECASE)


def shared() -> set[str]:
    """Return the options that both roles have, without their prefixes."""
    found = [{name.removeprefix(f"{engine}_job_") for name in options(role)} for engine, role in ROLE.items()]
    return found[0] & found[1]


def test_terms_are_options_of_both() -> None:
    assert set(EQUAL_TERMS) - shared() == set()
    assert OWN - shared() == set()


@pytest.mark.parametrize("engine", ROLE)
@pytest.mark.parametrize(("key", "variable"), EQUAL_TERMS.items())
def test_equal_terms_come_from_one_variable(engine: str, key: str, variable: str) -> None:
    assert lab()[f"{engine}_job_{key}"] == f"{{{{ {variable} }}}}"


def test_what_is_set_for_one_is_set_for_the_other() -> None:
    settings = lab()
    spark, flink = (
        {key: neutral(settings[name], engine) for key in shared() if (name := f"{engine}_job_{key}") in settings}
        for engine in ROLE
    )
    assert spark == flink


def test_defaults_are_equal() -> None:
    spark, flink = (
        {key: defaults(role).get(f"{engine}_job_{key}") for key in shared() - OWN} for engine, role in ROLE.items()
    )
    assert spark == flink


def test_options_are_described_alike() -> None:
    for key in shared() - OWN:
        spark, flink = (options(role)[f"{engine}_job_{key}"] for engine, role in ROLE.items())
        assert {name: spark.get(name) for name in ("type", "elements", "choices", "default", "required")} == {
            name: flink.get(name) for name in ("type", "elements", "choices", "default", "required")
        }, key


def test_configuration_templates_share_their_sections() -> None:
    sections = {}
    for engine, role in ROLE.items():
        text = neutral((role / "templates" / "config.toml.j2").read_text(), engine)
        sections[engine] = {
            part.split("]")[0]: set(part.splitlines()[1:]) - {""} for part in re.split(r"^\[", text, flags=re.MULTILINE)
        }
    for name in ("kafka", "postgres", "tables", "events", "candles", "metrics"):
        assert sections["spark"][name] == sections["flink"][name], name
    # The job may have more of its own.
    assert sections["spark"]["job"] <= sections["flink"]["job"]


def test_cluster_of_flink_checkpoints_as_the_job_does() -> None:
    assert lab()["flink_checkpoint_interval_ms"] == "{{ contract_checkpoint_interval_ms }}"


def settings(engine: str) -> dict[str, Any]:
    """Return a role's variables as the lab sets them; what comes from the inventory or a secret is a placeholder."""
    role = ROLE[engine]
    variables = {
        **defaults(role), **{name: value for name, value in lab().items() if name.startswith(f"{engine}_job_")},
        **contract(), "lab_kafka_bootstrap_servers": "kafka-1:9092", "lab_postgres_host": "postgres-1",
        "lab_state_path": lab()["lab_state_path"], "inventory_hostname": "submitter-1", "ansible_managed": "managed",
        "groups": {
            "spark_master": ["spark-master-1"], "spark_worker": [], "flink_jobmanager": ["flink-jobmanager-1"],
            "flink_taskmanager": [],
        },
        "spark_worker_cores": 4, "flink_taskmanager_slots": 4,
        f"lab_password_{engine}_writer": "secret",
    }  # fmt: skip
    return resolve(variables)


@pytest.mark.parametrize("engine", ROLE)
def test_configuration_is_what_the_app_reads(engine: str, tmp_path: Path) -> None:
    values = settings(engine)
    text = environment().from_string((ROLE[engine] / "templates" / "config.toml.j2").read_text()).render(values)
    path = tmp_path / "config.toml"
    path.write_text(text)
    config: Any = load_spark(path) if engine == "spark" else load_flink(path)

    rules, tables = contract(), contract()["contract_tables"]
    assert config.kafka.topic == rules["contract_topic"]
    assert config.kafka.starting_offsets == rules["contract_starting_offsets"]
    assert config.postgres.port == rules["contract_ports"]["postgres"]
    assert config.postgres.database == rules["contract_database"]
    assert config.postgres.user == f"{engine}_writer"
    assert (config.tables.prices, config.tables.candles) == (tables[engine]["prices"], tables[engine]["candles"])
    assert config.tables.rejected == tables["rejected"]
    assert list(config.events.symbols) == rules["contract_symbols"]
    assert config.events.max_event_bytes == rules["contract_max_event_bytes"]
    assert config.candles.window_s == rules["contract_candle_window_s"]
    assert config.candles.watermark_delay_s == rules["contract_candle_watermark_delay_s"]
    assert config.job.parallelism == rules["contract_parallelism"]
    assert config.job.checkpoint_interval_ms == rules["contract_checkpoint_interval_ms"]
    assert "secret" not in text, "the password has a file of its own"


def test_both_configurations_agree(tmp_path: Path) -> None:
    assert tmp_path.is_dir()
    found = {}
    for engine, role in ROLE.items():
        text = environment().from_string((role / "templates" / "config.toml.j2").read_text()).render(settings(engine))
        found[engine] = tomllib.loads(text)
    for section in ("kafka", "events", "candles"):
        assert found["spark"][section] == found["flink"][section]
    for key in ("parallelism", "checkpoint_interval_ms"):
        assert found["spark"]["job"][key] == found["flink"]["job"][key]
    assert found["spark"]["metrics"]["port"] != found["flink"]["metrics"]["port"], "they share a node"
