"""A small Debian whose first process is systemd, in a container of systemd-nspawn, with our package installed.

The tree of Debian is made once per machine and kept; a boot adds a layer to it in memory, and throws that away.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import define, field
from packaging.requirements import Requirement

PROGRAMS = {"debootstrap": "debootstrap", "systemd-nspawn": "systemd-container", "nsenter": "util-linux"}
PACKAGES = "systemd,systemd-sysv,python3,redis-server"
CACHE = Path("/var/tmp")
PREFIX = Path("opt/kraken")
_CGROUPS = Path("/sys/fs/cgroup")
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_BOOT_S = 30.0
_HALT_S = 15.0


class NoMachine(Exception):
    """This host cannot run one; the text says why."""


def call(*argv: str | Path, **options: object) -> str:
    """Run to its end; what it prints. Raises: AssertionError, with what it printed."""
    done = subprocess.run(
        [str(word) for word in argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **options,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, f"{argv}: {done.stdout[-3000:]}"
    return str(done.stdout)


def wait(what: str, within_s: float, condition: Callable[[], bool]) -> None:
    """Poll until it holds."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within {within_s:g} s"
        time.sleep(0.1)


def debian() -> Path:
    """The tree of a small Debian, of the release that runs here where that is one.

    Raises:
        NoMachine: not root, a program is missing, or the tree cannot be made.
    """
    if os.geteuid() != 0:
        raise NoMachine("only root may run a container with a systemd")
    missing = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    if missing:
        raise NoMachine(f"not installed: {', '.join(missing)}")
    suite = _release()
    tree = CACHE / f"kraken-nspawn-root-{suite}"
    with (CACHE / f"kraken-nspawn-root-{suite}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tree.is_dir():
            _bootstrap(suite, tree)
    return tree


def _release() -> str:
    lines = Path("/etc/os-release").read_text().splitlines()
    release = dict(line.replace('"', "").split("=", 1) for line in lines if "=" in line)
    return release.get("VERSION_CODENAME", "") if release.get("ID") == "debian" else "bookworm"


def _bootstrap(suite: str, tree: Path) -> None:
    """Make it in memory, where dpkg's many fsyncs cost nothing, and move it to the disk."""
    partial = Path(f"{tree}.partial")
    memory = Path(f"{tree}.memory")
    shutil.rmtree(partial, ignore_errors=True)
    memory.mkdir(exist_ok=True)
    while os.path.ismount(memory):  # left by one that was killed
        call("umount", memory)
    call("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", memory)
    try:
        argv = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, str(memory)]
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode != 0:
            raise NoMachine(f"debootstrap failed: {done.stdout.strip().splitlines()[-1:]}")
        shutil.rmtree(memory / "var/cache/apt/archives", ignore_errors=True)
        call("cp", "-a", memory, partial)
    finally:
        call("umount", memory)
        memory.rmdir()
    partial.rename(tree)


