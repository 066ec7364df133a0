"""A real controller process with its own etcd, an operator's HTTPS client, and a node that speaks node.proto.

Rules: ports are chosen by the controller (0), everything is in a temporary folder, and the controller dies with the test
process even when that is killed. Waiting is always for a condition, with a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc import aio

from model.pki_names import CONTROLLER_SERVER_NAME
from protos import node_pb2 as pb

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 30.0
ENDED = (asyncio.InvalidStateError, aio.AioRpcError, aio.UsageError)
"""How grpc says that a call is over."""
T = TypeVar("T")


def eventually(probe: Callable[[], T], within_s: float = DEADLINE_S) -> T:
    """The first truthy answer of `probe`."""
    until = time.monotonic() + within_s
    while True:
        found = probe()
        if found:
            return found
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.02)


class ControllerProcess:
    """`shoal controller` in a folder. `flags` are added to the command line."""

    def __init__(self, folder: Path, *flags: str, name: str = "c1") -> None:
        self.folder, self.flags, self.name = folder, flags, name
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        (self.folder / "admin.json").unlink(missing_ok=True)
        command = [
            "/usr/bin/setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "shoal", "controller",
            "--data-dir", str(self.folder), "--api", "127.0.0.1:0", "--dispatch", "127.0.0.1:0",
            "--advertise", "127.0.0.1", "--name", self.name, *self.flags,
        ]  # fmt: skip
        with (self.folder / "controller.log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        eventually(self._up)

    def _up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()[-3000:]
        if not (self.folder / "admin.json").exists():
            return False
        with contextlib.suppress(OSError):
            return self.operator().get("/healthz") == (200, "ok")
        return False

    def log(self) -> str:
        return (self.folder / "controller.log").read_text()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def context(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "admin.json").read_text())
        return found

    def operator(self) -> Client:
        context = self.context()
        return Client(context["apis"][0], context["ca"], context["certificate"], context["key"])

    def anonymous(self) -> Client:
        context = self.context()
        return Client(context["apis"][0], context["ca"])


@contextlib.contextmanager
def controller_process(*flags: str) -> Iterator[ControllerProcess]:
    folder = Path(tempfile.mkdtemp(prefix="shoal-test-controller-"))
    process = ControllerProcess(folder, *flags)
    try:
        process.start()
        yield process
    finally:
        if process.process is not None and process.process.poll() is None:
            process.process.terminate()
            try:
                process.process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)


class Client:
    """HTTPS with JSON; a new connection for each request."""

    def __init__(self, url: str, ca: str, certificate: str = "", key: str = "") -> None:
        self.url, self.ca, self.certificate, self.key = urlsplit(url), ca, certificate, key
        self.context = ssl.create_default_context(cadata=ca)
        if certificate:
            with tempfile.NamedTemporaryFile("w", prefix="shoal-test-", suffix=".pem") as file:
                file.write(certificate + key)
                file.flush()
                self.context.load_cert_chain(file.name)
        self.headers: dict[str, str] = {}

    def connect(self) -> http.client.HTTPSConnection:
        assert self.url.hostname is not None
        return http.client.HTTPSConnection(self.url.hostname, self.url.port, context=self.context, timeout=DEADLINE_S)

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and answer (JSON decoded when it is JSON)."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            data = response.read()
            self.headers = {name.lower(): value for name, value in response.getheaders()}
            kind = self.headers.get("content-type", "")
            return response.status, json.loads(data) if kind.startswith("application/json") else data.decode()

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        return self.request("GET", path, None, **headers)

    def ok(self, method: str, path: str, body: Any = None) -> Any:
        """The answer of a request that must succeed."""
        status, answer = self.request(method, path, body)
        assert status == 200, (method, path, status, answer)
        return answer


def new_csr(name: str) -> tuple[str, bytes]:
    """(CSR in PEM, key in PEM)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return csr.public_bytes(serialization.Encoding.PEM).decode(), private


INFO = {"cpus": 2.0, "memory_bytes": 2 * 1024**3, "pids": 10_000, "underlay": "127.0.0.1", "arch": "x86_64"}


