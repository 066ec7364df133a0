"""Builds on one node: the real builder, the real store, a registry. Root: it mounts, and layers are unpacked."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.build.builder import Builder, BuildFailed, Order
from agent.build.context import OUTSIDE
from agent.images import describe
from agent.images.records import Credentials, Image
from agent.images.store import ImageStore
from agent.runtime.cgroups import cgroup_driver
from model.errors import BadInput, ImageError
from model.image_ref import image_platform
from tests.contract.images_server import FakeRegistry, MadeImage, digest_of, fake_registry, make_image
from tests.patience import PATIENCE
from tests.root.test_images_store import Stores

pytestmark = [pytest.mark.root, pytest.mark.timeout(120 * PATIENCE)]
ROOT = Path(__file__).parents[2]
BUSYBOX = shutil.which("busybox")


def context(files: dict[str, str | bytes], **links: str) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o755
            archive.addfile(info, io.BytesIO(data))
        for name, target in links.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return raw.getvalue()


class Bench:
    """A builder over a store of its own."""

    def __init__(self, top: Path, store: ImageStore) -> None:
        self.cgroup = f"shoal-test-{top.name[-20:]}-{os.getpid()}"
        self.top, self.store = top, store
        self.builder = self.new_builder()
        self.said = ""
        self.begun = asyncio.Event()

    def new_builder(self, **more: Any) -> Builder:
        return Builder(self.store, self.top / "builds", self.top / "run", self.cgroup, cgroup_driver(), **more)

    async def build(self, dockerfile: str, files: dict[str, str | bytes] | None = None, **order: Any) -> Image:
        return await self.run(context({**(files or {}), "Dockerfile": dockerfile}), **order)

    async def run(self, data: bytes, **order: Any) -> Image:
        self.said = ""
        self.begun.clear()

        async def say(text: str) -> None:
            self.said += text
            if "42 begun" in self.said:
                self.begun.set()

        async def pieces() -> AsyncIterator[bytes]:
            for at in range(0, len(data), 65_536):
                yield data[at : at + 65_536]

        return await self.builder.build(Order(**order), pieces(), say)

    def config(self, image: Image) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.store.details(image.id).config)
        return found

    def left(self) -> list[str]:
        """What no build may leave: folders, processes, mounts, cgroups."""
        here = str(self.top)
        found = [path.name for path in (self.top / "builds" / "work").glob("*")]
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = process.read_bytes().decode(errors="replace")
            except OSError:
                continue
            found += [words] if here in words else []
        found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if here in line]
        cgroups = Path("/sys/fs/cgroup")
        found += [str(path) for tree in (cgroups, *cgroups.iterdir()) for path in (tree / self.cgroup).glob("build-*")]
        return found


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as running:
        health = {"Test": ["CMD", "cat", "/here"], "Interval": 3_000_000_000}
        base = base_image(Env=["PATH=/bin"], Healthcheck=health)
        for name in ("1", "latest"):
            running.put(f"library/base:{name}", base)
        yield running


@pytest.fixture
async def bench(tmp_path: Path, registry: FakeRegistry) -> AsyncIterator[Bench]:
    stores = Stores(tmp_path, registry)
    made = Bench(tmp_path, stores.new())
    yield made
    left = made.left()
    for store in stores.open:
        await store.close()
    cgroup_driver().remove(f"/{made.cgroup}")
    shutil.rmtree(tmp_path, ignore_errors=True)
    assert left == []


def base_image(**config: Any) -> MadeImage:
    """busybox with a few of its commands."""
    assert BUSYBOX is not None, "deploy/setup.sh installs busybox-static"
    links = {f"bin/{name}": "busybox" for name in ("cat", "id", "kill", "ls", "ln", "sh", "sleep")}
    return make_image(context({"bin/busybox": Path(BUSYBOX).read_bytes()}, **links), **config)


async def test_stages_arguments_here_documents_and_a_health_check(bench: Bench, registry: FakeRegistry) -> None:
    text = """\
    ARG V=0
    FROM base:$V as base
    FROM base as build-stage
    ### three signs are a comment
    ARG WORD=none TARGETARCH
    WORKDIR /usr/src/app
    COPY ["./a", "./b", "./"]
    RUN cat a b > c && echo "$WORD $TARGETARCH" >> c; ls -A /dev /sys/fs/cgroup > devices; ln -s c link
    FROM base@DIGEST
    COPY --from=build-stage /usr/src/app/ /srv/
    COPY <<'E' /here
    $x
    E
    RUN <<E
    set -e
    echo script > /script
    E
    EXPOSE 80
    CMD ["cat", "/srv/c"]
    """.replace("    ", "").replace("DIGEST", digest_of(registry.manifests["library/base:1"]))
    args = {"V": "1", "WORD": "said"}
    image = await bench.build(text, {"a": "1\n", "b": "2\n"}, names=("new:1",), args=args, labels={"l": "v w"})
    assert (image.names, image.config.cmd, image.config.labels) == (("new:1",), ("cat", "/srv/c"), (("l", "v w"),))
    assert image.config.healthcheck is not None  # of the base
    assert (image.config.healthcheck.test, image.config.healthcheck.interval_s) == (("CMD", "cat", "/here"), 3)
    machine = image_platform(os.uname().machine).partition("/")[2]
    assert text_of(image, "srv/c") == f"1\n2\nsaid {machine}\n"
    assert (text_of(image, "here"), text_of(image, "script")) == ("$x\n", "script\n")
    devices = ["fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"]
    assert text_of(image, "srv/devices").split() == ["/dev:", *devices, "/sys/fs/cgroup:"]
    steps = [row["CreatedBy"] for row in describe.history(image.id, image.names, bench.config(image), ())]
    nops = [step.removeprefix("/bin/sh -c #(nop) ") for step in steps[:3]]
    assert nops == ['LABEL "l"="v w"', 'CMD ["cat", "/srv/c"]', "EXPOSE 80"]
    assert steps[3] == "/bin/sh -c set -e\necho script > /script"
    assert not [step for step in steps if "cat a b" in step or "WORKDIR" in step]


def text_of(image: Image, path: str) -> str:
    """Of the topmost layer that has it."""
    return next((layer / path).read_text() for layer in reversed(image.layers) if (layer / path).exists())


async def test_what_is_built_again_is_the_same_and_quick_unless_without_cache(bench: Bench) -> None:
    text = "FROM base:1\nCOPY a /\nRUN cat /proc/sys/kernel/random/uuid > /b\n"
    first = await bench.build(text, {"a": "1"})
    again = await bench.build(text, {"a": "1"}, names=("x:1",))
    assert (again.id, again.digest, "Using cache" in bench.said) == (first.id, first.digest, True)
    base = bench.store.get("base:1")
    assert base is not None
    assert again.layers[: len(base.layers)] == base.layers
    other = await bench.build(text, {"a": "2"})
    assert other.id != first.id
    fresh = await bench.build(text, {"a": "1"}, no_cache=True)
    assert (fresh.id != first.id, "Using cache" in bench.said) == (True, False)


FAILURES = (
    ("RUN echo so far; exit 7", "The command '/bin/sh -c echo so far; exit 7' returned a non-zero code: 7", 7),
    ("RUN kill -9 $$", "The command '/bin/sh -c kill -9 $$' returned a non-zero code: 137", 137),
    ("COPY nix /", "COPY failed: file not found in build context or excluded by .dockerignore: /nix", 1),
    ("USER nix\nRUN id", 'RUN id: determining run uid: user: unknown user error looking up user "nix"', 1),
)


async def test_a_cache_that_is_too_large_is_emptied_before_the_next_build(bench: Bench) -> None:
    bench.builder = bench.new_builder(cache_bytes_max=1)
    text = "FROM base:1\nRUN echo {} > /a\n"
    first = await bench.build(text.format(1))
    again = await bench.build(text.format(1))
    assert "Using cache" not in bench.said
    assert again.layers[:-1] == first.layers[:-1]
    for number in range(3):  # neither takes away what the other has begun with
        both = await asyncio.gather(bench.build(text.format(2 * number)), bench.build(text.format(2 * number + 1)))
        assert [text_of(image, "a") for image in both] == [f"{2 * number}\n", f"{2 * number + 1}\n"]


async def test_arguments_may_be_called_as_the_words_of_the_scripts_around_the_builder(bench: Bench) -> None:
    names = ("file", "files", "links", "n", "IFS", "PWD", "OPTIND", "SHOAL_N")
    args = {name: f"its {name}" for name in names}
    said = " ".join(f"${{{name}}};" for name in names)
    lines = "".join(f"ARG {name}\n" for name in names)
    image = await bench.build(f"FROM base:1\n{lines}LABEL said='{said}'\n".replace("'", '"'), args=args)
    assert dict(image.config.labels)["said"] == " ".join(f"its {name};" for name in names)


async def test_no_name_of_an_image_is_taken_for_a_build(bench: Bench) -> None:
    """An image is looked up by what the builder calls it, if that is known here; `nothing` was once the word for unknown."""
    first = await bench.build("FROM base:1\nLABEL a=1\n", names=("nothing",))
    other = await bench.build("FROM base:1\nLABEL a=2\n", names=("other:1",))
    assert (other.names, other.config.labels) == (("other:1",), (("a", "2"),))
    assert other.id != first.id


async def test_a_step_that_fails_is_told_in_dockers_words(bench: Bench) -> None:
    for step, said, code in FAILURES:
        with pytest.raises(BuildFailed) as caught:
            await bench.build(f"FROM base:1\n{step}\n", names=("new:1",))
        assert (str(caught.value), caught.value.exit_code) == (said, code)
        assert ("Error" in bench.said, "exited" in bench.said) == (False, False)
    assert bench.store.get("new:1") is None
    assert len((await bench.build("FROM base:1\nLABEL a=b\n")).layers) == 1  # what is left of failed ones does no harm


async def test_base_images_come_from_the_registry_as_a_pull_brings_them(bench: Bench, registry: FakeRegistry) -> None:
    with pytest.raises(ImageError, match="nix:1 not found"):
        await bench.build("FROM nix:1\n")
    registry.put("some/base:1", make_image({"one": b"1"}, {"two": b"2"}))
    registry.faults.basic = "ana:right"
    name = f"{registry.endpoint}/some/base:1"
    text = f"FROM {name}\nLABEL a=b\nFROM scratch\nCOPY --from={name} /one /\nCOPY --from=0 /two /\n"
    with pytest.raises(ImageError, match="unauthorized"):
        await bench.build(text)
    image = await bench.build(text, auths={registry.endpoint: Credentials("ana", "right")})
    assert sorted(path.name for layer in image.layers for path in layer.iterdir()) == ["one", "two"]
    asked = len(registry.requests)
    await bench.build(text)
    assert len(registry.requests) == asked


async def test_a_context_stays_in_its_place(bench: Bench) -> None:
    with pytest.raises(BadInput, match="cannot read the Dockerfile Dockerfile of the build context"):
        await bench.run(context({}, Dockerfile="/etc/shadow"))
    with pytest.raises(BadInput, match="cannot read the Dockerfile"):
        await bench.run(context({"a": ""}), dockerfile="../../../home/policy.json")
    with pytest.raises(ImageError, match="leads upwards"):
        await bench.run(context({"../../evil": "x"}))
    with pytest.raises(ImageError, match="cannot be unpacked"):
        await bench.run(b"no tar at all" * 100)
    with pytest.raises(BadInput, match="nothing was sent"):
        await bench.run(b"")
    files = context({OUTSIDE: "FROM scratch\nCOPY . /\n", "a": "1"}, evil="/etc/shadow")
    image = await bench.run(files, dockerfile=OUTSIDE)
    (layer,) = image.layers
    assert sorted(os.readlink(path) if path.is_symlink() else path.name for path in layer.iterdir()) == ["/etc/shadow", "a"]
    why = "no such file|write .1: broken pipe"  # its child has ended, before or after it was told what to copy
    with pytest.raises(BuildFailed, match=rf'COPY evil /: reading "/evil": .*({why})') as caught:
        await bench.run(context({"Dockerfile": "FROM scratch\nCOPY evil /\n"}, evil="/etc/shadow"))
    assert str(bench.top) not in str(caught.value)
    assert not [path for path in (bench.top, bench.top / "builds", bench.top / "builds/work") if (path / "evil").exists()]


async def test_a_build_that_is_given_up_leaves_nothing(bench: Bench) -> None:
    for words in ("sleep 1000 & sleep 1000", "while :; do sleep 1000 & done"):
        building = asyncio.ensure_future(bench.build(f"FROM base:1\nRUN echo $((20 + 22)) begun; {words}\n"))
        async with asyncio.timeout(60 * PATIENCE):
            await bench.begun.wait()
        building.cancel()
        with pytest.raises(asyncio.CancelledError):
            await building
        assert bench.left() == []
    await bench.build("FROM base:1\nLABEL a=b\n")
    assert json.loads((bench.top / "builds/store/overlay-containers/containers.json").read_text() or "[]") == []


async def test_builds_wait_for_each_other_and_share_what_they_do(bench: Bench) -> None:
    text = "FROM base:1\nRUN echo {} > /a\n"
    images = await asyncio.gather(*(bench.build(text.format(number)) for number in (1, 2, 3)))
    assert len({image.id for image in images}) == 3


DYING = """
import asyncio, sys
from pathlib import Path
from agent.build.builder import Builder, Order
from agent.images.records import RegistryConfig
from agent.images.store import ImageStore
from agent.runtime.cgroups import cgroup_driver

