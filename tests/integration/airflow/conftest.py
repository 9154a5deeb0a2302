"""Airflow with its metadata in the tests' PostgreSQL, and the lab's DAGs, configured as a node's are."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import secrets
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from services import REPOSITORY, KafkaServer, PostgresServer

sys.path.insert(0, str(Path(__file__).parent))

from airflow_pipeline import SYMBOLS, Pipeline

APP = REPOSITORY / "apps" / "airflow"
# Stands in for ssh: it writes down what it was asked, and fails where a file tells it to.
SSH = """#!/bin/sh
echo "$@" >> "{log}"
if [ -e "{log}.fails" ]; then echo 'Permission denied (publickey).' >&2; exit 255; fi
"""


@pytest.fixture(scope="session")
def topic(kafka: KafkaServer) -> str:
    return kafka.create_topic(f"prices-{uuid.uuid4().hex[:8]}")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a node has in /etc/airflow and /var/lib/airflow."""
    return tmp_path_factory.mktemp("airflow")


@pytest.fixture(scope="session")
def ssh_log(folder: Path) -> Path:
    log = folder / "ssh.log"
    program = folder / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(SSH.format(log=log))
    program.chmod(0o755)
    os.environ["PATH"] = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    return log


@pytest.fixture(scope="session")
def dags(postgres: PostgresServer, kafka: KafkaServer, topic: str, folder: Path) -> dict[str, Any]:
    """Migrate Airflow's database, and load the DAGs; returns them by name. Airflow reads its settings when imported."""
    password = secrets.token_hex(8)
    with contextlib.closing(psycopg2.connect(postgres.superuser_dsn)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute("CREATE ROLE airflow LOGIN PASSWORD %s", (password,))
        cursor.execute("CREATE DATABASE airflow OWNER airflow")
    (folder / "connections.json").write_text(json.dumps({"crypto_db": {
        "conn_type": "postgres", "host": postgres.host, "port": postgres.port, "schema": postgres.database,
        "login": "airflow_dags", "password": postgres.passwords["airflow_dags"],
    }}))  # fmt: skip
    (folder / "pipeline.toml").write_text(f"""
bootstrap_servers = ["{kafka.bootstrap_servers}"]
topic = "{topic}"
symbols = {json.dumps(SYMBOLS)}
[engines.spark]
prices = "crypto_prices_realtime"
candles = "candles_1m_spark"
[engines.flink]
prices = "crypto_prices_flink"
candles = "candles_1m_flink"
[report]
path = "{folder / "reports"}"
[retention]
batch_rows = 10
[restart]
rows_timeout_s = 5
[[restart.services.spark]]
node = "submitter-1"
unit = "spark-job"
""")
    os.environ.update({
        "AIRFLOW_HOME": str(folder),
        "CRYPTO_AIRFLOW_CONFIG": str(folder / "pipeline.toml"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(APP / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN":
            f"postgresql+psycopg2://airflow:{password}@{postgres.host}:{postgres.port}/airflow",
        "AIRFLOW__SECRETS__BACKEND": "airflow.secrets.local_filesystem.LocalFilesystemBackend",
        "AIRFLOW__SECRETS__BACKEND_KWARGS": json.dumps({"connections_file_path": str(folder / "connections.json")}),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    })  # fmt: skip
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, stdout=subprocess.DEVNULL)
    found: dict[str, Any] = {}
    for path in sorted((APP / "dags").glob("*.py")):
        # Under a name of its own: `retention` is a module of the package too.
        spec = importlib.util.spec_from_file_location(f"dag_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        from airflow.sdk import DAG

        maker = next(value for value in vars(module).values() if getattr(value, "__module__", "") == spec.name)
        dag = maker()
        assert isinstance(dag, DAG)
        found[dag.dag_id] = dag
    return found


@pytest.fixture
def pipeline(clean_database: Any, kafka: KafkaServer, topic: str) -> Iterator[Pipeline]:  # noqa: ANN401
    """A pipeline whose tables are empty."""
    made = Pipeline(clean_database, kafka, topic)
    yield made
    made.producer.close()


@pytest.fixture
def flowing(pipeline: Pipeline) -> Pipeline:
    """A pipeline that has run for a while, and in which nothing is wrong."""
    pipeline.events(1500, 900, 600, 300, 30, 1)
    for table in ("candles_1m_spark", "candles_1m_flink"):
        pipeline.candle(table, 1500)
        pipeline.candle(table, 1200)
    for age_s, number in ((900, 1), (600, 2), (300, 3)):
        pipeline.trade(number, age_s, symbol="BTC-USD")
    return pipeline
