"""Joining a cluster with a token, against a real HTTPS server with a real CA."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agent.core.tls import load_pki, role_of
from agent.identity import JoinRequest, join, load_identity, save_controllers, wipe_identity
from controller.certificates import Authority, new_authority
from model.documents import NodeInfo
from model.errors import BadInput, ShoalError, Unauthorized, Unavailable
from model.pki_names import CONTROLLER_SERVER_NAME, node_server_name
from model.tokens import Token

pytestmark = pytest.mark.contract


class Front:
    """A controller's HTTPS front, only what a join needs. `served_ca`: what GET /v1/ca says."""

    def __init__(self, authority: Authority, tls: Authority, served_ca: bytes, folder: Path) -> None:
        self.authority = authority
        self.served_ca = served_ca
        self.bodies: list[dict[str, Any]] = []
        self.answer: tuple[int, dict[str, Any]] | None = None
        pair = tls.issue("c1", "controller", [CONTROLLER_SERVER_NAME])
        (folder / "c.pem").write_bytes(pair.certificate)
        (folder / "c.key").write_bytes(pair.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "c.pem", folder / "c.key")
        front = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply(200, {"ca": front.served_ca.decode()})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                front.bodies.append(body)
                self.reply(*(front.answer or (200, front.join(body))))

            def reply(self, status: int, plain: dict[str, Any]) -> None:
                data = json.dumps(plain).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server.server_address[1]}"

    def join(self, body: dict[str, Any]) -> dict[str, Any]:
        name = body["name"]
        certificate = self.authority.sign_csr(body["csr"], name, "node", [node_server_name(name)])
        return {
            "ca": self.authority.pem.decode(), "certificate": certificate.decode(), "node": name, "node_id": "id1",
            "controllers": ["10.0.0.1:7444"], "apis": [self.url],
        }  # fmt: skip


@contextmanager
def serving(front: Front) -> Iterator[Front]:
    thread = threading.Thread(target=front.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield front
    finally:
        front.server.shutdown()
        front.server.server_close()
        thread.join()


def token_of(authority: Authority) -> str:
    der = ssl.PEM_cert_to_DER_cert(authority.pem.decode())
    return Token(sha256(der).hexdigest(), "abc", "s" * 32).text()


def request(front: Front, token: str, name: str = "n1") -> JoinRequest:
    return JoinRequest((front.url,), token, name, NodeInfo(cpus=2.0), (("zone", "a"),), wait_s=0.0)


@pytest.fixture
def ours() -> Authority:
    return Authority(new_authority("shoal cluster CA"))


def test_a_join_leaves_identity_and_private_keys(tmp_path: Path, ours: Authority) -> None:
    with serving(Front(ours, ours, ours.pem, tmp_path)) as front:
        joined = join(tmp_path / "data", request(front, token_of(ours)))
    assert (joined.name, joined.id, joined.controllers) == ("n1", "id1", ("10.0.0.1:7444",))
    assert load_identity(tmp_path / "data") == joined
    assert role_of(load_pki(tmp_path / "data").certificate) == "node"
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "data").rglob("*") if path.is_file()}
    assert modes == {"node.json": 0o600, "node.key": 0o600, "node.pem": 0o600, "ca.pem": 0o600}
    assert (front.bodies[0]["labels"], front.bodies[0]["info"]["cpus"]) == ({"zone": "a"}, 2.0)
    save_controllers(tmp_path / "data", ["10.0.0.2:7444"])
    found = load_identity(tmp_path / "data")
    assert found is not None
    assert found.controllers == ("10.0.0.2:7444",)
    wipe_identity(tmp_path / "data")
    assert load_identity(tmp_path / "data") is None
    assert not (tmp_path / "data/pki").exists()


def refused(tmp_path: Path, front: Front, token: str, name: str = "n1") -> ShoalError:
    with serving(front), pytest.raises(ShoalError) as caught:
        join(tmp_path / "data", request(front, token, name))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()
    return caught.value


def padded_authority() -> Authority:
    """One whose certificate ends with padding in base64, as two of three do."""
    while True:
        authority = Authority(new_authority("shoal cluster CA"))
        if "=" in authority.pem.decode():
            return authority


def test_a_second_ca_behind_the_pinned_one_is_not_trusted(tmp_path: Path) -> None:
    ours, other = padded_authority(), Authority(new_authority("shoal cluster CA"))
    front = Front(other, other, ours.pem + other.pem, tmp_path)
    error = refused(tmp_path, front, token_of(ours))
    assert isinstance(error, Unauthorized)
    assert front.bodies == []


def test_another_ca_than_the_tokens_gets_no_secret(tmp_path: Path, ours: Authority) -> None:
    other = Authority(new_authority("shoal cluster CA"))
    front = Front(other, other, other.pem, tmp_path)
    error = refused(tmp_path, front, token_of(ours))
    assert isinstance(error, Unauthorized)
    assert front.bodies == []


def test_somebody_between_who_shows_the_right_ca_gets_no_secret(tmp_path: Path, ours: Authority) -> None:
    other = Authority(new_authority("shoal cluster CA"))
    front = Front(other, other, ours.pem, tmp_path)
    error = refused(tmp_path, front, token_of(ours))
    assert isinstance(error, Unauthorized)
    assert "not of the token's cluster" in str(error)
    assert front.bodies == []


def test_a_refusal_is_told_in_the_controllers_words(tmp_path: Path, ours: Authority) -> None:
    front = Front(ours, ours, ours.pem, tmp_path)
    front.answer = (403, {"error": {"code": "unauthorized", "message": "the token has expired: make a new one"}})
    error = refused(tmp_path, front, token_of(ours))
    assert str(error) == f"{front.url} refused the join: the token has expired: make a new one"
    assert isinstance(error, Unauthorized)


@pytest.mark.parametrize(("token", "name", "words"), [
    ("SHOAL-1-x", "n1", "not a join token"), ("", "Bad_Name", "node name"),
])  # fmt: skip
def test_wrong_words_are_named(tmp_path: Path, ours: Authority, token: str, name: str, words: str) -> None:
    error = refused(tmp_path, Front(ours, ours, ours.pem, tmp_path), token or token_of(ours), name)
    assert isinstance(error, BadInput)
    assert words in str(error)


def test_nobody_there(tmp_path: Path, ours: Authority) -> None:
    front = Front(ours, ours, ours.pem, tmp_path)
    front.server.server_close()
    with pytest.raises(Unavailable, match="no controller answers there"):
        join(tmp_path / "data", request(front, token_of(ours)))
