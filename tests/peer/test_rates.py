"""Bandwidth gates under a clock that moves when told."""

from __future__ import annotations

from bisect import bisect_right

import pytest
from attrs import Factory, define
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from krakentx.peer.rates import MAX_SLICE_BYTES, MIN_SLICE_BYTES, Gate, Lane, TokenBucket, Toll

KIB, MIB = 1 << 10, 1 << 20


@define(eq=False)
class Taker:
    """A connection whose socket always has bytes, unless `slow_bytes_s` says how few.

    Args:
        piece: bytes of each piece; a grant never reaches into the next.
    """

    gate: Gate
    piece: int = MIB
    torrent: object = None
    slow_bytes_s: float | None = None
    times: list[float] = Factory(list)
    sums: list[int] = Factory(lambda: [0])  # bytes before each of `times`, and in all
    lane: Lane = None  # type: ignore[assignment]
    ready: bool = True
    left: int = 0
    room: float = 0.0

    def __attrs_post_init__(self) -> None:
        self.lane = self.gate.lane(self.resume)
        self.lane.join(self.torrent)
        self.left = self.piece

    @property
    def total(self) -> int:
        return self.sums[-1]

    def resume(self) -> None:
        self.ready = True

    def move(self, now: float) -> None:
        """What a socket does in its turn of the reactor."""
        if not self.ready or (self.slow_bytes_s is not None and self.room < 1):
            return
        wanted = min(self.left, MIB)
        granted = self.lane.grant(wanted)
        if not granted:
            self.ready = False
            self.lane.wait()
            return
        took = granted if self.slow_bytes_s is None else min(granted, int(self.room))
        self.room -= took
        self.lane.give_back(granted - took)
        self.times.append(now)
        self.sums.append(self.total + took)
        self.left = self.left - took or self.piece


def turn(clock: Clock, takers: list[Taker], step: float) -> None:
    """Let time pass, then all have their turns until nobody can go on."""
    for taker in takers:
        taker.room = min(taker.room + step * (taker.slow_bytes_s or 0.0), 64 * KIB)
    clock.advance(step)
    for _ in range(10_000):
        before = sum(taker.total for taker in takers)
        for taker in takers:
            taker.move(clock.seconds())
        clock.advance(0)
        if before == sum(taker.total for taker in takers):
            return
    raise AssertionError("a turn has no end")


def run(clock: Clock, takers: list[Taker], seconds: float, step: float = 0.002) -> None:
    ends = clock.seconds() + seconds
    while clock.seconds() < ends:
        turn(clock, takers, step)


def passed(takers: list[Taker], after: float, until: float) -> int:
    return sum(
        taker.sums[bisect_right(taker.times, until)] - taker.sums[bisect_right(taker.times, after)] for taker in takers
    )


def fullest_second(takers: list[Taker]) -> int:
    """The most bytes that passed in any second."""
    ends = {at for taker in takers for at in taker.times}
    return max(passed(takers, end - 1.0 + 1e-9, end) for end in ends)


# ---- the bucket


def test_a_bucket_starts_empty_and_fills_at_its_rate_and_no_further():
    bucket = TokenBucket(100.0, 50.0, now=0.0)
    assert bucket.available(0.0) == 0
    assert bucket.available(0.125) == 12
    assert bucket.seconds_until(30, 0.125) == 0.18
    assert bucket.available(99.0) == 50


def test_a_bucket_may_be_in_debt():
    bucket = TokenBucket(100.0, 50.0, now=0.0)
    bucket.spend(30)
    assert bucket.available(0.0) == -30
    assert bucket.available(0.5) == 20


def test_a_clock_set_back_gives_nothing_away():
    bucket = TokenBucket(100.0, 50.0, now=10.0)
    assert bucket.available(5.0) == 0
    assert bucket.available(5.5) == 50


# ---- how exact

small, large = st.sampled_from([16 * KIB, 100_001, 64 * MIB]), st.sampled_from([MIB, 4 * MIB, 64 * MIB])
loads = st.one_of(
    st.tuples(st.sampled_from([1, 3, 10, 50]), st.lists(small, min_size=1, max_size=4)),
    st.tuples(st.sampled_from([1000, 8000]), st.lists(large, min_size=1, max_size=4)),
)
pauses = st.lists(st.one_of(st.floats(0.002, 0.02), st.floats(0.02, 0.3)), min_size=1, max_size=8)


