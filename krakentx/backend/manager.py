"""Which backend serves which namespace."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from twisted.python.threadpool import ThreadPool

from krakentx.backend.config import BackendConfig
from krakentx.backend.file import FileBackend
from krakentx.backend.interfaces import IBackend
from krakentx.backend.noop import NAMESPACE, NoopBackend
from krakentx.backend.paths import name_paths
from krakentx.backend.testfs import TestfsBackend
from krakentx.core.errors import ConfigError
from krakentx.web.client import HttpClient


class BackendManager:
    """Finds backends by namespace: the first whose regex is found anywhere in it."""

    def __init__(self, entries: Iterable[tuple[str, IBackend]]) -> None:
        self._entries = [(re.compile(regex), backend) for regex, backend in entries]
        self._noop = NoopBackend()

    def find(self, namespace: str) -> IBackend | None:
        """The backend of a namespace; None when nobody is set up for it."""
        if namespace == NAMESPACE:
            return self._noop
        return next((backend for regex, backend in self._entries if regex.search(namespace)), None)


def build_backends(
    configs: Iterable[BackendConfig], *, client: HttpClient, reactor: Any, pool: ThreadPool
) -> BackendManager:
    """Make the backends of a configuration.

    Raises:
        ConfigError: one cannot be made.
    """
    return BackendManager((config.namespace, _backend(config, client, reactor, pool)) for config in configs)


def _backend(config: BackendConfig, client: HttpClient, reactor: Any, pool: ThreadPool) -> IBackend:
    choice = config.backend
    if choice.testfs is not None:
        return TestfsBackend(choice.testfs.addr, name_paths(choice.testfs.name_path, choice.testfs.root), client)
    if choice.file is not None and choice.file.path.is_absolute():
        paths = name_paths(choice.file.name_path, choice.file.root)
        return FileBackend(choice.file.path, paths, reactor=reactor, pool=pool)
    raise ConfigError(f"the file backend of {config.namespace!r} needs an absolute `path`")
