"""The wires between a lab's machines: one bridge on the host, one veth pair and one network namespace per machine.

Rules: made and removed by name; doing it twice is fine. pyroute2 does the host's side, a thread of its own the inside.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from agent.network import namespaces
from agent.network.rtnl import Netlink
from agent.plan import netlink
from lab.layout import LabPaths, LabRecord, MachineRecord, bridge_name, port_name, tag
from model.errors import RuntimeFailed

_BRIDGE_CALLS: Final = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


@contextlib.contextmanager
def _route() -> Iterator[Any]:
    try:
        with IPRoute() as ipr:
            yield ipr
    except NetlinkError as error:
        raise RuntimeFailed(f"lab network: {error}: are you root?") from error


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def routes() -> list[str]:
    """Every IPv4 route of the machine as CIDR."""
    with Netlink() as nl:
        return [route.destination for route in nl.routes()]


def make_bridge(record: LabRecord) -> None:
    """The lab's bridge, with the host's own address on it (the first of the subnet)."""
    name = bridge_name(record.name)
    with _route() as ipr:
        if not _index(name):
            ipr.link("add", ifname=name, kind="bridge")
        index = _index(name)
        ipr.link("set", index=index, state="up")
        with contextlib.suppress(NetlinkError):
            ipr.addr("add", index=index, address=record.gateway, prefixlen=24)


def remove_bridge(lab: str) -> None:
    """The bridge and every port of the lab that is left."""
    names = [link for _, link in socket.if_nameindex() if link == bridge_name(lab) or link.startswith(f"shl-{tag(lab)}-")]
    with _route() as ipr:
        for name in names:
            if index := _index(name):
                with contextlib.suppress(NetlinkError):
                    ipr.link("del", index=index)


def plug(record: LabRecord, machine: MachineRecord, paths: LabPaths) -> None:
    """A new network namespace for the machine, with `eth0` on the lab's bridge."""
    unplug(record.name, machine.host, paths.netns(machine.name))
    gateway, address = record.gateway, record.address(machine)

    with contextlib.suppress(FileNotFoundError):
        paths.netns(machine.name).unlink()
    fd, _ = namespaces.create(paths.netns(machine.name), prepare_inside)
    try:
        port = port_name(record.name, machine.host)
        with _route() as ipr:
            ipr.link("add", ifname=port, kind="veth", peer={"ifname": "eth0", "net_ns_fd": fd})
            ipr.link("set", index=_index(port), master=_index(bridge_name(record.name)), state="up")
    finally:
        os.close(fd)

    def address_it() -> None:
        with Netlink() as nl:
            index = nl.index("eth0")
            nl.send([netlink.set_up(index), netlink.add_address(index, f"{address}/24")])
            nl.send([netlink.put_route("0.0.0.0/0", gateway, index)])

    namespaces.enter(str(paths.netns(machine.name)), address_it)


def prepare_inside(bridge_calls: Path = _BRIDGE_CALLS) -> None:
    """In a machine's new namespace: loopback up, and no iptables for what crosses a bridge (where that module is loaded)."""
    with Netlink() as nl:
        nl.send([netlink.set_up(1)])
    with contextlib.suppress(FileNotFoundError):
        bridge_calls.write_text("0")


def unplug(lab: str, host: int, netns: Path) -> None:
    """The machine's link and namespace are gone."""
    port = port_name(lab, host)
    with _route() as ipr:
        if index := _index(port):
            with contextlib.suppress(NetlinkError):
                ipr.link("del", index=index)
    namespaces.remove(netns)


def cut(lab: str, host: int, *, cut_off: bool) -> None:
    """Take the machine's cable out (`cut_off`) or put it back."""
    index = _index(port_name(lab, host))
    if not index:
        raise RuntimeFailed(f"the machine has no link {port_name(lab, host)}: is it running?")
    with _route() as ipr:
        ipr.link("set", index=index, state="down" if cut_off else "up")
