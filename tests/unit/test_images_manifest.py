"""Manifests, indexes and configs of strangers: read right or refused with one line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.images.manifest import (
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    check_digest,
    layer_compression,
    made_manifest,
    parse_config,
    parse_index_or_manifest,
    sha256_digest,
)
from agent.images.records import Credentials, Limits
from model.errors import ImageError
from model.registry_auth import is_loopback, parse_challenge

A, B, C = ("sha256:" + letter * 64 for letter in "abc")
LIMITS = Limits()


def part(digest: str = A, size: Any = 10, media: str = "application/vnd.docker.container.image.v1+json") -> dict[str, Any]:
    return {"digest": digest, "size": size, "mediaType": media}


def manifest(**changes: Any) -> bytes:
    doc = {"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": part(), "layers": [part(B), part(C)]} | changes
    return json.dumps(doc).encode()


def index(*platforms: tuple[str, str]) -> bytes:
    entries = []
    for text, digest in platforms:
        system, architecture, *variant = text.split("/")
        spoken = {"os": system, "architecture": architecture} | ({"variant": variant[0]} if variant else {})
        entries.append(part(digest) | {"platform": spoken})
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()


def test_a_manifest_gives_its_layers_bottom_first() -> None:
    raw = manifest()
    parsed = parse_index_or_manifest(raw, "image x", "linux/amd64", LIMITS)
    assert isinstance(parsed, Manifest)
    assert parsed.digest == sha256_digest(raw)
    assert [layer.digest for layer in parsed.layers] == [B, C]


@pytest.mark.parametrize(
    ("platform", "wanted"),
    [("linux/amd64", A), ("linux/arm64", B), ("linux/arm64/v8", B), ("linux/arm/v7", C), ("linux/arm/v8", C)],
)
def test_an_index_gives_the_manifest_of_the_platform(platform: str, wanted: str) -> None:
    raw = index(("linux/amd64", A), ("linux/arm64", B), ("linux/arm/v7", C))
    parsed = parse_index_or_manifest(raw, "image x", platform, LIMITS)
    assert isinstance(parsed, Descriptor)
    assert parsed.digest == wanted


def test_an_exact_variant_wins_over_another() -> None:
    raw = index(("linux/arm/v5", A), ("linux/arm/v7", B), ("linux/arm/v6", C))
    parsed = parse_index_or_manifest(raw, "image x", "linux/arm/v7", LIMITS)
    assert isinstance(parsed, Descriptor)
    assert parsed.digest == B


@pytest.mark.parametrize(
    ("platform", "offered", "wanted"),
    [
        ("linux/arm/v6", ("linux/arm/v7", "linux/arm/v5"), "linux/arm/v5"),
        ("linux/arm/v7", ("linux/arm/v5", "linux/arm/v6", "linux/arm/v8"), "linux/arm/v6"),
        ("linux/arm/v7", ("linux/arm/v6", "linux/arm"), "linux/arm"),
        ("linux/arm/v6", ("linux/arm/v7", "linux/arm/v8"), None),
        ("linux/amd64", ("linux/amd64/v3", "linux/amd64"), "linux/amd64"),
        ("linux/amd64", ("linux/amd64/v3",), None),
        ("linux/amd64/v3", ("linux/amd64", "linux/amd64/v2", "linux/amd64/v4"), "linux/amd64/v2"),
        ("linux/arm64", ("linux/arm64/v8",), "linux/arm64/v8"),
        ("linux/riscv64", ("linux/riscv64/x",), None),
        ("linux/riscv64/x", ("linux/riscv64", "linux/riscv64/x"), "linux/riscv64/x"),
    ],
)
def test_the_best_variant_that_can_run_is_taken(platform: str, offered: tuple[str, ...], wanted: str | None) -> None:
    digests = {f"sha256:{number:064x}": text for number, text in enumerate(offered)}
    raw = index(*[(text, digest) for digest, text in digests.items()])
    if wanted is None:
        with pytest.raises(ImageError, match="no image for"):
            parse_index_or_manifest(raw, "image x", platform, LIMITS)
        return
    parsed = parse_index_or_manifest(raw, "image x", platform, LIMITS)
    assert isinstance(parsed, Descriptor)
    assert digests[parsed.digest] == wanted


@pytest.mark.parametrize("said", ["", "application/json", "text/plain; charset=utf-8", DOCKER_MANIFEST, f"{DOCKER_MANIFEST};x"])
def test_what_a_registry_calls_a_manifest_may_say_nothing_but_not_contradict(said: str) -> None:
    parsed = parse_index_or_manifest(manifest(), "image x", "linux/amd64", LIMITS, said)
    assert isinstance(parsed, Manifest)
    assert parsed.media_type == DOCKER_MANIFEST
    bare = parse_index_or_manifest(manifest(mediaType=None), "image x", "linux/amd64", LIMITS, said)
    assert isinstance(bare, Manifest)
    assert bare.media_type == (DOCKER_MANIFEST if "docker" in said else OCI_MANIFEST)


def test_a_made_manifest_is_one() -> None:
    layers = (Descriptor(f"{OCI_LAYER}+gzip", B, 5), Descriptor(f"{OCI_LAYER}+zstd", C, 6))
    made = made_manifest(b"{}", layers)
    assert parse_index_or_manifest(made.raw, "image x", "linux/amd64", LIMITS, OCI_MANIFEST) == made.manifest
    assert made.manifest.layers == layers


def test_a_missing_platform_names_what_is_offered() -> None:
    with pytest.raises(ImageError, match=r"image x: no image for linux/amd64 \(offered: linux/arm64, windows/amd64\)"):
        parse_index_or_manifest(index(("linux/arm64", A), ("windows/amd64", B)), "image x", "linux/amd64", LIMITS)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        manifest(schemaVersion=1),
        manifest(layers=None),
        manifest(layers=[7]),
        manifest(layers=[part("sha512:" + "a" * 128)]),
        manifest(layers=[part("sha256:../../../etc/passwd")]),
        manifest(layers=[part(size=-1)]),
        manifest(layers=[part(size="10")]),
        manifest(layers=[part(size=True)]),
        manifest(layers=[part(size=1 << 60)]),
        manifest(layers=[part()] * 401),
        manifest(config=part(media="application/vnd.cncf.helm.config.v1+json")),
        manifest(config=part(size=1 << 30)),
        manifest(manifests="x"),
        manifest(manifests=[None]),
    ],
    ids=range(18),
)
def test_bad_manifests_are_refused_in_one_line(raw: bytes) -> None:
    with pytest.raises(ImageError, match=r"^image x: ") as caught:
        parse_index_or_manifest(raw, "image x", "linux/amd64", LIMITS)
    assert "\n" not in str(caught.value)


def test_a_config_is_read_whole() -> None:
    run = {
        "Entrypoint": ["/e"],
        "Cmd": ["a", "b"],
        "Env": ["A=1", "B=x=y", "A=2", "EMPTY="],
        "WorkingDir": "/w",
        "User": "1:2",
        "Volumes": {"/v2": {}, "/v1": {}},
        "Labels": {"l": "1"},
        "ExposedPorts": {"80/tcp": {}},
        "StopSignal": "SIGQUIT",
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5_000_000_000, "Retries": 7},
    }
    doc = {"os": "linux", "architecture": "arm", "variant": "v7", "created": "2024-01-02T03:04:05.123456789Z"}
    parsed = parse_config(json.dumps(doc | {"config": run, "rootfs": {"diff_ids": [A]}}).encode(), "image x")
    config = parsed.config
    assert (config.entrypoint, config.cmd) == (("/e",), ("a", "b"))
    assert config.env == (("A", "2"), ("B", "x=y"), ("EMPTY", ""))
    assert (config.working_dir, config.user, config.stop_signal) == ("/w", "1:2", "SIGQUIT")
    assert (config.volumes, config.exposed_ports) == (("/v1", "/v2"), ("80/tcp",))
    assert config.healthcheck is not None
    assert (config.healthcheck.interval_s, config.healthcheck.retries, config.healthcheck.timeout_s) == (5.0, 7, 30.0)
    assert parsed.platform == "linux/arm/v7"
    assert parsed.created is not None
    assert parsed.created.year == 2024


def test_an_empty_config_says_nothing() -> None:
    parsed = parse_config(json.dumps({"rootfs": {"diff_ids": []}, "config": None}).encode(), "image x")
    assert parsed.config.entrypoint is None
    assert parsed.config.cmd is None
    assert parsed.config.healthcheck is None


@pytest.mark.parametrize(
    "run", [{"Cmd": [1]}, {"Env": {"A": "1"}}, {"User": 5}, {"Volumes": ["/v"]}, {"Healthcheck": 3}, {"Labels": []}]
)
def test_bad_configs_name_the_field(run: dict[str, Any]) -> None:
    raw = json.dumps({"rootfs": {"diff_ids": []}, "config": run}).encode()
    if run == {"Labels": []}:  # an empty list is how some builders write "none"
        assert parse_config(raw, "image x").config.labels == ()
        return
    with pytest.raises(ImageError, match=next(iter(run))):
        parse_config(raw, "image x")


def test_digests_are_compared() -> None:
    check_digest(b"x", sha256_digest(b"x"), "blob")
    with pytest.raises(ImageError, match="does not match its digest"):
        check_digest(b"y", sha256_digest(b"x"), "blob")


def test_compression_is_seen_by_the_first_bytes() -> None:
    assert layer_compression(b"\x1f\x8b\x08") == "gzip"
    assert layer_compression(b"\x28\xb5\x2f\xfd") == "zstd"
    assert layer_compression(b"\x50\x2a\x4d\x18") == "zstd"
    assert layer_compression(b"etc/") == "none"
    assert layer_compression(b"") == "none"


def test_challenges_are_read() -> None:
    header = 'Bearer realm="https://auth.example/token",service="reg",scope="repository:a/b:pull,push"'
    assert parse_challenge(header) == (
        "bearer",
        {"realm": "https://auth.example/token", "service": "reg", "scope": "repository:a/b:pull,push"},
    )
    assert parse_challenge('basic realm="x"') == ("basic", {"realm": "x"})
    assert parse_challenge("") == ("", {})


@pytest.mark.parametrize(
    ("endpoint", "is_it"),
    [
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.9.9.9", True),
        ("[::1]:5000", True),
        ("localhost.example", False),
        ("127.0.0.1.example:80", False),
        ("10.0.0.1:5000", False),
    ],
)
def test_loopback_is_known_by_its_name_only(endpoint: str, is_it: bool) -> None:
    assert is_loopback(endpoint) is is_it


def test_a_password_is_not_shown() -> None:
    assert "hidden" not in repr(Credentials("ann", "hidden"))
