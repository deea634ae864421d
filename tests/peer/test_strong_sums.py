"""A peer that forges pieces: wrong bytes with the right CRC-32."""

from __future__ import annotations

import pytest_twisted
from attrs import evolve
from isal.isal_zlib import crc32

from tests.peer.swarm import MIB, Blob

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