async def context():
    yield Path(sys.argv[4]).read_bytes()

async def say(text):
    if "42 begun" in text:
        print("begun", flush=True)

async def main():
    top = Path(sys.argv[1])
    store = ImageStore(top / "dying", config=RegistryConfig(mirrors={"docker.io": (sys.argv[3],)}))
    await Builder(store, top / "builds", top / "run", sys.argv[2], cgroup_driver()).build(Order(), context(), say)

asyncio.run(main())
"""


async def test_what_an_agent_that_was_killed_was_building_ends_and_is_swept(bench: Bench, registry: FakeRegistry) -> None:
    text = "FROM base:1\nRUN echo $((20 + 22)) begun; sleep 1000 & sleep 1000\n"
    (bench.top / "context.tar").write_bytes(context({"Dockerfile": text}))
    words = [str(bench.top), bench.cgroup, registry.endpoint, str(bench.top / "context.tar")]
    agent = await asyncio.create_subprocess_exec(sys.executable, "-c", DYING, *words, stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert agent.stdout is not None
        assert await agent.stdout.readline() == b"begun\n"
    finally:
        agent.kill()
        await agent.wait()
    assert bench.left()  # its folder and its cgroup
    bench.builder.sweep()
    assert bench.left() == []
    await bench.build("FROM base:1\nLABEL a=b\n")


async def test_links_in_sources_of_mounts_lead_nowhere(bench: Bench, registry: FakeRegistry) -> None:
    """buildah 1.28 follows them out of context and image (CVE-2024-1753): there is nothing to be found."""
    registry.put("library/evil:1", make_image(context({}, evil="/")))
    (bench.top / "marker").write_text("1")
    script = f"ls /x/etc/shadow /x/root /x/home /x{bench.top} /x/usr/bin > /seen 2>&1; echo > /x/usr/o; echo > /x{bench.top}/o"
    for source in ("source=evil", "from=evil:1,source=evil,rw"):
        text = f"FROM base:1\nRUN --mount=type=bind,{source},target=/x {script}; true\n"
        image = await bench.run(context({"Dockerfile": text}, evil="/"))
        seen = text_of(image, "seen")
        assert ("buildah" in seen, "marker" in seen) == (True, False)  # it is the builder's own root that was found
        assert [name for name in ("shadow", "root", "home") if f"/x/{name}: No such" not in seen.replace("/etc/", "/")] == []
    assert not [path for path in (bench.top / "o", Path("/usr/o")) if path.exists()]
