"""The SparkSession, made from the configuration alone."""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path

from pyspark.sql import SparkSession

from crypto_spark.config import Settings
from crypto_spark.transform import REQUIRED_CONF

log = logging.getLogger(__name__)

_ROCKSDB = "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"

# Kept small for nodes with little memory, and for a process that runs for months: Spark remembers every job otherwise.
_SMALL_FOOTPRINT = {
    "spark.ui.retainedJobs": "100",
    "spark.ui.retainedStages": "100",
    "spark.ui.retainedTasks": "1000",
    "spark.sql.ui.retainedExecutions": "50",
    "spark.sql.streaming.ui.retainedProgressUpdates": "50",
    "spark.sql.streaming.ui.retainedQueries": "10",
    "spark.sql.streaming.numRecentProgressUpdates": "10",
    "spark.sql.streaming.minBatchesToRetain": "20",
    "spark.ui.showConsoleProgress": "false",
}

# For Prometheus: names of series that do not change with the application's id, and the executors' series too.
_METRICS = {"spark.metrics.namespace": "spark", "spark.ui.prometheus.enabled": "true"}


def session_conf(settings: Settings) -> dict[str, str]:
    """Return every Spark setting of this configuration. No secret is among them: Spark shows them in its UI."""
    spark = settings.spark
    conf = {
        **_SMALL_FOOTPRINT,
        **_METRICS,
        **REQUIRED_CONF,
        "spark.master": spark.master,
        "spark.app.name": settings.job.name,
        "spark.jars": ",".join(str(jar) for jar in settings.find_jars()),
        "spark.driver.memory": spark.driver_memory,
        "spark.driver.extraJavaOptions": "-Duser.timezone=UTC",
        "spark.driver.port": str(spark.driver_port),
        "spark.driver.blockManager.port": str(spark.driver_block_manager_port),
        "spark.executor.memory": spark.executor_memory,
        "spark.executor.extraJavaOptions": "-Duser.timezone=UTC",
        "spark.ui.port": str(spark.ui_port),
        "spark.local.dir": spark.local_dir,
        # Both queries get a fair share of the slots, so that candles cannot hold up prices.
        "spark.scheduler.mode": "FAIR",
        "spark.sql.shuffle.partitions": str(settings.job.parallelism),
    }
    optional = {
        "spark.driver.host": spark.driver_host,
        "spark.driver.bindAddress": spark.driver_bind_address,
        "spark.executor.cores": spark.executor_cores,
        "spark.cores.max": spark.max_cores,
    }
    conf |= {key: str(value) for key, value in optional.items() if value is not None}
    if spark.event_log_dir is not None:
        conf |= {"spark.eventLog.enabled": "true", "spark.eventLog.dir": spark.event_log_dir}
    if spark.state_store == "rocksdb":
        conf |= {
            "spark.sql.streaming.stateStore.providerClass": _ROCKSDB,
            "spark.sql.streaming.stateStore.rocksdb.changelogCheckpointing.enabled": "true",
            "spark.sql.streaming.stateStore.rocksdb.boundedMemoryUsage": "true",
            "spark.sql.streaming.stateStore.rocksdb.maxMemoryUsageMB": "256",
        }
    return conf | spark.conf


def create_session(settings: Settings) -> SparkSession:
    """Start the driver's JVM and connect to the cluster.

    Raises:
        ConfigError: a jar is missing.
    """
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    Path(settings.spark.local_dir).mkdir(parents=True, exist_ok=True)
    # All of it goes to spark-submit before the JVM starts, so that the driver's memory counts too.
    session = SparkSession.builder.config(map=session_conf(settings)).getOrCreate()
    session.sparkContext.setLogLevel("WARN")
    return session


def wait_for_slots(session: SparkSession, wanted: int, timeout_s: float) -> int:
    """Wait until the executors offer ``wanted`` task slots; return how many there are when they do, or in the end."""
    context = session.sparkContext._jsc.sc()  # noqa: SLF001 - not reachable from Python otherwise
    profile = context.resourceProfileManager().defaultResourceProfile()
    deadline = time.monotonic() + timeout_s
    while True:
        slots: int = context.maxNumConcurrentTasks(profile)
        if slots >= wanted or time.monotonic() >= deadline:
            return slots
        time.sleep(0.5)
