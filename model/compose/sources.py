"""Reading the files a project is made of: parse, substitute variables, bring into long form, follow extends and include.

Rules: all reading goes through the `Files` port; the number and nesting of files is bounded; a file that names itself
through extends or include is a fault that shows the way round. Relative paths are relative to the folder of their file.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from model.compose.dotenv import parse_env
from model.compose.fields import SECTIONS, TOP
from model.compose.interpolate import Interpolator, interpolate_tree
from model.compose.kinds import Context
from model.compose.merge import merge_projects, merge_services
from model.compose.problems import NOWHERE, Mark, Report, near, show
from model.compose.tree import Map, copy_map, items_of, plain, untag
from model.compose.yamlread import read_yaml

FILES_MAX = 200
CHAIN_MAX = 30


class Files(Protocol):
    """Where file contents come from. `read` raises OSError with a plain reason."""

    def read(self, path: str) -> bytes: ...

    def exists(self, path: str) -> bool: ...


@dataclass(slots=True)
class Session:
    """What one load shares: the port, the report, the environment and what was read."""

    files: Files
    report: Report
    env: Mapping[str, str]
    resolve_paths: bool = True
    read: dict[str, None] = field(default_factory=dict)
    parsed: dict[str, list[Map]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """From where a file is read: `dir` is the folder of relative paths, `env` what variables are taken from."""

    dir: str
    env: Mapping[str, str]
    chain: tuple[str, ...] = ()
    absolute: bool = True


def load_files(session: Session, paths: Sequence[str], place: Place) -> Map:
    """The files merged in order, extends and include followed; canonical, tags still on."""
    project = Map()
    for path in paths:
        for document in _documents(session, path, place.env):
            canonical = canonical_file(session, document, place)
            canonical = _extend_all(session, canonical, path, place)
            included = _include_all(session, canonical, path, place)
            project = merge_projects(project, canonical)
            if included:
                project = _import(session, project, included)
    return project


def read_bytes(session: Session, path: str, mark: Mark = NOWHERE, field_path: str = "") -> bytes | None:
    """The bytes of `path`, or None after reporting why not."""
    session.read[path] = None
    if len(session.read) > FILES_MAX:
        session.report.problem(field_path, f"the project names more than {FILES_MAX} files", mark)
        return None
    try:
        return session.files.read(path)
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        session.report.problem(field_path, f"cannot read {path}: {reason}", mark)
        return None


def _parsed(session: Session, path: str, mark: Mark = NOWHERE, at: str = "") -> list[Map]:
    """The documents of a file as written; each file is read once."""
    if path not in session.parsed:
        before = len(session.report.problems)
        data = read_bytes(session, path, mark, at)
        session.parsed[path] = [] if data is None else read_yaml(data, path, session.report)
        if not session.parsed[path] and len(session.report.problems) == before:
            session.report.problem("", "is empty, expected a mapping with 'services'", Mark(path))
    return session.parsed[path]


def _documents(session: Session, path: str, env: Mapping[str, str], mark: Mark = NOWHERE, at: str = "") -> list[Map]:
    interpolator = Interpolator(env)
    documents = _parsed(session, path, mark, at)
    return [interpolate_tree(document, interpolator, session.report) for document in documents]


def declared_name(session: Session, paths: Sequence[str], env: Mapping[str, str]) -> str:
    """The `name:` of the last file that has one, its variables replaced; empty when none has."""
    for path in reversed(paths):
        for document in reversed(_parsed(session, path)):
            name = document.get("name")
            if isinstance(name, str) and name:
                return str(interpolate_tree(name, Interpolator(env), session.report))
    return ""


def canonical_file(session: Session, document: Map, place: Place) -> Map:
    """One document in long form; null services and resources become empty mappings."""
    cx = Context(session.report, place.dir if place.absolute else "", session.env.get("HOME", ""))
    canonical: Map = TOP(cx, document, "", document.mark) or Map()
    for section in SECTIONS:
        entries = canonical.get(section)
        if isinstance(entries, Map):
            _fill_empty(session, section, entries)
    return canonical


def _fill_empty(session: Session, section: str, entries: Map) -> None:
    for name in [name for name, value in entries.items() if value is None]:
        if section in ("services", "secrets", "configs"):
            session.report.problem(f"{section}.{name}", "found nothing, expected a mapping", entries.at(name))
        entries[name] = Map(mark=entries.at(name))


# extends


def _extend_all(session: Session, canonical: Map, path: str, place: Place) -> Map:
    services = canonical.get("services")
    if not isinstance(services, Map) or not any(isinstance(s, dict) and "extends" in s for s in services.values()):
        return canonical
    result = copy_map(services)
    done: dict[str, Map | None] = {}
    for name in services:
        if isinstance(services[name], dict):
            extended = _extend(session, services, name, path, place, done)
            if extended is not None:
                result[name] = extended
    canonical = copy_map(canonical)
    canonical["services"] = result
    return canonical


def _extend(session: Session, services: Map, name: str, path: str, place: Place, done: dict[str, Map | None]) -> Map | None:
    """Service `name` of the file `path` laid on what it extends; None after a reported fault."""
    if name in done:
        return done[name]
    service: Map = services[name]
    link = service.get("extends")
    if not isinstance(link, Map) or not isinstance(link.get("service"), str):
        return service
    at = f"services.{name}.extends"
    here = f"{path}#{name}"
    if here in place.chain or len(place.chain) > CHAIN_MAX:
        way = " -> ".join(part.rpartition("#")[2] for part in (*place.chain, here))
        session.report.problem(at, f"goes round in a circle or too deep: {way}", service.at("extends"))
        return None
    inner = replace(place, chain=(*place.chain, here))
    base = _base(session, services, service, link, at, path, inner, done)
    result = copy_map(service)
    del result["extends"]
    merged = merge_services(copy_map(untag(base)), result) if base is not None else None
    done[name] = merged
    return merged


def _base(
    session: Session, services: Map, service: Map, link: Map, at: str, path: str, place: Place, done: dict[str, Map | None]
) -> Map | None:
    wanted, mark = link["service"], service.at("extends")
    file = link.get("file")
    if not isinstance(file, str):
        if not isinstance(services.get(wanted), dict):
            session.report.problem(
                at, f"found {show(wanted)}, expected a service of this file" + near(wanted, list(services)), mark
            )
            return None
        return _extend(session, services, wanted, path, place, done)
    other = join(place.dir, file)
    folder = posixpath.dirname(other)
    inner = replace(place, dir=folder, absolute=session.resolve_paths or place.dir != folder)
    found: Map | None = None
    for document in _documents(session, other, place.env, mark, at):
        there = canonical_file(session, document, inner).get("services")
        if isinstance(there, dict) and isinstance(there.get(wanted), dict):
            found = _extend(session, untag(there), wanted, other, inner, {})
    if found is None and not session.report.problems:
        session.report.problem(at, f"{other} has no service {show(wanted)}", mark)
    return found


# include


def _include_all(session: Session, canonical: Map, path: str, place: Place) -> list[Map]:
    included = []
    for index, entry in enumerate(untag(canonical.pop("include", None)) or ()):
        at = f"include[{index}]"
        paths = [join(place.dir, one) for one in entry.get("path") or ()]
        round_trip = [one for one in paths if one in place.chain or one == path]
        if round_trip or len(place.chain) > CHAIN_MAX:
            way = " -> ".join((*place.chain, path, *round_trip[:1]))
            session.report.problem(at, f"goes round in a circle or too deep: {way}")
            continue
        if paths:
            included.append(_include(session, entry, paths, (*place.chain, path), place, at))
    return included


def _include(session: Session, entry: Map, paths: list[str], chain: tuple[str, ...], place: Place, at: str) -> Map:
    given = entry.get("project_directory")
    folder = join(place.dir, given) if isinstance(given, str) else posixpath.dirname(paths[0])
    names = entry.get("env_file")
    env_files = [join(place.dir, one) for one in names] if names else [join(folder, ".env")]
    env = dict(place.env)
    for one in env_files:
        if names or session.files.exists(one):
            env = {**read_env(session, one, env, at), **env}
    project = load_files(session, paths, Place(folder, env, chain, session.resolve_paths or folder != place.dir))
    project.pop("name", None)
    project.pop("version", None)
    return untag(project)  # type: ignore[no-any-return]


def read_env(session: Session, path: str, env: Mapping[str, str], at: str = "") -> dict[str, str]:
    """The variables of a .env file that have a value."""
    data = read_bytes(session, path, NOWHERE, at)
    found = parse_env(data, path, env, session.report) if data is not None else {}
    return {name: value for name, value in found.items() if value is not None}


def _import(session: Session, project: Map, included: list[Map]) -> Map:
    result = copy_map(project)
    for other in included:
        for section in SECTIONS:
            if not isinstance(other.get(section), dict):
                continue
            mine = copy_map(result.get(section) or Map())
            for name, value, mark in items_of(other[section]):
                if name in mine and plain(mine[name]) != plain(value):
                    session.report.problem(f"{section}.{name}", "is defined here and differently in an included file", mark)
                mine.put(name, value, mark)
            result[section] = mine
        for key, value, mark in items_of(other):
            if key.startswith("x-") and key not in result:
                result.put(key, value, mark)
    return result


def join(folder: str, path: str) -> str:
    """`path` against `folder`, as a normal path."""
    return path if path == "-" else posixpath.normpath(posixpath.join(folder, path))
