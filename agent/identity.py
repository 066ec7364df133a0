"""Joining a cluster once, and knowing afterwards who this node is: DIR/pki and DIR/node.json.

Rules: the token pins the cluster's CA; nothing is believed before that pin is verified, and the secret is sent only over TLS
verified against it. The private key is made here, is 0600 and never leaves the node. Blocking calls, used before anything else.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import ssl
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent.core.session import NodeIdentity
from model import codec
from model.documents import NodeInfo
from model.errors import BadInput, ShoalError, Unauthorized, Unavailable
from model.pki_names import CONTROLLER_SERVER_NAME, ROLE_NODE, node_name_problem, node_server_name
from model.spec import Pairs
from model.tokens import Token, parse_token

_TIMEOUT_S = 10.0
_BODY_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """`urls`: https://HOST:PORT of controllers; `wait_s`: how long to wait for one that answers."""

    urls: tuple[str, ...]
    token: str
    name: str
    info: NodeInfo
    labels: Pairs = ()
    wait_s: float = 30.0


def load_identity(data_dir: Path) -> NodeIdentity | None:
    """Who this node is; None before it has joined. Raises BadInput for a damaged file."""
    path = data_dir / "node.json"
    if not path.exists():
        return None
    try:
        plain = json.loads(path.read_bytes())
        return NodeIdentity(plain["name"], plain["node_id"], tuple(plain["controllers"]))
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} is damaged ({error}): remove it and join again with a token") from error


def save_controllers(data_dir: Path, controllers: list[str]) -> None:
    """Remember where controllers are, for the next start."""
    path = data_dir / "node.json"
    plain = json.loads(path.read_bytes())
    if plain.get("controllers") != controllers:
        _write_private(path, json.dumps(plain | {"controllers": controllers}, indent=2).encode())


def wipe_identity(data_dir: Path) -> None:
    """The node was removed: its key and name are worth nothing any more."""
    (data_dir / "node.json").unlink(missing_ok=True)
    shutil.rmtree(data_dir / "pki", ignore_errors=True)


def join(data_dir: Path, request: JoinRequest) -> NodeIdentity:
    """Join the cluster and save DIR/pki and DIR/node.json.

    Raises BadInput (token, name, URL), Unauthorized (wrong CA or refused token) and Unavailable.
    """
    problem = node_name_problem(request.name)
    if problem:
        raise BadInput(f"{problem} (--name)")
    token = parse_token(request.token)
    until = time.monotonic() + request.wait_s
    while True:
        for url in request.urls:
            try:
                return _join_at(url, data_dir, request, token)
            except Unavailable:
                if time.monotonic() >= until and url == request.urls[-1]:
                    raise
        time.sleep(0.2)


def _join_at(url: str, data_dir: Path, request: JoinRequest, token: Token) -> NodeIdentity:
    host, port = _address(url)
    ca = _pinned_ca(url, host, port, token)
    key, csr = _key_and_csr(request.name)
    context = ssl.create_default_context(cadata=ca)
    body: dict[str, Any] = {
        "token": request.token.strip(),
        "csr": csr,
        "name": request.name,
        "info": codec.to_plain(request.info),
    }
    if request.labels:
        body["labels"] = dict(request.labels)
    answer = _call(url, host, port, context, "POST", "/v1/join", body)
    try:
        identity = NodeIdentity(answer["node"], answer["node_id"], tuple(answer["controllers"]))
        certificate = answer["certificate"]
    except KeyError as error:
        raise Unavailable(f"{url}: the answer to join lacks {error}: is this a shoal controller of this version?") from error
    folder = data_dir / "pki"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write_private(folder / "ca.pem", ca.encode())
    _write_private(folder / "node.key", key)
    _write_private(folder / "node.pem", certificate.encode())
    plain = {"name": identity.name, "node_id": identity.id, "controllers": list(identity.controllers)}
    _write_private(data_dir / "node.json", json.dumps(plain | {"apis": answer.get("apis", [])}, indent=2).encode())
    return identity


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url if "//" in url else f"https://{url}")
    if parts.scheme != "https" or not parts.hostname:
        raise BadInput(f"--join {url!r}: expected https://HOST:PORT of a controller")
    return parts.hostname, parts.port or 7443


def _pinned_ca(url: str, host: str, port: int, token: Token) -> str:
    """The cluster's CA as PEM, which must be the one the token names."""
    unverified = ssl._create_unverified_context()  # the pin in the token verifies what comes
    text = str(_call(url, host, port, unverified, "GET", "/v1/ca", None).get("ca", ""))
    try:
        ca = ssl.PEM_cert_to_DER_cert(text)
    except ValueError:
        raise Unavailable(f"{url}: no CA certificate came: is this a shoal controller?") from None
    if sha256(ca).hexdigest() != token.ca_sha256:
        raise Unauthorized(f"{url}: its CA is not the one the token names: wrong cluster, or somebody stands between")
    # Decoding stops at the padding: a second certificate behind it is not in the digest and must not be trusted.
    return ssl.DER_cert_to_PEM_cert(ca)


def _key_and_csr(name: str) -> tuple[bytes, str]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, name), x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, ROLE_NODE)]
    )
    names = x509.SubjectAlternativeName([x509.DNSName(node_server_name(name))])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).add_extension(names, False).sign(key, hashes.SHA256())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem, csr.public_bytes(serialization.Encoding.PEM).decode()


class _Connection(http.client.HTTPSConnection):
    """Dials an address but checks the name every controller's certificate carries."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=_TIMEOUT_S, context=context)
        self._own_context = context

    def connect(self) -> None:
        plain = socket.create_connection((self.host, self.port), self.timeout)
        try:
            self.sock = self._own_context.wrap_socket(plain, server_hostname=CONTROLLER_SERVER_NAME)
        except BaseException:
            plain.close()
            raise


def _call(url: str, host: str, port: int, context: ssl.SSLContext, method: str, path: str, body: Any) -> dict[str, Any]:
    connection = _Connection(host, port, context)
    try:
        data = json.dumps(body).encode() if body is not None else None
        connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
        response = connection.getresponse()
        plain = json.loads(response.read(_BODY_BYTES_MAX) or b"{}")
    except ssl.SSLCertVerificationError as error:
        raise Unauthorized(f"{url}: its certificate is not of the token's cluster ({error.verify_message})") from error
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"{url}: no controller answers there ({str(error) or type(error).__name__})") from error
    except ValueError as error:
        raise Unavailable(f"{url}: the answer is no JSON: is this a shoal controller?") from error
    finally:
        connection.close()
    if response.status >= 400:
        raise _refusal(url, response.status, plain)
    return plain if isinstance(plain, dict) else {}


def _refusal(url: str, status: int, plain: Any) -> ShoalError:
    message = str(plain.get("error", {}).get("message", "")) if isinstance(plain, dict) else ""
    text = f"{url} refused the join: {message or f'HTTP status {status}'}".split("\n")[0]
    if status >= 500:
        return Unavailable(text)
    return Unauthorized(text) if status in (401, 403) else BadInput(text)


def _write_private(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".new-{path.name}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
