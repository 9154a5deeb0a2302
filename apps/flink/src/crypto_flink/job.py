"""The streaming job: Kafka to PostgreSQL, built here and run without Python on the cluster.

    Kafka source -> PARSE_EVENT -> DataStream of parsed records -+-> SQL: prices   -> PostgreSQL, first row wins
                                                                +-> SQL: rejected -> PostgreSQL, first row wins
                                                                +-> SQL: candles  -> PostgreSQL, first row wins
                                                                +-> SQL: log lines -> stdout of one task manager

The DataStream in the middle is what the branches share: without it the planner would read the topic once for each.
"""

# ruff: noqa: ANN401, PLC0415, SLF001 - PyFlink hides its Java objects, and a job without Python workers needs them;
# it is imported late, because it reads its environment, and starts a JVM, when it is first used.

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crypto_flink import transform
from crypto_flink.config import Config, ConfigError
from crypto_flink.decision import TOPIC_CHANGED
from crypto_flink.functions import event_rules, register_functions
from crypto_flink.state import StateStore

if TYPE_CHECKING:
    from pyflink.datastream import StreamExecutionEnvironment
    from pyflink.table import StreamTableEnvironment


def connector_jars(config: Config) -> list[Path]:
    """Return the connectors' jars, which cluster and client both have.

    Raises:
        ConfigError: the directory holds none.
    """
    jars = sorted(config.flink.jars_dir.glob("*.jar"))
    if not jars:
        raise ConfigError(f"flink.jars_dir: no jar in {config.flink.jars_dir}; give the directory of the connectors")
    return jars


def client_environment(config: Config) -> dict[str, str]:
    """Return the environment variables that make PyFlink start its JVM with the right class path and logging."""
    logging = Path(__file__).with_name("log4j2-client.properties")
    environment = {
        # The one variable by which jars get onto PyFlink's class path; Hadoop has no part in it.
        "HADOOP_CLASSPATH": os.pathsep.join(str(jar) for jar in [*connector_jars(config), config.flink.functions_jar]),
        "JVM_ARGS": f"-Xmx{config.flink.client_heap_mib}m -XX:+UseSerialGC",
        "LOG4J_PROPERTIES": str(logging),
        "FLINK_ENV_JAVA_OPTS": _JAVA_OPTIONS,
    }
    if config.flink.home is not None:
        environment["FLINK_HOME"] = str(config.flink.home)
        # A node's own configuration is the cluster's; the client takes everything from this job's settings.
        environment["FLINK_CONF_DIR"] = str(config.flink.home / "conf")
    return environment


# What Java 17 has to open for Flink's client; given here, they depend on no configuration file.
_JAVA_OPTIONS = " ".join(
    f"--add-opens=java.base/java.{package}=ALL-UNNAMED"
    for package in ("lang", "net", "io", "nio", "lang.reflect", "text", "time", "util", "util.concurrent")
)


def jdbc_url(config: Config) -> str:
    """Return the URL; an insert of many rows is sent as one statement."""
    host = config.postgres.host
    return (
        f"jdbc:postgresql://{host}:{config.postgres.port}/{config.postgres.database}"
        "?reWriteBatchedInserts=true&stringtype=unspecified&ApplicationName=crypto-flink&tcpKeepAlive=true"
    )


