"""TlsSocket: TLS in the clothes of a plain socket.

The transport of `bulk.py` knows `send`, `recv`, `recv_into` and `BlockingIOError`. Here it finds the same with OpenSSL
behind them, so its order of frames and runs, its budgets, gates and sinks hold under TLS as they stand.

Plain bytes go in and out of OpenSSL by two buffers in memory, and from there to the socket in parts of `CHUNK`: fewer
system calls than OpenSSL makes on a socket of its own, which asks twice for each record of 16 KiB. Nothing is
encrypted before all that was encrypted earlier has left, and nothing is read beyond what was asked for and one `CHUNK`:
so a connection holds two of them at most, however large the blob and however slow the peer.
"""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Any, cast

CHUNK = 64 << 10
MAX_ANSWERS = 64 << 10
"""Bytes that the peer made OpenSSL say (alerts, new keys) and that it does not read."""

_CIPHER = memoryview(bytearray(CHUNK))  # one per process: each read is consumed before the next


def _blocked() -> BlockingIOError:
    return BlockingIOError(errno.EWOULDBLOCK, "TLS waits for the socket")


def problem_of(error: ssl.SSLError) -> str:
    """What went wrong, in plain words."""
    reason = str(error.reason or "").removeprefix("SSLV3_").removeprefix("TLSV1_").removeprefix("TLSV13_")
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate does not hold: {error.verify_message}"
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "it shows no certificate"
    if reason in ("UNSUPPORTED_PROTOCOL", "ALERT_PROTOCOL_VERSION"):
        return "it does not speak TLS 1.3"
    if reason.startswith("ALERT_"):
        return f"it refuses us: {reason.removeprefix('ALERT_').replace('_', ' ').lower()}"
    if isinstance(error, ssl.SSLEOFError):
        return "it hung up in the midst of TLS"
    return f"it does not speak TLS as it should: {reason.replace('_', ' ').lower() or error}"


class TlsSocket:
    """A connected, non-blocking socket under TLS. What is not here is that of the socket.

    Args:
        server_side: the other end has dialled us.
    """

    def __init__(self, raw: socket.socket, context: ssl.SSLContext, *, server_side: bool) -> None:
        self.shaken = False
        self.error: ssl.SSLError | None = None  # the peer broke the rules of TLS, or does not want us
        self._raw = raw
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=server_side)
        self._leaving = memoryview(b"")  # encrypted, and not yet taken by the kernel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    # --- the handshake

    def shake(self) -> bool:
        """Go on with the handshake as far as what has come allows. True when it is through.

        Raises:
            ssl.SSLError: the other end is none that we talk to. OSError: it is gone.
        """
        while not self.shaken:
            try:
                self._tls.do_handshake()
                self.shaken = True
            except ssl.SSLWantReadError:
                self._push()
                if not self._fill():
                    return False
            except ssl.SSLError:
                self._push()  # the alert that tells why
                raise
        self._push()
        return True

    # --- sending

    @property
    def leaving(self) -> bool:
        """Encrypted bytes wait for the kernel."""
        return bool(self._leaving or self._out.pending)

    def flush(self) -> None:
        """Give the kernel what is encrypted.

        Raises:
            BlockingIOError: it does not take all. OSError: the connection is gone.
        """
        while self.leaving:
            if not self._leaving:
                self._leaving = memoryview(self._out.read())
            self._leaving = self._leaving[self._raw.send(self._leaving) :]

    def _push(self) -> None:
        """As `flush`, of what nobody waits for."""
        try:
            self.flush()
        except BlockingIOError:
            if len(self._leaving) + self._out.pending > CHUNK + MAX_ANSWERS:
                raise ConnectionResetError(errno.ECONNRESET, "the peer does not read what TLS has to say") from None

    def send(self, data: bytes | bytearray | memoryview, _flags: int = 0) -> int:
        """Encrypt the beginning of `data`; its bytes count as sent from then on.

        Raises:
            BlockingIOError: what was encrypted before has not left, or hands are not shaken. OSError: it is gone.
        """
        self.flush()
        if not self.shaken:
            raise _blocked()
        done = 0
        with memoryview(data) as view, view[:CHUNK] as part:
            while done < len(part):
                done += self._tls.write(part[done:])
        self._push()
        return done

    # --- receiving

    @property
    def buffered(self) -> bool:
        """Bytes are here already, so the socket need not become readable before a read."""
        return bool(self._in.pending or self._tls.pending())

    def recv_into(self, buffer: memoryview, count: int) -> int:
        """Decrypt up to `count` bytes, as many as have come; 0 = the peer has ended its half.

        Raises:
            BlockingIOError: nothing has come. OSError: it is gone; an `ssl.SSLError`: it broke the rules of TLS.
        """
        got, ended = 0, False
        vain = False  # the last part had no byte for us: half a record, or new keys without end, which must not keep us
        while got < count and not ended:
            try:
                more = cast(int, self._tls.read(count - got, buffer[got:count]))
            except ssl.SSLWantReadError:
                if vain or not self._fill():
                    break
                vain = True
            except ssl.SSLZeroReturnError:
                ended = True
            except ssl.SSLError as error:
                self.error = error
                raise
            else:
                got += more
                ended = not more
                vain = False
        self._push()
        if not got and not ended:
            raise _blocked()
        return got

    def recv(self, count: int, _flags: int = 0) -> bytes:
        """As `recv_into`, into a string of its own."""
        buffer = bytearray(count)
        return bytes(buffer[: self.recv_into(memoryview(buffer), count)])

    def _fill(self) -> bool:
        """Take a part of what the kernel has; False when it has nothing now."""
        try:
            count = self._raw.recv_into(_CIPHER)
        except BlockingIOError:
            return False
        if count:
            self._in.write(_CIPHER[:count])
        else:
            self._in.write_eof()
        return True

    # --- the end

    def shutdown(self, how: int) -> None:
        """Tell the peer that no more comes, by TLS and by TCP; what it still sends can be read."""
        if self.shaken:
            try:
                self._tls.unwrap()
            except ssl.SSLError:
                pass  # mostly: it waits for the peer to do the same, which we do not
            self._push()
        self._raw.shutdown(how)
