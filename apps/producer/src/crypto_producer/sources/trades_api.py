"""Past trades from the exchange's REST API, to fill gaps with."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from crypto_producer.event import MalformedMessageError, Trade, parse_trade
from crypto_producer.sequencer import Gap
from crypto_producer.sources.base import HttpClient, SourceError

log = logging.getLogger(__name__)

_PAGE_TRADES = 1_000


@dataclass(frozen=True, slots=True)
class Filling:
    """What became of a gap: `trades` ascending; `unfilled` of its ids were given up, because of `reason`."""

    gap: Gap
    trades: tuple[Trade, ...]
    unfilled: int
    reason: str


class TradesApi:
    """`GET /products/<id>/trades`, paged backwards with the `after` cursor."""

    def __init__(
        self,
        client: HttpClient,
        base_url: str,
        *,
        max_trades: int,
        timeout_s: float,
        wait: Callable[[float], object],
    ) -> None:
        self._client = client
        self._base_url = base_url
        self._max_trades = max_trades
        self._timeout_s = timeout_s
        self._wait = wait

    def fill(self, gap: Gap) -> Filling:
        """Fetch the trades of `gap`, the newest `max_trades` of them at most, for `timeout_s` at most.

        Raises StoppedError.
        """
        deadline_s = time.monotonic() + self._timeout_s
        low = max(gap.low, gap.high - self._max_trades + 1)
        found: dict[int, Trade] = {}
        reason = f"more than max_fill_trades = {self._max_trades} are missing" if low > gap.low else ""
        attempts = 0
        while len(found) < gap.high - low + 1:
            try:
                history_ends_at = self._collect(gap, low, found, deadline_s)
            except SourceError as error:
                reason = str(error)
                break
            missing = [trade_id for trade_id in range(low, gap.high + 1) if trade_id not in found]
            attempts += 1
            if not missing:
                break
            if history_ends_at is not None and missing[-1] < history_ends_at:
                reason = f"the exchange's history begins at trade {history_ends_at}"
                break
            if time.monotonic() > deadline_s or attempts > 5:
                reason = f"the exchange does not list {len(missing)} of them, the first is {missing[0]}"
                break
            # REST may lag behind the feed.
            self._wait(0.5 * attempts)
        trades = tuple(found[trade_id] for trade_id in sorted(found))
        return Filling(gap, trades, gap.size - len(trades), reason)

    def _collect(self, gap: Gap, low: int, found: dict[int, Trade], deadline_s: float) -> int | None:
        """One walk back from the gap's end. Returns the oldest id there is when history ends inside the gap."""
        url = f"{self._base_url}/products/{gap.product_id}/trades"
        # From the newest id still missing on: a repeated walk does not read again what is there.
        after = next((trade_id for trade_id in range(gap.high, low - 1, -1) if trade_id not in found), low) + 1
        while True:
            body, headers = self._client.get(url, deadline_s=deadline_s, params={"limit": _PAGE_TRADES, "after": after})
            if not isinstance(body, list):
                raise SourceError(f"{url}: the answer is no list: {body!r:.200}")
            if not body:
                return after
            page = _parse_page(body, gap.product_id)
            for trade in page:
                if low <= trade.trade_id <= gap.high:
                    found[trade.trade_id] = trade
            oldest = min(trade.trade_id for trade in page) if page else after
            cursor = headers.get("CB-AFTER")
            if oldest <= low:
                return None
            following = int(cursor) if cursor and cursor.isdigit() else oldest
            if following >= after:
                raise SourceError(f"{url}: paging does not move on: after={after}, CB-AFTER={cursor}")
            after = following


def _parse_page(entries: list[object], product_id: str) -> list[Trade]:
    """The trades of a page; an entry that is none is skipped, and so stays missing."""
    trades = []
    for entry in entries:
        try:
            if not isinstance(entry, dict):
                raise MalformedMessageError("is no object")
            trades.append(parse_trade(entry, product_id))
        except MalformedMessageError as error:
            log.warning("%s: a listed trade %s: %r", product_id, error, entry)
    return trades
