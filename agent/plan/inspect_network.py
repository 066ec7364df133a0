"""The networks and ports of a container in the shape of `docker inspect`.

Rules: pure; Docker's names and meanings. Addresses are shown while the container has them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any

from agent.plan.etc_facts import gateway, known_to
from agent.plan.network import LOCAL_BRIDGE, NetworkWanted
from agent.plan.networks import attachments
from agent.plan.publish import exposed, name
from agent.plan.records import Life
from model.addresses import embedded, mac_of
from model.spec import Attachment, Port

_ADDRESS_FIELDS = (
    "IPAddress", "IPPrefixLen", "Gateway", "MacAddress", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPv6Gateway",
)  # fmt: skip


def network_settings(life: Life, image_ports: Sequence[str], networks: Iterable[NetworkWanted]) -> dict[str, Any]:
    """`image_ports`: what the image exposes. As in Docker, the addresses on `bridge` stand at the top, too."""
    known = known_to(life, networks)
    rows = {item.network: _network(life, item, known.get(item.network)) for item in attachments(life)}
    own = rows.get(LOCAL_BRIDGE, _addresses("", None))
    return {
        "SandboxID": life.sandbox if life.attached else "",
        "Ports": _ports(life, image_ports),
        **{field: own[field] for field in _ADDRESS_FIELDS},
        "Networks": rows,
    }


def port_bindings(ports: Iterable[Port]) -> dict[str, list[dict[str, str]]]:
    """The published ports as they were asked for."""
    found: dict[str, list[dict[str, str]]] = {}
    for port in ports:
        asked = f"{port.published}-{port.published_end}" if port.published_end > port.published else str(port.published or "")
        found.setdefault(name(port), []).append({"HostIp": port.host_ip, "HostPort": asked})
    return found


def _ports(life: Life, image_ports: Sequence[str]) -> dict[str, list[dict[str, str]] | None]:
    """Published ports as they are; what is only exposed has none."""
    spec = life.spec.container
    found: dict[str, list[dict[str, str]] | None] = {
        f"{target}/{protocol}": None for text in (*image_ports, *spec.expose) for target, protocol in exposed(text)
    }
    if life.stage != "running":
        return found
    held = [(target, *_place(place)) for target, place in life.ports] if life.addresses else []
    shared = [
        (name(port), port.host_ip or "0.0.0.0", str(port.published))
        for port in spec.ports
        if port.mode == "ingress" and port.published and not port.published_end
    ]
    for target, host_ip, number in (*held, *shared):
        found[target] = [*(found.get(target) or ()), {"HostIp": host_ip, "HostPort": number}]
    return found


def _place(text: str) -> tuple[str, str]:
    host_ip, _, number = text.rpartition(":")
    return host_ip, number


def _network(life: Life, item: Attachment, network: NetworkWanted | None) -> dict[str, Any]:
    links = [f"{target}:{alias}" for target, alias in life.spec.container.links]
    return {
        **_addresses(dict(life.addresses).get(item.network, ""), network),
        "Aliases": list(item.aliases) or None,
        "Links": links or None,
        "IPAMConfig": {"IPv4Address": item.ipv4_address} if item.ipv4_address else None,
        "NetworkID": "",
    }


def _addresses(held: str, network: NetworkWanted | None) -> dict[str, Any]:
    address, _, prefix = held.partition("/")
    six = address and network is not None and network.prefix6
    return {
        "IPAddress": address,
        "IPPrefixLen": int(prefix) if prefix else 0,
        "Gateway": gateway(network) if address and network is not None and not network.internal else "",
        "MacAddress": mac_of(address, network.vni) if address and network is not None else "",
        "GlobalIPv6Address": embedded(six, address) if six else "",
        "GlobalIPv6PrefixLen": _prefix6(network) if six else 0,
        "IPv6Gateway": embedded(six, gateway(network)) if six and network is not None and not network.internal else "",
    }


def _prefix6(network: NetworkWanted | None) -> int:
    return 96 + ipaddress.IPv4Network(network.subnet).prefixlen if network is not None else 0
