"""Containers outlive their agent: kill -9 of the agent and of conmon, and what the next agent learns."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.runtime.cgroups import cgroup_driver
from tests.root.runtime_kit import leftovers

pytestmark = pytest.mark.root
_DEADLINE_S = 30.0


class Agent:
    """The stand-in for an agent, in a process of its own."""

    def __init__(self, directory: Path, parent: str) -> None:
        argv = [sys.executable, "-m", "tests.root.runtime_agent", str(directory), parent]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._answer() == {"ready": True}

    def ask(self, **request: Any) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], _DEADLINE_S)
        assert ready, "no answer from the agent"
        return json.loads(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self._close()

    def stop(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(b'{"stop": true}\n')
            self.process.stdin.flush()
        self._close()

    def _close(self) -> None:
        self.process.wait(_DEADLINE_S)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


class Machine:
    """Agents that follow one another over the same directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.parent = f"shoaltest-{secrets.token_hex(4)}"
        self.agent = Agent(directory, self.parent)

    def restart(self) -> Agent:
        self.agent.kill()
        self.agent = Agent(self.directory, self.parent)
        return self.agent


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    try:
        yield made
        for found in made.restart().ask(found=True):
            made.agent.ask(delete=found["container_id"])
        assert not list((tmp_path / "data/containers").iterdir())
    finally:
        made.agent.kill() if sys.exc_info()[0] else made.agent.stop()
        cgroup_driver().remove(f"/{made.parent}")
        for name in ("data/containers", "run"):
            subprocess.run(["umount", "-R", str(tmp_path / name)], stderr=subprocess.DEVNULL, check=False)
    assert leftovers(tmp_path, made.parent) == []


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _wait_for_end(pid: int) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while _alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _catches(pid: int, number: int) -> bool:
    """Its shell has come to its `trap`: before that the first process of a container does not hear the signal."""
    mask = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(mask.split()[1], 16) >> (number - 1) & 1)


def _terminate(pid: int) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while not _catches(pid, signal.SIGTERM):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(pid, signal.SIGTERM)


def test_a_running_container_goes_on_and_is_taken_over(machine: Machine) -> None:
    made = machine.agent.ask(run=["sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.05; done"])
    agent = machine.restart()
    [found] = agent.ask(found=True)
    assert (found["container_id"], found["state"], found["pid"]) == (made["id"], "running", made["pid"])
    assert found["meta"] == [["replica", made["id"]]]
    assert found["started_at"] > 0
    assert agent.ask(exec=[made["id"], "sh", "-c", "echo in; exit 3"]) == {"code": 3, "text": "in\n"}
    _terminate(made["pid"])
    assert agent.ask(exit=made["id"])["code"] == 5


def test_a_container_ends_after_execs_that_failed(machine: Machine) -> None:
    """Each leaves a zombie that the agent must reap before the container can end."""
    made = machine.agent.ask(run=["sleep", "1000"])
    for _ in range(5):
        assert machine.agent.ask(exec=[made["id"], "nope"])["code"] == 127
    os.kill(made["pid"], signal.SIGKILL)
    assert machine.agent.ask(exit=made["id"])["code"] == 137


def test_an_end_that_nobody_watched_keeps_its_code(machine: Machine) -> None:
    made = machine.agent.ask(run=["sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.05; done"])
    machine.agent.kill()
    _terminate(made["pid"])
    _wait_for_end(made["monitor"])
    machine.agent = Agent(machine.directory, machine.parent)
    [found] = machine.agent.ask(found=True)
    assert found["state"] == "exited"
    assert found["exit"]["exit_code"] == 9
    assert found["exit"]["message"] == "ended with exit code 9"


def test_a_killed_conmon_does_not_hide_the_true_code(machine: Machine) -> None:
    made = machine.agent.ask(run=["sh", "-c", "trap 'exit 6' TERM; while :; do sleep 0.05; done"])
    os.kill(made["monitor"], signal.SIGKILL)
    _wait_for_end(made["monitor"])
    assert _alive(made["pid"])
    _terminate(made["pid"])
    assert machine.agent.ask(exit=made["id"])["code"] == 6


def test_conmon_and_container_killed_together_still_give_an_exit(machine: Machine) -> None:
    made = machine.agent.ask(run=["sleep", "1000"])
    os.kill(made["monitor"], signal.SIGKILL)
    os.kill(made["pid"], signal.SIGKILL)
    assert machine.agent.ask(exit=made["id"])["code"] == 137


def test_agent_and_conmon_killed_leave_an_unknown_code(machine: Machine) -> None:
    made = machine.agent.ask(run=["sleep", "1000"])
    machine.agent.kill()
    for pid in (made["monitor"], made["pid"]):
        os.kill(pid, signal.SIGKILL)
        _wait_for_end(pid)
    machine.agent = Agent(machine.directory, machine.parent)
    [found] = machine.agent.ask(found=True)
    assert found["state"] == "exited"
    assert "exit_code" not in found["exit"] or found["exit"]["exit_code"] is None
    assert "lost" in found["exit"]["message"]


def test_a_container_whose_agent_and_conmon_were_killed_keeps_its_code(machine: Machine) -> None:
    if tuple(int(word) for word in os.uname().release.split(".")[:2]) < (6, 15):
        pytest.skip("before Linux 6.15 it depends on how soon the machine's first process reaps")
    made = machine.agent.ask(run=["sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.05; done"])
    other = machine.agent.ask(run=["sleep", "1000"])
    for monitor in (made["monitor"], other["monitor"]):
        os.kill(monitor, signal.SIGKILL)
    agent = machine.restart()
    assert {found["state"] for found in agent.ask(found=True)} == {"running"}
    _terminate(made["pid"])
    os.kill(other["pid"], signal.SIGKILL)
    assert agent.ask(exit=made["id"])["code"] == 7
    assert agent.ask(exit=other["id"])["code"] == 137


def test_an_agent_killed_between_its_note_and_the_start_has_not_started_it(machine: Machine) -> None:
    made = machine.agent.ask(created=["sleep", "1000"])
    (machine.directory / "data/containers" / made["id"] / "started").write_text(repr(time.time()))
    [found] = machine.restart().ask(found=True)
    assert (found["state"], found.get("started_at", 0.0)) == ("created", 0.0)


def test_a_pid_taken_by_another_process_is_not_adopted(machine: Machine) -> None:
    made = machine.agent.ask(run=["sleep", "1000"])
    machine.agent.kill()
    for pid in (made["monitor"], made["pid"]):
        os.kill(pid, signal.SIGKILL)
        _wait_for_end(pid)
    pids = machine.directory / "data/containers" / made["id"] / "pids"
    record = json.loads(pids.read_text())
    pids.write_text(json.dumps(record | {"pid": os.getpid(), "monitor": os.getpid()}))
    machine.agent = Agent(machine.directory, machine.parent)
    assert machine.agent.ask(found=True)[0]["state"] == "exited"


def test_a_half_made_bundle_is_reported_as_broken_or_removed(machine: Machine) -> None:
    containers = machine.directory / "data/containers"
    (containers / "nothing/rootfs").mkdir(parents=True)
    made = machine.agent.ask(run=["sleep", "1000"])
    machine.agent.kill()
    (containers / made["id"] / "pids").unlink()
    machine.agent = Agent(machine.directory, machine.parent)
    [found] = machine.agent.ask(found=True)
    assert found["broken"] is True
    assert not (containers / "nothing").exists()
    machine.agent.ask(delete=made["id"])
    _wait_for_end(made["pid"])
