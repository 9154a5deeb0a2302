"""Tapes, configuration and command line of the replay."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from coinbase_replay.cli import build_timelines, main
from coinbase_replay.config import SYMBOLS, ConfigError, TimelineConfig, load_config
from coinbase_replay.generator import generate
from coinbase_replay.tape import TapeError, iso_time, load_tape, write_tape
from hypothesis import given
from hypothesis import strategies as st

RECORDING = Path(__file__).parents[4] / "shared" / "data" / "coinbase-exchange-ws-2026-07-07.ndjson"
MATCH = {
    "type": "match",
    "trade_id": 7,
    "side": "sell",
    "size": "0.5",
    "price": "63519.28",
    "product_id": "BTC-USD",
    "time": "2026-07-07T22:58:17.204117Z",
}


def write(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def test_a_tape_is_written_and_read_back(tmp_path: Path) -> None:
    tape = generate(3, 30, SYMBOLS)
    count = write_tape(tmp_path / "tape", tape, begin_us=1_000_000_000_000_000)
    again = load_tape(tmp_path / "tape")
    assert count == sum(len(trades) for trades in tape.products.values())
    begin = min(trades[0].offset_us for trades in tape.products.values())
    for product, trades in tape.products.items():
        assert [(t.offset_us - begin, t.price, t.size, t.side) for t in trades] == [
            (t.offset_us, t.price, t.size, t.side) for t in again.products[product]
        ]


def test_other_messages_and_empty_lines_are_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path / "tape", {"type": "subscriptions"}, "", {**MATCH, "type": "last_match"}, MATCH)
    assert len(load_tape(path).products["BTC-USD"]) == 1


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "Expecting"),
        ("[]", "no JSON object"),
        ({**MATCH, "trade_id": "7"}, "trade_id"),
        ({**MATCH, "price": 5}, "price"),
        ({**MATCH, "price": "0"}, "price"),
        ({**MATCH, "size": "-1"}, "size"),
        ({**MATCH, "side": ["buy"]}, "side"),
        ({**MATCH, "time": "then"}, "isoformat"),
        ({**MATCH, "time": "2026-07-07T22:58:17"}, "zone"),
        (MATCH, "came before"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: object, problem: str) -> None:
    path = write(tmp_path / "tape", MATCH, line)
    with pytest.raises(TapeError) as caught:
        load_tape(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert problem in str(caught.value)


def test_a_tape_without_trades_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TapeError, match="no `match`"):
        load_tape(write(tmp_path / "tape", {"type": "heartbeat"}))


@given(st.integers(0, 4_000_000_000_000_000))
def test_times_are_written_as_the_exchange_writes_them(time_us: int) -> None:
    text = iso_time(time_us)
    assert len(text) == 27
    assert text.endswith(f".{time_us % 1_000_000:06d}Z")


def test_products_that_the_tape_has_not_are_generated(tmp_path: Path) -> None:
    path = write(tmp_path / "tape", MATCH, {**MATCH, "trade_id": 8, "time": "2026-07-07T22:58:27Z"})
    lines = build_timelines(TimelineConfig(anchor=1_783_465_000, tape=path))
    assert tuple(lines) == SYMBOLS
    # 10 s of tape: two recorded trades a loop.
    assert lines["BTC-USD"].count(1_783_465_100_000_000 - 1) == 20
    assert lines["DOGE-USD"].count(1_783_465_100_000_000) > 0


@pytest.mark.skipif(not RECORDING.exists(), reason=f"no recording at {RECORDING.name}: it is not part of the project")
def test_the_real_recording_can_be_played() -> None:
    tape = load_tape(RECORDING)
    assert {product: len(trades) for product, trades in tape.products.items()} == {"BTC-USD": 344, "ETH-USD": 91}
    assert tape.duration_us == 60_000_000
    assert tuple(build_timelines(TimelineConfig(anchor=1_783_465_000, speed=20, tape=RECORDING))) == SYMBOLS


def test_a_wrong_configuration_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "replay.toml", "[timeline]\nanchor = 1783465000\nspeed = 0\ncolour = 1\n[server]\nport = 0")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    for part in (str(path), "timeline.speed", "timeline.colour: there is no such key", "server.port"):
        assert part in str(caught.value)
    assert main(["serve", "--config", str(path)]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_an_anchor_in_the_future_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "replay.toml", f"[timeline]\nanchor = {int(time.time()) + 3_600}")
    assert main(["serve", "--config", str(path)]) == 2
    assert "in the future" in capsys.readouterr().err


def test_generate_and_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        assert main(["generate", "--seed", "5", "--duration", "20", "--out", str(tmp_path / name)]) == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert main(["inspect", str(tmp_path / "one")]) == 0
    assert "DOGE-USD" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "none")]) == 1
    assert "cannot be read" in capsys.readouterr().err
