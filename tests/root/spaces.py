"""Network namespaces for tests, held by an open file of the test alone: a test that is killed leaves none behind."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import TypeVar

from agent.network import namespaces

T = TypeVar("T")


class Space:
    """A new network namespace with its loopback up. `with Space() as space: space.sh("ip link")`."""

    def __init__(self) -> None:
        self._fd = namespaces.temporary(lambda: os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        self.path = f"/proc/{os.getpid()}/fd/{self._fd}"
        self.sh("ip link set lo up")

    def __enter__(self) -> Space:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def inside(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread in this namespace; sockets it makes stay there."""
        return namespaces.enter(self.path, work)

    def run(self, line: str, text: str = "") -> tuple[int, str]:
        argv = ["nsenter", f"--net={self.path}", *line.split()]
        done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=30, check=False)
        return done.returncode, done.stdout + done.stderr

    def sh(self, lines: str) -> str:
        """Each line is a command that must succeed; gives what they print."""
        printed = ""
        for line in filter(None, (line.strip() for line in lines.splitlines())):
            code, out = self.run(line)
            assert code == 0, f"{line}: {out}"
            printed += out
        return printed
