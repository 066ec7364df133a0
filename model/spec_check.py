"""What must hold in the record of a service or network whoever made it: a Compose file, the command line, or a program that
speaks to the API.

Rules: pure; every problem is one line that names the thing, what is wrong and what was expected. What depends on the
cluster (does the network exist?) is checked where the cluster is known.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from model.autoscale_check import metrics_port_problems, policy_problems, words
from model.constraints import parse_constraint, parse_spread
from model.documents import INGRESS
from model.errors import BadInput
from model.image_ref import parse_image_ref
from model.spec import GENERIC_MAX, PRIORITY_MAX, Attachment, Mount, NetworkSpec, Port, Resources, ServiceSpec

REPLICAS_MAX: Final = 1_000_000
NAME_RULE: Final = "use 1 to 128 of letters, digits, '_', '.' and '-', beginning with a letter or digit"
RESERVED_NETWORKS: Final = ("bridge", "host", "none", INGRESS)
NETWORK_DRIVERS: Final = frozenset({"", "bridge", "overlay", "default"})
_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")


def name_problem(name: str, what: str) -> str:
    """Why `name` cannot be that of a service, network or volume; empty when it can."""
    return "" if _NAME.fullmatch(name) else f"{what} name {name[:80]!r}: {NAME_RULE}"


def network_problems(spec: NetworkSpec) -> list[str]:
    """Everything that is wrong with the record of a network; an external one says nothing but its name."""
    if problem := name_problem(spec.name, "network"):
        return [problem]
    return [] if spec.external else [f"network {spec.name}: {problem}" for problem in _network(spec)]


def service_problems(spec: ServiceSpec) -> list[str]:
    """Everything that is wrong with the record itself."""
    if problem := name_problem(spec.name, "service"):
        return [problem]
    return [f"service {spec.name}: {problem}" for problem in _problems(spec)]


def _problems(spec: ServiceSpec) -> Iterator[str]:
    try:
        parse_image_ref(spec.container.image)
    except BadInput as error:
        yield str(error) if spec.container.image else "it has no image: name one"
    yield from _placement(spec)
    if not 0 <= spec.replicas <= REPLICAS_MAX:
        yield f"replicas {spec.replicas}: expected a number from 0 to {REPLICAS_MAX:,}"
    if not -PRIORITY_MAX <= spec.priority <= PRIORITY_MAX:
        yield f"priority {spec.priority}: expected a number from -{PRIORITY_MAX:,} to {PRIORITY_MAX:,}"
    if spec.single and (spec.mode != "replicated" or spec.replicas != 1):
        yield "a single container is replicated, with one replica"
    yield from _amounts("reservations", spec.reservations)
    yield from _amounts("limits", spec.container.limits)
    grace_s = spec.container.stop_grace_period_s
    if not (math.isfinite(grace_s) and grace_s >= 0):
        yield f"stop_grace_period {grace_s}: expected 0 seconds or more"
    for name, _ in spec.container.env:
        if not name or "=" in name or "\0" in name:
            yield f"environment variable {name[:80]!r}: expected a name without '=' in it"
    yield from _mounts(spec.container.mounts)
    yield from _attachments(spec)
    yield from _ports(spec.container.ports)
    yield from _scaling(spec)


def _scaling(spec: ServiceSpec) -> Iterator[str]:
    if spec.autoscale is not None:
        mode = "single container" if spec.single else spec.mode
        found = policy_problems(spec.autoscale, mode, spec.reservations, spec.container.limits, spec.metrics)
        yield from (f"autoscale{words(where)}: {problem}" for where, problem in found)
    if spec.metrics is not None:
        yield from (f"metrics{words(where)}: {problem}" for where, problem in metrics_port_problems(spec.metrics))


def _network(spec: NetworkSpec) -> Iterator[str]:
    if spec.name in RESERVED_NETWORKS:
        yield f"this name is shoal's own, as are {', '.join(RESERVED_NETWORKS)}: choose another"
    if spec.driver not in NETWORK_DRIVERS:
        yield f"{no_driver(spec.driver)}: use one of these, or leave it out"
    if dict(spec.options).get("encrypted", "false").lower() not in ("false", "0"):
        yield (
            "overlay encryption is not available: it needs IPsec (ESP), which shoal does not set up and not every kernel has: "
            "leave `encrypted` out"
        )
    if spec.subnet and (problem := _subnet_problem(spec.subnet)):
        yield f"subnet {spec.subnet[:80]!r}: {problem}"
    if spec.subnet6 and (problem := _subnet6_problem(spec.subnet6)):
        yield f"subnet {spec.subnet6[:80]!r}: {problem}"


def no_driver(driver: str) -> str:
    """What is said of a network's driver that is none of ours, by files that ask for it too."""
    return f"there is no driver {driver[:80]!r}, only bridge and overlay, which are the same here"


def _subnet_problem(text: str) -> str:
    try:
        net = ip_network(text, strict=False)
    except ValueError:
        return "expected an IPv4 network, like 10.9.0.0/16"
    if not isinstance(net, IPv4Network):
        return "expected an IPv4 network; one of IPv6 is named beside it, with enable_ipv6"
    if "/" in text and str(net.network_address) != text.partition("/")[0]:
        return f"an address within it: {net} is meant"
    if not 8 <= net.prefixlen <= 30:
        return "expected a prefix length from 8 to 30"
    return "it is kept for other purposes: choose one of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16" if _special(net) else ""


def _subnet6_problem(text: str) -> str:
    try:
        net = ip_network(text, strict=False)
    except ValueError:
        return "expected an IPv6 network, like fd00:9::/64"
    if not isinstance(net, IPv6Network) or net.prefixlen > 96:
        return "expected an IPv6 network of /96 or larger: the last 32 bits are the container's IPv4 address"
    return "it is kept for other purposes: choose one of fd00::/8" if _special(net) else ""


def _special(net: IPv4Network | IPv6Network) -> bool:
    return net.is_loopback or net.is_multicast or net.is_link_local or net.is_unspecified or net.network_address.is_unspecified


def _attachments(spec: ServiceSpec) -> Iterator[str]:
    rows = spec.container.networks
    names = [row.network for row in rows]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        yield f"network {name} is named twice"
    alone = next((name for name in names if name in ("host", "none")), "")
    if alone and len(set(names)) > 1:
        yield f"network {alone} cannot be combined with other networks: leave it or the others out"
    most = spec.autoscale.max if spec.autoscale else spec.replicas
    for row in rows:
        if problem := address_problem(row):
            yield problem
        elif row.ipv4_address and (most > 1 or spec.mode.startswith("global")):
            many = "runs on every node" if spec.mode.startswith("global") else f"has {most} replicas"
            yield f"network {row.network}: address {row.ipv4_address} is for one container, and this service {many}"


def address_problem(row: Attachment) -> str:
    """Why an attachment cannot have the address it asks for, whatever the network's subnet is; empty when it may."""
    if row.ipv6_address:
        return f"network {row.network}: an IPv6 address cannot be chosen: it follows from the IPv4 address (ipv4_address, --ip)"
    if not row.ipv4_address:
        return ""
    if row.network in ("bridge", "host", "none"):
        return f"network {row.network}: an address can be chosen on networks of your own only: see `shoal network create`"
    try:
        return "" if ip_address(row.ipv4_address).version == 4 else f"network {row.network}: {row.ipv4_address} is not IPv4"
    except ValueError:
        return f"network {row.network}: {row.ipv4_address[:80]!r} is no address"


def _ports(ports: tuple[Port, ...]) -> Iterator[str]:
    seen: dict[tuple[str, int, str, str], None] = {}
    for port in ports:
        if port.protocol not in ("tcp", "udp", "sctp"):
            yield f"port {port.target}: protocol {port.protocol[:80]!r}: expected tcp, udp or sctp"
        if not 1 <= port.target <= 65_535:
            yield f"port {port.target}: expected a number from 1 to 65535"
        if not 0 <= port.published <= 65_535 or (port.published_end and not port.published <= port.published_end <= 65_535):
            end = f"-{port.published_end}" if port.published_end else ""
            yield f"published port {port.published}{end}: expected 1 to 65535"
        if port.host_ip and (problem := _host_ip_problem(port.host_ip)):
            yield f"port {port.target}: {problem}"
        key = (port.protocol, port.published, port.host_ip, port.mode)
        if port.published and port.published_end in (0, port.published):
            if key in seen:
                yield f"port {port.published}/{port.protocol} is published twice"
            seen[key] = None


def _host_ip_problem(text: str) -> str:
    try:
        ip_address(text)
    except ValueError:
        return f"host address {text[:80]!r} is no address"
    return f"host address {text[:80]!r}: an address of one link only cannot be published" if "%" in text else ""


def _placement(spec: ServiceSpec) -> Iterator[str]:
    for read, texts in ((parse_constraint, spec.placement.constraints), (parse_spread, spec.placement.spread)):
        for text in texts:
            try:
                read(text)
            except BadInput as error:
                yield str(error)
    if spec.placement.max_replicas_per_node < 0:
        yield f"max_replicas_per_node {spec.placement.max_replicas_per_node}: expected 0 (no limit) or more"


def _amounts(what: str, amounts: Resources) -> Iterator[str]:
    for field, amount in (("cpus", amounts.cpus), ("memory", amounts.memory_bytes), ("pids", amounts.pids)):
        unlimited = field == "pids" and amount == -1
        if not (math.isfinite(amount) and amount >= 0) and not unlimited:
            yield f"{what}.{field} {amount}: expected 0 or more"
    kinds = [kind for kind, _ in amounts.generic]
    for kind, count in amounts.generic:
        if not kind or not 0 < count <= GENERIC_MAX or kinds.count(kind) > 1:
            yield f"{what}.generic_resources {kind[:80]!r} {count}: expected each kind once, a number from 1 to {GENERIC_MAX:,}"


def _mounts(mounts: tuple[Mount, ...]) -> Iterator[str]:
    seen: set[str] = set()
    for mount in mounts:
        if not mount.target.startswith("/") or mount.target.rstrip("/") == "" or "\0" in mount.target:
            yield f"mount target {mount.target[:80]!r}: expected an absolute path below /"
        if mount.target in seen:
            yield f"mount target {mount.target}: two mounts are on it"
        seen.add(mount.target)
        if mount.type == "bind" and not mount.source.startswith("/"):
            yield f"bind mount on {mount.target}: its source {mount.source[:80]!r} is no absolute path"
        if mount.type == "volume" and mount.source and (problem := name_problem(mount.source, "volume")):
            yield problem
