"""Manifests, indexes and image configs: bytes in, frozen records out.

Rules: pure. Everything here comes from a stranger: each field is checked for type and size before it is used, and a
fault is an ImageError that names the image and the field.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from agent.images.records import ImageConfig, Limits
from model.errors import ImageError
from model.spec import Healthcheck, Pairs

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
ACCEPT = ", ".join((OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX))
Compression = Literal["none", "gzip", "zstd"]
_MANIFESTS, _INDEXES = (OCI_MANIFEST, DOCKER_MANIFEST), (OCI_INDEX, DOCKER_INDEX)
_UNSPOKEN = ("", "application/json", "application/octet-stream", "text/plain")
"""What a server says that does not know what it serves; the document itself tells then."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_S_MAX = 1 << 40
INDEX_DEPTH_MAX = 3
_NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A pointer to content: verified when its sha256 and its size agree."""

    media_type: str
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    digest: str
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class Documents:
    """A manifest as it came, `raw`, and the indexes it was found by, outermost first: what its digests stand for."""

    manifest: Manifest
    raw: bytes
    indexes: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class ParsedConfig:
    """The image config's parts the node needs. `diff_ids` are the digests of the uncompressed layers, bottom first."""

    config: ImageConfig
    diff_ids: tuple[str, ...]
    created: datetime | None
    platform: str


def sha256_digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def check_digest(data: bytes, digest: str, what: str) -> None:
    """Raise when `data` is not what `digest` promises."""
    found = sha256_digest(data)
    if found != digest:
        raise ImageError(f"{what}: content does not match its digest (wanted {digest[:19]}, got {found[:19]}): it is refused")


def parse_index_or_manifest(
    raw: bytes, what: str, platform: str, limits: Limits, content_type: str = ""
) -> Manifest | Descriptor:
    """A Manifest, or for an index the Descriptor of its manifest for `platform`. `content_type`: what the server called it."""
    said = content_type.partition(";")[0].strip().lower()
    if said not in (*_MANIFESTS, *_INDEXES, *_UNSPOKEN):
        schema1 = " (manifest schema 1 is not supported, only version 2)" if "manifest.v1+" in said else ""
        raise ImageError(f"{what}: the registry answers with {said[:80]!r} where a manifest is expected{schema1}")
    doc = _object(raw, what)
    if doc.get("schemaVersion") != 2:
        raise ImageError(f"{what}: manifest schema {str(doc.get('schemaVersion'))[:20]!r} is not supported, only version 2")
    is_index = "manifests" in doc
    if is_index and ("layers" in doc or "config" in doc):
        raise ImageError(f"{what}: it is an index and a manifest at once")
    kinds = _INDEXES if is_index else _MANIFESTS
    spoken = doc.get("mediaType") or (said if said in kinds else kinds[0])
    if spoken not in kinds or (said not in _UNSPOKEN and said != spoken):
        raise ImageError(f"{what}: its media types contradict each other ({str(spoken)[:80]!r}, {said[:80]!r})")
    return _choose(doc["manifests"], what, platform) if is_index else _manifest(doc, sha256_digest(raw), spoken, what, limits)


class Walk:
    """From what a reference names to the manifest for this platform: an index leads to another document, or to that.

    `digest` is that of the document to be taken next, compared by who fetched it; None: what a tag stands for.
    """

    def __init__(self, what: str, platform: str, limits: Limits, digest: str | None) -> None:
        self._what, self._platform, self._limits = what, platform, limits
        self.digest = digest
        self._size_bytes = -1
        self._indexes: tuple[bytes, ...] = ()

    def take(self, raw: bytes, content_type: str = "") -> Documents | None:
        """All there is, once the manifest is here. Raises ImageError."""
        if self.digest is not None and self._size_bytes not in (-1, len(raw)):
            said = f"its index gives another size of {self.digest[:19]} than it has"
            raise ImageError(f"{self._what}: {said}: it is refused")
        parsed = parse_index_or_manifest(raw, self._what, self._platform, self._limits, content_type)
        if isinstance(parsed, Manifest):
            return Documents(parsed, raw, self._indexes)
        self.digest, self._size_bytes, self._indexes = parsed.digest, parsed.size_bytes, (*self._indexes, raw)
        if len(self._indexes) >= INDEX_DEPTH_MAX:
            raise ImageError(f"{self._what}: index within index within index")
        return None


