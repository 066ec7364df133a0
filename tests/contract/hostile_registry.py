"""A registry that is honest until a test says otherwise: it keeps manifests and blobs, takes uploads, wants a password, and a
`lie` may answer any request in its place."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from tests.contract.images_server import MadeImage, digest_of

USER, PASSWORD = "ann", "hunter2"
BASIC = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""

    def asks(self, method: str, part: str) -> bool:
        return self.method == method and part in self.path


@dataclass
class Answer:
    """`raw`: these bytes instead of everything HTTP. `length`: what Content-Length says, when it lies."""

    status: int = 200
    body: bytes | Iterable[bytes] = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    raw: bytes | None = None


Lie = Callable[["Hostile", Request], Answer | None]


@dataclass
class Hostile:
    """`break_uploads`: that many parts of uploads are half taken, then the connection is lost."""

    lie: Lie = lambda _, __: None
    manifests: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    endpoint: str = ""
    elsewhere: str = ""
    break_uploads: int = 0
    asked: int = 0
    """For lies that answer the first time otherwise than the second."""

    def put(self, name: str, image: MadeImage) -> None:
        self.manifests[name] = self.manifests[image.digest] = image.manifest
        self.blobs |= image.blobs

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        lie = self.lie(self, request)
        if lie is not None:
            return lie
        if request.path.startswith("/token"):
            return Answer(200, b'{"token": "honest"}')
        if request.headers.get("authorization") not in (BASIC, "Bearer honest"):
            return Answer(401, b"{}", {"WWW-Authenticate": 'Basic realm="here"'})
        return self.honest(request)

    def honest(self, request: Request) -> Answer:
        path, _, _ = request.path.partition("?")
        if "/blobs/uploads/" in path:
            return self._upload(request, path)
        match = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/([^/]+)", path)
        if match is None:
            return Answer(404, b"{}")
        kept = self.manifests if match[2] == "manifests" else self.blobs
        if request.method == "PUT":
            kept[match[3]] = request.body
            return Answer(201, b"", {"Docker-Content-Digest": digest_of(request.body)})
        if match[3] not in kept:
            return Answer(404, b'{"errors": [{"code": "UNKNOWN", "message": "not\\nhere"}]}')
        return self._content(request, kept[match[3]], match[2] == "manifests")

    def _content(self, request: Request, data: bytes, is_manifest: bool) -> Answer:
        if request.method == "HEAD":
            return Answer(200, b"", {}, length=len(data))
        if is_manifest:
            with contextlib.suppress(ValueError):
                return Answer(200, data, {"Content-Type": str(json.loads(data).get("mediaType", ""))})
        wanted = re.fullmatch(r"bytes=(\d+)-\d+", request.headers.get("range", ""))
        if wanted and not is_manifest:
            start = int(wanted[1])
            return Answer(206, data[start:], {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"})
        return Answer(200, data)

    def _upload(self, request: Request, path: str) -> Answer:
        if request.method == "POST":
            name = f"u{len(self.uploads)}"
            self.uploads[name] = b""
            return Answer(202, b"", {"Location": f"{path}{name}?state=1", "Range": "0-0"})
        name = path.rpartition("/")[2]
        self.uploads[name] += request.body
        has = len(self.uploads[name])
        if request.method == "PUT":
            digest = parse_qs(urlsplit(request.path).query)["digest"][0]
            if digest != digest_of(self.uploads[name]):
                return Answer(400, b'{"errors": [{"code": "DIGEST_INVALID", "message": "another digest"}]}')
            self.blobs[digest] = self.uploads[name]
            return Answer(201, b"", {"Docker-Content-Digest": digest})
        status = 204 if request.method == "GET" else 202
        return Answer(status, b"", {"Location": request.path, "Range": f"0-{max(has - 1, 0)}"})


@contextmanager
def hostile_registry(host: str = "127.0.0.1") -> Iterator[Hostile]:
    state = Hostile()
    handler = type("Handler", (_Handler,), {"state": state})
    server = ThreadingHTTPServer((host, 0), handler)
    server.daemon_threads = True
    state.endpoint = f"{host}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: Hostile
    protocol_version = "HTTP/1.1"
    timeout = 5

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # the client hangs up on lies
            super().handle()

    def _any(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        if self.command == "PATCH" and self.state.break_uploads > 0 and size > 1:
            self.state.break_uploads -= 1
            self._half_taken(self.rfile.read(size // 2), headers)
            return
        answer = self.state.answer(Request(self.command, self.path, headers, self.rfile.read(size)))
        if answer.raw is not None:
            self.wfile.write(answer.raw)
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        body = answer.body
        if isinstance(body, bytes):
            length = len(body) if answer.length is None else answer.length
            self.send_header("Content-Length", str(length))
            self.close_connection = self.close_connection or length != len(body)
            body = [body]
        else:
            self.close_connection = True
        self.end_headers()
        for piece in body if self.command != "HEAD" else ():
            self.wfile.write(piece)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _any

    def _half_taken(self, data: bytes, headers: dict[str, str]) -> None:
        self.state.requests.append(Request("PATCH", self.path, headers, data))
        self.state.uploads[self.path.partition("?")[0].rpartition("/")[2]] += data
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass
