"""A node group as a person writes it, and what must hold in its record whoever made it.

Rules: pure. The file is YAML of one group a document; every problem is one line with file, line and field. What the file cannot
know (is there such a group, has it machines?) is checked where the cluster is known.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, Final

from model.autoscale import MachineTemplate, NodeGroupSpec, ProviderSpec
from model.compose import scalars
from model.compose.kinds import BOOL, BYTES, DURATION, STR, TEXT, Context, Field, Int, Kind, ListOf, MapOf, Num, Obj
from model.compose.problems import ComposeError, Mark, Report, TooManyProblems
from model.compose.tree import Map
from model.compose.yamlread import read_yaml
from model.pki_names import NODE_NAME_MAX

MACHINES_MAX: Final = 5_000
TIME_S_MAX: Final = 30 * 86_400.0
LABELS_MAX: Final = 50
WORDS_MAX: Final = 100
_NAME: Final = re.compile(r"[a-z]([a-z0-9-]{0,22}[a-z0-9])?")
NAME_RULE: Final = "a lower-case letter, then up to 23 of a-z, 0-9 and '-', the last one no '-'"
GROUP_KEYS: Final = "name, max, template, provider"
_LABEL: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./:-]*")
_HOST: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]*")
_USER: Final = re.compile(r"[a-z_][a-z0-9_-]*")
COUNT: Final = Int(0, MACHINES_MAX)
_TIMES: Final = ("idle", "after_add", "provision", "back_off")
_OTHERS: Final = ("min", "max", "buffer", "utilization", "unready_max", "remove_volumes")


def PERCENT(cx: Context, value: Any, path: str, mark: Mark) -> Any:
    """`45%` or `0.45`, as 0.45."""
    if value is None:
        return None
    text = value.strip() if isinstance(value, str) else value
    number = scalars.parse_number(text.removesuffix("%")) if isinstance(text, str) else text
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        return cx.bad(path, value, "a share such as 50% or 0.5", mark)
    share = number / 100 if isinstance(text, str) and text.endswith("%") else number
    return float(share) if 0 <= share <= 1 else cx.bad(path, value, "a share from 0 to 100%", mark)


_TEMPLATE: Final = Obj({
    "cpus": Field(Num(0.01, 4096)), "memory": Field(BYTES), "labels": Field(MapOf(TEXT)),
}, required=("cpus", "memory"))  # fmt: skip
_WORDS: Final[Kind] = ListOf(STR, scalar=True)
_PROVIDER: Final = Obj({
    "lab": Field(Obj({}, empty_is=Map())),
    "exec": Field(Obj({
        "create": Field(_WORDS), "delete": Field(_WORDS), "list": Field(_WORDS), "timeout": Field(DURATION),
    }, required=("create", "delete", "list"))),
    "ssh": Field(Obj({
        "hosts": Field(ListOf(STR, unique=True)), "user": Field(STR), "key": Field(STR), "known_hosts": Field(STR),
        "timeout": Field(DURATION),
    }, required=("hosts",))),
})  # fmt: skip
_GROUP: Final = Obj({
    "name": Field(STR), "min": Field(COUNT), "max": Field(COUNT), "buffer": Field(COUNT), "template": Field(_TEMPLATE),
    "provider": Field(_PROVIDER), "utilization": Field(PERCENT), "unready_max": Field(PERCENT),
    "remove_volumes": Field(BOOL), **{name: Field(DURATION) for name in _TIMES},
}, required=("name", "max", "template", "provider"))  # fmt: skip


def read_groups(data: bytes, file: str) -> list[NodeGroupSpec]:
    """The groups of a file. Raises ComposeError with every problem."""
    report = Report()
    try:
        documents = read_yaml(data, file, report, GROUP_KEYS)
        if not documents and not report.problems:
            report.problem("", f"holds no node group: expected {GROUP_KEYS}", Mark(file))
        groups = [group for document in documents if (group := _read(document, report)) is not None]
        names = [group.name for group in groups]
        for name in sorted({name for name in names if names.count(name) > 1}):
            report.problem("name", f"there are two groups {name}", Mark(file))
    except TooManyProblems:
        raise ComposeError(report.problems) from None
    report.raise_if_any()
    return groups


def _read(document: Map, report: Report) -> NodeGroupSpec | None:
    before = len(report.problems)
    provider = document.get("provider")
    if isinstance(provider, dict) and "lab" in provider and provider["lab"] is None:
        provider["lab"] = Map(mark=document.at("provider"))
    found = _GROUP(Context(report), document, "", document.mark)
    if len(report.problems) > before:
        return None
    if len(found["provider"]) != 1:
        report.problem("provider", "expected exactly one of lab, exec and ssh", document.at("provider"))
        return None
    spec = _spec(found)
    for name, problem in _problems(spec):
        report.problem(name, problem, document.at(name.partition(".")[0]))
    return spec


def _spec(found: dict[str, Any]) -> NodeGroupSpec:
    template = found["template"]
    labels = tuple(sorted((template.get("labels") or {}).items()))
    times: dict[str, Any] = {f"{name}_s": scalars.duration_s(found[name]) for name in _TIMES if name in found}
    others = {name: found[name] for name in _OTHERS if name in found}
    machine = MachineTemplate(float(template["cpus"]), int(template["memory"]), labels)
    return NodeGroupSpec(found["name"], _provider(found["provider"]), template=machine, **times, **others)


def _provider(found: dict[str, Any]) -> ProviderSpec:
    ((kind, rows),) = found.items()
    timeout: dict[str, Any] = {"timeout_s": scalars.duration_s(rows["timeout"])} if "timeout" in rows else {}
    match kind:
        case "exec":
            words: dict[str, Any] = {name: tuple(rows[name]) for name in ("create", "delete", "list")}
            return ProviderSpec("exec", **words, **timeout)
        case "ssh":
            named: dict[str, Any] = {"key_file": rows.get("key", ""), "known_hosts": rows.get("known_hosts", "")}
            return ProviderSpec("ssh", hosts=tuple(rows["hosts"]), user=rows.get("user", "root"), **named, **timeout)
        case _:
            return ProviderSpec("lab")


def group_problems(spec: NodeGroupSpec) -> list[str]:
    """Everything that is wrong with the record itself."""
    return [f"node group {spec.name[:80]}: {field}: {problem}" for field, problem in _problems(spec)]


def _problems(spec: NodeGroupSpec) -> Iterator[tuple[str, str]]:
    """(field, what is wrong and what was expected)."""
    if not _NAME.fullmatch(spec.name) or len(spec.name) + 9 > NODE_NAME_MAX:
        yield "name", f"found {spec.name[:80]!r}, expected {NAME_RULE}"
    if not 0 <= spec.min <= spec.max <= MACHINES_MAX:
        yield "min", f"found min {spec.min} and max {spec.max}, expected 0 <= min <= max <= {MACHINES_MAX:,}"
    if spec.max < 1:
        yield "max", f"found {spec.max}, expected at least 1"
    if not 0 <= spec.buffer <= spec.max:
        yield "buffer", f"found {spec.buffer}, expected a number from 0 to max ({spec.max})"
    for name in ("utilization", "unready_max"):
        if not 0.0 <= getattr(spec, name) <= 1.0:
            yield name, f"found {getattr(spec, name)}, expected a share from 0 to 1"
    for name, least in (("idle_s", 0.0), ("after_add_s", 0.0), ("provision_s", 1.0), ("back_off_s", 1.0)):
        value = getattr(spec, name)
        if not (math.isfinite(value) and least <= value <= TIME_S_MAX):
            yield name.removesuffix("_s"), f"found {value:g} s, expected from {least:g} s to 30 days"
    yield from _template_problems(spec.template)
    yield from _provider_problems(spec.provider)
    if spec.provider.kind == "ssh" and 0 < len(spec.provider.hosts) < spec.max:
        yield "max", f"found {spec.max} with {len(spec.provider.hosts)} hosts, expected at most one machine a host"


def _template_problems(template: MachineTemplate) -> Iterator[tuple[str, str]]:
    if not (math.isfinite(template.cpus) and 0.01 <= template.cpus <= 4096):
        yield "template.cpus", f"found {template.cpus}, expected a number from 0.01 to 4096"
    if not 1 << 20 <= template.memory_bytes <= 1 << 50:
        yield "template.memory", f"found {template.memory_bytes} bytes, expected at least 1M"
    if len(template.labels) > LABELS_MAX:
        yield "template.labels", f"found {len(template.labels)}, expected at most {LABELS_MAX}"
    for key, value in template.labels:
        if not _LABEL.fullmatch(key) or (value and not _LABEL.fullmatch(value)) or len(key) + len(value) > 255:
            yield "template.labels", f"found {key[:60]!r}: {value[:60]!r}, expected letters, digits and _./:-"


def _provider_problems(provider: ProviderSpec) -> Iterator[tuple[str, str]]:
    if not (math.isfinite(provider.timeout_s) and 1.0 <= provider.timeout_s <= 86_400.0):
        yield "provider", f"found timeout {provider.timeout_s:g} s, expected from 1 s to 1 day"
    if provider.kind == "exec":
        for name in ("create", "delete", "list"):
            words: tuple[str, ...] = getattr(provider, name)
            if not words or len(words) > WORDS_MAX or not words[0].startswith("/") or any("\0" in word for word in words):
                yield f"provider.exec.{name}", "expected a command: the absolute path of a program, then its words"
    if provider.kind == "ssh":
        yield from _ssh_problems(provider)


def _ssh_problems(provider: ProviderSpec) -> Iterator[tuple[str, str]]:
    if not 1 <= len(provider.hosts) <= MACHINES_MAX or len(set(provider.hosts)) < len(provider.hosts):
        yield "provider.ssh.hosts", "expected at least one host, each once"
    for host in provider.hosts:
        if not _HOST.fullmatch(host):
            yield "provider.ssh.hosts", f"found {host[:80]!r}, expected HOST or HOST:PORT"
    if not _USER.fullmatch(provider.user):
        yield "provider.ssh.user", f"found {provider.user[:80]!r}, expected the name of a user"
    for name, path in (("key", provider.key_file), ("known_hosts", provider.known_hosts)):
        if path and not path.startswith("/"):
            yield f"provider.ssh.{name}", f"found {path[:80]!r}, expected an absolute path on the controller's machine"
