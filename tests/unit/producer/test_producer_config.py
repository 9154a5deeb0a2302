"""A wrong configuration gives one readable message and exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest
from crypto_producer.cli import main
from crypto_producer.config import EVENT_ID_NAMESPACE, SYMBOLS, ConfigError, load_config

MINIMAL = '[kafka]\nbootstrap_servers = ["127.0.0.1:9092"]\n[spool]\ndir = "spool"\n'


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "producer.toml"
    path.write_text(text)
    return path


def test_defaults_are_the_seeds(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL))
    assert config.source.kind == "coinbase_rest"
    assert config.source.coinbase_rest.base_url == "https://api.coinbase.com"
    assert config.source.coinbase_rest.interval_s == 10
    assert tuple(config.symbols) == SYMBOLS
    assert config.kafka.topic == "crypto_prices"
    assert config.spool.when_full == "block"
    assert (config.metrics.host, config.metrics.port) == ("127.0.0.1", 9108)


def test_symbols_and_namespace_are_the_contracts() -> None:
    contract = (Path(__file__).parents[3] / "ansible/playbooks/group_vars/all/contract.yml").read_text()
    assert f"contract_symbols: [{', '.join(SYMBOLS)}]" in contract
    assert f"contract_event_id_namespace: {EVENT_ID_NAMESPACE}" in contract


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MINIMAL + "colour = 1\n", "spool.colour: there is no such key"),
        ('[spool]\ndir = "x"\n', "kafka: is missing"),
        (MINIMAL.replace('"127.0.0.1:9092"', ""), "kafka.bootstrap_servers"),
        (MINIMAL.replace(":9092", ""), "kafka.bootstrap_servers.0: must be host:port"),
        (MINIMAL + 'when_full = "explode"\n', "spool.when_full"),
        (MINIMAL + '[source]\nkind = "tape"\n', "[source.tape]"),
        (MINIMAL + '[source.coinbase_ws]\nws_url = "https://x"\n', "source.coinbase_ws.ws_url: must be a URL"),
        ('symbols = ["BTC-USD", "BTC-USD"]\n' + MINIMAL, "each symbol may be named once"),
        (MINIMAL + "[source.coinbase_rest]\ninterval_s = 0\n", "source.coinbase_rest.interval_s"),
        ("this is no TOML", "is not valid TOML"),
    ],
)
def test_a_wrong_file_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, expected: str
) -> None:
    path = write(tmp_path, text)
    assert main(["check", "--config", str(path)]) == 2
    message = capsys.readouterr().err
    assert expected in message
    assert str(path) in message
    assert "Traceback" not in message


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, MINIMAL + "max_events = 1\ncolour = 1\n[metrics]\nport = 70000\n"))
    assert str(caught.value).count("\n") == 3


def test_a_missing_file_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--config", str(tmp_path / "none.toml")]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_a_right_file_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--config", str(write(tmp_path, MINIMAL))]) == 0
    assert "valid" in capsys.readouterr().out


def test_ledger_of_no_spool_fails_readably(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, MINIMAL.replace('"spool"', f'"{tmp_path / "none"}"'))
    assert main(["ledger", "--config", str(path)]) == 1
    assert "there is no spool yet" in capsys.readouterr().err


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert "coinbase_ws" in text
    assert "exit codes" in text
