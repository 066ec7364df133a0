"""The table of every route of the API. `controller/api/openapi.py` describes it, `controller/api/app.py` serves it."""

from __future__ import annotations

from typing import Final

from controller.api import cluster, nodes, services
from controller.api.routing import Query, Route
from controller.api.schemas import (
    JoinBody,
    NodePatchBody,
    Object,
    Objects,
    ScaleBody,
    TokenBody,
)
from model.spec import ServiceSpec

RUNNING: Final = ("services", "assignments", "status", "health", "decisions")

CLUSTER: Final = (
    Route("GET", "/healthz", cluster.healthz, "Is this controller alive?", anonymous=True, stream="text/plain"),
    Route("GET", "/metrics", cluster.metrics, "Metrics in Prometheus' text format", stream="text/plain"),
    Route("GET", "/v1/openapi.json", cluster.openapi, "This description", answer=Object),
    Route("GET", "/v1/ca", cluster.ca, "The cluster's CA certificate", answer=Object, anonymous=True),
    Route("POST", "/v1/join", cluster.join, "A machine joins with a token", JoinBody, Object, anonymous=True),
    Route("GET", "/v1/version", cluster.version, "Version, leader, cluster", answer=Object),
    Route("POST", "/v1/tokens", cluster.make_token, "A new join token", TokenBody, Object),
)
SERVICES: Final = (
    Route(
        "GET", "/v1/services", services.list_services, "All services", None, Objects, (Query("stack", str, "of this stack"),),
        RUNNING,
    ),
    Route("POST", "/v1/services", services.create_service, "A service without a stack", ServiceSpec, Object),
    Route("GET", "/v1/services/{name}", services.get_service, "One service", answer=Object, reads=RUNNING),
    Route("DELETE", "/v1/services/{name}", services.remove, "Removes a service and its replicas", answer=Object),
    Route("POST", "/v1/services/{name}/scale", services.scale, "Sets the wanted number of replicas", ScaleBody, Object),
    Route("POST", "/v1/services/{name}/stop", services.stop, "Keeps no replica running", answer=Object),
    Route("POST", "/v1/services/{name}/start", services.start, "Runs its replicas again", answer=Object),
    Route("GET", "/v1/services/{name}/explain", services.explain, "Why this count, this node, this waiting", answer=Object),
)  # fmt: skip
NODES: Final = (
    Route(
        "GET", "/v1/nodes", nodes.list_nodes, "All nodes", answer=Objects,
        reads=("nodes", "health", "status", "assignments"),
    ),
    Route(
        "GET", "/v1/nodes/{name}", nodes.get_node, "One node", answer=Object,
        reads=("nodes", "health", "status", "assignments"),
    ),
    Route("PATCH", "/v1/nodes/{name}", nodes.patch_node, "Labels and availability", NodePatchBody, Object),
    Route(
        "DELETE", "/v1/nodes/{name}", nodes.remove_node, "Removes a node from the cluster", None, Object,
        (Query("force", bool, "although it is ready", False),),
    ),
    Route("GET", "/v1/nodes/{name}/explain", nodes.explain, "What the cluster thinks of the node", answer=Object),
)  # fmt: skip

ROUTES: Final[tuple[Route, ...]] = (*CLUSTER, *SERVICES, *NODES)
