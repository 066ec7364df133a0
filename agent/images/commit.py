"""The config of an image that is made of a container, and Dockerfile instructions that change it (`commit -c`).

Rules: pure; Docker's keys and meanings. `base` is the config of the image the container was made of, as its maker wrote it.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from model.errors import BadInput

_RUN_KEYS: Final = ("User", "Env", "Cmd", "Entrypoint", "WorkingDir", "Labels", "ExposedPorts", "Volumes")
_PORT: Final = re.compile(r"\d{1,5}(/(tcp|udp|sctp))?")


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


def changed(config: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """A run configuration after Dockerfile instructions. Raises BadInput."""
    found, cmd_said = dict(config), False
    for line in changes:
        word, _, rest = line.strip().partition(" ")
        word, rest = word.upper(), rest.strip()
        if not rest:
            raise BadInput(f"--change {line!r}: expected an instruction with its value, such as 'ENV A=1'")
        if word in ("CMD", "ENTRYPOINT"):
            found[word.title()] = _command(rest)
            cmd_said = cmd_said or word == "CMD"
            if word == "ENTRYPOINT" and not cmd_said:  # a command for another entrypoint means nothing to this one
                found["Cmd"] = None
        elif word == "ENV":
            pairs = dict(text.split("=", 1) for text in found.get("Env") or () if "=" in text)
            found["Env"] = [f"{name}={value}" for name, value in (pairs | _pairs(line, rest)).items()]
        elif word == "LABEL":
            found["Labels"] = {**(found.get("Labels") or {}), **_pairs(line, rest)}
        elif word == "EXPOSE":
            found["ExposedPorts"] = {**(found.get("ExposedPorts") or {}), **{_port(line, text): {} for text in rest.split()}}
        elif word == "VOLUME":
            found["Volumes"] = {**(found.get("Volumes") or {}), **{path: {} for path in _listed(rest) or _words(line, rest)}}
        elif word in ("USER", "WORKDIR", "STOPSIGNAL"):
            found[{"USER": "User", "WORKDIR": "WorkingDir", "STOPSIGNAL": "StopSignal"}[word]] = rest
        else:
            raise BadInput(
                f"--change {line!r}: {word} is not taken here: only CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, "
                "VOLUME and WORKDIR are"
            )
    return found


def _command(text: str) -> list[str]:
    listed = _listed(text)
    return listed if listed is not None else ["/bin/sh", "-c", text]


def _listed(text: str) -> list[str] | None:
    """What is a JSON list of texts."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, list) and all(isinstance(each, str) for each in found) else None


def _pairs(line: str, text: str) -> dict[str, str]:
    """`A=1 B="2 3"`, or `A one value`."""
    words = _words(line, text)
    if "=" not in words[0]:
        name, _, value = text.partition(" ")
        if not value.strip():
            raise BadInput(f"--change {line!r}: {name} has no value: write {name}=VALUE")
        return {name: value.strip()}
    if wrong := [word for word in words if "=" not in word[1:]]:
        raise BadInput(f"--change {line!r}: {wrong[0]!r} is not NAME=VALUE")
    return dict(word.split("=", 1) for word in words)


def _words(line: str, text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise BadInput(f"--change {line!r}: {error}") from None


def _port(line: str, text: str) -> str:
    if not _PORT.fullmatch(text):
        raise BadInput(f"--change {line!r}: {text!r} is not PORT or PORT/tcp")
    return text if "/" in text else f"{text}/tcp"
