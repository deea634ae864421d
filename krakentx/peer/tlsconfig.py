"""The `tls` section of an agent or an origin, and what is made of its files.

The shape is the reference's. There the section is about HTTP behind nginx, with TLS on unless it is disabled; here it
is about the peer wire, and nothing is encrypted until `peers` says so. One certificate does for both directions; with
two, `server` is shown to who dials us and `client` to whom we dial.
"""

from __future__ import annotations

import calendar
import ssl
import time
from pathlib import Path
from typing import Literal, cast

from attrs import Factory, define, field, frozen
from OpenSSL import crypto
from twisted.logger import Logger

from krakentx.core.errors import ConfigError, InvalidInput
from krakentx.core.peer import PeerInfo

Mode = Literal["off", "optional", "required"]

_MODES = ("off", "optional", "required")
_SOON_S = 14 * 86400.0
_NOT_YET, _EXPIRED = 9, 10  # codes of OpenSSL

_log = Logger()


def parse_mode(value: object) -> Mode:
    """Read `off`, `optional` or `required`; YAML takes an unquoted `off` for false.

    Raises:
        InvalidInput: anything else.
    """
    mode = "off" if value is False else value
    if mode not in _MODES:
        raise InvalidInput("mode", f"{value!r}; write one of {', '.join(_MODES)}")
    return cast(Mode, mode)


@frozen
class FileConfig:
    """A file."""

    path: Path | None = None


@frozen
class IdentityConfig:
    """`server` or `client`: a certificate, all in PEM."""

    cert: FileConfig = FileConfig()
    """With the intermediate certificates behind it, when there are any."""
    key: FileConfig = FileConfig()
    passphrase: FileConfig = FileConfig()
    """A file that holds the passphrase of the key; none for a key that is not encrypted."""

    UNUSED = frozenset({"disabled"})

    @property
    def given(self) -> bool:
        """Something of it is configured."""
        return any((self.cert.path, self.key.path, self.passphrase.path))


@frozen
class TlsConfig:
    """`tls`: encryption of the peer wire."""

    peers: Mode = field(default="off", metadata={"parse": parse_mode})
    """`optional`: speak TLS with peers that announce it and plain with others; `required`: with TLS or not at all."""
    cas: tuple[FileConfig, ...] = ()
    """Who may sign the certificates of peers; the system's own list has no say."""
    server: IdentityConfig = Factory(IdentityConfig)
    """Shown to who dials us; by default that of `client`."""
    client: IdentityConfig = Factory(IdentityConfig)
    """Shown to whom we dial; by default that of `server`."""

    UNUSED = frozenset({"name"})

    @property
    def on(self) -> bool:
        """The peer wire may be encrypted."""
        return self.peers != "off"

    @property
    def files(self) -> tuple[Path, ...]:
        """All that is read."""
        sides = (self.server, self.client)
        named = (*self.cas, *(file for side in sides for file in (side.cert, side.key, side.passphrase)))
        return tuple(file.path for file in named if file.path is not None)


@define(eq=False)
class PeerTls:
    """How the connections of a process are encrypted.

    Args:
        required: refuse the plain wire.
        accept, dial: for connections that others make, and that we make.
        expires: seconds since the epoch: when the first of our certificates ends.
    """

    required: bool
    accept: ssl.SSLContext
    dial: ssl.SSLContext
    expires: float

    def secures(self, peer: PeerInfo) -> bool:
        """Whether to dial a peer with TLS.

        Where TLS is required it is tried with everybody: a tracker of the reference passes no announcement of it on.
        """
        return self.required or peer.tls

    def renew(self, fresh: PeerTls) -> None:
        """Use other certificates from the next handshake on."""
        self.accept, self.dial, self.expires = fresh.accept, fresh.dial, fresh.expires