def made_manifest(config: bytes, layers: Sequence[Descriptor]) -> Documents:
    """The manifest of an image that came without one; the same on every node."""
    own = Descriptor(OCI_CONFIG, sha256_digest(config), len(config))
    doc = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": _plain(own), "layers": [_plain(layer) for layer in layers]}
    raw = json.dumps(doc, separators=(",", ":")).encode()
    return Documents(Manifest(sha256_digest(raw), OCI_MANIFEST, own, tuple(layers)), raw)


def _plain(part: Descriptor) -> dict[str, str | int]:
    return {"mediaType": part.media_type, "digest": part.digest, "size": part.size_bytes}


def parse_config(raw: bytes, what: str) -> ParsedConfig:
    try:
        raw.decode()  # it is kept as text
    except UnicodeDecodeError:
        raise ImageError(f"{what}: its config is not UTF-8") from None
    doc = _object(raw, what)
    rootfs = doc.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or not all(isinstance(d, str) and _DIGEST.fullmatch(d) for d in diff_ids):
        raise ImageError(f"{what}: config field rootfs.diff_ids is not a list of sha256 digests")
    run = doc.get("config") or {}
    if not isinstance(run, dict):
        raise ImageError(f"{what}: config field 'config' is not an object")
    variant = f"/{doc['variant']}" if doc.get("variant") else ""
    return ParsedConfig(
        config=_run_config(run, what),
        diff_ids=tuple(diff_ids),
        created=_time(doc.get("created")),
        platform=f"{doc.get('os', '')}/{doc.get('architecture', '')}{variant}",
    )


def layer_compression(head: bytes) -> Compression:
    """By the first bytes, since media types are often wrong."""
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    if head[:4] == b"\x28\xb5\x2f\xfd" or (len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50):
        return "zstd"
    return "none"


def _manifest(doc: Mapping[str, Any], digest: str, media_type: str, what: str, limits: Limits) -> Manifest:
    layers = doc.get("layers")
    if not isinstance(layers, list):
        raise ImageError(f"{what}: manifest has no list of layers")
    if len(layers) > limits.layers:
        raise ImageError(f"{what}: {len(layers)} layers, at most {limits.layers} are supported")
    config = _descriptor(doc.get("config"), what, limits.config_bytes)
    if not config.media_type.endswith((".image.config.v1+json", ".container.image.v1+json", "octet-stream")):
        raise ImageError(f"{what}: it is an artifact ({config.media_type or 'unknown type'}), not a container image")
    return Manifest(digest, media_type, config, tuple(_descriptor(layer, what, limits.blob_bytes) for layer in layers))


def _descriptor(value: object, what: str, size_max: int) -> Descriptor:
    if not isinstance(value, dict):
        raise ImageError(f"{what}: manifest holds a descriptor that is not an object")
    digest, size = value.get("digest"), value.get("size")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ImageError(f"{what}: manifest holds the digest {str(digest)[:80]!r}, only sha256 is supported")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ImageError(f"{what}: manifest gives no size for {digest[:19]}")
    if size > size_max:
        raise ImageError(f"{what}: {digest[:19]} has {size} bytes, more than the limit of {size_max}")
    return Descriptor(str(value.get("mediaType", "")), digest, size)


def _choose(entries: object, what: str, platform: str) -> Descriptor:
    if not isinstance(entries, list):
        raise ImageError(f"{what}: index has no list of manifests")
    system, architecture, *rest = platform.split("/")
    offered = []
    best: tuple[int, object] | None = None
    for entry in entries:
        raw = entry.get("platform") if isinstance(entry, dict) else None
        spoken = raw if isinstance(raw, dict) else {}
        have = [str(spoken.get(key) or "")[:40] for key in ("os", "architecture", "variant")]
        if raw is None and len(entries) == 1:
            best = (0, entry)
        offered.append("/".join(part for part in have if part) or "unknown")
        if have[:2] != [system, architecture]:
            continue
        rank = _variant_rank(architecture, "".join(rest), have[2])
        if rank is not None and (best is None or rank < best[0]):
            best = (rank, entry)
    if best is None:
        raise ImageError(f"{what}: no image for {platform} (offered: {', '.join(sorted(set(offered))[:12]) or 'none'})")
    return _descriptor(best[1], what, Limits().manifest_bytes)


