"""What the `tap.py` of each component shares: flags, configuration, data folder, logs, and errors told in one line.

A component's `tap.py` is then no more than this::

    class Options(ComponentOptions):
        component = "tracker"
        config_class = TrackerConfig
        summary = "Tells peers about each other."
        flags = (Flag("port", key="port", parse=port_number, doc="HTTP port", listens=True),)

    def makeService(options: Options) -> IService:
        from twisted.internet import reactor
        return options.service(build, reactor)

Contract with the config class: each `Flag.key` is a dotted YAML key of it. When it has a field `data_dir`
(`Path | None = None`), that is filled with the folder chosen here before `build` sees it, so it is never None there.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import attrs
from attrs import frozen
from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import ILogObserver, Logger, LogLevel
from twisted.python import usage

import krakentx
import twisted
from krakentx import logs
from krakentx.cli.notify import Notifier, listening
from krakentx.config.load import load, yaml_key
from krakentx.config.yamlfile import Key
from krakentx.core.errors import ConfigError, KrakenError
from krakentx.web.ports import holder_of

SYSTEM_DATA = Path("/var/cache/kraken")
MAX_PORT = 65535


@frozen
class Flag:
    """One flag of the command line.

    Args:
        name: without dashes; `-name`, `--name`, `=` or a space are all accepted.
        key: dotted YAML key that it overrides; None for a flag which the component reads from the options itself.
        parse: text -> value; a ValueError or KrakenError from it is shown to the user.
        doc: shown by --help, to which the default is added.
        many: may be repeated; the values become a tuple.
        listens: the value is a TCP port to listen on, so it is tried before the daemon detaches from the terminal.
    """

    name: str
    doc: str
    key: str | None = None
    parse: Callable[[str], Any] = str
    many: bool = False
    listens: bool = False


def port_number(text: str) -> int:
    """Raises: ValueError, when it is not a TCP port; 0 lets the system choose."""
    if not text.isdecimal() or int(text) > MAX_PORT:
        raise ValueError(f"{text!r} is not a port; give a number from 0 to {MAX_PORT}")
    return int(text)


class ComponentOptions(usage.Options):
    """Options of one twistd plugin; see the module's text for how to make one."""

    component: ClassVar[str]
    config_class: ClassVar[type]
    summary: ClassVar[str]
    flags: ClassVar[tuple[Flag, ...]] = ()
    longdesc: ClassVar[str]
    optParameters: ClassVar[list[list[Any]]]

    optFlags = [["json-logs", None, "One JSON object per log line (also: KRAKEN_LOG_FORMAT=json in the environment)."]]
    _common: ClassVar[dict[str, tuple[str | None, str]]] = {
        "config": (None, "YAML file; without one the defaults below are used."),
        "secrets": (None, "YAML file laid over --config, for what should not stand there."),
        "data-dir": (None, "Folder for everything kept on disk. [default: {data_dir}]"),
        "cluster": (None, "Name of the cluster; accepted for the sake of existing scripts."),
        "log-level": ("info", "debug, info, warn or error."),
        "mutex-profile-fraction": (None, "Accepted for the sake of existing scripts, and ignored."),
    }

    def __init_subclass__(cls) -> None:
        """Twisted reads rows of a class attribute; here they are made from `flags`."""
        super().__init_subclass__()
        own = {flag.name for flag in cls.flags}
        folder = default_data_dir(cls.component)
        cls.optParameters = [
            *([flag.name, None, None, cls._doc(flag)] for flag in cls.flags),
            *(
                [name, None, default, doc.format(data_dir=folder)]
                for name, (default, doc) in cls._common.items()
                if name not in own
            ),
        ]
        cls.longdesc = cls._longdesc()

    def __init__(self) -> None:
        self._given: dict[str, Any] = {}
        super().__init__()  # type: ignore[no-untyped-call]

    def getSynopsis(self) -> str:
        return f"Usage: twistd [twistd's options] kraken-{self.component} [options]"

    def parseOptions(self, options: Iterable[str] | None = None) -> None:
        """As twisted's, with Go's `-flag` forms; a mistake is one line and exit code 1 instead of pages of help."""
        try:
            super().parseOptions(self._dashes(list(options or [])))  # type: ignore[no-untyped-call]
        except usage.UsageError as error:
            die(f"{error}; `twistd kraken-{self.component} --help` lists the options")

    def opt_version(self) -> NoReturn:
        """Display the versions of KrakenTX and Twisted and exit."""
        print(f"KrakenTX {krakentx.__version__}, Twisted {twisted.__version__}")
        raise SystemExit(0)

    def parseArgs(self, *extra: str) -> None:
        if extra:
            raise usage.UsageError(f"{extra[0]!r} is not understood: every option starts with a dash")

    def postOptions(self) -> None:
        parent = self.parent
        if parent is not None and not any(arg.startswith("--pidfile") for arg in sys.argv):
            parent["pidfile"] = ""  # twistd's default, twistd.pid, is one for all the daemons of a folder
        if self["log-level"] not in ("debug", "info", "warn", "error"):
            raise usage.UsageError(f"--log-level must be debug, info, warn or error, not {self['log-level']!r}")

    # -- what makeService needs --------------------------------------------------------------------------------------

    def load(self) -> Any:
        """The configuration: defaults, then files, then flags; with its data folder made and tried.

        Raises:
            ConfigError
        """
        given = [flag for flag in self.flags if flag.name in self._given]
        config: Any = load(
            self.config_class,
            self["config"],
            secrets=self["secrets"],
            overrides={Key(flag.key, f"--{flag.name}"): self._given[flag.name] for flag in given if flag.key},
            warn=lambda message: self._log.warn("{message}", message=message),
        )
        if not any(field.name == "data_dir" for field in attrs.fields(type(config))):
            return config
        data_dir = Path(self["data-dir"] or config.data_dir or default_data_dir(self.component)).absolute()
        usable_folder(data_dir)
        return attrs.evolve(config, data_dir=data_dir)

    def service(self, build: Callable[..., IService], reactor: Any) -> IService:
        """What makeService returns: the component's service, with logs and one-line errors around it.

        Args:
            build: called with the configuration, and `reactor` by name.
        """
        config = run_plain(self.load)
        run_plain(lambda: self.try_ports(config))
        inner = run_plain(lambda: build(config, reactor=reactor))
        raise_file_limit()
        data_dir = getattr(config, "data_dir", None)
        self._log.info(
            "kraken-{component} keeps its data in {data_dir}", component=self.component, data_dir=data_dir or "memory"
        )
        observer = run_plain(lambda: self._observer(data_dir))
        return _Plain(inner, observer, Notifier(reactor), self.parent or {})

    def try_ports(self, config: Any) -> None:
        """Bind every port for a moment, while an error still reaches the terminal.

        Raises:
            ConfigError: one is taken, or may not be bound by this user.
        """
        for flag in self.flags:
            if flag.listens and flag.key is not None:
                value = _value_at(config, flag.key)
                section, _, _ = flag.key.rpartition(".")
                interface = getattr(_value_at(config, section) if section else config, "interface", "")
                for port in value if isinstance(value, (tuple, list)) else [value]:
                    try_port(port, f"--{flag.name}", interface)

    # -- inside ------------------------------------------------------------------------------------------------------

    _log = Logger()

    def __getitem__(self, name: str) -> Any:
        return self._given[name] if name in self._given else super().__getitem__(name)

    def _dashes(self, args: list[str]) -> list[str]:
        """Rewrite Go's forms to getopt's, and collect our flags' values (which may be repeated) on the way."""
        values = {flag.name: flag for flag in self.flags}
        taking = {*values, *self._common}
        known = taking | {row[0] for row in self.optFlags} | {"help", "version"}
        out: list[str] = []
        rest = iter(args)
        for arg in rest:
            name, equals, value = arg.lstrip("-").partition("=")
            if not arg.startswith("-") or name not in known:
                out.append(arg)
                continue
            if name in taking and not equals:
                following = next(rest, None)
                if following is None:
                    raise usage.UsageError(f"--{name} needs a value")
                value = following
            if name in values:
                self._give(values[name], value)
            else:
                out.append(f"--{name}={value}" if name in taking else f"--{name}")
        return out

    def _give(self, flag: Flag, text: str) -> None:
        try:
            value = flag.parse(text)
        except (ValueError, KrakenError) as error:
            raise usage.UsageError(f"--{flag.name}: {error}") from error
        self._given[flag.name] = (*self._given.get(flag.name, ()), value) if flag.many else value

    @classmethod
    def _doc(cls, flag: Flag) -> str:
        default = _value_at(cls.config_class(), flag.key) if flag.key else None
        if isinstance(default, (tuple, list)):
            default = ", ".join(map(str, default))
        return flag.doc if default in (None, "") else f"{flag.doc} [default: {default}]"

    @classmethod
    def _longdesc(cls) -> str:
        return (
            f"{cls.summary} Works without any option. A YAML file given with --config changes the defaults "
            f"(etc/{cls.component}/base.yaml lists every key), and an option here wins over the file. "
            f"Logs go to the terminal under `twistd -n`, else to kraken-{cls.component}.log in the data folder, "
            "unless twistd's own --logfile says where."
        )

    def _observer(self, data_dir: Path | None) -> ILogObserver | None:
        twistd: Any = self.parent or {}
        if twistd.get("syslog"):
            return None  # twistd's own
        name = twistd.get("logfile")
        if not name and not twistd.get("nodaemon"):
            name = str((data_dir or Path()) / f"kraken-{self.component}.log")
        try:
            out = logs.log_file(name) if name and name != "-" else sys.stdout
        except OSError as error:
            raise ConfigError(f"cannot write the log: {error.strerror}; choose another with --logfile", name) from error
        as_json = bool(self["json-logs"]) or logs.json_wanted()
        return logs.observer(out, self.component, as_json=as_json, level=LogLevel.levelWithName(self["log-level"]))