def settings(config: Config, *, restore_from: str | None = None, job_id: str | None = None) -> dict[str, str]:
    """Return Flink's settings of the job.

    Args:
        config: the configuration
        restore_from: path of the checkpoint or savepoint to start from
        job_id: 32 hexadecimal digits; a cluster refuses a second job of the same id
    """
    host, port = config.flink.rest_url.removeprefix("http://").rsplit(":", 1)
    flink = config.flink
    result = {
        "execution.target": "remote",
        "execution.attached": "false",
        "rest.address": host,
        "rest.port": port,
        "pipeline.name": config.job.name,
        "pipeline.jars": config.flink.functions_jar.absolute().as_uri(),
        "parallelism.default": str(config.job.parallelism),
        "execution.buffer-timeout.interval": f"{flink.buffer_timeout_ms} ms",
        "execution.checkpointing.interval": f"{config.job.checkpoint_interval_ms} ms",
        "execution.checkpointing.mode": config.job.delivery_guarantee.upper(),
        "execution.checkpointing.dir": config.job.checkpoint_dir.as_uri(),
        "execution.checkpointing.savepoint-dir": config.savepoint_dir.as_uri(),
        "execution.checkpointing.storage": "filesystem",
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        "execution.checkpointing.num-retained": str(flink.checkpoints_retained),
        "execution.checkpointing.incremental": "true",
        # A database that is away for a while makes checkpoints time out; that must not count as the job's failure.
        "execution.checkpointing.tolerable-failed-checkpoints": "10",
        "execution.checkpointing.timeout": "2 min",
        "state.backend.type": flink.state_backend,
        "restart-strategy.type": "exponential-delay",
        "restart-strategy.exponential-delay.initial-backoff": f"{flink.restart_delay_initial_ms} ms",
        "restart-strategy.exponential-delay.max-backoff": f"{flink.restart_delay_max_ms} ms",
        "restart-strategy.exponential-delay.backoff-multiplier": "2.0",
        "restart-strategy.exponential-delay.reset-backoff-threshold": "1 min",
        "restart-strategy.exponential-delay.jitter-factor": "0.1",
        "table.local-time-zone": "UTC",
        # State is found again by uid: without this, by a hash of the plan.
        "table.exec.uid.generation": "ALWAYS",
        "table.exec.uid.format": "<id>_<transformation>",
    }
    if restore_from is not None:
        result["execution.state-recovery.path"] = restore_from
        # The job owns what it resumed from, and deletes it once its own checkpoints have replaced it.
        result["execution.state-recovery.claim-mode"] = "CLAIM"
    if job_id is not None:
        result["$internal.pipeline.job-id"] = job_id
    return result


def _records(config: Config, env: StreamExecutionEnvironment, rules: Any) -> Any:
    """Add the source, and return its Java DataStream of records."""
    from pyflink.java_gateway import get_gateway

    jvm = get_gateway().jvm
    source = jvm.cryptostream.flink.RecordSource
    return source.add(
        env._j_stream_execution_environment,
        config.kafka.bootstrap_servers,
        config.kafka.topic,
        config.job.name,
        config.kafka.starting_offsets == "earliest",
        config.flink.fetch_max_wait_ms,
        rules,
        config.candles.watermark_delay_s * 1000,
        config.flink.source_idle_timeout_ms,
        jvm.org.apache.flink.table.runtime.typeutils.InternalTypeInfo.of(source.rowType()),
    )


def _row_stream(table_env: StreamTableEnvironment, query: str) -> tuple[Any, Any]:
    """Translate a query to a Java DataStream of RowData, the planner's own rows, and its row type."""
    from pyflink.java_gateway import get_gateway

    table = table_env.sql_query(query)._j_table
    row_data = get_gateway().jvm.Class.forName("org.apache.flink.table.data.RowData")
    row_type = table.getResolvedSchema().toSourceRowDataType().bridgedTo(row_data)
    return table_env._j_tenv.toDataStream(table, row_type), row_type.getLogicalType()


def _write(config: Config, table_env: StreamTableEnvironment, query: str, name: str, table: str, key: str) -> None:
    """Write the rows of a query to a table; its state is found again by `name`."""
    from pyflink.java_gateway import get_gateway

    stream, row_type = _row_stream(table_env, query)
    sink = get_gateway().jvm.cryptostream.flink.FirstRowSink.create(
        jdbc_url(config),
        config.postgres.user,
        config.password(),
        table,
        key,
        row_type,
        config.flink.sink_flush_interval_ms,
        config.flink.sink_flush_max_rows,
        config.flink.sink_max_retries,
    )
    stream.sinkTo(sink).name(name).uid(f"{name}-sink")


