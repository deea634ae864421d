"""A peer that forges pieces: wrong bytes with the right CRC-32."""

from __future__ import annotations

import pytest
import pytest_twisted
from attrs import evolve
from isal.isal_zlib import crc32
from twisted.logger import formatEvent

from krakentx.core.errors import Corrupt
from tests.peer.swarm import MIB, Blob, until

# x^32 and the rest of the polynomial, first bit first: XORed into any place it leaves the CRC-32 as it is.
PATTERN = (1 | 0xEDB88320 << 1).to_bytes(5, "little")


def forged(blob: Blob, *pieces: int) -> Blob:
    """The blob with wrong bytes in some pieces, each of which still has its CRC-32."""
    data = bytearray(blob.data)
    for piece in pieces:
        at = blob.meta.offset(piece)
        data[at : at + 5] = bytes(a ^ b for a, b in zip(data[at : at + 5], PATTERN, strict=True))
        part = bytes(data[at : at + blob.meta.piece_size(piece)])
        assert crc32(part) == blob.meta.piece_sums[piece]
        assert part != blob.data[at : at + len(part)]
    return evolve(blob, data=bytes(data))


async def seed(peer, tracker, blob, **options):
    """A peer that is complete, and is named by the tracker."""
    each = await peer(**options)
    await each.keep(blob)
    tracker.seed(each.scheduler, blob)
    return each


@pytest_twisted.ensureDeferred
async def test_a_forger_is_found_out_at_its_first_piece_and_the_pull_goes_on(peer, tracker, blob, logs):
    blob = blob(16 * MIB)
    liar = await seed(peer, tracker, forged(blob, *range(16)))
    honest = await seed(peer, tracker, blob)
    agent = await peer()
    assert await agent.read(blob) == blob.data
    assert agent.scheduler.counters.corrupt_pieces == 1
    ((who, _torrent, _left),) = agent.scheduler.blacklist()
    assert who == liar.scheduler.context.peer_id != honest.scheduler.context.peer_id


@pytest_twisted.ensureDeferred
async def test_with_crc_alone_an_origin_tells_at_the_end_what_was_forged_and_only_that_comes_again(
    peer, tracker, blob, logs
):
    """The reader is cut, for it may have read forged bytes; the next one gets the rest and the right ones."""
    blob = blob(16 * MIB)
    crc_only = evolve(blob, meta=evolve(blob.meta, strong_sums=b""))
    liar = await seed(peer, tracker, forged(crc_only, 3, 7))
    agent = await peer()
    with pytest.raises(Corrupt):
        tracker.strong[blob.digest] = blob.meta
        await agent.read(crc_only)
    await seed(peer, tracker, crc_only)
    assert await agent.read(crc_only) == blob.data
    assert agent.scheduler.counters.received_peers_bytes == 18 * MIB
    assert [who for who, _torrent, _left in agent.scheduler.blacklist()] == [liar.scheduler.context.peer_id]
    await until(lambda: agent.cache.stat(blob.digest) is not None)
    assert agent.cache.metainfo(blob.digest) == blob.meta, "it knows the strong sums from then on"
    expect_corrupt(logs, "2 of its 16 pieces are wrong")


@pytest_twisted.ensureDeferred
async def test_when_nobody_knows_strong_sums_what_agents_gave_comes_again_from_an_origin(peer, tracker, blob, logs):
    blob = blob(8 * MIB)
    crc_only = evolve(blob, meta=evolve(blob.meta, strong_sums=b""))
    await seed(peer, tracker, forged(crc_only, 3))
    agent = await peer()
    with pytest.raises(Corrupt):
        await agent.read(crc_only)
    await seed(peer, tracker, crc_only, origin=True)
    assert await agent.read(crc_only) == blob.data
    assert agent.scheduler.counters.received_peers_bytes == 16 * MIB
    expect_corrupt(logs, "nobody knows which of its 8 pieces are wrong")


def expect_corrupt(logs, words):
    told = [event for event in logs if "is corrupt" in event.get("log_format", "")]
    assert len(told) == 1 and words in formatEvent(told[0])
    logs.remove(told[0])