class _Plain(MultiService):
    """Holds the component's service: brings its log observer to twistd, fails to start in one line, tells systemd."""

    _log = Logger()

    def __init__(
        self, inner: IService, observer: ILogObserver | None, notifier: Notifier, twistd: Mapping[str, Any]
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._observer = observer
        self._notifier = notifier
        self._twistd = twistd
        inner.setServiceParent(self)

    def setServiceParent(self, parent: Any) -> None:
        if self._observer is not None and hasattr(parent, "setComponent"):
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]

    def privilegedStartService(self) -> None:
        run_plain(super().privilegedStartService, self._fail)

    def startService(self) -> None:
        run_plain(super().startService, self._fail)
        self._notifier.started(f"listens: {listening(self)}")

    def stopService(self) -> Deferred[Any]:
        self._notifier.stopping()
        stopped: Deferred[Any] = super().stopService()  # type: ignore[no-untyped-call]
        return stopped.addBoth(self._told)

    def _told(self, result: Any) -> Any:
        self._notifier.stopped()
        return result

    def _fail(self, message: str) -> NoReturn:
        self._log.critical("{message}", message=message)
        if "statusPipe" in self._twistd:  # detached already: twistd in the terminal waits for word on this pipe
            os.write(self._twistd["statusPipe"], b"1 " + message.encode())
        die(message)


