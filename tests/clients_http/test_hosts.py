"""Lists of hosts: forms of addresses, order, health."""

from __future__ import annotations

import random

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock

from krakentx.clients.config import HostsConfig, PassiveConfig
from krakentx.clients.hosts import HostPool, PassiveHealth, first_answer, normalise, own_addresses
from krakentx.core.digest import Digest
from krakentx.core.errors import ConfigError, InvalidInput, NotFound, Unavailable
from krakentx.core.hashring import ranked

DIGEST = Digest.of(b"x")
THREE = tuple(f"10.0.0.{n}:15003" for n in (1, 2, 3))


def pool(clock: Clock, hosts: tuple[str, ...], **more: int) -> HostPool:
    return HostPool(HostsConfig(static=hosts), default_port=15003, reactor=clock, rng=random.Random(1), **more)


@pytest.mark.parametrize(
    ("text", "label"),
    [("::1", "[::1]:15003"), ("[::1]", "[::1]:15003"), ("[::1]:8", "[::1]:8"), ("a", "a:15003"), (" a:1 ", "a:1")],
)
def test_addresses_of_every_form(text: str, label: str) -> None:
    assert normalise(text, 15003) == label


def test_bad_lists_are_refused(clock: Clock) -> None:
    with pytest.raises(InvalidInput):
        pool(clock, ("a:port",))
    with pytest.raises(ConfigError):
        HostsConfig(static=("a",), dns="b")


@pytest_twisted.ensureDeferred
async def test_owners_keep_the_order_of_the_ring_until_a_host_failed_often(clock: Clock) -> None:
    hosts = pool(clock, THREE)
    order = ranked(DIGEST, THREE)
    assert await hosts.owners(DIGEST) == order
    hosts.health.failed(order[0])
    assert await hosts.owners(DIGEST) == order
    for _ in range(2):
        hosts.health.failed(order[0])
    assert await hosts.owners(DIGEST) == [order[1], order[2], order[0]]
    clock.advance(301)
    assert await hosts.owners(DIGEST) == order


@pytest_twisted.ensureDeferred
async def test_when_no_replica_is_healthy_the_next_host_is_asked_first(clock: Clock) -> None:
    hosts = pool(clock, THREE, replicas=1)
    order = ranked(DIGEST, THREE)
    assert await hosts.owners(DIGEST) == order[:1]
    for _ in range(3):
        hosts.health.failed(order[0])
    assert await hosts.owners(DIGEST) == [order[1], order[2], order[0]]


@pytest_twisted.ensureDeferred
async def test_an_empty_list_is_unavailable(clock: Clock) -> None:
    with pytest.raises(Unavailable):
        await pool(clock, ()).hosts()


def test_health_is_forgotten_after_a_proper_answer(clock: Clock) -> None:
    health = PassiveHealth(clock, PassiveConfig(fails=2))
    for _ in range(2):
        health.failed("a")
    assert not health.healthy("a")
    health.passed("a")
    assert health.healthy("a")
    assert not health.shaky("a")


@pytest_twisted.ensureDeferred
async def test_the_next_host_is_asked_only_when_one_is_in_trouble(clock: Clock) -> None:
    health = PassiveHealth(clock)
    asked: list[str] = []

    async def ask(host: str) -> str:
        asked.append(host)
        if host == "a":
            raise Unavailable(host, "is down")
        if host == "c":
            raise NotFound("blob", "x")
        return host

    assert await first_answer("tracker", ["a", "b", "c"], ask, health) == "b"
    assert asked == ["a", "b"]
    assert health.shaky("a")
    with pytest.raises(NotFound):
        await first_answer("tracker", ["a", "c", "b"], ask, health)
    with pytest.raises(Unavailable, match=r"^every tracker of 2 is unavailable: a: is down; a: is down$"):
        await first_answer("tracker", ["a", "a"], ask, health)
    with pytest.raises(Unavailable, match=r"^tracker a is unavailable: is down$"):
        await first_answer("tracker", ["a"], ask, health)


@pytest_twisted.ensureDeferred
async def test_names_resolve_to_every_address(clock: Clock) -> None:
    hosts = HostPool(HostsConfig(dns="localhost"), default_port=15003, reactor=reactor, rng=random.Random(1))
    assert set(await hosts.hosts()) <= {"127.0.0.1:15003", "[::1]:15003"}
    missing = HostPool(HostsConfig(dns="no.such.invalid"), default_port=1, reactor=reactor, rng=random.Random(1))
    with pytest.raises(Unavailable):
        await missing.hosts()


def test_own_addresses_begin_with_the_name_given() -> None:
    assert own_addresses("127.0.0.1", 80)[0] == "127.0.0.1:80"


@pytest_twisted.ensureDeferred
async def test_a_name_is_looked_up_once_however_many_wait(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    ask = reactor.nameResolver.resolveHostName

    def counted(receiver: object, name: str, *more: object) -> object:
        asked.append(name)
        return ask(receiver, name, *more)

    monkeypatch.setattr(reactor.nameResolver, "resolveHostName", counted)
    hosts = HostPool(HostsConfig(dns="localhost"), default_port=15003, reactor=reactor, rng=random.Random(1))
    answers = await gatherResults([Deferred.fromCoroutine(hosts.hosts()) for _ in range(50)])
    assert asked == ["localhost"]
    assert len(set(answers)) == 1
