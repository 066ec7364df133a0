"""What `shoal network` sends and shows: options as a NetworkSpec, filters, Docker's inspect, waiting for a change to be live.

Rules: pure but for `until_rewired`, which asks again and again, a bounded time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from cli.client import Client
from cli.output import Row
from model.errors import BadInput, Unavailable
from model.spec import NetworkSpec, Pairs

OWN: Final = ("bridge", "host", "none")
"""The networks that are always there."""
DRIVERS: Final = ("bridge", "overlay")
_FILTERS: Final = ("driver", "id", "label", "name", "scope", "type")
_REWIRED_S: Final = 30.0


def network_spec(name: str, options: Mapping[str, Any]) -> NetworkSpec:
    """The network that `network create` with these options asks for. Raises BadInput."""
    if options["driver"] not in DRIVERS:
        from model.spec_check import no_driver

        raise BadInput(f"--driver: {no_driver(options['driver'])}")
    four, six = _subnets(options["subnets"], ipv6=options["ipv6"])
    return NetworkSpec(
        name=name,
        driver=options["driver"],
        subnet=four,
        subnet6=six,
        internal=options["internal"],
        enable_ipv6=options["ipv6"],
        options=_pairs(options["options"]),
        labels=_pairs(options["labels"]),
    )


def _subnets(words: Sequence[str], *, ipv6: bool) -> tuple[str, str]:
    """The IPv4 and the IPv6 subnet, each empty when none is asked for."""
    from model.compose.portwords import subnet_version

    found: dict[int, str] = {}
    for word in words:
        version = subnet_version(word)
        if found.setdefault(version, word) != word:
            raise BadInput(f"--subnet {word}: a network has one IPv{version} subnet, and {found[version]} is named too")
    if 6 in found and not ipv6:
        raise BadInput(f"--subnet {found[6]}: an IPv6 subnet needs --ipv6")
    return found.get(4, ""), found.get(6, "")


def _pairs(words: Sequence[str]) -> Pairs:
    return tuple(sorted(dict(word.partition("=")[::2] for word in words).items()))


def matching(rows: Sequence[Row], filters: Sequence[str]) -> list[Row]:
    """Rows that fit every kind of filter; of several of one kind any (labels: all), as Docker has it."""
    wanted: dict[str, list[str]] = {}
    for word in filters:
        key, mark, value = word.partition("=")
        if not mark or key not in _FILTERS:
            raise BadInput(f"--filter {word!r}: expected KEY=VALUE with one of {', '.join(_FILTERS)}")
        wanted.setdefault(key, []).append(value)
    return [row for row in rows if all(_fits(row, key, values) for key, values in wanted.items())]


def _fits(row: Row, key: str, values: list[str]) -> bool:
    if key == "label":
        return all(_has_label(row.get("labels") or {}, value) for value in values)
    if key == "type":
        return ("builtin" if row["name"] in OWN else "custom") in values
    if key == "name":
        return any(value in row["name"] for value in values)
    if key == "id":
        return any(row["id"].startswith(value) for value in values)
    return row.get(key) in values


def _has_label(labels: Mapping[str, str], word: str) -> bool:
    name, mark, value = word.partition("=")
    return name in labels and (not mark or labels[name] == value)


def docker_network(row: Row) -> dict[str, Any]:
    """The part of an answer that is in Docker's words; what Docker has no word for stands below `Shoal`."""
    ours = {"VNI": row.get("vni") or 0, "Stack": row.get("stack") or "", "Slices": dict(row.get("slices") or {})}
    return {**{key: value for key, value in row.items() if key[:1].isupper()}, "Shoal": ours}


def connect_body(container: str, aliases: Sequence[str], ip: str, links: Sequence[str]) -> dict[str, Any]:
    """The body of `connect`."""
    from cli.run_network import link
    from model.compose.portwords import dns_name, ipv4

    return {
        "container": container,
        "aliases": [_alias(dns_name, word) for word in aliases],
        "ipv4_address": ipv4(ip) if ip else "",
        "links": [list(link(word)) for word in links],
    }


def _alias(read: Callable[[str], str], word: str) -> str:
    try:
        return read(word)
    except BadInput as error:
        raise BadInput(f"--alias: {error}") from None


def until_rewired(client: Client, network: str, service: str, *, connected: bool) -> None:
    """Until every running replica of the service is on the network, or off it."""
    end = time.monotonic() + _REWIRED_S
    client.index = 0
    while True:
        index = client.index
        rows = client.get("/v1/replicas", service=service, index=index or None, wait=1 if index else None)
        left = [row["name"] for row in rows if row["state"] == "running" and (network in row["networks"]) != connected]
        if not left:
            return
        if time.monotonic() > end:
            change = "on" if connected else "off"
            raise Unavailable(
                f"{left[0]} is not {change} {network} after {_REWIRED_S:.0f} s: is its node reachable? see `shoal node ls`"
            )
        time.sleep(0.02)
