"""Images in Docker's words: rows of listings, what pulls and removals tell, sizes and ages.

Rules: pure. What comes in are the API's rows; `now` is given.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from model.errors import BadInput
from model.image_ref import ImageRef, parse_image_ref
from model.stamps import utc_text

NONE: Final = "<none>"
_CREATED_BY_CHARS: Final = 45
_PUSHED: Final = {"pushed": "Pushed", "exists": "Layer already exists", "mounted": "Mounted from another repository"}
Row = dict[str, Any]


def rows_of(images: Iterable[Mapping[str, Any]]) -> list[Row]:
    """A row for each name of an image, one for an image without."""
    rows: list[Row] = []
    for image in images:
        facts = {"id": image["id"], "created": image["created"], "size_bytes": image["size_bytes"]}
        rows += [
            {**_named(parse_image_ref(name), image["digests"].get(name)), **facts, "nodes": nodes}
            for name, nodes in image["names"].items()
        ]
        if not image["names"]:
            rows.append({"repository": NONE, "tag": NONE, "digest": NONE, **facts, "nodes": image["nodes"]})
    return rows


def _named(ref: ImageRef, digest: str | None) -> Row:
    return {"repository": repository(ref), "tag": ref.tag or NONE, "digest": ref.digest or digest or NONE}


def repository(ref: ImageRef) -> str:
    """As people write it: `busybox`, `localhost:5000/apache`."""
    return ref.familiar.partition("@")[0].removesuffix(f":{ref.tag}" if ref.tag else "")


def matching(rows: Iterable[Row], name: str, filters: Sequence[str]) -> list[Row]:
    """Those of that name (a pattern; with or without a tag) that pass all filters. Raises BadInput."""
    patterns: list[str] = []
    dangling: bool | None = None
    for text in filters:
        key, equals, value = text.partition("=")
        if not equals:
            raise BadInput(f"--filter {text}: expected KEY=VALUE")
        if key == "reference":
            patterns.append(value)
        elif key == "dangling" and value in ("true", "false", "1", "0"):
            dangling = value in ("true", "1")
        else:
            raise BadInput(f"--filter {text}: invalid filter: expected dangling=true, dangling=false or reference=PATTERN")
    return [
        row
        for row in rows
        if (not name or _fits(row, name))
        and (not patterns or any(_fits(row, pattern) for pattern in patterns))
        and dangling in (None, row["repository"] == NONE)
    ]


def _fits(row: Row, pattern: str) -> bool:
    """Go's path.Match on the repository, and on repository:tag."""
    if row["repository"] == NONE:
        return False
    found = re.compile(_glob(pattern))
    return any(found.fullmatch(text) for text in (row["repository"], f"{row['repository']}:{row['tag']}"))


def _glob(pattern: str) -> str:
    """`*` and `?` do not go over a slash; sets as in shells."""
    parts = re.split(r"(\*|\?|\[\^?[^\]]+\])", pattern)
    return "".join(
        {"*": "[^/]*", "?": "[^/]"}.get(part) or (part if part.startswith("[") and part.endswith("]") else re.escape(part))
        for part in parts
    )


def short(image_id: str) -> str:
    return image_id.removeprefix("sha256:")[:12]


def docker_size(size: float) -> str:
    """1234567 -> `1.23MB`, as Docker writes it: three digits, powers of 1000."""
    units = ("B", "kB", "MB", "GB", "TB", "PB")
    number, unit = float(size), 0
    while number >= 1000 and unit < len(units) - 1:
        number, unit = number / 1000, unit + 1
    return f"{number:.3g}{units[unit]}" if number < 999.5 else f"{number:.0f}{units[unit]}"


def docker_age(created: str, now: dt.datetime) -> str:
    """`3 weeks ago` of an RFC 3339 text, as Docker rounds it; `N/A` when it is not known."""
    if not created:
        return "N/A"
    seconds = max(0, int((now - dt.datetime.fromisoformat(created)).total_seconds()))
    return f"{_duration(seconds)} ago"


