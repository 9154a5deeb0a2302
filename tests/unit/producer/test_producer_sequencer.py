"""The gap detector: ascending, each trade once, nothing missing without a gap that says so."""

from __future__ import annotations

from crypto_producer.event import Trade
from crypto_producer.sequencer import Gap, Sequencer
from hypothesis import given
from hypothesis import strategies as st


def trade(trade_id: int) -> Trade:
    return Trade("BTC-USD", trade_id, "1.0", "1.0", "buy", trade_id)


def ids(trades: list[Trade]) -> list[int]:
    return [one.trade_id for one in trades]


def test_contiguous_trades_pass() -> None:
    sequencer = Sequencer("BTC-USD", None, 100)
    assert ids(sequencer.last_match(trade(5))) == [5]
    assert ids(sequencer.trade(trade(6))) == [6]
    assert sequencer.gap is None


def test_a_jump_is_a_gap_and_what_follows_waits() -> None:
    sequencer = Sequencer("BTC-USD", 10, 100)
    assert sequencer.trade(trade(14)) == []
    assert sequencer.gap == Gap("BTC-USD", 11, 13)
    assert sequencer.trade(trade(15)) == []
    assert ids(sequencer.fill([trade(11), trade(12), trade(13)])) == [11, 12, 13, 14, 15]
    assert sequencer.gap is None
    assert sequencer.high == 15


def test_what_was_seen_before_a_restart_is_not_sent_again_and_the_rest_is_fetched() -> None:
    sequencer = Sequencer("BTC-USD", 10, 100)
    assert sequencer.last_match(trade(10)) == []
    assert not sequencer.ids_ran_backwards
    sequencer.last_match(trade(12))
    assert sequencer.gap == Gap("BTC-USD", 11, 11)


def test_a_heartbeat_finds_a_gap_that_no_trade_follows() -> None:
    sequencer = Sequencer("BTC-USD", 10, 100)
    sequencer.heartbeat(12)
    assert sequencer.gap is None, "the trades may still be on their way"
    sequencer.heartbeat(13)
    assert sequencer.gap == Gap("BTC-USD", 11, 12)
    assert ids(sequencer.fill([trade(11), trade(12)])) == [11, 12]


def test_a_heartbeat_of_an_old_connection_proves_nothing() -> None:
    sequencer = Sequencer("BTC-USD", 10, 100)
    sequencer.heartbeat(12)
    sequencer.connected()
    sequencer.heartbeat(12)
    assert sequencer.gap is None


def test_a_gap_behind_a_gap_is_found_after_it() -> None:
    sequencer = Sequencer("BTC-USD", 10, 100)
    for trade_id in (13, 14, 20):
        sequencer.trade(trade(trade_id))
    assert ids(sequencer.fill([trade(11), trade(12)])) == [11, 12, 13, 14]
    assert sequencer.gap == Gap("BTC-USD", 15, 19)
    assert ids(sequencer.fill([])) == [20]


def test_beyond_its_bound_the_buffer_lets_go_and_asks_again() -> None:
    sequencer = Sequencer("BTC-USD", 10, 2)
    for trade_id in (12, 13, 14, 15):
        sequencer.trade(trade(trade_id))
    assert ids(sequencer.fill([trade(11)])) == [11, 12, 13]
    sequencer.trade(trade(16))
    assert sequencer.gap == Gap("BTC-USD", 14, 15)


def test_a_feed_far_behind_is_reported() -> None:
    sequencer = Sequencer("BTC-USD", 1_000_000, 100)
    assert sequencer.last_match(trade(5)) == []
    assert sequencer.ids_ran_backwards


@given(
    st.lists(
        st.tuples(st.sampled_from(["trade", "heartbeat", "reconnect", "fill", "lost"]), st.integers(1, 40)),
        max_size=120,
    ),
    st.integers(1, 10),
)
def test_whatever_the_feed_loses_or_repeats_each_trade_leaves_once_and_in_order(
    steps: list[tuple[str, int]], max_buffered: int
) -> None:
    """The feed advances by trades and losses, repeats old ones, and reconnects; in the end all have left."""
    sequencer = Sequencer("BTC-USD", 0, max_buffered)
    happened = 0
    left: list[int] = []

    def fill() -> None:
        gap = sequencer.gap
        if gap is not None:
            assert gap.high <= happened
            left.extend(ids(sequencer.fill([trade(n) for n in range(gap.low, gap.high + 1)])))

    for step, number in steps:
        if step == "trade":
            happened += 1
            left.extend(ids(sequencer.trade(trade(happened))))
            left.extend(ids(sequencer.trade(trade(max(1, happened - number)))))
        elif step == "lost":
            happened += number
        elif step == "heartbeat":
            sequencer.heartbeat(happened)
        elif step == "reconnect":
            sequencer.connected()
        else:
            fill()
    for _ in range(happened + 3):
        sequencer.heartbeat(happened)
        sequencer.heartbeat(happened)
        fill()
    assert left == list(range(1, happened + 1))
