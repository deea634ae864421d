"""A certificate authority for tests, and what it signs."""

from __future__ import annotations

import datetime
from pathlib import Path

from attrs import define
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from krakentx.peer.tlsconfig import FileConfig, IdentityConfig, TlsConfig

BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
DAY = 86400.0


@define(eq=False)
class Authority:
    """A CA in a folder."""

    folder: Path
    name: str
    _key: ec.EllipticCurvePrivateKey
    _cert: x509.Certificate

    @classmethod
    def make(cls, folder: Path, name: str) -> Authority:
        """A new one; its certificate is `NAME.crt`."""
        key = ec.generate_private_key(ec.SECP256R1())
        cert = _sign(name, key, name, key, -DAY, 30 * DAY, ca=True)
        (folder / f"{name}.crt").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        return cls(folder, name, key, cert)

    @property
    def path(self) -> Path:
        """The certificate of the CA."""
        return self.folder / f"{self.name}.crt"

    def issue(
        self, name: str, *, begins: float = -DAY, ends: float = 30 * DAY, usage=BOTH, phrase: bytes = b""
    ) -> IdentityConfig:
        """A certificate, as a section of the configuration.

        Args:
            begins, ends: seconds from now.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        cert = _sign(name, key, self.name, self._key, begins, ends, usage=usage)
        base = self.folder / f"{self.name}-{name}"
        lock = serialization.BestAvailableEncryption(phrase) if phrase else serialization.NoEncryption()
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock)
        base.with_suffix(".key").write_bytes(pem)
        base.with_suffix(".crt").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        passphrase = FileConfig()
        if phrase:
            base.with_suffix(".pass").write_bytes(phrase + b"\n")
            passphrase = FileConfig(base.with_suffix(".pass"))
        return IdentityConfig(FileConfig(base.with_suffix(".crt")), FileConfig(base.with_suffix(".key")), passphrase)

    def config(self, peers: str, identity: IdentityConfig) -> TlsConfig:
        """A section that trusts this CA and shows this certificate to everybody."""
        return TlsConfig(peers=peers, cas=(FileConfig(self.path),), client=identity)


def _sign(name, key, issuer, issuer_key, begins, ends, *, ca=False, usage=()) -> x509.Certificate:
    def called(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(called(name))
        .issuer_name(called(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(seconds=begins))
        .not_valid_after(now + datetime.timedelta(seconds=ends))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if usage:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())