class Node:
    """A joined node that keeps one session: takes every Desired and can report every replica as running."""

    def __init__(self, controller: ControllerProcess, name: str) -> None:
        token = controller.operator().ok("POST", "/v1/tokens", {})["token"]
        csr, self.key = new_csr(name)
        body = {"token": token, "csr": csr, "name": name, "info": INFO}
        self.joined = controller.anonymous().ok("POST", "/v1/join", body)
        self.name = name
        self.dispatch: str = self.joined["controllers"][0]
        self.received: list[pb.ToNode] = []
        self.desired: dict[str, pb.Service] = {}
        self.networks: dict[str, pb.Network] = {}
        self.generation = 0
        self.reports = True
        self.acks = True
        self.ports: tuple[pb.Port, ...] = ()
        self.addresses: tuple[str, ...] = ()
        """Networks on which its replicas say they have an address."""
        self.endpoints: dict[str, dict[str, pb.ServiceEndpoints]] = {}
        self.floor = 0
        self.guarded: set[str] = set()
        self.news = asyncio.Condition()
        self.writing = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def session(self, hello: pb.Hello | None = None) -> Any:
        credentials = grpc.ssl_channel_credentials(
            self.joined["ca"].encode(), self.key, self.joined["certificate"].encode()
        )
        options = (("grpc.ssl_target_name_override", CONTROLLER_SERVER_NAME),)
        async with aio.secure_channel(self.dispatch, credentials, options=options) as channel:
            method = channel.stream_stream(
                "/shoal.node.v1.Dispatch/Session", pb.FromNode.SerializeToString, pb.ToNode.FromString
            )
            call = method()
            await call.write(pb.FromNode(hello=hello or pb.Hello(node=self.name, info=json.dumps(INFO).encode())))
            reading = asyncio.create_task(self._read(call))
            beating = asyncio.create_task(self._beat(call))
            try:
                yield call
            finally:
                for task in (beating, reading):
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError, *ENDED):
                        await task
                call.cancel()

    async def _beat(self, call: Any) -> None:
        await self._report(call)
        for sequence in range(1, 1_000_000):
            await self._say(call, pb.FromNode(heartbeat=pb.Heartbeat(sequence=sequence)))
            await asyncio.sleep(0.2)

    async def _read(self, call: Any) -> None:
        while isinstance(message := await call.read(), pb.ToNode):
            async with self.news:
                self.received.append(message)
                await self._hear(call, message)
                self.news.notify_all()

    async def _hear(self, call: Any, message: pb.ToNode) -> None:
        kind = message.WhichOneof("kind")
        if kind == "desired":
            await self._take(call, message.desired)
        elif kind == "endpoints":
            self._take_endpoints(message.endpoints)
            if self.acks:
                await self._say(call, pb.FromNode(endpoints_ack=pb.EndpointsAck(number=message.endpoints.number)))
        elif kind == "floor":
            self.floor = message.floor.number
        elif kind == "guarded":
            known = set() if message.guarded.whole else self.guarded
            self.guarded = (known | {*message.guarded.added}) - {*message.guarded.removed}

    def _take_endpoints(self, message: pb.Endpoints) -> None:
        known = {} if message.whole else self.endpoints.get(message.network, {})
        known |= {row.service_id: row for row in message.services}
        self.endpoints[message.network] = {name: row for name, row in known.items() if name not in message.removed}

    def reached(self, network: str, service: str) -> list[pb.Endpoint]:
        """The endpoints of a service as the node was told."""
        rows = self.endpoints.get(network, {}).values()
        return [endpoint for row in rows if row.name == service for endpoint in row.endpoints]

    async def _report(self, call: Any) -> None:
        replicas = [row for service in self.desired.values() for row in running(service)]
        for index, row in enumerate(replicas):
            address = f"10.{sum(self.name.encode()) % 250}.0.{index + 1}/24"
            row.addresses.extend(pb.Address(network=name, address=address) for name in self.addresses)
            row.ports.extend(self.ports)
        await self._say(call, pb.FromNode(status=pb.Status(whole=True, replicas=replicas)))

    async def _take(self, call: Any, desired: pb.Desired) -> None:
        if desired.whole:
            self.desired, self.networks = {}, {}
        else:
            assert desired.base_generation == self.generation
        for service in desired.services:
            self.desired[service.service_id] = service
        for service_id in desired.removed_services:
            del self.desired[service_id]
        for network in desired.networks:
            self.networks[network.name] = network
        for name in desired.removed_networks:
            del self.networks[name]
        self.generation = desired.generation
        await self._say(call, pb.FromNode(ack=pb.Ack(generation=desired.generation)))
        if self.reports:
            await self._report(call)

    async def _say(self, call: Any, message: pb.FromNode) -> None:
        """grpc allows one write at a time."""
        async with self.writing:
            await call.write(message)

    async def until(self, probe: Callable[[], Any], within_s: float = DEADLINE_S) -> Any:
        """Waits until a message makes `probe` true."""
        async with asyncio.timeout(within_s), self.news:
            return await self.news.wait_for(probe)

    def slots(self) -> int:
        return sum(len(service.slots) for service in self.desired.values())


def running(service: pb.Service) -> list[pb.Replica]:
    return [
        pb.Replica(
            key=pb.ReplicaKey(service_id=service.service_id, slot=slot.slot, created_ms=slot.created_ms),
            version=slot.version,
            state="running",
            since_ms=int(time.time() * 1000),
            container_id=os.urandom(8).hex(),
        )
        for slot in service.slots
    ]


def service_body(name: str, image: str = "busybox", replicas: int = 1, **more: Any) -> dict[str, Any]:
    return {"name": name, "container": {"image": image}, "replicas": replicas, **more}
