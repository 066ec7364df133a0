"""Published ports as they are in force: of mode ingress with the numbers they got, of mode host as the nodes said."""

from __future__ import annotations

from typing import Any, Final

from controller.loops.picture import Snapshot
from model import codec
from model.documents import ServiceDoc, ServicePlanDoc
from model.spec import Pairs, Port

ANY: Final = "0.0.0.0"


def ingress_ports(snapshot: Snapshot, document: ServiceDoc) -> tuple[Port, ...]:
    """With the numbers they got; none while nothing is planned."""
    plan: ServicePlanDoc | None = snapshot.of("svcplans").get(document.spec.name)
    return plan.ports if plan is not None and plan.id == document.id else ()


def effective_ports(snapshot: Snapshot, document: ServiceDoc) -> list[dict[str, Any]]:
    """What the service publishes: of mode ingress as planned, or as asked for while nothing is planned."""
    asked = document.spec.container.ports
    planned = ingress_ports(snapshot, document) or tuple(port for port in asked if port.mode == "ingress")
    return [codec.to_plain(port) for port in (*planned, *(port for port in asked if port.mode == "host"))]


def vips(snapshot: Snapshot, document: ServiceDoc) -> dict[str, str]:
    """By network."""
    plan: ServicePlanDoc | None = snapshot.of("svcplans").get(document.spec.name)
    return dict(plan.vips) if plan is not None and plan.id == document.id else {}


def short_ports(snapshot: Snapshot, document: ServiceDoc | None, host_ports: Pairs) -> list[str]:
    """`0.0.0.0:8080->80/tcp`, as `docker ps` has it."""
    ingress = ingress_ports(snapshot, document) if document is not None else ()
    shown = [f"{address_of(port)}->{port.target}/{port.protocol}" for port in ingress]
    return [*shown, *(f"{published}->{target}" for target, published in host_ports)]


def address_of(port: Port) -> str:
    host = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip or ANY
    return f"{host}:{port.published}"
