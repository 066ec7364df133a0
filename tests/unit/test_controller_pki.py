"""Certificates and files of the controller's PKI."""

from __future__ import annotations

import datetime as dt
import json
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from controller import certificates, pki
from controller.certificates import Authority, new_authority, read_peer, sans_of, serial_of
from model.errors import BadInput
from model.pki_names import AGENT_METRICS_NAME, CONTROLLER_SERVER_NAME, ROLE_REGISTRY, node_name_problem, registry_name_problem
from tests.contract.controller_harness import new_csr


def load(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def test_first_start_makes_everything_private_and_the_second_changes_nothing(tmp_path: Path) -> None:
    first = pki.ensure_pki(tmp_path / "pki", "c1", ["10.0.0.1"])
    pki.ensure_etcd_pki(first)
    before = {path.name: path.read_bytes() for path in first.directory.iterdir()}
    assert sorted(before) == sorted(
        f"{stem}.{end}"
        for stem in ("ca", "controller", "operator", "etcd-ca", "etcd-server", "etcd-client")
        for end in ("pem", "key")
    )
    for path in first.directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(first.directory.stat().st_mode) == 0o700
    second = pki.ensure_pki(tmp_path / "pki", "c1", ["10.0.0.1"])
    pki.ensure_etcd_pki(second)
    assert before == {path.name: path.read_bytes() for path in first.directory.iterdir()}


def test_roles_and_names(tmp_path: Path) -> None:
    made = pki.ensure_pki(tmp_path / "pki", "c1", ["10.0.0.1", "host.example"])
    controller, operator = load(made.controller.certificate), load(made.operator.certificate)
    assert (read_peer(controller).name, read_peer(controller).role) == ("c1", "controller")
    assert {CONTROLLER_SERVER_NAME, "10.0.0.1", "host.example", "127.0.0.1", "localhost"} <= sans_of(controller)
    assert (read_peer(operator).name, read_peer(operator).role) == ("admin", "operator")


def test_the_etcd_ca_signed_nothing_of_the_cluster(tmp_path: Path) -> None:
    made = pki.ensure_pki(tmp_path / "pki", "c1", [])
    pki.ensure_etcd_pki(made)
    etcd_ca = load(made.path("etcd-ca.pem").read_bytes())
    load(made.path("etcd-client.pem").read_bytes()).verify_directly_issued_by(etcd_ca)
    for pair in (made.controller, made.operator):
        with pytest.raises(ValueError):
            load(pair.certificate).verify_directly_issued_by(etcd_ca)


def test_a_certificate_that_ends_soon_or_lacks_a_name_is_renewed(tmp_path: Path) -> None:
    made = pki.ensure_pki(tmp_path / "pki", "c1", [])
    serial = serial_of(load(made.controller.certificate))
    more = pki.ensure_pki(tmp_path / "pki", "c1", ["10.9.9.9"])
    assert serial_of(load(more.controller.certificate)) != serial
    assert more.operator == made.operator
    old = more.authority.issue("admin", "operator", days=pki.RENEW_DAYS - 1)
    pki.write_private(made.path("operator.pem"), old.certificate)
    pki.write_private(made.path("operator.key"), old.key)
    renewed = pki.ensure_pki(tmp_path / "pki", "c1", ["10.9.9.9"])
    left = certificates.days_left(load(renewed.operator.certificate), dt.datetime.now(dt.UTC))
    assert left > pki.RENEW_DAYS


def test_half_a_ca_is_an_error_and_never_replaced(tmp_path: Path) -> None:
    made = pki.ensure_pki(tmp_path / "pki", "c1", [])
    made.path("ca.key").unlink()
    with pytest.raises(pki.PkiError, match=r"ca\.key"):
        pki.ensure_pki(tmp_path / "pki", "c1", [])


def test_admin_context_is_private_and_whole(tmp_path: Path) -> None:
    made = pki.ensure_pki(tmp_path / "pki", "c1", [])
    pki.write_admin_context(tmp_path / "admin.json", "c1", ["https://10.0.0.1:7443"], made)
    context = json.loads((tmp_path / "admin.json").read_text())
    assert sorted(context) == ["apis", "ca", "certificate", "key", "name"]
    assert stat.S_IMODE((tmp_path / "admin.json").stat().st_mode) == 0o600


def test_a_csr_gives_only_its_key() -> None:
    authority = Authority(new_authority("test"))
    csr, _ = new_csr("somebody-else")
    certificate = load(authority.sign_csr(csr, "n1", "node", ["n1.node.shoal"]))
    peer = read_peer(certificate)
    assert (peer.name, peer.role) == ("n1", "node")
    assert sans_of(certificate) == {"n1.node.shoal"}
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


EMPTY = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"


@pytest.mark.parametrize("csr", ["", "nonsense", EMPTY])
def test_a_broken_csr_is_bad_input(csr: str) -> None:
    with pytest.raises(BadInput):
        Authority(new_authority("test")).sign_csr(csr, "n1", "node", [])


@pytest.mark.parametrize("name", ["", "-a", "A", "a/b", "a..b", "a" * 64, "a\n", "ä"])
def test_node_names_that_are_refused(name: str) -> None:
    assert node_name_problem(name)


@pytest.mark.parametrize("name", ["n1", "host-7.example.org", "0"])
def test_node_names_that_are_taken(name: str) -> None:
    assert not node_name_problem(name)


def test_a_registrys_certificate_is_good_for_a_server_only() -> None:
    authority = Authority(new_authority("test"))
    csr, _ = new_csr("store")
    made = load(authority.sign_csr(csr, "store", ROLE_REGISTRY, ["localhost", "10.0.0.1"], serves_only=True))
    uses = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(uses) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert (read_peer(made).role, sans_of(made)) == ("registry", {"localhost", "10.0.0.1"})


@pytest.mark.parametrize("name", ["localhost", "10.0.0.1", "::1", "n1", "registry.example.com", "a-1.b"])
def test_what_a_registry_may_be_called(name: str) -> None:
    assert registry_name_problem(name) == ""


@pytest.mark.parametrize(
    "name", [CONTROLLER_SERVER_NAME, AGENT_METRICS_NAME, "n1.node.shoal", "shoal", "Big.it", "a b", "-a", "a..b", "*.x", "a/b"]
)
def test_no_registry_is_called_like_a_daemon(name: str) -> None:
    assert "for a registry" in registry_name_problem(name)
