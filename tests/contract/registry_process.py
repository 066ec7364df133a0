"""Debian's docker-registry as tests want it: with passwords, TLS, read-only; and skopeo, which knows nothing of shoal."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme

USER, PASSWORD = "ann", "right"
_HTPASSWD = f"{USER}:$2b$04$abcdefghijklmnopqrstuuFmEfrkTQnczNzw475xE2VhDrK1uwJiC\n"
"""At the lowest cost there is: it is checked on every request."""
_READY_S = 20.0


@dataclass
class Registry:
    endpoint: str
    directory: Path
    ca_file: Path | None = None
    skopeo_options: list[str] = field(default_factory=list)

    def url(self, name: str) -> str:
        return f"docker://{self.endpoint}/{name}"

    def raw(self, name: str) -> bytes:
        """The manifest as skopeo reads it."""
        return skopeo("inspect", "--raw", *self.skopeo_options, self.url(name))

    def fetch(self, name: str, target: Path) -> dict[str, bytes]:
        """Everything of an image as skopeo copies it, by file name: `manifest.json`, blobs by their hex digest."""
        options = [option.replace("--", "--src-") for option in self.skopeo_options]
        skopeo("copy", "--preserve-digests", *options, self.url(name), f"dir:{target}")
        return {file.name: file.read_bytes() for file in target.iterdir()}

    def give(self, source: str, name: str, *more: str) -> None:
        options = [option.replace("--", "--dest-") for option in self.skopeo_options]
        skopeo("copy", *more, *options, source, self.url(name))


def skopeo(*arguments: str) -> bytes:
    done = subprocess.run(["skopeo", "--insecure-policy", *arguments], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@contextmanager
def registry_process(
    directory: Path, *, secured: bool = False, read_only: bool = False, **variables: str
) -> Iterator[Registry]:
    """`secured`: TLS with a CA of its own, and one user. `variables`: of its environment, as `run -e` gives them."""
    directory.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{probe.getsockname()[1]}"
    config: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(directory / "data")},
            "maintenance": {"uploadpurging": {"enabled": False}, "readonly": {"enabled": read_only}},
        },
        "http": {"addr": endpoint, "secret": "s"},
        "health": {"storagedriver": {"enabled": False}},
    }
    registry = Registry(endpoint, directory, skopeo_options=["--tls-verify=false"])
    if secured:
        registry = _secured(registry, config)
    (directory / "registry.yml").write_text(json.dumps(config))
    program = shutil.which("docker-registry") or ""
    environment = {**os.environ, **variables}
    command = ["setpriv", "--pdeathsig", "KILL", program, "serve", str(directory / "registry.yml")]
    with (directory / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, env=environment) as process:
        try:
            _wait(registry, process)
            yield registry
        finally:
            process.kill()


def _secured(registry: Registry, config: dict[str, Any]) -> Registry:
    ca, folder = trustme.CA(), registry.directory
    own = ca.issue_cert("127.0.0.1")
    ca.cert_pem.write_to_path(folder / "ca.crt")
    own.cert_chain_pems[0].write_to_path(folder / "own.pem")
    own.private_key_pem.write_to_path(folder / "own.private")
    (folder / "htpasswd").write_text(_HTPASSWD)
    config["auth"] = {"htpasswd": {"realm": "here", "path": str(folder / "htpasswd")}}
    config["http"]["tls"] = {"certificate": str(folder / "own.pem"), "key": str(folder / "own.private")}
    options = [f"--cert-dir={folder}", f"--creds={USER}:{PASSWORD}"]
    return Registry(registry.endpoint, folder, folder / "ca.crt", options)


def _wait(registry: Registry, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _READY_S
    while True:
        if process.poll() is not None or time.monotonic() > end:
            raise AssertionError((registry.directory / "log").read_text())
        connection = http.client.HTTPConnection(registry.endpoint, timeout=2)
        if registry.ca_file:
            context = ssl.create_default_context(cafile=str(registry.ca_file))
            connection = http.client.HTTPSConnection(registry.endpoint, timeout=2, context=context)
        try:
            connection.request("GET", "/v2/")
            connection.getresponse().read()
            return
        except (OSError, http.client.HTTPException):
            time.sleep(0.02)
        finally:
            connection.close()
