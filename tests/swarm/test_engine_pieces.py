"""Asking, receiving, giving; time-outs; the end of a download."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from attrs import evolve

from krakentx.swarm import effects as fx
from krakentx.swarm import events as ev
from krakentx.swarm.config import DispatchConfig, FallbackConfig, SwarmConfig
from krakentx.swarm.events import FetchProblem, Lost, ReaderID
from krakentx.wire.messages import AnnouncePiece, CancelPiece, Complete, PieceError, PiecePayload, PieceRequest

LENGTH = 1 << 20
FULL = (1 << 10) - 1
FULL20 = (1 << 20) - 1
Make = Callable[..., Any]


def test_the_rarest_piece_comes_first(lab: Make) -> None:
    it = lab()
    it.add()
    it.accept(1, FULL & ~0b1000 & ~1)
    it.accept(2, FULL & ~0b1000 & ~1)
    _, effects = it.accept(3, 0b1001)
    assert sorted(it.asked(effects)) == [0, 3]


def test_ties_are_broken_by_chance(lab: Make) -> None:
    first = set()
    for seed in range(20):
        it = lab()
        it.engine._desk.rng.seed(seed)
        it.add()
        first.add(it.asked(it.accept(1, FULL)[1])[0])
    assert len(first) > 5


def test_no_piece_is_asked_of_two_peers_before_the_endgame(lab: Make) -> None:
    it = lab()
    it.add()
    pieces = [piece for number in range(1, 5) for piece in it.asked(it.accept(number, FULL)[1])]
    assert len(pieces) == len(set(pieces)) == 8


@pytest.mark.parametrize("outcome", ["good", "corrupt", "refused", "duplicate", "lost", "timeout", "clean"])
def test_the_pipeline_is_refilled_after_every_outcome(lab: Make, outcome: str) -> None:
    it = lab()
    it.add()
    conn, effects = it.accept(1, FULL, ours=False)
    first, second = it.asked(effects)
    other, _ = it.accept(2, 0)
    it.say(other, AnnouncePiece(first))
    if outcome == "good":
        assert len(it.asked(it.deliver(conn, first), conn)) == 1
    elif outcome == "refused":
        effects = it.say(conn, PieceError(first, "piece not complete"))
        assert it.asked(effects, other) == [first]
        assert len(it.asked(effects, conn)) == 1
    elif outcome == "duplicate":
        other, effects = it.accept(3, FULL)
        it.engine._desk.conns[other].late = 1 << second
        effects = it.deliver(other, second) + it.payload(conn, second)
        assert it.only(effects, fx.SkipPayload)
        assert it.asked(effects, conn)
    elif outcome == "timeout":
        effects = it.wait(4.5)
        assert first in it.asked(effects, other)
    else:
        if outcome == "corrupt":
            effects = it.deliver(conn, first, good=False)
        else:
            effects = it.lose(conn, Lost.RESET if outcome == "lost" else Lost.CLEAN)
        assert first in it.asked(effects, other)


def test_a_new_piece_is_told_to_those_who_lack_it(lab: Make) -> None:
    it = lab()
    it.add()
    giver, effects = it.accept(1, FULL)
    lacking, _ = it.accept(2, 0)
    piece = it.asked(effects)[0]
    it.accept(3, 1 << piece)
    effects = it.deliver(giver, piece)
    told = [send.conn for send in it.only(effects, fx.Send) if send.message == AnnouncePiece(piece)]
    assert told == [lacking]
    assert it.only(effects, fx.PieceReady) == [fx.PieceReady(it.torrent, piece, "peer")]


def test_a_queued_request_moves_to_an_idle_peer_with_a_cancel_and_only_between_our_own(lab: Make) -> None:
    for ours in (True, False):
        it = lab()
        it.add()
        busy, effects = it.accept(1, FULL, ours=ours)
        queued = it.asked(effects)
        it.wait(0.05)
        idle, effects = it.accept(2, 0)
        effects = [effect for piece in queued for effect in it.say(idle, AnnouncePiece(piece))]
        cancelled = [m.index for m in it.sent(effects, CancelPiece, busy)]
        assert it.asked(effects, idle) == cancelled
        assert len(cancelled) == (1 if ours else 0), "one move, since then the peer is not idle any more"


def test_a_request_that_may_have_begun_is_not_moved(lab: Make) -> None:
    it = lab()
    it.add()
    busy, effects = it.accept(1, FULL)
    first, second = it.asked(effects)
    it.wait(0.05)
    it.payload(busy, first)
    idle, _ = it.accept(2, 0)
    assert it.asked(it.say(idle, AnnouncePiece(first)), idle) == []
    assert it.asked(it.say(idle, AnnouncePiece(second)), idle) == [second]
    # It had begun all the same: the first to come is taken, the other is not needed.
    it.tell(ev.PieceArrived(busy, first, True))
    effects = it.payload(busy, second)
    assert it.only(effects, fx.ReceivePiece)
    assert it.sent(effects, CancelPiece, idle) == [CancelPiece(second)]


def test_endgame_asks_for_at_most_two_copies_and_cancels_the_slower(lab: Make) -> None:
    it = lab(pieces=1, config=SwarmConfig(dispatch=DispatchConfig(move_requests=False)))
    it.add()
    conns = [it.accept(number, 1)[0] for number in range(1, 6)]
    effects = it.wait(3.0)
    assert len(it.asked(it.seen)) == 2
    second = it.only(effects, fx.Send)[0].conn
    effects = it.payload(second, 0)
    assert it.sent(effects, CancelPiece, conns[0]) == [CancelPiece(0)]
    assert it.only(it.payload(conns[0], 0), fx.SkipPayload), "too late: dropped, not written twice"
    assert it.only(it.tell(ev.PieceArrived(second, 0, True)), fx.VerifyBlob)


@pytest.mark.parametrize("length", [LENGTH - 1, 0, LENGTH + 1])
def test_a_payload_of_another_length_closes_and_bans(lab: Make, length: int) -> None:
    it = lab()
    it.add()
    conn, effects = it.accept(1, FULL)
    effects = it.payload(conn, it.asked(effects)[0], length)
    assert it.only(effects, fx.Close)
    assert it.only(effects, fx.Ban)


def test_unsolicited_payloads_are_skipped_then_punished(lab: Make) -> None:
    it = lab()
    it.add()
    conn, _ = it.accept(1, 0)
    for _ in range(3):
        assert it.only(it.payload(conn, 5), fx.SkipPayload)
    effects = it.payload(conn, 5)
    assert it.only(effects, fx.Close)
    assert it.only(effects, fx.Ban)
    assert it.only(it.payload(conn, 5), fx.Close), "an unknown connection is closed"


def test_a_piece_has_one_writer_at_a_time(lab: Make) -> None:
    it = lab(pieces=1)
    it.add()
    first, _ = it.accept(1, 1)
    second, _ = it.accept(2, 1)
    it.wait(0.3)
    assert it.only(it.payload(first, 0), fx.ReceivePiece)
    assert it.only(it.payload(second, 0), fx.SkipPayload)
    it.lose(first, Lost.RESET)
    it.wait(0.1)
    assert it.only(it.payload(second, 0), fx.ReceivePiece)


def test_a_slow_last_piece_is_replaced_by_a_quicker_copy(lab: Make) -> None:
    it = lab(pieces=1)
    it.add()
    slow, _ = it.accept(1, 1)
    quick, _ = it.accept(2, 1)
    it.payload(slow, 0)
    for _ in range(30):
        it.wait(0.1)
        it.tell(ev.PieceProgress(slow))
    assert it.asked(it.seen, quick) == [0]
    effects = it.payload(quick, 0)
    assert it.only(effects, fx.Close)[0].conn == slow
    assert it.only(effects, fx.ReceivePiece)[0].conn == quick


# ---- S30: nothing waits for ever


def test_s30_a_peer_that_takes_requests_and_never_answers(lab: Make) -> None:
    it = lab()
    it.add()
    mute, effects = it.accept(1, FULL, ours=False)
    wanted = it.asked(effects)
    good, _ = it.accept(2, FULL, ours=False)
    it.seen.clear()
    for _ in range(45):
        it.wait(0.1)
        for piece in list(it.engine._desk.conns[good].asked):
            it.deliver(good, piece)
    assert set(wanted) <= set(it.asked(it.seen, good)), "handed to another within the time of one request"
    assert it.only(it.seen, fx.VerifyBlob)
    assert it.only(it.wait(30.0), fx.Close)[0].conn == mute


def test_s30_a_piece_that_stalls_midway_is_given_up_after_two_seconds(lab: Make) -> None:
    it = lab()
    it.add()
    conn, effects = it.accept(1, FULL)
    piece = it.asked(effects)[0]
    other, _ = it.accept(2, FULL)
    it.payload(conn, piece)
    it.wait(1.0)
    it.tell(ev.PieceProgress(conn))
    assert not it.only(it.wait(1.9), fx.Close)
    effects = it.wait(0.2)
    assert it.only(effects, fx.Close)[0].conn == conn
    it.seen.clear()
    while pieces := list(it.engine._desk.conns[other].asked):
        it.deliver(other, pieces[0])
    assert piece in it.asked(it.seen, other)
    assert it.only(it.seen, fx.VerifyBlob)


def test_s30_a_peer_that_trickles_is_given_up_too(lab: Make) -> None:
    it = lab()
    it.add()
    conn, effects = it.accept(1, FULL)
    it.payload(conn, it.asked(effects)[0])
    closed = []
    for _ in range(400):
        it.tell(ev.PieceProgress(conn))
        closed = it.only(it.wait(0.1), fx.Close)
        if closed:
            break
    assert closed
    assert 15.0 < it.now < 18.0


@pytest.mark.parametrize(("takes_s", "doubled"), [(0.2, True), (1.5, False)])
def test_a_piece_is_slow_by_what_pieces_take(lab: Make, takes_s: float, doubled: bool) -> None:
    """Where all lines are full every piece takes seconds, and second copies would only fill them more."""
    it = lab(pieces=20)
    it.add()
    conn, _ = it.accept(1, FULL20)
    for piece in range(19):
        it.payload(conn, it.asked(it.seen, conn)[piece])
        it.wait(takes_s)
        it.tell(ev.PieceArrived(conn, it.asked(it.seen, conn)[piece], True))
    last = it.asked(it.seen, conn)[19]
    it.payload(conn, last)
    other, _ = it.accept(2, FULL20)
    for _ in range(30):
        it.tell(ev.PieceProgress(conn))
        it.wait(0.1)
    assert (last in it.asked(it.seen, other)) == doubled


def test_s30_all_requests_lost_at_once_are_asked_again(lab: Make) -> None:
    it = lab()
    it.add()
    conns = [it.accept(number, FULL)[0] for number in range(1, 5)]
    for conn in conns:
        it.lose(conn, Lost.RESET)
    load = it.engine.load()
    assert (load["requests"], load["connections"]) == (0, 0)
    _, effects = it.accept(9, FULL)
    assert len(it.asked(effects)) == 2


def test_s30_without_any_progress_the_download_fails_in_the_stated_time(lab: Make) -> None:
    it = lab(config=SwarmConfig(leecher_tti_s=20.0))
    it.add()
    effects = it.wait(20.1)
    assert it.only(effects, fx.Failed) == [fx.Failed(it.torrent, "torrent timed out")]
    assert it.engine.load()["torrents"] == 0
    assert it.engine.load()["alarms"] == 0


# ---- giving


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        (PieceRequest(0, 0, LENGTH - 1), "reading / writing chunk of piece not supported"),
        (PieceRequest(0, 1, LENGTH), "reading / writing chunk of piece not supported"),
        (PieceRequest(5, 0, LENGTH), "piece not complete"),
        (PieceRequest(10, 0, 0), "piece not complete"),
        (PieceRequest(10, 0, LENGTH), "reading / writing chunk of piece not supported"),
    ],
)
def test_requests_that_cannot_be_met_are_refused(lab: Make, request_: PieceRequest, problem: str) -> None:
    it = lab()
    it.add(0b11111)
    conn, _ = it.accept(1)
    assert it.sent(it.say(conn, request_), PieceError) == [PieceError(request_.index, problem)]


def test_a_piece_is_sent_and_a_cancelled_one_is_not(lab: Make) -> None:
    it = lab(dials=False)
    it.add(FULL, wanted=False)
    conn, _ = it.accept(1)
    assert it.only(it.say(conn, PieceRequest(0, 0, LENGTH)), fx.SendPiece) == [fx.SendPiece(conn, it.torrent, 0)]
    it.say(conn, PieceRequest(1, 0, LENGTH))
    it.say(conn, PieceRequest(2, 0, LENGTH))
    it.say(conn, CancelPiece(1))
    it.tell(ev.PieceSendBegan(conn, 0))
    assert it.only(it.tell(ev.PieceSent(conn, 0)), fx.SendPiece) == [fx.SendPiece(conn, it.torrent, 2)]


# ---- the end


def test_complete_blobs_are_verified_told_and_announced(lab: Make) -> None:
    it = lab(pieces=1)
    it.add()
    giver, _ = it.accept(1, 1)
    taker, _ = it.accept(2, 0)
    assert it.only(it.deliver(giver, 0), fx.VerifyBlob) == [fx.VerifyBlob(it.torrent)]
    it.offer()
    effects = it.tell(ev.BlobVerified(it.torrent)) + it.wait(0.1)
    assert it.only(effects, fx.Finished)
    assert [close.conn for close in it.only(effects, fx.Close)] == [giver]
    assert it.sent(effects, Complete, taker)
    assert it.only(effects, fx.Announce) == [fx.Announce(it.torrent, complete=True)]


def test_a_blob_of_no_piece_is_complete_at_once(lab: Make) -> None:
    it = lab(pieces=0)
    assert it.only(it.add(), fx.VerifyBlob)
    assert it.only(it.tell(ev.BlobVerified(it.torrent)), fx.Finished)
    it = lab(pieces=0)
    it.add(wanted=False)
    assert it.engine.stats(it.torrent).complete


def test_a_partial_blob_is_given_but_not_completed_until_somebody_wants_it(lab: Make) -> None:
    it = lab()
    it.add(0b11, wanted=False)
    conn, effects = it.accept(1, FULL)
    assert it.asked(effects) == []
    assert it.only(it.say(conn, PieceRequest(0, 0, LENGTH)), fx.SendPiece)
    assert len(it.asked(it.add(0b11))) == 2


def test_a_corrupt_blob_is_fetched_again_with_care_and_not_for_ever(lab: Make) -> None:
    it = lab(pieces=2)
    it.add()
    for attempt in range(3):
        conn, _ = it.accept(10 + attempt, 0b11)
        it.deliver(conn, 0)
        assert it.only(it.deliver(conn, 1), fx.VerifyBlob)
        effects = it.tell(ev.BlobCorrupt(it.torrent))
        if attempt < 2:
            assert it.only(effects, fx.Ban)[0].peer == it.id(10 + attempt)
            assert it.engine.stats(it.torrent).pieces_here == 0
            it.wait(16.0)  # no origin gives anything: agents again
    assert it.only(effects, fx.Failed) == [fx.Failed(it.torrent, "the blob does not hash to its name")]
    assert it.engine.load()["torrents"] == 0


def test_a_corrupt_blob_comes_by_http_the_second_time_and_from_peers_when_that_fails(lab: Make) -> None:
    it = lab(pieces=2, fallback=True)
    it.add()
    conn, _ = it.accept(1, 0b11)
    it.deliver(conn, 0)
    it.deliver(conn, 1)
    effects = it.tell(ev.BlobCorrupt(it.torrent))
    fetch = it.only(effects, fx.FetchFromOrigin)[0]
    assert fetch.pieces == (0, 1)
    other, effects = it.accept(2, 0b11)
    assert it.asked(effects) == []
    it.tell(ev.FetchEnded(it.torrent, fetch.pieces, FetchProblem.UNAVAILABLE))
    for _ in range(9):
        for again in it.only(it.wait(2.0), fx.FetchFromOrigin):
            it.tell(ev.FetchEnded(it.torrent, again.pieces, FetchProblem.UNAVAILABLE))
    assert sorted(it.asked(it.seen, other)) == [0, 1]


@pytest.mark.parametrize("event", ["removed", "storage"])
def test_removal_and_a_full_disk_end_the_download(lab: Make, event: str) -> None:
    it = lab()
    it.add()
    it.accept(1, FULL)
    gone = ev.TorrentRemoved(it.torrent) if event == "removed" else ev.StorageFailed(it.torrent, "disk full")
    effects = it.tell(gone)
    assert len(it.only(effects, fx.Failed)) == 1
    assert it.only(effects, fx.Close)
    load = it.engine.load()
    assert (load["torrents"], load["connections"], load["requests"], load["alarms"]) == (0, 0, 0, 0)


def test_an_idle_seeder_is_put_away(lab: Make) -> None:
    it = lab(config=SwarmConfig(seeder_tti_s=10.0))
    it.add(FULL, wanted=False)
    assert it.only(it.wait(10.1), fx.Forget) == [fx.Forget(it.torrent)]
    assert it.engine.load()["torrents"] == 0


def test_an_evicted_blob_begins_anew(lab: Make) -> None:
    it = lab()
    it.add(FULL, wanted=False)
    it.add(0)
    assert it.engine.stats(it.torrent).pieces_here == 0
    assert not it.engine.stats(it.torrent).complete


# ---- readers and HTTP


def test_the_pieces_in_front_of_a_reader_come_first_but_not_only_they(lab: Make) -> None:
    it = lab()
    it.add()
    it.tell(ev.ReaderWants(it.torrent, ReaderID(1), 6, 10))
    _, effects = it.accept(1, FULL)
    assert it.asked(effects)[0] == 6
    _, effects = it.accept(2, FULL)
    assert it.asked(effects)[0] == 7
    it.tell(ev.ReaderGone(it.torrent, ReaderID(1)))
    assert it.engine._desk.torrents[it.torrent].readers == {}


def test_http_begins_when_the_swarm_gives_nothing_and_stops_when_it_gives(lab: Make) -> None:
    it = lab(pieces=200, fallback=True)
    it.add()
    it.tell(ev.ReaderWants(it.torrent, ReaderID(1), 40, 200))
    assert not it.only(it.wait(1.4), fx.FetchFromOrigin)
    fetches = it.only(it.wait(0.2), fx.FetchFromOrigin)
    assert [fetch.pieces for fetch in fetches] == [(40, 41, 42, 43), (44, 45, 46, 47)], (
        "the reader's pieces, two fetches"
    )
    for piece in fetches[0].pieces:
        assert it.only(it.tell(ev.PieceFetched(it.torrent, piece)), fx.PieceReady)[0].source == "http"
    more = it.only(it.tell(ev.FetchEnded(it.torrent, fetches[0].pieces)), fx.FetchFromOrigin)
    assert len(more[0].pieces) == 8, "quick: the next one is larger"
    conn, effects = it.accept(1, (1 << 200) - 1)
    pieces = it.asked(effects)
    assert not set(pieces) & set(range(40, 56)), "never what a fetch is writing"
    stopped = it.only(it.deliver(conn, pieces[0]), fx.StopFetch)
    assert {stop.pieces for stop in stopped} == {fetches[1].pieces, more[0].pieces}, "peers have them soon enough"
    assert not it.only(it.deliver(conn, pieces[1]), fx.StopFetch), "told once"
    effects = it.tell(ev.FetchEnded(it.torrent, fetches[1].pieces, FetchProblem.UNAVAILABLE))
    assert not it.only(effects, fx.FetchFromOrigin), "the swarm gives again"
    assert set(it.asked(effects)) <= set(range(40, 56)), "and what was held is asked of peers"
    again = it.only(it.wait(1.6), fx.FetchFromOrigin)
    assert len(again[0].pieces) == 8, "a fetch that was stopped says nothing of the source"


def test_http_begins_on_the_dot(lab: Make) -> None:
    it = lab(fallback=True, config=SwarmConfig(fallback=FallbackConfig(after_s=0.7)))
    it.add()
    assert not it.only(it.wait(0.69), fx.FetchFromOrigin)
    assert it.only(it.wait(0.02), fx.FetchFromOrigin)


def test_http_takes_over_what_was_asked_of_stalled_peers(lab: Make) -> None:
    it = lab(pieces=2, fallback=True)
    it.add()
    conn, _ = it.accept(1, 0b11)
    effects = it.wait(2.1)
    assert it.only(effects, fx.FetchFromOrigin)[0].pieces == (0, 1)
    assert len(it.sent(effects, CancelPiece, conn)) == 2
    assert it.only(it.payload(conn, 0), fx.SkipPayload), "the fetch is writing it"


def test_http_is_left_alone_for_a_while_when_it_fails(lab: Make) -> None:
    config = SwarmConfig(fallback=FallbackConfig(parallel=1))
    it = lab(fallback=True, config=config)
    it.add()
    times = []
    for _ in range(4):
        while not (fetch := it.only(it.wait(0.1), fx.FetchFromOrigin)):
            pass
        times.append(it.now)
        it.tell(ev.FetchEnded(it.torrent, fetch[0].pieces, FetchProblem.UNAVAILABLE))
    pauses = [b - a for a, b in pairwise(times)]
    assert pauses[0] >= 1.0
    assert pauses[1] >= 2.0
    assert pauses[2] >= 4.0


def test_without_fallback_there_is_never_a_fetch(lab: Make) -> None:
    it = lab()
    it.add()
    assert not it.only(it.wait(30.0), fx.FetchFromOrigin)


def test_an_origin_is_spared_while_agents_deliver_and_used_when_they_do_not(lab: Make) -> None:
    it = lab(pieces=64)
    it.add()
    agent, effects = it.accept(1, (1 << 63) - 1)
    dial = it.only(it.offer(it.peer(2, origin=True)), fx.Dial)[0]
    for piece in it.asked(effects):
        effects = it.deliver(agent, piece)
    for _ in range(20):
        for piece in list(it.engine._desk.conns[agent].asked):
            it.deliver(agent, piece)
    it.tell(ev.DialSucceeded(dial.conn))
    effects = it.tell(ev.HandshakeReceived(dial.conn, it.handshake(2, (1 << 64) - 1)))
    assert it.asked(effects, dial.conn) == [63], "what no agent has"
    it.deliver(dial.conn, 63)
    assert len(it.asked(it.wait(0.2), dial.conn)) == 1, "one at a time of the rest"


@pytest.mark.parametrize(("took_s", "brought", "rest_s"), [(0.1, 4, 0.4), (1.0, 9, 2.0), (0.1, 0, 0.05)])
def test_an_origin_rests_the_longer_the_more_agents_bring(
    lab: Make, took_s: float, brought: int, rest_s: float
) -> None:
    it = lab(pieces=64)
    it.add()
    agent, _ = it.accept(1, (1 << 64) - 1 - (1 << 63))
    dial = it.only(it.offer(it.peer(2, origin=True)), fx.Dial)[0]
    asked = it.engine._desk.conns[agent].asked
    for _ in range(20):
        it.deliver(agent, next(iter(asked)))
    it.tell(ev.DialSucceeded(dial.conn))
    it.tell(ev.HandshakeReceived(dial.conn, it.handshake(2, (1 << 64) - 1)))
    it.tell(ev.PayloadOffered(dial.conn, PiecePayload(63, 0, LENGTH)))
    for _ in range(brought):
        it.deliver(agent, next(iter(asked)))
    it.now += took_s
    effects = it.tell(ev.PieceArrived(dial.conn, 63, True))
    assert not it.asked(effects, dial.conn)
    assert not it.asked(it.wait(rest_s - 0.01), dial.conn)
    assert it.asked(it.wait(0.02), dial.conn)


def test_every_payload_gets_exactly_one_answer(lab: Make) -> None:
    it = lab()
    it.add()
    for payload in (PiecePayload(0, 0, LENGTH), PiecePayload(0, 1, LENGTH), PiecePayload(99, 0, 0)):
        fresh, _ = it.accept(2 + payload.index, 0)
        answers = [
            effect
            for effect in it.tell(ev.PayloadOffered(fresh, payload))
            if isinstance(effect, fx.ReceivePiece | fx.SkipPayload | fx.Close)
        ]
        assert [effect.conn for effect in answers] == [fresh]
    assert it.engine.configure(evolve(SwarmConfig(), conn_tti_s=1.0)) is None