def load_tls(config: TlsConfig) -> PeerTls | None:
    """Read the files of the section; None when the peer wire stays plain.

    Raises:
        ConfigError: names the key, the file, and what is wrong with it.
    """
    if not config.on:
        if config.cas or config.server.given or config.client.given:
            _log.warn("tls: certificates are configured and nothing is encrypted, for tls.peers is off")
        return None
    if not config.cas:
        raise ConfigError("give the path of the cluster's CA, like `cas: [{path: ca.crt}]`", "tls.cas")
    sides = {"server": config.server, "client": config.client}
    shown = {side: side if sides[side].given else other for side, other in (("server", "client"), ("client", "server"))}
    accept = _context(ssl.PROTOCOL_TLS_SERVER, shown["server"], sides[shown["server"]], config.cas)
    dial = _context(ssl.PROTOCOL_TLS_CLIENT, shown["client"], sides[shown["client"]], config.cas)
    accept.num_tickets = 0  # no session is ever resumed
    paths = {side: sides[shown[side]].cert.path for side in sides}
    expires = min(_expiry(path) for path in paths.values() if path)
    try:
        _try_out(accept, dial)
    except _Refused as refused:
        where = f"tls.{shown[refused.side]}.cert: {paths[refused.side]}"
        if refused.code not in (_NOT_YET, _EXPIRED):
            raise ConfigError(f"peers would refuse it: {refused}; is it signed by tls.cas?", where) from refused
        # A host that starts with an old certificate or a wrong clock can still pull past the peer wire.
        _log.error("{where}: peers will refuse it: {problem}", where=where, problem=str(refused))
    else:
        if expires - time.time() < _SOON_S:
            _log.warn("tls: the certificate ends at {end}: renew it", end=time.ctime(expires))
    return PeerTls(config.peers == "required", accept, dial, expires)


def _readable(key: str, file: FileConfig) -> Path:
    if file.path is None:
        raise ConfigError("give the path of a PEM file, like `{path: agent.crt}`", f"tls.{key}")
    try:
        file.path.open("rb").close()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", f"tls.{key}: {file.path}") from error
    return file.path


def _context(protocol: int, side: str, identity: IdentityConfig, cas: tuple[FileConfig, ...]) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.check_hostname = False  # peers are addressed by IP, and one certificate may serve many: see docs/tls.md
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    for number, ca in enumerate(cas):
        _trust(context, f"cas[{number}]", ca)
    cert = _readable(f"{side}.cert", identity.cert)
    _trust(ssl.SSLContext(protocol), f"{side}.cert", identity.cert)  # only to see that there is one in it
    key = _readable(f"{side}.key", identity.key)
    phrase = b""
    if identity.passphrase.path is not None:
        phrase = _readable(f"{side}.passphrase", identity.passphrase).read_bytes().strip()
    try:
        context.load_cert_chain(cert, key, lambda: phrase)
    except (ssl.SSLError, ValueError) as error:
        problem = f"holds no private key in PEM that can be read; has it a passphrase? (tls.{side}.passphrase)"
        if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
            problem = f"does not belong to the certificate in {cert}"
        raise ConfigError(problem, f"tls.{side}.key: {key}") from error
    return context


def _trust(context: ssl.SSLContext, key: str, file: FileConfig) -> None:
    path = _readable(key, file)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise ConfigError("holds no certificate in PEM", f"tls.{key}: {path}") from error


def _expiry(path: Path) -> float:
    """When the certificate of a file ends, in seconds since the epoch."""
    end = crypto.load_certificate(crypto.FILETYPE_PEM, path.read_bytes()).get_notAfter() or b""
    return float(calendar.timegm(time.strptime(end.decode(), "%Y%m%d%H%M%SZ")))


class _Refused(Exception):
    """A certificate of ours does not hold in our own eyes.

    Args:
        side: `server` or `client`, whose certificate it is.
        code: OpenSSL's.
    """

    def __init__(self, side: str, code: int, problem: str) -> None:
        self.side = side
        self.code = code
        super().__init__(problem)


def _try_out(accept: ssl.SSLContext, dial: ssl.SSLContext) -> None:
    """Shake hands with ourselves in memory.

    Raises:
        _Refused: as a peer would.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = {
        "client": dial.wrap_bio(to_client, to_server),
        "server": accept.wrap_bio(to_server, to_client, server_side=True),
    }
    for side in ("client", "server", "client", "server"):
        try:
            ends[side].do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as error:
            other = "server" if side == "client" else "client"
            raise _Refused(other, error.verify_code, error.verify_message) from error
