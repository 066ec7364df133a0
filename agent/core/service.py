"""The agent's own gRPC server: what a controller asks one node directly (logs, exec, images, volumes, figures).

Rules: mutual TLS, and only certificates of role `controller` get in; other nodes may read blobs. Every error is one line with
the fitting status. A caller that goes away ends what was begun for it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from functools import wraps
from typing import Any, TypeVar, cast

import grpc
from grpc import aio

from agent.core.builds_service import build
from agent.core.export import exported
from agent.core.figures import stats
from agent.core.following import follow_to_rest
from agent.core.images_service import ImagesService
from agent.core.runner import Runner
from agent.core.streams import relay
from agent.core.tls import NodePki, caller_role
from agent.plan.container import ExecRequest
from agent.plan.inspect import inspected
from agent.plan.records import Life, ReplicaId
from agent.runtime.port import Session
from model.errors import BadInput, Conflict, NotFound, ShoalError, Unavailable
from model.pki_names import ROLE_CONTROLLER, ROLE_NODE
from protos import node_pb2 as pb
from protos import node_pb2_grpc

log = logging.getLogger(__name__)
MESSAGE_BYTES_MAX = 64 << 20
ATTACH_WAIT_S = 120.0
_CODES: tuple[tuple[type[ShoalError], grpc.StatusCode], ...] = (
    (NotFound, grpc.StatusCode.NOT_FOUND),
    (Conflict, grpc.StatusCode.FAILED_PRECONDITION),
    (BadInput, grpc.StatusCode.INVALID_ARGUMENT),
    (Unavailable, grpc.StatusCode.UNAVAILABLE),
)
Context = aio.ServicerContext[Any, Any]


def status_of(error: ShoalError) -> grpc.StatusCode:
    """The gRPC status of one of our errors; its HTTP status decides where its class is not listed."""
    by_status = {404: grpc.StatusCode.NOT_FOUND, 409: grpc.StatusCode.FAILED_PRECONDITION}
    found = next((code for kind, code in _CODES if isinstance(error, kind)), None)
    return found or by_status.get(error.status, grpc.StatusCode.UNKNOWN)


class AgentService(node_pb2_grpc.AgentServicer):
    """Everything about one node's containers, images and volumes."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._ports = runner.ports
        self._images = ImagesService(runner.ports, lambda: runner.core.lives.values())

    # containers

    async def Logs(self, request: pb.LogsRequest, context: Context) -> AsyncIterator[pb.LogLine]:
        life = self._life(request.key)
        lines = self._ports.runtime.logs(
            life.id.text, follow=request.follow, tail=request.tail, since_ms=request.since_ms, until_ms=request.until_ms
        )
        if request.follow:
            lines = follow_to_rest(lines, self._runner.until(lambda: self._rests(life.id)))
        async for line in lines:
            yield pb.LogLine(at_ns=line.at_ns, stream=line.stream, line=line.line)

    def _rests(self, replica: ReplicaId) -> bool:
        """No process of the replica runs and none will be started."""
        life = self._runner.core.lives.get(replica)
        return life is None or ((life.ended or life.goal != "run") and not life.may_run())

    async def Exec(self, requests: AsyncIterator[pb.ExecInput], context: Context) -> AsyncIterator[pb.ExecOutput]:
        start = await _first(requests)
        life = self._life(start.key)
        if life.stage != "running":
            raise Conflict(f"{life.name} does not run ({life.state}): exec needs a running container")
        session = await self._ports.runtime.exec(life.container_id, _exec_request(start))
        async for output in relay(session, requests):
            yield output

    async def Attach(self, requests: AsyncIterator[pb.ExecInput], context: Context) -> AsyncIterator[pb.ExecOutput]:
        start = await _first(requests)
        life, session = await self._attached(start.key)
        if session is None:
            async for output in self._past(life):
                yield output
            return
        if start.HasField("size"):
            await session.resize(start.size.rows, start.size.columns)
        async for output in relay(session, requests):
            yield output

    async def _attached(self, key: pb.ReplicaKey) -> tuple[Life, Session | None]:
        """The replica and a session with its container; none when it has ended."""
        while True:
            life = await self._attachable(key)
            if life.ended:
                return life, None
            try:
                return life, await self._ports.runtime.attach(life.container_id)
            except Conflict:  # it has ended a moment ago: the core hears of it next
                await self._runner.until(lambda seen=life: self._life(key) is not seen)  # type: ignore[misc]

    async def _attachable(self, key: pb.ReplicaKey) -> Life:
        """The replica once its container is there: `run -it` attaches while the image is still being pulled."""
        self._life(key)

        def there() -> bool:
            life = self._life(key)
            return life.ended or (bool(life.container_id) and life.stage in ("created", "running"))

        try:
            async with asyncio.timeout(ATTACH_WAIT_S):
                await self._runner.until(there)
        except TimeoutError:
            life = self._life(key)
            raise Unavailable(f"{life.name} has no container yet ({life.state}): {life.message or 'still preparing'}") from None
        life = self._life(key)
        if life.ended and (life.exit_code is None or not life.ran):
            raise Conflict(f"{life.name} has ended: {life.message or life.state}")
        return life

    async def _past(self, life: Life) -> AsyncIterator[pb.ExecOutput]:
        """A command that was over before anybody could attach: what it wrote, and its exit code."""
        assert life.exit_code is not None
        yield pb.ExecOutput(started=True)
        async for line in self._ports.runtime.logs(life.id.text):
            yield pb.ExecOutput(stderr=line.line) if line.stream == "stderr" else pb.ExecOutput(stdout=line.line)
        yield pb.ExecOutput(exit_code=life.exit_code)

    async def Inspect(self, request: pb.ContainerRequest, context: Context) -> pb.Json:
        from agent.images.records import ImageConfig

        life = self._life(request.key)
        image = self._ports.images.get(life.image.id) if life.image else None
        pid = self._runner.performer.pids.get(life.container_id, 0)
        mounts = await asyncio.to_thread(self._runner.performer.mounts_of, life)
        networks = self._runner.core.desired.networks
        return _json(inspected(life, image.config if image else ImageConfig(), pid, mounts, networks))

    async def Export(self, request: pb.ContainerRequest, context: Context) -> AsyncIterator[pb.Chunk]:
        async for chunk in exported(self._ports.runtime, self._life(request.key)):
            yield chunk

    async def Stats(self, request: pb.Empty, context: Context) -> pb.Json:
        return _json(await stats(self._runner))

    async def Traffic(self, request: pb.Empty, context: Context) -> pb.Json:
        return _json([row._asdict() for row in await self._runner.ports.balance.traffic()])

    def _life(self, key: pb.ReplicaKey) -> Life:
        """The newest life of the key; `created_ms` 0: whichever is in the slot."""
        found = [
            life
            for life in self._runner.core.lives.values()
            if life.id.place == (key.service_id, key.slot) and key.created_ms in (0, life.id.created_ms)
        ]
        if not found:
            raise NotFound(f"replica {key.service_id}.{key.slot} is not on node {self._runner.core.node}")
        return max(found, key=lambda life: life.id)

    # images

    async def Images(self, request: pb.Empty, context: Context) -> pb.Json:
        return _json(self._images.all())

    async def PullImage(self, request: pb.ImageRequest, context: Context) -> AsyncIterator[pb.Progress]:
        async for progress in self._images.pull(request):
            yield progress

    async def InspectImage(self, request: pb.ImageRequest, context: Context) -> pb.Json:
        return _json(self._images.inspect(request))

    async def RemoteImage(self, request: pb.ImageRequest, context: Context) -> pb.Json:
        return _json(await self._images.remote(request))

    async def TagImage(self, request: pb.TagRequest, context: Context) -> pb.Json:
        return _json(await self._images.tag(request))

    async def PushImage(self, request: pb.ImageRequest, context: Context) -> AsyncIterator[pb.Progress]:
        async for progress in self._images.push(request):
            yield progress

    async def SaveImages(self, request: pb.SaveRequest, context: Context) -> AsyncIterator[pb.Chunk]:
        async for chunk in self._images.save(request):
            yield chunk

    async def RemoveImage(self, request: pb.ImageRequest, context: Context) -> pb.Json:
        return _json(await self._images.remove(request))

    async def LoadImage(self, requests: AsyncIterator[pb.Chunk], context: Context) -> pb.Json:
        return _json(await self._images.load(requests))

    async def CommitContainer(self, request: pb.CommitRequest, context: Context) -> pb.Json:
        return _json(await self._images.commit(self._life(request.key), request))

    async def ResolveImage(self, request: pb.ImageRequest, context: Context) -> pb.Json:
        return _json(await self._images.resolve(request))

    async def Build(self, requests: AsyncIterator[pb.BuildInput], context: Context) -> AsyncIterator[pb.BuildOutput]:
        async for output in build(self._ports.builder, requests):
            yield output

    async def Blob(self, request: pb.BlobRequest, context: Context) -> AsyncIterator[pb.Chunk]:
        async for chunk in self._images.blob(request):
            yield chunk

    # still to come

    # volumes

    async def Volumes(self, request: pb.Empty, context: Context) -> pb.Json:
        users = self._runner.volume_users()
        volumes = await asyncio.to_thread(self._ports.volumes.all)
        return _json([volume.plain(users.get(volume.name, ())) for volume in volumes])

    async def RemoveVolume(self, request: pb.VolumeRequest, context: Context) -> pb.Json:
        await asyncio.to_thread(self._ports.volumes.remove, request.name, force=request.force)
        self._runner.report_volumes()
        return _json({"removed": request.name})

    async def PruneVolumes(self, request: pb.PruneRequest, context: Context) -> pb.Json:
        removed = await asyncio.to_thread(self._ports.volumes.prune, everything=request.all, keep=tuple(request.keep))
        self._runner.report_volumes()
        return _json({"removed": removed})


