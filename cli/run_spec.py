"""The options of `shoal run` as a service of one replica. Pure but for the variables and files it is told to read."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any, Final

from cli.run import command_name
from cli.run_network import network_fields
from model.compose.scalars import parse_bytes
from model.errors import BadInput
from model.spec import ContainerSpec, Mount, Pairs, Placement, Resources, RestartPolicy, ServiceSpec

_CONDITIONS: Final = {"no": "none", "always": "any", "unless-stopped": "any", "on-failure": "on-failure"}


def service_spec(options: dict[str, Any]) -> ServiceSpec:
    """The service that `shoal run` with these options asks for. Raises BadInput."""
    container = ContainerSpec(
        image=options["image"],
        command=tuple(options["command"]) or None,
        entrypoint=None if options["entrypoint"] is None else tuple(shlex.split(options["entrypoint"])),
        env=environment(options["env_files"], options["env"]),
        labels=tuple(pair(word, "label") for word in options["labels"]),
        working_dir=options["workdir"],
        user=options["user"],
        hostname=options["hostname"],
        init=options["init"],
        tty=options["tty"],
        stdin_open=options["interactive"],
        read_only=options["read_only"],
        privileged=options["privileged"],
        cap_add=tuple(options["cap_add"]),
        cap_drop=tuple(options["cap_drop"]),
        limits=Resources(options["cpus"], memory(options["memory"]), options["pids_limit"]),
        mounts=(*map(mount, options["volumes"]), *(Mount("tmpfs", word) for word in options["tmpfs"])),
        restart=restart(options["restart"]),
        stop_signal=options["stop_signal"],
        stop_grace_period_s=options["stop_timeout"],
        pull_policy=options["pull"],
        **network_fields(options),
    )
    return ServiceSpec(
        name=options["name"] or command_name(options["image"]),
        container=container,
        placement=Placement(node=options["node"]),
        single=True,
        auto_remove=options["auto_remove"],
    )


def environment(files: tuple[str, ...], words: tuple[str, ...]) -> Pairs:
    """Variables of the files, then those given; `NAME` alone takes this shell's value."""
    lines = [line.strip() for file in files for line in Path(file).read_text().splitlines()]
    found: dict[str, str] = {}
    for word in [*(line for line in lines if line and not line.startswith("#")), *words]:
        name, mark, value = word.partition("=")
        if not name:
            raise BadInput(f"-e {word!r}: expected NAME=VALUE or NAME")
        if mark:
            found[name] = value
        elif name in os.environ:
            found[name] = os.environ[name]
    return tuple(found.items())


def pair(word: str, what: str) -> tuple[str, str]:
    key, _, value = word.partition("=")
    if not key:
        raise BadInput(f"{what} {word!r}: expected KEY=VALUE")
    return key, value


def memory(text: str) -> int:
    found = parse_bytes(text) if text else 0
    if found is None:
        raise BadInput(f"--memory {text}: expected a size such as 128M or 1G")
    return found


def mount(word: str) -> Mount:
    """`TARGET`, `NAME:TARGET`, `/HOST:TARGET`, each with `:ro` if wanted."""
    parts = word.split(":")
    modes = parts.pop().split(",") if len(parts) > 1 and not parts[-1].startswith("/") else []
    source, target = ("", parts[0]) if len(parts) == 1 else (parts[0], parts[1])
    if len(parts) > 2 or not target.startswith("/"):
        raise BadInput(f"-v {word!r}: expected [SOURCE:]/TARGET[:ro]")
    unknown = [mode for mode in modes if mode not in ("ro", "rw", "nocopy", "z", "Z")]
    if unknown:
        raise BadInput(f"-v {word!r}: mode {unknown[0]!r} is not known: expected ro, rw or nocopy")
    kind = "bind" if source.startswith(("/", ".", "~")) else "volume"
    path = str(Path(source).expanduser().absolute()) if kind == "bind" else source
    return Mount(kind, target.rstrip("/") or "/", path, read_only="ro" in modes, nocopy="nocopy" in modes)  # type: ignore[arg-type]


def restart(text: str) -> RestartPolicy:
    word, _, number = text.partition(":")
    if word not in _CONDITIONS or (number and not number.isdecimal()):
        raise BadInput(f"--restart {text}: expected no, always, unless-stopped or on-failure[:N]")
    return RestartPolicy(_CONDITIONS[word], max_attempts=int(number) if number else None)  # type: ignore[arg-type]
