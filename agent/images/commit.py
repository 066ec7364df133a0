"""The config of an image that is made of a container.

Rules: pure; Docker's keys and meanings. `base` is the config of the image the container was made of, as its maker wrote it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from model.image_changes import changed

_RUN_KEYS: Final = ("User", "Env", "Cmd", "Entrypoint", "WorkingDir", "Labels", "ExposedPorts", "Volumes")


@dataclass(frozen=True, slots=True)
class Said:
    """Of a commit. `created`: RFC 3339; `changes`: Dockerfile instructions."""

    created: str
    container: str
    author: str = ""
    message: str = ""
    changes: tuple[str, ...] = ()


def committed(base: Mapping[str, Any], run: Mapping[str, Any], said: Said, layer: str | None) -> bytes:
    """The new config. `run`: how the container was run (Docker's Config); `layer`: the diff id of what it wrote, None: nothing.
    Raises BadInput."""
    config = {**(base.get("config") or {}), **{key: run[key] for key in _RUN_KEYS if run.get(key)}}
    diff_ids = list((base.get("rootfs") or {}).get("diff_ids") or ())
    steps = base.get("history") or [{"created_by": ""} for _ in diff_ids]
    command = [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]
    told = {"created": said.created, "created_by": " ".join(command), "author": said.author, "comment": said.message}
    step = {key: value for key, value in told.items() if value} | ({} if layer else {"empty_layer": True})
    kept = {key: base[key] for key in ("architecture", "variant", "os", "os.version", "os.features") if key in base}
    document = {
        **kept,
        "created": said.created,
        **({"author": said.author} if said.author else {}),
        **({"comment": said.message} if said.message else {}),
        "container": said.container,
        "config": changed(config, said.changes),
        "rootfs": {"type": "layers", "diff_ids": [*diff_ids, *([layer] if layer else ())]},
        "history": [*steps, step],
    }
    return json.dumps(document, separators=(",", ":")).encode()
