"""A host of the testbed with a file system of its own, as bare as a new machine.

What it sees of this machine is a copy: what it writes goes to memory, and is gone with it. The repository, and the home
of root, are not there at all.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from attrs import define, field

from tests.testbed.hosts import Host

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "examples/multihost"
SRV = "/srv/multihost"
FULL_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
BARE_PATH = "/tools"
_TOOLS = (
    *(
        "sh",
        "env",
        "cat",
        "cp",
        "rm",
        "mv",
        "ls",
        "mkdir",
        "chmod",
        "chown",
        "id",
        "uname",
        "sleep",
        "tr",
        "sed",
        "grep",
    ),
    *(
        "head",
        "tail",
        "basename",
        "dirname",
        "cksum",
        "mktemp",
        "tee",
        "timeout",
        "find",
        "useradd",
        "userdel",
        "python3",
    ),
)
"""Programs that the scripts may rely on: those of a minimal Debian, and python3."""
_MOUNT = """
set -e
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
for each in proc sys dev; do mount --rbind "/$each" "$each"; done
for each in tmp run var/tmp var/lib/containers root home "$2"; do
    if [ -d "./$each" ]; then mount -t tmpfs -o mode=755 tmpfs "./$each"; fi
done
rm -rf ./var/cache/kraken ./var/log/kraken ./opt/kraken ./etc/kraken  # of this machine; only hidden, by the overlay
chmod 1777 tmp var/tmp
exec chroot . sh -c 'echo ready; exec sleep infinity'
"""


class NoBox(Exception):
    """This machine cannot have one; the text says why."""


@define(eq=False)
class Box:
    """One of them.

    Args:
        folder: an empty one.
    """

    host: Host
    folder: Path
    _holder: subprocess.Popen[str] | None = field(default=None, init=False)

    @property
    def ip(self) -> str:
        """Its address."""
        return self.host.ip

    @property
    def root(self) -> Path:
        """Its `/`, seen from outside."""
        assert self._holder is not None
        root = Path(f"/proc/{self._holder.pid}/root")
        assert not root.samefile("/"), "this would write to the machine itself"
        return root

    @classmethod
    @contextlib.contextmanager
    def make(cls, host: Host, folder: Path) -> Iterator[Box]:
        """Make it; at the end of the block every process in it ends.

        Raises:
            NoBox
        """
        folder.mkdir(parents=True)
        box = cls(host, folder)
        try:
            box._start()
            yield box
        finally:
            box._stop()

    def _start(self) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", self.folder], check=True)
        for name in ("upper", "work", "root"):
            (self.folder / name).mkdir()
        hidden = f".{Path('/', *REPOSITORY.parts[1:2])}"
        with self.host.inside():
            self._holder = subprocess.Popen(
                ["unshare", "--mount", "--propagation=private", "sh", "-c", _MOUNT, "sh", str(self.folder), hidden],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={"PATH": FULL_PATH},
            )
        assert self._holder.stdout is not None
        said = self._holder.stdout.readline()
        if said != "ready\n":
            raise NoBox(f"no file system of its own for {self.host.name}: {said}{self._holder.stdout.read()}")
        tools = self.root / BARE_PATH[1:]
        tools.mkdir()
        for name in _TOOLS:
            found = shutil.which(name, path=FULL_PATH)
            assert found is not None, name
            (tools / name).symlink_to(found)
        names = "".join(f"{other.ip} {other.name}\n" for other in self.host.hosts)
        (self.root / "etc/hosts").write_text(f"127.0.0.1 localhost\n{names}")

    def _stop(self) -> None:
        if self._holder is not None:
            space = os.readlink(f"/proc/{self._holder.pid}/ns/mnt")
            for sign, patience_s in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 1.0)):
                deadline = time.monotonic() + patience_s
                for pid in _processes(space) - {self._holder.pid}:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, sign)
                while _processes(space) - {self._holder.pid} and time.monotonic() < deadline:
                    time.sleep(0.05)
            self._holder.kill()
            self._holder.wait(10)
            if self._holder.stdout is not None:
                self._holder.stdout.close()
        subprocess.run(["umount", self.folder], check=False)

    def command(self, *argv: str, path: str = BARE_PATH, env: Mapping[str, str] | None = None) -> list[str]:
        """`argv` as it is run there, from here."""
        assert self._holder is not None
        there = ["nsenter", "-t", str(self._holder.pid), "-m", "-n", "-r", "--", "/usr/bin/env", "-i", "-C", SRV]
        variables = {"PATH": path, "HOME": "/", "LANG": "C.UTF-8", **(env or {})}
        return [*there, *(f"{name}={value}" for name, value in variables.items()), *argv]

    def run(
        self, *argv: str, path: str = BARE_PATH, env: Mapping[str, str] | None = None, ok: bool | None = True
    ) -> str:
        """Run a command there, in the folder of the example; what it printed, both streams in one.

        Args:
            path: the PATH it gets.
            ok: whether it must succeed or fail; None for either.

        Raises:
            AssertionError: with what it printed.
        """
        done = subprocess.run(
            self.command(*argv, path=path, env=env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert ok is None or ok == (done.returncode == 0), f"{argv}: exit {done.returncode}\n{done.stdout}"
        return done.stdout

    def bring(self, wheels: Path | None = None) -> None:
        """Copy the folder of the example there, alone, and the wheels beside its README."""
        target = self.root / SRV[1:]
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(FOLDER, target)
        for wheel in wheels.glob("*.whl") if wheels else ():
            shutil.copy(wheel, target)

    def log(self, component: str) -> str:
        """The whole log of a component."""
        return (self.root / f"var/log/kraken/kraken-{component}/stdout.log").read_text()


def _processes(mount_space: str) -> set[int]:
    """Those that live in this mount namespace; one that has ended and was not waited for has none any more."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                if os.readlink(folder / "ns/mnt") == mount_space:
                    found.add(int(folder.name))
    return found
