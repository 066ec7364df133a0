"""Exec and attach, with and without a terminal; logs that are bounded and followed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
from pathlib import Path

import pytest

from agent.plan.container import ExecRequest
from agent.runtime.port import Session
from model.errors import Conflict, Unavailable
from tests.root.runtime_kit import Kit, with_kit

pytestmark = pytest.mark.root


async def _all(session: Session) -> tuple[int, bytes, bytes]:
    found = {"stdout": b"", "stderr": b""}
    async for name, data in session.output():
        found[name] += data
    code = await session.wait()
    await session.close()
    return code, found["stdout"], found["stderr"]


def test_exec_with_pipes(tmp_path: Path) -> None:
    async def body(kit: Kit) -> None:
        container_id = await kit.started(kit.order(env=(("A", "1"),), working_dir="/tmp"))
        script = "echo $A $B; pwd; id -u; grep Seccomp: /proc/self/status; echo bad >&2; exit 3"
        request = ExecRequest(("sh", "-c", script), user="ann", working_dir="/home/ann", env=(("B", "2"),))
        code, out, error = await _all(await kit.runtime.exec(container_id, request))
        assert (code, error) == (3, b"bad\n")
        assert out == b"1 2\n/home/ann\n1000\nSeccomp:\t2\n"

    with_kit(tmp_path, body)


def test_exec_streams_stdin_with_back_pressure(tmp_path: Path) -> None:
    async def body(kit: Kit) -> None:
        container_id = await kit.started(kit.order())
        session = await kit.runtime.exec(container_id, ExecRequest(("cat",), stdin=True))
        data = random.Random(1).randbytes(2 << 20)

        async def feed() -> None:
            await session.write(data)
            await session.close_stdin()

        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            tasks.create_task(feed())
            code, out, _ = await _all(session)
        assert code == 0
        assert out == data

    with_kit(tmp_path, body)


_AWAIT_SIZE = """await() { until [ "$(stty size 2>&1)" = "$1" ]; do sleep 0.01; done; echo "size $1"; }; """
"""The size may arrive a moment after the process began: a terminal's user is told by SIGWINCH."""


def test_exec_with_a_terminal(tmp_path: Path) -> None:
    async def body(kit: Kit) -> None:
        container_id = await kit.started(kit.order())
        script = _AWAIT_SIZE + "await '33 99'; await '44 111'; read x; echo got $x; exit 4"
        request = ExecRequest(("sh", "-c", script), tty=True, stdin=True, rows=33, columns=99)
        session = await kit.runtime.exec(container_id, request)
        async with asyncio.timeout(20):
            seen = b""
            async for _, data in session.output():
                seen += data
                if b"size 33 99" in seen and b"size 44" not in seen:
                    await session.resize(44, 111)
                    await session.write(b"hello\n")
            assert await session.wait() == 4
        assert b"size 44 111\r\n" in seen
        assert b"got hello" in seen
        await session.close()

    with_kit(tmp_path, body)


def test_exec_signals_and_close(tmp_path: Path) -> None:
    async def body(kit: Kit) -> None:
        container_id = await kit.started(kit.order())
        session = await kit.runtime.exec(
            container_id, ExecRequest(("sh", "-c", "trap 'exit 8' TERM; echo up; while :; do sleep 0.02; done"))
        )
        async for _, data in session.output():
            assert data == b"up\n"
            await session.signal(15)
            break
        assert await session.wait() == 8
        await session.close()
        session = await kit.runtime.exec(container_id, ExecRequest(("sh", "-c", "echo up; exec sleep 1000")))
        async for _ in session.output():
            break
        await session.close()
        usage = await kit.runtime.usage(container_id)
        assert usage is not None
        assert usage.pids == 1
        for _ in range(3):
            session = await kit.runtime.exec(container_id, ExecRequest(("sleep", "1000")))
            await session.close()

    with_kit(tmp_path, body)


@pytest.mark.parametrize(("command", "code"), [("nope", 127), ("/etc/passwd", 126)])
def test_exec_of_what_cannot_run_says_why_and_harms_nothing(tmp_path: Path, command: str, code: int) -> None:
    async def body(kit: Kit) -> None:
        container_id = await kit.started(kit.order())
        for tty in (False, True):
            found, out, error = await _all(await kit.runtime.exec(container_id, ExecRequest((command,), tty=tty)))
            assert found == code
            assert b"not found" in out + error or b"denied" in out + error
        await kit.runtime.kill(container_id, 9)
        assert (await kit.exit_of(container_id)).exit_code == 137

    with_kit(tmp_path, body)


def test_attach_before_the_start_sees_everything(tmp_path: Path) -> None:
    async def body(kit: Kit) -> None:
        order = kit.order("sh", "-c", "read x; echo out $x; echo err >&2; exit 5", stdin_open=True)
        await kit.runtime.create(order)
        session = await kit.runtime.attach(order.id)
        await kit.runtime.start(order.id)
        await session.write(b"in\n")
        async with asyncio.timeout(20):
            assert await _all(session) == (5, b"out in\n", b"err\n")

    with_kit(tmp_path, body)


