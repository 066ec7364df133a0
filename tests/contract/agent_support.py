"""A whole agent in memory, its certificates and a dispatcher to talk with: for the agent's contract tests.

Rules: the ports are in-memory ones; the wires are real (TLS, gRPC, HTTPS on loopback, ports chosen by the kernel).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import grpc
from grpc import aio

from agent.core.clock import RealClock, RealRandom
from agent.core.dialling import dialling
from agent.core.holding import Holdings
from agent.core.journal import Journal
from agent.core.ports import Ports
from agent.core.report import Reporter
from agent.core.runner import Runner
from agent.core.sampling import Sampler
from agent.core.session import NodeIdentity, SessionClient
from agent.core.tls import NodePki
from agent.images.errors import ImageNotFound
from agent.images.records import Details, HeldImage, Image, ImageConfig, Pushed, RemoteImage, Removed
from agent.network.balance_port import Balancer, NoBalancer
from agent.network.memory import MemoryNetwork
from agent.plan.container import ContainerOrder, ExecRequest, Exited, Found, LogLine, Usage
from agent.plan.core import Core
from agent.plan.mounts import volume_users
from agent.plan.samples import Counters
from agent.runtime.machine import Machine, MemoryMachine
from agent.volumes.store import VolumeStore
from controller.certificates import Authority, new_authority
from model import codec
from model.documents import NodeInfo
from model.errors import NotFound, RuntimeFailed
from model.pki_names import CONTROLLER_SERVER_NAME, node_server_name
from model.spec import Attachment, ContainerSpec, RestartPolicy, ServiceSpec
from protos import node_pb2 as pb
from tests.patience import PATIENCE

WAIT_S = 10.0 * PATIENCE


@dataclass
class Echo:
    """A session of a pretended process: gives stdin back, ends with code 0 when stdin ends."""

    chunks: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)
    code: int = 0
    closed: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    size: tuple[int, int] = (0, 0)

    async def output(self) -> AsyncIterator[tuple[Literal["stdout", "stderr"], bytes]]:
        while (chunk := await self.chunks.get()) is not None:
            yield "stdout", chunk

    async def write(self, data: bytes) -> None:
        self.chunks.put_nowait(data)

    async def close_stdin(self) -> None:
        self.chunks.put_nowait(None)

    async def resize(self, rows: int, columns: int) -> None:
        self.size = (rows, columns)

    async def signal(self, number: int) -> None:
        self.code = 128 + number
        self.chunks.put_nowait(None)

    async def wait(self) -> int:
        return self.code

    async def close(self) -> None:
        self.closed = True
        self.ended.set()


class PretendRuntime:
    """Containers as entries of a dictionary; they outlive the agent as long as this object does."""

    def __init__(self) -> None:
        self.containers: dict[str, str] = {}
        self.orders: dict[str, ContainerOrder] = {}
        self.ends: dict[str, Exited] = {}
        self.queue: asyncio.Queue[Exited] = asyncio.Queue()
        self.starts = 0
        self.lines: list[LogLine] = []
        self.sessions: list[Echo] = []
        self.broken: str = ""

    async def recover(self) -> tuple[Found, ...]:
        self.queue = asyncio.Queue()
        return tuple(
            Found(key, "", "", (), state, 1, 1.0, self.ends.get(key))  # type: ignore[arg-type]
            for key, state in self.containers.items()
        )

    async def create(self, order: ContainerOrder) -> int:
        if self.broken:
            raise RuntimeFailed(self.broken, permanent=True, exit_code=127)
        assert order.id not in self.containers
        self.containers[order.id], self.orders[order.id] = "created", order
        return 4242

    async def start(self, container_id: str) -> None:
        self.containers[container_id] = "running"
        self.starts += 1

    async def kill(self, container_id: str, signal: int = 15) -> None:
        self.end(container_id, 128 + signal)

    def end(self, container_id: str, code: int) -> None:
        if self.containers.get(container_id) == "running":
            self.containers[container_id] = "exited"
            self.ends[container_id] = Exited(container_id, code, False, RealClock().now(), f"exited with code {code}")
            self.queue.put_nowait(self.ends[container_id])

    async def readdress(self, order: ContainerOrder) -> None:
        self.orders[order.id] = order

    @contextlib.asynccontextmanager
    async def written(self, container_id: str, *, pause: bool) -> AsyncIterator[Path]:
        if container_id not in self.containers:
            raise NotFound(f"container {container_id} is not there")
        yield Path("/nothing")

    def root(self, container_id: str) -> Path:
        if container_id not in self.containers:
            raise NotFound(f"container {container_id} is not there")
        return Path("/nothing")

    async def delete(self, container_id: str) -> None:
        self.containers.pop(container_id, None)

    async def exits(self) -> AsyncIterator[Exited]:
        while True:
            yield await self.queue.get()

    async def exec(self, container_id: str, request: ExecRequest) -> Echo:
        if container_id not in self.containers:
            raise NotFound(f"container {container_id} is not there")
        self.sessions.append(Echo())
        return self.sessions[-1]

    async def attach(self, container_id: str) -> Echo:
        self.sessions.append(Echo())
        return self.sessions[-1]

    async def logs(
        self, log_key: str, *, follow: bool = False, tail: int = -1, since_ms: int = 0, until_ms: int = 0
    ) -> AsyncIterator[LogLine]:
        for line in self.lines if tail < 0 else self.lines[-tail:]:
            yield line
        if follow:
            await asyncio.Event().wait()

    async def forget_logs(self, log_key: str) -> None:
        pass

    async def usage(self, container_id: str) -> Usage | None:
        return Usage(1.0, 2.0, 3, 0, 1, 0, 0, 0) if self.containers.get(container_id) == "running" else None

    def sampled(self, container_ids: Iterable[str]) -> dict[str, Counters]:
        """Each uses half a core."""
        running = [one for one in container_ids if self.containers.get(one) == "running"]
        return dict.fromkeys(running, Counters(time.monotonic() / 2, 0, 0, 1000, 3, 0, 0))

    def listening(self, container_id: str) -> frozenset[int]:
        return frozenset()

    async def close(self) -> None:
        pass

    def running(self) -> int:
        return sum(state == "running" for state in self.containers.values())


class PretendImages:
    """Every image whose name does not begin with `missing` exists."""

    def __init__(self) -> None:
        self.pulls: list[str] = []
        self.holders: dict[str, str] = {}
        self.moved = asyncio.Event()
        self.id = "sha256:1"

    def held(self) -> tuple[HeldImage, ...]:
        return (HeldImage(self.id, (("docker.io/library/web:1", "sha256:2"),), ("sha256:1", "sha256:2")),)

    async def resolve(self, ref: str, **_: Any) -> str:
        return f"sha256:{'2' * 64}"

    def get(self, ref: str) -> Image | None:
        return Image(ref, (ref,), ref, (), ImageConfig(cmd=("serve",)), 1000, None)

    def list(self) -> list[Image]:
        return [Image("sha256:1", ("web:1",), "sha256:2", (), ImageConfig(), 1000, None)]

    def details(self, image_id: str) -> Details:
        return Details("{}", "sha256:2", {}, {}, (), {})

    async def blob(self, digest: str, offset: int = 0) -> AsyncIterator[bytes]:
        if digest != "sha256:2":
            raise ImageNotFound(f"blob {digest} is not on this node")
        yield b"manifest"[offset:]

    def blob_path(self, digest: str) -> Path:
        return Path("/nothing") / digest

    async def pull(self, ref: str, **_: Any) -> Image:
        self.pulls.append(ref)
        if ref.startswith("missing"):
            raise ImageNotFound(f"image {ref} is in no registry")
        return Image(f"sha256:{ref}", (ref,), ref, (), ImageConfig(cmd=("serve",)), 1000, None)

    async def push(self, ref: str, **_: Any) -> Pushed:
        return Pushed("sha256:2", 400, 1000, (("sha256:3", "pushed"), ("sha256:4", "exists")))

    async def remote(self, ref: str, **_: Any) -> RemoteImage:
        return RemoteImage("sha256:1", "sha256:2", '{"history": [{"created_by": "ADD"}]}', (7,))

    async def commit(self, base: str, written: Any, leave_out: Any, config_of: Any, name: str) -> Image:
        async with written:
            config_of("sha256:9")
        return Image("sha256:8", (name,), "sha256:2", (), ImageConfig(), 1000, None)

    async def tag(self, ref: str, name: str) -> Image:
        return Image(ref, (name,), ref, (), ImageConfig(), 1000, None)

    async def load(self, source: Path) -> Any:
        assert source.read_bytes() == b"archive"
        return self.list()

    async def remove(self, ref: str, *, force: bool = False) -> Removed:
        raise NotFound(f"image {ref} is not on this node")

    async def collect(self) -> int:
        return 0

    def hold(self, image_id: str, owner: str) -> None:
        self.holders[owner] = image_id

    def release(self, owner: str) -> None:
        self.holders.pop(owner, None)


@dataclass
class Keys:
    """A cluster's CA with a controller and one node."""

    authority: Authority
    node: NodePki
    controller: NodePki
    operator: NodePki

    @classmethod
    def make(cls) -> Keys:
        authority = Authority(new_authority("shoal cluster CA"))

        def pki(name: str, role: str, sans: list[str]) -> NodePki:
            pair = authority.issue(name, role, sans)
            return NodePki(authority.pem, pair.certificate, pair.key)

        return cls(
            authority,
            pki("n1", "node", [node_server_name("n1")]),
            pki("c1", "controller", [CONTROLLER_SERVER_NAME, "localhost"]),
            pki("admin", "operator", []),
        )


