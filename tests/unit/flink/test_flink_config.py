from __future__ import annotations

from pathlib import Path

import pytest
from crypto_flink import supervisor
from crypto_flink.config import ConfigError, load_config
from crypto_flink.fingerprint import fingerprint
from hypothesis import given
from hypothesis import strategies as st

VALID = """
[kafka]
bootstrap_servers = "kafka-1:9092,kafka-2:9092"
topic = "crypto_prices"
[postgres]
host = "postgres-1"
database = "crypto_db"
user = "flink_writer"
password_file = "{directory}/password"
[tables]
prices = "crypto_prices_flink"
candles = "candles_1m_flink"
rejected = "rejected_messages"
[events]
symbols = ["BTC-USD"]
[job]
name = "crypto-prices-flink"
checkpoint_dir = "/srv/lab-state/flink/checkpoints"
[flink]
rest_url = "http://flink-jobmanager-1:8081"
jars_dir = "{directory}"
functions_jar = "{directory}/functions.jar"
"""


def write(directory: Path, text: str = VALID) -> Path:
    path = directory / "config.toml"
    path.write_text(text.replace("{directory}", str(directory)))
    (directory / "password").write_text("s3cret\n")
    (directory / "functions.jar").write_bytes(b"jar")
    return path


def test_defaults_are_the_contracts(tmp_path: Path) -> None:
    config = load_config(write(tmp_path))
    assert config.kafka.starting_offsets == "earliest"
    assert config.events.max_event_bytes == 65536
    assert (config.candles.window_s, config.candles.watermark_delay_s) == (60, 120)
    assert (config.job.parallelism, config.job.checkpoint_interval_ms) == (3, 15000)
    assert config.savepoint_dir == Path("/srv/lab-state/flink/savepoints")
    assert config.state_dir == Path("/srv/lab-state/flink/supervisor")
    assert config.password() == "s3cret"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('topic = "crypto_prices"', "", "kafka.topic: missing"),
        ('topic = "crypto_prices"', 'topic = "a b"', "kafka.topic"),
        ('topic = "crypto_prices"', 'topics = "crypto_prices"', "kafka.topics: no such key"),
        ("kafka-1:9092,kafka-2:9092", "kafka-1", "kafka.bootstrap_servers"),
        ("kafka-1:9092,kafka-2:9092", "kafka-1:9092' , 'x' = '", "kafka.bootstrap_servers"),
        ('host = "postgres-1"', 'host = "postgres-1"\nport = 99999', "postgres.port"),
        ('host = "postgres-1"', 'host = "a/b?password=x"', "postgres.host"),
        ("crypto_prices_flink", 'x\\" (a) --', "tables.prices"),
        ('symbols = ["BTC-USD"]', "symbols = []", "events.symbols"),
        ("/srv/lab-state/flink/checkpoints", "relative/path", "job.checkpoint_dir"),
        ("http://flink-jobmanager-1:8081", "ftp://x", "flink.rest_url"),
        ("[flink]", "[flink]\nsink_flush_interval_ms = 0", "flink.sink_flush_interval_ms"),
        ("[flink]", "[flink]\non_incompatible_checkpoint = 'ignore'", "flink.on_incompatible_checkpoint"),
        ("[flink]", "[[flink]", "not valid TOML"),
        ("[tables]", "[table]", "tables: missing"),
    ],
)
def test_a_bad_file_gives_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, said: str
) -> None:
    assert old in VALID
    path = write(tmp_path, VALID.replace(old, new))
    assert supervisor.main(["--config", str(path), "check"]) == 2
    message = capsys.readouterr().err
    assert str(path) in message
    assert said in message
    assert "Traceback" not in message
    assert len(message.splitlines()) == 1


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, VALID.replace('"postgres-1"', "7").replace('topic = "crypto_prices"', ""))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert "kafka.topic" in str(caught.value)
    assert "postgres.host" in str(caught.value)


def test_a_missing_file_and_a_missing_password_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        load_config(tmp_path / "nowhere.toml")
    config = load_config(write(tmp_path))
    (tmp_path / "password").write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        config.password()
    (tmp_path / "password").unlink()
    with pytest.raises(ConfigError, match=r"postgres\.password_file: cannot read"):
        config.password()


@given(st.text(max_size=300))
def test_no_text_makes_the_loader_fail_otherwise(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("any") / "config.toml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(ConfigError, match=r"config\.toml"):
        load_config(path)


def test_check_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, VALID.replace("/srv/lab-state", str(tmp_path)))
    (tmp_path / "connector.jar").touch()
    assert supervisor.main(["--config", str(path), "check"]) == 1
    assert "mount the shared directory" in capsys.readouterr().err
    state = tmp_path / "flink" / "supervisor"
    state.mkdir(parents=True)
    assert supervisor.main(["--config", str(path), "check"]) == 0
    assert not list(state.iterdir())


def test_the_fingerprint_follows_the_job_and_nothing_else(tmp_path: Path) -> None:
    def digest(text: str = VALID) -> str:
        return fingerprint(load_config(write(tmp_path, text)))

    original = digest()
    assert digest() == original
    assert digest(VALID.replace("[flink]", "[flink]\npoll_interval_ms = 500")) == original
    assert digest(VALID + "\n[metrics]\nport = 9999\n") == original
    assert digest(VALID.replace("[flink]", "[flink]\nsink_flush_interval_ms = 5")) != original
    assert digest(VALID.replace("BTC-USD", "ETH-USD")) != original
    config = load_config(write(tmp_path))
    (tmp_path / "functions.jar").write_bytes(b"another jar")
    assert fingerprint(config) != original
    write(tmp_path)
    (tmp_path / "password").write_text("rotated")
    assert fingerprint(config) != original
    (tmp_path / "functions.jar").unlink()
    with pytest.raises(ConfigError, match=r"flink\.functions_jar"):
        fingerprint(config)
