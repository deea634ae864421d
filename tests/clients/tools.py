"""Real container clients, started on temporary folders and ended by their own pid."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from attrs import define, field

PACKAGES = {
    "skopeo": "skopeo",
    "docker": "docker.io",
    "dockerd": "docker.io",
    "containerd": "containerd",
    "ctr": "containerd",
    "podman": "podman",
    "buildah": "buildah",
    "umoci": "umoci",
    "redis-server": "redis-server",
    "iptables": "iptables",
    "ip": "iproute2",
}
"""Program -> the Debian package that brings it."""


def program(name: str) -> str:
    """Path of a client, Debian's own first: another docker may stand earlier in PATH.

    Skips the test when the program is not on this machine.
    """
    for folder in ("/usr/bin", "/usr/sbin"):
        if os.access(f"{folder}/{name}", os.X_OK):
            return f"{folder}/{name}"
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not on this machine; it comes with the Debian package {PACKAGES.get(name, name)}")
    return found


def need_root(why: str) -> None:
    """Skip where the test cannot work as a normal user."""
    if os.geteuid() != 0:
        pytest.skip(f"{why} needs root")


def run(*argv: str | Path, timeout_s: float = 60, env: dict[str, str] | None = None, ok: bool = True) -> str:
    """Run a client to its end and return what it printed, both streams in one; fail with that text."""
    done = subprocess.run(
        [str(word) for word in argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        timeout=timeout_s,
        env={**os.environ, **(env or {})},
        check=False,
    )
    text = done.stdout.decode(errors="replace")
    if ok != (done.returncode == 0):
        pytest.fail(f"exit code {done.returncode} of {' '.join(map(str, argv))}\n{text}")
    return text


def wait_for(what: str, check: Callable[[], bool], timeout_s: float = 30) -> None:
    """Poll until it holds; fail with the words in `what`."""
    deadline = time.monotonic() + timeout_s
    while not check():
        if time.monotonic() > deadline:
            pytest.fail(f"after {timeout_s:.0f} s still waiting for {what}")
        time.sleep(0.05)


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256(file)


def _sha256(file: object) -> str:
    total = hashlib.sha256()
    while block := file.read(1 << 20):  # type: ignore[attr-defined]
        total.update(block)
    return total.hexdigest()


@contextlib.contextmanager
def daemon(log: Path, *argv: str | Path, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process in its own group, ended at the end of the block: TERM, then KILL after 15 s."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            [str(word) for word in argv],
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for unix sockets, removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="kx-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@define
class Docker:
    """A docker daemon of its own, without bridge and iptables."""

    folder: Path
    mirrors: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def host(self) -> str:
        """The socket as docker's `-H` takes it."""
        return f"unix://{self.folder}/docker.sock"

    def __call__(self, *argv: str | Path, timeout_s: float = 120, ok: bool = True) -> str:
        """Run `docker ARGV` against this daemon."""
        return run(program("docker"), "-H", self.host, *argv, timeout_s=timeout_s, ok=ok)

    def forget(self, *images: str) -> None:
        """Remove images, so that the next pull fetches every layer again."""
        for image in images:
            self("rmi", "-f", image)

    @classmethod
    @contextlib.contextmanager
    def start(cls, mirrors: Sequence[str] = (), **settings: object) -> Iterator[Docker]:
        """Start, wait until it answers, and stop at the end.

        Args:
            settings: more of daemon.json, with `_` for `-`.
        """
        need_root("dockerd")
        dockerd = program("dockerd")
        program("docker")
        with short_folder() as folder:
            config = {name.replace("_", "-"): value for name, value in settings.items()}
            (folder / "daemon.json").write_text(json.dumps({"registry-mirrors": list(mirrors), **config}))
            docker = cls(folder, mirrors)
            argv = [
                *(dockerd, "--config-file", folder / "daemon.json", "--data-root", folder / "data"),
                *("--exec-root", folder / "exec", "--pidfile", folder / "pid", "-H", docker.host),
                *("--bridge=none", "--iptables=false", "--ip6tables=false"),
            ]
            try:
                with daemon(folder / "log", *argv) as docker.process:
                    wait_for("dockerd to answer", lambda: _answers(docker.process, docker.host, folder))
                    yield docker
            finally:
                # dockerd leaves this mount behind, and a mounted folder cannot be removed.
                subprocess.run(["umount", "-q", str(folder / "exec/netns/default")], check=False)


def _answers(process: subprocess.Popen[bytes] | None, host: str, folder: Path) -> bool:
    if process is not None and process.poll() is not None:
        pytest.fail(f"dockerd ended with {process.returncode}:\n{(folder / 'log').read_text()[-3000:]}")
    probe = subprocess.run([program("docker"), "-H", host, "version"], capture_output=True, check=False)
    return probe.returncode == 0


