"""What of an arriving blob may be read, who waits for it, and when its file is closed."""

from __future__ import annotations

import os

import pytest
from twisted.internet.defer import CancelledError

from krakentx.core.bitfield import Bitfield
from krakentx.core.errors import Corrupt, NotFound, OutOfSpace, Unavailable
from krakentx.peer.streams import ArrivingBlob
from krakentx.peer.torrents import HOLD_BACK_BYTES, Torrent
from krakentx.swarm.events import ReaderGone, ReaderWants
from tests.peer.swarm import make_blob

PIECE = 1 << 20


class FakePartial:
    """A partial blob that is only a file."""

    def __init__(self, meta, path):
        self.meta = meta
        self.have = Bitfield(meta.piece_count)
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT)
        self.closed = 0

    def fileno(self):
        return self.fd

    def mark(self, piece):
        self.have = self.have.with_(piece)

    def forget(self, pieces):
        self.have = Bitfield(self.have.size, self.have.mask & ~pieces.mask)

    def close(self):
        self.closed += 1
        os.close(self.fd)


@pytest.fixture
def partial(tmp_path):
    return FakePartial(make_blob(4 * PIECE + 10).meta, tmp_path / "blob")


@pytest.fixture
def torrent(partial):
    torrent = Torrent(partial.meta, "ns", partial, partial, 0.0)
    yield torrent
    torrent.close()


@pytest.fixture
def events():
    return []


@pytest.fixture
def reader(torrent, events, clock):
    reader = ArrivingBlob(torrent, 5, events.append, clock, stall_s=60.0)
    yield reader
    reader.close()


def waiting(reader, offset, stop):
    """Start waiting; the list gets what came of it."""
    from twisted.internet.defer import Deferred

    result = []
    Deferred.fromCoroutine(reader.wait(offset, stop)).addBoth(result.append)
    return result


def error_of(result):
    [failure] = result
    return failure.value


def test_a_run_ends_at_the_first_missing_piece(torrent):
    for piece in (0, 1, 3):
        torrent.piece_ready(piece, "peer", 1.0)
    size = torrent.meta.length
    assert torrent.released(0, size) == 2 * PIECE
    assert torrent.released(PIECE + 5, size) == 2 * PIECE
    assert torrent.released(0, 100) == 100
    assert torrent.released(2 * PIECE, size) == 2 * PIECE
    assert torrent.released(3 * PIECE, 4 * PIECE) == size - HOLD_BACK_BYTES


def test_the_end_is_held_back_until_the_whole_is_verified(torrent):
    for piece in range(5):
        torrent.piece_ready(piece, "peer", 1.0)
    size = torrent.meta.length
    assert torrent.released(0, size) == size - HOLD_BACK_BYTES
    assert torrent.released(size - 5, size) == size - 5
    torrent.set_verified(2.0)
    assert torrent.released(size - 5, size) == size


def test_readers_wait_for_their_piece_only(torrent, reader):
    first, third = waiting(reader, 0, 10), waiting(reader, 2 * PIECE, 2 * PIECE + 10)
    torrent.piece_ready(2, "peer", 1.0)
    assert (first, third) == ([], [2 * PIECE + 10])
    torrent.piece_ready(0, "http", 1.0)
    assert first == [10]
    assert torrent.bytes_by_source == {"peer": PIECE, "origin": 0, "http": PIECE}


def test_where_a_reader_stands_is_told_when_it_changes(torrent, reader, events):
    waiting(reader, 0, torrent.meta.length)
    torrent.piece_ready(0, "peer", 1.0)
    waiting(reader, 100, torrent.meta.length)
    waiting(reader, PIECE, torrent.meta.length)
    assert events == [
        ReaderWants(torrent.info_hash, 5, 0, 5),
        ReaderWants(torrent.info_hash, 5, 1, 5),
    ]
    reader.close()
    assert events[2:] == [ReaderGone(torrent.info_hash, 5)]


def test_a_reader_that_stopped_waiting_is_forgotten(torrent, reader):
    from twisted.internet.defer import Deferred

    waiter = Deferred.fromCoroutine(reader.wait(0, 10))
    waiter.addErrback(lambda _: None)
    waiter.cancel()
    torrent.piece_ready(0, "peer", 1.0)


def test_a_download_that_stands_still_ends_the_wait(torrent, reader, clock):
    result = waiting(reader, 0, 10)
    clock.advance(50)
    torrent.piece_ready(3, "peer", clock.seconds())
    clock.advance(50)
    assert result == [], "something came in the last minute"
    clock.advance(60)
    assert isinstance(error_of(result), Unavailable)


def test_hashing_is_no_standstill(torrent, reader, clock):
    for piece in range(5):
        torrent.piece_ready(piece, "peer", 0.0)
    torrent.verifying = True
    result = waiting(reader, torrent.meta.length - 1, torrent.meta.length)
    clock.advance(300)
    assert result == []
    torrent.set_verified(clock.seconds())
    assert result == [torrent.meta.length]


