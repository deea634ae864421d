"""Inputs to begin from, made of the tables of vectors in tests/data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_DATA = Path(__file__).parents[1] / "data"
_DIGEST = "sha256:" + "84" * 32


def seeds(target: str) -> list[bytes]:
    """The first inputs of a target."""
    return _SEEDS[target]()


def _vectors(name: str) -> Any:
    return json.loads((_DATA / f"{name}.json").read_text())


def _frames() -> list[bytes]:
    return [bytes.fromhex(row["frame"])[4:] for row in _vectors("frames")]


def _streams() -> list[bytes]:
    """Each frame in each role, and all of them in a row."""
    rows = [
        bytes.fromhex(row["frame"] + row.get("payload", "")) for row in _vectors("frames") if row["use"] != "refuse"
    ]
    return [bytes([how]) + stream for stream in (*rows, b"".join(rows)) for how in (8, 10, 11, 20, 24)]


def _bitsets() -> list[bytes]:
    return [bytes.fromhex(row["wire"]) for row in _vectors("bitsets")]


def _texts(name: str, key: str) -> list[bytes]:
    return [row[key].encode() for row in _vectors(name) if isinstance(row, dict) and key in row]


def _announces() -> list[bytes]:
    more = {"again": 10**9, "failed_peers": [list(range(20))], "stopped": True}
    first = _texts("announce", "json")[0]
    return [first, json.dumps({**json.loads(first), **more}).encode()]


def _names() -> list[bytes]:
    texts = [
        *("postgres:14", f"localhost:5000/a/b_c__d-e@{_DIGEST}", "[::1]:5000/x", "index.docker.io/x", "10.0.0.1:80"),
        *(
            f"a/blobs/b/manifests/{_DIGEST}",
            "a/tags/list",
            "a/blobs/uploads/",
            "a/blobs/uploads/x",
            f"a/referrers/{_DIGEST}",
        ),
    ]
    return [text.encode() for text in texts]


def _manifests() -> list[bytes]:
    part = {"mediaType": "application/octet-stream", "digest": _DIGEST, "size": 3}
    index = "application/vnd.oci.image.index.v1+json"
    image = {"schemaVersion": 2, "config": part, "layers": [part, {**part, "urls": ["http://x"]}]}
    values = [image, {**image, "subject": part, "annotations": {"a": "b"}, "artifactType": "x/y"}]
    values.append({"schemaVersion": 2, "mediaType": index, "manifests": [part]})
    return [json.dumps(value).encode() for value in values]


_SEEDS = {
    "wire": _streams,
    "frame": _frames,
    "bitset": _bitsets,
    "metainfo": lambda: _texts("metainfo", "json"),
    "announce": _announces,
    "hand_out": lambda: _texts("announce", "json"),
    "names": _names,
    "manifest": _manifests,
    "ranges": lambda: [b"bytes=0-5", b"bytes=-5", b"bytes=7-", b"0-1023", b"bytes 5-9/*", b"bytes=0-1,3-4"],
}
