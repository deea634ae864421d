"""Each torrent has its own announce timer."""

from __future__ import annotations

from random import Random

from krakentx.swarm.announce import AnnounceTimer
from krakentx.swarm.config import AnnounceConfig

CONFIG = AnnounceConfig()


def timer() -> AnnounceTimer:
    return AnnounceTimer(0.0, Random(1))


def test_first_at_once_then_by_the_trackers_interval() -> None:
    announcer = timer()
    assert announcer.take(0.0, CONFIG)
    assert not announcer.take(0.1, CONFIG)
    announcer.answered(3.0, True, False, 0.2, CONFIG)
    assert 2.9 <= announcer.due(CONFIG) <= 3.5
    assert not announcer.take(2.8, CONFIG)
    assert announcer.take(3.6, CONFIG)


def test_no_interval_or_a_huge_one_is_replaced_by_our_own() -> None:
    announcer = timer()
    announcer.take(0.0, CONFIG)
    announcer.answered(0.0, True, False, 0.0, CONFIG)
    assert 4.5 <= announcer.due(CONFIG) <= 5.5
    announcer.take(6.0, CONFIG)
    announcer.answered(86400.0, True, False, 6.0, CONFIG)
    assert announcer.due(CONFIG) <= 6.0 + 66.0


def test_seeders_keep_announcing_seldom() -> None:
    announcer = timer()
    announcer.take(0.0, CONFIG)
    announcer.answered(3.0, False, True, 0.0, CONFIG)
    assert 270.0 <= announcer.due(CONFIG) <= 330.0


def test_hurry_brings_forward_once_and_then_less_and_less() -> None:
    announcer = timer()
    now, pauses = 0.0, []
    for _ in range(5):
        assert announcer.take(now, CONFIG)
        announcer.answered(3.0, False, False, now, CONFIG)
        for _ in range(3):
            announcer.hurry(CONFIG)
        pauses.append(announcer.due(CONFIG) - now)
        now = announcer.due(CONFIG)
    assert 0.4 < pauses[0] < 0.6
    assert 0.9 < pauses[1] < 1.1
    assert 1.8 < pauses[2] < 2.2
    assert all(2.6 < pause < 3.4 for pause in pauses[3:])
    announcer.take(now, CONFIG)
    announcer.answered(3.0, True, False, now, CONFIG)  # new peers: early again when they do not help
    announcer.hurry(CONFIG)
    assert announcer.due(CONFIG) - now < 0.6


def test_failures_back_off_up_to_the_interval() -> None:
    announcer = timer()
    now = 0.0
    pauses = []
    for _ in range(6):
        assert announcer.take(now, CONFIG)
        announcer.failed(now, CONFIG)
        announcer.hurry(CONFIG)
        pauses.append(announcer.due(CONFIG) - now)
        now = announcer.due(CONFIG)
    assert pauses[0] < 0.6
    assert pauses[1] < 1.2
    assert 4.4 < pauses[-1] < 5.6


def test_an_answer_that_never_comes_is_a_failure() -> None:
    announcer = timer()
    announcer.take(0.0, CONFIG)
    assert announcer.due(CONFIG) == CONFIG.answer_timeout_s
    assert not announcer.take(CONFIG.answer_timeout_s, CONFIG)
    assert announcer.take(CONFIG.answer_timeout_s + 1.0, CONFIG)


def test_news_are_told_at_once_even_when_an_answer_is_awaited() -> None:
    announcer = timer()
    announcer.take(0.0, CONFIG)
    announcer.at_once(1.0)
    announcer.answered(3.0, False, True, 2.0, CONFIG)
    assert announcer.take(2.0, CONFIG)
