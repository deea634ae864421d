"""Whole peers on the loopback: an origin, agents, and what may go wrong between them."""

from __future__ import annotations

import os
import subprocess

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater

from krakentx.core.digest import Digest
from krakentx.core.errors import Corrupt, NotFound, OutOfSpace, Unavailable
from krakentx.core.metainfo import MetaInfo
from krakentx.core.peer import PeerID, PeerInfo
from krakentx.peer import links
from krakentx.storage.interfaces import IBlobReader
from krakentx.swarm.config import BandwidthConfig, ConnConfig, FallbackConfig, SwarmConfig
from tests.peer.swarm import FakeAnnouncer, FakeFallback, read_all, until

pytestmark = pytest.mark.integration

MIB = 1 << 20
QUICK = SwarmConfig(fallback=FallbackConfig(after_s=0.2))


@pytest_twisted.async_yield_fixture
async def origin(peer):
    """An origin that is running."""
    yield await peer(origin=True)


@pytest.fixture
def publish(origin, tracker):
    """Let the origin hold a blob, and the tracker tell of it."""

    async def run(blob):
        await origin.keep(blob)
        tracker.seed(origin.scheduler, blob)
        return blob

    return run


async def all_of(*work):
    return await gatherResults([Deferred.fromCoroutine(each) for each in work], consumeErrors=True)


def lines(logs):
    return [event["log_format"].format(**event) for event in logs if event.get("log_format")]


# ---- the good way


@pytest.mark.parametrize(
    ("size", "piece"),
    [(1, MIB), (MIB, MIB), (10 * MIB + 5, MIB), (300_000, 1000), (66 * MIB, 64 * MIB)],
)
@pytest_twisted.ensureDeferred
async def test_an_agent_gets_a_blob_from_an_origin(origin, peer, publish, blob, logs, size, piece):
    blob = await publish(blob(size, piece))
    agent = await peer()
    assert await agent.read(blob) == blob.data
    await agent.scheduler.download("ns", blob.digest)
    with agent.cache.open(blob.digest) as cached:
        assert os.pread(cached.fileno(), size + 1, 0) == blob.data
    assert agent.cache.metainfo(blob.digest) == blob.meta
    sent = origin.scheduler.counters
    assert sent.sent_sendfile_bytes >= size
    assert sent.sent_copy_bytes == 0
    assert agent.scheduler.counters.received_peers_bytes == size


@pytest_twisted.ensureDeferred
async def test_the_log_tells_what_operators_look_for(origin, peer, publish, blob, logs):
    blob = await publish(blob(3 * MIB))
    agent = await peer()
    await agent.scheduler.download("ns", blob.digest)
    await until(lambda: agent.scheduler.counters.completed == 1)
    text = lines(logs)
    for pattern in ("Added new torrent", "Added pending conn", "Moved conn from pending to active"):
        assert any(pattern in line for line in text), pattern
    [complete] = [line for line in text if "Torrent complete" in line]
    for part in (str(blob.digest), "downloaded 3145728 bytes in ", " s, speed ", "100% from peers, 0% from fallback"):
        assert part in complete


@pytest_twisted.ensureDeferred
async def test_a_blob_of_no_bytes_is_there_at_once(peer, tracker, blob, logs):
    blob = blob(0)
    tracker.metas[blob.digest] = blob.meta
    agent = await peer()
    assert await agent.read(blob) == b""
    await agent.scheduler.download("ns", blob.digest)
    assert agent.cache.stat(blob.digest) == 0


@pytest_twisted.ensureDeferred
async def test_many_agents_share_and_the_origin_is_spared(origin, peer, publish, blob, logs):
    blob = await publish(blob(12 * MIB))
    agents = [await peer() for _ in range(6)]
    assert await all_of(*(agent.read(blob) for agent in agents)) == [blob.data] * 6
    assert sum(agent.scheduler.counters.sent_bytes for agent in agents) > 0
    assert origin.scheduler.counters.sent_bytes < 6 * len(blob.data)


@pytest_twisted.ensureDeferred
async def test_agents_give_when_the_origin_has_gone(origin, peer, publish, blob, logs):
    blob = await publish(blob(5 * MIB))
    first, second = await peer(), await peer()
    await first.scheduler.download("ns", blob.digest)
    await origin.scheduler.stopService()
    assert await second.read(blob) == blob.data
    assert first.scheduler.counters.sent_sendfile_bytes == len(blob.data)


