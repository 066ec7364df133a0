"""A node's builds: context in, image in the node's store out.

Rules: base images come from the node's store, which pulls what it lacks; the builder itself asks no registry and gets no
credential. A context is unpacked by a child after chroot. A few builds run at a time. Whatever happens, what a build made on
the way goes with it; what was killed with its agent goes at the next start. What is kept is the builder's cache, up to a limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agent.build.archive import make_archive
from agent.build.base import write_base
from agent.build.context import OUTSIDE, dockerfile_text, spool, write_dockerfile
from agent.build.sandbox import Sandbox, in_thread_to_end
from agent.images.disk import iter_file
from agent.images.errors import disk_error, new_name
from agent.images.layers import unpack_layer
from agent.images.records import Credentials, Image, Limits
from agent.images.trees import remove_tree
from agent.plan.build import (
    SETTINGS,
    Places,
    Wish,
    build_sight,
    build_words,
    buildah,
    environment,
    hidden,
    key_of,
    rewritten,
    sight,
)
from agent.plan.build_words import Failure, Output, failure_of
from agent.runtime.cgroups import CgroupDriver
from agent.runtime.spawn import ENVIRONMENT
from model.dockerfile import images_of, read_dockerfile
from model.errors import RuntimeFailed
from model.image_ref import parse_image_ref

if TYPE_CHECKING:
    from agent.core.ports import Images

log = logging.getLogger(__name__)
AT_ONCE: Final = 2
CACHE_BYTES_MAX: Final = 10 << 30
TAKEN_MAX: Final = 1_000

Say = Callable[[str], Awaitable[None]]


class BuildFailed(RuntimeFailed):
    """`exit_code` is that of the RUN that failed; 1: anything else."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.text, exit_code=failure.exit_code)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be built. `auths`: credentials by registry."""

    dockerfile: str = "Dockerfile"
    names: tuple[str, ...] = ()
    target: str = ""
    args: Mapping[str, str] = field(default_factory=dict, repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)
    no_cache: bool = False
    pull: bool = False
    auths: Mapping[str, Credentials] = field(default_factory=dict)


