"""What a builder says, in Docker's words; and an image's config as Docker's own builder would have left it.

Rules: pure. Every line of a build is passed on as it is; only the builder's own last lines of a failed build become the error.
"""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass, field
from typing import Any, Final

_NOISE: Final = re.compile(r"Error: |time=\"[^\"]*\" level=|subprocess exited |\Aexit status \d+\Z")
_WARNED: Final = re.compile(r"time=\"[^\"]*\" level=warning msg=\"missing .*\b(TARGET|BUILD)(PLATFORM|OS|ARCH|VARIANT)\b.*")
"""buildah sets these by itself and warns all the same."""
_STEP: Final = re.compile(r"(?:\[\d+/\d+\] )?STEP \d+/\d+: (?P<word>[A-Z]+) ?(?P<rest>.*)")
_STATUS: Final = re.compile(r"exit status (?P<code>\d+)\Z")
_AT: Final = re.compile(r"\Abuilding at STEP \"(.*?)\": (?:Build error: )?(?=\S)")
_MISSING: Final = re.compile(r"checking on sources under .*: copier: stat: \"(?P<path>[^\"]*)\": no such file or directory")
_INNER: Final = re.compile(
    r"(?:error during bulk transfer for )?copier\.request\{.*\}: *|/[^\"\s]*/work/[0-9a-f]+/context(?=[/\"])"
)
"""What only the builder's own people can use; and the folder of the context, which is `/` to who wrote the Dockerfile."""
_UNKNOWN: Final = re.compile(r"(?P<name>\S+): image not known\Z")
_KILLED: Final = "subprocess exited on killed"
_KILLED_CODE: Final = 137
_HELD_MAX: Final = 50
_LINE_CHARS_MAX: Final = 1 << 16
"""What is longer is passed on before its end has come: a RUN may write for hours without ending a line."""


@dataclass(slots=True)
class Output:
    """Takes what is written, gives what is to be shown; what may be the last words of a failure is held until more comes.

    `names`: by the ids and keys that the builder was given the names they stand for."""

    names: dict[str, str]
    step: str = ""
    held: list[str] = field(default_factory=list)
    _rest: str = ""
    _text: codecs.IncrementalDecoder = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))
    """A read may end in the middle of a character."""

    def take(self, data: bytes) -> str:
        lines = (self._rest + self._text.decode(data)).split("\n")
        self._rest = lines.pop()
        shown = "".join(self._line(line) for line in lines)
        if len(self._rest) > _LINE_CHARS_MAX:
            shown += self._free() + self._rest
            self._rest = ""
        return shown

    def end(self, *, failed: bool) -> str:
        """What is left, without the builder's own error when it failed."""
        self._rest += self._text.decode(b"", final=True)
        shown = self._line(self._rest) if self._rest else ""
        self._rest = ""
        return shown if failed else shown + self._free()

    def _line(self, line: str) -> str:
        if _WARNED.match(line):
            return ""
        if _NOISE.match(line) and len(self.held) < _HELD_MAX:
            self.held.append(line)
            return ""
        found = _STEP.fullmatch(line)
        if found is not None:
            self.step = f"{found['word']} {found['rest']}"
            line = self._named(line)
        return f"{self._free()}{line}\n"

    def _named(self, line: str) -> str:
        """Keys are `shoal-image-N`: no digit may follow."""
        for word, name in self.names.items():
            line = re.sub(rf"(?<=FROM |from=){re.escape(word)}(?!\d)", lambda _, name=name: name, line)  # type: ignore[misc]
        return line

    def _free(self) -> str:
        freed, self.held = "".join(f"{line}\n" for line in self.held), []
        return freed


@dataclass(frozen=True, slots=True)
class Failure:
    text: str
    exit_code: int


def failure_of(output: Output, code: int) -> Failure:
    """Docker's line for a build that ended with `code`."""
    errors = [line.removeprefix("Error: ") for line in output.held if line.startswith("Error: ")]
    said = _INNER.sub("", " ".join((errors[-1] if errors else f"the builder ended with code {code}").split()))
    status = _STATUS.search(said)
    if output.step.startswith("RUN ") and status is not None:
        killed = any(line.startswith(_KILLED) for line in output.held)
        number = _KILLED_CODE if killed else int(status["code"])
        return Failure(f"The command '{command_of(output.step)}' returned a non-zero code: {number}", number)
    if missing := _MISSING.search(said):
        word = output.step.partition(" ")[0]
        elsewhere = "--from=" in output.step
        where = "the image or stage it is copied from" if elsewhere else "build context or excluded by .dockerignore"
        return Failure(f"{word} failed: file not found in {where}: {missing['path']}", 1)
    if unknown := _UNKNOWN.search(said):
        return Failure(f"{unknown['name']}: no image of that name was looked for: names are read in FROM, COPY --from and "
                       "RUN --mount, and only FROM may have variables", 1)  # fmt: skip
    return Failure(_AT.sub(r"\1: ", said)[:1000], 1)


def command_of(step: str) -> str:
    """`RUN make` -> `/bin/sh -c make`; the words of an exec form."""
    text = re.sub(r"\A(--\S+ +)*", "", step.partition(" ")[2])
    listed = _listed(text)
    return " ".join(listed) if listed is not None else f"/bin/sh -c {text}"


def tidied(raw: bytes) -> bytes:
    """Without what was random (the builder's container and its host name) and without ids that nobody can look up; the last
    step stands in ContainerConfig as Docker writes it."""
    config: dict[str, Any] = json.loads(raw)
    for key in ("container", "parent"):
        config.pop(key, None)
    steps = [step for step in config.get("history") or () if isinstance(step, dict)]
    for step in steps:
        if str(step.get("comment", "")).startswith("FROM "):
            del step["comment"]
        if "created_by" in step:
            step["created_by"] = _created_by(str(step["created_by"]))
    for key in ("config", "container_config"):
        if isinstance(config.get(key), dict):
            config[key]["Hostname"] = ""
            if not config[key].get("Entrypoint"):
                config[key]["Entrypoint"] = None
    if isinstance(config.get("container_config"), dict) and steps:
        last = str(steps[-1].get("created_by", ""))
        config["container_config"]["Cmd"] = ["/bin/sh", "-c", last.removeprefix("/bin/sh -c ")]
    return json.dumps(config, separators=(",", ":"), ensure_ascii=False).encode()


def _created_by(text: str) -> str:
    listed = _listed(text.removeprefix("/bin/sh -c "))
    return " ".join(listed).rstrip("\n") if listed is not None else text.rstrip()


def _listed(text: str) -> list[str] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, list) and all(isinstance(each, str) for each in found) else None
