"""Counters of what passed over the peer wire, for metrics, the benchmark and the tests."""

from __future__ import annotations

from typing import Any

from attrs import define, field


def _count(text: str) -> Any:
    """A total that begins at 0; `text` is what `/metrics` says of it."""
    return field(default=0, metadata={"text": text})


@define
class Counters:
    """Totals since the process started. Bytes are piece bytes; frames are not counted."""

    sent_sendfile_bytes: int = _count("Piece bytes sent from file to socket by the kernel.")
    sent_copy_bytes: int = _count("Piece bytes sent by way of this process's memory.")
    received_peers_bytes: int = _count("Piece bytes received from peers, origins among them.")
    received_fallback_bytes: int = _count("Piece bytes received by HTTP because peers gave nothing.")
    skipped_bytes: int = _count("Piece bytes received that nobody needed any more.")
    dials: int = _count("Connections to peers that were begun.")
    dial_failures: int = _count("Connections to peers that could not be made.")
    accepted: int = _count("Connections that peers made.")
    refused_sockets: int = _count("Connections of peers closed at once, since too many sockets of strangers were open.")
    tls_refused: int = _count("Connections that TLS ended: a bad certificate, or no TLS where it is required.")
    protocol_errors: int = _count("Connections closed because the peer broke the protocol.")
    corrupt_pieces: int = _count("Pieces whose sum was wrong.")
    completed: int = _count("Blobs that became complete.")
    failed: int = _count("Downloads that failed.")

    @property
    def sent_bytes(self) -> int:
        """Piece bytes that left by either way."""
        return self.sent_sendfile_bytes + self.sent_copy_bytes
