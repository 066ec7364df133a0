"""What a project says about networks and ports: texts that must be readable, values that shoal does not take as written.

Rules: as in `check`. Whether a subnet is free or a port taken is known in the cluster only, and asked there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from model.compose.portwords import address, exposed, ipv4, subnet_version
from model.compose.problems import Mark, Report, show
from model.compose.tree import mark_of
from model.errors import BadInput
from model.spec_check import no_driver

OWN_NETWORKS: Final = ("host", "none", "bridge")
"""Networks that are always there; they are named by `network_mode`."""
DRIVERS: Final = ("overlay", "bridge")
INGRESS: Final = "x-ingress"
_INGRESS_WORDS: Final = ("local", "cluster")
_SEEN_OPTIONS: Final = ("encrypted",)

Text = tuple[Callable[[str], object], str, str, Mark]


def check_ingress(service: Mapping[str, Any], at: str, report: Report) -> None:
    """`x-ingress` of a service or of one port is one of the two words."""
    rows = [(service, at), *((port, f"{at}.ports[{index}]") for index, port in enumerate(service.get("ports") or ()))]
    for row, path in rows:
        word = row.get(INGRESS, "cluster")
        if word not in _INGRESS_WORDS:
            report.problem(f"{path}.{INGRESS}", f"found {show(word)}, expected local or cluster", mark_of(row, INGRESS))


def service_network_texts(service: Mapping[str, Any], at: str) -> Iterator[Text]:
    """The texts of a service that only networks read."""
    for index, text in enumerate(service.get("expose") or ()):
        yield exposed, str(text), f"{at}.expose[{index}]", mark_of(service, "expose")
    for index, port in enumerate(service.get("ports") or ()):
        if port.get("host_ip"):
            yield address, port["host_ip"], f"{at}.ports[{index}].host_ip", mark_of(port, "host_ip")
    for name, row in (service.get("networks") or {}).items():
        if row and row.get("ipv4_address"):
            yield ipv4, row["ipv4_address"], f"{at}.networks.{name}.ipv4_address", mark_of(row, "ipv4_address")


def network_texts(project: Mapping[str, Any]) -> Iterator[Text]:
    """The subnets of the project's networks."""
    for name, network in (project.get("networks") or {}).items():
        for index, row in enumerate((network.get("ipam") or {}).get("config") or ()):
            if row.get("subnet"):
                yield subnet_version, row["subnet"], f"networks.{name}.ipam.config[{index}].subnet", mark_of(row, "subnet")


def unsupported_service_words(service: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """(field, value, what is done instead) of values about networks that are not taken as written."""
    mode = service.get("network_mode")
    if mode and mode not in OWN_NETWORKS:
        yield "network_mode", mode, "is not there: the service is put on the stack's default network"
    if mode in ("host", "none") and service.get("ports"):
        why = "every port it opens is the node's own" if mode == "host" else "it has no network"
        found = ", ".join(str(port["target"]) for port in service["ports"])
        yield "ports", found, f"is left out: with network_mode {mode} {why}"
    for index, port in enumerate(service.get("ports") or ()):
        if port.get("mode") == "host" and port.get(INGRESS):
            yield f"ports[{index}].{INGRESS}", port[INGRESS], "says nothing about a port of mode host, which is local anyway"


def unsupported_network_words(network: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(field, what is done instead) of a network's values that are not taken as written."""
    driver = network.get("driver")
    if driver not in (None, "default", *DRIVERS):
        yield "driver", f"{no_driver(driver)}: it is taken as overlay"
    for option in network.get("driver_opts") or ():
        if option not in _SEEN_OPTIONS:
            yield f"driver_opts.{option}", "is kept but not acted on"
    subnets = [row["subnet"] for row in (network.get("ipam") or {}).get("config") or () if row.get("subnet")]
    versions = [_version(text) for text in subnets]
    wrong = [f"only the first IPv{version} subnet is used" for version in (4, 6) if versions.count(version) > 1]
    if 6 in versions and not network.get("enable_ipv6"):
        wrong.append("the IPv6 subnet is not used without enable_ipv6: true")
    if wrong:
        yield "ipam.config", "; ".join(wrong)


def _version(text: str) -> int:
    try:
        return subnet_version(text)
    except BadInput:
        return 0  # named as unreadable