@settings(max_examples=25)
@given(load=loads, steps=pauses, idle=st.lists(st.floats(0.0, 2.0), max_size=2))
def test_every_second_carries_the_rate(load, steps, idle):
    """At any size of pieces, after any idle time; and nothing is lost when the process comes back a little late."""
    clock = Clock()
    mbit, pieces = load
    rate = mbit * 1e6 / 8
    gate = Gate(clock, rate)
    takers = [Taker(gate, piece, number % 2) for number, piece in enumerate(pieces)]
    for pause in [0.0, *idle]:
        for taker in takers:
            taker.lane.forget()
        clock.advance(pause)
        for taker in takers:
            taker.resume()
        began, late = clock.seconds(), []
        while clock.seconds() < began + 1.6:
            step = steps[len(late) % len(steps)]
            turn(clock, takers, step)
            now = clock.seconds()
            late.append((now, max(0.0, step - 0.03)))  # that much it makes up for
            if now >= began + 1.0:
                lost = sum(seconds for at, seconds in late if at > now - 1.0)
                assert passed(takers, now - 1.0, now) >= (0.95 - lost) * rate
    assert fullest_second(takers) <= 1.05 * rate


@pytest.mark.parametrize("slow", [0.1, 0.5])
def test_who_cannot_take_its_share_leaves_it_to_the_others(clock, slow):
    gate = Gate(clock, 10e6)
    fast, held = Taker(gate), Taker(gate, slow_bytes_s=slow * 5e6)
    run(clock, [fast, held], 4.0)
    assert held.total > 0.9 * slow * 20e6
    assert fast.total + held.total > 0.97 * 40e6


def test_without_a_rate_everything_passes(clock):
    gate = Gate(clock)
    called = []
    lane = gate.lane(lambda: called.append(1))
    assert not lane.limited
    assert lane.grant(10**9) == 10**9
    lane.wait()
    clock.advance(0)
    assert called == [1]


def test_the_slice_follows_the_rate(clock):
    assert Gate(clock, 1000.0).slice_bytes == MIN_SLICE_BYTES
    assert Gate(clock, 10e6).slice_bytes == 50_000
    assert Gate(clock, 10e9).slice_bytes == MAX_SLICE_BYTES


def test_what_was_not_used_goes_back(clock):
    gate = Gate(clock, 1e6)
    lane = gate.lane(lambda: None)
    clock.advance(1)
    assert lane.grant(MIB) == gate.slice_bytes
    lane.give_back(gate.slice_bytes - 1)
    while lane.grant(100):
        pass
    lane.give_back(gate.slice_bytes)
    assert lane.grant(MIB) == gate.slice_bytes
    lane.give_back(-500_000)  # came without a grant
    clock.advance(0.49)
    assert lane.grant(1) == 0
    clock.advance(0.02)
    assert lane.grant(1) == 1


# ---- how fair


def test_connections_of_a_torrent_share_evenly(clock):
    gate = Gate(clock, 10e6)
    takers = [Taker(gate) for _ in range(5)]
    run(clock, takers, 5.0)
    shares = [taker.total for taker in takers]
    assert max(shares) - min(shares) <= 2 * gate.slice_bytes


@pytest.mark.parametrize("pieces", [(MIB, MIB), (16 * KIB, 64 * MIB), (64 * MIB, 16 * KIB)])
def test_torrents_share_evenly_whatever_their_peers_and_pieces(clock, pieces):
    gate = Gate(clock, 100e6)
    one = [Taker(gate, pieces[0], "one")]
    nine = [Taker(gate, pieces[1], "nine") for _ in range(9)]
    run(clock, one + nine, 4.0)
    first, second = (sum(taker.total for taker in takers) for takers in (one, nine))
    assert 0.95 < first / second < 1.05
    assert min(taker.total for taker in nine) > 0.9 * max(taker.total for taker in nine)


