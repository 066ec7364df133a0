"""`process` of an OCI config: what is executed, as whom, with which environment and rights.

Rules: pure. The order of the environment is Docker's: defaults, the image's, the spec's; the last of a name wins.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from agent.plan import capabilities
from agent.plan.container import ContainerOrder, ExecRequest
from agent.plan.users import User
from model.errors import RuntimeFailed
from model.spec import ContainerSpec, Ulimit

if TYPE_CHECKING:
    from agent.plan.oci import HostFacts

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOFILE: Final = Ulimit("nofile", 65_536, 524_288)
_RLIMIT_NAMES = "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack"
_RLIMITS: Final = frozenset(_RLIMIT_NAMES.split())
_UNLIMITED: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Security:
    """What `security_opt` says."""

    no_new_privileges: bool = True
    seccomp_unconfined: bool = False
    paths_unconfined: bool = False


def security(spec: ContainerSpec) -> Security:
    """Raises RuntimeFailed for an option that cannot be honoured: it must never be ignored silently."""
    no_new, seccomp, paths = not spec.privileged, False, False
    for option in spec.security_opt:
        name, _, value = option.replace("=", ":", 1).partition(":")
        match (name, value):
            case ("no-new-privileges", "" | "true" | "false"):
                no_new = value != "false"
            case ("seccomp", "unconfined"):
                seccomp = True
            case ("seccomp", "builtin") | ("apparmor" | "label", "unconfined" | "disable"):
                pass
            case ("systempaths", "unconfined"):
                paths = True
            case _:
                raise RuntimeFailed(f"security_opt {option!r} is not supported", permanent=True)
    return Security(no_new, seccomp, paths)


def process(order: ContainerOrder, facts: HostFacts, user: User, hostname: str) -> dict[str, Any]:
    spec = order.spec
    found: dict[str, Any] = {
        "terminal": spec.tty,
        "user": oci_user(user),
        "args": arguments(order, facts),
        "env": environment(order, facts, user, hostname),
        "cwd": working_dir(spec.working_dir or order.image.working_dir),
        "capabilities": oci_capabilities(capabilities.held(spec, facts.capabilities), root=user.uid == 0),
        "noNewPrivileges": security(spec).no_new_privileges,
        "rlimits": rlimits(spec, facts),
        "oomScoreAdj": max(facts.oom_score_floor, min(1000, spec.oom_score_adj or 0)),
    }
    return found


def arguments(order: ContainerOrder, facts: HostFacts) -> list[str]:
    """Entrypoint and command. An entrypoint of the spec drops the image's command, as with Docker."""
    spec, image = order.spec, order.image
    entrypoint = spec.entrypoint if spec.entrypoint is not None else image.entrypoint or ()
    command = spec.command if spec.command is not None else (image.cmd or () if spec.entrypoint is None else ())
    found = [*entrypoint, *command]
    if not found or not found[0]:
        raise RuntimeFailed(f"cannot start: image {spec.image} has no command: give one in `command`", permanent=True)
    for text in found:
        _no_nul(text, "command")
    if not spec.init:
        return found
    if not facts.init:
        raise RuntimeFailed("cannot start: init is asked for but catatonit is not installed on this node", permanent=True)
    return ["/dev/init", "--", *found]


def environment(order: ContainerOrder, facts: HostFacts, user: User, hostname: str) -> list[str]:
    spec = order.spec
    found = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    if spec.tty:
        found["TERM"] = "xterm"
    found["SHOAL_REPLICA"] = order.name
    if facts.node:
        found["SHOAL_NODE"] = facts.node
    found.update(order.image.env)
    found.update(spec.env)
    found.setdefault("HOME", user.home)
    for name, value in found.items():
        _no_nul(name + value, f"environment variable {name!r}")
    return [f"{name}={value}" for name, value in found.items()]


def working_dir(path: str) -> str:
    """Absolute and not below /proc, where a descriptor of the runtime could be entered."""
    clean = posixpath.normpath(path or "/")
    clean = "/" + clean.lstrip("/") if clean.startswith("//") else clean
    if not clean.startswith("/"):
        raise RuntimeFailed(f"cannot start: working directory {path!r} is not absolute", permanent=True)
    if clean == "/proc" or clean.startswith("/proc/"):
        raise RuntimeFailed(f"cannot start: working directory {path!r} is refused: it lies below /proc", permanent=True)
    _no_nul(path, "working directory")
    return clean


def rlimits(spec: ContainerSpec, facts: HostFacts) -> list[dict[str, Any]]:
    """The spec's, and a sane number of files; each clipped to what this node may give."""
    wanted = {limit.name: limit for limit in (_NOFILE, *spec.ulimits)}
    found = []
    for name, limit in sorted(wanted.items()):
        if name not in _RLIMITS:
            raise RuntimeFailed(f"ulimit {name!r} is unknown", permanent=True)
        kind = f"RLIMIT_{name.upper()}"
        ceiling = facts.rlimits.get(kind, -1)
        hard = _least(limit.hard, ceiling)
        found.append({"type": kind, "soft": _unsigned(_least(limit.soft, hard)), "hard": _unsigned(hard)})
    return found


def _least(value: int, ceiling: int) -> int:
    """-1 is unlimited on both sides."""
    if ceiling < 0:
        return value
    return ceiling if value < 0 else min(value, ceiling)


def _unsigned(value: int) -> int:
    return _UNLIMITED if value < 0 else value


def oci_user(user: User) -> dict[str, Any]:
    return {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)}


def oci_capabilities(held: tuple[str, ...], *, root: bool) -> dict[str, list[str]]:
    """A user other than root starts without effective ones, as with Docker; the bounding set is the same."""
    effective = list(held) if root else []
    return {"bounding": list(held), "effective": effective, "permitted": effective, "inheritable": [], "ambient": []}


def exec_process(request: ExecRequest, base: dict[str, Any], user: User, available: tuple[str, ...]) -> dict[str, Any]:
    """The process of an exec, made from the container's own `process` (`base`). `available`: all the node can give."""
    if not request.command or not request.command[0]:
        raise RuntimeFailed("exec: no command", permanent=True)
    for text in request.command:
        _no_nul(text, "command")
    env = dict(line.partition("=")[::2] for line in base["env"])
    env["HOME"] = user.home if request.user else env.get("HOME", user.home)
    if request.tty:
        env.setdefault("TERM", "xterm")
    env.update(request.env)
    held = available if request.privileged else tuple(base["capabilities"]["bounding"])
    found = {
        "terminal": request.tty,
        "user": oci_user(user) if request.user else base["user"],
        "args": list(request.command),
        "env": [f"{name}={value}" for name, value in env.items()],
        "cwd": working_dir(request.working_dir or base["cwd"]),
        "capabilities": oci_capabilities(held, root=user.uid == 0),
        "noNewPrivileges": base["noNewPrivileges"] and not request.privileged,
        "rlimits": base["rlimits"],
        "oomScoreAdj": base["oomScoreAdj"],
    }
    if request.tty and request.rows and request.columns:
        found["consoleSize"] = {"height": request.rows, "width": request.columns}
    return found


def _no_nul(text: str, what: str) -> None:
    if "\0" in text:
        raise RuntimeFailed(f"cannot start: a NUL byte in the {what}", permanent=True)
