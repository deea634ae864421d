"""Every backend over the same folder layout, for the contract."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.python.threadpool import ThreadPool

from krakentx.backend.file import FileBackend
from krakentx.backend.interfaces import IBackend
from krakentx.backend.paths import PathKind, name_paths
from krakentx.backend.testfs import TestfsBackend
from krakentx.testfs.config import TestfsConfig
from krakentx.testfs.service import build
from krakentx.web.client import HttpClient

Make = Callable[[str, PathKind, str], Awaitable[IBackend]]


@pytest.fixture(scope="session")
def pool() -> Iterator[ThreadPool]:
    pool = ThreadPool(1, 2, "backend")
    pool.start()
    yield pool
    pool.stop()


@pytest_twisted.async_yield_fixture
async def client() -> Any:
    client = HttpClient(reactor, timeout_s=5.0, stall_s=5.0)
    yield client
    await client.close()


@pytest.fixture
def make_backend(tmp_path: Path, pool: ThreadPool, client: HttpClient, start: Any) -> Make:
    """`await make_backend(which, name_path, root)`."""

    async def make(which: str, kind: PathKind, root: str) -> IBackend:
        paths = name_paths(kind, root)
        if which == "file":
            return FileBackend(tmp_path / "elsewhere", paths, reactor=reactor, pool=pool)
        config = TestfsConfig(port=0, interface="127.0.0.1", data_dir=tmp_path / "testfs")
        service = await start(build(config, reactor=reactor))
        return TestfsBackend(f"127.0.0.1:{service.http.port_number}", paths, client)

    return make