def _exec_request(start: pb.ExecStart) -> ExecRequest:
    env = tuple((name, value) for name, _, value in (item.partition("=") for item in start.env))
    return ExecRequest(
        tuple(start.command), start.tty, start.stdin, start.user, start.working_dir, env, start.privileged,
        start.size.rows, start.size.columns,
    )  # fmt: skip


async def _first(requests: AsyncIterator[pb.ExecInput]) -> pb.ExecStart:
    async for request in requests:
        if request.WhichOneof("kind") == "start":
            return request.start
        break
    raise BadInput("the first message of an exec is its start")


def _json(plain: Any) -> pb.Json:
    return pb.Json(json=json.dumps(plain, separators=(",", ":")).encode())


# the server

H = TypeVar("H", bound=Callable[..., Any])


def _admitted(method: H, roles: Collection[str]) -> H:
    """Only who has one of these roles; our errors become statuses."""
    if hasattr(method, "__wrapped__"):
        return method
    if _streams(method):

        @wraps(method)
        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            await _admit(context, roles)
            try:
                async for item in method(request, context):
                    yield item
            except ShoalError as error:
                await context.abort(status_of(error), str(error))

        return cast(H, stream)

    @wraps(method)
    async def unary(request: Any, context: Context) -> Any:
        await _admit(context, roles)
        try:
            return await cast(Awaitable[Any], method(request, context))
        except ShoalError as error:
            return await context.abort(status_of(error), str(error))

    return cast(H, unary)