@pytest_twisted.ensureDeferred
async def test_a_cached_blob_is_seeded_after_a_restart(origin, peer, publish, blob, tracker, logs):
    blob = await publish(blob(3 * MIB))
    first = await peer()
    await first.scheduler.download("ns", blob.digest)
    await first.scheduler.stopService()
    again = await peer(root=first.root)
    assert again.scheduler.torrent_count == 0
    tracker.peers.clear()
    tracker.seed(again.scheduler, blob)
    second = await peer()
    assert await second.read(blob) == blob.data
    assert again.scheduler.torrent_count == 1


@pytest_twisted.ensureDeferred
async def test_ipv6(peer, tracker, blob, logs):
    blob = blob(3 * MIB)
    origin = await peer(origin=True, ip="::1", interface="")
    await origin.keep(blob)
    tracker.seed(origin.scheduler, blob)
    agent = await peer(interface="::1")
    assert await agent.read(blob) == blob.data
    assert any(f"[::1]:{origin.scheduler.port_number}" in line for line in lines(logs))


@pytest_twisted.ensureDeferred
async def test_a_name_is_resolved(peer, tracker, blob, logs):
    blob = blob(3 * MIB)
    origin = await peer(origin=True, ip="localhost", interface="")
    await origin.keep(blob)
    tracker.seed(origin.scheduler, blob)
    assert await (await peer()).read(blob) == blob.data


@pytest_twisted.ensureDeferred
async def test_simultaneous_dials_keep_one_connection(peer, tracker, blob, logs):
    """Each has what the other lacks, and both dial in the same moment."""
    blob = blob(8 * MIB)
    agents = [await peer(), await peer()]
    for agent, own in zip(agents, (range(4), range(4, 8)), strict=True):
        tracker.seed(agent.scheduler, blob)
        partial = await agent.partials.open(blob.meta)
        for piece in own:
            os.pwrite(partial.fileno(), blob.data[piece * MIB : (piece + 1) * MIB], piece * MIB)
            partial.mark(piece)
        partial.close()
    assert await all_of(*(agent.read(blob) for agent in agents)) == [blob.data] * 2
    assert [agent.scheduler.counters.dials for agent in agents] == [1, 1]
    assert [agent.scheduler.counters.received_peers_bytes for agent in agents] == [4 * MIB] * 2
    assert [agent.engine.blacklist(reactor.seconds()) for agent in agents] == [[], []]


@pytest_twisted.ensureDeferred
async def test_bandwidth_limits_hold(peer, origin, publish, blob, logs):
    blob = await publish(blob(2 * MIB))
    limit = BandwidthConfig(enable=True, ingress_bits_per_sec=8 * 4 * MIB, egress_bits_per_sec=8 * 4 * MIB)
    agent = await peer(config=SwarmConfig(conn=ConnConfig(bandwidth=limit)))
    began = reactor.seconds()
    await agent.scheduler.download("ns", blob.digest)
    assert 0.3 < reactor.seconds() - began < 2


# ---- several who ask


@pytest_twisted.ensureDeferred
async def test_many_readers_share_one_download(origin, peer, publish, blob, tracker, logs):
    blob = await publish(blob(6 * MIB))
    tracker.delay_s = 0.05
    agent = await peer()
    assert await all_of(*(agent.read(blob) for _ in range(10))) == [blob.data] * 10
    assert tracker.metainfo_calls == 1
    assert agent.scheduler.counters.received_peers_bytes == len(blob.data)


@pytest_twisted.ensureDeferred
async def test_a_reader_that_hangs_up_does_not_stop_the_download(origin, peer, publish, blob, tracker, logs):
    blob = await publish(blob(6 * MIB))
    tracker.delay_s = 0.05
    agent = await peer()
    hasty = Deferred.fromCoroutine(agent.scheduler.open("ns", blob.digest))
    hasty.addErrback(lambda _failure: None)
    hasty.cancel()
    await until(lambda: agent.cache.stat(blob.digest) == len(blob.data))


@pytest_twisted.ensureDeferred
async def test_closing_a_reader_midway_lets_the_others_read_on(origin, peer, publish, blob, logs):
    blob = await publish(blob(6 * MIB))
    agent = await peer()
    first = await agent.scheduler.open("ns", blob.digest)
    second = await agent.scheduler.open("ns", blob.digest)
    await first.wait(0, 1)
    first.close()
    first.close()
    with pytest.raises(NotFound):
        await first.wait(MIB, 2 * MIB)
    assert await read_all(second) == blob.data