class Builder:
    """`root` holds the builder's store and what a build needs on its way; `run` is a folder below /run; cgroups are made in
    `cgroup`."""

    def __init__(
        self,
        images: Images,
        root: Path,
        run: Path,
        cgroup: str,
        cgroups: CgroupDriver,
        limits: Limits | None = None,
        cache_bytes_max: int = CACHE_BYTES_MAX,
    ) -> None:
        self._images = images
        self._root = root
        self._places = Places(str(root / "store"), str(run), str(root / "home"), str(root / "root"))
        self._cgroup = cgroup.strip("/")
        self._cgroups = cgroups
        self._limits = limits or Limits()
        self._cache_bytes_max = cache_bytes_max
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._beginning = asyncio.Lock()
        self._running = 0
        self._bases: dict[str, str] = {}
        """What this node's store calls an image -> what the builder's store does, which has it."""
        self._taken: dict[str, str] = {}
        """What the builder calls an image -> what this node's store does."""

    def sweep(self) -> None:
        """What a killed agent left; nothing of it runs any more."""
        if (self._root / "work").exists():
            remove_tree(self._root / "work")
        with contextlib.suppress(OSError):
            for tree in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()):
                for path in (tree / self._cgroup).glob("build-*"):
                    self._cgroups.remove(f"/{self._cgroup}/{path.name}")

    async def build(self, order: Order, context: AsyncIterator[bytes], say: Say) -> Image:
        """Build and take in. Raises BuildFailed, BadInput, ImageError, DiskFull, RuntimeFailed."""
        names = [new_name(name).canonical for name in order.names]
        token = secrets.token_hex(6)
        work = await asyncio.to_thread(self._new_work, token)
        try:
            await spool(context, work / "context.tar", self._limits.unpacked_bytes)
            if self._slots.locked():
                await say("waiting: this node builds other images\n")
            async with self._slots:
                async with self._beginning:  # no other build begins while the builder's store is tidied up
                    await self._tidy()
                    self._running += 1
                try:
                    return await self._build(replace(order, names=tuple(names)), work, token, say)
                finally:
                    self._running -= 1
        except OSError as error:
            raise disk_error(error, "build", self._root) from error
        finally:
            await in_thread_to_end(lambda: remove_tree(work))

    def _new_work(self, token: str) -> Path:
        """The build's own folder; settings are there."""
        home = Path(self._places.home)
        own = (self._places.store, self._places.run, self._places.root)
        for folder in (self._root, self._root / "work", home, home / "tmp", home / "none", *map(Path, own)):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, text in SETTINGS.items():
            if not (home / name).exists() or (home / name).read_text() != text:
                (home / name).write_text(text)
        work = self._root / "work" / token
        for folder in (work, work / "context", work / "given", work / "given" / "here", work / "out"):
            folder.mkdir(mode=0o700)
        return work

    async def _build(self, order: Order, work: Path, token: str, say: Say) -> Image:
        await in_thread_to_end(lambda: self._unpack(work))
        text = dockerfile_text(work / "context", order.dockerfile)
        name = "Dockerfile" if order.dockerfile == OUTSIDE else order.dockerfile
        dockerfile = read_dockerfile(text, order.args, name)
        wanted = images_of(dockerfile, order.target, name)
        write_dockerfile(work, rewritten(dockerfile, wanted))
        places = replace(self._places, work=str(work))
        env = environment(places, ENVIRONMENT["PATH"]) | hidden(order.args)
        with Sandbox(self._cgroups, f"/{self._cgroup}/build-{token}", env) as sandbox:
            try:
                bases = [(base, await self._base(sandbox, places, token, base, order, say)) for base in wanted]
                args, labels = tuple(sorted(order.args.items())), tuple(sorted(order.labels.items()))
                keys = [(key_of(number), image) for number, (_, image) in enumerate(bases)]
                names = {word: base for (key, image), (base, _) in zip(keys, bases, strict=True) for word in (key, image)}
                await self._run(sandbox, places, Wish(order.target, args, labels, order.no_cache, tuple(keys)), names, say)
                return await self._taken_in(sandbox, places, order.names)
            finally:
                for base in wanted:
                    self._images.release(f"build-{token}-{base}")

    def _unpack(self, work: Path) -> None:
        archive = work / "context.tar"
        pieces = iter_file(archive, 0, archive.stat().st_size)
        unpack_layer(pieces, work / "context", None, "build context", self._limits)
        archive.unlink()

    async def _base(self, sandbox: Sandbox, places: Places, token: str, name: str, order: Order, say: Say) -> str:
        """Have a base image in the builder's store; its id there."""
        image = self._images.get(name)
        if image is None or order.pull:
            ref = parse_image_ref(name)
            await say(f"Pulling {ref.familiar}\n")
            image = await self._images.pull(name, auth=order.auths.get(ref.registry), policy="always")
        self._images.hold(image.id, f"build-{token}-{name}")
        if image.id in self._bases:
            return self._bases[image.id]
        details, folder = self._images.details(image.id), Path(places.work) / f"base-{secrets.token_hex(4)}"
        image_id = await asyncio.to_thread(write_base, folder, name, details, self._images.blob_path)
        words = buildah(places, "pull", "--quiet", "--signature-policy", f"{places.home}/policy.json", f"dir:{folder}")
        blobs = self._images.blob_path(details.manifest).parent
        await sandbox.short(words, sight(places, [str(folder), str(blobs)]), f"base image {name}")
        self._bases[image.id] = image_id
        return image_id

    async def _run(self, sandbox: Sandbox, places: Places, wish: Wish, names: dict[str, str], say: Say) -> None:
        output = Output(names)

        async def take(data: bytes) -> None:
            if shown := output.take(data):
                await say(shown)

        code = await sandbox.run(build_words(places, wish), build_sight(places), take)
        if shown := output.end(failed=code != 0):
            await say(shown)
        if code:
            raise BuildFailed(failure_of(output, code))

    async def _taken_in(self, sandbox: Sandbox, places: Places, names: tuple[str, ...]) -> Image:
        out = Path(places.work) / "out"
        built, archive = (out / "id").read_text().strip(), out / "image.tar"
        known = self._images.get(self._taken[built]) if built in self._taken else None
        if known is not None:  # every step came from the cache: the image is there but for its names
            for name in names:
                known = await self._images.tag(known.id, name)
            return known
        policy = f"{places.home}/policy.json"
        words = buildah(places, "push", "--quiet", "--signature-policy", policy, built, f"docker-archive:{archive}")
        await sandbox.short(words, sight(places, writable=[str(out)]), "the built image")
        await in_thread_to_end(lambda: make_archive(archive, names))
        (image,) = await self._images.load(archive)
        self._taken = dict([*self._taken.items(), (built, image.id)][-TAKEN_MAX:])
        return image

    # the builder's store

    async def _tidy(self) -> None:
        """Before a build that runs alone: what ended builds left goes, and the cache when it is too large."""
        if self._running:
            return
        store = Path(self._places.store)
        if await asyncio.to_thread(_cache_bytes, store) > self._cache_bytes_max:
            log.info("the cache of builds is larger than %d MiB: it is emptied", self._cache_bytes_max >> 20)
            await in_thread_to_end(self._empty)
        elif await asyncio.to_thread(_containers, store):
            with Sandbox(self._cgroups, f"/{self._cgroup}/build-sweep", environment(self._places, ENVIRONMENT["PATH"])) as box:
                try:
                    await box.short(buildah(self._places, "rm", "--all"), sight(self._places), "builds that ended early")
                except RuntimeFailed as error:
                    log.warning("%s: the cache of builds is emptied", error)
                    await in_thread_to_end(self._empty)

    def _empty(self) -> None:
        self._bases.clear()
        for folder in (self._places.store, self._places.run):
            remove_tree(Path(folder))
            Path(folder).mkdir(mode=0o700)


def _cache_bytes(store: Path) -> int:
    """By the builder's own book-keeping."""
    rows = _rows(store / "overlay-layers" / "layers.json")
    return sum(row.get("diff-size") or 0 for row in rows)


def _containers(store: Path) -> bool:
    return bool(_rows(store / "overlay-containers" / "containers.json"))


def _rows(file: Path) -> list[dict[str, Any]]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return []
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
