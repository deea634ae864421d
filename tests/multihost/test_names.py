"""kraken-pull.sh: names, the choice of a program, and the fall back to the herd."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from krakentx.core.errors import InvalidInput
from krakentx.core.imagename import ImageName
from tests.multihost.box import FOLDER

SCRIPT = FOLDER / "test/kraken-pull.sh"
SHA = "sha256:" + "0123456789abcdef" * 4
SHA512 = "sha512:" + "0123456789abcdef" * 8
NAMES = {
    "hello-world": "library/hello-world:latest",
    "hello-world:linux": "library/hello-world:linux",
    "company/myapp:v1.0": "company/myapp:v1.0",
    "company/team/app": "company/team/app:latest",
    "docker.io/hello-world": "library/hello-world:latest",
    "docker.io/library/hello-world": "library/hello-world:latest",
    "docker.io/company/myapp:v1": "company/myapp:v1",
    "index.docker.io/hello-world:v1": "library/hello-world:v1",
    "index.docker.io/company/myapp": "company/myapp:latest",
    "localhost/x/y": "x/y:latest",
    "localhost:15000/x": "x:latest",
    "10.0.1.100:15000/company/myapp:v1": "company/myapp:v1",
    "[fd00::1]:15000/company/myapp:v1": "company/myapp:v1",
    "ghcr.io/owner/app:v2": "owner/app:v2",
    "registry.example:5000/x:1": "x:1",
    "foo_bar__baz/a-b--c.d": "foo_bar__baz/a-b--c.d:latest",
    f"hello-world@{SHA}": f"library/hello-world@{SHA}",
    f"company/myapp:v1@{SHA}": f"company/myapp@{SHA}",
    f"ghcr.io/owner/app@{SHA}": f"owner/app@{SHA}",
    "under_score:T_a.g-1": "library/under_score:T_a.g-1",
}
REFUSED = [
    "Hello",
    "LOCALHOST/q",
    "foo___x",
    "foo__/x",
    "foo///bar",
    "/x",
    "x/",
    "a:b:c",
    "a:",
    "a:-b",
    "a:" + "t" * 129,
    "a@",
    "a@sha256:123",
    f"a@{SHA.upper()}",
    "ghcr.io/",
    "a b",
    "$(id)",
    "x" * 250,
]
SOURCE, TARGET = "agent:16000/library/app:latest", "docker.io/library/app:latest"
STUBS = ("docker", "podman", "nerdctl", "ctr", "skopeo")


def name_of(image: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", SCRIPT, "--name", image], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("image", "name"), NAMES.items())
def test_name(image: str, name: str) -> None:
    assert name_of(image).stdout.strip() == name
    parsed = ImageName.parse(image)
    assert name == f"{parsed.repository}{'@' if parsed.digest else ':'}{parsed.reference}"


@pytest.mark.parametrize("image", REFUSED)
def test_what_is_no_name(image: str) -> None:
    done = name_of(image)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("kraken-pull: ")
    with pytest.raises(InvalidInput):
        ImageName.parse(image)


def test_a_digest_of_another_algorithm() -> None:
    assert name_of(f"a@{SHA512}").stdout.strip() == f"library/a@{SHA512}"


class Stubs:
    """A PATH with stubs that write down how they were called, and fail where told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder / "calls"
        tools = ["sh", "sed", "grep", "cat", "tr", "mktemp", "rm", "tee", "timeout", "env"]
        for tool in tools:
            (folder / tool).symlink_to(f"/usr/bin/{tool}" if Path(f"/usr/bin/{tool}").exists() else f"/bin/{tool}")

    def add(self, name: str, fails_for: str = "", says: str = "") -> None:
        fail = (
            f'case "$*" in *{shlex.quote(fails_for)}*) echo {shlex.quote(says)}; exit 1 ;; esac\n' if fails_for else ""
        )
        path = self.folder / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.calls}\n{fail}')
        path.chmod(0o755)

    def pull(self, image: str, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
        self.calls.write_text("")
        variables = {"PATH": str(self.folder), "HERD_HOST": "herd:15000", "HOME": os.environ.get("HOME", "/"), **env}
        return subprocess.run(["sh", SCRIPT, image, *argv], env=variables, capture_output=True, text=True, check=False)

    @property
    def called(self) -> list[str]:
        """The calls of the last pull, without questions whether a daemon is there."""
        return [line for line in self.calls.read_text().splitlines() if not line.endswith(" version")]


@pytest.fixture
def stubs(tmp_path: Path) -> Stubs:
    return Stubs(tmp_path)


@pytest.mark.parametrize(
    ("tool", "calls"),
    [
        ("docker", [f"docker pull {SOURCE}", f"docker tag {SOURCE} {TARGET}"]),
        ("podman", [f"podman pull --tls-verify=false {SOURCE}", f"podman tag {SOURCE} {TARGET}"]),
        ("nerdctl", [f"nerdctl pull --insecure-registry {SOURCE}", f"nerdctl tag {SOURCE} {TARGET}"]),
        ("ctr", [f"ctr images pull --plain-http {SOURCE}", f"ctr images tag --force {SOURCE} {TARGET}"]),
        ("skopeo", [f"skopeo copy --src-tls-verify=false docker://{SOURCE} oci:/here/library_app:latest"]),
    ],
)
def test_the_program_that_is_there_is_used(stubs: Stubs, tool: str, calls: list[str]) -> None:
    stubs.add(tool)
    done = stubs.pull("app", "agent", KRAKEN_PULL_DIR="/here")
    assert done.returncode == 0, done.stderr
    assert stubs.called == calls


def test_the_first_that_works_is_chosen_unless_one_is_named(stubs: Stubs) -> None:
    for tool in STUBS:
        stubs.add(tool)
    stubs.pull("app")
    assert stubs.called[0].startswith("docker pull localhost:16000/")
    stubs.add("docker", "version", "Cannot connect to the Docker daemon")
    stubs.pull("app")
    assert stubs.called[0].startswith("podman pull ")
    stubs.pull("app", KRAKEN_PULL_WITH="ctr")
    assert stubs.called[0].startswith("ctr images pull ")


def test_a_digest_is_pulled_by_it_and_gets_the_tag_that_was_written(stubs: Stubs) -> None:
    stubs.add("docker")
    stubs.pull(f"ghcr.io/owner/app:v2@{SHA}", "agent:1")
    source = f"agent:1/owner/app@{SHA}"
    assert stubs.called == [f"docker pull {source}", f"docker tag {source} ghcr.io/owner/app:v2"]
    stubs.pull(f"owner/app@{SHA}", "agent:1")
    assert stubs.called == [f"docker pull {source}"]


def test_it_falls_back_to_the_herd(stubs: Stubs) -> None:
    stubs.add("docker", "pull agent:16000", "connection refused")
    done = stubs.pull("team/app:v1", "agent:16000")
    assert done.returncode == 0
    assert "Agent pull failed, falling back to herd" in done.stderr
    assert "connection refused" in done.stdout and "insecure-registries" not in done.stderr
    assert stubs.called[-1] == "docker tag herd:15000/team/app:v1 docker.io/team/app:v1"


def test_when_nobody_has_it_the_exit_code_tells(stubs: Stubs) -> None:
    stubs.add("podman", "pull", "manifest unknown")
    done = stubs.pull("team/app:v1")
    assert done.returncode == 1
    assert "neither the agent nor the herd gave team/app:v1" in done.stderr


def test_a_missing_setting_of_docker_is_told_with_its_lines(stubs: Stubs) -> None:
    stubs.add("docker", "pull agent", "http: server gave HTTP response to HTTPS client")
    done = stubs.pull("team/app:v1", "agent:16000")
    assert done.returncode == 0
    assert '"insecure-registries": ["agent:16000", "herd:15000"]' in done.stderr
    assert '"registry-mirrors": ["http://agent:16000"]' in done.stderr


def test_a_pull_that_never_ends_is_ended(stubs: Stubs) -> None:
    (stubs.folder / "sleep").symlink_to("/usr/bin/sleep")
    (stubs.folder / "skopeo").write_text('#!/bin/sh\ncase "$*" in *agent*) exec sleep 60 ;; esac\n')
    (stubs.folder / "skopeo").chmod(0o755)
    done = stubs.pull("team/app:v1", "agent:16000", KRAKEN_PULL_LIMIT="0.2")
    assert (done.returncode, "falling back to herd" in done.stderr) == (0, True)


@pytest.mark.parametrize(
    ("argv", "env", "words"),
    [
        (["app"], {}, "none of docker, podman"),
        (["app", "a", "b"], {}, "use: kraken-pull.sh"),
        (["app"], {"KRAKEN_PULL_WITH": "curl"}, "docker, podman, nerdctl, ctr and skopeo are known"),
        (["--help"], {}, "kraken-pull.sh IMAGE [AGENT]"),
    ],
)
def test_wrong_use(stubs: Stubs, argv: list[str], env: dict[str, str], words: str) -> None:
    done = stubs.pull(*argv, **env)
    assert done.returncode == 2
    assert words in done.stdout + done.stderr