def _streams(method: Callable[..., Any]) -> bool:
    import inspect

    return inspect.isasyncgenfunction(method)


async def _admit(context: Context, roles: Collection[str]) -> None:
    role = caller_role(context.auth_context())
    if role not in roles:
        await context.abort(
            grpc.StatusCode.PERMISSION_DENIED, f"only controllers may call an agent, this is a {role or 'nobody'}"
        )


_OF_NODES_TOO = ("Blob",)
"""All other calls are the controllers', those that are still to come as well."""


def admitted(service: AgentService) -> AgentService:
    """The service with every call of it guarded."""
    for call in pb.DESCRIPTOR.services_by_name["Agent"].methods:
        roles = (ROLE_CONTROLLER, ROLE_NODE) if call.name in _OF_NODES_TOO else (ROLE_CONTROLLER,)
        setattr(service, call.name, _admitted(getattr(service, call.name), roles))
    return service


async def start_server(runner: Runner, pki: NodePki, listen: str) -> tuple[aio.Server, int]:
    """The running server and its port. Raises Unavailable when the address cannot be bound."""
    service = admitted(AgentService(runner))
    options = [
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.so_reuseport", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),  # controllers ask whether the line is up
    ]
    server = aio.server(options=options)
    node_pb2_grpc.add_AgentServicer_to_server(service, server)
    try:
        port = server.add_secure_port(listen, pki.server())
    except RuntimeError as error:
        raise Unavailable(f"cannot listen on {listen}: is another agent running there? ({error})") from None
    if port == 0:
        raise Unavailable(f"cannot listen on {listen}: is another agent running there?")
    await server.start()
    return server, port
