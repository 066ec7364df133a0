"""The node's images in memory: same promises, no registry and no layers. For tests and the simulation.

Rules: what a registry has is said by `registry`; an image stays on the node until it is removed. Images without layers: nothing
is copied out of them into volumes.
"""

from __future__ import annotations

import asyncio
import builtins
import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from hashlib import sha256
from pathlib import Path

from agent.images.catalog import by_digits, canonical
from agent.images.errors import ImageInUse, ImageNotFound, disk_error, new_name, not_to_push
from agent.images.flights import Flights
from agent.images.manifest import parse_config
from agent.images.records import (
    Credentials,
    Details,
    HeldImage,
    Image,
    ImageConfig,
    ProgressSink,
    PullPolicy,
    PullProgress,
    Pushed,
    PushProgress,
    PushSink,
    RemoteImage,
    Removed,
)
from model.errors import ImageError
from model.image_ref import ImageRef, parse_image_ref

Registry = Callable[[ImageRef], Awaitable[ImageConfig]]
"""How an image wants to be run; takes as long as a pull does. Raises ImageNotFound and the other errors of a pull."""


class MemoryImages:
    """See agent.core.ports.Images. `archives`: what files hold that may be loaded, as references. `full`: the disk has no
    space. `pushed`: image ids by canonical reference."""

    def __init__(self, registry: Registry, archives: Mapping[Path, tuple[str, ...]] | None = None) -> None:
        self.full = False
        self.pushed: dict[str, str] = {}
        self._registry = registry
        self._archives = dict(archives or {})
        self._images: dict[str, Image] = {}
        self._names: dict[str, str] = {}
        self._holds: dict[str, str] = {}
        self._pulls: Flights[str] = Flights()
        self.moved = asyncio.Event()

    def crash(self) -> None:
        """The agent died: its pulls are gone, and who holds what."""
        self._pulls = Flights()
        self._holds.clear()

    def get(self, ref: str) -> Image | None:
        image_id = self._find(ref)
        return self._images[image_id] if image_id is not None else None

    def list(self) -> list[Image]:
        return [self._images[image_id] for image_id in sorted(self._images)]

    def details(self, image_id: str) -> Details:
        if image_id not in self._images:
            raise ImageNotFound(f"image {image_id} is not on this node")
        image = self._images[image_id]
        digests = dict.fromkeys(image.names, image.digest)
        return Details("{}", image.digest, digests, digests, (), {})

    def held(self) -> tuple[HeldImage, ...]:
        return tuple(_held(image) for image in self.list())

    async def blob(self, digest: str, offset: int = 0) -> AsyncIterator[bytes]:
        """An image without layers: its id and its manifest's digest are all there is."""
        if not any(digest in image.blobs for image in self.held()):
            raise ImageNotFound(f"blob {digest[:19]} is not on this node")
        yield digest.encode()[offset:]

    def blob_path(self, digest: str) -> Path:
        return Path("/memory/images") / digest.removeprefix("sha256:")

    async def pull(
        self,
        ref: str,
        *,
        digest: str = "",
        auth: Credentials | None = None,
        progress: ProgressSink | None = None,
        policy: PullPolicy = "missing",
    ) -> Image:
        parsed = parse_image_ref(ref)
        if digest:
            parse_image_ref(f"{parsed.name}@{digest}")
        for same in [image.id for image in self._images.values() if digest == image.digest]:
            self._name(parsed.canonical, same)
        present = self._names.get(parsed.canonical)
        if present is not None and (digest == self._images[present].digest if digest else policy != "always"):
            return self._images[present]
        if policy == "never":
            raise ImageNotFound(f"image {parsed.familiar} is not on this node, and its pull policy is 'never'")
        key = f"{parsed.canonical} {digest} {hash(auth)}"
        image = self._images[await self._pulls.join(key, lambda: self._pull(parsed, digest))]
        if progress is not None:
            progress(PullProgress(parsed.familiar, 0, 0, 0, 0))
        return image

    async def resolve(self, ref: str, *, auth: Credentials | None = None) -> str:
        parsed = parse_image_ref(ref)
        return parsed.digest or _manifest_digest(_id(await self._registry(parsed)))

    async def _pull(self, ref: ImageRef, digest: str = "") -> str:
        config = await self._registry(ref)
        if digest and _manifest_digest(_id(config)) != digest:
            raise ImageNotFound(f"image {ref.familiar}@{digest} not found at registry {ref.registry}")
        if self.full:
            raise disk_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), f"image {ref.familiar}", Path("/memory/images"))
        return self._take(ref, config)

    def _take(self, ref: ImageRef, config: ImageConfig) -> str:
        image_id = _id(config)
        before = self._names.get(ref.canonical)
        self._names[ref.canonical] = image_id
        if before is not None and before != image_id:
            self._rename(before)
        known = self._images.get(image_id)
        digest = known.digest if known else _manifest_digest(image_id)
        self._images[image_id] = Image(image_id, (), digest, (), config, 0, None)
        self._rename(image_id)
        return image_id

    def _name(self, name: str, image_id: str) -> None:
        before = self._names.get(name)
        self._names[name] = image_id
        for changed in (before or image_id, image_id):
            self._rename(changed)

    def _rename(self, image_id: str) -> None:
        """Its names as they are now."""
        image = self._images[image_id]
        names = sorted(name for name, named in self._names.items() if named == image_id)
        familiar = tuple(parse_image_ref(name).familiar for name in names)
        self._images[image_id] = Image(image.id, familiar, image.digest, (), image.config, 0, None)
        self.moved.set()

    async def load(self, source: Path) -> builtins.list[Image]:
        if source not in self._archives:
            raise ImageError("image archive: not a tar archive")
        return [self._images[await self._pull(parse_image_ref(ref))] for ref in self._archives[source]]

    async def remove(self, ref: str, *, force: bool = False) -> Removed:
        image_id = self._find(ref)
        if image_id is None:
            raise ImageNotFound(f"image {ref} is not on this node")
        names = {name for name, named in self._names.items() if named == image_id}
        by_name = canonical(ref)
        gone = {by_name} if by_name in names else names
        is_last, is_used = gone >= names, image_id in self._holds.values()
        if is_last and is_used and not (force and names):
            raise ImageInUse(f"image {ref} is used on this node: remove the containers that use it first")
        self._names = {name: named for name, named in self._names.items() if name not in gone}
        if is_last and not is_used:
            del self._images[image_id]
            self.moved.set()
            return Removed(image_id)
        self._rename(image_id)
        return Removed()

    async def collect(self) -> int:
        return 0

    async def push(self, ref: str, *, auth: Credentials | None = None, progress: PushSink | None = None) -> Pushed:
        parsed = parse_image_ref(ref)
        image_id = self._names.get(parsed.canonical)
        if image_id is None:
            raise not_to_push(parsed)
        self.pushed[parsed.canonical] = image_id
        if progress is not None:
            progress(PushProgress(parsed.familiar, ()))
        return Pushed(self._images[image_id].digest, 0, 0, ())

    async def remote(self, ref: str, *, auth: Credentials | None = None) -> RemoteImage:
        config = await self._registry(parse_image_ref(ref))
        image_id = _id(config)
        return RemoteImage(image_id, _manifest_digest(image_id), "{}", ())

    async def commit(
        self,
        base: str,
        written: AbstractAsyncContextManager[Path],
        leave_out: Collection[str],
        config_of: Callable[[str | None], bytes],
        name: str,
    ) -> Image:
        async with written:
            config = parse_config(config_of(None), f"image {name}").config
        return self._images[self._take(new_name(name), config)]

    async def tag(self, ref: str, name: str) -> Image:
        parsed, image_id = new_name(name), self._find(ref)
        if image_id is None:
            raise ImageNotFound(f"image {ref} is not on this node")
        self._name(parsed.canonical, image_id)
        return self._images[image_id]

    def hold(self, image_id: str, owner: str) -> None:
        self._holds[owner] = image_id

    def release(self, owner: str) -> None:
        self._holds.pop(owner, None)

    def _find(self, ref: str) -> str | None:
        named = self._names.get(canonical(ref) or "")
        return named if named is not None else by_digits(ref, self._images)


def registry_of(images: Mapping[str, ImageConfig]) -> Registry:
    """A registry that has these, by canonical reference, and answers at once."""

    async def ask(ref: ImageRef) -> ImageConfig:
        if ref.canonical not in images:
            raise ImageNotFound(f"image {ref.familiar} not found at registry {ref.registry}")
        return images[ref.canonical]

    return ask


def _held(image: Image) -> HeldImage:
    names = sorted(parse_image_ref(name).canonical for name in image.names)
    return HeldImage(image.id, tuple((name, image.digest) for name in names), tuple(sorted((image.id, image.digest))))


def _id(config: ImageConfig) -> str:
    return f"sha256:{sha256(repr(config).encode()).hexdigest()}"


def _manifest_digest(image_id: str) -> str:
    return f"sha256:{sha256(image_id.encode()).hexdigest()}"
