"""An asyncio loop on virtual time: nothing waits, nothing is random, no thread and no socket.

Rules:
- Callbacks run in the order they were asked for; timers in the order of their time, then in the order they were asked for. When
  nothing is ready, time jumps to the next timer.
- Whose callback it is (process.py) is read from its context: a paused process's is set aside, a dead one's never runs.
- Garbage is collected at certain steps only, never when the interpreter happens to have made enough objects: finalizers run at
  the same step of every run. What there is after the start lives as long as the run and is not looked at again.
- Tasks hash in the order they were made, so that sets of them (TaskGroup, asyncio.wait) are gone through in the same order.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import warnings
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable
from contextvars import Context
from functools import partial
from itertools import count
from typing import Any, Final, TypeVarTuple

from sim.handles import SimTask, Soon, Timer
from sim.process import PROCESS, Kept, Process
from sim.timers import Timers

_Ts = TypeVarTuple("_Ts")
CLEAN_STEPS: Final = 1 << 22
"""Between two collections of what is young: of 5,000 nodes each takes a second, and finds 20 MB."""
CLEAN_ALL_EVERY: Final = 16
"""Every so many of them everything is looked at."""
STUCK_STEPS: Final = 1 << 24
"""So many callbacks at one instant are a circle without a wait in it."""
CLOSE_TRIES: Final = 50
CLEAN_RUNS: Final = 16
"""Every so many runs of a process what the last ones left is taken away, before the next one begins."""
_RUNS: Final = count(1)


class Deadlock(Exception):
    """Nothing is ready and no timer runs: whoever waits would wait for ever."""


class Livelock(Exception):
    """Time does not go on: callbacks follow each other without end."""


class VirtualLoop(asyncio.BaseEventLoop):
    """`steps`: callbacks run. `world`: the context of what belongs to no process. `over`: it is being closed; of no consequence
    is what coroutines do that are thrown away then."""

    _thread = 0
    get_debug = staticmethod(bool)
    """Always False; asked for each future and task, so it is no function of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.create_future = partial(asyncio.Future, loop=self)  # type: ignore[method-assign]
        self.steps = 0
        self.over = False
        self.world = Context()
        self.processes: list[Process] = []
        self._now = 0.0
        self._queue: deque[Soon | Timer] = deque()
        self._timers = Timers()
        self._task_number = 0
        self._halt = False
        self._kept = Kept()
        self._generators: dict[int, Process | None] = {}
        """Whose the generator at this address is: at its end nothing else tells. Those of ended ones are overwritten."""
        self._clean_at = CLEAN_STEPS
        self._starts = False
        self._lasts = False
        self._instant = (0.0, 0)

    # ---- asking for callbacks

    def time(self) -> float:
        return self._now

    def call_soon(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = Soon(callback, args, contextvars.copy_context() if context is None else context)
        self._queue.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        if self._thread not in (0, threading.get_ident()):
            raise RuntimeError("another thread: the simulation has none")
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        when = self._now + delay if delay > 0 else self._now
        timer = Timer(when, callback, args, contextvars.copy_context() if context is None else context, self._timers)
        self._timers.add(when, timer)
        return timer

    def call_at(
        self, when: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        when = max(when, self._now)
        timer = Timer(when, callback, args, contextvars.copy_context() if context is None else context, self._timers)
        self._timers.add(when, timer)
        return timer

    def run_again(self, handles: Iterable[Soon | Timer]) -> None:
        """Those of a process that goes on."""
        self._queue.extend(handles)

    def create_task(
        self,
        coro: Generator[Any, None, Any] | Coroutine[Any, Any, Any],
        *,
        name: object = None,
        context: Context | None = None,
    ) -> asyncio.Task[Any]:
        self._task_number += 1
        task = SimTask.__new__(SimTask)
        task.number = self._task_number
        process = PROCESS.get(None) if context is None else context.get(PROCESS)
        task.process = process
        task.__init__(coro, loop=self, name=name or f"task {task.number}", context=context)  # type: ignore[misc]
        if process is None:
            self._kept.add(task)
        else:
            process.adopt(task)
        return task

    def run_in_executor(
        self, executor: Any, func: Callable[[*_Ts], Any], *args: *_Ts
    ) -> asyncio.Future[Any]:
        """Runs it here and now."""
        future: asyncio.Future[Any] = self.create_future()
        try:
            future.set_result(func(*args))
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            future.set_exception(error)
        return future

    # ---- running

    def is_running(self) -> bool:
        return self._thread != 0

    def stop(self) -> None:
        self._halt = True

    def run_forever(self) -> None:
        """Until `stop()`. Raises Deadlock, Livelock."""
        if self.is_closed() or self._thread or asyncio._get_running_loop() is not None:
            raise RuntimeError("the loop is closed, or a loop is running already")
        hooks, collecting = sys.get_asyncgen_hooks(), gc.isenabled()
        self._thread = threading.get_ident()
        sys.set_asyncgen_hooks(firstiter=self._generator_begins, finalizer=self._generator_dropped)
        gc.disable()
        asyncio._set_running_loop(self)
        try:
            self._run()
        finally:
            self._halt = False
            self._thread = 0
            asyncio._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)
            if collecting:
                self._collects_again()

    def _run(self) -> None:
        queue = self._queue
        take = queue.popleft
        while not self._halt:
            if not queue:
                self._jump()
            handle = take()
            call = handle.call
            if call is None:
                continue
            context = handle.context
            process = context.get(PROCESS)
            if process is not None and process.halted:
                process.hold(handle)
                continue
            self.steps += 1
            try:
                context.run(call, *handle.args)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                self._failed(handle, process, error)
            if self.steps >= self._clean_at:
                self._clean()

    def _jump(self) -> None:
        """To the next timer's time: all timers of that time are ready then."""
        timers = self._timers.next()
        if not timers:
            raise Deadlock(f"at {self._now:.3f} s nothing is scheduled; {self._waiting()}")
        self._now = timers[0].due
        self._queue.extend(timers)

    def _failed(self, handle: Soon | Timer, process: Process | None, error: BaseException) -> None:
        """A callback, or a task that wants the interpreter to exit: that is its process's end."""
        if isinstance(error, SystemExit):
            if process is None:
                raise error
            process.crash(error)
        else:
            self.call_exception_handler({"message": f"exception in {handle}", "exception": error})

    def starts(self) -> None:
        """What is made until `started` lasts: it is not looked at for garbage, neither while it is made nor later; not before
        the next run starts in this process."""
        gc.unfreeze()
        if next(_RUNS) % CLEAN_RUNS == 0:
            gc.collect()
        self._starts = True

    def started(self) -> None:
        self._starts = False
        self._lasts = True
        gc.freeze()

    def _collects_again(self) -> None:
        """What a run leaves is taken away at the beginning of a next one, not looked at for seconds at the end of this."""
        if self._lasts:
            gc.freeze()
        gc.enable()

    def _clean(self) -> None:
        self._clean_at += CLEAN_STEPS
        if not self._starts:
            gc.collect(2 if self._clean_at // CLEAN_STEPS % CLEAN_ALL_EVERY == 0 else 1)
        now, since = self._instant
        if now != self._now:
            self._instant = (self._now, self.steps)
        elif self.steps - since > STUCK_STEPS:
            raise Livelock(f"at {self._now:.3f} s: {self.steps - since} callbacks, and time does not go on")

    def _waiting(self) -> str:
        names = [task.get_name() for task in self._kept.pending()]
        return f"of the world {len(names)} tasks wait: {', '.join(names[:5])}"

    # ---- asynchronous generators: one that is dropped half-way is closed by a task of its process

    def _generator_begins(self, generator: AsyncGenerator[Any, Any]) -> None:
        self._generators[id(generator)] = PROCESS.get(None)

    def _generator_dropped(self, generator: AsyncGenerator[Any, Any]) -> None:
        process = self._generators.pop(id(generator), None)
        if not self.over:
            context = (process.context if process else self.world).copy()
            self.call_soon(self._close_generator, generator, context=context)

    def _close_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        self.create_task(_closed(generator))

    # ---- the end

    def call_exception_handler(self, context: Any) -> None:
        if not self.over:
            super().call_exception_handler(context)

    def close(self) -> None:
        """Throws away what still waits. Coroutines run their `finally` blocks now, since Python frees none without: whatever
        comes of it is of no consequence, and is not told."""
        if self.is_closed() or self.is_running():
            super().close()
            return
        self.over = True
        hook, collecting = sys.unraisablehook, gc.isenabled()
        sys.unraisablehook = lambda _: None
        gc.disable()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._bury()
        finally:
            sys.unraisablehook = hook
            if collecting:
                self._collects_again()
        super().close()

    def _bury(self) -> None:
        while tasks := self._remains():
            for task in tasks:
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                _throw_away(task.get_coro())
            self._queue.clear()
            self._timers = Timers()

    def _remains(self) -> list[asyncio.Task[Any]]:
        tasks = self._kept.pending()
        self._kept = Kept()
        for process in [*self.processes]:
            tasks += process.remains()
        return tasks


async def _closed(generator: AsyncGenerator[Any, Any]) -> None:
    await generator.aclose()


def _throw_away(coro: Any) -> None:
    """A `finally` block that waits has to be thrown out of each wait."""
    for _ in range(CLOSE_TRIES):
        try:
            coro.close()
        except BaseException:
            continue
        return
