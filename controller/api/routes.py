"""The table of every route of the API. `controller/api/openapi.py` describes it, `controller/api/app.py` serves it."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from controller.api import (
    autoscale,
    build,
    cluster,
    connections,
    discovery,
    export,
    history,
    images,
    images_transfer,
    metrics,
    networks,
    nodegroups,
    nodes,
    published,
    replicas,
    services,
    stacks,
    volumes,
)
from controller.api.routing import Query, Route
from controller.api.schemas import (
    CommitBody,
    ConnectBody,
    DisconnectBody,
    JoinBody,
    NodePatchBody,
    Object,
    Objects,
    PauseBody,
    PruneBody,
    PullBody,
    RegistryCertificateBody,
    ScaleBody,
    TagBody,
    TokenBody,
)
from controller.api.streams import EVENTS, NDJSON
from controller.decide.pinning import Resolve
from model.autoscale import NodeGroupSpec
from model.spec import NetworkSpec, ServiceSpec

Count = Annotated[int, Field(ge=0, lt=2**53)]
RUNNING: Final = ("services", "assignments", "status", "health", "decisions", "svcplans")

CLUSTER: Final = (
    Route("GET", "/healthz", cluster.healthz, "Is this controller alive?", anonymous=True, stream="text/plain"),
    Route("GET", "/metrics", metrics.scrape, "Metrics in Prometheus' text format", metrics=True, stream="text/plain"),
    Route(
        "GET", "/v1/discovery/prometheus", discovery.prometheus, "Targets for Prometheus' http_sd_configs", None, Objects,
        (Query("kind", discovery.Kind, "controllers, agents or replicas", "agents"),), metrics=True,
    ),
    Route("GET", "/v1/openapi.json", cluster.openapi, "This description", answer=Object),
    Route("GET", "/v1/ca", cluster.ca, "The cluster's CA certificate", answer=Object, anonymous=True),
    Route("POST", "/v1/join", cluster.join, "A machine joins with a token", JoinBody, Object, anonymous=True),
    Route("GET", "/v1/version", cluster.version, "Version, leader, cluster", answer=Object),
    Route("POST", "/v1/tokens", cluster.make_token, "A new join token", TokenBody, Object),
    Route(
        "POST", "/v1/registry-certificates", cluster.registry_certificate, "A certificate for a registry of the cluster",
        RegistryCertificateBody, Object,
    ),
)  # fmt: skip
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
    Route(
        "GET", "/v1/services/{name}/ports", published.service_ports, "Its published ports in force", answer=Objects,
        reads=RUNNING,
    ),
    Route("GET", "/v1/services/{name}/traffic", published.traffic, "What was balanced to its replicas", answer=Object),
    Route("GET", "/v1/autoscale", autoscale.list_autoscaled, "Services that scale themselves", answer=Objects, leader=True),
    Route(
        "GET", "/v1/autoscale/{name}", autoscale.get_autoscaled, "A policy, what it says now, what it did", answer=Object,
        leader=True,
    ),
    Route("POST", "/v1/autoscale/{name}/pause", autoscale.pause, "Stops scaling in, out, or both", PauseBody, Object),
    Route("POST", "/v1/autoscale/{name}/resume", autoscale.resume, "Scales again", answer=Object),
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

NODE_GROUPS: Final = (
    Route("GET", "/v1/nodegroups", nodegroups.list_groups, "All node groups", answer=Objects, reads=("nodegroups", "machines")),
    Route(
        "GET", "/v1/nodegroups/{name}", nodegroups.get_group, "One node group, its machines and why", answer=Object,
        reads=("nodegroups", "machines"),
    ),
    Route("PUT", "/v1/nodegroups/{name}", nodegroups.put_group, "Makes a node group what the body says", NodeGroupSpec, Object),
    Route(
        "DELETE", "/v1/nodegroups/{name}", nodegroups.remove_group, "Gives its machines back, then it goes", answer=Object,
        query=(Query("force", bool, "at once: its machines are forgotten", False),),
    ),
    Route("GET", "/v1/nodegroups/{name}/explain", nodegroups.explain, "Why it has these machines", answer=Object),
)  # fmt: skip

LOGS: Final = (
    Query("follow", bool, "go on as more is written", False),
    Query("tail", Count, "only so many of the last lines"),
    Query("since", Count, "only newer than this, Unix milliseconds"),
    Query("timestamps", bool, "for tools; every line has its time", False),
)
SINCE: Final = (
    Query("since", Count, "only newer than this, Unix milliseconds"),
    Query("fields", str, "only these columns, with commas between them"),
)
SAMPLES: Final = (
    Route(
        "GET", "/v1/services/{name}/history", history.service_history, "What a service used, by steps", None, Object, SINCE,
        leader=True,
    ),
    Route(
        "GET", "/v1/replicas/{name}/history", history.replica_history, "What a replica used, by steps", None, Object, SINCE,
        leader=True,
    ),
    Route(
        "GET", "/v1/nodes/{name}/history", history.node_history, "What a node used, by steps", None, Object, SINCE, leader=True,
    ),
    Route(
        "GET", "/v1/stream", history.stream, "The newest of services and nodes, step by step", stream=EVENTS, leader=True,
        query=(Query("follow", bool, "go on with every step", False),),
    ),
    Route(
        "GET", "/v1/stats", history.stats, "What containers use now, from their nodes", None, Object,
        (Query("service"), Query("node")),
    ),
)  # fmt: skip
FORCE: Final = (Query("force", bool, "also when something speaks against it", False),)
RESOLVE: Final = Query("resolve_image", Resolve, "which images' registries are asked what they mean now", "changed")
STACKS: Final = (
    Route(
        "GET", "/v1/stacks", stacks.list_stacks, "All stacks", answer=Objects, reads=("stacks", *RUNNING),
    ),
    Route(
        "GET", "/v1/stacks/{stack}", stacks.get_stack, "One stack", answer=Object,
        reads=("stacks", "networks", "volumes", *RUNNING),
    ),
    Route("POST", "/v1/stacks/{stack}/plan", stacks.plan, "What applying it would change", Object, Object, (RESOLVE,)),
    Route(
        "PUT", "/v1/stacks/{stack}", stacks.apply, "Applies a resolved Compose project", Object, Object,
        (Query("prune", bool, "removes services the project no longer names", True), RESOLVE),
    ),
    Route(
        "DELETE", "/v1/stacks/{stack}", stacks.remove, "Removes a stack", None, Object,
        (Query("volumes", bool, "with its volumes and their data", False),),
    ),
)  # fmt: skip
REPLICAS: Final = (
    Route(
        "GET", "/v1/replicas", replicas.list_replicas, "All replicas", None, Objects,
        (
            Query("stack"), Query("service"), Query("node"),
            Query("all", bool, "ended ones too that are no longer assigned", False),
        ),
        (*RUNNING, "nodes"),
    ),
    Route("GET", "/v1/replicas/{name}", replicas.get_replica, "One replica and its container", answer=Object),
    Route(
        "GET", "/v1/replicas/{name}/ports", published.replica_ports, "Its published ports in force", answer=Objects,
        reads=RUNNING,
    ),
    Route("GET", "/v1/replicas/{name}/logs", replicas.replica_logs, "What it wrote", query=LOGS, stream=NDJSON),
    Route("GET", "/v1/replicas/{name}/export", export.export, "All its files as a tar", stream=export.TAR),
    Route("POST", "/v1/replicas/{name}/commit", images.commit, "An image of what it wrote, on its node", CommitBody, Object),
    Route("GET", "/v1/services/{name}/logs", replicas.service_logs, "What its replicas wrote", query=LOGS, stream=NDJSON),
)  # fmt: skip
VOLUMES: Final = (
    Route(
        "GET", "/v1/volumes", volumes.list_volumes, "All named volumes", answer=Objects,
        reads=("volumes", "places", "status", "services", "assignments"),
    ),
    Route("POST", "/v1/volumes/prune", volumes.prune_volumes, "Removes volumes nobody uses", PruneBody, Object),
    Route("GET", "/v1/volumes/{name}", volumes.get_volume, "One volume", answer=Object),
    Route("DELETE", "/v1/volumes/{name}", volumes.remove_volume, "Removes a volume with its data", None, Object, FORCE),
)  # fmt: skip
NETWORKS: Final = (
    Route("GET", "/v1/networks", networks.list_networks, "All networks", answer=Objects, reads=("networks", "netplans")),
    Route("POST", "/v1/networks", networks.create_network, "Makes a network", NetworkSpec, Object),
    Route("POST", "/v1/networks/prune", networks.prune_networks, "Removes networks nobody is on", answer=Object),
    Route(
        "GET", "/v1/networks/{name}", networks.get_network, "One network with its containers", answer=Object,
        reads=("networks", "netplans", *RUNNING),
    ),
    Route("DELETE", "/v1/networks/{name}", networks.remove_network, "Removes a network", answer=Object),
    Route(
        "POST", "/v1/networks/{name}/connect", connections.connect, "Connects a service's running containers", ConnectBody,
        Object,
    ),
    Route(
        "POST", "/v1/networks/{name}/disconnect", connections.disconnect, "Takes a service's containers off", DisconnectBody,
        Object,
    ),
    Route(
        "GET", "/v1/events", networks.events, "What was decided and seen", stream=NDJSON,
        query=(
            Query("follow", bool, "go on as more happens", False),
            Query("since", Count, "only newer than this, Unix milliseconds"),
            Query("about", str, "only about this: service/NAME or node/NAME"),
        ),
    ),
)  # fmt: skip
IMAGES: Final = (
    Route(
        "GET", "/v1/images", images.list_images, "The images on all nodes", None, Objects,
        (Query("node", str, "only on this node"), Query("merged", bool, "a row an image, not a row an image and node", False)),
    ),
    Route("POST", "/v1/images/prune", images.prune, "Removes images nobody uses", PruneBody, Object),
    Route("POST", "/v1/images/pull", images_transfer.pull, "Brings an image to nodes", PullBody, stream=NDJSON),
    Route(
        "POST", "/v1/images/load", images_transfer.load, "Loads an archive into nodes", None, Objects,
        (Query("node", str, "only into this node"),), takes="application/x-tar",
    ),
    Route(
        "GET", "/v1/images/save", images_transfer.save, "Images as one archive",
        query=(Query("name", tuple[str, ...], "a name or id; may be repeated"),), stream=images_transfer.ARCHIVE,
    ),
    Route(
        "POST", "/v1/build", build.build, "Builds an image on one node, of the context that is the body", stream=NDJSON,
        query=(
            Query("name", tuple[str, ...], "what it is to be called; may be repeated"),
            Query("dockerfile", str, "its path in the context (Dockerfile)"),
            Query("target", str, "the stage that is wanted (the last one)"),
            Query("label", tuple[str, ...], "KEY=VALUE; may be repeated"),
            Query("no_cache", bool, "take nothing from the node's cache of builds", False),
            Query("pull", bool, "ask the registries for newer base images", False),
            Query("base", tuple[str, ...], "an image it needs, which another node may have; may be repeated"),
            Query("node", str, "build there (default: the ready node with most free)"),
        ),
        takes="application/x-tar",
    ),
    Route("GET", "/v1/images/{reference:path}/json", images.inspect, "One image, Docker's inspect", answer=Object),
    Route("GET", "/v1/images/{reference:path}/history", images.history, "How it was made, newest first", answer=Objects),
    Route("GET", "/v1/images/{reference:path}/remote", images_transfer.remote, "What a registry has of it", answer=Object),
    Route("POST", "/v1/images/{reference:path}/tag", images.tag, "A further name on all nodes that have it", TagBody, Object),
    Route("POST", "/v1/images/{reference:path}/push", images_transfer.push, "Brings it to its registry", stream=NDJSON),
    Route("DELETE", "/v1/images/{reference:path}", images.remove, "Removes an image from all nodes", None, Objects, FORCE),
)  # fmt: skip

ROUTES: Final[tuple[Route, ...]] = (
    *CLUSTER, *STACKS, *REPLICAS, *SERVICES, *SAMPLES, *NODES, *NODE_GROUPS, *IMAGES, *VOLUMES, *NETWORKS,
)
