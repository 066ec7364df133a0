"""Putting the agent together: identity, ports, core, session, gRPC service; and taking it apart again.

Rules: the only place that knows which implementation stands behind a port. One agent for one data directory (a lock says so).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from agent.core.capacity import Capacity, confined, detect, node_info
from agent.core.clock import RealClock, RealRandom
from agent.core.dialling import dialling
from agent.core.holding import Holdings
from agent.core.journal import Journal
from agent.core.leaving import leave
from agent.core.metrics_wiring import Watch, watching
from agent.core.peers import PeerBlobs
from agent.core.ports import Images, Ports
from agent.core.report import Reporter
from agent.core.runner import Runner
from agent.core.sampling import Sampler
from agent.core.session import NodeIdentity, Removed, SessionClient
from agent.core.tls import load_pki
from agent.identity import JoinRequest, join, load_identity, save_controllers, wipe_identity
from agent.plan.core import Core
from agent.plan.mounts import volume_users
from agent.runtime.cgroups import CgroupDriver
from agent.runtime.machine import MachineFiles
from agent.runtime.spawn import ENVIRONMENT
from agent.settings import Settings
from agent.volumes.copyup import sweep
from agent.volumes.store import VolumeStore
from model.documents import Event, NodeInfo
from model.errors import BadInput, Conflict, Unavailable

if TYPE_CHECKING:
    from agent.build.builder import Builder

log = logging.getLogger(__name__)
COLLECT_AFTER: Final = (5_000, 10, 10)
"""A sample of a few hundred containers makes a thousand objects that live for a second: at Python's own numbers the collector
looks at them several times each second, in vain."""
_NOT_JOINED = "this node is in no cluster yet: start it with --join https://CONTROLLER:7443 --token TOKEN"


def run(settings: Settings) -> int:
    """Blocks until the agent is stopped or the node is removed; the exit code. The node has joined."""
    with _directories(settings):
        identity = load_identity(settings.data_dir)
        if identity is None:
            raise BadInput(_NOT_JOINED)
        return asyncio.run(_main(settings, identity, own_info(settings)))


def join_now(settings: Settings) -> None:
    """Make this machine a node of the cluster that the settings name."""
    with _directories(settings):
        identity = _join(settings, own_info(settings))
        log.info("joined the cluster as node %s", identity.name)


def own_info(settings: Settings) -> NodeInfo:
    """What this node says of itself: given on the command line, else detected."""
    found = detect()
    capacity = Capacity(settings.cpus or found.cpus, settings.memory_bytes or found.memory_bytes, found.pids, found.cgroup)
    address = settings.advertise or _address_towards(settings)
    return node_info(capacity, f"{address}:{settings.listen_port}", address, machine_routes())


def machine_routes() -> tuple[str, ...]:
    """IPv4 subnets that networks must leave alone."""
    from agent.network.kernel import own_routes
    from agent.network.rtnl import Netlink

    with Netlink() as nl:
        return own_routes(nl)


def _join(settings: Settings, info: NodeInfo) -> NodeIdentity:
    if not settings.join or not settings.token:
        raise BadInput(_NOT_JOINED)
    return join(settings.data_dir, JoinRequest(settings.join, settings.token, settings.name, info, settings.labels))


def _address_towards(settings: Settings) -> str:
    """The address this machine would use to reach the first controller."""
    identity = load_identity(settings.data_dir)
    target = urlsplit(settings.join[0]).hostname if settings.join else None
    if target is None and identity is not None and identity.controllers:
        target = identity.controllers[0].rpartition(":")[0].strip("[]")
    if target is None:
        raise BadInput(_NOT_JOINED)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))
            return str(probe.getsockname()[0])
    except OSError as error:
        raise Unavailable(f"no route to {target} ({error}): give this node's address with --advertise IP") from error


@contextlib.contextmanager
def _directories(settings: Settings) -> Iterator[None]:
    """The agent's own directories, locked."""
    data_dir = settings.data_dir
    for directory in (data_dir, settings.run_dir):
        directory.mkdir(parents=True, exist_ok=True, mode=0o711)
    descriptor = os.open(data_dir / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Conflict(f"another agent uses {data_dir}: give each its own --data-dir") from None
        yield
    finally:
        os.close(descriptor)


async def _main(settings: Settings, identity: NodeIdentity, info: NodeInfo) -> int:
    loop = asyncio.get_running_loop()
    main = asyncio.ensure_future(_serve(settings, identity, info))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, main.cancel)
    try:
        return await main
    except asyncio.CancelledError:
        log.info("stopped; containers go on")
        return 0


async def _serve(settings: Settings, identity: NodeIdentity, info: NodeInfo) -> int:
    async with AsyncExitStack() as stack:
        core = Core(identity.name)
        clock, journal = RealClock(), Journal(settings.data_dir)
        watch = watching(settings, core, clock)
        reporter = watch.reporter if watch else Reporter()

        def say(kind: str, about: str, sentence: str) -> None:
            reporter.event(Event(round(clock.now() * 1000), kind, about, sentence, identity.name))

        pki = load_pki(settings.data_dir)
        peers = PeerBlobs(pki, clock)
        ports = await _ports(settings, info, core, say, stack, watch, peers)
        runner = Runner(core, ports, journal, clock, reporter)
        await runner.recover()
        from agent.core.service import start_server

        server, _ = await start_server(runner, pki, f"{settings.listen_host}:{settings.listen_port}")
        stack.push_async_callback(server.stop, 0.5)
        if watch:
            info = await watch.serve(settings, info, runner, stack)
        _tell_systemd("READY=1")
        gc.collect()
        gc.freeze()  # what the imports left lives as long as the process: every full collection would stop the loop to see so
        gc.set_threshold(*COLLECT_AFTER)
        client = SessionClient(
            identity,
            watch.dial(dialling(pki)) if watch else dialling(pki),
            runner,
            reporter,
            lambda: replace(info, routes=machine_routes()),
            clock,
            RealRandom(),
            partial(_remember, settings.data_dir),
            Sampler(runner, RealClock()),
            Holdings(ports.images, clock),
            peers,
        )
        log.info("node %s: %g cpus, %d MiB, agent on %s", identity.name, info.cpus, info.memory_bytes >> 20, info.address)
        work = asyncio.ensure_future(runner.run())
        try:
            await _first_end(work, asyncio.ensure_future(client.run()))
        except Removed as removed:
            await _leave(settings, runner, journal, ports, str(removed))
            return 0
        finally:
            work.cancel()
            await asyncio.wait([work])
    return 1


