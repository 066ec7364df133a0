"""Links of single containers on `bridge`, which is each node's own: the new container goes where the linked one is. Pure."""

from __future__ import annotations

from controller.decide.attached import BRIDGE, attachments_of
from controller.decide.index import index_of
from controller.decide.types import View
from model.documents import ServiceDoc
from model.errors import BadInput, Conflict, NotFound
from model.spec import Attachment, ServiceSpec


def linked_node(view: View, spec: ServiceSpec) -> str:
    """The node a new container must be placed on because of its links; empty when any will do, or the linked one has none yet.

    Raises NotFound (no such container or service), BadInput (it is not on bridge), Conflict (two nodes would be needed).
    """
    node = spec.placement.node
    for target, _ in spec.container.links:
        doc = view.services.get(target)
        if doc is None:
            raise NotFound(f"--link {target}: no container is called {target}: see `shoal ps`")
        if spec.container.networks and not _on_bridge(spec.container.networks):
            continue
        if not _on_bridge(attachments_of(doc)):
            raise BadInput(f"--link {target}: {target} is not on the network bridge: name a network of both with --network")
        place = _node_of(view, doc)
        if node and place and node != place:
            raise Conflict(f"--link {target}: {target} is on {place}, not on {node}: bridge does not reach from node to node")
        node = node or place
    return "" if node == spec.placement.node else node


def _on_bridge(attachments: tuple[Attachment, ...]) -> bool:
    return any(row.network == BRIDGE for row in attachments)


def _node_of(view: View, doc: ServiceDoc) -> str:
    """Where the container is, or where it was told to be."""
    entries = index_of(view).placed.get(doc.spec.name, {})
    nodes = sorted(node for node, entry in entries.items() if entry.service_id == doc.id and entry.count)
    up = [node for node in nodes if (health := view.health.get(node)) is not None and health.state != "down"]
    return up[0] if up else doc.spec.placement.node
