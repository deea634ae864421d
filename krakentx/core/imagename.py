"""Names of images: hosts, repositories, tags, references.

A person writes `postgres:14`; docker asks docker.io for `library/postgres`, and a mirror of docker.io is asked the same
way. The wire never carries the host. So that an image pushed as `postgres` is found by `docker pull postgres` through a
mirror, and the other way round, `spellings` gives both: a name is looked up as it was asked for, and when it is known
to be absent by its other spelling. Nothing is ever stored under a name that nobody wrote.
"""

from __future__ import annotations

import re

from attrs import field, frozen

from krakentx.core.digest import Digest
from krakentx.core.errors import InvalidInput

DEFAULT_HOST = "docker.io"
DEFAULT_TAG = "latest"
MAX_NAME = 255
"""Characters of a repository name, its host included."""

_LIBRARY = "library/"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:.]+\])(?::[0-9]{{1,5}})?")


def check_repository(name: str) -> str:
    """The name itself.

    Raises:
        InvalidInput: (`name`) capitals, `..`, empty parts, or too long.
    """
    if len(name) > MAX_NAME:
        raise InvalidInput("name", f"{len(name)} characters, at most {MAX_NAME} allowed")
    if not _REPOSITORY.fullmatch(name):
        raise InvalidInput("name", f"{name!r}: write lower-case letters and digits, joined by single . _ - or /")
    return name


def check_tag(tag: str) -> str:
    """The tag itself.

    Raises:
        InvalidInput: (`tag`) anything but letters, digits and `._-`, 128 at most, the first one no `.` or `-`.
    """
    if not _TAG.fullmatch(tag):
        raise InvalidInput("tag", f"{tag[:140]!r}: write at most 128 letters, digits, . _ or -")
    return tag


def parse_reference(text: str) -> str | Digest:
    """A tag or a digest, as in `/v2/<name>/manifests/<reference>`; only a digest has a colon.

    Raises:
        InvalidInput: (`tag` or `digest`) neither.
    """
    return Digest.parse(text) if ":" in text else check_tag(text)


def parse_tag(text: str) -> tuple[str, str]:
    """Repository and tag of `repository:tag`, the name of a tag in the build-index.

    Raises:
        InvalidInput: (`name` or `tag`) one of them is missing or wrong.
    """
    repository, colon, tag = text.rpartition(":")
    if not colon:
        raise InvalidInput("tag", f"{text[:MAX_NAME]!r} has none; write repository:tag")
    return check_repository(repository), check_tag(tag)


def spellings(repository: str) -> tuple[str, ...]:
    """The names under which a repository may have been stored, the one that was asked for first.

    `postgres` and `library/postgres` are one image of docker.io; other names have one spelling only.
    """
    if "/" not in repository:
        return repository, _LIBRARY + repository
    short = repository.removeprefix(_LIBRARY)
    if short != repository and "/" not in short:
        return repository, short
    return (repository,)


@frozen
class ImageName:
    """The full name of an image: where it is, what it is called, and which one of it."""

    host: str = field()
    repository: str = field()
    tag: str | None = None
    digest: Digest | None = None

    @host.validator
    def _check_host(self, _attribute: object, value: str) -> None:
        if not _HOST.fullmatch(value):
            raise InvalidInput("name", f"{value[:MAX_NAME]!r} is no host")

    @repository.validator
    def _check_repository(self, _attribute: object, value: str) -> None:
        check_repository(value)
        if len(self.host) + 1 + len(value) > MAX_NAME:
            raise InvalidInput("name", f"host and name have more than {MAX_NAME} characters together")

    @classmethod
    def parse(cls, text: str) -> ImageName:
        """Read what a person writes: `[host/]name[:tag][@digest]`.

        The first part is a host when it holds `.` or `:` or is `localhost`, and docker.io is meant otherwise, where a
        name of one part belongs to `library/`. Without tag and digest the tag is `latest`.

        Raises:
            InvalidInput: (`name`, `tag` or `digest`) it is none.
        """
        rest, at, digest_text = text.partition("@")
        digest = Digest.parse(digest_text) if at else None
        first, slash, path = rest.partition("/")
        if slash and ("." in first or ":" in first or first == "localhost"):
            host, rest = first, path
        else:
            host = DEFAULT_HOST
        repository, colon, tag_text = rest.partition(":")
        tag = check_tag(tag_text) if colon else None
        if host in (DEFAULT_HOST, f"index.{DEFAULT_HOST}"):
            host = DEFAULT_HOST
            repository = repository if "/" in repository else _LIBRARY + repository
        if tag is None and digest is None:
            tag = DEFAULT_TAG
        return cls(host, repository, tag, digest)

    @property
    def reference(self) -> str:
        """What stands behind `/manifests/`: the digest when there is one, else the tag."""
        return str(self.digest) if self.digest else self.tag or DEFAULT_TAG

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.host}/{self.repository}{tag}{digest}"
