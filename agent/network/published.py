"""Which published ports this node serves: those of its own replicas (mode host), and those that all nodes serve (mode ingress).

Rules: a port is served while this agent holds it. One of mode ingress that somebody else has here is not served by this node;
that is said once, and tried again. One of mode host that is taken is refused, naming who has it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Final

from agent.network.balance_port import LocalPort
from agent.network.port_holder import Port, PortHolder, text
from agent.plan.balance import ANY_ADDRESS
from agent.plan.balance_book import BalanceBook
from model.errors import Conflict

DYNAMIC: Final = range(32768, 61000)


class PublishedPorts:
    """Keeps the holder and what the book may serve together."""

    def __init__(self, book: BalanceBook, say: Callable[[str, str, str], None]) -> None:
        self._book = book
        self._say = say
        self._holder = PortHolder()
        self._ingress: dict[Port, str] = {}
        self._names: dict[str, str] = {}
        self.host: dict[str, tuple[LocalPort, ...]] = {}
        """Ports of mode host by replica."""
        self._next = DYNAMIC.start

    def ingress(self, ports: Mapping[Port, str]) -> None:
        """Ports of mode ingress with the service each belongs to now; empty: none any more."""
        for port, service in ports.items():  # all are let go first: another one may overlap
            before = self._ingress.get(port, "")
            if before and before != service:
                self._holder.release(port, _owner(self._ingress.pop(port)))
        for port, service in ports.items():
            if service:
                self._ingress[port] = service
                self._try(port)
            else:
                self._book.block(port, blocked=False)

    def retry(self) -> tuple[str, ...]:
        """Ports that somebody else had may be free by now; a sentence for each that is served again."""
        tried = self._book.blocked
        for port in tried:
            self._try(port)
        return tuple(f"{text(port)} is free again and served" for port in tried if port not in self._book.blocked)

    def _try(self, port: Port) -> None:
        service = self._ingress[port]
        try:
            self._holder.hold(port, _owner(service), _owner(service))
            self._book.block(port, blocked=False)
        except Conflict as error:
            if port not in self._book.blocked:
                self._book.block(port, blocked=True)
                self._say("port-taken", service, f"{error}: this node does not serve {_owner(service)} on it")

    def publish(self, sandbox: str, ports: Iterable[LocalPort], name: str) -> tuple[LocalPort, ...]:
        """All ports of mode host of one replica, with the numbers they got. Raises Conflict; then nothing has changed."""
        self._names[sandbox] = name or sandbox
        before = self.host.get(sandbox, ())
        chosen: list[LocalPort] = []
        try:
            for port in ports:
                chosen.append(self._chosen(sandbox, port, before, chosen))
        except Conflict:
            self._release(sandbox, chosen, keep=before)
            raise
        self._release(sandbox, before, keep=chosen)
        self.host.pop(sandbox, None)
        if chosen:
            self.host[sandbox] = tuple(chosen)
        else:
            del self._names[sandbox]
        return tuple(chosen)

    def _release(self, sandbox: str, ports: Iterable[LocalPort], keep: Iterable[LocalPort]) -> None:
        kept = set(map(key, keep))
        for port in ports:
            if key(port) not in kept:
                self._holder.release(key(port), sandbox)

    def _chosen(self, sandbox: str, port: LocalPort, before: Collection[LocalPort], chosen: Iterable[LocalPort]) -> LocalPort:
        """The port with the number it had, or with the first one that is free."""
        taken = set(map(key, chosen))
        if (fixed := port.published and port.published_end <= port.published) == 0:
            taken |= {key(row) for row in before if _wish(row) != _wish(port)}
        problem = Conflict(f"{text(key(port))} of this node is published twice by {self._names[sandbox]}")
        for number in (port.published,) if fixed else self._numbers(port, before):
            found = replace(port, published=number)
            if key(found) in taken:
                continue
            try:
                self._holder.hold(key(found), sandbox, self._names[sandbox], must_exist=True)
            except Conflict as error:
                problem = error
                continue
            if not port.published:
                self._next = number + 1
            return found
        raise problem

    def _numbers(self, port: LocalPort, before: Iterable[LocalPort]) -> Iterable[int]:
        """What may be tried, the number it had first."""
        may = range(port.published, port.published_end + 1) if port.published else DYNAMIC
        had = [row.published for row in before if _wish(row) == _wish(port) and row.published in may]
        start = self._next if not port.published and self._next in may else may.start
        return itertools.chain(had, range(start, may.stop), range(may.start, start))

    def close(self) -> None:
        self._holder.close()


def key(port: LocalPort) -> Port:
    return port.protocol, "" if port.host_ip in ANY_ADDRESS else port.host_ip, port.published


def _wish(port: LocalPort) -> tuple[str, int, str]:
    return port.protocol, port.target, port.host_ip


def _owner(service: str) -> str:
    return f"service {service}"
