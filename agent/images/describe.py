"""An image in Docker's words: what `image inspect` and `history` say of it.

Rules: pure; Docker's keys and meanings (API 1.41). `raw` is the image's config as its maker wrote it, checked only as far as it
was when the image was taken in: everything else may be missing or of the wrong kind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from agent.images.records import Image
from model.image_ref import parse_image_ref

_NEVER = "0001-01-01T00:00:00Z"
_BLANK: Mapping[str, Any] = {
    "Hostname": "", "Domainname": "", "User": "", "AttachStdin": False, "AttachStdout": False, "AttachStderr": False,
    "Tty": False, "OpenStdin": False, "StdinOnce": False, "Env": None, "Cmd": None, "Image": "", "Volumes": None,
    "WorkingDir": "", "Entrypoint": None, "OnBuild": None, "Labels": None,
}  # fmt: skip


def inspected(image: Image, raw: Mapping[str, Any], digests: Mapping[str, str]) -> dict[str, Any]:
    """Docker's inspect of an image. `digests`: of its manifest, by familiar name."""
    return {
        "Id": image.id,
        "RepoTags": [name for name in image.names if "@" not in name],
        "RepoDigests": repo_digests(digests),
        "Parent": "",
        "Comment": _comment(raw),
        "Created": _text(raw, "created") or _NEVER,
        "Container": _text(raw, "container"),
        "ContainerConfig": {**_BLANK, **_object(raw, "container_config")},
        "DockerVersion": _text(raw, "docker_version"),
        "Author": _text(raw, "author"),
        "Config": {**_BLANK, **(_object(raw, "config") or _known(image))},
        "Architecture": _text(raw, "architecture"),
        **({"Variant": raw["variant"]} if _text(raw, "variant") else {}),
        "Os": _text(raw, "os"),
        "Size": image.size_bytes,
        "VirtualSize": image.size_bytes,
        "GraphDriver": {"Name": "overlay2", "Data": _directories(image)},
        "RootFS": {"Type": "layers", "Layers": list(diff_ids(raw))},
        "Metadata": {"LastTagTime": _NEVER},
    }


def history(image_id: str, names: Sequence[str], raw: Mapping[str, Any], sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Docker's history, newest first: the first row is the image itself, what lies below has no image of its own. `sizes`: of
    the layers, bottom first."""
    left, rows = list(sizes), []
    for step in _steps(raw) or [{} for _ in sizes]:
        size = 0 if step.get("empty_layer") or not left else left.pop(0)
        rows.append(
            {
                "Id": "<missing>",
                "Created": _seconds(_text(step, "created")),
                "CreatedBy": _text(step, "created_by"),
                "Tags": None,
                "Size": size,
                "Comment": _text(step, "comment"),
            }
        )
    rows.reverse()
    if rows:
        rows[0] |= {"Id": image_id, "Tags": [name for name in names if "@" not in name] or None}
    return rows


def repo_digests(digests: Mapping[str, str]) -> list[str]:
    """`linuxtips/apache@sha256:..` for every repository it has a name in, sorted."""
    found = {f"{repository(name)}@{digest}" for name, digest in digests.items() if digest}
    return sorted(found)


def repository(name: str) -> str:
    """`localhost:5000/apache:1.0` -> `localhost:5000/apache`."""
    ref = parse_image_ref(name)
    whole = ref.familiar.partition("@")[0]
    return whole.removesuffix(f":{ref.tag}") if ref.tag else whole


def diff_ids(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """Its layers, bottom first."""
    found = _object(raw, "rootfs").get("diff_ids")
    return tuple(str(diff_id) for diff_id in found) if isinstance(found, list) else ()


def chain_ids(diff_ids: Sequence[str]) -> tuple[str, ...]:
    """Docker's name of each layer with all that lies below it, bottom first."""
    chains: list[str] = []
    for diff_id in diff_ids:
        both = f"{chains[-1]} {diff_id}".encode() if chains else b""
        chains.append(f"sha256:{hashlib.sha256(both).hexdigest()}" if both else diff_id)
    return tuple(chains)


def _known(image: Image) -> dict[str, Any]:
    """What is understood of an image whose own words are not at hand."""
    config = image.config
    return {
        "User": config.user,
        "Env": [f"{name}={value}" for name, value in config.env] or None,
        "Cmd": list(config.cmd) if config.cmd is not None else None,
        "Entrypoint": list(config.entrypoint) if config.entrypoint is not None else None,
        "WorkingDir": config.working_dir,
        "Volumes": {target: {} for target in config.volumes} or None,
        "Labels": dict(config.labels) or None,
        **({"ExposedPorts": {port: {} for port in config.exposed_ports}} if config.exposed_ports else {}),
        **({"StopSignal": config.stop_signal} if config.stop_signal else {}),
    }


def _directories(image: Image) -> dict[str, str]:
    if not image.layers:
        return {}
    *lower, top = map(str, image.layers)
    return {**({"LowerDir": ":".join(reversed(lower))} if lower else {}), "UpperDir": top}


def _comment(raw: Mapping[str, Any]) -> str:
    """Its own, else that of its last step."""
    steps = _steps(raw)
    return _text(raw, "comment") or (_text(steps[-1], "comment") if steps else "")


def _steps(raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = raw.get("history")
    return [step for step in found if isinstance(step, dict)] if isinstance(found, list) else []


def _object(raw: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = raw.get(key)
    return found if isinstance(found, dict) else {}


def _text(raw: Mapping[str, Any], key: str) -> str:
    found = raw.get(key)
    return found if isinstance(found, str) else ""


def _seconds(stamp: str) -> int:
    """Unix time of an RFC 3339 text; 0 when it is none."""
    try:
        moment = datetime.fromisoformat(stamp)
    except ValueError:
        return 0
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
