"""The configuration file, good and bad."""

from __future__ import annotations

from pathlib import Path

import pytest
from crypto_spark.__main__ import main
from crypto_spark.config import ConfigError, Settings, load
from crypto_spark.session import session_conf

GOOD = """
[kafka]
bootstrap_servers = "kafka-1:9092"
topic = "crypto_prices"
starting_offsets = "earliest"
[postgres]
host = "postgres-1"
port = 5432
database = "crypto_db"
user = "spark_writer"
password_file = "/etc/spark-job/postgres-password"
[tables]
prices = "crypto_prices_realtime"
candles = "candles_1m_spark"
rejected = "rejected_messages"
[events]
symbols = ["BTC-USD", "ETH-USD"]
max_event_bytes = 65536
log_events = true
[candles]
window_s = 60
watermark_delay_s = 120
[job]
name = "crypto-prices-spark"
parallelism = 3
checkpoint_dir = "/srv/lab-state/spark/checkpoints"
checkpoint_interval_ms = 15000
[metrics]
host = "127.0.0.1"
port = 9109
[spark]
master = "spark://spark-master-1:7077"
mode = "microbatch"
trigger_interval_ms = 15000
jars_dir = "/opt/spark/current/jars"
"""
JARS = (
    "spark-sql-kafka-0-10_2.13-4.2.0.jar",
    "spark-token-provider-kafka-0-10_2.13-4.2.0.jar",
    "kafka-clients-3.9.2.jar",
    "commons-pool2-2.13.1.jar",
    "postgresql-42.7.14.jar",
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def settings_from(config: Path, text: str) -> Settings:
    config.write_text(text)
    return load(config)


def test_good(config: Path) -> None:
    settings = settings_from(config, GOOD)
    assert settings.job.checkpoint_interval_ms == 15_000
    assert settings.spark.mode == "microbatch"
    assert "spark_writer" not in settings.postgres.jdbc_url


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("port = 5432", "prot = 5432", "postgres.prot: unknown key"),
        ('topic = "crypto_prices"', "", "kafka.topic: missing"),
        ("port = 5432", "port = 70000", "postgres.port: Input should be less than or equal to 65535, but it is 70000"),
        ("port = 5432", 'port = "5432"', "postgres.port: Input should be a valid integer, but it is '5432'"),
        (
            'mode = "microbatch"',
            'mode = "turbo"',
            "spark.mode: Input should be 'microbatch', 'continuous' or 'realtime'",
        ),
        ('prices = "crypto_prices_realtime"', 'prices = "x; drop table y"', "tables.prices: String should match"),
        ("window_s = 60", "window_s = 0", "candles.window_s: Input should be greater than 0"),
        ('symbols = ["BTC-USD", "ETH-USD"]', "symbols = []", "events.symbols: List should have at least 1 item"),
        ("[metrics]", "[metrix]", "metrix: unknown key"),
        ("window_s = 60", "window_s = ", "is no valid TOML"),
    ],
)
def test_bad_value(config: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, complaint: str) -> None:
    assert old in GOOD
    config.write_text(GOOD.replace(old, new, 1))
    assert main(["--config", str(config), "--check"]) == 2
    message = capsys.readouterr().err
    assert message.startswith(str(config))
    assert complaint in message
    assert message.count("\n") == 1


def test_all_complaints_at_once(config: Path) -> None:
    with pytest.raises(ConfigError) as error:
        settings_from(config, GOOD.replace("window_s = 60", "window_s = -1").replace("[metrics]", "[metrix]"))
    assert "candles.window_s" in str(error.value)
    assert "metrix" in str(error.value)


def test_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(tmp_path / "none.toml")]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_realtime_needs_long_batches(config: Path) -> None:
    text = GOOD.replace('mode = "microbatch"', 'mode = "realtime"')
    settings_from(config, text)
    with pytest.raises(ConfigError, match=r"job\.checkpoint_interval_ms is 4999, but spark.mode 'realtime' needs"):
        settings_from(config, text.replace("checkpoint_interval_ms = 15000", "checkpoint_interval_ms = 4999"))


@pytest.mark.parametrize(("content", "complaint"), [(None, "cannot read"), ("", "is empty"), (" \n", "is empty")])
def test_bad_password_file(config: Path, tmp_path: Path, content: str | None, complaint: str) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_text(content)
    settings = settings_from(config, GOOD.replace("/etc/spark-job/postgres-password", str(path)))
    with pytest.raises(ConfigError, match=f"postgres.password_file: .*{complaint}"):
        settings.postgres.read_password()


@pytest.fixture
def with_jars(tmp_path: Path) -> str:
    jars = tmp_path / "jars"
    jars.mkdir()
    for name in JARS:
        (jars / name).touch()
    return GOOD.replace("/opt/spark/current/jars", str(jars))


def test_jars(config: Path, tmp_path: Path, with_jars: str) -> None:
    settings = settings_from(config, with_jars)
    assert [jar.name for jar in settings.find_jars()] == list(JARS)
    (tmp_path / "jars" / "kafka-clients-4.0.0.jar").touch()
    with pytest.raises(
        ConfigError, match=r"exactly one kafka-clients-\*\.jar .* kafka-clients-3\.9\.2\.jar, kafka-clients-4"
    ):
        settings.find_jars()


def test_realtime_needs_the_writer(config: Path, tmp_path: Path, with_jars: str) -> None:
    settings = settings_from(config, with_jars.replace('mode = "microbatch"', 'mode = "realtime"'))
    with pytest.raises(ConfigError, match=r"exactly one crypto-spark-writer-\*\.jar is needed .* there is: none"):
        settings.find_jars()
    (tmp_path / "jars" / "crypto-spark-writer-1.0.0.jar").touch()
    assert settings.find_jars()[-1].name == "crypto-spark-writer-1.0.0.jar"


def test_session_conf(config: Path, tmp_path: Path, with_jars: str) -> None:
    password = tmp_path / "password"
    password.write_text("s3cr3t")
    text = with_jars.replace("/etc/spark-job/postgres-password", str(password)) + (
        'driver_host = "submitter-1"\nexecutor_cores = 3\nmax_cores = 4\n[spark.conf]\n"spark.ui.port" = "4050"\n'
    )
    conf = session_conf(settings_from(config, text))
    assert conf["spark.master"] == "spark://spark-master-1:7077"
    assert conf["spark.driver.host"] == "submitter-1"
    assert conf["spark.executor.cores"] == "3"
    assert conf["spark.cores.max"] == "4"
    assert conf["spark.sql.shuffle.partitions"] == "3"
    assert conf["spark.sql.session.timeZone"] == "UTC"
    assert conf["spark.ui.port"] == "4050", "spark.conf has the last word"
    assert "spark.driver.bindAddress" not in conf
    assert "s3cr3t" not in str(conf)
