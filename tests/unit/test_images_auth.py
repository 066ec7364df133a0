"""Who is told a registry's password, and what a token is asked for."""

from __future__ import annotations

import contextlib

import pytest

from agent.images.calls import Access
from agent.images.errors import RegistryRefused
from agent.images.records import RegistryConfig
from agent.images.transport import Transport
from model.image_ref import parse_image_ref
from model.registry_auth import of_one_domain


@pytest.mark.parametrize(
    ("registry", "server", "is_one"),
    [
        ("registry-1.docker.io", "auth.docker.io", True),
        ("registry.gitlab.com", "gitlab.com", True),
        ("ghcr.io", "ghcr.io", True),
        ("registry.example.co.uk", "auth.example.co.uk", True),
        ("127.0.0.1:5000", "127.0.0.1:5001", True),
        ("[::1]:5000", "[::1]:5001", True),
        ("registry", "registry:8080", True),
        ("registry.example.com", "example.com.evil.net", False),
        ("registry.example.com", "evilexample.com", False),
        ("registry.example.com", "com", False),
        ("example.co.uk", "evil.co.uk", False),
        ("registry", "auth", False),
        ("10.0.0.1:5000", "10.0.0.2:5000", False),
        ("10.1.0.1", "9.0.0.1", False),
        ("example.com", "127.0.0.1", False),
        ("[::1]:5000", "[::2]:5000", False),
    ],
)
def test_a_token_server_must_be_of_the_registrys_domain(registry: str, server: str, is_one: bool) -> None:
    assert of_one_domain(registry, server) is is_one


@pytest.mark.parametrize(
    ("url", "target", "may"),
    [
        ("https://registry.example/x", "https://cdn.example/x", True),
        ("https://registry.example/x", "http://10.0.0.1:5000/x", False),
        ("http://10.0.0.1:5000/x", "http://10.0.0.1:5000/y", True),
        ("http://10.0.0.1:5000/x", "https://cdn.example/x", True),
        ("http://10.0.0.1:5000/x", "http://127.0.0.1:2375/containers/json", False),
        ("https://registry.example/x", "https://localhost/x", False),
        ("https://registry.example/x", "https://[::1]:8443/x", False),
        ("http://127.0.0.1:5000/x", "http://127.0.0.1:5001/x", True),
        ("http://127.0.0.1:5000/x", "http://elsewhere.example/x", False),
        ("http://127.0.0.1:5000/x", "http://127.0.0.1@elsewhere.example/x", False),
    ],
)
def test_where_a_registry_may_lead(url: str, target: str, may: bool) -> None:
    transport = Transport(RegistryConfig(insecure=frozenset({"10.0.0.1:5000"})))
    with contextlib.nullcontext() if may else pytest.raises(RegistryRefused, match="refused"):
        transport.check_step(url, target)


def test_a_token_is_asked_for_what_is_needed() -> None:
    ref = parse_image_ref("registry.example/shop/web:1")
    assert Access("registry.example", ref, None).scope == "repository:shop/web:pull"
    pushing = Access("registry.example", ref, None, pushes=True)
    assert pushing.reading("shop/base").scope == "repository:shop/web:pull,push repository:shop/base:pull"