def _duration(seconds: int) -> str:
    minutes, hours = seconds // 60, int(seconds / 3600 + 0.5)
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return f"{seconds} second{'' if seconds == 1 else 's'}"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    for unit, size, until in (("days", 24, 24 * 14), ("weeks", 24 * 7, 24 * 60), ("months", 24 * 30, 24 * 365 * 2)):
        if hours < until:
            return f"{hours // size} {unit}"
    return f"{hours // 24 // 365} years"


def created_by(text: str, *, whole: bool) -> str:
    """One line of a history's CREATED BY."""
    line = " ".join(text.replace("\t", " ").splitlines())
    return line if whole or len(line) <= _CREATED_BY_CHARS else f"{line[: _CREATED_BY_CHARS - 1]}…"


def stamp(at_s: int) -> str:
    """Unix seconds as RFC 3339; empty for 0."""
    return utc_text(dt.datetime.fromtimestamp(at_s, dt.UTC)) if at_s else ""


def pull_heading(reference: str) -> list[str]:
    """What is told before a pull."""
    ref = parse_image_ref(reference)
    lines = [] if ref.digest or reference.endswith(f":{ref.tag}") else [f"Using default tag: {ref.tag}"]
    return [*lines, f"{ref.digest or ref.tag}: Pulling from {ref.repository}"]


def pull_result(reference: str, images: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is told after a pull. `images`: the image as each node got it."""
    ref = parse_image_ref(reference)
    current = all(image["current"] for image in images)
    there: dict[str, bool] = {}
    for image in images:
        for layer in image["layers"]:
            there[layer["id"]] = there.get(layer["id"], True) and layer["existed"]
    lines = [] if current else [f"{short(layer)}: {'Already exists' if it else 'Pull complete'}" for layer, it in there.items()]
    digest = next((image["digests"].get(ref.familiar) or image["digest"] for image in images), "")
    status = "Image is up to date" if current else "Downloaded newer image"
    return [*lines, f"Digest: {digest}", f"Status: {status} for {ref.familiar}", ref.canonical]


def run_heading(reference: str) -> list[str]:
    """What `run` tells before the pull of an image that no node has."""
    return [f"Unable to find image '{parse_image_ref(reference).familiar}' locally", pull_heading(reference)[-1]]


def run_pulled(reference: str, image: Mapping[str, Any]) -> list[str]:
    """What it tells after it. The node may have had it by the time it was asked: what was not there before was pulled."""
    late = image["current"]
    layers = [{**layer, "existed": layer["existed"] and not late} for layer in image["layers"]]
    return pull_result(reference, [{**image, "current": False, "layers": layers}])[:-1]


def push_heading(reference: str) -> list[str]:
    """What is told before a push."""
    ref = parse_image_ref(reference)
    lines = [] if reference.endswith(f":{ref.tag}") else [f"Using default tag: {ref.tag}"]
    return [*lines, f"The push refers to repository [{ref.name}]"]


def push_result(reference: str, pushed: Mapping[str, Any]) -> list[str]:
    """What is told after a push, top layer first as Docker has it."""
    ref = parse_image_ref(reference)
    layers = [f"{short(layer['id'])}: {_PUSHED[layer['state']]}" for layer in reversed(pushed["layers"])]
    return [*layers, f"{ref.tag}: digest: {pushed['digest']} size: {pushed['size_bytes']}"]


def loaded(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is told after a load, once for all nodes."""
    told = [f"Loaded image: {name}" for row in rows for name in row["names"]]
    return list(dict.fromkeys([*told, *(f"Loaded image ID: {image_id}" for row in rows for image_id in row["ids"])]))


def removed(rows: Iterable[Mapping[str, Any]], *, lower: bool = False) -> list[str]:
    """`Untagged: busybox:latest`, `Deleted: sha256:..`; each once."""
    told = [f"{word}: {row[word]}" for row in rows for word in ("Untagged", "Deleted") if word in row]
    return [line[0].lower() + line[1:] if lower else line for line in dict.fromkeys(told)]
