"""Few pieces at a time, round robin, never idle, never held up."""

from __future__ import annotations

from random import Random

import pytest

from krakentx.swarm.config import SwarmConfig, UploadConfig
from krakentx.swarm.events import ConnID
from krakentx.swarm.uploads import Uploads

A, B, C, D = (ConnID(n) for n in range(1, 5))
MIB = 1 << 20


class Behind(Random):
    """Whoever joins stands behind all others."""

    def random(self) -> float:
        return 1 - 1e-9


def nobody(conn: ConnID, other: ConnID, now: float) -> bool:
    """All get the same."""
    return False


def queue(**settings: int) -> Uploads:
    return Uploads(SwarmConfig(upload=UploadConfig(**settings)), Behind(), nobody)


def test_round_robin_one_piece_per_connection() -> None:
    uploads = queue(slots=2)
    for piece in (1, 2, 3):
        assert uploads.add(A, piece)
    uploads.add(B, 7)
    uploads.add(C, 8)
    assert uploads.start(0.0) == [(A, 1), (B, 7)]
    assert uploads.start(0.0) == []
    uploads.sent(A, 1, 0.01)
    assert uploads.start(0.01) == [(C, 8)]
    uploads.sent(B, 7, 0.02)
    assert uploads.start(0.02) == [(A, 2)]
    uploads.sent(C, 8, 0.03)
    uploads.sent(A, 2, 0.03)
    assert uploads.start(0.03) == [(A, 3)]
    uploads.sent(A, 3, 0.04)
    assert (len(uploads), uploads.active, uploads.waiting) == (0, 0, False)


def test_who_is_behind_passes_the_first_in_the_line_so_many_times() -> None:
    def behind(conn: ConnID, other: ConnID, now: float) -> bool:
        return conn == B != other

    uploads = Uploads(SwarmConfig(upload=UploadConfig(slots=1)), Behind(), behind)
    for conn in (A, C, B, D):
        for piece in range(4):
            uploads.add(conn, piece)
    served = []
    for moment in range(9):
        ((conn, piece),) = uploads.start(moment)
        served.append(conn)
        uploads.sent(conn, piece, moment + 0.5)
    assert served == [B, B, A, B, B, C, D, A, C], "twice in a row, and only as long as anything waits for it"


def test_who_joins_takes_a_place_by_chance() -> None:
    firsts = set()
    for seed in range(40):
        uploads = Uploads(SwarmConfig(upload=UploadConfig(slots=1)), Random(seed), nobody)
        for conn in (A, B, C, D):
            uploads.add(conn, 1)
        firsts.add(uploads.start(0.0)[0][0])
    assert firsts == {A, B, C, D}


def test_the_same_piece_is_queued_once_and_the_queue_is_bounded() -> None:
    uploads = queue(slots=1, max_queued=2)
    assert uploads.add(A, 1)
    uploads.start(0.0)
    assert uploads.add(A, 1)
    assert uploads.add(A, 2)
    assert uploads.add(A, 2)
    assert uploads.add(A, 3)
    assert not uploads.add(A, 4)
    assert len(uploads) == 3


def served(uploads: Uploads, now: float = 0.0) -> list[tuple[ConnID, int]]:
    """Everything that waits, in the order in which it leaves with one slot."""
    order = []
    while started := uploads.start(now):
        order += started
        uploads.sent(*started[0], now)
    return order


def test_a_seed_gives_first_what_it_never_gave() -> None:
    uploads, given = queue(slots=1), {1}
    for conn, piece in ((A, 1), (B, 1), (C, 2), (D, 3)):
        uploads.add(conn, piece, given)
    assert served(uploads) == [(C, 2), (D, 3), (A, 1), (B, 1)]
    assert given == {1, 2, 3}
    for conn, piece in ((B, 2), (A, 3)):
        uploads.add(conn, piece, given)
    assert served(uploads) == [(B, 2), (A, 3)], "after that it is first come, first served"


def test_who_is_first_in_the_line_is_passed_by_some_only() -> None:
    uploads, given = queue(slots=1), {0}
    uploads.add(A, 0, given)
    for number in range(100, 140):
        uploads.add(ConnID(number), number, given)
    order = [conn for conn, _ in served(uploads)]
    assert order.index(A) == 8
    assert sorted(order) == [A, *map(ConnID, range(100, 140))]


def test_a_new_blob_does_not_pass_an_old_one() -> None:
    uploads, old, new = queue(slots=1), {1}, set[int]()
    uploads.add(A, 1, old)
    uploads.add(B, 7, new)
    uploads.add(C, 1)  # of a blob of which only a part is here
    uploads.add(D, 8, new)
    assert served(uploads) == [(A, 1), (B, 7), (C, 1), (D, 8)]