def test_a_lie_ends_the_readers_of_that_time_and_no_others(torrent, reader, events, clock):
    torrent.piece_ready(0, "peer", 0.0)
    in_cache = torrent.in_cache()
    lie = Corrupt("sha256:a", "sha256:b")
    result = waiting(reader, PIECE, PIECE + 1)
    torrent.corrupted(lie)
    assert error_of(result) is lie
    torrent.piece_ready(0, "peer", 0.0)
    assert error_of(waiting(reader, 0, 1)) is lie
    later = ArrivingBlob(torrent, 6, events.append, clock, stall_s=60.0)
    assert waiting(later, 0, 1) == [1]
    later.close()
    assert not in_cache.called


def test_who_comes_after_a_lie_waits_for_what_is_wrong_only(torrent, events, clock):
    for piece in range(5):
        torrent.piece_ready(piece, "peer", 1.0)
    torrent.corrupted(Corrupt("a", "b"))
    later = ArrivingBlob(torrent, 6, events.append, clock, stall_s=60.0)
    right, wrong = waiting(later, 0, PIECE), waiting(later, PIECE, 2 * PIECE)
    assert right == wrong == []
    torrent.drop_pieces(Bitfield.of(5, [1]))
    assert (right, wrong) == ([PIECE], [])
    torrent.piece_ready(1, "peer", 2.0)
    assert wrong == [2 * PIECE]
    later.close()


def test_failure_reaches_all_who_wait_and_all_who_come(torrent, reader):
    results = [waiting(reader, 0, 1), waiting(reader, 3 * PIECE, 3 * PIECE + 1)]
    in_cache = torrent.in_cache()
    errors = []
    in_cache.addErrback(errors.append)
    torrent.failed(Unavailable("the swarm", "gone"))
    assert [str(error_of(result)) for result in results] == ["the swarm is unavailable: gone"] * 2
    assert len(errors) == 1
    assert isinstance(error_of(waiting(reader, 0, 1)), Unavailable)


def test_what_was_verified_can_be_read_after_a_failure(torrent, reader):
    torrent.piece_ready(0, "peer", 0.0)
    torrent.failed(Unavailable("the swarm", "gone"))
    assert waiting(reader, 0, 10) == [10]


def test_a_closed_reader_reads_nothing(reader):
    reader.close()
    assert isinstance(error_of(waiting(reader, 0, 1)), NotFound)
    with pytest.raises(NotFound):
        reader.fileno()


def test_the_file_stays_open_while_it_is_used(torrent, partial):
    torrent.hold()
    torrent.hold()
    torrent.close()
    torrent.release()
    assert partial.closed == 0
    torrent.release()
    assert partial.closed == 1
    torrent.close()
    assert partial.closed == 1


def test_readers_keep_a_file_of_their_own(torrent, reader):
    os.pwrite(torrent.fileno(), b"bytes", 0)
    torrent.close()
    assert os.pread(reader.fileno(), 5, 0) == b"bytes"


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (OSError(28, "full"), OutOfSpace),
        (OSError(122, "quota"), OutOfSpace),
        (OSError(5, "broken"), Unavailable),
        (OutOfSpace("/x"), OutOfSpace),
    ],
)
def test_what_the_disk_said_is_what_clients_get(torrent, trouble, kind):
    torrent.storage_trouble(trouble)
    assert isinstance(torrent.error_of("the disk refused"), kind)


def test_progress_makes_old_trouble_forgotten(torrent):
    torrent.trouble = NotFound("blob", "x")
    torrent.piece_ready(0, "peer", 0.0)
    assert isinstance(torrent.error_of("nothing came"), Unavailable)


def test_a_cached_blob_is_all_there(partial):
    torrent = Torrent(partial.meta, "", partial, None, 0.0)
    assert torrent.have.complete
    assert torrent.released(0, 100) == 100
    assert torrent.in_cache().called
    torrent.close()


def test_who_gives_up_waiting_leaves_no_trace(torrent):
    for _ in range(100):
        for waiter in (torrent.changed(0), torrent.changed(4 * PIECE + 1), torrent.in_cache()):
            waiter.addErrback(lambda failure: failure.trap(CancelledError))
            waiter.cancel()
    assert not any(torrent._waiting.values())
    assert torrent._waiting_commit == []


def test_one_reader_may_end_another(torrent):
    first, second = torrent.changed(0), torrent.changed(0)
    second.addErrback(lambda failure: failure.trap(CancelledError))
    first.addCallback(lambda _result: second.cancel())
    third = torrent.changed(0)
    torrent.piece_ready(0, "peer", 1.0)
    assert first.called and second.called and third.called


def test_a_blob_in_the_cache_is_not_waited_for(torrent):
    torrent.set_committed()
    assert torrent.in_cache().called