@define
class Containerd:
    """A containerd of its own, spoken to by `ctr`."""

    folder: Path

    def __call__(self, *argv: str | Path, timeout_s: float = 120, ok: bool = True) -> str:
        """Run `ctr ARGV` against it."""
        return run(program("ctr"), "-a", self.folder / "sock", *argv, timeout_s=timeout_s, ok=ok)

    def hosts(self, host: str, *mirrors: str) -> Path:
        """Write a hosts.toml which sends pulls of `host` to the mirrors in turn; returns the `--hosts-dir`."""
        target = self.folder / "hosts" / host
        target.mkdir(parents=True, exist_ok=True)
        lines = ['server = "http://127.0.0.1:1"']  # nobody listens there: what no mirror has must fail
        for mirror in mirrors:
            lines += [f'[host."{mirror}"]', 'capabilities = ["pull", "resolve"]']
        (target / "hosts.toml").write_text("\n".join(lines) + "\n")
        return self.folder / "hosts"

    @classmethod
    @contextlib.contextmanager
    def start(cls) -> Iterator[Containerd]:
        """Start, wait until it answers, and stop at the end."""
        need_root("containerd")
        containerd, ctr = program("containerd"), program("ctr")
        with short_folder() as folder:
            (folder / "config.toml").write_text(
                f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
                'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
                f'[grpc]\naddress = "{folder}/sock"\n'
            )
            with daemon(folder / "log", containerd, "-c", folder / "config.toml"):
                probe = [ctr, "-a", f"{folder}/sock", "version"]
                wait_for(
                    "containerd to answer",
                    lambda: subprocess.run(probe, capture_output=True, check=False).returncode == 0,
                )
                yield cls(folder)


@define
class Podman:
    """Podman (or buildah) with storage of its own."""

    folder: Path

    def __call__(self, *argv: str | Path, timeout_s: float = 120, ok: bool = True, tool: str = "podman") -> str:
        """Run `podman ARGV` on this storage."""
        store = ("--root", self.folder / "root", "--runroot", self.folder / "run", "--storage-driver", "vfs")
        return run(program(tool), *store, *argv, timeout_s=timeout_s, ok=ok, env=self._env())

    def _env(self) -> dict[str, str]:
        # Without this the blob cache of earlier runs makes the requests depend on history.
        return {"XDG_DATA_HOME": str(self.folder), "HOME": str(self.folder), "TMPDIR": str(self.folder)}


class Cutter:
    """A TCP proxy which ends a connection after so many bytes of answers, a given number of times.

    It ends them by FIN: containerd resumes after that, and gives up after a reset.

    Args:
        target: port on loopback which is the real server.
        after_bytes: answer bytes on one connection before the cut.
        cuts: how often; later connections pass whole.
    """

    def __init__(self, target: int, after_bytes: int, cuts: int) -> None:
        self.target, self.after_bytes, self.left, self.done = target, after_bytes, cuts, 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self.target)) as server:
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
            passed = 0
            try:
                while data := server.recv(65536):
                    passed += len(data)
                    if passed > self.after_bytes and self._take_cut():
                        return
                    client.sendall(data)
            except OSError:
                return
            finally:
                for end in (client, server):
                    with contextlib.suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)

    def _take_cut(self) -> bool:
        with self._lock:
            if self.left == 0:
                return False
            self.left -= 1
            self.done += 1
            return True

    @staticmethod
    def _forward(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@define
class Images:
    """The test images of make_images.sh."""

    folder: Path
    digests: dict[str, str] = field(factory=dict)  # "oci-hand one" -> manifest digest

    def source(self, layout: str, tag: str) -> str:
        """As skopeo names it."""
        return f"oci:{self.folder / layout}:{tag}"

    @property
    def archive(self) -> str:
        """The runnable image as skopeo names it."""
        return f"docker-archive:{self.folder / 'busybox.tar'}"

    @classmethod
    def make(cls, folder: Path) -> Images:
        """Build them; about five seconds."""
        program("umoci")
        run("sh", Path(__file__).with_name("make_images.sh"), folder, timeout_s=120)
        rows = [line.split() for line in (folder / "DIGESTS").read_text().splitlines()]
        return cls(folder, {f"{layout} {tag}": digest for layout, tag, digest in rows})


def layers_of(folder: Path) -> dict[str, str]:
    """Hex names of the blobs in a `dir:` copy of skopeo -> their true sha256."""
    return {path.name: sha256_of(path) for path in folder.iterdir() if re.fullmatch("[0-9a-f]{64}", path.name)}


def skopeo_push(source: str, target: str, *options: str) -> None:
    """Copy an image to `host:port/name:tag`. Layers go as they are: skopeo would gzip them on the way otherwise."""
    run(
        program("skopeo"),
        "copy",
        "--dest-tls-verify=false",
        "--preserve-digests",
        *options,
        source,
        f"docker://{target}",
    )


def skopeo_pull(source: str, folder: Path, *options: str) -> bytes:
    """Copy into a folder and return the manifest; every blob must hash to its name."""
    folder.mkdir(parents=True)
    run(program("skopeo"), "copy", "--src-tls-verify=false", *options, f"docker://{source}", f"dir:{folder}")
    blobs = layers_of(folder)
    assert blobs and all(name == true for name, true in blobs.items())
    return (folder / "manifest.json").read_bytes()


def digest_at(registry: str, name: str) -> str:
    """Digest of the manifest that a registry gives for `name:tag`."""
    text = run(
        *(program("skopeo"), "inspect", "--tls-verify=false", "--no-tags"),
        *("--format", "{{.Digest}}", f"docker://{registry}/{name}"),
    )
    return text.strip()
