"""Trades from a tape: a recording of feed messages, one JSON object per line."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from crypto_producer.config import TapeConfig
from crypto_producer.event import Cursor, MalformedMessageError, Trade, now_us, parse_trade, trade_event
from crypto_producer.sources.base import Context, SourceError, StoppedError

log = logging.getLogger(__name__)

_BATCH = 1_000
_MAX_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Tape:
    """The trades of a tape, each once and each product's ascending by id; `fingerprint` names its content."""

    trades: tuple[Trade, ...]
    fingerprint: str

    @property
    def duration_ms(self) -> int:
        """From the start of one loop to the start of the next: the span of time, and one mean distance."""
        span_ms = self.trades[-1].time_ms - self.trades[0].time_ms
        return span_ms + max(1, span_ms // max(1, len(self.trades) - 1))

    def id_spans(self) -> dict[str, int]:
        """Per product, by how much the trade ids of a loop are above those of the one before."""
        spans: dict[str, int] = {}
        for product in {trade.product_id for trade in self.trades}:
            ids = [trade.trade_id for trade in self.trades if trade.product_id == product]
            spans[product] = max(ids) - min(ids) + 1
        return spans


def load_tape(path: Path, symbols: list[str]) -> Tape:
    """Read the `match` and `last_match` messages of `symbols`. Raises SourceError with file and line."""
    digest = hashlib.sha256(",".join(sorted(symbols)).encode())
    trades: list[Trade] = []
    seen: set[tuple[str, int]] = set()
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                digest.update(line)
                trade = _parse_line(path, number, line)
                if trade is None or trade.product_id not in symbols:
                    continue
                if (trade.product_id, trade.trade_id) not in seen:
                    seen.add((trade.product_id, trade.trade_id))
                    trades.append(trade)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from error
    if not trades:
        raise SourceError(f"{path}: holds no trade of {', '.join(symbols)}")
    return Tape(_in_order(trades), digest.hexdigest()[:16])


def _in_order(recorded: list[Trade]) -> tuple[Trade, ...]:
    """Each product's trades ascending by id, in the places the recording has for that product."""
    by_product: dict[str, list[Trade]] = {}
    for trade in recorded:
        by_product.setdefault(trade.product_id, []).append(trade)
    ascending = {
        product: iter(sorted(trades, key=lambda trade: trade.trade_id)) for product, trades in by_product.items()
    }
    ordered: list[Trade] = []
    for place in recorded:
        trade = next(ascending[place.product_id])
        # Event time must not run backwards over the whole tape, or pacing would.
        time_ms = max(trade.time_ms, ordered[-1].time_ms) if ordered else trade.time_ms
        ordered.append(dataclasses.replace(trade, time_ms=time_ms))
    return tuple(ordered)


def _parse_line(path: Path, number: int, line: bytes) -> Trade | None:
    if not line.strip():
        return None
    try:
        message = json.loads(line)
        if not isinstance(message, dict):
            raise MalformedMessageError("is no JSON object")
        return parse_trade(message) if message.get("type") in {"match", "last_match"} else None
    except ValueError as error:
        raise SourceError(f"{path}:{number}: {error}") from error


class TapeSource:
    """Plays a tape at `speed` (0: as fast as it goes), once or for ever, from where it stopped before."""

    name = "tape"
    user = "replay"

    def __init__(self, config: TapeConfig, symbols: list[str]) -> None:
        self._config = config
        self._symbols = symbols

    def run(self, context: Context) -> None:
        """Play until stopped, or until the tape's end."""
        tape = load_tape(self._config.path, self._symbols)
        cursor_key = f"tape|{tape.fingerprint}"
        last = context.spool.cursor(cursor_key)
        position = 0 if last is None else last + 1
        context.connected(str(self._config.path))
        log.info("tape %s: %d trades, from number %d on", self._config.path, len(tape.trades), position)
        try:
            for batch in self._batches(context, tape, position):
                produced_at_us = now_us()
                context.intake.accept(
                    [
                        trade_event(context.namespace, self.user, trade, Cursor(cursor_key, number), produced_at_us)
                        for number, trade in batch
                    ]
                )
        except StoppedError:
            return
        if not context.stop.is_set():
            log.info("tape %s: the end is reached", self._config.path)

    def probe(self) -> str:
        """Read the tape."""
        tape = load_tape(self._config.path, self._symbols)
        return f"{self._config.path}: {len(tape.trades)} trades in {tape.duration_ms / 1_000:.1f} s"

    def _batches(self, context: Context, tape: Tape, position: int) -> Iterator[list[tuple[int, Trade]]]:
        """Trades with their number since the first loop's start, as they become due."""
        spans, speed = tape.id_spans(), self._config.speed
        begun_s, first_ms = time.time(), self._tape_ms(tape, position)
        while self._config.loop or position < len(tape.trades):
            context.progress.touch(self.name)
            batch: list[tuple[int, Trade]] = []
            wait_s = 0.0
            while len(batch) < _BATCH and (self._config.loop or position < len(tape.trades)):
                due_s = time.time()
                if speed > 0:
                    due_s = begun_s + (self._tape_ms(tape, position) - first_ms) / 1_000 / speed
                    wait_s = due_s - time.time()
                    if wait_s > 0:
                        break
                loop, index = divmod(position, len(tape.trades))
                trade = tape.trades[index]
                time_ms = int(due_s * 1_000) if self._config.rebase else self._tape_ms(tape, position)
                batch.append(
                    (
                        position,
                        dataclasses.replace(
                            trade, trade_id=trade.trade_id + loop * spans[trade.product_id], time_ms=time_ms
                        ),
                    )
                )
                position += 1
            if batch:
                yield batch
            if context.stop.wait(min(max(0.0, wait_s), _MAX_WAIT_S)):
                return

    @staticmethod
    def _tape_ms(tape: Tape, position: int) -> int:
        loop, index = divmod(position, len(tape.trades))
        return tape.trades[index].time_ms + loop * tape.duration_ms
