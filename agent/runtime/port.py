"""The port between the agent's core and whatever runs containers.

Rules: two implementations, `agent.runtime.conmon.ConmonRuntime` (real) and `agent.runtime.memory.MemoryRuntime`, pass the same
contract tests. Every call may be repeated; deleting what is not there succeeds. Every failure is RuntimeFailed (or
DiskFull) with one line; `permanent` says that trying again with the same order is useless. At most four creates run at a
time, more of them wait. Calls about one container id must not overlap except `kill`, `exec`, `usage` and `delete`.

A container's life:  create -> (kill) -> start -> (kill) -> exit event -> delete.    `delete` may come at any point.

    runtime = ConmonRuntime(RuntimeConfig(...))
    for found in await runtime.recover(): ...        # exactly once, first; exits that happened meanwhile are in `found.exit`
    async for exited in runtime.exits(): ...         # one consumer, in a task of its own
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Literal, Protocol

from agent.plan.container import ContainerOrder, ExecRequest, Exited, Found, LogLine, Usage
from agent.plan.samples import Counters

__all__ = ["ContainerOrder", "ContainerRuntime", "ExecRequest", "Exited", "Found", "LogLine", "Session", "Usage"]


class Session(Protocol):
    """Somebody's hold on a process: an exec or an attach. Always `close` it (a cancelled caller too)."""

    def output(self) -> AsyncIterator[tuple[Literal["stdout", "stderr"], bytes]]:
        """Chunks as they come; ends when the process has closed its outputs. With a tty everything is `stdout`."""
        ...

    async def write(self, data: bytes) -> None:
        """Feed stdin; waits while the process does not read. Silently drops when it has ended."""
        ...

    async def close_stdin(self) -> None: ...

    async def resize(self, rows: int, columns: int) -> None:
        """Of the terminal; nothing happens without one."""
        ...

    async def signal(self, number: int) -> None: ...

    async def wait(self) -> int:
        """The exit code (128 + signal when killed). May be called at any time and more than once."""
        ...

    async def close(self) -> None:
        """Let go. An exec that still runs is killed; an attached container goes on. May be called twice."""
        ...


class ContainerRuntime(Protocol):
    async def recover(self) -> tuple[Found, ...]:
        """Take over every container of this data directory, running or ended; call once before anything else.

        Afterwards the ends of the running ones come through `exits`. Ended ones stay until they are deleted.
        """
        ...

    async def create(self, order: ContainerOrder) -> int:
        """Mount the root, write the bundle and make the container; its process waits for `start`. Returns its pid.

        On failure (and on cancellation) nothing is left behind but its log. Raises RuntimeFailed, permanent for a bad
        command, user, working directory or mount target; DiskFull.
        """
        ...

    async def start(self, container_id: str) -> None:
        """Let the created process run. Its end comes through `exits`, even if it is immediate."""
        ...

    async def kill(self, container_id: str, signal: int = 15) -> None:
        """Send a signal to the container's first process; SIGKILL ends all of them. Fine if it has ended."""
        ...

    async def readdress(self, order: ContainerOrder) -> None:
        """Its networks are others now: /etc/hosts and /etc/resolv.conf are written anew, in place, as `create` would write
        them; image and mounts of the order do not matter. Fine if the container is gone."""
        ...

    def written(self, container_id: str, *, pause: bool) -> AbstractAsyncContextManager[Path]:
        """The directory with what it wrote to its root (overlayfs's upper one), which stays until the end of the block. With
        `pause` its processes stand still meanwhile, if it runs. Raises NotFound."""
        ...

    def root(self, container_id: str) -> Path:
        """Where its root is shown, as long as it is not deleted, whether it runs or not. Raises NotFound."""
        ...

    async def delete(self, container_id: str) -> None:
        """End it if it runs, then remove its cgroups, mounts and files; its log stays until `forget_logs`.

        An `Exited` of a container that ran may still be delivered, never after a second container of that id was created.
        """
        ...

    def exits(self) -> AsyncIterator[Exited]:
        """The end of every container, once each, in order of arrival."""
        ...

    async def exec(self, container_id: str, request: ExecRequest) -> Session:
        """Run a command in a running container. A command that cannot be found ends with 127, not executable 126.

        Raises NotFound for an unknown container and Conflict for one that does not run.
        """
        ...

    async def attach(self, container_id: str) -> Session:
        """The container's own stdin (if `stdin_open`), terminal, and outputs: what is kept of them, then what comes.

        May be called before `start`. Without a log (`logging: none`) outputs begin now. Without a terminal the end of the
        session, or of its input, is the end of the container's input.

        `signal` goes to the container; `wait` gives the container's exit code.
        """
        ...

    def logs(
        self, log_key: str, *, follow: bool = False, tail: int = -1, since_ms: int = 0, until_ms: int = 0
    ) -> AsyncIterator[LogLine]:
        """Kept lines of all containers with this key, oldest first; `tail` newest ones (-1: all).

        `follow` goes on through restarts until `forget_logs`, or until the caller closes the iterator.
        """
        ...

    async def forget_logs(self, log_key: str) -> None:
        """Delete the logs of a replica that is gone; unknown keys are fine."""
        ...

    async def usage(self, container_id: str) -> Usage | None:
        """Read from the cgroup: 55 to 95 us with cgroup v1's nine files; None when it does not run."""
        ...

    def sampled(self, container_ids: Iterable[str]) -> dict[str, Counters]:
        """The counters of those that run: 20 us each."""
        ...

    def listening(self, container_id: str) -> frozenset[int]:
        """TCP ports that somebody listens on in its network namespace, not only for loopback; none when it does not run."""
        ...

    async def close(self) -> None:
        """Stop watching. Containers go on; `recover` of the next runtime takes them over."""
        ...
