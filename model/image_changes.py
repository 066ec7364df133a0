"""Dockerfile instructions that change how an image wants to be run: `commit -c` and `import -c`.

Rules: pure; Docker's keys and meanings.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

from model.errors import BadInput

_PORT: Final = re.compile(r"\d{1,5}(/(tcp|udp|sctp))?")


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
