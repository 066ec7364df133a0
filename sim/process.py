"""A process of the simulation: everything that runs in its context, to be stopped, continued and killed as a whole.

Rules:
- What belongs to a process is told by the context it runs in: the tasks, timers and callbacks it makes inherit it. What the
  world does to a process (delivering a message, ending a container) must run in `loop.world`, or it dies with the process.
- Killed means SIGKILL: no line of it runs again, no `finally` either. Its coroutines are kept until the loop is closed, so that
  freeing them does not run them in the middle of the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeVar

from model.errors import ShoalError

if TYPE_CHECKING:
    from sim.loop import VirtualLoop

_T = TypeVar("_T")
PROCESS: Final[ContextVar[Process]] = ContextVar("process")
"""The process that runs now; not set: the world."""
KEEP_MIN: Final = 16


class Process:
    """`spawn(coro)` starts its tasks. A spawned task that ends with an exception: the process has crashed.

    `crashed(error)` is told of it before the process dies; `on_death` is called at its death, `on_pause` when it is stopped;
    all in the world's context.
    """

    def __init__(self, loop: VirtualLoop, name: str) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self.paused_at = 0.0
        """Virtual seconds of the last pause."""
        self.halted = False
        """Paused or dead: the loop runs nothing of it."""
        self.on_death: list[Callable[[], None]] = []
        self.on_pause: list[Callable[[], None]] = []
        self.crashed: Callable[[BaseException], None] = self._report
        self.context = Context()
        self.context.run(PROCESS.set, self)
        self._loop = loop
        self._held: list[Any] = []
        self._tasks = Kept()
        self._remains: list[object] = []
        loop.processes.append(self)

    def __repr__(self) -> str:
        return f"<process {self.name}: {'dead' if not self.alive else 'paused' if self.paused else 'alive'}>"

    def spawn(self, coro: Coroutine[Any, Any, _T], name: str = "") -> asyncio.Task[_T]:
        """Runs it as a task of this process. Raises RuntimeError when the process is dead."""
        if not self.alive:
            coro.close()
            raise RuntimeError(f"process {self.name} is dead")
        task = self._loop.create_task(coro, name=f"{self.name}/{name}" if name else None, context=self.context.copy())
        task.add_done_callback(self._ended, context=self._loop.world)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.crash(error)

    def crash(self, error: BaseException) -> None:
        """It dies of `error`."""
        if self.alive:
            Context().run(self.crashed, error)
            self.kill()

    def kill(self) -> None:
        """SIGKILL. A callback of it that is running now goes on until it waits."""
        if not self.alive:
            return
        self.alive, self.paused, self.halted = False, False, True
        self._remains += self._held
        self._held.clear()
        self._call(self.on_death)

    def pause(self) -> None:
        """SIGSTOP."""
        if self.alive and not self.paused:
            self.paused = self.halted = True
            self.paused_at = self._loop.time()
            self._call(self.on_pause)

    def resume(self) -> None:
        """SIGCONT: what was due meanwhile runs now, in order."""
        if self.paused:
            self.paused = self.halted = False
            self._loop.run_again(self._held)
            self._held = []

    def hold(self, due: object) -> None:
        """The loop's: a callback of a halted process."""
        (self._held if self.alive else self._remains).append(due)

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """The loop's: a task was made in its context."""
        self._tasks.add(task)

    def remains(self) -> list[asyncio.Task[Any]]:
        """The loop's, at its end: tasks that never ended; everything else is let go."""
        self.on_death.clear()
        self.kill()
        tasks = self._tasks.pending()
        self._tasks = Kept()
        self._remains.clear()
        return tasks

    def _call(self, callbacks: list[Callable[[], None]]) -> None:
        for callback in [*callbacks]:
            Context().run(callback)

    def _report(self, error: BaseException) -> None:
        self._loop.call_exception_handler({"message": f"process {self.name} crashed", "exception": error})


class Kept:
    """Tasks, held until they are done: nobody else holds one that waits. Looks for those that are done when it has doubled."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[Any]] = []
        self._limit = KEEP_MIN

    def add(self, task: asyncio.Task[Any]) -> None:
        self._tasks.append(task)
        if len(self._tasks) > self._limit:
            self._tasks = self.pending()
            self._limit = max(KEEP_MIN, 2 * len(self._tasks))

    def pending(self) -> list[asyncio.Task[Any]]:
        return [task for task in self._tasks if not task.done()]


async def answered(work: Awaitable[_T], reply: asyncio.Future[_T]) -> None:
    """For somebody in another process: the answer, or the error that is one, is put into `reply`. Whoever asked may have
    given up; anything else that is raised is a crash of the process that works."""
    try:
        answer = await work
    except ShoalError as error:
        if not reply.done():
            reply.set_exception(error)
    else:
        if not reply.done():
            reply.set_result(answer)
