"""What people do, as requests to the API's own handlers, and what it means that one was accepted.

Rules: each deed says how it must be when it was accepted, so it may be asked for twice. Handlers get what the route would have
parsed; none of those here reads the request itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, Literal, cast

from starlette.requests import Request

from controller.api import autoscale, cluster, connections, networks, nodes, services, stacks, volumes
from controller.api.context import Api, Call
from controller.api.schemas import (
    ConnectBody,
    DisconnectBody,
    JoinBody,
    NodeInfoBody,
    NodePatchBody,
    PauseBody,
    PruneBody,
    ScaleBody,
)
from model import codec
from model.documents import Availability, NodeDoc, NodeInfo, ServiceDoc, prefix
from model.spec import NetworkSpec, ServiceSpec
from sim.asking import Deed
from sim.wanted import ANY, GONE, Wanted, WantedService, wanted_by, wanted_of
from sim.wishes import Project

NO_REQUEST: Final = cast(Request, None)
Handler = Callable[[Api, Call], Awaitable[Any]]
Work = Callable[[Api], Awaitable[Any]]


def call(
    handler: Handler, body: Any = None, query: Mapping[str, Any] | None = None, **path: str
) -> Callable[[Api], Awaitable[Any]]:
    return lambda api: handler(api, Call(NO_REQUEST, None, path, query or {}, body))


def pass_over(answer: Any) -> None:
    """The answer changes nothing of what is wanted."""


async def nothing_to_see(api: Api) -> None:
    """There is nothing to look for."""


class Deeds:
    """Makes them; what they are told goes into `wanted`. `rejoined(node, serial, id)`: the machine may begin anew;
    `volume_removed(name)`: that was accepted."""

    def __init__(
        self, wanted: Wanted, rejoined: Callable[[str, str, str], None], volume_removed: Callable[[str], None]
    ) -> None:
        self._wanted = wanted
        self._rejoined = rejoined
        self._volume_removed = volume_removed

    # ---- stacks and services

    def apply(self, project: Project, then: Callable[[], None]) -> Deed:
        stack = project["name"]
        about = f"stack/{stack}"

        def told(answer: Any) -> None:
            specs = stacks.read_stack(stack, project).services
            self._wanted.settle(about, {spec.name: wanted_by(spec) for spec in specs})
            then()

        work = call(stacks.apply, project, {"prune": True}, stack=stack)
        return Deed(about, f"apply {', '.join(sorted(project['services']))}", work, told, partial(self._see_services, about))

    def remove_stack(self, stack: str, with_volumes: bool, then: Callable[[], None]) -> Deed:
        about = f"stack/{stack}"

        def told(answer: Any) -> None:
            self._wanted.settle(about, {})
            then()

        work = call(stacks.remove, None, {"volumes": with_volumes}, stack=stack)
        return Deed(about, "remove", work, told, partial(self._see_services, about), removes=True)

    def create(self, spec: ServiceSpec) -> Deed:
        about = f"service/{spec.name}"

        def told(answer: Any) -> None:
            self._wanted.services[spec.name] = wanted_by(spec)

        return Deed(about, "create", call(services.create_service, spec), told, partial(self._see_services, about))

    def remove_service(self, name: str, then: Callable[[], None]) -> Deed:
        def told(answer: Any) -> None:
            self._wanted.services.pop(name, None)
            then()

        return replace(self._of_service(name, "remove", call(services.remove, name=name), told), removes=True)

    def scale(self, name: str, replicas: int, floor_s: float | None = None) -> Deed:
        work = call(services.scale, ScaleBody(replicas=replicas, floor_s=floor_s), name=name)
        count = ANY if self._wanted.services[name].scale == ANY else replicas
        return self._of_service(name, f"scale to {replicas}", work, lambda _: self._change(name, scale=count))

    def pause(self, name: str, direction: Literal["in", "out", "both"]) -> Deed:
        work = call(autoscale.pause, PauseBody(direction=direction), name=name)
        return self._of_service(name, f"pause {direction}", work, pass_over)

    def resume(self, name: str) -> Deed:
        return self._of_service(name, "resume", call(autoscale.resume, name=name), pass_over)

    def stop(self, name: str) -> Deed:
        return self._of_service(name, "stop", call(services.stop, name=name), lambda _: self._change(name, stopped=True))

    def start(self, name: str) -> Deed:
        return self._of_service(name, "start", call(services.start, name=name), lambda _: self._change(name, stopped=False))

    def connect(self, name: str, network: str) -> Deed:
        work = call(connections.connect, ConnectBody(container=name), name=network)
        return self._of_service(name, f"connect to {network}", work, pass_over)

    def disconnect(self, name: str, network: str) -> Deed:
        work = call(connections.disconnect, DisconnectBody(container=name, force=True), name=network)
        return self._of_service(name, f"disconnect from {network}", work, pass_over)

    def _of_service(self, name: str, text: str, work: Work, told: Callable[[Any], None]) -> Deed:
        about = self._wanted.services[name].about
        return Deed(about, f"{text} {name}", work, told, partial(self._see_services, about))

    def _change(self, name: str, **fields: Any) -> None:
        self._wanted.services[name] = replace(self._wanted.services[name], **fields)

    async def _see_services(self, about: str, api: Api) -> None:
        listing = await api.store.list(prefix("services"))
        found: dict[str, WantedService] = {}
        for entry in listing.entries:
            document = codec.decode(ServiceDoc, entry.value)
            found[document.spec.name] = wanted_of(document)
        self._wanted.settle(about, {name: row for name, row in found.items() if row.about == about})

    # ---- networks and volumes

    def create_network(self, name: str) -> Deed:
        def told(answer: Any) -> None:
            self._wanted.networks[name] = None

        work = call(networks.create_network, NetworkSpec(name))
        return Deed(f"network/{name}", "create", work, told, partial(self._see_network, name))

    def remove_network(self, name: str) -> Deed:
        def told(answer: Any) -> None:
            self._wanted.networks.pop(name, None)

        work = call(networks.remove_network, name=name)
        return Deed(f"network/{name}", "remove", work, told, partial(self._see_network, name), removes=True)

    async def _see_network(self, name: str, api: Api) -> None:
        document, _ = await api.read("networks", name)
        if document is None:
            self._wanted.networks.pop(name, None)
        else:
            self._wanted.networks[name] = None

    def remove_volume(self, name: str) -> Deed:
        def told(answer: Any) -> None:
            self._volume_removed(name)

        work = call(volumes.remove_volume, None, {"force": False}, name=name)
        return Deed(f"volume/{name}", "remove", work, told, nothing_to_see)

    def prune_volumes(self) -> Deed:
        """Those that have no name and that nobody uses."""
        return Deed("", "prune volumes", call(volumes.prune_volumes, PruneBody()), pass_over, nothing_to_see)

    # ---- nodes

    def patch_node(self, name: str, availability: Availability | None, labels: Mapping[str, str | None]) -> Deed:
        def told(answer: Any) -> None:
            if availability is not None:
                self._wanted.nodes[name] = availability

        work = call(nodes.patch_node, NodePatchBody(availability=availability, labels=dict(labels)), name=name)
        said = " ".join([availability or "", *(f"{key}={value}" for key, value in labels.items())])
        return Deed(f"node/{name}", f"set {said.strip()}", work, told, partial(self._see_node, name))

    def remove_node(self, name: str, force: bool) -> Deed:
        def told(answer: Any) -> None:
            self._wanted.nodes[name] = GONE

        work = call(nodes.remove_node, None, {"force": force}, name=name)
        return Deed(f"node/{name}", "remove", work, told, partial(self._see_node, name), removes=True)

    async def _see_node(self, name: str, api: Api) -> None:
        document, _ = await api.read("nodes", name)
        self._wanted.nodes[name] = GONE if document is None else document.availability

    def rejoin(self, name: str, serial: str, info: NodeInfo) -> Deed:
        """As the machine would with a token: its agent has left the cluster before."""
        facts = {field: getattr(info, field) for field in NodeInfoBody.model_fields}
        body = JoinBody(token="", csr="", name=name, info=NodeInfoBody(**facts))

        async def work(api: Api) -> NodeDoc:
            return await cluster.enter(api, body, "worker", serial, await cluster.joinable(api, name))

        async def seen(api: Api) -> None:
            document, _ = await api.read("nodes", name)
            if document is not None and document.serial == serial:
                told(document)

        def told(document: NodeDoc) -> None:
            self._wanted.nodes[name] = document.availability
            self._rejoined(name, serial, document.id)

        return Deed(f"node/{name}", "join", work, told, seen, once=True)

    # ---- reading

    def look(self, handler: Handler, query: Mapping[str, Any] | None = None, body: Any = None, **path: str) -> Deed:
        text = f"{handler.__name__} {' '.join(path.values())}"
        return Deed("", text, call(handler, body, query, **path), pass_over, nothing_to_see)
