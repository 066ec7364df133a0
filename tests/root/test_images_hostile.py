"""Registries that lie: nothing they say is taken in, nothing they are told leaves for another host. Root: layers are unpacked.

One table for pulls, one for pushes: the lie, and the line a person reads; an empty line where the lie does no harm and the
work succeeds.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from backports import zstd

from agent.images.records import Credentials, Limits, RegistryConfig
from agent.images.store import ImageStore
from agent.images.trees import remove_tree
from model.errors import ImageError
from tests.contract.hostile_registry import BASIC, PASSWORD, USER, Answer, Hostile, Lie, Request, hostile_registry
from tests.contract.images_server import (
    OCI_INDEX,
    OCI_MANIFEST,
    MadeImage,
    digest_of,
    make_image,
    make_index,
    tar_of,
)
from tests.root.test_images_store import docker_archive

pytestmark = pytest.mark.root
IMAGE = make_image({"base": os.urandom(120_000)}, {"app": b"1"}, Cmd=["/app"])
DOCUMENT = json.loads(IMAGE.manifest)
LAYER = DOCUMENT["layers"][0]["digest"]
TOKEN = Answer(200, b'{"token": "honest"}')
SECRETS = (BASIC, "Bearer honest")


@dataclass
class Case:
    """`image` is what the registry has as `shop/web:1`; `ref` what is asked for."""

    line: str
    lie: Lie = lambda _, __: None
    image: MadeImage = field(default_factory=lambda: IMAGE)
    ref: str = "shop/web:1"


def on(method: str, part: str, answer: Callable[[Hostile, Request], Answer | None]) -> Lie:
    """Answers like this where that is asked, and is honest otherwise."""
    return lambda state, request: answer(state, request) if request.asks(method, part) else None


def manifest(body: bytes, content_type: str = OCI_MANIFEST) -> Lie:
    return on("GET", "/manifests/1", lambda *_: Answer(200, body, {"Content-Type": content_type}))


def document(**changes: Any) -> Lie:
    return manifest(json.dumps(DOCUMENT | changes).encode())


def blob(answer: Callable[[Hostile, Request, bytes], Answer | None]) -> Lie:
    """For the large layer."""
    return on("GET", f"/blobs/{LAYER}", lambda state, request: answer(state, request, state.blobs[LAYER]))


def layers(*descriptors: dict[str, Any]) -> Lie:
    return document(layers=list(descriptors))


def with_layer(data: bytes, tar: bytes) -> MadeImage:
    """An image of one layer whose blob is `data` and whose config says it is `tar`."""
    config = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [digest_of(tar)]}}).encode()
    return MadeImage(
        json.dumps(DOCUMENT | {"config": part(config, "config"), "layers": [part(data)]}).encode(),
        config, [tar], {digest_of(config): config, digest_of(data): data},
    )  # fmt: skip


def with_config(config: bytes) -> MadeImage:
    raw = json.dumps(DOCUMENT | {"config": part(config, "config")}).encode()
    return MadeImage(raw, config, [], IMAGE.blobs | {digest_of(config): config})


def part(data: bytes, kind: str = "layer", **changes: Any) -> dict[str, Any]:
    media = "application/vnd.oci.image.config.v1+json" if kind == "config" else "application/vnd.oci.image.layer.v1.tar+gzip"
    return {"mediaType": media, "digest": digest_of(data), "size": len(data)} | changes


def first_cut(then: Callable[[Request, bytes], Answer]) -> Lie:
    """The first answer breaks off at 50,000 bytes; the next one is this."""

    def answer(state: Hostile, request: Request, data: bytes) -> Answer | None:
        state.asked += 1
        return Answer(200, data[:50_000], length=len(data)) if state.asked == 1 else then(request, data)

    return blob(answer)


def after(request: Request, data: bytes) -> Answer:
    start = int(request.headers["range"].removeprefix("bytes=").partition("-")[0])
    return Answer(206, data[start:], {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"})


def swapped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def redirect(target: str) -> Lie:
    """`{}` is the other host."""
    return blob(lambda state, request, _: Answer(307, b"", {"Location": target.format(state.elsewhere) or request.path}))


def unknown(header: str) -> Lie:
    return lambda state, request: (
        Answer(401, b"{}", {"WWW-Authenticate": header.format(own=state.endpoint, other=state.elsewhere)})
        if request.path.startswith("/v2/")
        and request.headers.get("authorization") != "Bearer honest"
        else None
    )


def tokens(reply: bytes) -> Lie:
    asked = unknown('Bearer realm="http://{own}/token",service="s"')
    return lambda state, request: Answer(200, reply) if request.path.startswith("/token") else asked(state, request)


def never_enough(state: Hostile, request: Request) -> Answer:
    state.asked += 1
    if request.path.startswith("/token"):
        return Answer(200, f'{{"token": "t{state.asked}"}}'.encode())
    return Answer(401, b"{}", {"WWW-Authenticate": f'Bearer realm="http://{state.endpoint}/token"'})


def token_ends(state: Hostile, request: Request) -> Answer | None:
    """After two requests there is another one."""
    good = "first" if state.asked < 2 else "second"
    if request.path.startswith("/token"):
        return Answer(200, f'{{"token": "{good}"}}'.encode())
    if request.headers.get("authorization") != f"Bearer {good}":
        return Answer(401, b"{}", {"WWW-Authenticate": f'Bearer realm="http://{state.endpoint}/token"'})
    state.asked += 1
    return state.honest(request)


def token_server_leads_away(state: Hostile, request: Request) -> Answer | None:
    if request.path.startswith("/token"):
        return Answer(307, b"", {"Location": f"http://{state.elsewhere}/token"})
    return unknown('Bearer realm="http://{own}/token"')(state, request)


def chain(depth: int) -> tuple[dict[str, bytes], bytes]:
    """Indexes within indexes."""
    kept: dict[str, bytes] = {}
    raw, media = IMAGE.manifest, OCI_MANIFEST
    for _ in range(depth):
        entry = part(raw, mediaType=media, platform={"os": "linux", "architecture": "amd64"})
        kept[digest_of(raw)] = raw
        raw, media = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}).encode(), OCI_INDEX
    return kept, raw


def nested(state: Hostile, request: Request) -> Answer | None:
    kept, top = chain(5)
    state.manifests |= kept
    return Answer(200, top, {"Content-Type": OCI_INDEX}) if request.asks("GET", "/manifests/1") else None


def index_of_itself(_: Hostile, __: Request) -> Answer:
    raw = make_index(("amd64", IMAGE)).replace(IMAGE.digest.encode(), b"sha256:" + b"0" * 64)
    return Answer(200, raw, {"Content-Type": OCI_INDEX})


def size_in_index(state: Hostile, request: Request) -> Answer | None:
    doc = json.loads(make_index(("amd64", IMAGE)))
    doc["manifests"][0]["size"] += 1
    raw = json.dumps(doc).encode()
    return Answer(200, raw, {"Content-Type": OCI_INDEX}) if request.asks("GET", "/manifests/1") else None


SCHEMA1 = json.dumps({"schemaVersion": 1, "name": "x", "fsLayers": [{"blobSum": LAYER}], "history": []}).encode()
BOMB = tar_of({"bomb": bytes(12 << 20)})
TARGET = "Content-Range"
DAMAGED = "does not match its digest|damaged gzip data"
NO_DELIVERY = "does not deliver \\S+shop/web:1: .* \\(2 attempts\\)"
CONFIG = json.loads(IMAGE.config)

PULLS: dict[str, Case] = {
    "another manifest than the digest": Case(
        "content does not match its digest", on("GET", "/manifests/sha256", lambda *_: Answer(200, IMAGE.manifest)),
        ref=f"shop/web@sha256:{'0' * 64}"),
    "a manifest with one blank more": Case(
        "content does not match its digest", on("GET", "/manifests/sha256", lambda *_: Answer(200, IMAGE.manifest + b" ")),
        ref=f"shop/web@{IMAGE.digest}"),
    "a byte of a layer": Case(DAMAGED, blob(lambda _, __, data: Answer(200, swapped(data)))),
    "a byte of the config": Case(
        "does not match its digest", on("GET", digest_of(IMAGE.config), lambda *_: Answer(200, IMAGE.config[:-1] + b" "))),
    "size too small": Case("sends more bytes than", layers(part(IMAGE.blobs[LAYER], size=100), DOCUMENT["layers"][1])),
    "size too large": Case(
        NO_DELIVERY, layers(part(IMAGE.blobs[LAYER], size=1 << 20), DOCUMENT["layers"][1])),
    "size of a terabyte": Case("more than the limit", layers(part(IMAGE.blobs[LAYER], size=1 << 40), DOCUMENT["layers"][1])),
    "negative size": Case("gives no size", layers(part(IMAGE.blobs[LAYER], size=-1), DOCUMENT["layers"][1])),
    "short body": Case(NO_DELIVERY, blob(lambda _, __, data: Answer(200, b"", length=len(data)))),
    "long body": Case("sends more bytes than", blob(lambda _, __, data: Answer(200, data + b"more"))),
    "endless body": Case(
        "sends more bytes than",
        blob(lambda _, __, data: Answer(200, itertools.chain([data], itertools.repeat(b"x" * 4096, 500))))),
    "other bytes on resume": Case(DAMAGED, first_cut(lambda r, data: after(r, swapped(data)))),
    "from the start on resume, without saying": Case(
        DAMAGED, first_cut(lambda r, data: Answer(206, data, after(r, data).headers))),
    "another range than asked": Case(
        NO_DELIVERY, first_cut(lambda r, data: Answer(206, data[7:], {TARGET: f"bytes 7-{len(data) - 1}/{len(data)}"}))),
    "a range of nonsense": Case(NO_DELIVERY, first_cut(lambda r, data: Answer(206, data, {TARGET: "bytes */²"}))),
    "a range nobody asked for": Case(NO_DELIVERY, blob(lambda _, __, data: Answer(206, data[9:], {TARGET: "bytes 9-10/11"}))),
    "resume refused": Case("HTTP status 416", first_cut(lambda r, data: Answer(416, b""))),
    "a page of HTML": Case("'text/html' where a manifest is expected", manifest(b"<html>log in</html>", "text/html")),
    "an index by its header": Case("media types contradict", manifest(IMAGE.manifest, OCI_INDEX)),
    "an index by its media type": Case("media types contradict", document(mediaType=OCI_INDEX)),
    "a media type that is no text": Case("media types contradict", document(mediaType=["x"])),
    "index and manifest at once": Case("an index and a manifest at once", document(manifests=[])),
    "of another platform": Case(
        "is for linux/arm64, this node is linux/amd64", image=make_image({"f": b"x"}, architecture="arm64")),
    "an index without this platform": Case(
        "no image for linux/amd64 \\(offered: linux/arm64\\)", manifest(make_index(("arm64", IMAGE)), OCI_INDEX)),
    "an index that says amd64 of an arm64 image": Case(
        "is for linux/arm64", manifest(make_index(("amd64", make_image({"f": b"x"}, architecture="arm64"))), OCI_INDEX),
        image=make_image({"f": b"x"}, architecture="arm64")),
    "an index of an index of an index": Case("index within index", nested),
    "an index wherever one asks": Case("does not match its digest", on("GET", "/manifests/", index_of_itself)),
    "another size in the index": Case("its index gives another size", size_in_index),
    "schema 1": Case("schema '1' is not supported", manifest(SCHEMA1, "application/json")),
    "schema 1, signed": Case(
        "schema 1 is not supported", manifest(SCHEMA1, "application/vnd.docker.distribution.manifest.v1+prettyjws")),
    "a huge manifest": Case("longer than 1048576 bytes", manifest(b"[" + b" " * (1 << 21) + b"]")),
    "an endless manifest": Case(
        "longer than 1048576 bytes",
        on("GET", "/manifests/1", lambda *_: Answer(200, itertools.repeat(b" " * 65536, 400), {"Content-Type": OCI_MANIFEST}))),
    "no JSON": Case("is not JSON", manifest(b"{")),
    "JSON of 100,000 brackets": Case("is not JSON", manifest(b"[" * 100_000)),
    "a number of 5,000 digits": Case("is not JSON", manifest(b'{"schemaVersion": 1' + b"0" * 5000 + b"}")),
    "a list": Case("is not a JSON object", manifest(b"[]")),
    "a manifest in gzip": Case("is not JSON", manifest(gzip.compress(IMAGE.manifest))),
    "a digest that is a path": Case("only sha256 is supported", layers(part(b"") | {"digest": "sha256:../../../etc/passwd"})),
    "a digest of another kind": Case("only sha256 is supported", layers(part(b"") | {"digest": f"md5:{'0' * 32}"})),
    "more layers than a mount takes": Case("at most 400 are supported", layers(*[part(b"")] * 401)),
    "more layers than the config": Case("3 layers, but its config names 2", layers(*[DOCUMENT["layers"][0]] * 3)),
    "a chart": Case("is an artifact", document(config=DOCUMENT["config"] | {"mediaType": "application/vnd.cncf.helm.v1+json"})),
    "a config of 100 MB": Case("more than the limit", document(config=DOCUMENT["config"] | {"size": 100 << 20})),
    "a config that is no UTF-8": Case("is not UTF-8", image=with_config(IMAGE.config.decode().encode("utf-16"))),
    "a config without layers": Case("rootfs.diff_ids", image=with_config(b'{"rootfs": 5}')),
    "a health check of 10^400 seconds": Case(
        "", image=with_config(json.dumps(CONFIG | {"config": {"Healthcheck": {"Test": ["x"], "Interval": 10**400}}}).encode())),
    "other files than the config says": Case(
        "diff_id", image=with_layer(gzip.compress(tar_of({"evil": b"x"})), tar_of({"good": b"x"}))),
    "a gzip bomb": Case("more than 8388608 bytes", image=with_layer(gzip.compress(BOMB), BOMB)),
    "a zstd bomb": Case("more than 8388608 bytes", image=with_layer(zstd.compress(BOMB), BOMB)),
    "a gzip that never ends": Case("too early", image=with_layer(gzip.compress(BOMB[:1 << 20])[:-9], BOMB)),
    "a blob at another host": Case("", redirect("http://{}/v2/shop/web/blobs/" + LAYER)),
    "a blob at another host that lies": Case("not found|HTTP status 404", redirect("http://{}/v2/nothing/blobs/x")),
    "redirects in a circle": Case("more than 5 redirects", redirect("")),
    "a redirect to a file": Case("not http", redirect("file:///etc/passwd")),
    "a redirect to plain http": Case("plain http is refused", redirect("http://registry.invalid/x")),
    "a redirect to nowhere": Case("an address that is none", redirect("http://[::1/x")),
    "a redirect with a line in it": Case("an address that is none", redirect("http://{}/a b")),
    "401 for ever": Case("unauthorized", unknown('Basic realm="again"')),
    "401 without a word": Case("unauthorized", unknown("")),
    "401 with a new token each time": Case("unauthorized", never_enough),
    "a token that ends in the middle": Case("", token_ends),
    "a token server of another domain": Case(
        "token server .* is of another domain", unknown('Bearer realm="http://{other}/token",service="s"')),
    "a token server that leads away": Case("", token_server_leads_away),
    "a token server in plain http": Case("plain http is refused", unknown('Bearer realm="http://auth.invalid/token"')),
    "a token server that is a file": Case("not http", unknown('Bearer realm="file:///etc/passwd"')),
    "a token with a line in it": Case("gives no token", tokens(b'{"token": "a\\r\\nX-Evil: 1"}')),
    "a token that is a number": Case("gives no token", tokens(b'{"token": 7}')),
    "a token of brackets": Case("gives no token", tokens(b"[" * 100_000)),
    "a wait of nonsense": Case("answers 503 \\(2 attempts\\)", lambda *_: Answer(503, b"", {"Retry-After": "²"})),
    "200 headers": Case("\\(2 attempts\\)", lambda *_: Answer(200, b"", {f"X-{n}": "x" for n in range(200)})),
    "no HTTP": Case("\\(2 attempts\\)", lambda *_: Answer(raw=b"SSH-2.0-OpenSSH_9.2\r\n")),
    "broken chunks": Case(
        NO_DELIVERY, blob(lambda *_: Answer(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nxx"))),
    "a negative length": Case(
        NO_DELIVERY, blob(lambda *_: Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: -9\r\n\r\nxx"))),
}  # fmt: skip


@dataclass
class Place:
    registry: Hostile
    elsewhere: Hostile
    top: Path
    store: ImageStore

    def check_no_secret_left(self) -> None:
        for request in self.elsewhere.requests:
            assert request.headers.get("authorization") not in SECRETS, request
            assert PASSWORD not in request.path

    def named(self, ref: str) -> str:
        return f"{self.registry.endpoint}/{ref}"


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Hostile, Hostile]]:
    with hostile_registry() as registry, hostile_registry("127.0.0.2") as elsewhere:
        registry.elsewhere = elsewhere.endpoint
        yield registry, elsewhere


@pytest.fixture
async def place(servers: tuple[Hostile, Hostile], tmp_path: Path) -> AsyncIterator[Place]:
    registry, elsewhere = servers
    for state in servers:
        for kept in (state.manifests, state.blobs, state.uploads, state.requests):
            kept.clear()
        state.lie, state.asked, state.break_uploads = (lambda _, __: None), 0, 0
    elsewhere.lie = lambda state, request: TOKEN if "token" in request.path else state.honest(request)
    config = RegistryConfig(
        credentials={registry.endpoint: Credentials(USER, PASSWORD)}, platform="linux/amd64", attempts=2, backoff_s=0.001,
        timeout_s=3, limits=Limits(manifest_bytes=1 << 20, unpacked_bytes=8 << 20, entries=100),
    )  # fmt: skip
    store = ImageStore(tmp_path / "store", config=config)
    yield Place(registry, elsewhere, tmp_path / "store", store)
    await store.close()
    remove_tree(tmp_path / "store")


@pytest.mark.parametrize("name", PULLS)
async def test_a_lying_registry_gives_nothing(name: str, place: Place) -> None:
    case = PULLS[name]
    place.registry.put("1", case.image)
    place.elsewhere.put("1", case.image)
    place.registry.lie = case.lie
    with pytest.raises(ImageError, match=case.line) if case.line else contextlib.nullcontext() as caught:
        image = await place.store.pull(place.named(case.ref))
        assert image.digest == case.image.digest
    place.check_no_secret_left()
    if caught is not None:
        assert "\n" not in str(caught.value)
        assert place.store.list() == []
    assert list((place.top / "tmp").iterdir()) == []
    for file in (place.top / "blobs" / "sha256").iterdir():
        assert digest_of(file.read_bytes()) == f"sha256:{file.name}"


def leads(method: str, part: str, target: str, status: int = 307) -> Lie:
    return on(method, part, lambda state, r: Answer(status, b"", {"Location": target.format(state.elsewhere)}))


def taken(claim: str, **more: str) -> Lie:
    return on("PATCH", "/uploads/", lambda _, r: Answer(202, b"", {"Location": r.path, "Range": claim}))


def broken_then(answer: Callable[[Hostile, Request], Answer]) -> Lie:
    """The first part of an upload is half taken; who asks how far it came hears this."""

    def lie(state: Hostile, request: Request) -> Answer | None:
        if request.asks("POST", "/uploads/") and not state.asked:
            state.asked, state.break_uploads = 1, 1
        return answer(state, request) if request.asks("GET", "/uploads/") else None

    return lie


REFUSAL = b'{"errors": [{"code": "DENIED", "message": "you\\u001b[31m may\\nnot"}]}'
AWAY = "leads an upload to another host"
PUSHES: dict[str, Case] = {
    "an upload at another host": Case(AWAY, leads("POST", "/uploads/", "http://{}/v2/x/blobs/uploads/u", 202)),
    "an upload by another scheme": Case(AWAY, leads("POST", "/uploads/", "https://{}/up", 202)),
    "the next part at another host": Case(AWAY, leads("PATCH", "/uploads/", "http://{}/up", 202)),
    "an upload nowhere": Case("does not say where", on("POST", "/uploads/", lambda *_: Answer(202))),
    "an upload at no address": Case("an address that is none", leads("POST", "/uploads/", "http://[::1/x", 202)),
    "an upload to a file": Case("not http", leads("POST", "/uploads/", "file:///etc/passwd", 202)),
    "a redirected begin": Case("HTTP status 307", leads("POST", "/uploads/", "http://{}/up")),
    "a redirected part": Case("HTTP status 307", leads("PATCH", "/uploads/", "http://{}/up")),
    "a redirected end": Case("HTTP status 308", leads("PUT", "/uploads/", "http://{}/up", 308)),
    "a redirected manifest": Case("HTTP status 307", leads("PUT", "/manifests/", "http://{}/m")),
    "more taken than sent": Case("of which 50000 were sent", taken("0-99999")),
    "nothing taken, ever": Case("takes no bytes .*\\(2 attempts\\)", taken("0-0")),
    "taken without a number": Case("where a range is expected", taken("bytes 5-²")),
    "more there than there is, after a break": Case(
        "bytes of an upload of", broken_then(lambda _, r: Answer(204, b"", {"Location": r.path, "Range": "0-999999999"}))),
    "away to another host, after a break": Case(
        AWAY, broken_then(lambda state, r: Answer(204, b"", {"Location": f"http://{state.elsewhere}/u"}))),
    "gone, after a break": Case("", broken_then(lambda *_: Answer(404, b""))),
    "broken once": Case("", broken_then(lambda state, r: state.honest(r))),
    "another digest of a blob": Case(
        "it is not trusted", on("PUT", "/uploads/", lambda *_: Answer(201, b"", {"Docker-Content-Digest": "sha256:0"}))),
    "another digest of the manifest": Case(
        "it is not trusted", on("PUT", "/manifests/", lambda *_: Answer(201, b"", {"Docker-Content-Digest": "sha256:0"}))),
    "a blob of another size is there": Case("it is not trusted", on("HEAD", "/blobs/", lambda *_: Answer(200, b"", length=3))),
    "whether a blob is there is known elsewhere": Case("", leads("HEAD", "/blobs/", "http://{}/v2/x/blobs/y")),
    "401 for ever": Case("unauthorized", unknown('Basic realm="again"')),
    "401 with a new token each time": Case("unauthorized", never_enough),
    "a token server of another domain": Case("is of another domain", unknown('Bearer realm="http://{other}/token"')),
    "denied": Case(
        "denied \\(DENIED: you \\[31m may not\\): these credentials may not push it",
        on("POST", "/uploads/", lambda *_: Answer(403, REFUSAL))),
    "no such repository": Case("has no repository for", on("POST", "/uploads/", lambda *_: Answer(404, b"{}"))),
    "read-only": Case("is read-only", on("POST", "/uploads/", lambda *_: Answer(405, b"{}"))),
    "a manifest that is not wanted": Case("status 400 \\(DENIED", on("PUT", "/manifests/", lambda *_: Answer(400, REFUSAL))),
    "never at home": Case("answers 500.*\\(2 attempts\\)", on("POST", "/uploads/", lambda *_: Answer(500, b""))),
    "a blob in one piece only": Case(
        "", lambda s, r: Answer(400, b"{}") if r.headers.get("content-range", "0-").partition("-")[0] != "0" else None),
    "parts of a terabyte": Case(
        "", on("POST", "/uploads/", lambda s, r: Answer(202, b"", s.honest(r).headers | {"OCI-Chunk-Min-Length": "9" * 11}))),
}  # fmt: skip


@pytest.mark.parametrize("name", PUSHES)
async def test_a_lying_registry_gets_nothing_but_what_is_its_own(
    name: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.images.push._CHUNK_BYTES", 50_000)
    case, ref = PUSHES[name], place.named("shop/web:1")
    image = (await place.store.load(io.BytesIO(docker_archive(IMAGE, ref))))[0]
    place.registry.lie = case.lie
    with pytest.raises(ImageError, match=case.line) if case.line else contextlib.nullcontext() as caught:
        assert (await place.store.push(ref)).digest == image.digest
        assert digest_of(place.registry.manifests["1"]) == image.digest
        assert all(digest_of(data) == digest for digest, data in place.registry.blobs.items())
    assert caught is None or str(caught.value).isprintable()
    place.check_no_secret_left()
    assert not any(request.body for request in place.elsewhere.requests)
    assert place.store.list() == [image]


async def test_a_broken_upload_goes_on_where_it_stopped(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.images.push._CHUNK_BYTES", 50_000)
    ref = place.named("shop/web:1")
    await place.store.load(io.BytesIO(docker_archive(IMAGE, ref)))
    place.registry.break_uploads = 3
    await place.store.push(ref)
    sent = sum(len(request.body) for request in place.registry.requests if "/uploads/" in request.path)
    assert sent == sum(len(data) for data in place.registry.blobs.values())


def test_the_tables_are_large_enough() -> None:
    assert len(PULLS) + len(PUSHES) >= 90
