"""Bandwidth gates under a clock that moves when told."""

from __future__ import annotations

from krakentx.peer.rates import MAX_SLICE_BYTES, MIN_SLICE_BYTES, Gate, TokenBucket


def test_a_bucket_fills_at_its_rate_and_no_further():
    bucket = TokenBucket(100.0, 50.0, now=0.0)
    bucket.spend(50)
    assert bucket.available(0.1) == 10
    assert bucket.seconds_until(30, 0.1) == 0.2
    assert bucket.available(99.0) == 50


def test_a_bucket_may_be_in_debt():
    bucket = TokenBucket(100.0, 50.0, now=0.0)
    bucket.spend(80)
    assert bucket.available(0.0) == -30
    assert bucket.available(0.5) == 20


def test_a_clock_set_back_gives_nothing_away():
    bucket = TokenBucket(100.0, 50.0, now=10.0)
    bucket.spend(50)
    assert bucket.available(5.0) == 0
    assert bucket.available(5.5) == 50


def test_without_a_rate_everything_passes(clock):
    gate = Gate(clock)
    assert gate.grant(10**9) == 10**9
    called = []
    gate.wait(lambda: called.append(1))
    clock.advance(0)
    assert called == [1]


def test_the_slice_follows_the_rate(clock):
    assert Gate(clock, 1000.0).slice_bytes == MIN_SLICE_BYTES
    assert Gate(clock, 10e6).slice_bytes == 100_000
    assert Gate(clock, 10e9).slice_bytes == MAX_SLICE_BYTES


def run(clock, gate, takers, seconds, step=0.002):
    """Takers that always want more; returns how much each got."""
    got = dict.fromkeys(takers, 0)

    def taker(name):
        def move():
            while granted := gate.grant(1 << 20):
                got[name] += granted
            gate.wait(move)

        return move

    for name in takers:
        taker(name)()
    for _ in range(round(seconds / step)):
        clock.advance(step)
    return got


def test_the_rate_holds_and_is_shared(clock):
    gate = Gate(clock, 10e6)
    got = run(clock, gate, "abcde", 5.0)
    assert 0.95 * 50e6 < sum(got.values()) < 1.05 * 50e6
    assert max(got.values()) < 1.5 * min(got.values())


def test_a_new_rate_counts_at_once(clock):
    gate = Gate(clock, 1e6)
    assert sum(run(clock, gate, "a", 1.0).values()) < 1.3e6
    gate.set_rate(50e6)
    before = clock.seconds()
    assert gate.grant(1 << 20) > 0
    gate.set_rate(None)
    assert gate.grant(10**9) == 10**9
    assert clock.seconds() == before


def test_what_was_not_used_goes_back(clock):
    gate = Gate(clock, 1e6)
    while gate.grant(1 << 20):
        pass
    gate.give_back(gate.slice_bytes)
    assert gate.grant(1 << 20) == gate.slice_bytes
    gate.give_back(-1_000_000)  # came without a grant
    clock.advance(0.9)
    assert gate.grant(1) == 0
    clock.advance(0.2)
    assert gate.grant(1) == 1


def test_who_has_gone_is_not_called(clock):
    gate = Gate(clock, 1e6)
    called = []
    first, second = (lambda: called.append(1)), (lambda: called.append(2))
    gate.wait(first)
    gate.wait(second)
    gate.forget(first)
    clock.advance(10)
    assert called == [2]
    gate.wait(first)
    gate.forget(first)
    assert clock.getDelayedCalls() == []
