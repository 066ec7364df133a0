"""TLS to registries: the right CA is taken, any other is a clear error, and it is never given up for plain http."""

from __future__ import annotations

import gc
import shutil
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType

import pytest
import trustme

from agent.images.errors import RegistryRefused
from agent.images.manifest import Documents, Manifest, parse_index_or_manifest
from agent.images.push import Push
from agent.images.records import Credentials, Limits, RegistryConfig
from agent.images.registry import RegistryClient
from cli import context
from cli.docker_config import Login
from cli.registry import check_login, get
from model.errors import Unauthorized, Unavailable
from model.image_ref import ImageRef, parse_image_ref
from model.registry_auth import basic_header
from tests.contract.images_server import FakeRegistry, digest_of, fake_registry, make_image
from tests.contract.registry_process import PASSWORD, USER, Registry, registry_process

pytestmark = pytest.mark.contract


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[FakeRegistry]:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    with fake_registry(context) as running:
        running.put("shop/web:1", make_image({"f": b"x"}))
        yield running


def resolve(registry: FakeRegistry, ca_file: Path) -> str:
    client = RegistryClient(RegistryConfig(ca_files={registry.endpoint: ca_file}, platform="linux/amd64", backoff_s=0.001))
    try:
        return client.resolve(parse_image_ref(f"{registry.endpoint}/shop/web:1")).manifest.digest
    finally:
        client.close()


def test_the_right_ca_is_taken(registry: FakeRegistry, tmp_path: Path) -> None:
    assert resolve(registry, tmp_path / "ca.pem") == make_image({"f": b"x"}).digest


def test_no_redirect_leads_from_tls_to_plain_http(registry: FakeRegistry, tmp_path: Path) -> None:
    config = RegistryConfig(ca_files={registry.endpoint: tmp_path / "ca.pem"}, platform="linux/amd64", backoff_s=0.001)
    client, ref = RegistryClient(config), parse_image_ref(f"{registry.endpoint}/shop/web:1")
    with fake_registry() as plain:
        registry.faults.redirect_blobs_to = f"http://{plain.endpoint}"
        found = client.resolve(ref)
        with pytest.raises(RegistryRefused, match=rf"leads to http://{plain.endpoint}, which is refused"):
            client.blob_bytes(registry.endpoint, ref, found.manifest.config)
        client.close()
        assert plain.requests == []


def test_another_ca_is_refused_at_once(registry: FakeRegistry, tmp_path: Path) -> None:
    with pytest.raises(RegistryRefused, match=r"TLS failed \(CERTIFICATE_VERIFY_FAILED\)"):
        resolve(registry, tmp_path / "other.pem")
    assert registry.requests == []


@contextmanager
def ends_once(target: str) -> Iterator[str]:
    """`host:port` of a line to `target` that ends in the first handshake."""
    host, _, port = target.partition(":")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def pass_on(source: socket.socket, to: socket.socket) -> None:
            with suppress(OSError):
                while data := source.recv(65_536):
                    to.sendall(data)
                to.shutdown(socket.SHUT_WR)

        def serve() -> None:
            first, _ = listening.accept()
            first.recv(65_536)
            first.close()
            try:
                second, _ = listening.accept()
            except OSError:
                return  # nobody came again
            with second, socket.create_connection((host, int(port))) as registry:
                back = threading.Thread(target=pass_on, args=(registry, second))
                back.start()
                pass_on(second, registry)
                back.join()

        line = threading.Thread(target=serve)
        line.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            line.join()


def test_a_handshake_that_breaks_off_is_tried_again(registry: FakeRegistry, tmp_path: Path) -> None:
    with ends_once(registry.endpoint) as endpoint:
        config = RegistryConfig(ca_files={endpoint: tmp_path / "ca.pem"}, platform="linux/amd64", backoff_s=0.001)
        client = RegistryClient(config)
        found = client.resolve(parse_image_ref(f"{endpoint}/shop/web:1"))
        client.close()
        assert found.manifest.digest == make_image({"f": b"x"}).digest


def test_a_registry_without_tls_is_told_apart_from_one_that_is_not_trusted(tmp_path: Path, registry: FakeRegistry) -> None:
    with fake_registry() as plain:
        with pytest.raises(RegistryRefused, match=r"it speaks plain http: .* start agents with --insecure-registry"):
            resolve(plain, tmp_path / "ca.pem")
        with pytest.raises(Unavailable, match=r"it speaks plain http: .* log in on a node as localhost:PORT"):
            get(f"https://{plain.endpoint}/v2/")
        where = plain.endpoint
    with pytest.raises(Unavailable, match=f"connection refused: {where} is asked for on this machine: a node's"):
        get(f"http://{where}/v2/")


