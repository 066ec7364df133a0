"""Connections to the members of one etcd cluster: TLS, failover, deadlines, log-in. Knows nothing of keys and values.

Rules:
- Every call has a deadline, and a shorter one for each attempt, so that a member that hangs costs one attempt only.
- A write is repeated only when it surely had no effect. A read is repeated on the next member until the deadline.
- Every call asks for a leader (`hasleader`): a member cut off from the others answers at once instead of after 7 s.
- gRPC's own retries are off: it must not decide for us whether a write is sent twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

import grpc
from grpc import aio

from controller.store.etcd_errors import Kind, Verdict, judge, not_done
from model.store_port import StoreDenied, StoreError, StoreUnavailable, StoreUnknown
from protos import etcd_pb2 as pb
from protos import etcd_pb2_grpc as rpc

Request = TypeVar("Request")
Response = TypeVar("Response")
Metadata = tuple[tuple[str, str], ...]

KEEPALIVE_S: Final = 10
"""etcd closes a connection that pings oftener than every 5 s."""
CONNECT_S: Final = 1.0
PAUSE_S: Final = 0.05
OPTIONS: Final = (
    ("grpc.enable_retries", 0),
    ("grpc.keepalive_time_ms", KEEPALIVE_S * 1000),
    ("grpc.keepalive_timeout_ms", 3000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)


@dataclass(frozen=True, slots=True)
class EtcdTarget:
    """Where an etcd cluster is and how to be let in.

    `endpoints`: one URL or host:port for each member; all https (with the three files) or all http.
    `call_timeout_s`: the longest any call may take; `attempt_timeout_s`: the longest one member may take to answer a read.
    """

    endpoints: tuple[str, ...]
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    user: str = ""
    password: str = field(default="", repr=False)
    call_timeout_s: float = 5.0
    attempt_timeout_s: float = 2.0


class Member:
    """One endpoint: its channel and the stubs on it."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None) -> None:
        self.address = address
        if credentials is None:
            self.channel = aio.insecure_channel(address, options=OPTIONS)
        else:
            self.channel = aio.secure_channel(address, credentials, options=OPTIONS)
        self.kv = rpc.KVStub(self.channel)
        self.lease = rpc.LeaseStub(self.channel)
        self.watch = rpc.WatchStub(self.channel)
        self.maintenance = rpc.MaintenanceStub(self.channel)
        self.auth = rpc.AuthStub(self.channel)

    async def settle(self, within_s: float) -> bool:
        """Waits until the connection is up or has failed; False: neither in time. After True a call is sent or fails fast."""
        try:
            async with asyncio.timeout(within_s):
                while True:
                    state = self.channel.get_state(try_to_connect=True)
                    if state in (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE):
                        return True
                    await self.channel.wait_for_state_change(state)
        except TimeoutError:
            return False


Method = Callable[[Member], "aio.UnaryUnaryMultiCallable[Request, Response]"]


