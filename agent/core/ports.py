"""Everything the agent acts on, in one record; and what it needs of an image store.

Rules: each port has a real and an in-memory implementation.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from agent.network.balance_port import Balancer, NoBalancer
from agent.network.port import NetworkDriver
from agent.plan.names import Client, EndpointsMessage
from agent.runtime.machine import Machine, MemoryMachine
from agent.runtime.port import ContainerRuntime
from agent.volumes.port import Volumes

if TYPE_CHECKING:
    from agent.build.builder import Builder
    from agent.images.records import (
        Credentials,
        Details,
        HeldImage,
        Image,
        ProgressSink,
        PullPolicy,
        Pushed,
        PushSink,
        RemoteImage,
        Removed,
    )


class Images(Protocol):
    """What the agent needs of `agent.images.store.ImageStore`."""

    def get(self, ref: str) -> Image | None: ...

    @property
    def moved(self) -> asyncio.Event: ...

    def held(self) -> tuple[HeldImage, ...]: ...

    async def resolve(self, ref: str, *, auth: Credentials | None = None) -> str: ...

    async def pull(
        self,
        ref: str,
        *,
        digest: str = "",
        auth: Credentials | None = None,
        progress: ProgressSink | None = None,
        policy: PullPolicy = "missing",
    ) -> Image: ...

    async def push(self, ref: str, *, auth: Credentials | None = None, progress: PushSink | None = None) -> Pushed: ...

    async def remote(self, ref: str, *, auth: Credentials | None = None) -> RemoteImage: ...

    async def commit(
        self,
        base: str,
        written: AbstractAsyncContextManager[Path],
        leave_out: Collection[str],
        config_of: Callable[[str | None], bytes],
        name: str,
    ) -> Image: ...

    async def load(self, source: Path) -> list[Image]: ...

    async def tag(self, ref: str, name: str) -> Image: ...

    async def remove(self, ref: str, *, force: bool = False) -> Removed: ...

    async def collect(self) -> int: ...

    def hold(self, image_id: str, owner: str) -> None: ...

    def release(self, owner: str) -> None: ...

    def list(self) -> list[Image]: ...

    def details(self, image_id: str) -> Details: ...

    def blob_path(self, digest: str) -> Path: ...

    def blob(self, digest: str, offset: int = 0) -> AsyncIterator[bytes]: ...


class Names(Protocol):
    """What `agent.network.names.NameBook` does with news of who can be reached."""

    def take(self, message: EndpointsMessage) -> None: ...

    def client(self, sandbox: str, client: Client | None) -> None:
        """Who may ask from which addresses, for one container of this node; None: it is gone."""


class NoNames:
    """For nodes without a name server (tests, the simulation)."""

    def take(self, message: EndpointsMessage) -> None:
        """Nobody asks."""

    def client(self, sandbox: str, client: Client | None) -> None:
        """Nobody asks."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The node's runtime, images, network, volumes, names, load balancer and counters. `data_dir` is where spooled files go."""

    runtime: ContainerRuntime
    images: Images
    network: NetworkDriver
    volumes: Volumes
    data_dir: Path
    names: Names = field(default_factory=NoNames)
    balance: Balancer = field(default_factory=NoBalancer)
    machine: Machine = field(default_factory=MemoryMachine)
    builder: Builder | None = None
    """None: nothing is built on this node."""