def test_a_late_attach_sees_all_outputs_once_and_can_end_the_input(tmp_path: Path) -> None:
    async def body(kit: Kit) -> None:
        script = "echo before; printf 'prompt# '; read x; seq 3000; cat; echo over; exit 6"
        order = kit.order("sh", "-c", script, stdin_open=True)
        await kit.started(order)
        async with asyncio.timeout(20):
            async for line in kit.runtime.logs(order.log_key, follow=True):
                if line.line == b"prompt# ":
                    break
            first, second = [await kit.runtime.attach(order.id) for _ in range(2)]
            await first.write(b"go\nlast words")
            await first.close_stdin()
            numbers = b"".join(b"%d\n" % number for number in range(1, 3001))
            wanted = (6, b"before\nprompt# " + numbers + b"last wordsover\n", b"")
            assert await _all(first) == wanted
            assert await _all(second) == wanted

    with_kit(tmp_path, body)


def test_attach_without_a_log_sees_what_comes(tmp_path: Path) -> None:
    async def body(kit: Kit) -> None:
        order = kit.order("sh", "-c", "read x; echo out $x", stdin_open=True, log_driver="none")
        await kit.started(order)
        session = await kit.runtime.attach(order.id)
        await session.write(b"in\n")
        async with asyncio.timeout(20):
            assert await _all(session) == (0, b"out in\n", b"")

    with_kit(tmp_path, body)


def test_attach_to_a_terminal(tmp_path: Path) -> None:
    async def body(kit: Kit) -> None:
        order = kit.order("sh", "-c", _AWAIT_SIZE + "await '22 88'; read x; exit 5", tty=True, stdin_open=True)
        await kit.runtime.create(order)
        session = await kit.runtime.attach(order.id)
        await kit.runtime.start(order.id)
        await session.resize(22, 88)
        async with asyncio.timeout(20):
            seen = b""
            async for name, data in session.output():
                assert name == "stdout"
                seen += data
                if seen.endswith(b"size 22 88\r\n"):
                    await session.write(b"b\n")
            assert await session.wait() == 5
        await session.close()

    with_kit(tmp_path, body)


def test_logs_are_bounded_and_the_newest_are_kept(tmp_path: Path) -> None:
    async def body(kit: Kit) -> None:
        options = (("max-size", "64k"), ("max-file", "3"))
        order = kit.order("sh", "-c", "for i in $(seq 20); do seq 1000; sleep 0.02; done; echo last", log_options=options)
        await kit.exit_of(await kit.started(order))
        directory = tmp_path / "data/logs" / order.log_key
        sizes = {path.stat().st_ino: path.stat().st_size for path in directory.iterdir()}
        assert len(sizes) <= 4
        assert sum(sizes.values()) <= 4 * (64 << 10)
        lines = [line async for line in kit.runtime.logs(order.log_key)]
        assert lines[-1].line == b"last\n"
        assert len(lines) > 1000
        assert [line.at_ns for line in lines] == sorted(line.at_ns for line in lines)
        numbers = [int(line.line) for line in lines[:-1]]
        assert all(after == before % 1000 + 1 for before, after in itertools.pairwise(numbers)), "no line is missing"
        assert [line.line async for line in kit.runtime.logs(order.log_key, tail=2)] == [b"1000\n", b"last\n"]
        await kit.runtime.delete(order.id)
        assert [line.line async for line in kit.runtime.logs(order.log_key, tail=1)] == [b"last\n"]
        await kit.runtime.forget_logs(order.log_key)
        assert not directory.exists()

    with_kit(tmp_path, body)


def test_following_over_rotations_misses_nothing(tmp_path: Path) -> None:
    async def body(kit: Kit) -> None:
        options = (("max-size", "64k"), ("max-file", "5"))
        order = kit.order("sh", "-c", "for i in $(seq 30); do seq 200; sleep 0.01; done; echo last", log_options=options)
        seen: list[bytes] = []
        await kit.runtime.create(order)
        lines = kit.runtime.logs(order.log_key, follow=True)
        await kit.runtime.start(order.id)
        async with asyncio.timeout(30):
            async for line in lines:
                seen.append(line.line)
                if line.line == b"last\n":
                    break
        assert len(seen) == 30 * 200 + 1

    with_kit(tmp_path, body)


def test_a_log_driver_of_none_keeps_nothing(tmp_path: Path) -> None:
    async def body(kit: Kit) -> None:
        exited, text = await kit.ran("echo", "hi", log_driver="none")
        assert (exited.exit_code, text) == (0, "")
        assert not (tmp_path / "data/logs").exists()

    with_kit(tmp_path, body)


def test_fifty_cycles_with_random_kills_leave_nothing(tmp_path: Path) -> None:
    """`with_kit` counts what is left: processes, zombies, cgroups, mounts, bundles; here also descriptors."""
    chance = random.Random(7)

    async def body(kit: Kit) -> None:
        await kit.ran("true")
        before = len(os.listdir("/proc/self/fd"))

        async def cycle() -> None:
            order = kit.order("sh", "-c", "sleep 0.01; exit 3" if chance.random() < 0.5 else "exec sleep 1000")
            await kit.runtime.create(order)
            if chance.random() < 0.9:
                await kit.runtime.start(order.id)
            match chance.randrange(4):
                case 0:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(kit.monitor(order.id), 9)
                case 1:
                    await kit.runtime.kill(order.id, 9)
                case 2:
                    with contextlib.suppress(Conflict, Unavailable):  # it may have ended already
                        await (await kit.runtime.attach(order.id)).close()
            await kit.runtime.delete(order.id)
            await kit.runtime.forget_logs(order.log_key)

        for _ in range(10):
            await asyncio.gather(*(cycle() for _ in range(5)))
        assert len(os.listdir("/proc/self/fd")) == before
        assert len(os.listdir(tmp_path / "data/logs")) == 1, "only that of the first container"

    with_kit(tmp_path, body)
