"""The node's load balancer in the kernel: services' addresses and published ports, by nftables maps changed by difference.

Rules:
- News are taken at once and applied soon: whatever arrives while a transaction runs goes with the next one, and only then is
  its number given out. A refused transaction is answered by writing the whole table, again and again with growing pauses.
- What an earlier agent wrote goes on working until the controller or the replicas were heard; counts go on, too.
- UDP has no end of its own: what the kernel remembers of it is forgotten when its backend goes; once at the start also what an
  agent left that was killed before it came to that.
- `localhost` answers for published ports by IPv4; `::1` does not, the kernel cannot translate it out of the loopback link.
- A published port of one particular address (`host_ip`) is balanced again by no other node: a node that takes no part in the
  service's network refuses it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Final, Protocol

from agent.network.balance_port import LocalPort, Place, Traffic
from agent.network.counting import Counting, summed
from agent.network.draining import Draining
from agent.network.drift import Drift
from agent.network.holding import CallLog, Holding
from agent.network.nft import Nft
from agent.network.published import PublishedPorts
from agent.plan import balance_held, balance_rules
from agent.plan.balance import HostPort, Row
from agent.plan.balance_book import BalanceBook, Change, Move
from agent.plan.balance_udp import Stale, Unfinished, stale
from agent.plan.forget import Forgetting
from agent.plan.names import EndpointsMessage
from agent.plan.network import LinkPlan
from agent.plan.nflog import Call
from agent.plan.nfnl import UDP, Connection, Side
from model.errors import RuntimeFailed
from model.ports import Clock

log = logging.getLogger(__name__)
RETRY_MAX_S: Final = 30.0
OWED_MAX: Final = 1_000
_ROUTE_LOCALNET: Final = Path("/proc/sys/net/ipv4/conf/all/route_localnet")

Say = Callable[[str, str, str], None]
"""(kind, about, sentence)"""


Chosen = Callable[[Connection], bool]


class Connections(Protocol):
    """What is needed of `agent.network.nfnl.Conntrack`."""

    def delete_where(self, protocol: int, original: Side, chosen: Chosen, *, six: bool = False) -> int: ...

    def open_connections(self, addresses: Iterable[str]) -> dict[str, int]: ...

    def balanced(self, *, six: bool) -> dict[str, int]: ...

    def close(self) -> None: ...


class KernelBalancer:
    """The real Balancer. `open` first; `nft` may be shared with other tables of this agent."""

    def __init__(self, nft: Nft, node: str, conntrack: Connections, clock: Clock, say: Say) -> None:
        self._nft = nft
        self._conntrack = conntrack
        self._clock = clock
        self._book = BalanceBook(node)
        self._forgetting = Forgetting(clock.monotonic())
        self._draining = Draining(self._forgetting, conntrack.open_connections, self._book.prefix6_of, clock)
        self._ports = PublishedPorts(self._book, say)
        self._holding = Holding(self._book.sleeps, clock)
        self._calls: CallLog | None = None
        self._seen = -1
        self._lock = asyncio.Lock()
        self._news = asyncio.Event()
        self._done = asyncio.Event()
        self._subnets: dict[str, ipaddress.IPv4Network] = {}
        self._owed: list[Move] = []
        self._taken_over = False  # and not everything heard since
        self._unfinished: Unfinished | None = None
        self._shapes: set[balance_rules.Shape] = set()
        self._broken = False
        self._number = self._applied = 0
        self._session = 0
        self._task: asyncio.Task[None] | None = None
        self._set_localnet = False
        self._counting = Counting(nft, conntrack, clock)

    async def open(self) -> None:
        """Take over the table of an earlier agent, or make one. Needs root."""
        await asyncio.to_thread(self._take_over)
        self._task = asyncio.get_running_loop().create_task(self._run(), name="balancer")
        self._calls = CallLog(balance_rules.LOG_GROUP, self._called)

    def _take_over(self) -> None:
        if (held := self._held()) is not None:
            self._book.inherit(held.slots, held.members)
            self._taken_over = True
        try:
            self._write(held)
        except RuntimeFailed as error:
            log.warning("the load balancing of the last agent cannot be taken over: %s", error)
            self._book.inherit_nothing()
            self._write(None)
        self._set_localnet = self._allow_localhost()

    def _held(self) -> balance_held.Held | None:
        try:
            return balance_held.held(self._nft.run(f"list table {balance_rules.TABLE}"))
        except RuntimeFailed:
            return None

    def _write(self, held: balance_held.Held | None) -> None:
        """The whole table, with the counts of `held`."""
        shapes = balance_rules.shapes_of(self._book.slots)
        self._nft.run(self._text(shapes, held))
        self._shapes = shapes
        self._broken = False

    def _text(self, shapes: set[balance_rules.Shape], held: balance_held.Held | None = None) -> str:
        counts = held.counts if held else {}
        return balance_rules.whole(self._book.slots, self._book.members, shapes, counts)

    # -- news

    def take(self, message: EndpointsMessage) -> None:
        self._forgetting.take(message, self._clock.monotonic())
        self._book.take(message)
        self._holding.look()
        self._number = max(self._number, message.number)
        self._ports.ingress(self._book.ingress_ports())
        self._news.set()

    def networks(self, plans: Mapping[str, LinkPlan]) -> None:
        for network in self._book.networks(plans):
            self._forgetting.leave(network)
        self._subnets = {name: ipaddress.IPv4Network(plan.subnet) for name, plan in plans.items()}
        self._ports.ingress(self._book.ingress_ports())
        for sandbox, ports in self._ports.host.items():  # their IPv6 addresses may be known only now
            self._book.publish(sandbox, [self._host_port(port) for port in ports])
        self._news.set()

    async def applied(self, beyond: int) -> int:
        while self._applied <= beyond:
            self._done.clear()
            await self._done.wait()
        return self._applied

    def floor(self, number: int) -> None:
        if number == 0:
            self._number = self._applied = 0
            self._session += 1
        self._forgetting.floor(number)

    def forgotten(self, network: str, address: str) -> bool:
        return self._forgetting.forgotten((network, address), self._clock.monotonic())

    async def drained(self, places: Collection[Place], within_s: float) -> None:
        await self._draining.drained(places, within_s)

    # -- applying

    async def _run(self) -> None:
        pause_s = 0.0
        while True:
            await self._news.wait()
            self._news.clear()
            async with self._lock:
                pause_s = await self._apply(pause_s)
            if pause_s:
                await self._clock.sleep(pause_s)
                self._news.set()

    async def _apply(self, paused_s: float) -> float:
        """One transaction; gives how long to pause before the next attempt, 0: it worked."""
        change, upto, session = self._book.change(), self._number, self._session
        self._owed += change.moves
        if self._taken_over and self._book.heard().everybody():
            self._taken_over, self._unfinished = False, Unfinished(self._book.slots, self._book.view.subnets())
        try:
            await asyncio.to_thread(self._perform, change)
        except Exception as error:  # whatever it is, it must not be the end of load balancing
            known = isinstance(error, RuntimeFailed | OSError)
            log.warning("load balancing could not be changed: %s; the whole table is written", error, exc_info=not known)
            self._broken = True
            return min(RETRY_MAX_S, 2 * paused_s or 0.1)
        if session == self._session:
            self._applied = upto
            self._done.set()
        return 0.0

    def _perform(self, change: Change) -> None:
        if self._broken:
            self._write(self._held())
        else:
            shapes = balance_rules.needed_shapes(change) - self._shapes
            if text := balance_rules.transaction(change, sorted(shapes)):
                self._nft.run(text)
                self._shapes |= shapes
        try:
            self._forget()
        except (RuntimeFailed, OSError) as error:
            self._owed = self._owed[-OWED_MAX:]
            log.warning("connections cannot be forgotten: %s; tried again", error)

    def _forget(self) -> None:
        for gone in (stale(self._owed), self._unfinished or Stale()):
            for original, six in gone.looks():
                self._conntrack.delete_where(UDP, original, gone.concerns, six=six)
        self._owed, self._unfinished = [], None

    # -- ports of mode host

    def publish(self, sandbox: str, ports: Collection[LocalPort], name: str = "") -> tuple[LocalPort, ...]:
        chosen = self._ports.publish(sandbox, ports, name)
        self._book.publish(sandbox, [self._host_port(port) for port in chosen])
        self._ports.retry()
        self._news.set()
        return chosen

    def _host_port(self, port: LocalPort) -> HostPort:
        address = ipaddress.ip_address(port.address)
        network = next((name for name, subnet in self._subnets.items() if address in subnet), "")
        prefix6 = self._book.prefix6_of(network)
        return HostPort(port.protocol, port.published, port.target, port.address, port.host_ip, prefix6)

    # -- who is held

    def _called(self, link: str, call: Call) -> None:
        service_id = self._book.called(link, call.protocol, call.target, call.target_port)
        self._holding.called(service_id, (call.protocol, call.source, call.source_port))

    async def held(self, beyond: Mapping[str, int]) -> Mapping[str, int]:
        return await self._holding.changed(beyond)

    # -- counts

    async def traffic(self) -> tuple[Traffic, ...]:
        async with self._lock:
            rows = self._book.rows()
            flows = await asyncio.to_thread(self._counting.flows, any(":" in address for address in rows))
            self._book.read(rows)
            self._news.set()
        return tuple(summed(rows, flows, {}))

    async def load(self) -> tuple[Traffic, ...]:
        rows = self._book.known_rows()
        return await asyncio.to_thread(self._load, rows) if rows else ()

    def _load(self, rows: Mapping[str, Row]) -> tuple[Traffic, ...]:
        six = any(":" in address for address in rows)
        flows = self._counting.flows(six)
        return tuple(summed(rows, flows, self._counting.still_open(flows, six)))

    # -- keeping

    async def repair(self) -> tuple[str, ...]:
        """Comparing many services takes seconds: changes go on meanwhile, and what differs is compared again without them."""
        count = self._nft.foreign_changes()
        async with self._lock:
            localhost = await asyncio.to_thread(self._allow_localhost)
            text = "" if self._broken or count == self._seen else await asyncio.to_thread(self._text, self._shapes)
        sentences: tuple[str, ...] = ()
        differs = bool(text) and bool(await asyncio.to_thread(self._compare, text, lambda: None))
        if differs:
            async with self._lock:
                sentences = await asyncio.to_thread(self._repair)
        self._seen = count
        async with self._lock:
            freed = self._ports.retry()
            if (freed and await self._apply(0.0)) or self._owed or self._unfinished:
                self._news.set()
        return (*sentences, *freed, *(("route_localnet was off and is on again",) if localhost else ()))

    def _repair(self) -> tuple[str, ...]:
        if self._broken:
            return ()
        return self._compare(self._text(self._shapes), lambda: self._write(self._held()))

    def _compare(self, text: str, rebuild: Callable[[], None]) -> tuple[str, ...]:
        return Drift(self._nft).repaired(lambda: {balance_rules.TABLE: text}, rebuild)

    def _allow_localhost(self) -> bool:
        """Published ports answer on 127.0.0.1 of the node itself; from outside such packets are dropped by the table."""
        try:
            off = _ROUTE_LOCALNET.read_text().strip() == "0"
            if off:
                _ROUTE_LOCALNET.write_text("1")
        except OSError as error:
            log.warning("published ports do not answer on 127.0.0.1: route_localnet cannot be set: %s", error.strerror)
            return False
        return off

    async def close(self, *, remove: bool = False) -> None:
        async with self._lock:  # nothing is being written
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait([self._task])
                self._task = None
            if self._calls is not None:
                self._calls.close()
                self._calls = None
            await asyncio.to_thread(self._close, remove)

    def _close(self, remove: bool) -> None:
        self._ports.close()
        if remove:
            self._nft.run(balance_rules.removal())
            if self._set_localnet:
                with contextlib.suppress(OSError):
                    _ROUTE_LOCALNET.write_text("0")
        self._conntrack.close()

