"""Few pieces at a time, round robin, never idle, never held up."""

from __future__ import annotations

from random import Random

from krakentx.swarm.config import UploadConfig
from krakentx.swarm.events import ConnID
from krakentx.swarm.uploads import Uploads

A, B, C, D = (ConnID(n) for n in range(1, 5))
MIB = 1 << 20


class Behind(Random):
    """Whoever joins stands behind all others."""

    def random(self) -> float:
        return 1 - 1e-9


def test_round_robin_one_piece_per_connection() -> None:
    uploads = Uploads(UploadConfig(slots=2), Behind())
    for piece in (1, 2, 3):
        assert uploads.add(A, piece)
    uploads.add(B, 7)
    uploads.add(C, 8)
    assert uploads.start(0.0) == [(A, 1), (B, 7)]
    assert uploads.start(0.0) == []
    uploads.sent(A, 1, MIB, 0.01)
    assert uploads.start(0.01) == [(C, 8)]
    uploads.sent(B, 7, MIB, 0.02)
    assert uploads.start(0.02) == [(A, 2)]
    uploads.sent(C, 8, MIB, 0.03)
    uploads.sent(A, 2, MIB, 0.03)
    assert uploads.start(0.03) == [(A, 3)]
    uploads.sent(A, 3, MIB, 0.04)
    assert (len(uploads), uploads.active, uploads.waiting) == (0, 0, False)


def test_who_joins_takes_a_place_by_chance() -> None:
    firsts = set()
    for seed in range(40):
        uploads = Uploads(UploadConfig(slots=1), Random(seed))
        for conn in (A, B, C, D):
            uploads.add(conn, 1)
        firsts.add(uploads.start(0.0)[0][0])
    assert firsts == {A, B, C, D}


def test_the_same_piece_is_queued_once_and_the_queue_is_bounded() -> None:
    uploads = Uploads(UploadConfig(slots=1, max_queued=2), Behind())
    assert uploads.add(A, 1)
    uploads.start(0.0)
    assert uploads.add(A, 1)
    assert uploads.add(A, 2)
    assert uploads.add(A, 2)
    assert uploads.add(A, 3)
    assert not uploads.add(A, 4)
    assert len(uploads) == 3


def test_cancel_drops_what_waits_only() -> None:
    uploads = Uploads(UploadConfig(slots=1), Behind())
    uploads.add(A, 1)
    uploads.add(A, 2)
    uploads.start(0.0)
    assert not uploads.cancel(A, 1)
    assert uploads.cancel(A, 2)
    assert not uploads.cancel(A, 2)
    uploads.sent(A, 1, MIB, 0.1)
    assert uploads.start(0.1) == []
    assert not uploads.busy(A)


def test_pieces_that_turn_out_wrong_wait_no_more_and_one_that_leaves_is_told() -> None:
    uploads = Uploads(UploadConfig(slots=1), Behind())
    for piece in (1, 2, 3, 4):
        uploads.add(A, piece)
    uploads.add(B, 2)
    assert uploads.start(0.0) == [(A, 1)]
    assert uploads.retract(A, 0b1100) == [2, 3]
    assert uploads.retract(B, 0b0100) == [2]
    assert uploads.retract(C, 0b0100) == []
    assert uploads.retract(A, 0b0010) is None
    assert len(uploads) == 2
    uploads.sent(A, 1, MIB, 0.01)
    assert uploads.start(0.01) == [(A, 4)]


def test_a_lost_connection_gives_its_slot_back() -> None:
    uploads = Uploads(UploadConfig(slots=1), Behind())
    uploads.add(A, 1)
    uploads.add(A, 2)
    uploads.add(B, 3)
    uploads.start(0.0)
    uploads.drop(A)
    uploads.drop(A)
    assert uploads.start(0.0) == [(B, 3)]
    uploads.sent(A, 1, MIB, 1.0)  # told late: changes nothing
    assert uploads.active == 1


def test_a_stuck_piece_holds_no_slot() -> None:
    uploads = Uploads(UploadConfig(slots=1), Behind())
    uploads.add(A, 1)
    uploads.add(B, 2)
    assert uploads.start(0.0) == [(A, 1)]
    uploads.began(A, 1, 0.5)
    assert uploads.start(1.4) == []
    assert uploads.start(1.6) == [(B, 2)]
    assert uploads.stuck_since(A) == 0.5


def test_stuck_pieces_are_bounded() -> None:
    uploads = Uploads(UploadConfig(slots=1, max_slots=3), Behind())
    for number in range(10):
        uploads.add(ConnID(number), 0)
    for second in range(10):
        uploads.start(10.0 * second)
    assert uploads.active == 3


def simulate(per_receiver: float, line: float, seconds: float) -> tuple[float, int]:
    """20 receivers that take `per_receiver` each, a line of `line` bytes/s; returns the rate reached and the slots."""
    uploads = Uploads(UploadConfig(), Behind())
    now, sent, counter = 0.0, 0.0, 0
    left: dict[ConnID, float] = {}
    for number in range(20):
        uploads.add(ConnID(number), counter := counter + 1)
    for conn, _ in uploads.start(now):
        left[conn] = MIB
    half_way = 0.0
    while now < seconds:
        rate = min(per_receiver, line / len(left))
        step = min(left.values()) / rate
        now += step
        for conn in list(left):
            left[conn] -= rate * step
            sent += rate * step if now > seconds / 2 else 0
            if left[conn] < 1:
                del left[conn]
                uploads.sent(conn, uploads._leaving[conn][0], MIB, now)
                uploads.add(conn, counter := counter + 1)
        half_way = half_way or (now if now > seconds / 2 else 0.0)
        for conn, _ in uploads.start(now):
            left[conn] = MIB
    return sent / (now - half_way), uploads._slots.now


def test_a_line_that_one_receiver_fills_is_not_shared_among_many() -> None:
    rate, slots = simulate(per_receiver=100e6, line=100e6, seconds=20)
    assert rate > 99e6
    assert slots <= 7


def test_slow_receivers_are_served_side_by_side_until_the_line_is_full() -> None:
    rate, slots = simulate(per_receiver=10e6, line=100e6, seconds=40)
    assert rate > 85e6
    assert 9 <= slots <= 20
