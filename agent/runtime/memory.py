"""The container runtime in memory: for tests and the simulation, with the behaviour of the real one.

Rules: passes the same contract tests as ConmonRuntime. A container's command is looked up in `programs` by its first word: a
program is a function `(order) -> Program`; without one the container runs until it is killed. `crash` forgets what an agent
keeps in memory and keeps what outlives it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from agent.plan.container import ContainerOrder, ExecRequest, Exited, Found, LogLine, Usage
from agent.plan.exits import exit_message
from agent.plan.log_lines import log_options
from agent.plan.oci_process import working_dir
from agent.plan.publish import exposed
from agent.plan.samples import Counters
from agent.runtime.port import Session
from model.errors import Conflict, NotFound, RuntimeFailed

_FATAL: Final = frozenset({1, 2, 3, 6, 9, 15})
_SIGKILL: Final = 9
_IDLE: Final = Counters(0.0, 0, 0, 1 << 20, 1, 0, 0)


@dataclass(frozen=True, slots=True)
class Program:
    """What a command does: writes lines, then ends with `exit_code` (None: runs until killed). `missing`: is not there; `deaf`:
    does not listen on its published ports."""

    lines: tuple[bytes, ...] = ()
    exit_code: int | None = None
    oom: bool = False
    missing: bool = False
    deaf: bool = False


@dataclass(slots=True)
class _Container:
    order: ContainerOrder
    pid: int
    program: Program
    started_at: float = 0.0
    exit: Exited | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class _Log:
    lines: list[LogLine] = field(default_factory=list)
    changed: list[asyncio.Event] = field(default_factory=list)
    gone: bool = False

    def wake(self) -> None:
        for event in self.changed:
            event.set()


class MemoryRuntime:
    """See agent.runtime.port.ContainerRuntime. `now` gives Unix time."""

    def __init__(
        self, programs: Mapping[str, Callable[[ContainerOrder], Program]] | None = None, now: Callable[[], float] = time.time
    ) -> None:
        self.programs = dict(programs or {})
        self._now = now
        self._containers: dict[str, _Container] = {}
        self._logs: dict[str, _Log] = {}
        self._exits: asyncio.Queue[Exited] = asyncio.Queue()
        self._pid = 1000
        self.counters: dict[str, Counters] = {}
        """What containers are said to have used; without a row: nothing."""

    def crash(self) -> None:
        """The agent died: undelivered exits are found by `recover` alone."""
        self._exits = asyncio.Queue()

    async def recover(self) -> tuple[Found, ...]:
        return tuple(self._found(container) for _, container in sorted(self._containers.items()))

    def _found(self, container: _Container) -> Found:
        order = container.order
        known: Literal["created", "running"] = "running" if container.started_at else "created"
        return Found(
            order.id, order.name, order.log_key, order.meta, state="exited" if container.exit else known,
            pid=0 if container.exit else container.pid, started_at=container.started_at, exit=container.exit,
        )  # fmt: skip

    async def create(self, order: ContainerOrder) -> int:
        if order.id in self._containers:
            raise Conflict(f"container {order.id} exists already")
        log_options(order.spec.log_driver, order.spec.log_options)
        working_dir(order.spec.working_dir or order.image.working_dir)
        program = self._program(order)
        if program.missing:
            name = command_of(order)[0]
            raise RuntimeFailed(f'cannot start: "{name}": not found in $PATH (exit code 127)', permanent=True, exit_code=127)
        self._pid += 1
        self._containers[order.id] = _Container(order, self._pid, program)
        return self._pid

    def _program(self, order: ContainerOrder) -> Program:
        command = command_of(order)
        if not command:
            raise RuntimeFailed(f"cannot start: image {order.spec.image} has no command: give one in `command`", permanent=True)
        known = self.programs.get(command[0])
        return known(order) if known is not None else Program()

    async def start(self, container_id: str) -> None:
        container = self._get(container_id)
        if container.exit is not None or container.started_at:
            return
        container.started_at = self._now()
        for line in container.program.lines:
            self.write(container_id, line)
        if container.program.exit_code is not None:
            self.end(container_id, container.program.exit_code, oom=container.program.oom)

    async def kill(self, container_id: str, signal: int = 15) -> None:
        container = self._containers.get(container_id)
        if container is not None and signal in _FATAL:
            self.end(container_id, 128 + signal)

    async def readdress(self, order: ContainerOrder) -> None:
        container = self._containers.get(order.id)
        if container is not None:
            container.order = replace(
                container.order, addresses=order.addresses, nameservers=order.nameservers, forwarder=order.forwarder,
                host_gateway=order.host_gateway,
            )  # fmt: skip

    async def delete(self, container_id: str) -> None:
        if container_id in self._containers:
            self.end(container_id, 128 + _SIGKILL)
            self._containers.pop(container_id, None)

    def end(self, container_id: str, exit_code: int, *, oom: bool = False) -> None:
        """Make a container end."""
        container = self._get(container_id)
        if container.exit is not None:
            return
        message = exit_message(exit_code, oom, container.order.spec.limits.memory_bytes)
        container.exit = Exited(container_id, exit_code, oom, self._now(), message)
        container.done.set()
        if container.started_at:
            self._exits.put_nowait(container.exit)

    def write(self, container_id: str, line: bytes, stream: str = "stdout") -> None:
        """Make a container say something."""
        log = self._logs.setdefault(self._get(container_id).order.log_key, _Log())
        log.lines.append(LogLine(int(self._now() * 1e9), stream, line, container_id))
        log.wake()

    async def exits(self) -> AsyncIterator[Exited]:
        while True:
            yield await self._exits.get()

    async def exec(self, container_id: str, request: ExecRequest) -> Session:
        container = self._get(container_id)
        if container.exit is not None or not container.started_at:
            raise Conflict(f"container {container.order.name} does not run")
        known = self.programs.get(request.command[0])
        return MemorySession(known(container.order) if known is not None else Program(exit_code=0))

    async def attach(self, container_id: str) -> Session:
        container = self._get(container_id)
        if container.exit is not None:
            raise Conflict(f"container {container.order.name} does not run")

        async def ended() -> int:
            await container.done.wait()
            return container.exit.exit_code or 0 if container.exit else -1

        return MemorySession(container.program, ended)

    async def logs(
        self, log_key: str, *, follow: bool = False, tail: int = -1, since_ms: int = 0, until_ms: int = 0
    ) -> AsyncIterator[LogLine]:
        log = self._logs.setdefault(log_key, _Log()) if follow else self._logs.get(log_key, _Log())
        changed = asyncio.Event()
        log.changed.append(changed)
        at = 0 if tail < 0 else max(0, len(log.lines) - tail)
        try:
            while True:
                changed.clear()
                while at < len(log.lines):
                    line, at = log.lines[at], at + 1
                    if line.at_ns >= since_ms * 1_000_000 and (not until_ms or line.at_ns <= until_ms * 1_000_000):
                        yield line
                if not follow or log.gone:
                    return
                await changed.wait()
        finally:
            log.changed.remove(changed)

    async def forget_logs(self, log_key: str) -> None:
        log = self._logs.pop(log_key, None)
        if log is not None:
            log.gone = True
            log.wake()

    async def usage(self, container_id: str) -> Usage | None:
        container = self._containers.get(container_id)
        if container is None or container.exit is not None or not container.started_at:
            return None
        limits = container.order.spec.limits
        return Usage(self._now(), 0.0, 1 << 20, limits.memory_bytes, 1, limits.pids, 0, 0)

    def sampled(self, container_ids: Iterable[str]) -> dict[str, Counters]:
        found = {}
        for container_id in container_ids:
            container = self._containers.get(container_id)
            if container is not None and container.exit is None and container.started_at:
                found[container_id] = self.counters.get(container_id, _IDLE)
        return found

    @contextlib.asynccontextmanager
    async def written(self, container_id: str, *, pause: bool) -> AsyncIterator[Path]:
        self._get(container_id)
        yield Path("/memory/containers") / container_id / "upper"

    def root(self, container_id: str) -> Path:
        self._get(container_id)
        return Path("/memory/containers") / container_id / "rootfs"

    def listening(self, container_id: str) -> frozenset[int]:
        container = self._containers.get(container_id)
        if container is None or container.exit is not None or not container.started_at or container.program.deaf:
            return frozenset()
        spec = container.order.spec
        said = (number for text in spec.expose for number, _ in exposed(text))
        return frozenset((*(port.target for port in spec.ports), *said))

    async def close(self) -> None:
        return

    def _get(self, container_id: str) -> _Container:
        container = self._containers.get(container_id)
        if container is None:
            raise NotFound(f"no container {container_id} on this node")
        return container


class MemorySession:
    """An exec or attach: gives the program's lines and its code."""

    def __init__(self, program: Program, ended: Callable[[], Awaitable[int]] | None = None) -> None:
        self._program, self._ended = program, ended
        self.written = b""

    async def output(self) -> AsyncIterator[tuple[Literal["stdout", "stderr"], bytes]]:
        for line in self._program.lines:
            yield "stdout", line

    async def write(self, data: bytes) -> None:
        self.written += data

    async def close_stdin(self) -> None:
        return

    async def resize(self, rows: int, columns: int) -> None:
        return

    async def signal(self, number: int) -> None:
        return

    async def wait(self) -> int:
        if self._ended is not None:
            return await self._ended()
        return 127 if self._program.missing else self._program.exit_code or 0

    async def close(self) -> None:
        return


def command_of(order: ContainerOrder) -> tuple[str, ...]:
    """What the container runs: its spec's words, else its image's."""
    spec, image = order.spec, order.image
    entrypoint = spec.entrypoint if spec.entrypoint is not None else image.entrypoint or ()
    return (*entrypoint, *(spec.command if spec.command is not None else image.cmd or ()))
