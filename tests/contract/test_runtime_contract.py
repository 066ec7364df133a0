"""What every container runtime promises: the same tests for conmon with crun, conmon with runc, and the one in memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from agent.images.records import ImageConfig
from agent.plan.container import ContainerOrder, ExecRequest, Exited
from agent.runtime.memory import MemoryRuntime, Program
from agent.runtime.port import ContainerRuntime
from model.errors import Conflict, NotFound, RuntimeFailed
from model.spec import ContainerSpec, Port, Resources
from tests.contract.etcd_harness import eventually, free_port
from tests.root.runtime_kit import Kit, with_kit

pytestmark = pytest.mark.contract


@dataclass
class Rig:
    runtime: ContainerRuntime
    order: Callable[..., ContainerOrder]
    exit_of: Callable[[str], Awaitable[Exited]]


Body = Callable[[Rig], Awaitable[None]]
Runner = Callable[[Body], None]

_PROGRAMS = {
    "true": Program(exit_code=0),
    "nope": Program(missing=True),
    "seven": Program(exit_code=7),
    "talk": Program(lines=(b"one\n", b"two\n"), exit_code=0),
}
_REAL = {
    "seven": ("sh", "-c", "exit 7"),
    "talk": ("sh", "-c", "echo one; echo two"),
    "answers": ("sh", "-c", "exec nc -l -p $PORT"),
}


@pytest.fixture(params=["memory", pytest.param("crun", marks=pytest.mark.root), pytest.param("runc", marks=pytest.mark.root)])
def runner(request: pytest.FixtureRequest, tmp_path: Path) -> Runner:
    if request.param == "memory":
        return _in_memory
    if os.geteuid() != 0:
        pytest.skip("needs root: namespaces and cgroups")

    def real(body: Body) -> None:
        async def with_rig(kit: Kit) -> None:
            def order(name: str = "sleep", **spec: Any) -> ContainerOrder:
                return kit.order(*_REAL.get(name, (name, "1000") if name == "sleep" else (name,)), **spec)

            await body(Rig(kit.runtime, order, kit.exit_of))

        with_kit(tmp_path, with_rig, request.param)

    return real


def _in_memory(body: Body) -> None:
    async def whole() -> None:
        runtime = MemoryRuntime({name: lambda _, program=program: program for name, program in _PROGRAMS.items()})  # type: ignore[misc]
        ended: dict[str, Exited] = {}
        arrived = asyncio.Condition()
        count = iter(range(1000))

        def order(name: str = "sleep", **spec: Any) -> ContainerOrder:
            number = next(count)
            container = replace(ContainerSpec(image="busybox", command=(name,)), **spec)
            meta = (("replica", str(number)),)
            return ContainerOrder(f"c{number}", "test.1", f"k{number}", container, ImageConfig(), (), meta=meta)

        async def collect() -> None:
            async for exited in runtime.exits():
                assert exited.container_id not in ended
                async with arrived:
                    ended[exited.container_id] = exited
                    arrived.notify_all()

        async def exit_of(container_id: str) -> Exited:
            async with asyncio.timeout(10), arrived:
                await arrived.wait_for(lambda: container_id in ended)
            return ended[container_id]

        async with asyncio.TaskGroup() as tasks:
            collector = tasks.create_task(collect())
            await body(Rig(runtime, order, exit_of))
            collector.cancel()

    asyncio.run(whole())


def test_a_container_runs_and_its_exit_code_arrives_once(runner: Runner) -> None:
    async def body(rig: Rig) -> None:
        for name, code, message in (("true", 0, ""), ("seven", 7, "ended with exit code 7")):
            order = rig.order(name)
            assert await rig.runtime.create(order) > 0
            await rig.runtime.start(order.id)
            exited = await rig.exit_of(order.id)
            assert (exited.exit_code, exited.oom, exited.message) == (code, False, message)
            await rig.runtime.delete(order.id)

    runner(body)


def test_counters_are_of_those_that_run(runner: Runner) -> None:
    async def body(rig: Rig) -> None:
        orders = [rig.order("sleep"), rig.order("sleep")]
        for order in orders:
            await rig.runtime.create(order)
            await rig.runtime.start(order.id)
        names = [order.id for order in orders]
        before = rig.runtime.sampled([*names, "unknown"])
        assert sorted(before) == sorted(names)
        assert all(found.pids >= 1 and found.memory_bytes > 0 and found.cpu_s >= 0 for found in before.values())
        await rig.runtime.kill(names[0], 9)
        await rig.exit_of(names[0])
        after = rig.runtime.sampled(names)
        assert sorted(after) == names[1:]
        assert after[names[1]].cpu_s >= before[names[1]].cpu_s
        for name in names:
            await rig.runtime.delete(name)
        assert rig.runtime.sampled(names) == {}

    runner(body)


def test_a_killed_one_reports_the_signal(runner: Runner) -> None:
    async def body(rig: Rig) -> None:
        order = rig.order()
        await rig.runtime.create(order)
        await rig.runtime.start(order.id)
        await rig.runtime.kill(order.id, 9)
        exited = await rig.exit_of(order.id)
        assert (exited.exit_code, exited.oom) == (137, False)
        assert exited.message == "ended by SIGKILL (exit code 137)"
        await rig.runtime.kill(order.id, 15)
        await rig.runtime.delete(order.id)

    runner(body)


def test_delete_may_come_at_any_point_and_twice(runner: Runner) -> None:
    async def body(rig: Rig) -> None:
        await rig.runtime.delete("unknown")
        created, running = rig.order(), rig.order()
        await rig.runtime.create(created)
        await rig.runtime.delete(created.id)
        await rig.runtime.create(running)
        await rig.runtime.start(running.id)
        await rig.runtime.delete(running.id)
        await rig.runtime.delete(running.id)
        assert (await rig.exit_of(running.id)).exit_code == 137
        with pytest.raises(NotFound):
            await rig.runtime.start(running.id)

    runner(body)


def test_a_command_that_is_not_there_is_a_permanent_fault(runner: Runner) -> None:
    async def body(rig: Rig) -> None:
        order = rig.order("nope")
        with pytest.raises(RuntimeFailed) as caught:
            await rig.runtime.create(order)
        assert str(caught.value) == 'cannot start: "nope": not found in $PATH (exit code 127)'
        assert caught.value.permanent
        assert caught.value.exit_code == 127
        with pytest.raises(NotFound):
            await rig.runtime.start(order.id)
        with pytest.raises(RuntimeFailed, match="has no command"):
            await rig.runtime.create(rig.order("true", command=()))
        with pytest.raises(RuntimeFailed, match="working directory"):
            await rig.runtime.create(rig.order("true", working_dir="/proc/self/fd/9"))

    runner(body)


def test_an_id_is_taken_only_once(runner: Runner) -> None:
    async def body(rig: Rig) -> None:
        order = rig.order()
        await rig.runtime.create(order)
        with pytest.raises(Conflict):
            await rig.runtime.create(order)
        await rig.runtime.delete(order.id)
        await rig.runtime.create(order)
        await rig.runtime.delete(order.id)

    runner(body)


def test_logs_outlive_the_container_until_they_are_forgotten(runner: Runner) -> None:
    async def body(rig: Rig) -> None:
        first = rig.order("talk")
        for order in (first, replace(rig.order("talk"), log_key=first.log_key)):
            await rig.runtime.create(order)
            await rig.runtime.start(order.id)
            await rig.exit_of(order.id)
            await rig.runtime.delete(order.id)
        lines = [line.line async for line in rig.runtime.logs(first.log_key)]
        assert lines == [b"one\n", b"two\n"] * 2
        assert [line.line async for line in rig.runtime.logs(first.log_key, tail=3)] == [b"two\n", b"one\n", b"two\n"]
        assert [line async for line in rig.runtime.logs(first.log_key, tail=0)] == []
        assert [line async for line in rig.runtime.logs(first.log_key, until_ms=1000)] == []
        await rig.runtime.forget_logs(first.log_key)
        assert [line async for line in rig.runtime.logs(first.log_key)] == []
        await rig.runtime.forget_logs("unknown")

    runner(body)


def test_a_container_that_is_gone_has_no_files_to_write_anew(runner: Runner) -> None:
    async def body(rig: Rig) -> None:
        order = rig.order()
        await rig.runtime.readdress(order)
        await rig.runtime.create(order)
        await rig.runtime.readdress(replace(order, addresses=("10.7.0.2",)))
        await rig.runtime.delete(order.id)
        await rig.runtime.readdress(order)

    runner(body)


def test_following_goes_on_over_a_restart_and_ends_when_forgotten(runner: Runner) -> None:
    async def body(rig: Rig) -> None:
        first = rig.order("talk")
        second = replace(rig.order("talk"), log_key=first.log_key)
        lines = rig.runtime.logs(first.log_key, follow=True)
        async with asyncio.timeout(30):
            for order in (first, second):
                await rig.runtime.create(order)
                await rig.runtime.start(order.id)
                assert [(await anext(lines)).container_id for _ in range(2)] == [order.id] * 2
                await rig.exit_of(order.id)
                await rig.runtime.delete(order.id)
            waiting = asyncio.ensure_future(anext(lines))
            await asyncio.sleep(0)
            await rig.runtime.forget_logs(first.log_key)
            with pytest.raises(StopAsyncIteration):
                await waiting

    runner(body)


def test_exec(runner: Runner) -> None:
    async def body(rig: Rig) -> None:
        order = rig.order()
        with pytest.raises(NotFound):
            await rig.runtime.exec(order.id, ExecRequest(("true",)))
        await rig.runtime.create(order)
        with pytest.raises(Conflict):
            await rig.runtime.exec(order.id, ExecRequest(("true",)))
        await rig.runtime.start(order.id)
        for command, code in (("true", 0), ("nope", 127)):
            session = await rig.runtime.exec(order.id, ExecRequest((command,)))
            async for _ in session.output():
                pass
            assert await session.wait() == code
            await session.close()
            await session.close()
        await rig.runtime.delete(order.id)

    runner(body)


def test_usage_of_a_running_one_only(runner: Runner) -> None:
    async def body(rig: Rig) -> None:
        order = rig.order(limits=Resources(memory_bytes=64 << 20, pids=20))
        assert await rig.runtime.usage(order.id) is None
        await rig.runtime.create(order)
        await rig.runtime.start(order.id)
        usage = await rig.runtime.usage(order.id)
        assert usage is not None
        assert usage.memory_limit_bytes == 64 << 20
        assert usage.pids_limit == 20
        assert 1 <= usage.pids <= 20, "runc is several threads until it has executed the command"
        await rig.runtime.delete(order.id)
        assert await rig.runtime.usage(order.id) is None

    runner(body)


def test_who_listens_is_seen(runner: Runner) -> None:
    async def body(rig: Rig) -> None:
        port = free_port()
        order = rig.order("answers", ports=(Port(port),), env=(("PORT", str(port)),))
        await rig.runtime.create(order)
        assert port not in rig.runtime.listening(order.id)
        await rig.runtime.start(order.id)
        await eventually(lambda: port in rig.runtime.listening(order.id), "it listens")
        await rig.runtime.kill(order.id, 9)
        await rig.exit_of(order.id)
        assert rig.runtime.listening(order.id) == frozenset()
        assert rig.runtime.listening("unknown") == frozenset()

    runner(body)


def test_what_it_wrote_is_there_while_it_is_looked_at(runner: Runner) -> None:
    async def body(rig: Rig) -> None:
        order = rig.order()
        with pytest.raises(NotFound):
            async with rig.runtime.written(order.id, pause=True):
                pass
        await rig.runtime.create(order)
        await rig.runtime.start(order.id)
        async with rig.runtime.written(order.id, pause=True) as first:
            pass
        await rig.runtime.kill(order.id, 9)
        await rig.exit_of(order.id)
        async with rig.runtime.written(order.id, pause=True) as second:
            assert first == second

    runner(body)


def test_recover_tells_what_runs(runner: Runner) -> None:
    async def body(rig: Rig) -> None:
        assert await rig.runtime.recover() == ()

    runner(body)
