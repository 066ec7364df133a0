"""A Dockerfile, read as far as a build has to know it beforehand: its stages, and which images they need.

Rules: pure; text in, records out. What the builder itself says better is left to it; what it says badly (an instruction that
does not exist, a stage that is not there) is one line here, in Docker's words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from model.errors import BadInput

SCRATCH: Final = "scratch"
TEXT_BYTES_MAX: Final = 1 << 20
_LINES_MAX: Final = 20_000
_WORDS: Final = (
    "ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER", "ONBUILD", "RUN",
    "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
)  # fmt: skip
_HEREDOC: Final = re.compile(r"(?:\A|\s)\d*<<(?P<dash>-?)(?P<quote>['\"]?)(?P<word>[A-Za-z_][\w.]*)(?P=quote)(?=\s|\Z)")
_DIRECTIVE: Final = re.compile(r"#\s*(?P<key>[a-zA-Z]+)\s*=\s*(?P<value>.+?)\s*\Z")
_VARIABLE: Final = re.compile(
    r"\\(?P<plain>.)|\$(?:(?P<bare>\w+)|\{(?P<name>\w+)(?:(?P<sign>:?[-+])(?P<other>(?:[^{}]|\{[^{}]*\})*))?\})", re.DOTALL
)
_FLAG: Final = re.compile(r"--(?P<name>[a-z]+)(?:=(?P<value>\S*))?\s+")
_HERE_WORDS: Final = ("RUN", "COPY", "ADD")


@dataclass(frozen=True, slots=True)
class Heredoc:
    """`literal`: variables in it stay as they are."""

    word: str
    literal: bool
    body: str


@dataclass(frozen=True, slots=True)
class Instruction:
    """`line` counts from 1; `text` is what follows the word, its lines joined; `flags` are at its beginning."""

    line: int
    word: str
    flags: tuple[tuple[str, str], ...]
    text: str
    heredocs: tuple[Heredoc, ...] = ()

    def flag(self, name: str) -> str:
        return dict(self.flags).get(name, "")


@dataclass(frozen=True, slots=True)
class Stage:
    """`base` with its variables replaced; `name` is empty when it has none. `steps` without its FROM."""

    base: str
    name: str
    flags: tuple[tuple[str, str], ...]
    steps: tuple[Instruction, ...]


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """`head`: what stands before the first FROM; `escape` joins lines."""

    head: tuple[Instruction, ...]
    stages: tuple[Stage, ...]
    escape: str = "\\"


def read_dockerfile(text: str, args: Mapping[str, str], name: str = "Dockerfile") -> Dockerfile:
    """`args`: the build arguments, for names of base images. Raises BadInput."""
    found = tuple(_instructions(text, name))
    if not found:
        raise BadInput(f"the Dockerfile ({name}) cannot be empty")
    first = next((at for at, each in enumerate(found) if each.word == "FROM"), len(found))
    head = found[:first]
    if wrong := [each for each in head if each.word != "ARG"]:
        raise BadInput(f"{name} line {wrong[0].line}: no build stage in current context: FROM comes before {wrong[0].word}")
    if first == len(found):
        raise BadInput(f"no build stage in current context: {name} has no FROM")
    known = _arguments(head, args)
    starts = [at for at, each in enumerate(found) if each.word == "FROM"]
    ends = [*starts[1:], len(found)]
    stages = tuple(_stage(found[at], found[at + 1 : end], known, name) for at, end in zip(starts, ends, strict=True))
    return Dockerfile(head, stages, _escape(_lines(text)))


def target_of(dockerfile: Dockerfile, target: str, name: str = "Dockerfile") -> int:
    """The number of the stage that is wanted; empty: the last one. Raises BadInput."""
    if not target:
        return len(dockerfile.stages) - 1
    found = stage_of(dockerfile, target, len(dockerfile.stages))
    if found is None:
        raise BadInput(f"failed to reach build target {target} in {name}")
    return found


def images_of(dockerfile: Dockerfile, target: str = "", name: str = "Dockerfile") -> tuple[str, ...]:
    """The images that the wanted stage needs, as they are written there, in order; raises BadInput."""
    todo, seen, images = [target_of(dockerfile, target, name)], set[int](), dict[int, list[str]]()
    while todo:
        number = todo.pop()
        if number in seen:
            continue
        seen.add(number)
        for used in _used(dockerfile.stages[number]):
            stage = stage_of(dockerfile, used, number)
            if stage is not None:
                todo.append(stage)
            elif used != SCRATCH:
                images.setdefault(number, []).append(used)
    return tuple(dict.fromkeys(image for number in sorted(images) for image in images[number]))


def _used(stage: Stage) -> Iterator[str]:
    yield stage.base
    for step in stage.steps:
        for source in _sources(step):
            if "$" in source:
                raise BadInput(f"Dockerfile line {step.line}: variables are not replaced in from={source}: name a stage for it")
            yield source


def _sources(step: Instruction) -> Iterator[str]:
    if step.word in ("COPY", "ADD") and step.flag("from"):
        yield step.flag("from")
    for key, value in step.flags:
        fields = dict(part.partition("=")[::2] for part in value.split(","))
        if step.word == "RUN" and key == "mount" and fields.get("from"):
            yield fields["from"]


def stage_of(dockerfile: Dockerfile, wanted: str, before: int) -> int | None:
    """The last stage of that name before the stage `before`, or the stage with that number."""
    names = [stage.name.lower() for stage in dockerfile.stages[:before]]
    if wanted.lower() in names:
        return len(names) - 1 - names[::-1].index(wanted.lower())
    return int(wanted) if wanted.isascii() and wanted.isdigit() and int(wanted) < before else None


def _stage(start: Instruction, steps: tuple[Instruction, ...], known: Mapping[str, str], name: str) -> Stage:
    words = start.text.split()
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].lower() != "as"):
        raise BadInput(f"{name} line {start.line}: FROM requires either one or three arguments: FROM IMAGE [AS NAME]")
    base = expand(words[0].strip("\"'"), known)
    if not base:
        raise BadInput(f"{name} line {start.line}: base name ({words[0]}) should not be blank: give its ARG a value")
    return Stage(base, words[2] if len(words) == 3 else "", start.flags, steps)


def _arguments(head: tuple[Instruction, ...], args: Mapping[str, str]) -> dict[str, str]:
    """What variables in FROM stand for: ARG before the first FROM."""
    known: dict[str, str] = {}
    for each in head:
        for word in _unquoted_words(each.text):
            key, is_set, default = word.partition("=")
            known[key] = args[key] if key in args else expand(default, known) if is_set else ""
    return known


def _unquoted_words(text: str) -> list[str]:
    return [re.sub(r"(?<!\\)[\"']", "", word) for word in re.findall(r"(?:[^\s\"']|\"[^\"]*\"|'[^']*')+", text)]


def expand(text: str, known: Mapping[str, str]) -> str:
    """`$A`, `${A}`, `${A:-other}` and `${A:+other}`."""

    def one(found: re.Match[str]) -> str:
        if found["plain"] is not None:
            return found["plain"]
        name, sign, other = found["bare"] or found["name"], found["sign"] or "", found["other"] or ""
        value = known.get(name)
        is_there = bool(value) if sign.startswith(":") else value is not None
        if sign.endswith("-"):
            return value or "" if is_there else expand(other, known)
        if sign.endswith("+"):
            return expand(other, known) if is_there else ""
        return value or ""

    return _VARIABLE.sub(one, text)


# lines


def _instructions(text: str, name: str) -> Iterator[Instruction]:
    if len(text) > TEXT_BYTES_MAX:
        raise BadInput(f"{name} is longer than {TEXT_BYTES_MAX} bytes")
    lines = _lines(text)
    if len(lines) > _LINES_MAX:
        raise BadInput(f"{name} has more than {_LINES_MAX} lines")
    escape, at = _escape(lines), 0
    while at < len(lines):
        line = lines[at].strip()
        if not line or line.startswith("#"):
            at += 1
            continue
        start = at
        joined, at = _joined(lines, at, escape)
        word, _, rest = joined.strip().partition(" " if "\t" not in joined.split(" ")[0] else "\t")
        word, rest = word.upper(), rest.strip()
        if word not in _WORDS:
            raise BadInput(f"dockerfile parse error on line {start + 1} of {name}: unknown instruction: {word[:60]}")
        if not rest:
            raise BadInput(f"dockerfile parse error on line {start + 1} of {name}: {word} requires at least one argument")
        heredocs, at = _heredocs(lines, at, rest, name) if word in _HERE_WORDS else ((), at)
        flags, rest = _flags(rest) if word in ("FROM", "RUN", "COPY", "ADD") else ((), rest)
        yield Instruction(start + 1, word, flags, rest, heredocs)


def _lines(text: str) -> list[str]:
    """Only a line feed ends a line, unlike `splitlines`: a form feed may stand in a here-document."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")


