"""What the virtual loop hands out: tasks, callbacks, timers. They hold nothing of asyncio's own, which costs twice as much."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any, Protocol

from sim.process import Process


class _Heap(Protocol):
    def timer_cancelled(self) -> None: ...


class SimTask(asyncio.Task[Any]):
    """`number`: the how-manieth of its loop. `process`: whose it is; None: the world's."""

    __slots__ = ("number", "process")
    number: int
    process: Process | None

    def __hash__(self) -> int:
        return self.number


class Soon(asyncio.Handle):
    """A callback to run; `call` is None when it was cancelled."""

    __slots__ = ("args", "call", "context")

    def __init__(self, call: Callable[..., object], args: tuple[Any, ...], context: Context) -> None:
        self.call: Callable[..., object] | None = call
        self.args = args
        self.context = context

    def cancel(self) -> None:
        self.call, self.args = None, ()

    def cancelled(self) -> bool:
        return self.call is None

    def __repr__(self) -> str:
        return f"<{self.call} {self.args}>"


class Timer(asyncio.TimerHandle):
    """A callback to run at `due`, in virtual seconds; `call` is None when it was cancelled."""

    __slots__ = ("args", "call", "context", "due", "heap")

    def __init__(
        self, due: float, call: Callable[..., object], args: tuple[Any, ...], context: Context, heap: _Heap
    ) -> None:
        self.due = due
        self.call: Callable[..., object] | None = call
        self.args = args
        self.context = context
        self.heap: _Heap | None = heap
        """None: it is no longer in the loop's heap."""

    def when(self) -> float:
        return self.due

    def cancel(self) -> None:
        if self.call is not None:
            self.call, self.args = None, ()
            if self.heap is not None:
                self.heap.timer_cancelled()

    def cancelled(self) -> bool:
        return self.call is None

    def __repr__(self) -> str:
        return f"<{self.call} {self.args} at {self.due:.6f}>"
