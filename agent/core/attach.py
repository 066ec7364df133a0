"""A replica's networks as a whole: its interfaces, its place among the names, its published ports.

Rules: the name server and the published ports follow every change of addresses, and are gone before the interfaces are.
Numbers of published ports that were chosen once are asked for first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace

from agent.core.failure import failure_of
from agent.core.ports import Ports
from agent.network.balance_port import LocalPort
from agent.network.port import AttachmentWanted
from agent.plan import publish
from agent.plan.etc_facts import client, may_be_asked
from agent.plan.networks import HOST, attachments
from agent.plan.records import Desired, Failure, Life
from agent.plan.rewire import leaving, linked, unfinished
from model.errors import Conflict, ShoalError
from model.spec import Pairs, Port

log = logging.getLogger(__name__)


class Attacher:
    """Gives back each life as it is attached now. `desired` gives the newest desired state: its networks stand in it."""

    def __init__(self, ports: Ports, desired: Callable[[], Desired]) -> None:
        self._ports = ports
        self._desired = desired
        self._publishing: set[str] = set()

    async def attach(self, life: Life) -> Life:
        """Raises what the driver raises, and Conflict for a published port that is taken."""
        wanted = [AttachmentWanted(item.network, item.ipv4_address) for item in attachments(life)]
        attached = await self._ports.network.attach(life.sandbox, wanted)
        if unasked := [server for server in life.spec.container.dns if not may_be_asked(server)]:
            log.warning("%s: its name server %s is not asked: it is no address the node can ask", life.name, unasked[0])
        return self._told(replace(life, netns=attached.netns_path or HOST, addresses=attached.addresses))

    async def rewire(self, life: Life) -> tuple[Life, Failure | None]:
        """One network at a time, as far as it goes. Every wanted one is asked for: what is known of the interfaces may be older
        than an agent that was killed half way."""
        driver, sandbox = self._ports.network, life.sandbox
        try:
            for network in leaving(life, life.addresses):
                life = replace(life, addresses=(await driver.disconnect(sandbox, network)).addresses)
            for item in linked(life):
                wanted = AttachmentWanted(item.network, item.ipv4_address)
                life = replace(life, addresses=(await driver.connect(sandbox, wanted)).addresses)
            for network in leaving(life, life.addresses):
                life = replace(life, addresses=(await driver.disconnect(sandbox, network)).addresses)
            failure = unfinished(life)
        except ShoalError as error:
            failure = failure_of(error)
        try:
            return self._told(life), failure
        except ShoalError as error:
            return life, failure or failure_of(error)

    async def detach(self, sandbox: str) -> None:
        self._ports.names.client(sandbox, None)
        self._take_back(sandbox)
        await self._ports.network.detach(sandbox)

    def recover(self, life: Life) -> None:
        """After a restart of the agent: what is attached is told again. Raises Conflict when somebody has taken a port."""
        self._ports.names.client(life.sandbox, client(life))
        if life.ports:
            self._publish(life, publish.again(publish.host_ports(life), life.ports))

    def _told(self, life: Life) -> Life:
        self._ports.names.client(life.sandbox, client(life))
        ports = publish.host_ports(life) if life.addresses else ()
        if not ports:
            self._take_back(life.sandbox)
            return life
        again = publish.again(ports, life.ports)
        try:
            return replace(life, ports=self._publish(life, again))
        except Conflict:
            if again == ports:
                raise
            return replace(life, ports=self._publish(life, ports))

    def _publish(self, life: Life, ports: Iterable[Port]) -> Pairs:
        address = self._way_in(life)
        wanted = [
            LocalPort(port.protocol, port.target, address, port.published, port.host_ip, port.published_end) for port in ports
        ]
        rows = self._ports.balance.publish(life.sandbox, wanted, life.name)
        self._publishing.add(life.sandbox)
        return tuple((f"{row.target}/{row.protocol}", f"{row.host_ip or '0.0.0.0'}:{row.published}") for row in rows)

    def _take_back(self, sandbox: str) -> None:
        if sandbox in self._publishing:
            self._publishing.discard(sandbox)
            self._ports.balance.publish(sandbox, ())

    def _way_in(self, life: Life) -> str:
        """The address its published ports lead to: one on a network that has a way out, if there is any."""
        internal = {network.name for network in self._desired().networks if network.internal}
        rows = [address for network, address in life.addresses if network not in internal] or [life.addresses[0][1]]
        return rows[0].partition("/")[0]
