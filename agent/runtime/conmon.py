"""The real container runtime: conmon + crun (or runc), one conmon for each container.

Rules: containers outlive the agent; everything needed to take them over stands in their bundle. At most `starts_max`
containers are created at a time. Children get no descriptor and no environment of the agent's. What `create` began and could
not finish is undone before its error is raised.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import shutil
import signal as signals
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from agent.plan.capabilities import held
from agent.plan.cgroups import cgroup_path
from agent.plan.container import ContainerOrder, ExecRequest, Exited, Found, LogLine, Usage
from agent.plan.exits import create_error
from agent.plan.log_lines import LogOptions, log_options
from agent.plan.oci import HostFacts, seccomp_filter
from agent.plan.samples import Counters
from agent.plan.seccomp import filter_key
from agent.runtime import attach, bundle, conmon_call, ends, execs
from agent.runtime.bundle import Paths, Pids, State
from agent.runtime.cgroups import CgroupDriver, UsageFiles, cgroup_driver
from agent.runtime.facts import boot_id, open_ports, program, raise_descriptor_limit, read_facts, start_time
from agent.runtime.log_store import LogStore
from agent.runtime.monitor import Process, Watch, read_exit_file, reap_orphans
from agent.runtime.mountns import become_subreaper
from agent.runtime.pausing import paused, resume
from agent.runtime.port import Session
from agent.runtime.seccomp_bpf import compile_filter
from agent.runtime.spawn import readable, run
from model.errors import Conflict, NotFound

_END_WAIT_S: Final = 0.2
_END_TRIES: Final = 100
_MONITOR_TIMEOUT_S: Final = 5.0
_SIGKILL: Final = 9
_REAP_DELAY_S: Final = 0.05
_REAP_DELAYS_S: Final = (0.05, 0.5, 5.0)


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """`data_dir` holds bundles and logs, `run_dir` what need not survive a reboot. `cgroup_parent` is relative to the root."""

    data_dir: Path
    run_dir: Path
    cgroup_parent: str = "shoal"
    runtime: Literal["crun", "runc"] = "crun"
    node: str = ""
    starts_max: int = 4


@dataclass(slots=True)
class _Container:
    state: State
    paths: Paths
    pids: Pids = field(default_factory=Pids)
    process: Process | None = None
    watch: Watch | None = None
    started: bool = False
    exit: Exited | None = None
    usage: UsageFiles | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class ConmonRuntime:
    """See agent.runtime.port.ContainerRuntime."""

    def __init__(self, config: RuntimeConfig, facts: HostFacts | None = None, cgroups: CgroupDriver | None = None) -> None:
        self.config = config
        self.facts = facts or read_facts(config.node)
        self.cgroups = cgroups or cgroup_driver()
        self._conmon = program("conmon")
        self._runtime = program(config.runtime)
        self._root = config.run_dir / config.runtime
        self._sockets = config.run_dir / "sockets"
        self._containers: dict[str, _Container] = {}
        self._exits: asyncio.Queue[Exited] = asyncio.Queue()
        self._starts = asyncio.Semaphore(config.starts_max)
        self._filters: dict[frozenset[str], str] = {}
        self._boot = boot_id()
        self._reaping = False
        self._on_main_thread = threading.current_thread() is threading.main_thread()
        self.log_store = LogStore(config.data_dir / "logs")

    # Taking over

    async def recover(self) -> tuple[Found, ...]:
        become_subreaper()
        raise_descriptor_limit()
        if self._on_main_thread:
            asyncio.get_running_loop().add_signal_handler(signals.SIGCHLD, self._reap_soon)
        for directory in (self.config.data_dir / "containers", self._root, self._sockets):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.cgroups.prepare(self.config.cgroup_parent)
        found = []
        for path in sorted((self.config.data_dir / "containers").iterdir()):
            state = bundle.read_state(Paths(path))
            if state is None:
                await asyncio.to_thread(self._remove, path.name, Paths(path))
            else:
                found.append(self._adopt(state, Paths(path)))
        for container in self._containers.values():
            if container.paths.paused.exists():
                await resume([self._runtime, "--root", str(self._root)], container.state.id, container.paths.paused)
        states = [container.state for container in self._containers.values() if container.state.log]
        self.log_store.recover({state.id: (Path(state.log), state.log_files) for state in states})
        return tuple(found)

    def _adopt(self, state: State, paths: Paths) -> Found:
        container = _Container(state, paths, bundle.read_pids(paths))
        self._containers[state.id] = container
        # `started` is noted before the runtime is asked: while its fifo stands, the process still waits for the word.
        started_at = 0.0 if (self._root / state.id / "exec.fifo").exists() else ends.started_at(paths)
        container.started = started_at > 0
        if state.boot_id == self._boot and container.pids.pid:
            self._watch(container)
        else:
            self._ended(container, read_exit_file(paths.exit), emit=False)
        known: Literal["created", "running", "exited"] = "running" if container.started else "created"
        pid = container.pids.pid
        return Found(
            state.id, state.name, state.log_key, state.meta, state="exited" if container.exit else known,
            pid=0 if container.exit else pid, started_at=started_at, exit=container.exit, broken=not pid,
        )  # fmt: skip

    def _watch(self, container: _Container) -> None:
        """Follow a container that should be there; it may have ended already."""
        pids, exit_file = container.pids, container.paths.exit
        with contextlib.suppress(ProcessLookupError):
            container.process = Process(pids.pid, pids.pid_start)
        monitor = None
        with contextlib.suppress(ProcessLookupError):
            monitor = Process(pids.monitor, pids.monitor_start)
        if container.process is None and monitor is None:
            self._ended(container, read_exit_file(exit_file), emit=False)
            return
        container.watch = Watch(container.process, monitor, exit_file, lambda code: self._ended(container, code))
        container.watch.begin()

    # Creating

    async def create(self, order: ContainerOrder) -> int:
        bundle.check_id(order.id)
        if order.id in self._containers:
            raise Conflict(f"container {order.id} exists already")
        paths = Paths(self.config.data_dir / "containers" / order.id)
        options = log_options(order.spec.log_driver, order.spec.log_options)
        container = _Container(State(order.id, order.name, order.log_key, "", self._boot), paths)
        self._containers[order.id] = container
        try:
            async with container.lock, self._starts:
                await self._create(container, order, options)
        except BaseException:
            self._containers.pop(order.id, None)
            raise
        return container.pids.pid

    async def _create(self, container: _Container, order: ContainerOrder, options: LogOptions) -> None:
        spec, log = order.spec, ""
        try:
            if not options.off:
                log = str(self.log_store.begin(order.log_key, order.id))
            container.state = state = State(
                order.id, order.name, order.log_key, cgroup_path(self.config.cgroup_parent, order.id), self._boot, order.meta,
                spec.limits.memory_bytes, spec.tty, spec.stdin_open, log, options.files_max,
            )  # fmt: skip
            bpf = self._bpf(order)
            await _finish(asyncio.to_thread(bundle.prepare, order, state, container.paths, self.facts, bpf))
            await _finish(self._run_conmon(container, options.bytes_max))
            if log:
                self.log_store.began(order.log_key, Path(log), options.files_max)
        except BaseException as error:
            await _finish(self._undo(container))
            if isinstance(error, OSError):
                raise bundle.disk_problem(error, order.name) from None
            raise

    def _bpf(self, order: ContainerOrder) -> str | None:
        profile = seccomp_filter(order.spec, self.facts)
        if profile is None or self.config.runtime != "crun":
            return None
        key = filter_key(held(order.spec, self.facts.capabilities))
        if key not in self._filters:
            self._filters[key] = base64.b64encode(compile_filter(profile)).decode()
        return self._filters[key]

    async def _run_conmon(self, container: _Container, log_bytes_max: int) -> None:
        """Start the monitor, which creates the container; then note both processes in the state."""
        programs = conmon_call.Programs(self._conmon, self._runtime, self._root, self._sockets)
        answer = await conmon_call.call(programs, container.state, container.paths, log_bytes_max)
        pid = answer.get("data", answer.get("pid", -1))
        if not isinstance(pid, int) or pid <= 0:
            command = bundle.read_process(container.paths)["args"]
            raise create_error(str(answer.get("message", "")), command[0])
        monitor = int(container.paths.monitor_pid.read_text())
        container.pids = Pids(pid, start_time(pid), monitor, start_time(monitor))
        bundle.write_pids(container.paths, container.pids)
        self._watch(container)

    async def _undo(self, container: _Container) -> None:
        """After a failed create: nothing stays but the log."""
        await self._stop(container)
        await self._end_monitor(container)
        await asyncio.to_thread(self._remove, container.state.id, container.paths)
        self._forget(container)

    async def _end_monitor(self, container: _Container) -> None:
        """The monitor of a container that was not made ends by itself, at once; as our child it must be reaped."""
        try:
            monitor = Process(int(container.paths.monitor_pid.read_text()))
        except (OSError, ValueError):
            return
        try:
            async with asyncio.timeout(_MONITOR_TIMEOUT_S):
                await readable(monitor.fd)
        except TimeoutError:
            monitor.signal(_SIGKILL)
            await readable(monitor.fd)
        finally:
            monitor.reap()
            monitor.close()

    # Running

    async def start(self, container_id: str) -> None:
        container = self._get(container_id)
        if container.exit is not None:
            return
        try:
            container.paths.started.write_text(repr(time.time()))
        except OSError as error:
            raise bundle.disk_problem(error, container.state.name) from None
        container.started = True
        code, text = await run([self._runtime, "--root", str(self._root), "start", container_id])
        if code != 0 and container.exit is None:
            command = bundle.read_process(container.paths)["args"]
            raise create_error(text, command[0])

    async def kill(self, container_id: str, signal: int = 15) -> None:
        container = self._containers.get(container_id)
        if container is not None and container.exit is None and container.process is not None:
            container.process.signal(signal)

    async def readdress(self, order: ContainerOrder) -> None:
        container = self._containers.get(order.id)
        if container is None:
            return
        async with container.lock:
            try:
                await asyncio.to_thread(bundle.rewrite_etc, order, container.paths)
            except OSError as error:
                raise bundle.disk_problem(error, order.name) from None

    @contextlib.asynccontextmanager
    async def written(self, container_id: str, *, pause: bool) -> AsyncIterator[Path]:
        container = self._get(container_id)

        def runs() -> bool:
            return container.started and container.exit is None

        async with container.lock:
            if not (pause and runs()):
                yield container.paths.upper
                return
            async with paused([self._runtime, "--root", str(self._root)], container_id, container.paths.paused, runs):
                yield container.paths.upper

    def root(self, container_id: str) -> Path:
        return self._get(container_id).paths.rootfs

    async def delete(self, container_id: str) -> None:
        container = self._containers.get(container_id)
        if container is None:
            return
        async with container.lock:
            await self._stop(container)
            await _finish(asyncio.to_thread(self._remove, container_id, container.paths))
            self._forget(container)

    def exits(self) -> AsyncIterator[Exited]:
        return self._exit_events()

    async def _exit_events(self) -> AsyncIterator[Exited]:
        while True:
            yield await self._exits.get()

    def _ended(self, container: _Container, code: int | None, *, emit: bool = True) -> None:
        container.exit = ends.exited(container.state, container.paths, code, self.cgroups)
        if container.usage is not None:
            container.usage.close()
            container.usage = None
        if container.watch is not None:
            container.watch.close()
        container.done.set()
        if emit and container.started:
            self._exits.put_nowait(container.exit)

    async def _stop(self, container: _Container) -> None:
        """SIGKILL and wait until the end has been seen."""
        if container.process is None or container.exit is not None:
            return
        container.process.signal(_SIGKILL)
        for _ in range(_END_TRIES):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_WAIT_S):
                    await container.done.wait()
                return
            self._reap_orphans()

    def _remove(self, container_id: str, paths: Paths) -> None:
        """Cgroups, the runtime's own record, mounts, files. Blocking; may be repeated."""
        self.cgroups.remove(cgroup_path(self.config.cgroup_parent, container_id))
        shutil.rmtree(self._root / container_id, ignore_errors=True)
        bundle.dispose(paths)

    def _forget(self, container: _Container) -> None:
        if container.watch is not None:
            container.watch.close()
        if container.usage is not None:
            container.usage.close()
        self._containers.pop(container.state.id, None)
        self.log_store.ended(container.state.log_key, container.state.id)

    # Looking in

    async def exec(self, container_id: str, request: ExecRequest) -> Session:
        container = self._running(container_id)
        command = [self._runtime, "--root", str(self._root)]
        where = execs.Target(container_id, container.pids.pid, container.paths, self._exec_ended)
        return await execs.begin(command, where, request, self.facts)

    async def attach(self, container_id: str) -> Session:
        container = self._get(container_id)
        if container.exit is not None:
            raise Conflict(f"container {container.state.name} does not run")

        async def wait() -> int:
            await container.done.wait()
            code = container.exit.exit_code if container.exit else None
            return -1 if code is None else code

        state = container.state
        written = self.log_store.written_by(state.log_key, state.id, container.done) if state.log else None
        return await attach.begin(container.paths, state, container.process, wait, written)

    def logs(
        self, log_key: str, *, follow: bool = False, tail: int = -1, since_ms: int = 0, until_ms: int = 0
    ) -> AsyncIterator[LogLine]:
        return self.log_store.lines(log_key, follow=follow, tail=tail, since_ms=since_ms, until_ms=until_ms)

    async def forget_logs(self, log_key: str) -> None:
        await asyncio.to_thread(self.log_store.delete, log_key)
        self.log_store.forget(log_key)

    async def usage(self, container_id: str) -> Usage | None:
        files = self._usage_files(container_id)
        return files.read(time.time()) if files is not None else None

    def sampled(self, container_ids: Iterable[str]) -> dict[str, Counters]:
        found, at_s = {}, time.monotonic()
        for container_id in container_ids:
            files = self._usage_files(container_id)
            counters = files.sample(at_s) if files is not None else None
            if counters is not None:
                found[container_id] = counters
        return found

    def listening(self, container_id: str) -> frozenset[int]:
        container = self._containers.get(container_id)
        if container is None or container.exit is not None or not container.started:
            return frozenset()
        return open_ports(container.pids.pid)

    def _usage_files(self, container_id: str) -> UsageFiles | None:
        """Kept open while the container runs."""
        container = self._containers.get(container_id)
        if container is None or container.exit is not None or not container.pids.pid:
            return None
        if container.usage is None:
            container.usage = self.cgroups.open_usage(container.state.cgroup)
        return container.usage

    def _exec_ended(self) -> None:
        """What a failed exec leaves may die a moment after it; without SIGCHLD nobody tells when."""
        self._reap_orphans()
        if not self._on_main_thread:
            for delay_s in _REAP_DELAYS_S:
                asyncio.get_running_loop().call_later(delay_s, self._reap_orphans)

    def _reap_soon(self) -> None:
        """SIGCHLD: look once for a burst of them."""
        if not self._reaping:
            self._reaping = True
            asyncio.get_running_loop().call_later(_REAP_DELAY_S, self._reap_orphans)

    def _reap_orphans(self) -> None:
        self._reaping = False
        reap_orphans({container.pids.pid for container in self._containers.values()})

    async def close(self) -> None:
        if self._on_main_thread:
            asyncio.get_running_loop().remove_signal_handler(signals.SIGCHLD)
        for container in self._containers.values():
            if container.watch is not None:
                container.watch.close()
            if container.usage is not None:
                container.usage.close()
        self._containers = {}
        self.log_store.close()

    def _get(self, container_id: str) -> _Container:
        container = self._containers.get(container_id)
        if container is None:
            raise NotFound(f"no container {container_id} on this node")
        return container

    def _running(self, container_id: str) -> _Container:
        container = self._get(container_id)
        if container.exit is not None or not container.started:
            raise Conflict(f"container {container.state.name} does not run")
        return container


async def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Carry `work` to its end even when the caller is cancelled meanwhile; then the cancellation goes on."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):
            await task
        raise
