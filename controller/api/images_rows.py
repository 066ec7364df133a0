"""The images of the cluster as one Docker would have them, out of what each node has.

Rules: pure. An image is its id: the same on several nodes is one image here. A name may stand for different images on different
nodes (`latest` of two days): asked for by name, the one that most nodes have under it is meant, the newest of equals. What may
be removed, and the words of a refusal, are Docker's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from model.errors import BadInput, Conflict, NotFound
from model.image_ref import DEFAULT_TAG, ImageRef, parse_image_ref

Row = dict[str, Any]
_HEX: Final = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Held:
    """One image. `names`: familiar references, by name the nodes that have it; `digests`: of its manifest, by name; `users`:
    containers made of it, as (id, name, node, whether it runs)."""

    id: str
    names: Mapping[str, tuple[str, ...]]
    digests: Mapping[str, str]
    nodes: tuple[str, ...]
    size_bytes: int
    created: str
    users: tuple[tuple[str, str, str, bool], ...] = ()

    @property
    def short(self) -> str:
        return self.id.removeprefix("sha256:")[:12]


@dataclass(frozen=True, slots=True)
class Removal:
    """What is to be done: names to be taken away, then, with `delete`, the image itself where it has no name left."""

    image: Held
    untag: tuple[str, ...]
    delete: bool


def images_of(rows: Iterable[Mapping[str, Any]]) -> list[Held]:
    """One for each image, newest first. `rows` are those of the nodes."""
    by_id: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_id.setdefault(row["id"], []).append(row)
    found = [_held(image_id, mine) for image_id, mine in sorted(by_id.items())]
    return sorted(found, key=lambda image: image.created, reverse=True)


def _held(image_id: str, rows: Sequence[Mapping[str, Any]]) -> Held:
    names: dict[str, tuple[str, ...]] = {}
    digests: dict[str, str] = {}
    for row in rows:
        for name in row["names"]:
            names[name] = (*names.get(name, ()), row["node"])
        digests |= {name: digest for name, digest in row.get("digests", {}).items() if digest}
    users = tuple((u["id"], u["name"], row["node"], u["running"]) for row in rows for u in row.get("containers", ()))
    nodes = tuple(row["node"] for row in rows)
    return Held(image_id, dict(sorted(names.items())), digests, nodes, rows[0]["size_bytes"], rows[0]["created"], users)


def plain(image: Held) -> Row:
    """A row of the API."""
    return {
        "id": image.id,
        "names": {name: list(nodes) for name, nodes in image.names.items()},
        "digests": dict(image.digests),
        "nodes": list(image.nodes),
        "size_bytes": image.size_bytes,
        "created": image.created,
        "containers": [{"id": i, "name": name, "node": node, "running": runs} for i, name, node, runs in image.users],
    }


def find(images: Sequence[Held], reference: str) -> Held:
    """By name, by name and digest, by id or by the beginning of an id that only one has. Raises NotFound."""
    if named := _named(images, reference):
        return named[0]
    digits = _digits(reference)
    found = [image for image in images if digits and image.id.startswith(f"sha256:{digits}")]
    if len(found) > 1:
        raise BadInput(f"{reference}: {len(found)} images have an id that begins so: say more of it")
    if not found:
        raise NotFound(f"No such image: {_told(reference)}")
    return found[0]


def named(images: Sequence[Held], reference: str) -> Held:
    """By name only, as a push names it. Raises NotFound with Docker's words."""
    if found := _named(images, reference):
        return found[0]
    told = _told(reference)
    raise NotFound(f"An image does not exist locally with the tag: {told.removesuffix(f':{DEFAULT_TAG}')}")


@dataclass(frozen=True, slots=True)
class Saved:
    """A node that has all of them; each with the names it was asked by."""

    node: str
    images: tuple[tuple[Held, tuple[str, ...]], ...]


