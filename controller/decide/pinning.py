"""Which bytes a service's image means: the digest its name is pinned to when the service is written.

Rules: pure. An image named with a digest says it itself. What nodes have under the name comes first, unless the pull policy or
the person wants the registry's word. What cannot be found out is a warning, never a refusal: then the image stays what it was,
and a new one is left to each node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from model.documents import ServiceDoc
from model.image_ref import parse_image_ref
from model.spec import ServiceSpec

Resolve = Literal["always", "changed", "never"]
"""When the registry is asked: for every image, for those that are new here (and with `pull_policy: always`), for none."""
ALWAYS: Final = "always"


@dataclass(frozen=True, slots=True)
class Wish:
    """One service's image as it is written. `held`: the digests nodes have under that name, that of most nodes first; `before`:
    the one that the service was pinned to under the same name; empty: none."""

    image: str
    policy: str = "missing"
    resolve: Resolve = "changed"
    held: tuple[str, ...] = ()
    before: str = ""

    @property
    def known(self) -> str:
        """What stands for the name without a registry. As long as one node has under it what the service is pinned to, that is:
        others may have it from an earlier time, or an update is under way."""
        return self.before if self.before in self.held or not self.held else self.held[0]


@dataclass(frozen=True, slots=True)
class Pin:
    digest: str = ""
    warning: str = ""


def wish_of(spec: ServiceSpec, known: ServiceDoc | None, resolve: Resolve, held: tuple[str, ...]) -> Wish:
    container, was = spec.container, known.spec.container if known is not None else None
    before = was.image_digest if was is not None and was.image == container.image else ""
    return Wish(container.image, container.pull_policy, resolve, held, before)


def asks_registry(wish: Wish) -> bool:
    """Whether its registry has to be asked before `pin`."""
    if "never" in (wish.resolve, wish.policy) or parse_image_ref(wish.image).digest is not None:
        return False
    return ALWAYS in (wish.resolve, wish.policy) or not wish.known


def pin(wish: Wish, answer: str = "", problem: str = "") -> Pin:
    """`answer`: the digest its registry has for the name; empty with the `problem` when it was asked in vain."""
    if parse_image_ref(wish.image).digest is not None:
        return Pin()
    if wish.resolve == "never":
        return Pin(wish.before)
    if answer:
        return Pin(answer)
    kept = wish.known
    if not asks_registry(wish):
        return Pin(kept, "" if kept else f"image {wish.image} is on no node, and its pull policy is 'never'")
    what = f"image {wish.image} could not be accessed on a registry to record its digest"
    after = "what the nodes have is taken" if kept else "each node pulls it by itself and may run other bytes"
    return Pin(kept, f"{what}{f' ({problem})' if problem else ''}: {after}")


def pinned_first(spec: ServiceSpec, known: ServiceDoc | None) -> bool:
    """Whether a service that ran unpinned is pinned now, with the image as it was written."""
    was = known.spec.container if known is not None else None
    is_same = was is not None and was.image == spec.container.image and not was.image_digest
    return is_same and bool(spec.container.image_digest)


def pinned(spec: ServiceSpec, digests: Mapping[str, str]) -> ServiceSpec:
    """`digests`: by service name."""
    container = spec.container
    digest = digests.get(spec.name, "")
    return spec if container.image_digest == digest else replace(spec, container=replace(container, image_digest=digest))


def with_digest(spec: ServiceSpec) -> str:
    """`registry:2@sha256:..`, as Docker shows the image of a service."""
    container = spec.container
    return f"{container.image}@{container.image_digest}" if container.image_digest else container.image
