"""Puts the controller together and takes it apart in order: PKI, etcd, store, mirror, dispatch, API, election.

Rules: what is started here is stopped here, in the opposite order, also when starting fails half-way. The end releases the
leader's key first, so that another controller leads at once, and ends the own etcd last. No container notices any of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final

from controller.agents import Agents
from controller.api.app import make_app
from controller.api.context import Api
from controller.api.digests import NodeDigests
from controller.api.exec import exec_routes
from controller.api.metrics_scaling import count as count_decisions
from controller.api.server import ApiServer
from controller.clock import RealClock, RealRandom
from controller.config import Config, join_host
from controller.decide.types import Settings
from controller.dispatch.grpc_server import DispatchServer
from controller.dispatch.guarded import host_port
from controller.election import Election
from controller.lead import Leadership
from controller.loops.machines import MachineKeeper
from controller.parts import Parts
from controller.pki import Pki, ensure_etcd_pki, ensure_pki, write_admin_context, write_private, write_prometheus_files
from controller.prometheus.http import HttpPrometheus
from controller.providers.make import make_provider
from controller.sealing import Sealing
from controller.store.etcd import EtcdStore
from controller.store.etcd_admin import EtcdAdmin
from controller.store.etcd_channel import EtcdTarget
from controller.store.etcd_command import QUOTA_BYTES, EtcdFiles, EtcdSettings
from controller.store.maintenance import Maintenance
from controller.store.mirror import Mirror
from controller.store.supervisor import EtcdProcess
from model import codec
from model.documents import ControllerDoc, LeaderDoc, key
from model.errors import ShoalError, StoreError
from model.store_port import Put, Store

log = logging.getLogger(__name__)

STOP_S: Final = 5.0
OWN_LINKS: Final = ("shb-", "shx-", "shv-")
RTF_REJECT: Final = 0x200
"""Of a route in /proc/net/route: to nowhere."""


@dataclass(frozen=True, slots=True)
class Running:
    """A controller that is up: where it listens, and its parts."""

    api_url: str
    dispatch_address: str
    api: Api
    leadership: Leadership
    etcd: EtcdProcess | None


@asynccontextmanager
async def controller(config: Config) -> AsyncIterator[Running]:
    """A controller for as long as the block runs. Raises ShoalError; a part that dies cancels the block."""
    config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    async with AsyncExitStack() as stack:
        stack.enter_context(_lock(config.data_dir))
        pki = ensure_pki(config.data_dir / "pki", config.name, [config.advertise, socket.gethostname()])
        listener = stack.enter_context(contextlib.closing(listen("--api", *config.api)))
        etcd, target = await _etcd(config, pki, stack)
        store = EtcdStore(target)
        stack.push_async_callback(store.close)
        async with _parts(config, pki, listener, store, etcd) as running:
            yield running


@asynccontextmanager
async def _parts(
    config: Config, pki: Pki, listener: socket.socket, store: EtcdStore, etcd: EtcdProcess | None
) -> AsyncIterator[Running]:
    """Everything above the store."""
    clock, random = RealClock(), RealRandom()
    settings = settings_of(config, own_subnets())
    async with AsyncExitStack() as stack:
        prometheus = HttpPrometheus()
        stack.callback(prometheus.close)
        parts = Parts(
            store, clock, random, settings, prometheus, _etcd_addresses(config.etcd), prometheus_url=config.prometheus,
        )  # fmt: skip
        stack.callback(parts.close)
        picture, mirror, leadership, dispatch = parts.picture, parts.mirror, parts.leadership, parts.dispatch
        picture.subscribe(count_decisions)
        leadership.keeper = MachineKeeper(
            picture, clock, random, lambda spec: make_provider(spec, config.data_dir, config.lab_socket),
            pki.authority.fingerprint(),
        )  # fmt: skip
        agents = Agents(picture, pki)
        stack.push_async_callback(agents.close)
        sessions = DispatchServer(dispatch, pki)
        dispatch.address = join_host(config.advertise, sessions.start(listen("--dispatch", *config.dispatch)))
        stack.push_async_callback(sessions.stop)
        api_url = f"https://{join_host(config.advertise, listener.getsockname()[1])}"
        api = Api(
            store, picture, mirror.wait_for, clock, random, pki, agents, dispatch, settings, config.name, api_url,
            dispatch.address, parts.gone, parts.samples, parts.measuring,
            digests=NodeDigests(picture, agents, dispatch.images, dispatch.knows_images), seals=Sealing(pki.authority.secret()),
        )  # fmt: skip
        dispatch.open_seals_with(api.seals)
        me = LeaderDoc(config.name, 0, api_url, dispatch.address, id=_controller_id(config.data_dir))
        server = ApiServer(make_app(api, exec_routes(api)), pki, listener)
        await stack.enter_async_context(_tasks(mirror, store, etcd, server, parts.election(me), leadership))
        await register(store, ControllerDoc(me.id, me.controller, me.api, me.dispatch))
        write_admin_context(config.data_dir / "admin.json", config.name, [api_url], pki)
        write_prometheus_files(config.data_dir / "prometheus", pki)
        yield Running(api_url, dispatch.address, api, leadership, etcd)


@asynccontextmanager
async def _tasks(
    mirror: Mirror, store: EtcdStore, etcd: EtcdProcess | None, server: ApiServer, election: Election, leadership: Leadership
) -> AsyncIterator[None]:
    """What runs for as long as the controller does. The leader's key is released before anything else ends."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(mirror.run())]
        if etcd is not None:
            maintenance = Maintenance(EtcdAdmin(store.channel), QUOTA_BYTES, RealClock(), log.warning)
            tasks += [group.create_task(etcd.supervise()), group.create_task(maintenance.run())]
        await mirror.wait_for(1)
        serving = group.create_task(server.serve())
        electing = group.create_task(election.run(leadership.lead))
        try:
            yield
        finally:
            server.stop()
            electing.cancel()
            await asyncio.wait({electing, serving}, timeout=STOP_S)
            for task in (serving, *tasks):
                task.cancel()


