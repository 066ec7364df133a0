"""Credentials of services as they stand in the store: they tell nothing, and only this cluster's controllers open them."""

from __future__ import annotations

import base64
import json
from types import SimpleNamespace

import pytest

from controller.api.registry_logins import CONFIG_HEADER, keeping, login_for, logins_of
from controller.certificates import Authority, new_authority
from controller.decide.registry_auth import as_before
from controller.sealing import Login, NoSeals, Sealing
from model.documents import ServiceDoc
from model.errors import BadInput
from model.spec import ContainerSpec, ServiceSpec

ANA = Login("ana", "secret word")


def header(rows: object) -> SimpleNamespace:
    return SimpleNamespace(headers={CONFIG_HEADER: base64.urlsafe_b64encode(json.dumps(rows).encode()).decode()})


def service(image: str, sealed: str = "") -> ServiceDoc:
    return ServiceDoc("id", ServiceSpec("web", ContainerSpec(image)), 1, registry_auth=sealed)


def test_every_controller_of_the_cluster_opens_it_and_it_tells_nothing() -> None:
    pair = new_authority("shoal cluster CA")
    one, other = Sealing(Authority(pair).secret()), Sealing(Authority(pair).secret())
    sealed = one.seal("id", ANA)
    assert other.open("id", sealed) == ANA
    assert "ana" not in sealed
    assert b"secret" not in base64.b64decode(sealed.partition(":")[2])
    assert "secret" not in repr(ANA)
    assert len(one.seal("id", Login("a", "b"))) == len(sealed)


def test_it_opens_for_its_service_in_its_cluster_only_and_unchanged() -> None:
    seals, sealed = Sealing(b"one"), Sealing(b"one").seal("id", ANA)
    assert seals.open("another id", sealed) is None
    assert Sealing(b"two").open("id", sealed) is None
    assert seals.open("id", sealed[:-8] + "AAAAAAA=") is None
    assert [seals.open("id", text) for text in ("", "siv1:", "siv1:?", "other:" + sealed[5:])] == [None] * 4


def test_the_same_credentials_are_sealed_alike_and_others_otherwise() -> None:
    seals = Sealing(b"one")
    assert seals.seal("id", ANA) == seals.seal("id", ANA)
    assert len({seals.seal("id", ANA), seals.seal("id2", ANA), seals.seal("id", Login("ana", "other"))}) == 3
    assert NoSeals().seal("id", ANA) == ""


def test_credentials_come_by_registry_as_docker_sends_them() -> None:
    rows = {"localhost:5000": {"username": "ana", "password": "x"}, "https://index.docker.io/v1/": {"username": "bo"}, "e": {}}
    found = logins_of(header(rows))
    assert found == {"localhost:5000": Login("ana", "x"), "docker.io": Login("bo", "")}
    assert login_for(found, "localhost:5000/web:1") == Login("ana", "x")
    assert login_for(found, "busybox") == Login("bo", "")
    assert login_for(found, "elsewhere:5000/web") is None
    assert logins_of(SimpleNamespace(headers={})) == logins_of(None) == {}


@pytest.mark.parametrize("rows", [[], {"h": "ana:secret"}, {"h": {"username": 1, "password": "secret"}}])
def test_what_is_no_credentials_is_refused_without_repeating_it(rows: object) -> None:
    with pytest.raises(BadInput, match="X-Registry-Config: expected") as refused:
        logins_of(header(rows))
    assert "secret" not in str(refused.value)


def test_a_service_keeps_those_of_its_images_registry() -> None:
    seals = Sealing(b"one")
    keep = keeping(seals, {"localhost:5000": ANA})
    sealed = keep("id", "localhost:5000/web:1", None)
    assert seals.open("id", sealed) == ANA
    assert keep("id", "elsewhere:5000/web:1", None) == ""
    before = service("elsewhere:5000/web:1", "as it was")
    assert keep("id", "elsewhere:5000/web:2", before) == as_before("id", "elsewhere:5000/web:2", before) == "as it was"
    assert keep("id", "third:5000/web:1", before) == as_before("id", "busybox", before) == as_before("id", "x", None) == ""
    assert keep("id", "localhost:5000/web:1", service("localhost:5000/web:1", "of an older password")) == sealed