def run_plain(do: Callable[[], Any], fail: Callable[[str], NoReturn] | None = None) -> Any:
    """`do()`, where an error that the operator can mend is told by `fail`: by default one line and exit code 1."""
    fail = fail or die
    try:
        return do()
    except KrakenError as error:
        fail(str(error))
    except CannotListenError as error:
        reason = getattr(error.socketError, "strerror", None) or error.socketError
        fail(f"cannot listen on port {error.port}: {reason}; stop what uses it, or choose another port")
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def die(message: str) -> NoReturn:
    """Say `message` in one line on stderr and exit with code 1."""
    print(f"error: {' '.join(message.split())}", file=sys.__stderr__, flush=True)
    raise SystemExit(1)


def default_data_dir(component: str) -> Path:
    """`/var/cache/kraken/<component>` where this user may write there, else a folder in the user's home.

    The herd has `/var/cache/kraken` itself, with a folder for each of its parts inside.
    """
    part = "" if component == "herd" else component
    nearest = SYSTEM_DATA / part
    while not nearest.exists():
        nearest = nearest.parent
    if os.access(nearest, os.W_OK):
        return SYSTEM_DATA / part
    home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
    return home / "krakentx" / part


def usable_folder(folder: Path, remedy: str = "choose a folder with --data-dir") -> None:
    """Make `folder` and write to it once.

    Raises:
        ConfigError: that fails; ends with `remedy`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(f"a file is in the way of this folder; {remedy}", folder) from error
    except OSError as error:
        raise ConfigError(f"cannot write here: {error.strerror}; {remedy}", folder) from error


def try_port(port: int, remedy: str, interface: str = "") -> None:
    """Raises: ConfigError, when `port` cannot be listened on; `remedy` is what chooses another."""
    if not 0 <= port <= MAX_PORT:
        raise ConfigError(f"{port} is not a port; give a number from 0 to {MAX_PORT} with {remedy}")
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((interface, port))
            probe.listen(1)
        except OSError as error:
            where = f"port {port} of {interface}" if interface else f"port {port}"
            if error.errno == errno.EADDRINUSE:
                problem = f"{where} is taken by {holder_of(port)}; stop that, or choose another with {remedy}"
            elif error.errno == errno.EACCES:
                problem = f"{where} needs root; choose one above 1023 with {remedy}"
            else:
                problem = f"cannot listen on {where}: {error.strerror}; is that an address of this host?"
            raise ConfigError(problem) from error


def raise_file_limit() -> None:
    """As many open files as this user may have: each peer, client and blob needs one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _value_at(config: Any, dotted: str) -> Any:
    for key in dotted.split("."):
        config = getattr(config, next(f.name for f in attrs.fields(type(config)) if yaml_key(f) == key))
    return config
