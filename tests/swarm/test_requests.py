"""The in-flight table."""

from __future__ import annotations

from krakentx.swarm.events import ConnID
from krakentx.swarm.requests import Requests

A, B = ConnID(1), ConnID(2)


def test_masks_follow_the_requests() -> None:
    requests = Requests()
    requests.add(A, 3, 1.0, movable=True)
    requests.add(B, 3, 2.0, movable=False)
    requests.add(B, 5, 2.0, movable=False)
    assert requests.asked == 1 << 3 | 1 << 5
    assert requests.movable == 1 << 3
    assert requests.holders(3) == (A, B)
    assert dict(requests.of(B)) == {3: 2.0, 5: 2.0}
    assert len(requests) == 3

    assert requests.drop(A, 3)
    assert not requests.drop(A, 3)
    assert requests.asked == 1 << 3 | 1 << 5
    assert requests.release(B) == [3, 5]
    assert (requests.asked, requests.movable, len(requests)) == (0, 0, 0)
    assert not requests.of(B)
    assert requests.holders(3) == ()
