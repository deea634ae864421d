#!/usr/bin/env python3
"""A small image, pushed and pulled over the registry's own HTTP, on nothing but Python's library.

image.py push REGISTRY NAME:TAG                push an image that nobody has; prints the digests of its parts, the
                                               manifest's first
image.py pull REGISTRY NAME:TAG MANIFEST       pull it, and compare every digest, and the bytes of the layer
image.py fallback AGENT:PORT                   bytes that this agent had from fallback since its start, by its metrics

Image parts are made from the manifest's own seed, which is its annotation `seed`: so a pull on another host knows what
the layer must hold. Exit code 1 and one line on stderr when something is wrong.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import random
import sys
import tarfile
import time
from urllib.parse import urlsplit

_LAYER_BYTES = 6 << 20
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_TIMEOUT_S = 60.0


class Wrong(Exception):
    """Something is not as it must be."""


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def content(seed: str) -> bytes:
    """What the file in the layer holds."""
    return random.Random(seed).randbytes(_LAYER_BYTES)


def make(seed: str) -> tuple[bytes, bytes, bytes]:
    """Manifest, configuration and layer of the image."""
    tarred = io.BytesIO()
    with tarfile.open(fileobj=tarred, mode="w") as tar:
        entry = tarfile.TarInfo("data")
        entry.size = _LAYER_BYTES
        tar.addfile(entry, io.BytesIO(content(seed)))
    layer = gzip.compress(tarred.getvalue(), compresslevel=1, mtime=0)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(tarred.getvalue())]},
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {"mediaType": _CONFIG, "size": len(config), "digest": digest_of(config)},
            "layers": [{"mediaType": _LAYER, "size": len(layer), "digest": digest_of(layer)}],
            "annotations": {"seed": seed},
        }
    ).encode()
    return manifest, config, layer


def ask(
    registry: str,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    ok: tuple[int, ...] = (200,),
) -> tuple[dict[str, str], bytes]:
    """One request; the answer's headers, and its body."""
    connection = http.client.HTTPConnection(registry, timeout=_TIMEOUT_S)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        data = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise Wrong(f"{method} http://{registry}{path}: {error}") from error
    finally:
        connection.close()
    if answer.status not in ok:
        raise Wrong(f"{method} http://{registry}{path}: {answer.status} {data[:300].decode(errors='replace')}")
    return {name.lower(): value for name, value in answer.getheaders()}, data


def push(registry: str, image: str) -> None:
    name, _, tag = image.rpartition(":")
    manifest, config, layer = make(f"{image} {time.time_ns()}")
    for blob in (config, layer):
        headers, _ = ask(registry, "POST", f"/v2/{name}/blobs/uploads/", b"", ok=(202,))
        target = urlsplit(headers["location"])
        query = f"{target.query}&" if target.query else ""
        kind = {"Content-Type": "application/octet-stream"}
        ask(registry, "PUT", f"{target.path}?{query}digest={digest_of(blob)}", blob, kind, (201,))
    ask(registry, "PUT", f"/v2/{name}/manifests/{tag}", manifest, {"Content-Type": _MANIFEST}, (201,))
    print(digest_of(manifest), digest_of(config), digest_of(layer))


def pull(registry: str, image: str, expected: str) -> None:
    name, _, tag = image.rpartition(":")
    headers, data = ask(registry, "GET", f"/v2/{name}/manifests/{tag}", headers={"Accept": _MANIFEST})
    if digest_of(data) != expected:
        raise Wrong(f"the manifest of {image} hashes to {digest_of(data)}, not to {expected}")
    if headers.get("docker-content-digest") != expected:
        raise Wrong(f"{registry} says that the manifest of {image} is {headers.get('docker-content-digest')}")
    manifest = json.loads(data)
    for part in (manifest["config"], *manifest["layers"]):
        _, data = ask(registry, "GET", f"/v2/{name}/blobs/{part['digest']}")
        if (digest_of(data), len(data)) != (part["digest"], part["size"]):
            raise Wrong(f"{part['digest']} came as {len(data)} bytes that hash to {digest_of(data)}")
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data))) as tar:
        entry = tar.extractfile("data")
        if entry is None or entry.read() != content(manifest["annotations"]["seed"]):
            raise Wrong("the file in the layer holds other bytes than were pushed")


def fallback(agent: str) -> None:
    _, data = ask(agent, "GET", "/metrics")
    name = b"kraken_agent_peer_received_fallback_bytes_total "
    line = next((line for line in data.splitlines() if line.startswith(name)), None)
    if line is None:
        raise Wrong(f"the metrics of {agent} do not tell of fallback")
    print(int(float(line.split()[1])))


def main(argv: list[str]) -> int:
    verbs = {"push": (push, 2), "pull": (pull, 3), "fallback": (fallback, 1)}
    verb, *args = argv or [""]
    if verb not in verbs or len(args) != verbs[verb][1]:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        verbs[verb][0](*args)
    except Wrong as wrong:
        print(f"{wrong}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