async def _etcd(config: Config, pki: Pki, stack: AsyncExitStack) -> tuple[EtcdProcess | None, EtcdTarget]:
    """The own etcd, started, or where the given one is."""
    if config.etcd:
        return None, EtcdTarget(config.etcd, config.etcd_cacert, config.etcd_cert, config.etcd_key)
    ensure_etcd_pki(pki)
    ca, server, client = (str(pki.path(stem)) for stem in ("etcd-ca", "etcd-server", "etcd-client"))
    names = (f"{ca}.pem", f"{server}.pem", f"{server}.key", f"{ca}.pem", f"{client}.pem", f"{client}.key")
    files = EtcdFiles(*(Path(name) for name in names))
    client_port, peer_port = free_ports(2)
    process = EtcdProcess(EtcdSettings(config.data_dir / "etcd", client_port, peer_port, files), RealClock(), log.warning)
    await process.start()
    stack.push_async_callback(process.stop)
    return process, process.target


async def register(store: Store, document: ControllerDoc) -> None:
    """So that agents and tools that know one controller learn of the others."""
    try:
        await store.txn([], [Put(key("controllers", document.id), codec.encode(document))])
    except StoreError as error:
        log.warning("this controller is not registered until its next start: %s", error)


def _etcd_addresses(urls: Sequence[str]) -> list[str]:
    """Those that containers could reach; the own etcd listens on loopback."""
    found = [host_port(url) for url in urls]
    return [address for address in found if not address.startswith(("127.", "[::1]", "localhost:"))]


def listen(flag: str, host: str, port: int) -> socket.socket:
    """A listening socket. Raises ShoalError when the address cannot be had."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ShoalError(f"{flag} {host}:{port}: {error.strerror or error}: choose another address") from error
    listener.listen(1024)
    listener.setblocking(False)
    return listener


def free_ports(count: int) -> list[int]:
    """Ports on loopback that are free now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def settings_of(config: Config, routes: Iterable[str]) -> Settings:
    """Networks are /16, or a sixteenth of a pool that has no room for several of these."""
    prefix = max(16, ip_network(config.pool).prefixlen + 4)
    scale_every_ms = int(config.scale_every_s * 1000)
    return Settings(
        int(config.node_timeout_s * 1000), config.pool, prefix, scale_every_ms=scale_every_ms, avoid=tuple(routes)
    )


def own_subnets() -> list[str]:
    """Subnets this machine has a route to: networks must not cover them."""
    with contextlib.suppress(OSError, ValueError):
        return subnets_of(Path("/proc/net/route").read_text())
    return []


def subnets_of(routes: str) -> list[str]:
    """From the kernel's table of IPv4 routes, without the default route, what leads nowhere, and what an agent of shoal on the
    same machine has made: that goes with its network."""
    found: set[str] = set()
    for line in routes.splitlines()[1:]:
        interface, destination, _, flags, _, _, _, mask, *_ = line.split()
        address = ip_address(int.from_bytes(bytes.fromhex(destination), "little"))
        prefix = int.from_bytes(bytes.fromhex(mask), "little").bit_count()
        if prefix and not interface.startswith(OWN_LINKS) and not int(flags, 16) & RTF_REJECT:
            found.add(f"{address}/{prefix}")
    return sorted(found)


def _controller_id(data_dir: Path) -> str:
    """Tells this data directory's controller from others of the same name."""
    path = data_dir / "controller.id"
    if not path.exists():
        write_private(path, secrets.token_hex(8).encode() + b"\n")
    return path.read_text().strip()


@contextlib.contextmanager
def _lock(data_dir: Path) -> Iterator[None]:
    """One process for one data directory."""
    descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ShoalError(f"another controller uses {data_dir}: stop it, or choose another --data-dir") from None
        yield
    finally:
        os.close(descriptor)