def test_who_comes_later_has_neither_a_credit_nor_a_debt(clock):
    gate = Gate(clock, 10e6)
    early, late = Taker(gate, torrent="early"), Taker(gate, torrent="late")
    run(clock, [early], 3.0)
    alone = early.total
    run(clock, [early, late], 2.0)
    assert late.total > 0.97 * 10e6
    assert early.total - alone > 0.97 * 10e6


def test_nobody_overtakes_those_who_wait(clock):
    gate = Gate(clock, 1e6)
    calls: list[int] = []
    lanes = [gate.lane(lambda number=number: calls.append(number)) for number in range(3)]
    for lane in lanes:
        assert lane.grant(MIB) == 0
        lane.wait()
    clock.advance(0.0055)
    assert calls == [0]
    late = gate.lane(lambda: None)
    assert late.grant(100) == 0
    assert lanes[0].grant(MIB) == gate.slice_bytes
    clock.advance(0.0055)
    assert calls == [0, 1]


def test_who_is_called_and_does_not_come_holds_up_nobody(clock):
    gate = Gate(clock, 1e6)
    calls: list[str] = []
    gone, here = gate.lane(lambda: calls.append("gone")), gate.lane(lambda: calls.append("here"))
    gone.wait()
    here.wait()
    clock.advance(0.0055)
    assert calls == ["gone"]
    for _ in range(20):
        clock.advance(0.001)
    assert calls == ["gone", "here"]
    assert here.grant(MIB) == gate.slice_bytes


# ---- changes


def test_a_new_rate_counts_at_once(clock):
    gate = Gate(clock, 1e6)
    takers = [Taker(gate), Taker(gate)]
    run(clock, takers, 1.0)
    assert passed(takers, 0.0, 1.0) <= 1.05e6
    gate.set_rate(50e6)
    run(clock, takers, 1.0)
    assert 0.95 * 50e6 < passed(takers, 1.0, 2.0) <= 1.05 * 50e6
    gate.set_rate(2e6)
    run(clock, takers, 1.0)
    assert 0.95 * 2e6 < passed(takers, 2.001, 3.001) <= 1.05 * 2e6
    gate.set_rate(None)
    assert takers[0].lane.grant(10**9) == 10**9


def test_the_same_rate_again_is_no_gift(clock):
    gate = Gate(clock, 1e6)
    takers = [Taker(gate)]
    for _ in range(200):
        run(clock, takers, 0.01)
        gate.set_rate(1e6)
    assert fullest_second(takers) <= 1.05e6


def test_who_has_gone_is_not_called(clock):
    gate = Gate(clock, 1e6)
    calls: list[int] = []
    first, second = gate.lane(lambda: calls.append(1)), gate.lane(lambda: calls.append(2))
    first.wait()
    second.wait()
    first.forget()
    for _ in range(5):
        clock.advance(1)
    assert calls == [2]
    first.wait()
    first.forget()
    assert clock.getDelayedCalls() == []


def test_a_torrent_that_is_gone_is_forgotten(clock):
    gate = Gate(clock, 1e6)
    lane = gate.lane(lambda: None)
    lane.join("torrent")
    group = gate.group("torrent")
    assert group is lane.group
    lane.join("other")
    del group
    assert gate.group("torrent").served == 0.0


def test_what_pays_afterwards_shares_with_those_who_ask_before(clock):
    gate = Gate(clock, MIB)
    taker = Taker(gate, 64 * KIB, "wire")
    toll, paid = Toll(gate, "http"), 0
    for _ in range(2000):
        if not toll.waiting:
            paid += 64 * KIB
            toll.pay(64 * KIB)
        turn(clock, [taker], 0.002)
    assert taker.total + paid == pytest.approx(4 * MIB, rel=0.05)
    assert paid == pytest.approx(2 * MIB, rel=0.05)


def test_without_a_limit_nobody_pays(clock):
    assert Toll(Gate(clock), "x").pay(10**9) is None
    assert clock.getDelayedCalls() == []


def test_a_limit_that_is_lifted_lets_those_go_who_owe(clock):
    gate = Gate(clock, 1000.0)
    toll = Toll(gate, "x")
    paid = toll.pay(10**6)
    gate.set_rate(None)
    clock.advance(0.1)
    assert paid.called
    assert not toll.waiting
