"""Files that come with the package: `etc/` and `systemd/`.

In a clone they stand beside the package, in an installation below its `share/krakentx`.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

from krakentx.core.errors import ConfigError

PREFIX = "krakentx:"
_BESIDE = Path(__file__).parents[2]
_PLACES = (
    _BESIDE,
    Path(sysconfig.get_path("data"), "share/krakentx"),
    _BESIDE / "share/krakentx",  # by `pip install --target`
)


def folder(name: str) -> Path:
    """`etc` or `systemd`.

    Raises:
        ConfigError: this installation is without it.
    """
    marker = {"etc": "etc/agent/base.yaml", "systemd": "systemd/kraken-agent.service"}[name]
    for place in _PLACES:
        if (place / marker).exists():
            return place / name
    raise ConfigError(f"this installation of krakentx has no {name}/; install its wheel again", _PLACES[1])


def find(name: str, beside: Path) -> Path:
    """The file that a configuration calls `name`.

    `krakentx:agent/multihost.yaml` is one that came with the package, wherever that is installed; any other name is
    relative to the folder `beside`.

    Raises:
        ConfigError: the package came without its files.
    """
    return folder("etc") / name.removeprefix(PREFIX) if name.startswith(PREFIX) else beside / name
