"""Handlers about the cluster itself: health, CA, joining, tokens, version.

Rules: joining needs a token and nothing else; the node's name and role come from us, the CSR gives only its key. A node's
certificate is good for NODE.node.shoal and the name all nodes share for their metrics, and for no other server: whoever chooses
a node's name must not get a certificate for the controller's. The secret of a token is compared in constant time and stands in
no log or document.
"""

from __future__ import annotations

import hmac
from typing import Any, Final, Literal, TypeAlias

from cryptography import x509
from starlette.responses import PlainTextResponse, Response

from controller.api.context import Api, Call
from controller.api.schemas import JoinBody, NodeInfoBody, RegistryCertificateBody, TokenBody
from controller.certificates import LEAF_DAYS, serial_of
from model import codec
from model.documents import ClusterDoc, LeaderDoc, NodeDoc, NodeInfo, StatusDoc, TokenDoc, key
from model.errors import BadInput, Conflict, Unauthorized
from model.pki_names import (
    AGENT_METRICS_NAME,
    ROLE_NODE,
    ROLE_REGISTRY,
    node_name_problem,
    node_server_name,
    registry_name_problem,
)
from model.store_port import Delete, Guard, Op, Put
from model.tokens import Token, parse_token
from model.version import VERSION

Role: TypeAlias = Literal["worker", "manager"]
TOKEN_KEPT_MS: Final = 3_600_000
"""So long after its end a token's document stays: controllers' clocks may differ."""
TOKENS_AT_ONCE: Final = 50


async def healthz(api: Api, call: Call) -> Response:
    return PlainTextResponse("ok")


async def ca(api: Api, call: Call) -> dict[str, str]:
    return {"ca": api.pki.authority.pem.decode()}


async def version(api: Api, call: Call) -> dict[str, Any]:
    leader: LeaderDoc | None = api.snapshot().one("leader")
    cluster: ClusterDoc | None = api.snapshot().one("cluster")
    return {
        "version": VERSION,
        "api": "v1",
        "controller": api.name,
        "leader": leader.controller if leader else "",
        "epoch": leader.epoch if leader else 0,
        "cluster_id": cluster.id if cluster else "",
    }


async def make_token(api: Api, call: Call) -> dict[str, str]:
    body: TokenBody = call.body
    token = Token(api.pki.authority.fingerprint(), api.random.token_hex(6), api.random.token_hex(24))
    expires_ms = api.now_ms() + int(body.ttl_s * 1000)
    document = TokenDoc(token.id, token.secret_sha256(), body.role, expires_ms)
    path = key("tokens", token.id)
    await api.commit([Guard(path, 0)], [Put(path, codec.encode(document)), *_expired_tokens(api)])
    return {"token": token.text()}


async def registry_certificate(api: Api, call: Call) -> dict[str, str]:
    """For a registry that runs in the cluster. It is good for no daemon's name, and to call nobody with."""
    body: RegistryCertificateBody = call.body
    for name in body.names:
        if problem := registry_name_problem(name):
            raise BadInput(problem)
    names = list(dict.fromkeys(body.names))
    made = api.pki.authority.sign_csr(body.csr, body.name, ROLE_REGISTRY, names, LEAF_DAYS, serves_only=True)
    return {"certificate": made.decode(), "ca": api.pki.authority.pem.decode()}


def _expired_tokens(api: Api) -> list[Op]:
    """Nobody else removes them. The ids are never used again, so no guard is needed."""
    rows: list[TokenDoc] = [row for _, row in sorted(api.snapshot().of("tokens").items())]
    gone = [row.id for row in rows if row.expires_ms and row.expires_ms < api.now_ms() - TOKEN_KEPT_MS]
    return [Delete(key("tokens", name)) for name in gone[:TOKENS_AT_ONCE]]


