"""Peers: identities, addresses, and how they look in JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krakentx.core.digest import Digest
from krakentx.core.errors import InvalidInput
from krakentx.core.peer import (
    InfoHash,
    PeerContext,
    PeerID,
    PeerInfo,
    format_address,
    format_addresses,
    parse_address,
)

DATA = Path(__file__).parents[1] / "data"
PEER_IDS = json.loads((DATA / "peer_ids.json").read_text())
ANNOUNCE = {row["name"]: row for row in json.loads((DATA / "announce.json").read_text())}
ALICE = PeerID.of_address("10.0.0.1", 16001)


def compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def peer(row: dict[str, Any]) -> PeerInfo:
    return PeerInfo(PeerID.parse(row["peer_id"]), row["ip"], row["port"], row["origin"], row["complete"])


@pytest.mark.parametrize("vector", PEER_IDS, ids=lambda v: v["ip"])
def test_an_address_hashes_to_its_id(vector: dict[str, Any], record_property: Any) -> None:
    peer_id = PeerID.of_address(vector["ip"], vector["port"])
    assert str(peer_id) == vector["peer_id"]
    record_property("vectors", "peer_ids")
    assert PeerID.parse(vector["peer_id"].upper()) == peer_id
    record_property("vectors", "peer_ids")


def test_announce_request_both_ways(record_property: Any) -> None:
    row = ANNOUNCE["request"]
    digest = Digest.parse(row["digest"])
    body = {
        "name": digest.hex,
        "digest": str(digest),
        "info_hash": InfoHash.parse(row["info_hash"]).to_json(),
        "peer": peer(row["peer"]).to_json(),
    }
    assert compact(body) == row["json"]
    record_property("vectors", "announce")
    read = json.loads(row["json"])
    assert InfoHash.from_json(read["info_hash"]) == InfoHash.parse(row["info_hash"])
    assert PeerInfo.from_json(read["peer"]) == peer(row["peer"])
    record_property("vectors", "announce")


@pytest.mark.parametrize("name", ["answer to a leecher", "answer to a complete peer"])
def test_announce_answers_both_ways(name: str, record_property: Any) -> None:
    row = ANNOUNCE[name]
    peers = row["peers"] and [peer(entry) for entry in row["peers"]]
    assert compact({"peers": peers and [p.to_json() for p in peers], "interval": row["interval_ns"]}) == row["json"]
    record_property("vectors", "announce")
    read = json.loads(row["json"])["peers"]
    assert (read and [PeerInfo.from_json(entry) for entry in read]) == peers
    record_property("vectors", "announce")


@pytest.mark.parametrize("text", ["", "ab" * 19, "ab" * 21, "zz" * 20, "ab " * 13 + "a", "é" * 40, "0x" + "ab" * 19])
def test_ids_that_are_not_twenty_bytes_of_hex_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        PeerID.parse(text)


@pytest.mark.parametrize("value", [None, "ab" * 20, [1] * 19, [1] * 21, [256] * 20, [-1] * 20, [True] * 20, [1.0] * 20])
def test_ids_in_json_are_arrays_of_twenty_bytes(value: object) -> None:
    with pytest.raises(InvalidInput):
        PeerID.from_json(value)


def test_ids_order_bytewise_and_random_ones_differ() -> None:
    assert PeerID(b"\x7f" + bytes(19)) < PeerID(b"\x80" + bytes(19))
    assert PeerID.random() != PeerID.random()
    assert repr(PeerID(bytes(20))) == f"PeerID({'00' * 20})"
    with pytest.raises(InvalidInput):
        PeerID.of_address("", 16001)


ids = st.binary(min_size=20, max_size=20).map(PeerID)
names = st.text(max_size=10)
hosts = st.ip_addresses().map(str) | st.from_regex(r"[a-z0-9-]{1,20}(\.[a-z0-9-]{1,20}){0,3}", fullmatch=True)
infos = st.builds(PeerInfo, ids, hosts, st.integers(1, 65535), st.booleans(), st.booleans(), names, st.booleans())
contexts = st.builds(PeerContext, hosts, st.integers(1, 65535), ids, names, names, st.booleans(), st.booleans())


@given(infos)
def test_peer_info_reads_back(info: PeerInfo) -> None:
    written = json.loads(json.dumps(info.to_json() | {"unknown": 1}))
    assert PeerInfo.from_json(written) == info


@given(contexts)
def test_peer_context_reads_back(context: PeerContext) -> None:
    keys = ["ip", "port", "peer_id", "zone", "cluster", "origin"]
    assert list(context.to_json()) == (keys + ["tls"] if context.tls else keys)
    assert PeerContext.from_json(json.loads(json.dumps(context.to_json()))) == context
    assert context.as_peer(complete=True) == PeerInfo(
        context.peer_id, context.ip, context.port, context.origin, True, context.zone, context.tls
    )


@pytest.mark.parametrize(
    "change",
    [
        {"peer_id": None},
        {"ip": 7},
        {"ip": None},
        {"ip": ""},
        {"ip": "a b"},
        {"ip": "x..y"},
        {"ip": "."},
        {"ip": "a" * 64},
        {"ip": "abc." * 64},
        {"ip": "\ud800"},
        {"ip": "10.0.0.1\n"},
        {"ip": "::1%" + "a" * 5000},
        {"zone": "z" * 254},
        {"port": 0},
        {"port": 65536},
        {"port": "16001"},
        {"port": True},
        {"zone": 1},
    ],
)
def test_a_peer_with_a_wrong_key_is_refused(change: dict[str, Any]) -> None:
    data = PeerInfo(ALICE, "10.0.0.1", 16001).to_json() | change
    with pytest.raises(InvalidInput):
        PeerInfo.from_json(data)
    with pytest.raises(InvalidInput):
        PeerContext.from_json(data)


@pytest.mark.parametrize("ip", ["10.0.0.1", "::1", "fe80::1%eth0", "::ffff:10.0.0.1", "host-1.rack_2.example", "host."])
def test_addresses_and_names_are_read(ip: str) -> None:
    assert PeerInfo.from_json(PeerInfo(ALICE, ip, 16001).to_json()).ip == ip


@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_a_peer_that_is_no_object_is_refused(value: object) -> None:
    with pytest.raises(InvalidInput):
        PeerInfo.from_json(value)
    with pytest.raises(InvalidInput):
        PeerContext.from_json(value)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("tracker:15003", "tracker", 15003),
        ("10.0.0.1:1", "10.0.0.1", 1),
        ("[::1]:15003", "::1", 15003),
        ("[2001:db8::7]:65535", "2001:db8::7", 65535),
        ("tracker", "tracker", 80),
        ("::1", "::1", 80),
        ("[::1]", "::1", 80),
        ("2001:db8::7", "2001:db8::7", 80),
        ("10.0.0.1", "10.0.0.1", 80),
    ],
)
def test_addresses_of_both_families_parse_and_print(text: str, host: str, port: int) -> None:
    assert parse_address(text, 80) == (host, port)
    assert parse_address(format_address(host, port)) == (host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":80",
        "[]:80",
        "[::1",
        "[::1]80",
        "host:0",
        "host:65536",
        "host:http",
        "host:-1",
        "host:+1",
        "host:٣",
        "h:" + "9" * 5000,
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_address(text, 80)
    assert caught.value.what == "address"


@pytest.mark.parametrize("text", ["tracker", "::1", "[::1]", "tracker:", "[::1]:"])
def test_without_a_default_the_port_must_be_written(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_address(text)


def test_ipv6_is_printed_in_brackets_everywhere() -> None:
    assert PeerInfo(ALICE, "fe80::1", 16001).address == "[fe80::1]:16001"
    assert PeerInfo(ALICE, "10.0.0.1", 16001).address == "10.0.0.1:16001"
    assert format_address("[::1]", 5) == "[::1]:5"
    assert format_addresses([("::1", 1), ("a", 2)]) == "[::1]:1,a:2"
