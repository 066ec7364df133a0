"""A lab for the end-to-end tests, and the command line as a person uses it.

Rules: a lab carries a name nobody else has and is taken down by a watchdog process that waits for our end, so that it goes
also when the tests are killed. Nothing here sleeps to let time pass: `eventually` waits for a condition with a deadline.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.patience import PATIENCE

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
_WATCHDOG = "import subprocess, sys; sys.stdin.read(); raise SystemExit(subprocess.call(sys.argv[1:]))"


def eventually(found: Callable[[], T], what: str, seconds: float = 30.0) -> T:
    """The first true answer of `found`; AssertionError after `seconds`."""
    end = time.monotonic() + seconds * PATIENCE
    while True:
        answer = found()
        if answer:
            return answer
        assert time.monotonic() < end, f"waited {seconds:.0f} s in vain for: {what}"
        time.sleep(0.05)


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


class Watchdog:
    """Takes the lab of that name down when `end` is called or this process is gone."""

    def __init__(self, name: str, environment: dict[str, str]) -> None:
        down = [sys.executable, "-m", "shoal", "lab", "down", "--name", name]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WATCHDOG, *down],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=ROOT, env=environment, start_new_session=True,
        )  # fmt: skip

    def end(self) -> None:
        """The lab is gone; taking it down must succeed."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(timeout=60 * PATIENCE) == 0


class LabUnderTest:
    """One lab and `shoal` on it."""

    def __init__(self, config: Path, nodes: int = 3, *more: str) -> None:
        self.name = f"e2e-{secrets.token_hex(4)}"
        self.environment = {**os.environ, "SHOAL_CONFIG_DIR": str(config), "SHOAL_CONTEXT": self.name}
        self._watchdog = Watchdog(self.name, self.environment)
        try:
            self("lab", "up", "--name", self.name, "--nodes", str(nodes), "--node-timeout", f"{3 * PATIENCE:g}",
                 "--timeout", f"{60 * PATIENCE:g}", *more)  # fmt: skip
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """Take the lab away; it must succeed."""
        self._watchdog.end()

    def call(self, *words: str, stdin: str | None = None, timeout: float = 90) -> Done:
        """Run `shoal WORDS`."""
        try:
            done = subprocess.run(
                [sys.executable, "-m", "shoal", *words],
                cwd=ROOT, env=self.environment, input=stdin, capture_output=True, text=True,
                timeout=timeout * PATIENCE, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"shoal {' '.join(words)} does not end: {error.stdout!r} {error.stderr!r}") from None
        return Done(done.returncode, done.stdout, done.stderr)

    def __call__(self, *words: str, stdin: str | None = None, timeout: float = 90) -> str:
        """Output of `shoal WORDS`, which must succeed."""
        done = self.call(*words, stdin=stdin, timeout=timeout)
        assert done.code == 0, f"shoal {' '.join(words)} -> {done.code}: {done.err or done.out}"
        return done.out

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "-o", "json"))

    def lab(self, verb: str, *words: str) -> str:
        return self("lab", verb, "--name", self.name, *words)

    def on(self, machine: str, *command: str) -> str:
        """Output of a command on a machine of the lab, as `shoal lab exec` would run it; it must succeed."""
        from lab.cluster import Lab

        argv = Lab(self.name).enter_command(machine, command)
        done = subprocess.run(argv, capture_output=True, text=True, timeout=90 * PATIENCE, check=False)
        assert done.returncode == 0, f"{' '.join(command)} on {machine} -> {done.returncode}: {done.stderr or done.stdout}"
        return done.stdout

    def replicas(self, service: str = "", *, every: bool = False) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.json("ps", *([service] if service else []), *(["-a"] if every else []))
        return rows

    def running(self, service: str) -> list[dict[str, Any]]:
        return [row for row in self.replicas(service) if row["state"] == "running" and row["desired"] == "running"]

    def apply(self, tmp: Path, text: str, stack: str, *more: str) -> str:
        file = tmp / f"{stack}.yaml"
        file.write_text(text)
        return self("apply", "-f", str(file), "-p", stack, *more)

    def container(self, replica: str) -> Any:
        return self.json("inspect", "--type", "replica", replica)[0]["container"]

    def node_states(self) -> dict[str, str]:
        return {row["name"]: row["state"] for row in self.json("node", "ls")}

    def daemon_pids(self, machine: str, word: str) -> list[int]:
        """Host process numbers of the machine's processes whose command line has `word`."""
        from lab import cgroups

        found = []
        for pid in cgroups.processes(f"shoal-labs/{self.name}/{machine}/daemons"):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if word.encode() in words or words[0].endswith(b"/" + word.encode()):
                found.append(pid)
        return found


def remove_all(lab: LabUnderTest) -> None:
    """Stacks and single containers are gone; all at once, so that their grace periods are waited for together."""
    from lab.cluster import Lab

    with Lab(lab.name).client() as client:
        if stacks := [row["name"] for row in client.get("/v1/stacks")]:
            lab("rm", "-v", "--no-wait", *stacks)
        if names := [row["name"] for row in client.get("/v1/services") if not row["stack"]]:
            lab("rm", "-f", "--no-wait", *names)
        eventually(
            lambda: all(row["state"] == "lost" for row in client.get("/v1/replicas", all=True)), "all replicas removed", 60
        )


def addresses(row: dict[str, Any]) -> str:
    return str(row["addresses"][0]).split("/")[0]


def identity(rows: list[dict[str, Any]]) -> dict[str, tuple[str, int]]:
    """What must not change while nothing may be restarted: container and restart count of each replica."""
    return {row["name"]: (row["container_id"], row["restarts"]) for row in rows}
