"""The in-flight table."""

from __future__ import annotations

from attrs import Factory, define

from krakentx.swarm.requests import Requests


@define(eq=False)
class Peer:
    ours: bool
    asked: dict[int, float] = Factory(dict)


def test_masks_follow_the_requests() -> None:
    one, other = Peer(ours=True), Peer(ours=False)
    requests: Requests[Peer] = Requests()
    requests.add(one, 3, 1.0)
    requests.add(other, 3, 2.0)
    requests.add(other, 5, 2.0)
    assert requests.asked == 1 << 3 | 1 << 5
    assert requests.movable == 1 << 3
    assert requests.holders(3) == (one, other)
    assert other.asked == {3: 2.0, 5: 2.0}
    assert len(requests) == 3

    assert requests.drop(one, 3)
    assert not requests.drop(one, 3)
    assert requests.asked == 1 << 3 | 1 << 5
    assert requests.release(other) == [3, 5]
    assert (requests.asked, requests.movable, len(requests)) == (0, 0, 0)
    assert not other.asked
    assert requests.holders(3) == ()
