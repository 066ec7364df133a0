"""What moving images costs: `python -m bench.images [--sizes 50,500] [--rounds 3]`. Needs root, skopeo, docker-registry, tar.

Measured for a made image of each size (MB unpacked; five layers, half of the bytes compressible, files of 4 kB to 4 MB),
against Debian's docker-registry on loopback, by the clock and in CPU (of this process and its children, without the registry):

    pull            from the registry until it can run: fetched, checked, unpacked and kept      skopeo copy to a folder, tar -x
    unpack          its layers, one after the other, from the disk                               tar -x
    push            all of it to a registry that has nothing                                     skopeo copy from a folder
    unchanged pull  the registry is asked, and nothing has changed                               -

Rules: both ways in every round, in turns, on the same files; medians are quoted, with minimum and maximum. What is written is
brought to the disk between the measurements, outside the clock. Both sides check digests; tar does not check diff ids.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import hashlib
import io
import json
import os
import random
import resource
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from agent.images.disk import iter_file
from agent.images.layers import unpack_layer
from agent.images.records import Limits, RegistryConfig
from agent.images.store import ImageStore
from agent.images.trees import remove_tree
from bench import figures
from lab.registry import LabRegistry

LAYERS: Final = 5
FILE_BYTES: Final = ((4 << 20, 0.6), (64 << 10, 0.3), (4 << 10, 0.1))
"""Sizes of files, and which part of a layer they make up."""
NAME: Final = "bench/image:1"
Cost = tuple[float, float]
"""Seconds by the clock, and of CPU."""
Samples = dict[str, list[Cost]]


@dataclass(frozen=True, slots=True)
class Made:
    """An OCI layout on the disk. `layers` are (blob, diff id), bottom first."""

    layout: Path
    layers: tuple[tuple[Path, str], ...]


def made(top: Path, size_mb: int) -> Made:
    """The same bytes for the same size."""
    layout = top / "layout"
    (layout / "blobs/sha256").mkdir(parents=True)
    with ThreadPoolExecutor() as pool:
        parts = list(pool.map(lambda number: _layer(layout, number, size_mb), range(LAYERS)))
    diff_ids = [diff_id for _, _, diff_id in parts]
    config = {"os": "linux", "architecture": "amd64", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    kind = "application/vnd.oci.image"
    manifest = {
        "schemaVersion": 2, "mediaType": f"{kind}.manifest.v1+json", "config": _blob(layout, config, f"{kind}.config.v1+json"),
        "layers": [{"mediaType": f"{kind}.layer.v1.tar+gzip", "digest": digest, "size": size} for digest, size, _ in parts],
    }  # fmt: skip
    index = {"schemaVersion": 2, "manifests": [_blob(layout, manifest, f"{kind}.manifest.v1+json")]}
    (layout / "index.json").write_text(json.dumps(index))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    files = [(layout / "blobs/sha256" / digest.removeprefix("sha256:"), diff_id) for digest, _, diff_id in parts]
    return Made(layout, tuple(files))


def _layer(layout: Path, number: int, size_mb: int) -> tuple[str, int, str]:
    """(digest, size, diff id)."""
    seed = random.Random(number)
    words = b" ".join(seed.randbytes(5).hex().encode() for _ in range(50_000))
    plain = layout / f"layer-{number}.tar"
    with tarfile.open(plain, "w") as archive:
        for size, part in FILE_BYTES:
            for each in range(round(size_mb * 1_000_000 * part / LAYERS / size) or 1):
                info = tarfile.TarInfo(f"usr/share/l{number}/d{each % 40}/{size}-{each}")
                info.size, info.mode, info.mtime = size, 0o644, 1_700_000_000
                at = seed.randrange(len(words) // 2)
                text = (words[at:] * (size // len(words) + 2))[: size - size // 2]
                archive.addfile(info, io.BytesIO(seed.randbytes(size // 2) + text))
    packed = gzip.compress(plain.read_bytes(), 6, mtime=0)
    diff_id = f"sha256:{hashlib.sha256(plain.read_bytes()).hexdigest()}"
    plain.unlink()
    digest = hashlib.sha256(packed).hexdigest()
    (layout / "blobs/sha256" / digest).write_bytes(packed)
    return f"sha256:{digest}", len(packed), diff_id


def _blob(layout: Path, document: Any, media_type: str) -> dict[str, Any]:
    raw = json.dumps(document).encode()
    digest = hashlib.sha256(raw).hexdigest()
    (layout / "blobs/sha256" / digest).write_bytes(raw)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(raw)}


@contextlib.asynccontextmanager
async def registry(directory: Path) -> AsyncIterator[LabRegistry]:
    running = LabRegistry(directory)
    await running.start()
    try:
        yield running
    finally:
        await running.stop()
        shutil.rmtree(directory)


@contextlib.contextmanager
def folder(path: Path) -> Iterator[Path]:
    path.mkdir()
    try:
        yield path
    finally:
        remove_tree(path)


async def run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, told = await process.communicate()
    if process.returncode:
        raise SystemExit(f"{command[0]} failed: {told.decode(errors='replace').strip()}")


def cpu_s() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


async def timed(work: Awaitable[object]) -> Cost:
    os.sync()
    begin, cpu = time.monotonic(), cpu_s()
    await work
    return time.monotonic() - begin, cpu_s() - cpu


async def extract(layers: tuple[tuple[Path, str], ...], target: Path) -> None:
    for blob, _ in layers:
        await run("tar", "-xzf", str(blob), "-C", str(target))


async def unpack_ours(image: Made, top: Path) -> Cost:
    def work() -> None:
        for number, (blob, diff_id) in enumerate(image.layers):
            (top / str(number)).mkdir()
            pieces = iter_file(blob, 0, blob.stat().st_size)
            unpack_layer(pieces, top / str(number), diff_id, "bench", Limits())

    return await timed(asyncio.to_thread(work))


async def unpack_theirs(image: Made, top: Path) -> Cost:
    return await timed(extract(image.layers, top))


async def pull_ours(endpoint: str, top: Path, again: list[Cost]) -> Cost:
    store = ImageStore(top / "store", config=RegistryConfig(platform="linux/amd64"))
    try:
        took = await timed(store.pull(f"{endpoint}/{NAME}"))
        again += [await timed(store.pull(f"{endpoint}/{NAME}", policy="always")) for _ in range(3)]
        return took
    finally:
        await store.close()


async def pull_theirs(image: Made, endpoint: str, top: Path) -> Cost:
    async def work() -> None:
        (top / "root").mkdir()
        options = ("--src-tls-verify=false", "--preserve-digests")
        await run("skopeo", "--insecure-policy", "copy", *options, f"docker://{endpoint}/{NAME}", f"oci:{top / 'oci'}")
        blobs = top / "oci/blobs/sha256"
        await extract(tuple((blobs / blob.name, diff_id) for blob, diff_id in image.layers), top / "root")

    return await timed(work())


async def push_ours(store: ImageStore, endpoint: str) -> Cost:
    (image,) = store.list()
    await store.tag(image.id, f"{endpoint}/{NAME}")
    try:
        return await timed(store.push(f"{endpoint}/{NAME}"))
    finally:
        await store.remove(f"{endpoint}/{NAME}")


async def push_theirs(image: Made, endpoint: str) -> Cost:
    options = ("--dest-tls-verify=false", "--preserve-digests")
    return await timed(run("skopeo", "--insecure-policy", "copy", *options, f"oci:{image.layout}", f"docker://{endpoint}/{NAME}"))


async def one_round(image: Made, top: Path, source: str, store: ImageStore, turn: int) -> Samples:
    """Who begins changes with the turn."""
    found: Samples = {"unchanged pull, shoal": []}

    async def in_turns(what: str, ours: Callable[[Path], Awaitable[Cost]], theirs: Callable[[Path], Awaitable[Cost]]) -> None:
        for name, work in [("shoal", ours), ("skopeo and tar", theirs)][:: -1 if turn % 2 else 1]:
            with folder(top / "work") as place:
                found[f"{what}, {name}"] = [await work(place)]

    async def pushed(place: Path, push: Callable[[str], Awaitable[Cost]]) -> Cost:
        async with registry(place / "target") as target:
            return await push(target.endpoint)

    again = found["unchanged pull, shoal"]
    await in_turns("pull", lambda at: pull_ours(source, at, again), lambda at: pull_theirs(image, source, at))
    await in_turns("unpack", lambda at: unpack_ours(image, at), lambda at: unpack_theirs(image, at))
    await in_turns(
        "push", lambda at: pushed(at, lambda to: push_ours(store, to)), lambda at: pushed(at, lambda to: push_theirs(image, to))
    )
    return found


async def measure(size_mb: int, rounds: int, top: Path) -> Samples:
    image = made(top, size_mb)
    all_found: Samples = {}
    async with registry(top / "source") as source:
        await source.push_layout(image.layout, NAME)
        store = ImageStore(top / "store", config=RegistryConfig(platform="linux/amd64"))
        try:
            (loaded,) = await store.load(image.layout)
            await store.tag(loaded.id, "kept:1")
            for turn in range(rounds):
                for name, values in (await one_round(image, top, source.endpoint, store, turn)).items():
                    all_found.setdefault(name, []).extend(values)
        finally:
            await store.close()
    return all_found


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("--sizes", default="50,500", metavar="MB,..")
    words.add_argument("--rounds", type=int, default=3)
    options = words.parse_args()
    for size_mb in map(int, options.sizes.split(",")):
        top = Path(tempfile.mkdtemp(prefix="shoal-bench-images-"))
        try:
            found = asyncio.run(measure(size_mb, options.rounds, top))
        finally:
            remove_tree(top)
        print(f"{size_mb} MB (median, min to max of {options.rounds} rounds):")
        for name, values in sorted(found.items()):
            walls, cpus = zip(*values, strict=True)
            figures.add(f"{size_mb} MB: {name}", median(walls), "s")
            figures.add(f"{size_mb} MB: {name}, CPU", median(cpus), "s")
            ends = f"{min(walls):.3f} to {max(walls):.3f}"
            print(f"  {name:<28} {median(walls):7.3f} s   {ends:<18} CPU {median(cpus):.3f} s", flush=True)


if __name__ == "__main__":
    figures.run(main)
