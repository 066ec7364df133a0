"""Image references, read as Docker reads them: `busybox` is `docker.io/library/busybox:latest`.

Rules of this file: pure text in, frozen record out. A digest decides over a tag when both are given. Every error
names the reference and what is wrong with it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from model.errors import BadInput

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
_NAME_CHARS_MAX = 255
_DOMAIN_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_DOMAIN_LABEL}(?:\.{_DOMAIN_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm/v7", "ppc64le": "ppc64le", "s390x": "s390x"}
_BARE_ID = re.compile(r"[0-9a-f]{64}")


class ImageRefError(BadInput):
    """A text that is not an image reference."""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One image as named by a person: where it is kept, what it is called, and which version."""

    registry: str
    repository: str
    tag: str | None
    digest: str | None

    @property
    def name(self) -> str:
        """`docker.io/library/busybox`: registry and repository, no version."""
        return f"{self.registry}/{self.repository}"

    @property
    def canonical(self) -> str:
        """The full, unambiguous form: `docker.io/library/busybox:latest`."""
        return self.name + self._version()

    @property
    def familiar(self) -> str:
        """The short form people write: `busybox:latest`, `shop/web:2`, `localhost:5000/x:1`."""
        if self.registry != DEFAULT_REGISTRY:
            return self.canonical
        return self.repository.removeprefix("library/") + self._version()

    def _version(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        digest = f"@{self.digest}" if self.digest is not None else ""
        return tag + digest


def parse_image_ref(text: str) -> ImageRef:
    """Read one reference; raise ImageRefError with one line that says what is wrong."""
    rest = text
    if not rest or rest != rest.strip() or any(c.isspace() for c in rest):
        raise _bad(text, "it is empty" if not rest.strip() else "it contains white space")
    if "://" in rest:
        raise _bad(text, f"a registry is named without a scheme: write {rest.split('://', 1)[1]!r}")
    rest, digest = _split_digest(text, rest)
    rest, tag = _split_tag(text, rest)
    registry, repository = _split_registry(text, rest)
    _check_repository(text, repository)
    if len(registry) + 1 + len(repository) > _NAME_CHARS_MAX:
        raise _bad(text, f"its name is longer than {_NAME_CHARS_MAX} characters")
    if tag is None and digest is None:
        tag = DEFAULT_TAG
    return ImageRef(registry, repository, tag, digest)


def _split_digest(text: str, rest: str) -> tuple[str, str | None]:
    if "@" not in rest:
        return rest, None
    rest, digest = rest.split("@", 1)
    if not _DIGEST.fullmatch(digest):
        raise _bad(text, f"digest {digest!r} is not sha256: and 64 lower-case hex digits")
    return rest, digest


def _split_tag(text: str, rest: str) -> tuple[str, str | None]:
    head, slash, last = rest.rpartition("/")
    if ":" not in last:
        return rest, None
    name, tag = last.split(":", 1)
    if not _TAG.fullmatch(tag):
        raise _bad(text, f"tag {tag!r} is not 1 to 128 of letters, digits, '_', '.', '-' (not beginning with '.' or '-')")
    return head + slash + name, tag


def _split_registry(text: str, rest: str) -> tuple[str, str]:
    first, slash, tail = rest.partition("/")
    is_registry = bool(slash) and ("." in first or ":" in first or first == "localhost" or first.lower() != first)
    if not is_registry:
        return DEFAULT_REGISTRY, rest if slash else f"library/{rest}"
    if not _DOMAIN.fullmatch(first):
        raise _bad(text, f"registry {first!r} is not host or host:port")
    if first == "index.docker.io" or first == DEFAULT_REGISTRY:
        return DEFAULT_REGISTRY, tail if "/" in tail else f"library/{tail}"
    return first, tail


def _check_repository(text: str, repository: str) -> None:
    shown = repository.removeprefix("library/")
    if not shown:
        raise _bad(text, "it has no image name")
    if _BARE_ID.fullmatch(shown):
        raise _bad(text, "64 hex digits are an image id, not a name")
    for component in repository.split("/"):
        if not component:
            raise _bad(text, "it has an empty part between slashes")
        if component.lower() != component:
            raise _bad(text, f"{component!r} has upper-case letters, names are lower case")
        if not _COMPONENT.fullmatch(component):
            raise _bad(text, f"{component!r} is not letters and digits joined by '.', '_', '__' or '-'")


def _bad(text: str, why: str) -> ImageRefError:
    return ImageRefError(f"image reference {text[:120]!r}: {why}")


def image_platform(machine: str) -> str:
    """A machine (`x86_64`) in the words of image indexes: `linux/amd64`."""
    return f"linux/{_ARCHITECTURES.get(machine, machine)}"
