"""What containers of a service are attached to now: its networks, and the addresses it asks for on them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from model.documents import ServiceDoc
from model.spec import Attachment

UNPLANNED: Final = frozenset({"host", "none", "bridge"})


def networks_of(source: ServiceDoc | Iterable[Attachment]) -> list[str]:
    """The user networks that containers are on now; `service:` and `container:` modes have no plan."""
    attachments = source.attachments if isinstance(source, ServiceDoc) else source
    return [row.network for row in attachments if is_planned(row.network)]


def fixed_of(source: ServiceDoc | Iterable[Attachment]) -> list[tuple[str, str]]:
    """(user network, address) of the addresses that are asked for."""
    attachments = source.attachments if isinstance(source, ServiceDoc) else source
    return [(row.network, row.ipv4_address) for row in attachments if row.ipv4_address and is_planned(row.network)]


def is_planned(network: str) -> bool:
    return network not in UNPLANNED and ":" not in network
