"""What containers of a service are attached to now: its networks, and the addresses it asks for on them. Pure.

Rules: without a word about networks containers are on their node's `bridge`; whoever was taken off everything is on nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from model.documents import ServiceDoc
from model.spec import Attachment
from model.spec_check import service_problems

BRIDGE: Final = "bridge"
UNPLANNED: Final = frozenset({"host", "none", BRIDGE})


def attachments_of(doc: ServiceDoc) -> tuple[Attachment, ...]:
    """All of them, with `bridge`."""
    if doc.networks is None and not doc.spec.container.networks:
        return (Attachment(BRIDGE),)
    return doc.attachments


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


def crowded(doc: ServiceDoc) -> list[str]:
    """Why so many replicas cannot have the addresses that are asked for, in their spec or when they were connected."""
    if doc.scale < 2 or not fixed_of(doc):
        return []
    container = replace(doc.spec.container, networks=doc.attachments)
    return service_problems(replace(doc.spec, replicas=doc.scale, container=container))
