"""`load_project`: Compose files -> the resolved project, or every fault found on the way.

Rules: pure but for the `Files` port; the environment is an argument; nothing is cached between loads.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model.compose.check import check_project, warn_unsupported
from model.compose.fields import SECTIONS, TOP
from model.compose.finish import finish, is_enabled
from model.compose.kinds import Context
from model.compose.problems import ComposeError, Problem, Report, TooManyProblems, Warning_
from model.compose.sources import Files, Place, Session, declared_name, join, load_files, read_env
from model.compose.tree import Map, items_of, plain, untag


@dataclass(frozen=True, slots=True)
class Loaded:
    """A resolved project (the shape of `docker compose config --format json`, `$` unescaped) and what to know of it."""

    project: dict[str, Any]
    warnings: tuple[Warning_, ...]
    sources: tuple[str, ...]


def load_project(
    files: Files,
    paths: Sequence[str],
    env: Mapping[str, str],
    *,
    project_name: str | None = None,
    profiles: Sequence[str] = (),
    strict: bool = False,
    project_dir: str | None = None,
    env_files: Sequence[str] | None = None,
    resolve_paths: bool = True,
) -> Loaded:
    """Load `paths` (later ones on top of earlier ones). Raises ComposeError with all problems.

    `env_files` None: `.env` of the project's folder where there is one. `strict`: warnings are errors as well.
    `resolve_paths` False leaves relative paths of the project's own files as written.
    """
    report = Report()
    session = Session(files, report, env, resolve_paths)
    try:
        project = _load(session, paths, env, project_name, profiles, project_dir, env_files)
    except TooManyProblems:
        raise ComposeError(report.problems) from None
    warnings = tuple(report.warnings.values())
    if strict and warnings:
        report.problems.extend(Problem("", f"{w.id}: {w.message}", w.mark) for w in warnings)
    report.raise_if_any()
    return Loaded(plain(project), warnings, tuple(session.read))


def _load(
    session: Session,
    paths: Sequence[str],
    given_env: Mapping[str, str],
    project_name: str | None,
    profiles: Sequence[str],
    project_dir: str | None,
    env_files: Sequence[str] | None,
) -> Map:
    report = session.report
    folder = project_dir or (posixpath.dirname(paths[0]) if paths and paths[0] != "-" else "") or "."
    env = _environment(session, folder, given_env, env_files)
    name = project_name or env.get("COMPOSE_PROJECT_NAME") or ""
    session.env = env
    name = name or declared_name(session, paths, env) or _default_name(folder)
    named = {**env, "COMPOSE_PROJECT_NAME": name}
    merged = untag(load_files(session, paths, Place(folder, named, absolute=session.resolve_paths)))
    report.raise_if_any()
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        where = "" if project_name else "name"
        report.problem(where, f"the project name {name!r} may hold only a-z, 0-9, _ and -, and starts with a-z or 0-9")
    chosen = [*profiles, *(part.strip() for part in env.get("COMPOSE_PROFILES", "").split(",") if part.strip())]
    project = finish(session, merged, name, chosen, env)
    services = merged.get("services") or {}
    disabled = tuple(key for key, service in services.items() if not is_enabled(service, chosen))
    check_project(project, report, complete=False, disabled=disabled, known=merged)
    warn_unsupported(project, report)
    return project


def _environment(session: Session, folder: str, given: Mapping[str, str], env_files: Sequence[str] | None) -> Mapping[str, str]:
    """`given` on top of the variables of the .env files; a later file wins over an earlier one."""
    default = join(folder, ".env")
    chosen = list(env_files) if env_files is not None else [default] if session.files.exists(default) else []
    found: dict[str, str] = {}
    for path in chosen:
        found.update(read_env(session, path, {**found, **given}))
    return {**found, **given}


def _default_name(folder: str) -> str:
    """The folder's name as a project name."""
    word = re.sub(r"[^a-z0-9_-]", "", posixpath.basename(posixpath.normpath(folder)).lower()).lstrip("_-")
    return word or "default"


def validate_resolved(project: Any) -> tuple[Problem, ...]:
    """What is wrong with a resolved project that came from outside (the API); empty when it can be run."""
    report = Report()
    try:
        if not isinstance(project, dict):
            report.problem("", f"found {type(project).__name__}, expected a mapping with 'services'")
        elif not _too_large(project, report):
            canonical = TOP(Context(report), project, "", Map().mark)
            if not report.problems:
                _check_resolved(canonical, report)
    except TooManyProblems:
        pass
    return tuple(report.problems)


def _check_resolved(project: Map, report: Report) -> None:
    name = project.get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        report.problem("name", f"found {name!r}, expected a project name of a-z, 0-9, _ and -")
    for section in SECTIONS:
        for key, value in (project.get(section) or {}).items():
            if value is None:
                report.problem(f"{section}.{key}", "found nothing, expected a mapping")
    if report.problems:
        return
    for key, service, _ in items_of(project.get("services") or {}):
        for form in ("extends", "env_file", "label_file"):
            if service.get(form):
                report.problem(f"services.{key}.{form}", "has to be resolved before the project is sent")
    check_project(project, report, complete=True)


def _too_large(value: Any, report: Report, depth_max: int = 60, nodes_max: int = 500_000) -> bool:
    """Walks without recursion, so that hostile input cannot exhaust the stack."""
    level, nodes, depth = [value], 0, 0
    while level:
        depth += 1
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                if not all(isinstance(key, str) for key in item):
                    report.problem("", "a key is no text")
                    return True
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        nodes += len(inner)
        if depth > depth_max or nodes > nodes_max:
            report.problem("", f"is nested deeper than {depth_max} levels or holds more than {nodes_max} values")
            return True
        level = inner
    return False