def _variant_rank(architecture: str, ours: str, theirs: str) -> int | None:
    """How far an image's variant lies below the machine's, 0: the same; None when it needs more than the machine has."""
    default = {"arm": 7, "arm64": 8, "amd64": 1}.get(architecture)
    numbers = [re.fullmatch(r"v([0-9]{1,2})", text) if text else None for text in (ours, theirs)]
    if default is None or any(text and not number for text, number in zip((ours, theirs), numbers, strict=True)):
        return 0 if ours == theirs else 1 if not theirs else None
    have, want = (int(number[1]) if number else default for number in numbers)
    return have - want if want <= have else None


def _run_config(run: Mapping[str, Any], what: str) -> ImageConfig:
    return ImageConfig(
        entrypoint=_strings(run, "Entrypoint", what),
        cmd=_strings(run, "Cmd", what),
        env=_env(_strings(run, "Env", what) or ()),
        working_dir=_text(run, "WorkingDir", what),
        user=_text(run, "User", what),
        volumes=_keys(run, "Volumes", what),
        labels=_labels(run, what),
        exposed_ports=_keys(run, "ExposedPorts", what),
        stop_signal=_text(run, "StopSignal", what),
        healthcheck=_healthcheck(run.get("Healthcheck"), what),
    )


def _strings(run: Mapping[str, Any], key: str, what: str) -> tuple[str, ...] | None:
    value = run.get(key)
    if value is None:
        return None
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ImageError(f"{what}: config field {key} is not a list of strings")
    return tuple(value)


def _text(run: Mapping[str, Any], key: str, what: str) -> str:
    value = run.get(key) or ""
    if not isinstance(value, str):
        raise ImageError(f"{what}: config field {key} is not a string")
    return value


def _keys(run: Mapping[str, Any], key: str, what: str) -> tuple[str, ...]:
    value = run.get(key) or {}
    if not isinstance(value, dict):
        raise ImageError(f"{what}: config field {key} is not an object")
    return tuple(sorted(value))


def _labels(run: Mapping[str, Any], what: str) -> Pairs:
    value = run.get("Labels") or {}
    if not isinstance(value, dict):
        raise ImageError(f"{what}: config field Labels is not an object")
    return tuple(sorted((name, str(text)) for name, text in value.items()))


def _env(items: tuple[str, ...]) -> Pairs:
    pairs = {name: value for name, _, value in (item.partition("=") for item in items) if name}
    return tuple(pairs.items())


def _healthcheck(value: object, what: str) -> Healthcheck | None:
    if not value:
        return None
    if not isinstance(value, dict):
        raise ImageError(f"{what}: config field Healthcheck is not an object")
    test = _strings(value, "Test", what) or ()
    if not test:
        return None
    default = Healthcheck()
    return Healthcheck(
        test=test,
        interval_s=_seconds(value, "Interval", default.interval_s),
        timeout_s=_seconds(value, "Timeout", default.timeout_s),
        retries=value["Retries"] if isinstance(value.get("Retries"), int) and value["Retries"] > 0 else default.retries,
        start_period_s=_seconds(value, "StartPeriod", default.start_period_s),
        start_interval_s=_seconds(value, "StartInterval", default.start_interval_s),
        disable=test[:1] == ("NONE",),
    )


def _seconds(value: Mapping[str, Any], key: str, default: float) -> float:
    ns = value.get(key)
    return ns / _NS_PER_S if isinstance(ns, (int, float)) and 0 < ns < _S_MAX * _NS_PER_S else default


def _time(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:  # nanoseconds are more than datetime reads
        return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", value))
    except ValueError:
        return None


def _object(raw: bytes, what: str) -> dict[str, Any]:
    try:
        doc = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{what}: manifest or config is not JSON ({type(error).__name__})") from None
    if not isinstance(doc, dict):
        raise ImageError(f"{what}: manifest or config is not a JSON object")
    return doc