def test_a_certificate_for_another_name_says_so_and_blames_no_ca(registry: FakeRegistry, tmp_path: Path) -> None:
    endpoint = registry.endpoint.replace("127.0.0.1", "localhost")
    client = RegistryClient(RegistryConfig(ca_files={endpoint: tmp_path / "ca.pem"}, platform="linux/amd64", backoff_s=0.001))
    with pytest.raises(RegistryRefused, match=r"certificate is not valid for 'localhost'$"):
        client.resolve(parse_image_ref(f"{endpoint}/shop/web:1"))
    client.close()


@pytest.mark.parametrize("asks", ["basic", "bearer"])
def test_of_a_password_nothing_is_kept_when_the_call_is_over(asks: str) -> None:
    with fake_registry() as running:
        running.put("shop/web:1", make_image({"f": b"x"}))
        setattr(running.faults, asks, "ana:right")
        client, ref = RegistryClient(RegistryConfig(platform="linux/amd64")), parse_image_ref(f"{running.endpoint}/shop/web:1")
        for _ in range(2):
            client.resolve(ref, Credentials("ana", "right"))
        asked = len(running.requests)
        client.resolve(ref, Credentials("ana", "right"))
        assert len(running.requests) == asked + 1  # what works is known
        assert not [text for text in texts_in(client) if "right" in text or basic_header("ana", "right") in text]
        with pytest.raises(RegistryRefused):
            client.resolve(ref, Credentials("ana", "wrong"))
        client.close()


def texts_in(top: object) -> list[str]:
    """All that can be reached from it, without what belongs to the program."""
    seen, todo, texts = set[int](), [top], list[str]()
    while todo:
        each = todo.pop()
        if id(each) in seen or isinstance(each, type | ModuleType | FunctionType):
            continue
        seen.add(id(each))
        if isinstance(each, str):
            texts.append(each)
        todo += gc.get_referents(each)
    return texts


@dataclass(frozen=True, slots=True)
class Secured:
    """Debian's docker-registry on loopback, with a password and TLS; to `client` its CA is the cluster's."""

    running: Registry
    client: RegistryClient
    ref: ImageRef

    def push(self) -> str:
        image = make_image({"f": b"x" * 100_000})
        parsed = parse_index_or_manifest(image.manifest, "x", "linux/amd64", Limits())
        assert isinstance(parsed, Manifest)
        push = Push(self.client.calls, self.client.calls.access(self.running.endpoint, self.ref, None, pushes=True))
        for part in (*parsed.layers, parsed.config):
            data = image.blobs[part.digest]
            push.blob(part, lambda at, size, data=data: data[at : at + size], (), lambda _: None)  # type: ignore[misc]
        push.manifest(Documents(parsed, image.manifest))
        return parsed.digest


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Secured]:
    with registry_process(tmp_path / "registry", secured=True) as running:
        config = RegistryConfig(
            cluster_ca=running.ca_file, platform="linux/amd64", backoff_s=0.001,
            credentials={running.endpoint: Credentials(USER, PASSWORD)},
        )  # fmt: skip
        client = RegistryClient(config)
        yield Secured(running, client, parse_image_ref(f"{running.endpoint}/shop/web:1"))
        client.close()


needs_registry = pytest.mark.skipif(shutil.which("docker-registry") is None, reason="Debian's docker-registry is not installed")


@needs_registry
def test_a_registry_of_the_cluster_on_this_machine_is_spoken_to_over_tls_when_it_wants_that(secured: Secured) -> None:
    digest = secured.push()
    assert secured.client.resolve(secured.ref).manifest.digest == digest
    assert digest_of(secured.running.raw("shop/web:1")) == digest


@needs_registry
def test_without_the_clusters_ca_it_is_refused(secured: Secured) -> None:
    client = RegistryClient(RegistryConfig(platform="linux/amd64"))
    with pytest.raises(RegistryRefused, match=r"TLS failed \(CERTIFICATE_VERIFY_FAILED\): .*--registry-ca"):
        client.resolve(secured.ref)
    client.close()


@needs_registry
def test_login_is_tried_over_tls_with_the_clusters_ca(
    secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOAL_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.delenv("SHOAL_CONTEXT", raising=False)
    with pytest.raises(Unavailable, match="is not trusted here"):
        check_login(secured.running.endpoint, Login(USER, PASSWORD))
    assert secured.running.ca_file is not None
    context.save(context.Context("c", (), secured.running.ca_file.read_text(), "", ""))
    check_login(secured.running.endpoint, Login(USER, PASSWORD))
    with pytest.raises(Unauthorized, match="incorrect username or password"):
        check_login(secured.running.endpoint, Login(USER, "wrong"))