def install(root: Path, wheel: Path) -> None:
    """Put the wheel into /opt/kraken of `root`, with what it requires as it is installed here.

    Raises:
        NoMachine: the Python there is not the one here.
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if not (root / "usr/bin" / version).exists():
        raise NoMachine(f"the tests run on {version}, which is not the one of that Debian")
    call("chroot", root, "python3", "-m", "venv", "--without-pip", f"/{PREFIX}")
    pip = [sys.executable, "-m", "pip", "-q", "install", "--no-deps", "--no-index", "--no-compile"]
    pip += ["--ignore-installed"]  # or it would uninstall the package from the environment of the tests
    call(*pip, "--root", root, "--prefix", f"/{PREFIX}", "--no-warn-script-location", wheel)
    site = root / PREFIX / "lib" / version / "site-packages"
    for name in sorted(_required("krakentx")):
        for file in importlib.metadata.distribution(name).files or ():
            target = Path(os.path.normpath(site / file))
            source = Path(str(file.locate()))
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
    for script in (root / PREFIX / "bin").iterdir():
        if not script.is_symlink() and script.read_bytes().startswith(b"#!"):
            first, newline, rest = script.read_bytes().partition(b"\n")
            if b"python" in first:
                script.write_bytes(f"#!/{PREFIX}/bin/python3".encode() + newline + rest)
    call("chroot", root, f"/{PREFIX}/bin/python3", "-m", "compileall", "-q", f"/{site.relative_to(root)}/krakentx")
    # Twisted's list of plugins, which the daemons may not write.
    call("chroot", root, f"/{PREFIX}/bin/twistd", "--help")
    share = root / PREFIX / "share/krakentx/systemd"
    for unit in (*share.glob("*.service"), *share.glob("*.target")):
        shutil.copy(unit, root / "etc/systemd/system")
    (root / "usr/lib/sysusers.d").mkdir(parents=True, exist_ok=True)
    shutil.copy(share / "kraken.sysusers.conf", root / "usr/lib/sysusers.d/kraken.conf")
    call("chroot", root, "systemd-sysusers")


def _required(name: str) -> set[str]:
    """The distributions that it needs, itself not among them."""
    found: set[str] = set()
    todo: list[tuple[str, frozenset[str]]] = [(name, frozenset())]
    seen = set(todo)
    while todo:
        current, extras = todo.pop()
        for text in importlib.metadata.requires(current) or ():
            need = Requirement(text)
            marker = need.marker
            if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in extras | {""}):
                continue
            found.add(need.name)
            key = (need.name, frozenset(need.extras))
            if key not in seen:
                seen.add(key)
                todo.append(key)
    return found


@define
class Machine:
    """One boot, with a network of its own that has the loopback only.

    Args:
        tree: the Debian underneath; it is not changed.
        folder: an empty one, for the layer above.
    """

    tree: Path
    folder: Path
    _leader: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _groups: list[Path] = field(factory=list)

    @property
    def root(self) -> Path:
        """Its `/`, seen from outside."""
        return self.folder / "root"

    def mount(self) -> None:
        """Raises: NoMachine, where layers of file systems do not work."""
        try:
            call("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", self.folder)
            upper, work = self.folder / "upper", self.folder / "work"
            for each in (upper, work, self.root):
                each.mkdir()
            layers = f"lowerdir={self.tree},upperdir={upper},workdir={work}"
            call("mount", "-t", "overlay", "overlay", "-o", layers, self.root)
        except AssertionError as error:
            raise NoMachine(str(error)) from error
        # Debian starts a redis of its own.
        (self.root / "etc/systemd/system/redis-server.service").symlink_to("/dev/null")

    def boot(self) -> None:
        """Return when systemd has started everything.

        Raises:
            NoMachine: it does not come up.
        """
        unified = (_CGROUPS / "cgroup.controllers").exists()
        hierarchies = [_CGROUPS] if unified else [path for path in _CGROUPS.iterdir() if not path.is_symlink()]
        name = f"kraken-test-{os.getpid()}"
        self._groups = [path / name for path in hierarchies if path.name in (_CGROUPS.name, *_OWN)]
        for group in self._groups:
            group.mkdir()
        argv = ["systemd-nspawn", "-q", "-b", f"-D{self.root}", "-M", name, "--register=no", "--keep-unit"]
        argv += ["--private-network", "--resolv-conf=off", "--timezone=off", "--console=pipe"]
        with (self.folder / "console.log").open("wb") as console:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env={"PATH": _PATH, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": str(int(unified))},
                start_new_session=True,
                preexec_fn=self._enter_groups,
            )
        try:
            wait("systemd in the container", _BOOT_S, self._is_up)
        except AssertionError as error:
            raise NoMachine(f"{error}: {self.console()[-2000:]}") from error

    def _enter_groups(self) -> None:
        for group in self._groups:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    def _is_up(self) -> bool:
        assert self._process is not None and self._process.poll() is None, "systemd-nspawn ended"
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        if not children:
            return False
        self._leader = int(children[0])
        done = self.run("systemctl", "is-system-running", check=False)
        assert done != "degraded", self.run("systemctl", "--failed", check=False)
        return done == "running"

    def console(self) -> str:
        """What the container has printed."""
        return (self.folder / "console.log").read_text(errors="replace")

    def command(self, *argv: str) -> list[str]:
        """`argv` as it is run inside, from outside."""
        return ["nsenter", "-t", str(self._leader), "-a", "--", "env", "-i", f"PATH={_PATH}", *argv]

    def run(self, *argv: str, check: bool = True, within_s: float = 60.0) -> str:
        """What the command prints inside, without the last line end.

        Raises:
            AssertionError: it fails, unless `check` is off.
        """
        done = subprocess.run(
            self.command(*argv),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=within_s,
            check=False,
        )
        assert done.returncode == 0 or not check, f"{argv}: exit {done.returncode}\n{done.stdout[-4000:]}"
        return done.stdout.strip()

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.run("systemctl", "show", "--property", name, "--value", unit)

    def close(self) -> None:
        """Halt it, and leave nothing behind."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_HALT_S)
            except subprocess.TimeoutExpired:
                os.kill(self._leader, signal.SIGKILL)
                self._process.wait(_HALT_S)
        for group in self._groups:
            for folder in (*sorted(_folders(group), reverse=True), group):
                folder.rmdir()
        for place in (self.root, self.folder):
            if os.path.ismount(place):
                call("umount", place)


_OWN = ("systemd", "unified", "pids", "memory")


def _folders(group: Path) -> Iterator[Path]:
    return (path for path in group.rglob("*") if path.is_dir())
