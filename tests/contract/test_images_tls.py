"""TLS to registries: the right CA is taken, any other is a clear error, and it is never given up for plain http."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from agent.images.errors import RegistryRefused
from agent.images.records import RegistryConfig
from agent.images.registry import RegistryClient
from model.image_ref import parse_image_ref
from tests.contract.images_server import FakeRegistry, fake_registry, make_image

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
