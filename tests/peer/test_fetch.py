"""Pieces over HTTP, from a source that does as it is told."""

from __future__ import annotations

import os

import pytest
from twisted.internet.defer import CancelledError, Deferred

from krakentx.core.errors import NotFound, Unavailable
from krakentx.peer.fetch import GRACE_S, StorageError, fetch_pieces, runs
from krakentx.peer.rates import Gate
from krakentx.peer.torrents import Torrent
from krakentx.swarm.events import FetchProblem
from tests.peer.swarm import make_blob

PIECE = 1000


class Source:
    """Remembers what was asked, and lets the test answer."""

    def __init__(self):
        self.asked = []
        self.receive = None
        self.done = None

    async def fetch(self, namespace, digest, start, stop, receive, stall_s):
        self.asked.append((namespace, start, stop))
        self.receive = receive
        self.done = Deferred()
        await self.done


class File:
    def __init__(self, path):
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT)

    def fileno(self):
        return self.fd

    def close(self):
        os.close(self.fd)


@pytest.fixture
def blob():
    return make_blob(4 * PIECE + 300, PIECE)


@pytest.fixture
def torrent(blob, tmp_path):
    torrent = Torrent(blob.meta, "ns", File(tmp_path / "file"), None, 0.0)
    yield torrent
    torrent.close()


@pytest.fixture
def source():
    return Source()


@pytest.fixture
def gate(clock):
    return Gate(clock)


@pytest.fixture
def fetch(source, torrent, clock, gate):
    """Start fetching: the pieces that came, and the outcome once there is one."""

    def run(*pieces, stall_s=5.0):
        came, outcome = [], []
        task = Deferred.fromCoroutine(fetch_pieces(source, torrent, pieces, stall_s, clock, gate, came.append))
        task.addBoth(outcome.append)
        return came, outcome, task

    return run


def test_runs_of_indices():
    assert list(runs([1, 2, 3, 7, 9, 10])) == [range(1, 4), range(7, 8), range(9, 11)]
    assert list(runs([5])) == [range(5, 6)]
    assert list(runs([])) == []


def test_each_run_is_one_request_and_pieces_are_told_as_they_come(fetch, source, torrent, blob):
    came, outcome, _ = fetch(0, 1, 4)
    assert source.asked == [("ns", 0, 2 * PIECE)]
    for at in range(0, 2 * PIECE, 300):
        source.receive(blob.data[at : min(at + 300, 2 * PIECE)])
        assert came == list(range(min(at + 300, 2 * PIECE) // PIECE))
    source.done.callback(None)
    assert source.asked[1] == ("ns", 4 * PIECE, 4 * PIECE + 300)
    source.receive(blob.data[4 * PIECE :])
    source.done.callback(None)
    assert (came, outcome) == ([0, 1, 4], [None])
    assert os.pread(torrent.fileno(), 2 * PIECE, 0) == blob.data[: 2 * PIECE]
    assert os.pread(torrent.fileno(), PIECE, 4 * PIECE) == blob.data[4 * PIECE :]


def test_a_wrong_piece_ends_the_fetch(fetch, source, blob):
    came, outcome, _ = fetch(0, 1, 2, 3)
    source.receive(blob.data[:PIECE])
    with pytest.raises(Exception, match="hash to"):
        source.receive(bytes(PIECE))
    with pytest.raises(Exception, match="hash to"):
        source.receive(blob.data[2 * PIECE : 3 * PIECE])
    source.done.errback(OSError("connection lost"))
    assert (came, outcome) == ([0], [FetchProblem.CORRUPT])


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (NotFound("blob", "x"), FetchProblem.NOT_FOUND),
        (Unavailable("herd:15002", "is down"), FetchProblem.UNAVAILABLE),
    ],
)
def test_what_the_source_says(fetch, source, error, problem):
    _, outcome, _ = fetch(0)
    source.done.errback(error)
    assert outcome == [problem]


def test_too_few_bytes(fetch, source, blob):
    came, outcome, _ = fetch(0, 1)
    source.receive(blob.data[: PIECE + 5])
    source.done.callback(None)
    assert (came, outcome) == ([0], [FetchProblem.UNAVAILABLE])


def test_too_many_bytes_are_not_written(fetch, source, torrent, blob):
    came, outcome, _ = fetch(0)
    source.receive(blob.data)
    source.done.callback(None)
    assert (came, outcome) == ([0], [None])
    assert os.pread(torrent.fileno(), 2 * PIECE, 0) == blob.data[:PIECE]


def test_bytes_that_come_after_the_end_are_not_written(fetch, source, torrent, blob):
    _, _, task = fetch(0)
    late = source.receive
    task.cancel()
    with pytest.raises(Unavailable):
        late(blob.data[:PIECE])
    assert os.pread(torrent.fileno(), 10, 0) == b""


def test_a_full_disk(fetch, source, blob, monkeypatch):
    def full(*_args):
        raise OSError(28, "full")

    _, outcome, _ = fetch(0)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StorageError):
        source.receive(blob.data[:PIECE])
    source.done.errback(OSError("connection lost"))
    assert isinstance(outcome[0].value, StorageError)


def test_a_source_that_forgets_its_own_deadline(fetch, source, clock, blob):
    _, outcome, _ = fetch(0, stall_s=5.0)
    clock.advance(4)
    source.receive(blob.data[:10])
    clock.advance(4.9 + GRACE_S)
    assert outcome == []
    clock.advance(0.2)
    assert outcome == [FetchProblem.UNAVAILABLE]
    assert clock.getDelayedCalls() == []


def test_it_can_be_cancelled(fetch, clock):
    _, outcome, task = fetch(0)
    task.cancel()
    assert outcome[0].check(CancelledError)
    assert clock.getDelayedCalls() == []


def test_a_torrent_that_was_put_away_is_not_written(fetch, source, torrent, blob):
    torrent.hold()
    _, outcome, _ = fetch(0)
    torrent.close()
    with pytest.raises(Unavailable):
        source.receive(blob.data[:PIECE])
    source.done.callback(None)
    assert outcome == [FetchProblem.UNAVAILABLE]
    torrent.release()


def test_a_source_waits_until_what_it_sent_is_paid_and_that_is_no_silence(fetch, source, gate, clock, blob):
    gate.set_rate(100.0)
    came, outcome, _ = fetch(0, 1, stall_s=5.0)
    paid = source.receive(blob.data[: PIECE + 5])
    assert came == [0], "it is here: others may have it at once"
    for _ in range(99):
        clock.advance(0.1)
    assert (paid.called, outcome) == (False, [])
    clock.advance(0.5)
    assert paid.called
    clock.advance(4.9 + GRACE_S)
    assert outcome == [], "its time begins when it is free to send"
    clock.advance(0.2)
    assert outcome == [FetchProblem.UNAVAILABLE]
    assert clock.getDelayedCalls() == []


def test_a_fetch_that_is_over_owes_nothing(fetch, source, gate, clock, blob):
    gate.set_rate(100.0)
    _, outcome, task = fetch(0)
    paid = source.receive(blob.data[:500])
    task.cancel()
    assert outcome[0].check(CancelledError)
    paid.addErrback(lambda failure: failure.trap(CancelledError))
    paid.cancel()  # as the client does with what it waits for
    clock.advance(0.1)
    assert clock.getDelayedCalls() == []
