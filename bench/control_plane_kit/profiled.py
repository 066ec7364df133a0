"""`python -m bench.control_plane_kit.profiled FILE ARGUMENTS`: a controller whose threads are looked at a hundred times per s,
from one SIGUSR2 to the next. FILE says then where they were, by function, alone and with what it called; and which rounds of
the event loop and which of the collector's stops took longest: so long the leader's lease has to wait for its turn.

Rule: looking costs a thread of its own a percent or two; cProfile would make the loop so slow that the lease runs out.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from controller.main import main

EVERY_S = 0.01
ROUNDS = 12
ROWS = 45


class Rounds:
    """How long each round of the event loop works: seconds by the clock, CPU seconds of its thread, callbacks."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, float, int]] = []
        once: Callable[[Any], None] = vars(asyncio.BaseEventLoop)["_run_once"]

        def timed(loop: Any) -> None:
            cpu, selector = time.thread_time(), loop._selector
            began = time.monotonic()

            def select(timeout: float | None) -> Any:
                nonlocal began
                found = type(selector).select(selector, timeout)
                began = time.monotonic()
                return found

            selector.select = select
            once(loop)
            self.rows.append((time.monotonic() - began, time.thread_time() - cpu, len(loop._ready)))

        asyncio.BaseEventLoop._run_once = timed  # type: ignore[attr-defined]

    def result(self) -> list[str]:
        rows, self.rows = sorted(self.rows, reverse=True), []
        lines = [f"{wall_s:8.3f} s {cpu_s:8.3f} CPU s, {left} callbacks in the next" for wall_s, cpu_s, left in rows[:ROUNDS]]
        return [f"the longest of {len(rows)} rounds:", *lines]


class Collections:
    """How long each of the collector's longer stops takes: all threads wait for it."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, int]] = []
        self._began = 0.0
        gc.callbacks.append(self._turn)

    def _turn(self, phase: str, facts: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.monotonic()
        elif facts["generation"]:
            self.rows.append((time.monotonic() - self._began, facts["generation"]))

    def result(self) -> list[str]:
        rows, self.rows = sorted(self.rows, reverse=True), []
        lines = [f"{wall_s:8.3f} s, generation {generation}" for wall_s, generation in rows[:ROUNDS]]
        return [f"the longest of {len(rows)} collections, {sum(row[0] for row in rows):.2f} s together:", *lines]


class Sampler(threading.Thread):
    def __init__(self) -> None:
        super().__init__(daemon=True, name="sampler")
        self._alone: Counter[tuple[str, CodeType, int]] = Counter()
        self._within: Counter[tuple[str, CodeType]] = Counter()
        self._looks = 0
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.is_set():
            time.sleep(EVERY_S)
            self._looks += 1
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            for number, frame in sys._current_frames().items():
                if number != self.ident:
                    self._take(names.get(number, "?"), frame)

    def _take(self, name: str, frame: FrameType | None) -> None:
        if frame is not None:
            self._alone[name, frame.f_code, frame.f_lineno] += 1
        codes: dict[CodeType, None] = {}
        while frame is not None:
            codes[frame.f_code] = None
            frame = frame.f_back
        self._within.update((name, code) for code in codes)

    def result(self) -> str:
        self._over.set()
        self.join()
        lines = [f"{self._looks} looks", "alone:"]
        lines += [f"{count:6} {name:14} {_place(code)}:{line}" for (name, code, line), count in self._alone.most_common(ROWS)]
        lines += ["with what it called:"]
        lines += [f"{count:6} {name:14} {_place(code)}" for (name, code), count in self._within.most_common(ROWS)]
        return "\n".join(lines) + "\n"


def _place(code: CodeType) -> str:
    return f"{'/'.join(Path(code.co_filename).parts[-3:])} {code.co_name}"


def run(path: str, arguments: list[str]) -> int:
    sampler: Sampler | None = None
    rounds, collections = Rounds(), Collections()

    def turn(*_: object) -> None:
        nonlocal sampler
        if sampler is None:
            sampler = Sampler()
            sampler.start()
            rounds.rows.clear()
            collections.rows.clear()
            return
        Path(path).write_text(sampler.result() + "\n".join([*rounds.result(), *collections.result()]) + "\n")
        sampler = None

    signal.signal(signal.SIGUSR2, turn)
    return main(arguments)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], sys.argv[2:]))
