"""S17: a proxy that ends TLS on a port of its own stands before the herd and the agent."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.clients.tools import Images, sha256_of, skopeo_pull, skopeo_push
from tests.cluster import Cluster, request

pytestmark = pytest.mark.integration


def certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1 that nobody signed but itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "front")])
    now = datetime.datetime.now(datetime.timezone.utc)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    kind = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption())
    path = folder / "front.pem"
    path.write_bytes(pem + signed.public_bytes(serialization.Encoding.PEM))
    return path


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()


@contextlib.contextmanager
def tls_front(pem: Path, target: int) -> Iterator[int]:
    """Passes what it decrypts to a port of this machine, and adds no header; gives its own port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    listening = asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    server = asyncio.run_coroutine_threadsafe(listening, loop).result(10)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def test_s17_clients_push_and_pull_through_a_proxy_that_ends_tls(
    cluster: Cluster, images: Images, tmp_path: Path
) -> None:
    pem = certificate(tmp_path)
    with tls_front(pem, cluster.herd.proxy_port) as push_port, tls_front(pem, cluster.agents[0].port) as pull_port:
        skopeo_push(images.source("oci-umoci", "mid"), f"127.0.0.1:{push_port}/front/mid:v1")
        skopeo_pull(f"127.0.0.1:{pull_port}/front/mid:v1", tmp_path / "out")
    assert "sha256:" + sha256_of(tmp_path / "out" / "manifest.json") == images.digests["oci-umoci mid"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "front.example:8443", "X-Forwarded-Port": "8443"},
        {"Forwarded": "proto=https;host=front.example:8443"},
        {"Host": "evil.example"},
    ],
)
def test_s17_locations_name_no_host_whatever_is_forwarded(cluster: Cluster, headers: dict[str, str]) -> None:
    begun = request(cluster.herd.proxy_port, "POST", "/v2/front/a/blobs/uploads/", b"", headers)
    assert begun.headers["location"].startswith("/v2/front/a/blobs/uploads/")
    patched = request(cluster.herd.proxy_port, "PATCH", begun.headers["location"], b"x", headers)
    assert patched.headers["location"].startswith("/v2/front/a/blobs/uploads/")
    request(cluster.herd.proxy_port, "DELETE", begun.headers["location"])
