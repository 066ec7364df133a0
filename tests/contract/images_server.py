"""A registry whose faults a test chooses, and images made by hand. Speaks just enough of the distribution protocol."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import ssl
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar_of(files: dict[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            archive.addfile(info, io.BytesIO(data))
    return raw.getvalue()


@dataclass
class MadeImage:
    """An image as a registry keeps it."""

    manifest: bytes
    config: bytes
    tars: list[bytes]
    blobs: dict[str, bytes]

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)


def make_image(*layers: dict[str, bytes] | bytes, **config: Any) -> MadeImage:
    """One image of the given layers (files, or a ready tar); `config` goes into its run configuration."""
    tars = [files if isinstance(files, bytes) else tar_of(files) for files in layers]
    packed = [gzip.compress(tar, mtime=0) for tar in tars]
    document = {
        "os": "linux",
        "architecture": config.pop("architecture", "amd64"),
        "created": "2024-01-02T03:04:05Z",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]},
    }
    raw = json.dumps(document).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _part(raw, "application/vnd.oci.image.config.v1+json"),
        "layers": [_part(blob, "application/vnd.oci.image.layer.v1.tar+gzip") for blob in packed],
    }
    return MadeImage(json.dumps(manifest).encode(), raw, tars, {digest_of(blob): blob for blob in (raw, *packed)})


def make_index(*images: tuple[str, MadeImage]) -> bytes:
    """An index of (architecture, image)."""
    entries = [
        _part(image.manifest, OCI_MANIFEST) | {"platform": {"os": "linux", "architecture": architecture}}
        for architecture, image in images
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()


def _part(data: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


@dataclass
class Faults:
    """What goes wrong, counted down."""

    errors_503: int = 0
    cut_after_bytes: int = 0
    """Each blob's answer ends after that many bytes, `cuts` times."""
    cuts: int = 0
    hang_up: int = 0
    """Connections closed without an answer."""
    wrong_blob_byte: bool = False
    no_ranges: bool = False
    redirect_blobs_to: str = ""
    basic: str = ""
    bearer: str = ""
    """`user:password` the token server wants; blobs and manifests then want the token."""
    hold_blobs: threading.Event | None = None


@dataclass
class FakeRegistry:
    faults: Faults = field(default_factory=Faults)
    manifests: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    endpoint: str = ""
    blob_asked: threading.Event = field(default_factory=threading.Event)

    def put(self, name: str, image: MadeImage) -> None:
        """`repository:tag` becomes this image."""
        repository = name.rpartition(":")[0]
        self.manifests[name] = image.manifest
        self.manifests[f"{repository}@{image.digest}"] = image.manifest
        self.blobs |= image.blobs

    def count(self, part: str) -> int:
        return sum(1 for _, path, _ in self.requests if part in path)


@contextmanager
def fake_registry(tls: ssl.SSLContext | None = None) -> Iterator[FakeRegistry]:
    registry = FakeRegistry()

    class Handler(_Handler):
        state = registry

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    registry.endpoint = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: FakeRegistry
    protocol_version = "HTTP/1.1"
    timeout = 10

    def do_GET(self) -> None:
        faults = self.state.faults
        self.state.requests.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        if faults.hang_up > 0:
            faults.hang_up -= 1
            self.close_connection = True
        elif self.path.startswith("/token"):
            self._token()
        elif faults.errors_503 > 0:
            faults.errors_503 -= 1
            self._send(503, b"busy")
        elif self._is_allowed():
            self._content()

    do_HEAD = do_GET

    def _content(self) -> None:
        match = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/([^/]+)", self.path)
        if match is None:
            return self._send(404, b"{}")
        repository, kind, name = match.groups()
        if kind == "blobs":
            return self._blob(name)
        key = f"{repository}@{name}" if name.startswith("sha256:") else f"{repository}:{name}"
        raw = self.state.manifests.get(key)
        if raw is None:
            return self._send(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
        headers = {"Content-Type": str(json.loads(raw).get("mediaType", "")), "Docker-Content-Digest": digest_of(raw)}
        return self._send(200, raw, headers)

    def _blob(self, digest: str) -> None:
        faults = self.state.faults
        data = self.state.blobs.get(digest)
        if data is None:
            return self._send(404, b"{}")
        if faults.redirect_blobs_to:
            return self._send(307, b"", {"Location": f"{faults.redirect_blobs_to}{self.path}"})
        self.state.blob_asked.set()
        if faults.hold_blobs is not None:
            faults.hold_blobs.wait(10)
        if faults.wrong_blob_byte:
            data = bytes([data[0]]) + data[1:-1] + bytes([data[-1] ^ 1])
        start = 0
        wanted = re.fullmatch(r"bytes=(\d+)-\d+", self.headers.get("Range", ""))
        if wanted and not faults.no_ranges:
            start = int(wanted[1])
            headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
            return self._send(206, data[start:], headers)
        return self._send(200, data)

    def _is_allowed(self) -> bool:
        faults, given = self.state.faults, self.headers.get("Authorization", "")
        if faults.basic and given != f"Basic {base64.b64encode(faults.basic.encode()).decode()}":
            self._send(401, b"{}", {"WWW-Authenticate": 'Basic realm="here"'})
            return False
        if faults.bearer and given != "Bearer good":
            challenge = f'Bearer realm="http://{self.state.endpoint}/token",service="fake",scope="repository:x:pull"'
            self._send(401, b"{}", {"WWW-Authenticate": challenge})
            return False
        return True

    def _token(self) -> None:
        wanted = f"Basic {base64.b64encode(self.state.faults.bearer.encode()).decode()}"
        if self.headers.get("Authorization", "") == wanted:
            self._send(200, b'{"token": "good"}')
        else:
            self._send(401, b"{}")

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        faults = self.state.faults
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if faults.cuts > 0 and "/blobs/" in self.path and len(body) > faults.cut_after_bytes:
            faults.cuts -= 1
            self.wfile.write(body[: faults.cut_after_bytes])
            self.close_connection = True
            return
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass
