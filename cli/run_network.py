"""The options of `shoal run` about networks, names and ports, with Docker's words.

Rules: pure. What cannot be is one line that names the option; published ports have mode ingress (every node answers).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from model.compose.convert_container import port_spec
from model.compose.kinds import Context
from model.compose.portwords import address, dns_name, exposed, ipv4
from model.compose.problems import NOWHERE, Report
from model.compose.shorts import port_short
from model.errors import BadInput
from model.spec import Attachment, Port

T = TypeVar("T")
OWN: Final = ("bridge", "host", "none")
"""Networks that are always there; they have neither aliases nor addresses of one's choice."""
_LONG: Final = "name=NAME,alias=NAME,ip=ADDRESS"


def network_fields(options: dict[str, Any]) -> dict[str, Any]:
    """Fields of the ContainerSpec. Raises BadInput."""
    if options["mac_address"]:
        raise BadInput("--mac-address: a container's MAC address cannot be chosen: leave the option out")
    if options["ip6"]:
        raise BadInput("--ip6: a container's IPv6 address follows from its IPv4 address: choose that with --ip")
    networks = attachments(options["networks"], options["aliases"], options["ip"])
    alone = networks[0].network in ("host", "none")
    return {
        "networks": networks,
        "ports": () if alone else tuple(port for word in options["publish"] for port in ports(word)),
        "publish_all": options["publish_all"] and not alone,
        "expose": tuple(dict.fromkeys(port for word in options["expose"] for port in _named("--expose", exposed, word))),
        "links": tuple(map(link, options["links"])),
        "dns": tuple(_named("--dns", address, word) for word in options["dns"]),
        "dns_search": tuple(_named("--dns-search", _domain, word) for word in options["dns_search"]),
        "dns_opt": tuple(options["dns_option"]),
        "extra_hosts": tuple(map(host, options["add_host"])),
        "domainname": options["domainname"],
    }


def discarded(options: dict[str, Any]) -> str:
    """The warning for published ports that say nothing; Docker has the same."""
    alone = [name for name in options["networks"] if name in ("host", "none")]
    if not alone or not (options["publish"] or options["publish_all"]):
        return ""
    why = "every port it opens is the node's own" if alone[0] == "host" else "it has no network"
    return f"published ports are left out with --network {alone[0]}: {why}"


def attachments(names: Sequence[str], aliases: Sequence[str], ip: str) -> tuple[Attachment, ...]:
    """The networks of the container, `bridge` when none is named."""
    rows = {row.network: row for row in map(attachment, names)} or {"bridge": Attachment("bridge")}
    for name in rows:
        if name.startswith("container:"):
            raise BadInput(f"--network {name}: a container cannot share another's network: put both on one (`network create`)")
        if name in ("host", "none") and len(rows) > 1:
            raise BadInput(f"--network {name}: it cannot stand beside other networks")
    own = [name for name in rows if name in OWN]
    if own and (aliases or rows[own[0]].aliases):
        raise BadInput(f"--network-alias: the network {own[0]} has no names: use one of `shoal network create`")
    if ip and (own or len(rows) > 1):
        raise BadInput("--ip: an address can be chosen on one network of `shoal network create` (--network NAME)")
    chosen = _named("--ip", ipv4, ip) if ip else ""
    further = tuple(_named("--network-alias", dns_name, word) for word in aliases)
    return tuple(
        replace(row, aliases=tuple(dict.fromkeys((*row.aliases, *further))), ipv4_address=row.ipv4_address or chosen)
        for row in rows.values()
    )


def attachment(word: str) -> Attachment:
    """`NAME`, or Docker's long form `name=NAME,alias=NAME,ip=ADDRESS`."""
    if "=" not in word:
        return Attachment(word)
    found: dict[str, list[str]] = {"name": [], "alias": [], "ip": []}
    for part in word.split(","):
        key, _, value = part.partition("=")
        if key not in found or not value:
            raise BadInput(f"--network {word!r}: {part!r} is not known: expected NAME or {_LONG}")
        found[key].append(value)
    if len(found["name"]) != 1 or len(found["ip"]) > 1:
        raise BadInput(f"--network {word!r}: expected {_LONG} with one name and at most one address")
    chosen = "".join(_named(f"--network {word!r}", ipv4, text) for text in found["ip"])
    further = tuple(_named(f"--network {word!r}", dns_name, text) for text in found["alias"])
    return Attachment(found["name"][0], further, chosen)


def ports(word: str) -> tuple[Port, ...]:
    """`8080:80`, `127.0.0.1:8080:80`, `80`, `8000-8002:80-82`, `53:53/udp`."""
    report = Report()
    found = port_short(Context(report), word, "-p", NOWHERE)
    rows = tuple(port_spec(row, "cluster") for row in found or ())
    if report.problems or not all(row.target for row in rows):
        raise BadInput(f"-p {word!r}: expected [[ADDRESS:]PORT:]PORT[/udp], such as 80, 8080:80, 53:53/udp or 8000-8002:80-82")
    for row in rows:
        if row.host_ip:
            _named(f"-p {word!r}", address, row.host_ip)
    return rows


def link(word: str) -> tuple[str, str]:
    """`NAME` or `NAME:ALIAS`."""
    name, mark, alias = word.partition(":")
    if not name or (mark and not alias) or ":" in alias:
        raise BadInput(f"--link {word!r}: expected CONTAINER or CONTAINER:ALIAS")
    return name, _named(f"--link {word!r}", dns_name, alias or name)


def host(word: str) -> tuple[str, str]:
    """`NAME:ADDRESS` or `NAME=ADDRESS`; the address may be `host-gateway`."""
    name, mark, rest = word.partition("=")
    if not mark:
        name, _, rest = word.partition(":")
    if not name or not rest:
        raise BadInput(f"--add-host {word!r}: expected NAME:ADDRESS, such as db:10.1.2.3")
    plain = rest.removeprefix("[").removesuffix("]")
    return name, plain if plain == "host-gateway" else _named("--add-host", address, plain)


def _domain(text: str) -> str:
    """A search domain; `.` alone switches searching off."""
    return text if text == "." else dns_name(text)


def _named(option: str, read: Callable[[str], T], text: str) -> T:
    try:
        return read(text)
    except BadInput as error:
        raise BadInput(f"{option}: {error}") from None
