"""Counters of what passed over the peer wire, for metrics, the benchmark and the tests."""

from __future__ import annotations

from attrs import define


@define
class Counters:
    """Totals since the process started. Bytes are piece bytes; frames are not counted."""

    sent_sendfile_bytes: int = 0
    sent_copy_bytes: int = 0
    received_peers_bytes: int = 0
    received_fallback_bytes: int = 0
    skipped_bytes: int = 0
    dials: int = 0
    dial_failures: int = 0
    accepted: int = 0
    refused_sockets: int = 0
    protocol_errors: int = 0
    corrupt_pieces: int = 0
    completed: int = 0
    failed: int = 0

    @property
    def sent_bytes(self) -> int:
        """Piece bytes that left by either way."""
        return self.sent_sendfile_bytes + self.sent_copy_bytes