async def join(api: Api, call: Call) -> dict[str, Any]:
    body: JoinBody = call.body
    if problem := node_name_problem(body.name):
        raise BadInput(problem)
    role = await _redeem(api, body.token)
    before = await joinable(api, body.name)
    certificate = api.pki.authority.sign_csr(body.csr, body.name, ROLE_NODE, [node_server_name(body.name), AGENT_METRICS_NAME])
    document = await enter(api, body, role, serial_of(x509.load_pem_x509_certificate(certificate)), before)
    return {
        "ca": api.pki.authority.pem.decode(),
        "certificate": certificate.decode(),
        "node": body.name,
        "node_id": document.id,
        "controllers": dispatch_addresses(api),
        "apis": api_addresses(api),
    }


async def joinable(api: Api, name: str) -> tuple[NodeDoc | None, int]:
    """The node that had this name before, and its revision. Raises Conflict when it lives."""
    node, revision = await api.read("nodes", name)
    if node is not None and _alive(api, name):
        raise Conflict(f"a node named {name} is in the cluster and ready: choose another name, or remove that one first")
    return node, revision


async def enter(api: Api, body: JoinBody, role: Role, serial: str, before: tuple[NodeDoc | None, int]) -> NodeDoc:
    """Writes that the machine with this certificate is the node. `before`: what `joinable` said."""
    node, revision = before
    document = _joined(api, body, role, serial, node)
    ops: list[Op] = [Put(key("nodes", body.name), codec.encode(document))]
    guards = [Guard(key("nodes", body.name), revision)]
    status, status_revision = await api.read("status", body.name)
    if status is None:
        guards.append(Guard(key("status", body.name), status_revision))
        ops.append(Put(key("status", body.name), codec.encode(StatusDoc(body.name, _info(body.info)))))
    await api.commit(guards, ops)
    return document


def dispatch_addresses(api: Api) -> list[str]:
    """This controller's first (the caller reached it), then the leader's, then those of others."""
    return _addresses(api, api.dispatch_address, "dispatch")


def api_addresses(api: Api) -> list[str]:
    return _addresses(api, api.api_address, "api")


def _addresses(api: Api, own: str, field: str) -> list[str]:
    snapshot = api.snapshot()
    leader: LeaderDoc | None = snapshot.one("leader")
    known = [*([leader] if leader else []), *(row for _, row in sorted(snapshot.of("controllers").items()))]
    return list(dict.fromkeys([own, *(address for row in known if (address := getattr(row, field)))]))


async def _redeem(api: Api, text: str) -> Role:
    """The role the token gives. Raises Unauthorized; one message for every way of being wrong."""
    refused = Unauthorized("the join token is wrong or has expired: make a new one with `shoal node token`")
    try:
        token = parse_token(text)
    except BadInput:
        raise refused from None
    document, _ = await api.read("tokens", token.id)
    stored = document.secret_sha256 if document is not None else "0" * 64
    same = hmac.compare_digest(stored, token.secret_sha256())
    if not same or document is None or token.ca_sha256 != api.pki.authority.fingerprint():
        raise refused
    if document.expires_ms and document.expires_ms < api.now_ms():
        raise refused
    role: Role = document.role
    return role


def _alive(api: Api, node: str) -> bool:
    session = api.dispatch.sessions().get(node)
    health = api.snapshot().of("health").get(node)
    return (session is not None and session.open) or (health is not None and health.state == "ready")


def _joined(api: Api, body: JoinBody, role: Role, serial: str, before: NodeDoc | None) -> NodeDoc:
    """A machine that joins again under its name keeps all but its id and certificate."""
    labels = {**dict(before.labels if before else ()), **body.labels}
    return NodeDoc(
        name=body.name,
        id=api.random.token_hex(8),
        serial=serial,
        role=role,
        labels=tuple(sorted(labels.items())),
        availability=before.availability if before else "active",
        joined_ms=api.now_ms(),
        generic=before.generic if before else (),
    )


def _info(body: NodeInfoBody) -> NodeInfo:
    return NodeInfo(**body.model_dump())


async def openapi(api: Api, call: Call) -> Any:
    from controller.api.openapi import description
    from controller.api.routes import ROUTES

    return description(ROUTES)
