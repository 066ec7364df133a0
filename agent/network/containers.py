"""Containers' network namespaces and the links into them.

Rules: synchronous; called in threads by one caller at a time. A namespace is entered by a thread of its own. A link comes up
after all that guards it is in place.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from agent.network import kernel, namespaces, sysctls
from agent.network.rtnl import Netlink
from agent.plan import attachment, entries, netlink
from agent.plan.attachment import Interface
from agent.plan.netlink import Request
from agent.plan.network import LinkPlan
from model.errors import RuntimeFailed

_SYSCTLS: Final = (
    ("net/ipv4/ping_group_range", "0 2147483647"),
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    # nobody tells a container another way than its routes: before its links are made, which begin with `default`
    *((f"net/ipv4/conf/{of}/accept_redirects", "0") for of in ("all", "default")),
)
_SYSCTLS6: Final = tuple((f"net/ipv6/conf/default/{name}", "0") for name in ("accept_redirects", "accept_ra"))
_INDEX_FIRST: Final = 2  # of eth0 in a new namespace; loopback has 1
Plans = Mapping[str, LinkPlan]
_Inside = Callable[[Netlink, Mapping[int, int]], None]


class Containers:
    """`directory` holds the files that keep the namespaces."""

    def __init__(self, nl: Netlink, directory: Path) -> None:
        self._nl = nl
        self._dir = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def path(self, container_id: str) -> Path:
        return self._dir / container_id

    def found(self) -> set[str]:
        """Containers that have a namespace."""
        return {path.name for path in self._dir.iterdir()}

    def build(self, container_id: str, interfaces: Sequence[Interface], plans: Plans) -> None:
        """A new namespace with these interfaces."""
        fd, inner = namespaces.create(self.path(container_id), _prepare_inside)
        indexes = {found.number: _INDEX_FIRST + place for place, found in enumerate(interfaces)}
        try:
            with inner:
                self._outside(interfaces, plans, fd, indexes)
                rows = [_inside(plans[found.network], found, indexes[found.number]) for found in interfaces]
                defaults = attachment.default_routes(plans, interfaces, indexes)
                inner.send([netlink.set_up(1), *(request for row in rows for request in row), *defaults])
        finally:
            os.close(fd)

    def _outside(self, interfaces: Iterable[Interface], plans: Plans, fd: int, indexes: Mapping[int, int]) -> None:
        pairs = []
        for found in interfaces:
            plan, index = plans[found.network], indexes.get(found.number, 0)
            master = self._nl.index(plan.bridge)
            pairs.append(netlink.add_veth(found.link, master, plan.mtu, f"eth{found.number}", index, found.mac, fd))
        self._nl.send(pairs)
        self._guarded(interfaces, plans)

    def _guarded(self, interfaces: Iterable[Interface], plans: Plans) -> None:
        """What guards the host ends, and then they come up."""
        rows = tuple(interfaces)
        guards = [entries.put(entry, self._nl.index) for entry in kernel.of_interfaces(plans, rows)]
        ports = [netlink.set_port(found.link, ipv6=kernel.has_ipv6(plans[found.network])) for found in rows]
        self._nl.send([*guards, *ports])

    def add(self, container_id: str, added: Interface, interfaces: Sequence[Interface], plans: Plans) -> None:
        """One more interface for a namespace in use. `interfaces`: all of them, with it."""
        try:
            fd = os.open(self.path(container_id), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise RuntimeFailed(f"network namespace of container {container_id[:12]}: {error.strerror}") from error
        try:
            self._outside([added], plans, fd, {})
        finally:
            os.close(fd)
        self._configure(container_id, added, interfaces, plans)

    def finish(self, container_id: str, found: Interface, interfaces: Sequence[Interface], plans: Plans) -> None:
        """An interface whose link is there; whatever it lacks is added."""
        self._guarded([found], plans)
        self._configure(container_id, found, interfaces, plans)

    def _configure(self, container_id: str, added: Interface, interfaces: Sequence[Interface], plans: Plans) -> None:
        def work(inner: Netlink, indexes: Mapping[int, int]) -> None:
            plan, index = plans[added.network], indexes[added.number]
            inner.send([*_inside(plan, added, index), *attachment.default_routes(plans, interfaces, indexes)])

        self._enter(container_id, interfaces, work)

    def way_out(self, container_id: str, interfaces: Sequence[Interface], plans: Plans) -> None:
        """The default routes as these interfaces give them."""
        if any(found.network in plans for found in interfaces):
            self._enter(
                container_id,
                interfaces,
                lambda inner, indexes: inner.send(attachment.default_routes(plans, interfaces, indexes)),
            )

    def _enter(self, container_id: str, interfaces: Sequence[Interface], work: _Inside) -> None:
        def inside() -> None:
            with Netlink() as inner:
                work(inner, {found.number: inner.index(f"eth{found.number}") for found in interfaces})

        namespaces.enter(str(self.path(container_id)), inside)

    def unlink(self, interfaces: Sequence[Interface], plans: Plans) -> None:
        """Links and entries of these interfaces are gone. A bridge's port takes its forwarding entry along."""
        rows = [entry for entry in kernel.of_interfaces(plans, interfaces) if isinstance(entry, entries.Neighbour)]
        drops = [entries.drop(entry, self._nl.index) for entry in rows]
        self._nl.send([*netlink.delete_links([found.link for found in interfaces]), *drops])

    def remove(self, container_ids: Collection[str]) -> None:
        for container_id in container_ids:
            namespaces.remove(self.path(container_id))

    def mend(self, container_id: str, found: Interface, interfaces: Sequence[Interface], plans: Plans, *, gone: bool) -> None:
        """The host end of a link as it should be; made anew when it is gone."""
        if gone:
            self.add(container_id, found, interfaces, plans)
            return
        plan = plans[found.network]
        port = netlink.set_port(found.link, ipv6=kernel.has_ipv6(plan))
        self._nl.send([netlink.set_master(found.link, self._nl.index(plan.bridge)), port])


def _inside(plan: LinkPlan, found: Interface, index: int) -> list[Request]:
    if not index:
        raise RuntimeFailed(f"network {plan.name}: the container has no link eth{found.number}")
    return attachment.inside(plan, found, index, ipv6=kernel.has_ipv6(plan))


def _prepare_inside() -> Netlink:
    for name, value in (*_SYSCTLS, *(_SYSCTLS6 if sysctls.IPV6 else ())):
        Path("/proc/sys", name).write_text(value)
    return Netlink()