def _escape(lines: list[str]) -> str:
    """The sign at a line's end that joins it with the next; directives stand at the very top."""
    for line in lines:
        found = _DIRECTIVE.match(line.strip())
        if found is None:
            break
        if found["key"].lower() == "escape" and found["value"] in ("`", "\\"):
            return found["value"]
    return "\\"


def _joined(lines: list[str], at: int, escape: str) -> tuple[str, int]:
    """An instruction's lines as one, and the number of the line behind it."""
    parts: list[str] = []
    while at < len(lines):
        line = lines[at]
        at += 1
        if parts and (not line.strip() or line.lstrip().startswith("#")):
            continue  # comments and empty lines between continued ones
        stripped = line.rstrip()
        if not stripped.endswith(escape):
            parts.append(line if parts else line.lstrip())
            break
        parts.append(stripped[:-1] if parts else stripped[:-1].lstrip())
    return "".join(parts), at


def _heredocs(lines: list[str], at: int, text: str, name: str) -> tuple[tuple[Heredoc, ...], int]:
    found: list[Heredoc] = []
    for match in _HEREDOC.finditer(_blanked(text)):
        body: list[str] = []
        start = at
        while at < len(lines):
            line = lines[at].lstrip("\t") if match["dash"] else lines[at]
            at += 1
            if line == match["word"]:
                break
            body.append(line)
        else:
            raise BadInput(f"dockerfile parse error on line {start} of {name}: unterminated heredoc {match['word']}")
        found.append(Heredoc(match["word"], bool(match["quote"]), "".join(f"{line}\n" for line in body)))
    return tuple(found), at


def _blanked(text: str) -> str:
    """Without what is quoted, as far as it is not the word of a here-document itself: `echo "<<EOF"` begins none."""
    return re.sub(r"(?<!<)(?<!-)(\"[^\"]*\"|'[^']*')", lambda found: "x" * len(found[0]), text)


def _flags(text: str) -> tuple[tuple[tuple[str, str], ...], str]:
    flags: list[tuple[str, str]] = []
    while found := _FLAG.match(text):
        flags.append((found["name"], found["value"] or ""))
        text = text[found.end() :]
    return tuple(flags), text
