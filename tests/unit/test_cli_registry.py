"""`shoal registry`: the Compose project it makes, what it refuses, what it tells."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import trustme

from cli.registry_command import Settings, check_words, htpasswd_line, refuse_others, settings_of, status_row
from cli.registry_project import check_login, registry_project
from cli.registry_tls import is_own, names_of, own, told, why_new
from model import codec
from model.compose import validate_resolved
from model.compose.convert import to_stack
from model.errors import BadInput, Conflict
from model.spec import ServiceSpec

LOGINS = "ana:$2b$10$abc\nben:$2b$10$def"


def service(project: dict[str, Any]) -> ServiceSpec:
    """What the controller makes of it; without a warning."""
    assert not validate_resolved(project)
    stack = to_stack(project, stack=project["name"])
    assert not stack.warnings
    (found,) = stack.services
    return found


def test_it_is_a_service_with_a_volume_a_port_and_a_health_check() -> None:
    project = registry_project("store", 5001)
    found = service(project)
    assert (found.name, found.container.image, found.replicas) == ("store_registry", "registry:2", 1)
    assert [(port.target, port.published, port.mode) for port in found.container.ports] == [(5000, 5001, "ingress")]
    assert [(mount.source, mount.target) for mount in found.container.mounts] == [("store_data", "/var/lib/registry")]
    assert found.container.restart.condition == "any"
    assert found.container.healthcheck is not None
    assert found.container.entrypoint is found.container.command is None


def test_a_volume_of_another_name_is_used_under_that_name() -> None:
    assert service(registry_project("store", 5000, volume="images")).container.mounts[0].source == "images"


def test_logins_reach_the_registry_as_they_are() -> None:
    container = service(registry_project("store", 5000, logins=LOGINS)).container
    env = dict(container.env)
    assert env["SHOAL_HTPASSWD"] == LOGINS
    assert env["REGISTRY_AUTH"] == "htpasswd"
    assert container.entrypoint is not None
    assert env["REGISTRY_AUTH_HTPASSWD_PATH"] in container.entrypoint[2]
    assert container.command == ("/etc/docker/registry/config.yml",)


def test_a_registry_with_a_certificate_waits_for_its_key_which_is_nowhere_but_in_its_volume() -> None:
    made, other = (registry_project("store", 5000, logins=LOGINS, certificate=text) for text in ("PEM 1", "PEM 2"))
    container = service(made).container
    env = dict(container.env)
    assert env["SHOAL_TLS_CERTIFICATE"] == "PEM 1"
    assert env["REGISTRY_HTTP_TLS_KEY"].startswith("/var/lib/registry/tls/")
    assert env["REGISTRY_HTTP_TLS_KEY"] != dict(service(other).container.env)["REGISTRY_HTTP_TLS_KEY"]
    assert container.entrypoint is not None
    script = container.entrypoint[2]
    assert script.index("htpasswd") < script.index("REGISTRY_HTTP_TLS_KEY") < script.index("exec /entrypoint.sh")
    assert container.healthcheck is not None
    assert "400" in container.healthcheck.test[-1]


NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def certificate(ca: trustme.CA, *names: str, until: dt.datetime | None = None) -> str:
    return ca.issue_cert(*names, not_after=until).cert_chain_pems[0].bytes().decode()


def test_a_certificate_that_will_do_is_kept() -> None:
    ca, stranger = trustme.CA(), trustme.CA()
    pem = ca.cert_pem.bytes().decode()
    good = certificate(ca, "localhost", "10.0.0.1", until=NOW + dt.timedelta(days=91))
    assert why_new(good, pem, ["localhost", "10.0.0.1"], NOW) == ""
    assert why_new(good, pem, ["localhost", "n2", "n1"], NOW) == "it lacks n1"
    assert why_new(good, pem, ["localhost"], NOW + dt.timedelta(days=2)) == "it ends on 2026-04-02"
    assert why_new("", pem, [], NOW) == "there is none"
    assert why_new(certificate(stranger, "localhost"), pem, ["localhost"], NOW) == "it is of another CA"
    assert (is_own(certificate(stranger, "x"), pem), is_own(good, pem), is_own("", pem)) == (True, False, False)
    assert told(good).names == ("localhost", "10.0.0.1")


def test_it_is_called_like_every_node_and_as_it_was_asked_to() -> None:
    nodes = [{"name": "n1", "address": "10.0.0.1"}, {"name": "n2", "address": ""}]
    assert names_of(nodes, ["r.example", "n1"]) == ["localhost", "127.0.0.1", "::1", "n1", "10.0.0.1", "n2", "r.example"]


def test_a_certificate_of_ones_own_comes_with_its_key(tmp_path: Path) -> None:
    ca = trustme.CA()
    one, two = ca.issue_cert("r.example"), ca.issue_cert("r.example")
    for name, blob in (("one.pem", one.cert_chain_pems[0]), ("one.key", one.private_key_pem), ("two.key", two.private_key_pem)):
        blob.write_to_path(tmp_path / name)
    pair = own(str(tmp_path / "one.pem"), str(tmp_path / "one.key"))
    assert (told(pair.certificate).names, pair.key) == (("r.example",), one.private_key_pem.bytes())
    assert "PRIVATE" not in repr(pair)
    for files, why in (
        (("one.pem", "two.key"), "not the key of the certificate"),
        (("one.key", "one.key"), "no certificate in PEM"),
        (("one.pem", "one.pem"), "no private key in PEM"),
        (("none.pem", "one.key"), "none.pem: no such file"),
    ):
        with pytest.raises(BadInput, match=why):
            own(*(str(tmp_path / name) for name in files))


@pytest.mark.parametrize(
    ("tls", "names", "files", "why"),
    [
        (None, (), ("c.pem", ""), "both are needed"),
        (True, (), ("c.pem", "c.key"), "leave out --tls"),
        (None, ("x",), ("", ""), "is for the certificate of --tls"),
        (True, ("controller.shoal",), ("", ""), "does not end in .shoal"),
    ],
)
def test_options_that_say_nothing_together(tls: bool | None, names: tuple[str, ...], files: tuple[str, str], why: str) -> None:
    with pytest.raises(BadInput, match=why):
        check_words(tls, names, *files)


def test_a_password_leaves_as_a_hash_that_it_matches() -> None:
    user, _, hashed = htpasswd_line("ana", "sécret").partition(":")
    assert user == "ana"
    assert hashed.startswith("$2b$10$")
    assert bcrypt.checkpw("sécret".encode(), hashed.encode())
    assert not bcrypt.checkpw(b"secret", hashed.encode())


@pytest.mark.parametrize(
    ("user", "password", "what"),
    [("a:b", "x", "without ':'"), ("a\nb", "x", "without ':'"), (" a", "x", "spaces"), ("a", "", "is needed"),
     ("a", "é" * 37, "at most 72 bytes"), ("a", "x\0y", "at most 72")],
)  # fmt: skip
def test_what_htpasswd_cannot_hold_is_refused(user: str, password: str, what: str) -> None:
    with pytest.raises(BadInput, match=what):
        check_login(user, password)


def test_a_stack_with_other_services_is_left_alone() -> None:
    refuse_others("store", [])
    refuse_others("store", ["store_registry"])
    with pytest.raises(Conflict, match="it has store_web"):
        refuse_others("store", ["store_registry", "store_web"])


def test_what_up_is_not_told_stays_as_it_is() -> None:
    spec = codec.to_plain(service(registry_project("store", 5001, "images", LOGINS)))
    assert settings_of({"spec": spec}) == Settings(5001, "images", LOGINS)
    spec = codec.to_plain(service(registry_project("store", 5000)))
    assert settings_of({"spec": spec}) == Settings(5000, "store_data", "")
    spec = codec.to_plain(service(registry_project("store", 5000, "", "", "PEM", "a b")))
    assert settings_of({"spec": spec}) == Settings(5000, "store_data", "", "PEM", "a b")


def test_status_tells_where_it_is_and_who_may_use_it() -> None:
    spec = codec.to_plain(service(registry_project("store", 5001, logins=LOGINS)))
    row = {"spec": spec, "ports": spec["container"]["ports"]}
    stack = {"volumes": [{"name": "store_data"}]}
    old = {"desired": "shutdown", "state": "running", "health": "", "node": "n1"}
    new = {"desired": "running", "state": "running", "health": "healthy", "node": "n2"}
    found = status_row("store", row, stack, [old, new])
    assert (found["state"], found["node"], found["images_as"]) == ("healthy", "n2", ["localhost:5001"])
    assert (found["volumes"], found["users"], found["tls"]) == (["store_data"], ["ana", "ben"], None)
    waiting = status_row("store", row, stack, [{"desired": "running", "state": "pending", "node": "", "message": "no room"}])
    assert (waiting["state"], waiting["message"]) == ("pending", "no room")
