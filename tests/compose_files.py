"""Files in memory and short ways to load Compose text, for the tests of the loader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model.compose import ComposeError, Loaded, load_project


class MemoryFiles:
    """The loader's `Files` port over a dict of path -> text or bytes."""

    def __init__(self, files: Mapping[str, str | bytes]) -> None:
        self._files = files

    def read(self, path: str) -> bytes:
        if path not in self._files:
            raise FileNotFoundError(2, "No such file or directory", path)
        data = self._files[path]
        return data if isinstance(data, bytes) else data.encode()

    def exists(self, path: str) -> bool:
        return path in self._files


def load(
    *texts: str | bytes, env: Mapping[str, str] | None = None, files: Mapping[str, str] | None = None, **options: Any
) -> Loaded:
    """Load the texts as /p/compose.yaml, /p/1.yaml, ... of the project `p`; `files` lie in the same tree."""
    paths = ["/p/compose.yaml", *(f"/p/{index}.yaml" for index in range(1, len(texts)))]
    memory: dict[str, str | bytes] = dict(zip(paths, texts, strict=True))
    return load_project(MemoryFiles({**memory, **(files or {})}), paths, env or {}, **options)


def service(text: str, **options: Any) -> dict[str, Any]:
    """The resolved service `a` of a project whose service `a` has the fields `text` (flow style, without braces)."""
    loaded = load(f"services: {{a: {{image: x, {text}}}}}", **options)
    found: dict[str, Any] = loaded.project["services"]["a"]
    return found


def faults(*texts: str | bytes, **options: Any) -> list[str]:
    """The problem lines of a project that must not load."""
    try:
        loaded = load(*texts, **options)
    except ComposeError as error:
        return list(error.problems)
    raise AssertionError(f"loaded: {loaded.project}")


def ids(loaded: Loaded) -> list[str]:
    return [warning.id for warning in loaded.warnings]