def build(config: Config, env: StreamExecutionEnvironment) -> None:
    """Add the whole job to `env`."""
    from pyflink.java_gateway import get_gateway
    from pyflink.table import StreamTableEnvironment

    jvm = get_gateway().jvm
    table_env = StreamTableEnvironment.create(env)
    rules = event_rules(config.events.max_event_bytes, config.events.symbols)
    register_functions(table_env, rules)
    schemas = jvm.org.apache.flink.table.api.Schema
    # SQL lets a stream's watermarks through only where the table declares a rowtime.
    time = jvm.org.apache.flink.table.api.DataTypes.TIMESTAMP_LTZ(3)
    schema = schemas.newBuilder().columnByMetadata("record_time", time, "rowtime")
    schema = schema.watermark("record_time", "SOURCE_WATERMARK()").build()
    table_env._j_tenv.createTemporaryView("records", _records(config, env, rules), schema)

    parsed, _ = _row_stream(table_env, transform.parsed("records"))
    schema = schemas.newBuilder().watermark("event_time", "SOURCE_WATERMARK()").build()
    table_env._j_tenv.createTemporaryView("parsed", parsed, schema)

    tables = config.tables
    _write(config, table_env, transform.prices("parsed"), "prices", tables.prices, "event_id")
    _write(config, table_env, transform.rejected("parsed"), "rejected", tables.rejected,
           "engine, kafka_partition, kafka_offset, kafka_timestamp")  # fmt: skip
    candles = transform.candles("parsed", config.candles.window_s)
    _write(config, table_env, candles, "candles", tables.candles, "symbol, window_start")

    # Last, since SQL's uids are numbered in order: this switch must not rename the operators that have state.
    if config.events.log_events:
        lines = table_env.sql_query(transform.log_lines("parsed"))
        text = jvm.org.apache.flink.table.api.DataTypes.STRING()
        # One printer: with more, each line would start with the printer's number.
        stream = table_env._j_tenv.toDataStream(lines._j_table, text)
        stream.print().setParallelism(1).name("log").uid("log-sink")


class TopicChangedError(Exception):
    """The state to resume from was made of another topic."""


def _check_topic(config: Config, restore_from: str | None) -> None:
    """Compare the topic with the one that the state belongs to, and remember it.

    Flink by itself would go on at the old topic's offsets, and skip what the new one has before them.
    """
    from pyflink.java_gateway import get_gateway

    source = get_gateway().jvm.cryptostream.flink.RecordSource
    found = str(source.topicId(config.kafka.bootstrap_servers, config.kafka.topic))
    store = StateStore(config.state_dir, config.job.name)
    known = store.read().topic_id
    if restore_from is not None and known not in {None, found}:
        raise TopicChangedError(
            f"{restore_from} {TOPIC_CHANGED}: to one with id {known}, while {config.kafka.topic} has id {found};"
            " it was created anew, or another one is configured"
        )
    if known != found:
        store.update(lambda state: state.with_topic(found))


def submit(config: Config, *, restore_from: str | None = None, job_id: str | None = None, dry_run: bool = False) -> str:
    """Build the job and hand it to the cluster; return the job id, or the execution plan of a dry run.

    Raises:
        ConfigError: a file named in the configuration cannot be used.
        TopicChangedError: `restore_from` was made of another topic.
        StateError: the shared directory cannot be used.
        Exception: whatever Java threw.
    """
    os.environ.update(client_environment(config))
    from pyflink.common import Configuration
    from pyflink.datastream import StreamExecutionEnvironment
    from pyflink.java_gateway import get_gateway

    configuration = Configuration()
    for key, value in settings(config, restore_from=restore_from, job_id=job_id).items():
        configuration.set_string(key, value)
    # Not get_execution_environment(): outside of `flink run` that is always a local one, whatever the target says.
    environments = get_gateway().jvm.org.apache.flink.streaming.api.environment
    env = StreamExecutionEnvironment(environments.StreamExecutionEnvironment(configuration._j_configuration))
    build(config, env)
    if dry_run:
        return str(env.get_execution_plan())
    _check_topic(config, restore_from)
    return str(env.execute_async(config.job.name).get_job_id())