@pytest_twisted.ensureDeferred
async def test_a_range_is_read_without_what_lies_before(origin, peer, publish, blob, logs):
    blob = await publish(blob(20 * MIB))
    agent = await peer()
    reader = await agent.scheduler.open("ns", blob.digest)
    end = await reader.wait(15 * MIB, 15 * MIB + 100)
    assert end == 15 * MIB + 100
    assert os.pread(reader.fileno(), 100, 15 * MIB) == blob.data[15 * MIB : 15 * MIB + 100]
    reader.close()


@pytest_twisted.ensureDeferred
async def test_a_reader_outlives_the_removal_of_a_complete_blob(origin, peer, publish, blob, logs):
    blob = await publish(blob(3 * MIB))
    agent = await peer()
    reader = await agent.scheduler.open("ns", blob.digest)
    await agent.scheduler.download("ns", blob.digest)
    assert await agent.scheduler.remove(blob.digest)
    assert await read_all(reader) == blob.data


# ---- errors


@pytest_twisted.ensureDeferred
async def test_absent_and_unavailable_are_told_apart(peer, tracker, blob, logs):
    agent = await peer()
    with pytest.raises(NotFound):
        await agent.scheduler.open("ns", Digest.of(b"nobody has it"))
    tracker.down = True
    with pytest.raises(Unavailable):
        await agent.scheduler.open("ns", Digest.of(b"nobody has it"))
    with pytest.raises(Unavailable):
        await agent.scheduler.download("ns", Digest.of(b"nobody has it"))


@pytest_twisted.ensureDeferred
async def test_an_origin_without_the_blob_says_so(origin, blob, logs):
    with pytest.raises(NotFound):
        await origin.scheduler.open("ns", blob(5).digest)


@pytest_twisted.ensureDeferred
async def test_metainfo_of_another_blob_is_not_believed(peer, tracker, blob, logs):
    wanted, other = blob(100), blob(200)
    tracker.metas[wanted.digest] = other.meta
    with pytest.raises(Unavailable, match="not of"):
        await (await peer()).scheduler.open("ns", wanted.digest)


@pytest_twisted.ensureDeferred
async def test_readers_of_a_silent_swarm_get_an_error_in_time(peer, tracker, blob, logs):
    blob = blob(2 * MIB)
    tracker.metas[blob.digest] = blob.meta
    agent = await peer(stall_s=0.3)
    with pytest.raises(Unavailable):
        await agent.read(blob)


@pytest_twisted.ensureDeferred
async def test_an_error_that_nobody_expected_in_a_dial_or_an_announce_is_like_any_other(
    peer, tracker, origin, publish, blob, logs, monkeypatch
):
    each = await publish(blob(2 * MIB))
    agent = await peer()
    monkeypatch.setattr(FakeAnnouncer, "announce", _broken(2, FakeAnnouncer.announce))
    monkeypatch.setattr(links, "dial", _broken(1, links.dial))
    assert await agent.read(each) == each.data
    assert agent.scheduler.counters.dial_failures == 1
    failures = [event for event in logs if "log_failure" in event]
    assert len(failures) == 3
    logs.clear()


def _broken(times: int, call):
    """An async function that fails a few times before it works."""
    left = [times]

    async def wrapped(*args, **kwargs):
        if left[0]:
            left[0] -= 1
            raise ZeroDivisionError
        return await call(*args, **kwargs)

    return wrapped


@pytest_twisted.ensureDeferred
async def test_a_refused_dial_is_told_with_its_address(peer, tracker, origin, publish, blob, logs):
    blob = await publish(blob(2 * MIB))
    port = origin.scheduler.port_number
    await origin.scheduler.stopService()
    agent = await peer(stall_s=0.3)
    with pytest.raises(Unavailable):
        await agent.read(blob)
    assert any("connection refused" in line and f"addr 127.0.0.1:{port}" in line for line in lines(logs))
    assert agent.scheduler.counters.dial_failures >= 1


@pytest_twisted.ensureDeferred
async def test_announces_that_fail_are_one_line_a_minute(peer, publish, blob, logs, monkeypatch):
    async def down(*_args, **_kwargs):
        raise Unavailable("tracker 127.0.0.1:15003", "is down")

    monkeypatch.setattr(FakeAnnouncer, "announce", down)
    agent = await peer(stall_s=0.3)
    for size in (MIB, 2 * MIB):
        with pytest.raises(Unavailable):
            await agent.read(await publish(blob(size)))
    told = [event["log_level"].name for event in logs if "announce of" in (event.get("log_format") or "")]
    assert len(told) >= 2 and told == ["warn"] + ["debug"] * (len(told) - 1)