def to_save(images: Sequence[Held], references: Sequence[str]) -> Saved:
    """Raises NotFound, Conflict when no node has all of them."""
    wanted: dict[str, tuple[Held, tuple[str, ...]]] = {}
    for reference in references:
        image = find(images, reference)
        _, names = wanted.get(image.id, (image, ()))
        own = _names_of(image, parse_image_ref(reference)) if _named([image], reference) else []
        wanted[image.id] = (image, tuple(dict.fromkeys((*names, *own))))
    found = tuple(wanted.values())
    everywhere = [node for node in found[0][0].nodes if all(node in image.nodes for image, _ in found)]
    if not everywhere:
        raise Conflict(f"no node has all of {', '.join(references)}: `shoal pull` them first, or save them one by one")
    return Saved(everywhere[0], found)


def _named(images: Sequence[Held], reference: str) -> list[Held]:
    """Those of this name, the one that most nodes have first."""
    try:
        ref = parse_image_ref(reference)
    except BadInput:
        return []
    found = [image for image in images if _names_of(image, ref)]
    return sorted(found, key=lambda image: -len(image.names.get(ref.familiar, ())))


def _names_of(image: Held, ref: ImageRef) -> list[str]:
    """Its names that a reference means: one with a digest means every name in that repository that came with the digest."""
    if ref.digest is None:
        return [name for name in image.names if name == ref.familiar]
    return [
        name
        for name in image.names
        if parse_image_ref(name).name == ref.name and ref.digest in (image.digests.get(name), parse_image_ref(name).digest)
    ]


def _digits(reference: str) -> str:
    digits = reference.removeprefix("sha256:")
    return digits if digits and len(digits) <= 64 and set(digits) <= _HEX else ""


def _told(reference: str) -> str:
    """As Docker says it: with the tag that was meant."""
    try:
        return parse_image_ref(reference).familiar
    except BadInput:
        return reference


def removal(images: Sequence[Held], reference: str, force: bool) -> list[Removal]:
    """What removing it means, for every image that is meant. Raises NotFound, Conflict with Docker's words."""
    if named := _named(images, reference):
        return [_by_name(image, reference, force) for image in named]
    return [_by_id(find(images, reference), force)]


def _by_name(image: Held, reference: str, force: bool) -> Removal:
    names = tuple(_names_of(image, parse_image_ref(reference)))
    if len(names) < len(image.names):
        return Removal(image, names, delete=False)
    if image.users and not force:
        raise Conflict(
            f'conflict: unable to remove repository reference "{reference}" (must force) - container '
            f"{_first(image.users)} is using its referenced image {image.short}"
        )
    _refuse_running(image)
    return Removal(image, names, delete=True)


def _by_id(image: Held, force: bool) -> Removal:
    _refuse_running(image)
    if not force:
        if len(image.names) > 1:
            raise _unable(image, "must be forced", "image is referenced in multiple repositories")
        if image.users:
            raise _unable(image, "must be forced", f"image is being used by stopped container {_first(image.users)}")
    return Removal(image, tuple(image.names), delete=True)


def _refuse_running(image: Held) -> None:
    if running := [user for user in image.users if user[3]]:
        raise _unable(image, "cannot be forced", f"image is being used by running container {_first(running)}")


def _unable(image: Held, how: str, why: str) -> Conflict:
    return Conflict(f"conflict: unable to delete {image.short} ({how}) - {why}")


def _first(users: Sequence[tuple[str, str, str, bool]]) -> str:
    """The container as Docker names it, by its id; by name while it has none."""
    return users[0][0][:12] or users[0][1]


def unused(images: Iterable[Held], every: bool) -> list[Removal]:
    """What a prune removes: images without a name, with `every` all that no container was made of."""
    return [
        Removal(image, tuple(image.names), delete=True) for image in images if not image.users and (every or not image.names)
    ]


def untagged(removal: Removal) -> list[str]:
    """What is told as untagged: the names, and the digest of each repository that lost its last one."""
    left = {parse_image_ref(name).name for name in removal.image.names if name not in removal.untag}
    told: list[str] = []
    for name in removal.untag:
        ref, digest = parse_image_ref(name), removal.image.digests.get(name)
        told.append(name)
        last = not any(parse_image_ref(other).name == ref.name for other in removal.untag[removal.untag.index(name) + 1 :])
        if digest and last and ref.digest is None and ref.name not in left:
            told.append(f"{name.removesuffix(f':{ref.tag}')}@{digest}")
    return told