def _remember(data_dir: Path, controllers: Sequence[str]) -> None:
    """A full disk costs the next start a newer list, never this session."""
    try:
        save_controllers(data_dir, list(controllers))
    except OSError as error:
        log.warning("the controllers' addresses cannot be saved: %s", error.strerror)


async def _first_end(*tasks: asyncio.Future[None]) -> None:
    """Wait until one of the tasks ends; raise what it raised. The last task is cancelled, the first is the caller's."""
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        tasks[-1].cancel()
        await asyncio.wait([tasks[-1]])


async def _leave(settings: Settings, runner: Runner, journal: Journal, ports: Ports, reason: str) -> None:
    """The node was removed."""
    await leave(runner, journal, ports, reason)
    _remove_empty_cgroups(settings.cgroup_parent)
    wipe_identity(settings.data_dir)
    log.warning("left the cluster: key and name are deleted; join again with a token")


def _remove_empty_cgroups(parent: str) -> None:
    """The parent of all containers' cgroups; where something of somebody else lives in it, it stays."""
    top = Path("/sys/fs/cgroup")
    name = parent.strip("/")
    for path in (top / name, *(tree / name for tree in top.iterdir() if tree.is_dir())):
        with contextlib.suppress(OSError):
            path.rmdir()


def _tell_systemd(state: str) -> None:
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.connect("\0" + path[1:] if path.startswith("@") else path)
        out.send(state.encode())


def _sweep(data_dir: Path) -> None:
    """What an agent that was killed in the middle of something has left."""
    sweep(data_dir / "copies")
    for path in data_dir.glob(".load-*"):
        path.unlink()


async def _builder(settings: Settings, images: Images, cgroups: CgroupDriver) -> Builder | None:
    """None where the builder is not installed."""
    if shutil.which("buildah", path=ENVIRONMENT["PATH"]) is None:
        return None
    from agent.build.builder import Builder

    builder = Builder(images, settings.data_dir / "builds", settings.run_dir / "builds", settings.cgroup_parent, cgroups)
    await asyncio.to_thread(builder.sweep)
    return builder


async def _ports(
    settings: Settings, info: NodeInfo, core: Core, say: Callable[[str, str, str], None], stack: AsyncExitStack,
    watch: Watch | None, peers: PeerBlobs,
) -> Ports:  # fmt: skip
    from agent.images.records import RegistryConfig
    from agent.images.store import ImageStore
    from agent.network.balancer import KernelBalancer
    from agent.network.dns import NameServer
    from agent.network.driver import KernelNetwork
    from agent.network.names import NameBook
    from agent.network.nfnl import Conntrack
    from agent.network.nft import Nft
    from agent.runtime.conmon import ConmonRuntime, RuntimeConfig

    await asyncio.to_thread(_sweep, settings.data_dir)
    mirrors: dict[str, tuple[str, ...]] = {}
    for origin, endpoint in settings.mirrors:
        mirrors[origin] = (*mirrors.get(origin, ()), endpoint)
    registries = RegistryConfig(
        mirrors=mirrors,
        insecure=frozenset(settings.insecure),
        ca_files={endpoint: Path(file) for endpoint, file in settings.registry_cas},
        cluster_ca=settings.data_dir / "pki" / "ca.pem",
    )
    folder = settings.data_dir / "images"
    images = watch.images(folder, registries, peers) if watch else ImageStore(folder, config=registries, peers=peers)
    stack.push_async_callback(images.close)
    stack.push_async_callback(peers.close)  # first: nobody waits for them any more
    names = NameBook(settings.run_dir / "names.json", NameServer())
    names.load()
    nft = Nft()
    stack.callback(nft.close)
    balance = KernelBalancer(nft, core.node, Conntrack(), RealClock(), say)
    network = KernelNetwork(settings.run_dir, info.underlay, names, balance=balance, forgotten=balance.forgotten, nft=nft)
    await network.open()
    stack.push_async_callback(network.close)
    await balance.open()
    stack.push_async_callback(balance.close)
    runtime = ConmonRuntime(
        RuntimeConfig(settings.data_dir, settings.run_dir, settings.cgroup_parent, settings.runtime, settings.name)
    )
    stack.push_async_callback(runtime.close)
    builder = await _builder(settings, images, runtime.cgroups)
    volumes = VolumeStore(settings.data_dir / "volumes", lambda: volume_users(list(core.lives.values())))
    machine = MachineFiles(settings.data_dir, info.underlay, runtime.cgroups, confined(settings.cgroup_parent))
    stack.callback(machine.close)
    return Ports(runtime, images, network, volumes, settings.data_dir, names, balance, machine, builder)