def test_cancel_drops_what_waits_only() -> None:
    uploads = queue(slots=1)
    uploads.add(A, 1)
    uploads.add(A, 2)
    uploads.start(0.0)
    assert not uploads.cancel(A, 1)
    assert uploads.cancel(A, 2)
    assert not uploads.cancel(A, 2)
    uploads.sent(A, 1, 0.1)
    assert uploads.start(0.1) == []
    assert not uploads.busy(A)


def test_pieces_that_turn_out_wrong_wait_no_more_and_one_that_leaves_is_told() -> None:
    uploads = queue(slots=1)
    for piece in (1, 2, 3, 4):
        uploads.add(A, piece)
    uploads.add(B, 2)
    assert uploads.start(0.0) == [(A, 1)]
    assert uploads.retract(A, 0b1100) == [2, 3]
    assert uploads.retract(B, 0b0100) == [2]
    assert uploads.retract(C, 0b0100) == []
    assert uploads.retract(A, 0b0010) is None
    assert len(uploads) == 2
    uploads.sent(A, 1, 0.01)
    assert uploads.start(0.01) == [(A, 4)]


def test_a_lost_connection_gives_its_slot_back() -> None:
    uploads = queue(slots=1)
    uploads.add(A, 1)
    uploads.add(A, 2)
    uploads.add(B, 3)
    uploads.start(0.0)
    uploads.drop(A)
    uploads.drop(A)
    assert uploads.start(0.0) == [(B, 3)]
    uploads.sent(A, 1, 1.0)  # told late: changes nothing
    assert uploads.active == 1


def test_pieces_that_stand_still_keep_nobody_waiting_and_are_bounded() -> None:
    uploads = queue(slots=1, max_slots=3)
    for number in range(10):
        uploads.add(ConnID(number), 0)
    assert len(uploads.start(0.0)) == 1
    uploads.began(ConnID(0), 0, 0.5)
    assert uploads.stuck_since(ConnID(0)) == 0.5
    for look in range(1000):
        uploads.look(0, look * 0.01)
        uploads.start(look * 0.01)
    assert uploads.active == 3


@pytest.mark.parametrize(
    ("first_took_s", "seed", "most"), [(0.1, False, 5), (2.0, False, 3), (0.1, True, 3)], ids=["quick", "slow", "seed"]
)
def test_more_leave_at_once_where_pieces_are_quick_and_nobody_is_seeded(
    first_took_s: float, seed: bool, most: int
) -> None:
    uploads, given = queue(slots=1, max_slots=3, max_quick_slots=5), set[int]()
    for number in range(10):
        uploads.add(ConnID(number), number, given if seed else None)
    [(conn, piece)] = uploads.start(0.0)
    uploads.sent(conn, piece, first_took_s)
    for look in range(1000):
        now = first_took_s + look * 0.01
        uploads.start(now)
        uploads.look(0, now)
    assert uploads.active == most


def simulate(per_receiver: float, line: float, seconds: float) -> tuple[float, float]:
    """20 receivers that take `per_receiver` each, a line of `line` bytes/s.

    Returns the rate reached and the mean of the pieces that left at once, both of the second half.
    """
    uploads = queue()
    now, sent, counter = 0.0, 0.0, 0
    left: dict[ConnID, float] = {}
    for number in range(20):
        uploads.add(ConnID(number), counter := counter + 1)
    half_way, active = 0.0, []
    while now < seconds:
        for conn, _ in uploads.start(now):
            left[conn] = MIB
        rate = min(per_receiver, line / len(left))
        step = min(0.001, min(left.values()) / rate)
        now += step
        sent += rate * step * len(left)
        if now < seconds / 2:
            half_way = sent
        else:
            active.append(len(left))
        for conn in list(left):
            left[conn] -= rate * step
            if left[conn] < 1:
                del left[conn]
                uploads.sent(conn, uploads._leaving[conn][0], now)
                uploads.add(conn, counter := counter + 1)
        uploads.look(int(sent), now)
    return (sent - half_way) / (seconds / 2), sum(active) / len(active)


def test_a_line_that_one_receiver_fills_is_not_shared_among_many() -> None:
    rate, active = simulate(per_receiver=100e6, line=100e6, seconds=4)
    assert rate > 99e6
    assert active < 4


def test_slow_receivers_are_served_side_by_side_until_the_line_is_full() -> None:
    rate, active = simulate(per_receiver=10e6, line=100e6, seconds=8)
    assert rate > 95e6
    assert 9 < active < 13
