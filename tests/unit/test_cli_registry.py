"""`shoal registry`: the Compose project it makes, what it refuses, what it tells."""

from __future__ import annotations

from typing import Any

import bcrypt
import pytest

from cli.registry_command import Settings, htpasswd_line, refuse_others, settings_of, status_row
from cli.registry_project import check_login, registry_project
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


def test_status_tells_where_it_is_and_who_may_use_it() -> None:
    spec = codec.to_plain(service(registry_project("store", 5001, logins=LOGINS)))
    row = {"spec": spec, "ports": spec["container"]["ports"]}
    stack = {"volumes": [{"name": "store_data"}]}
    old = {"desired": "shutdown", "state": "running", "health": "", "node": "n1"}
    new = {"desired": "running", "state": "running", "health": "healthy", "node": "n2"}
    found = status_row("store", row, stack, [old, new])
    assert (found["state"], found["node"], found["images_as"]) == ("healthy", "n2", ["localhost:5001"])
    assert (found["volumes"], found["users"]) == (["store_data"], ["ana", "ben"])
    waiting = status_row("store", row, stack, [{"desired": "running", "state": "pending", "node": "", "message": "no room"}])
    assert (waiting["state"], waiting["message"]) == ("pending", "no room")