class EtcdChannel:
    """Every member of the cluster, one of them in use until it fails. Make it inside the running loop."""

    def __init__(self, target: EtcdTarget) -> None:
        if not target.endpoints:
            raise StoreError("etcd: no endpoint given: name at least one, like https://10.0.0.1:2379")
        self.target = target
        credentials = _credentials(target)
        self.members = tuple(Member(address_of(url), credentials) for url in target.endpoints)
        self._at = 0
        self._token = ""
        self._login_lock = asyncio.Lock()

    @property
    def current(self) -> Member:
        return self.members[self._at]

    def leave(self, member: Member) -> None:
        """`member` failed: use the next one, unless somebody else moved on already."""
        if member is self.current:
            self._at = (self._at + 1) % len(self.members)

    async def call(
        self,
        method: Method[Request, Response],
        request: Request,
        *,
        write: bool = False,
        timeout_s: float | None = None,
        member: Member | None = None,
    ) -> Response:
        """One unary call; with `member`, to that one only. Raises the errors of the Store port."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (timeout_s or self.target.call_timeout_s)
        attempt_s = deadline - loop.time() if write else timeout_s or self.target.attempt_timeout_s
        logins, last = 0, "no attempt"
        while (left := deadline - loop.time()) > 0:
            at = member or self.current
            verdict = await self._attempt(at, method, request, min(left, attempt_s))
            if not isinstance(verdict, Verdict):
                return verdict
            last = verdict.text
            if verdict.error is not None:
                raise verdict.error
            if verdict.kind is Kind.LOGIN:
                logins += 1
                if logins > 2:
                    raise StoreDenied(f"etcd {last}: still refused after logging in as {self.target.user} again")
                continue
            self.leave(at)
            if write and verdict.kind is Kind.UNKNOWN:
                raise StoreUnknown(f"etcd {last}: the write may or may not have happened: read again")
            await asyncio.sleep(min(PAUSE_S, max(0.0, deadline - loop.time())))
        raise StoreUnavailable(f"etcd does not answer ({last}): is it running and reachable?")

    async def _attempt(
        self, member: Member, method: Method[Request, Response], request: Request, timeout_s: float
    ) -> Response | Verdict:
        loop = asyncio.get_running_loop()
        began = loop.time()
        if not await member.settle(min(timeout_s, CONNECT_S)):
            return Verdict(Kind.NOT_DONE, f"{member.address}: no connection within {min(timeout_s, CONNECT_S):.1f} s")
        try:
            metadata = await self.metadata(member)
        except aio.AioRpcError as error:
            return not_done(self.judge(error, member))
        try:
            left = max(0.01, timeout_s - (loop.time() - began))
            return await method(member)(request, timeout=left, metadata=metadata)
        except aio.AioRpcError as error:
            verdict = self.judge(error, member)
            if verdict.kind is Kind.LOGIN:
                self.forget_token(metadata)
            return verdict

    def judge(self, error: aio.AioRpcError, member: Member) -> Verdict:
        return judge(error.code().name, error.details() or "", member.address, has_login=bool(self.target.user))

    async def metadata(self, member: Member) -> Metadata:
        """What goes with every call: the wish for a leader, and the token (logging in first when there is none)."""
        if self.target.user and not self._token:
            async with self._login_lock:
                if not self._token:
                    self._token = await self._login(member)
        return (("hasleader", "true"), ("token", self._token)) if self._token else (("hasleader", "true"),)

    async def _login(self, member: Member) -> str:
        request = pb.AuthenticateRequest(name=self.target.user, password=self.target.password)
        response = await member.auth.Authenticate(request, timeout=self.target.attempt_timeout_s)
        return response.token

    def forget_token(self, used: Metadata) -> None:
        """The token in `used` was refused (it expired, or etcd restarted): the next call logs in again."""
        if dict(used).get("token") == self._token:
            self._token = ""

    async def close(self) -> None:
        for member in self.members:
            await member.channel.close()


def address_of(url: str) -> str:
    """`https://host:2379`, `host:2379` or `unix:///path` -> what gRPC connects to."""
    if url.startswith("unix:") or "://" not in url:
        return url
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise StoreError(f"etcd: {url} is no endpoint: write it like https://10.0.0.1:2379")
    return parts.netloc if parts.port else f"{parts.netloc}:2379"


def _credentials(target: EtcdTarget) -> grpc.ChannelCredentials | None:
    plain = [url for url in target.endpoints if url.startswith(("http://", "unix:"))]
    if target.ca_file is None:
        if any(url.startswith("https://") for url in target.endpoints):
            raise StoreError("etcd: an https endpoint needs a CA file, a certificate and its key")
        return None
    if plain:
        raise StoreError(f"etcd: {plain[0]} is not encrypted although certificates are given: write https://")
    try:
        return grpc.ssl_channel_credentials(
            root_certificates=target.ca_file.read_bytes(),
            private_key=target.key_file.read_bytes() if target.key_file else None,
            certificate_chain=target.cert_file.read_bytes() if target.cert_file else None,
        )
    except OSError as error:
        raise StoreDenied(f"etcd: cannot read {error.filename}: {error.strerror}") from error