@dataclass
class Agent:
    """One agent in memory. `runtime` and `network` may be given, to be those of an agent before it."""

    data_dir: Path
    runtime: PretendRuntime = field(default_factory=PretendRuntime)
    network: MemoryNetwork = field(default_factory=MemoryNetwork)
    images: PretendImages = field(default_factory=PretendImages)
    balance: Balancer = field(default_factory=NoBalancer)
    machine: Machine = field(default_factory=MemoryMachine)

    def __post_init__(self) -> None:
        self.core = Core("n1")
        volumes = VolumeStore(self.data_dir / "volumes", lambda: volume_users(list(self.core.lives.values())))
        own = (self.runtime, self.images, self.network, volumes, self.data_dir)
        self.ports = Ports(*own, balance=self.balance, machine=self.machine)
        self.reporter = Reporter()
        self.runner = Runner(self.core, self.ports, Journal(self.data_dir), RealClock(), self.reporter)

    @asynccontextmanager
    async def on(self) -> AsyncIterator[Agent]:
        """Recovered and running until the block ends, then gone as after a SIGKILL: containers stay."""
        await self.runner.recover()
        work = asyncio.ensure_future(self.runner.run())
        try:
            yield self
        finally:
            work.cancel()
            await asyncio.wait([work])

    def client(self, keys: Keys, *addresses: str) -> SessionClient:
        identity = NodeIdentity("n1", "id1", addresses)
        dial = dialling(keys.node)
        return SessionClient(
            identity, dial, self.runner, self.reporter, lambda: NodeInfo(cpus=2.0), RealClock(), RealRandom(),
            sampler=Sampler(self.runner, RealClock()), holdings=Holdings(self.images, RealClock()),
        )  # fmt: skip

    async def reached(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            await self.runner.until(condition)


class Dispatcher:
    """A controller's dispatch server as a test wants it: every session's messages in a queue, answers from the test."""

    def __init__(
        self, keys: Keys, *, epoch: int = 1, heartbeat_s: float = 0.2, redirect: str | None = None, sample_s: float = 0.0
    ) -> None:
        self._keys = keys
        self._welcome = pb.Welcome(epoch=epoch, heartbeat_s=heartbeat_s, sample_s=sample_s)
        self._redirect = redirect
        self.sessions: asyncio.Queue[DispatchSession] = asyncio.Queue()
        self.address = ""
        self.visits = 0
        self.mute = False

    @asynccontextmanager
    async def on(self) -> AsyncIterator[Dispatcher]:
        server = aio.server()
        handler = grpc.stream_stream_rpc_method_handler(self._session, pb.FromNode.FromString, pb.ToNode.SerializeToString)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shoal.node.v1.Dispatch", {"Session": handler}),))
        self.address = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', self._keys.controller.server())}"
        await server.start()
        try:
            yield self
        finally:
            await server.stop(0)

    async def _session(self, _: Any, context: Any) -> None:
        self.visits += 1
        if self._redirect is not None:
            await context.write(pb.ToNode(redirect=pb.Redirect(dispatch=self._redirect)))
            return
        session = DispatchSession(context)
        session.hello = (await context.read()).hello
        await context.write(pb.ToNode(welcome=self._welcome))
        self.sessions.put_nowait(session)
        while isinstance(message := await context.read(), pb.FromNode):
            if message.WhichOneof("kind") == "heartbeat":
                if not self.mute:
                    await context.write(pb.ToNode(heartbeat=message.heartbeat))
            else:
                session.messages.put_nowait(message)

    async def session(self) -> DispatchSession:
        async with asyncio.timeout(WAIT_S):
            return await self.sessions.get()


class DispatchSession:
    def __init__(self, context: Any) -> None:
        self._context = context
        self.hello = pb.Hello()
        self.messages: asyncio.Queue[pb.FromNode] = asyncio.Queue()
        self.states: dict[int, str] = {}

    async def send(self, message: pb.ToNode) -> None:
        await self._context.write(message)

    async def next(self, kind: str) -> Any:
        """The next message of this kind; states of replicas seen on the way are kept."""
        async with asyncio.timeout(WAIT_S):
            while True:
                message = await self.messages.get()
                if message.WhichOneof("kind") == "status":
                    self.states |= {replica.key.slot: replica.state for replica in message.status.replicas}
                    for key in message.status.gone:
                        self.states.pop(key.slot, None)
                if message.WhichOneof("kind") == kind:
                    return getattr(message, kind)

    async def until_states(self, wanted: dict[int, str]) -> None:
        while self.states != wanted:
            await self.next("status")


ANY = RestartPolicy()


def web(restart: RestartPolicy = ANY, image: str = "web:1") -> ServiceSpec:
    return ServiceSpec("shop_web", ContainerSpec(image, networks=(Attachment("shop_default"),), restart=restart))


def desired(generation: int, slots: int, spec: ServiceSpec | None = None, *, base: int | None = None) -> pb.ToNode:
    """`slots` replicas of shop_web; whole, or a difference to generation `base`."""
    message = pb.Desired(generation=generation, whole=base is None, base_generation=base or 0)
    service = message.services.add(service_id="s1", name="shop_web")
    for slot in range(1, slots + 1):
        service.slots.add(slot=slot, version=1, created_ms=7)
    if spec is not None:
        service.specs.add(version=1, json=codec.encode(spec))
    message.networks.add(name="shop_default", vni=7, subnet="10.0.0.0/16", slice="10.0.1.0/24")
    return pb.ToNode(desired=message)