def forged(blob):
    """Metainfo under which all sums match, and the whole does not hash to its name."""
    digest = Digest.of(b"something else")
    return evolve(
        blob, digest=digest, meta=MetaInfo(digest, blob.meta.length, blob.meta.piece_length, blob.meta.piece_sums)
    )


@pytest_twisted.ensureDeferred
async def test_a_forged_blob_is_never_finished(origin, peer, publish, blob, logs):
    blob = await publish(forged(blob(3 * MIB)))
    agent = await peer()
    reader = await agent.scheduler.open("ns", blob.digest)
    released = 0
    with pytest.raises(Corrupt):
        while True:
            released = await reader.wait(released, reader.size)
    assert released <= len(blob.data) - 64 * 1024
    reader.close()
    assert agent.cache.stat(blob.digest) is None
    logs[:] = [event for event in logs if "is corrupt" not in event.get("log_format", "")]


@pytest_twisted.ensureDeferred
async def test_small_blobs_are_held_back_whole_until_they_are_verified(origin, peer, publish, blob, logs):
    blob = await publish(forged(blob(50_000)))
    agent = await peer()
    with pytest.raises(Corrupt):
        await agent.read(blob)
    logs[:] = [event for event in logs if "is corrupt" not in event.get("log_format", "")]


@pytest_twisted.ensureDeferred
async def test_a_full_disk_is_told_and_the_process_lives_on(origin, peer, publish, blob, logs, monkeypatch):
    first, second = await publish(blob(3 * MIB)), await publish(blob(2 * MIB, seed=2))
    agent = await peer()

    def full(*_args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OutOfSpace):
            await agent.read(first)
    assert await agent.read(second) == second.data
    assert await agent.read(first) == first.data


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
@pytest_twisted.ensureDeferred
async def test_a_small_file_system(origin, peer, publish, blob, logs, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", small], check=False).returncode:
        pytest.skip("this machine does not let us mount")
    try:
        agent = await peer(root=small)
        too_large, blob = await publish(blob(16 * MIB)), await publish(blob(8 * MIB, seed=2))
        with pytest.raises(OutOfSpace):
            await agent.read(too_large)
        reader = await agent.scheduler.open("ns", blob.digest)
        filler = small / "other"
        try:
            with pytest.raises(OSError, match="space"):
                filler.write_bytes(bytes(12 * MIB))
            with pytest.raises(OutOfSpace):
                await read_all(reader)
        finally:
            filler.unlink()
        assert await agent.read(blob) == blob.data
        await agent.scheduler.stopService()
    finally:
        subprocess.run(["umount", "-l", small], check=True)


# ---- interruptions


@pytest_twisted.ensureDeferred
async def test_a_download_goes_on_after_a_restart(origin, peer, publish, blob, logs):
    blob = await publish(blob(20 * MIB))
    slow = BandwidthConfig(enable=True, ingress_bits_per_sec=8 * 20 * MIB)
    agent = await peer(config=SwarmConfig(conn=ConnConfig(bandwidth=slow)))
    reader = await agent.scheduler.open("ns", blob.digest)
    await reader.wait(4 * MIB, 4 * MIB + 1)
    waiting = Deferred.fromCoroutine(reader.wait(19 * MIB, 20 * MIB))
    await agent.scheduler.stopService()
    with pytest.raises(Unavailable):
        await waiting
    reader.close()
    again = await peer(root=agent.root)
    assert await again.read(blob) == blob.data
    assert again.scheduler.counters.received_peers_bytes < 20 * MIB


@pytest_twisted.ensureDeferred
async def test_peers_that_die_midway_are_replaced(peer, tracker, blob, logs):
    blob = blob(16 * MIB)
    slow = SwarmConfig(conn=ConnConfig(bandwidth=BandwidthConfig(enable=True, egress_bits_per_sec=8 * 16 * MIB)))
    seeds = [await peer(config=slow) for _ in range(3)]
    for seed in seeds:
        await seed.keep(blob)
        tracker.seed(seed.scheduler, blob)
    agent = await peer()
    reader = await agent.scheduler.open("ns", blob.digest)
    await reader.wait(0, 1)
    for seed in seeds[:2]:
        await seed.scheduler.stopService()
    assert await read_all(reader) == blob.data


@pytest_twisted.ensureDeferred
async def test_an_evicted_blob_is_fetched_again(origin, peer, publish, blob, logs):
    blob = await publish(blob(3 * MIB))
    agent = await peer()
    await agent.scheduler.download("ns", blob.digest)
    assert await agent.cache.delete(blob.digest)
    assert await agent.read(blob) == blob.data
    assert agent.scheduler.counters.received_peers_bytes == 2 * len(blob.data)


@pytest_twisted.ensureDeferred
async def test_removal_ends_a_download_and_deletes_its_bytes(peer, tracker, blob, logs):
    blob = blob(3 * MIB)
    tracker.metas[blob.digest] = blob.meta
    agent = await peer()
    reader = await agent.scheduler.open("ns", blob.digest)
    waiting = Deferred.fromCoroutine(reader.wait(0, 10))
    assert await agent.scheduler.remove(blob.digest)
    with pytest.raises(NotFound):
        await waiting
    reader.close()
    assert agent.scheduler.torrent_count == 0
    assert agent.partials.find(blob.digest) is None
    assert not await agent.scheduler.remove(blob.digest)
    assert agent.engine.load()["torrents"] == 0


@pytest_twisted.ensureDeferred
async def test_a_removed_blob_does_not_come_back_by_the_move_into_the_cache(origin, peer, publish, blob, monkeypatch):
    """A client has its last byte, and asks for the removal, before the move is through."""
    blob = await publish(blob(3 * MIB))
    agent = await peer()
    moves = []
    go_on: Deferred[None] = Deferred()
    move = agent.cache.commit

    async def slow(*args: object) -> None:
        moves.append(args)
        await go_on
        await move(*args)

    monkeypatch.setattr(agent.cache, "commit", slow)
    assert await agent.read(blob) == blob.data
    await until(lambda: moves)
    removal = Deferred.fromCoroutine(agent.scheduler.remove(blob.digest))
    await deferLater(reactor, 0.05)
    assert not removal.called
    go_on.callback(None)
    assert await removal
    assert agent.cache.stat(blob.digest) is None
    assert agent.partials.find(blob.digest) is None


@pytest_twisted.ensureDeferred
async def test_stopping_is_quick_and_leaves_nothing(origin, peer, publish, blob, logs):
    blob = await publish(blob(40 * MIB))
    slow = SwarmConfig(conn=ConnConfig(bandwidth=BandwidthConfig(enable=True, ingress_bits_per_sec=8 * MIB)))
    agent = await peer(config=slow)
    download = Deferred.fromCoroutine(agent.scheduler.download("ns", blob.digest))
    await until(lambda: agent.scheduler.connection_count == 1)
    began = reactor.seconds()
    await agent.scheduler.stopService()
    assert reactor.seconds() - began < 1
    with pytest.raises(Unavailable):
        await download
    with pytest.raises(Unavailable):
        await agent.scheduler.probe()
    with pytest.raises(Unavailable):
        await agent.scheduler.open("ns", blob.digest)
    await until(lambda: origin.scheduler.connection_count == 0)


# ---- fallback


@pytest_twisted.ensureDeferred
async def test_pieces_come_over_http_when_the_swarm_gives_nothing(peer, tracker, blob, logs):
    blob = blob(10 * MIB + 3)
    tracker.metas[blob.digest] = blob.meta
    source = FakeFallback({blob.digest: blob.data})
    agent = await peer(fallback=source, config=QUICK)
    assert await agent.read(blob) == blob.data
    assert agent.scheduler.counters.received_fallback_bytes == len(blob.data)
    await until(lambda: agent.scheduler.counters.completed == 1)
    assert any("0% from peers, 100% from fallback" in line for line in lines(logs))


@pytest_twisted.ensureDeferred
async def test_a_source_that_lies_is_not_believed(peer, tracker, blob, logs):
    blob = blob(4 * MIB)
    tracker.metas[blob.digest] = blob.meta
    source = FakeFallback({blob.digest: blob.data}, bad_from=2 * MIB + 5)
    agent = await peer(fallback=source, config=QUICK)
    reader = await agent.scheduler.open("ns", blob.digest)
    assert await reader.wait(0, 4 * MIB) > 0
    await until(lambda: any("did not come over HTTP" in line for line in lines(logs)))
    source.bad_from = None
    assert await read_all(reader) == blob.data


@pytest_twisted.ensureDeferred
async def test_a_source_without_the_blob_is_told_as_not_found(peer, tracker, blob, logs):
    blob = blob(4 * MIB)
    tracker.metas[blob.digest] = blob.meta
    agent = await peer(fallback=FakeFallback(), config=evolve(QUICK, leecher_tti_s=1.0))
    with pytest.raises(NotFound):
        await agent.read(blob)


@pytest_twisted.ensureDeferred
async def test_a_full_disk_while_pieces_come_over_http(peer, tracker, blob, logs, monkeypatch):
    blob = blob(4 * MIB)
    tracker.metas[blob.digest] = blob.meta
    agent = await peer(fallback=FakeFallback({blob.digest: blob.data}), config=QUICK)

    def full(*_args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OutOfSpace):
            await agent.read(blob)
    assert await agent.read(blob) == blob.data


# ---- bad peers


@pytest_twisted.ensureDeferred
async def test_a_liar_is_banned_and_the_blob_is_right(peer, tracker, origin, publish, blob, logs):
    blob = await publish(blob(8 * MIB))
    liar = await peer(origin=True)
    bad = bytearray(blob.data)
    for piece in range(8):
        bad[piece * MIB + 77] ^= 1
    await liar.keep(evolve(blob, data=bytes(bad)))
    tracker.seed(liar.scheduler, blob)
    agent = await peer()
    assert await agent.read(blob) == blob.data
    assert agent.scheduler.counters.corrupt_pieces == 1
    [(banned, torrent, remaining_s)] = agent.scheduler.blacklist()
    assert (banned, torrent) == (liar.scheduler.context.peer_id, blob.meta.info_hash)
    assert 20 < remaining_s <= 30
    assert any("banned" in line and str(banned) in line for line in lines(logs))


@pytest_twisted.ensureDeferred
async def test_a_dead_address_costs_little(peer, tracker, origin, publish, blob, logs):
    blob = await publish(blob(4 * MIB))
    for number in range(5):
        info = PeerInfo(PeerID(bytes([100 + number]) * 20), "192.0.2.1", 16001 + number, complete=True)
        tracker.peers[blob.meta.info_hash][info.peer_id] = info
    agent = await peer()
    began = reactor.seconds()
    assert await agent.read(blob) == blob.data
    assert reactor.seconds() - began < 2


@pytest_twisted.ensureDeferred
async def test_a_peer_that_is_someone_else_is_not_trusted(peer, tracker, origin, publish, blob, logs):
    blob = await publish(blob(MIB))
    [info] = tracker.peers[blob.meta.info_hash].values()
    tracker.peers[blob.meta.info_hash] = {PeerID(bytes([9]) * 20): evolve(info, peer_id=PeerID(bytes([9]) * 20))}
    agent = await peer(stall_s=0.5)
    with pytest.raises(Unavailable):
        await agent.read(blob)
    await until(lambda: origin.scheduler.connection_count == 0)


# ---- small things


@pytest_twisted.ensureDeferred
async def test_a_taken_port_is_told(peer, make_peer):
    first = await peer()
    second = make_peer(port=first.scheduler.port_number)
    with pytest.raises(CannotListenError):
        second.scheduler.startService()
    third = make_peer(port=first.scheduler.port_number, interface="")
    with pytest.raises(CannotListenError):
        third.scheduler.startService()


@pytest_twisted.ensureDeferred
async def test_settings_change_while_it_runs(origin, peer, publish, blob, logs):
    blob = await publish(blob(40 * MIB))
    slow = SwarmConfig(conn=ConnConfig(bandwidth=BandwidthConfig(enable=True, ingress_bits_per_sec=8 * MIB)))
    agent = await peer(config=slow)
    download = Deferred.fromCoroutine(agent.scheduler.download("ns", blob.digest))
    await deferLater(reactor, 0.1)
    agent.scheduler.configure(SwarmConfig())
    await download
    await agent.scheduler.probe()
    assert agent.scheduler.blacklist() == []


@pytest_twisted.ensureDeferred
async def test_readers_look_like_every_other_reader(origin, peer, publish, blob, logs):
    blob = await publish(blob(MIB))
    agent = await peer()
    for _ in range(2):
        reader: IBlobReader = await agent.scheduler.open("ns", blob.digest)
        assert (reader.digest, reader.size) == (blob.digest, MIB)
        assert await read_all(reader) == blob.data
        await agent.scheduler.download("ns", blob.digest)
