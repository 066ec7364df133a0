"""What the tests of the real container runtime share: a tiny root, a runtime in its own mounts, a count of leftovers.

Rules: the runtime runs in a thread with a mount namespace of its own (the test process keeps its mounts). Names and directories
are unique, and everything is removed also when a test fails.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import secrets
import shutil
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.images.records import ImageConfig
from agent.plan.container import ContainerOrder, Exited, Found, HostMount
from agent.runtime.bundle import Paths, read_pids
from agent.runtime.conmon import ConmonRuntime, RuntimeConfig
from agent.runtime.mountns import enter_private_mounts
from model.spec import ContainerSpec

BUSYBOX = Path("/usr/bin/busybox")
_APPLETS = """
sh sleep echo cat ls id env pwd hostname kill dd head tail mount stat true false seq yes stty touch ps wc ping chroot mknod df
"""
_DEADLINE_S = 60.0


def busybox_layer(directory: Path) -> Path:
    """A layer with busybox and /etc/passwd."""
    for name in ("bin", "proc", "sys", "dev", "etc", "tmp", "root", "home/ann"):
        (directory / name).mkdir(parents=True)
    shutil.copy2(BUSYBOX, directory / "bin/busybox")
    for name in _APPLETS.split():
        (directory / "bin" / name).symlink_to("busybox")
    (directory / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n")
    (directory / "etc/group").write_text("root:x:0:\nann:x:1000:\nvideo:x:44:ann\n")
    (directory / "tmp").chmod(0o1777)
    return directory


@dataclass
class Kit:
    """One runtime over one data directory."""

    directory: Path
    layer: Path
    runtime: ConmonRuntime
    parent: str
    ended: dict[str, Exited] = field(default_factory=dict)
    _waiting: dict[str, asyncio.Event] = field(default_factory=dict)

    def order(self, *command: str, mounts: tuple[HostMount, ...] = (), netns: str = "", **spec: Any) -> ContainerOrder:
        identity = secrets.token_hex(8)
        container = replace(ContainerSpec(image="busybox", command=command or ("sleep", "1000")), **spec)
        return ContainerOrder(
            id=identity, name=f"test.{identity[:4]}", log_key=f"log-{identity}", spec=container, image=ImageConfig(),
            layers=(self.layer,), netns=netns, mounts=mounts, meta=(("replica", identity),),
        )  # fmt: skip

    async def started(self, order: ContainerOrder) -> str:
        await self.runtime.create(order)
        await self.runtime.start(order.id)
        return order.id

    async def exit_of(self, container_id: str) -> Exited:
        async with asyncio.timeout(_DEADLINE_S):
            await self._waiting.setdefault(container_id, asyncio.Event()).wait()
        return self.ended[container_id]

    async def ran(self, *command: str, **spec: Any) -> tuple[Exited, str]:
        """Run a command to its end; its exit and its whole output."""
        order = self.order(*command, **spec)
        exited = await self.exit_of(await self.started(order))
        text = b"".join([line.line async for line in self.runtime.logs(order.log_key)])
        await self.runtime.delete(order.id)
        return exited, text.decode()

    def pid(self, container_id: str) -> int:
        return read_pids(Paths(self.directory / "data/containers" / container_id)).pid

    def monitor(self, container_id: str) -> int:
        """conmon's pid."""
        return read_pids(Paths(self.directory / "data/containers" / container_id)).monitor

    async def collect(self) -> None:
        async for exited in self.runtime.exits():
            assert exited.container_id not in self.ended, "an exit came twice"
            self.ended[exited.container_id] = exited
            self._waiting.setdefault(exited.container_id, asyncio.Event()).set()


async def kit_open(directory: Path, runtime: str, parent: str) -> tuple[Kit, tuple[Found, ...]]:
    """A runtime that has recovered, and what it found."""
    layer = directory / "layer"
    if not layer.exists():
        busybox_layer(layer)
    config = RuntimeConfig(directory / "data", directory / "run", parent, runtime=runtime)  # type: ignore[arg-type]
    kit = Kit(directory, layer, ConmonRuntime(config), parent)
    return kit, await kit.runtime.recover()


@asynccontextmanager
async def kit_in(directory: Path, runtime: str = "crun", parent: str = "") -> AsyncIterator[Kit]:
    kit, _ = await kit_open(directory, runtime, parent or f"shoaltest-{secrets.token_hex(4)}")
    made = kit.runtime
    async with asyncio.TaskGroup() as tasks:
        collector = tasks.create_task(kit.collect())
        try:
            yield kit
        finally:
            for name in os.listdir(directory / "data/containers"):
                await made.delete(name)
            await made.close()
            made.cgroups.remove(f"/{kit.parent}")
            collector.cancel()


def in_private_mounts(body: Callable[[], Awaitable[None]]) -> None:
    """Run `body` on an event loop in a thread that has its own mounts, as the agent has."""
    failure: list[BaseException] = []

    def work() -> None:
        try:
            enter_private_mounts()
            asyncio.run(_whole(body))
        except BaseException as error:
            failure.append(error)

    async def _whole(body: Callable[[], Awaitable[None]]) -> None:
        await body()

    thread = threading.Thread(target=work, name="runtime-test")
    thread.start()
    thread.join()
    ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)
    if failure:
        raise failure[0]


def with_kit(directory: Path, body: Callable[[Kit], Awaitable[None]], runtime: str = "crun") -> None:
    """Run a test's body with a runtime; afterwards nothing of it may be left."""

    async def whole() -> None:
        async with kit_in(directory, runtime) as kit:
            await body(kit)
        assert leftovers(directory, kit.parent) == []

    in_private_mounts(whole)


def leftovers(directory: Path, parent: str) -> list[str]:
    """Whatever still carries the name of a test's data directory or cgroup parent."""
    found = [str(path) for path in (directory / "data/containers").glob("*")]
    top = Path("/sys/fs/cgroup")
    found += [str(tree / parent) for tree in (top, *top.iterdir()) if (tree / parent).exists()]
    mounts = Path("/proc/thread-self/mountinfo").read_text().splitlines()
    found += [line for line in mounts if f"{directory}/" in line]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                state = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if str(directory) in command or (state[0] == "Z" and int(state[1]) == os.getpid()):
                found.append(f"process {entry.name} {state[0]} {command}")
    return found
