"""The controller's own etcd: starts, comes back after kill -9, never blocks its directory, takes one certificate only."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from controller.store.etcd import EtcdStore
from controller.store.etcd_channel import EtcdTarget
from controller.store.etcd_command import EtcdFiles, EtcdSettings
from controller.store.leftover import end_leftover, identity_of, write_pid_file
from controller.store.supervisor import EtcdProcess
from model.store_port import Put, StoreDenied, StoreError
from tests.contract.etcd_harness import Certificates, eventually, free_port

pytestmark = pytest.mark.contract


class RealClock:
    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@pytest.fixture
def settings(tmp_path: Path) -> EtcdSettings:
    pair = Certificates.make(tmp_path / "pki")
    files = EtcdFiles(pair.ca, pair.cert, pair.key, pair.ca, pair.cert, pair.key)
    return EtcdSettings(tmp_path / "data", free_port(), free_port(), files)


@asynccontextmanager
async def running(settings: EtcdSettings) -> AsyncIterator[tuple[EtcdProcess, EtcdStore]]:
    etcd = EtcdProcess(settings, RealClock())
    await etcd.start()
    store = EtcdStore(etcd.target)
    task = asyncio.create_task(etcd.supervise())
    try:
        yield etcd, store
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()
        await etcd.stop()


async def test_it_comes_back_after_kill_9_with_everything_in_it(settings: EtcdSettings) -> None:
    async with running(settings) as (etcd, store):
        for n in range(3):
            assert (await store.txn([], [Put(f"/k/{n}", b"v")])).ok
            old = etcd.pid
            os.kill(old, signal.SIGKILL)
            await eventually(lambda old=old: etcd.pid not in (0, old), "a new etcd")  # type: ignore[misc]
            entries = (await store.list("/k/")).entries
            assert [entry.key for entry in entries] == [f"/k/{i}" for i in range(n + 1)]
        assert etcd.restarts == 3
    assert etcd.pid == 0
    assert not settings.pid_file.exists()
    async with running(settings) as (_, store):
        assert len((await store.list("/k/")).entries) == 3


async def test_only_the_controllers_certificate_is_taken(settings: EtcdSettings, tmp_path: Path) -> None:
    stranger = Certificates.make(tmp_path / "stranger")
    async with running(settings):
        ca = settings.files.server_ca
        for cert, key in ((None, None), (stranger.cert, stranger.key)):
            store = EtcdStore(EtcdTarget((settings.endpoint,), ca, cert, key))
            with pytest.raises(StoreDenied, match="certificate"):
                await store.get("/k")
            with pytest.raises(StoreDenied, match="certificate"):
                await store.txn([], [Put("/k", b"")])
            await store.close()
        store = EtcdStore(EtcdTarget((settings.endpoint,), stranger.ca, settings.files.client_cert, settings.files.client_key))
        with pytest.raises(StoreDenied, match="CA"):
            await store.get("/k")
        await store.close()


async def test_a_second_controller_on_the_directory_is_refused(settings: EtcdSettings) -> None:
    async with running(settings) as (etcd, store):
        with pytest.raises(StoreError, match="another controller"):
            await EtcdProcess(settings, RealClock()).start()
        assert etcd.pid > 0
        assert await store.get("/k") is None


async def test_a_taken_port_is_told_in_one_line(settings: EtcdSettings, tmp_path: Path) -> None:
    async with running(settings):
        files = settings.files
        other = EtcdSettings(tmp_path / "other", settings.client_port, free_port(), files)
        with pytest.raises(StoreError, match="Address already in use") as caught:
            await EtcdProcess(other, RealClock()).start()
        assert "\n" not in str(caught.value)


CONTROLLER = """
import asyncio, sys, time
from pathlib import Path
from controller.store.etcd_command import EtcdFiles, EtcdSettings
from controller.store.supervisor import EtcdProcess

class Clock:
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(asyncio.sleep)

async def main(data, ca, cert, key, client, peer):
    files = EtcdFiles(Path(ca), Path(cert), Path(key), Path(ca), Path(cert), Path(key))
    etcd = EtcdProcess(EtcdSettings(Path(data), int(client), int(peer), files), Clock())
    await etcd.start()
    print(etcd.pid, flush=True)
    await etcd.supervise()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def controller(settings: EtcdSettings) -> Iterator[subprocess.Popen[str]]:
    """A controller process with its own etcd."""
    files = settings.files
    words = [settings.data_dir, files.client_ca, files.client_cert, files.client_key, settings.client_port, settings.peer_port]
    process = subprocess.Popen(
        ["/usr/bin/setpriv", "--pdeathsig", "KILL", sys.executable, "-c", CONTROLLER, *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


async def test_a_killed_controller_leaves_no_etcd_and_the_next_one_starts(
    settings: EtcdSettings, controller: subprocess.Popen[str]
) -> None:
    assert controller.stdout is not None
    child = int(await asyncio.to_thread(controller.stdout.readline))
    assert identity_of(child) is not None
    controller.kill()
    await eventually(lambda: identity_of(child) is None, "the etcd of the killed controller has ended", 5)
    assert settings.pid_file.exists()
    async with running(settings) as (etcd, store):
        assert await store.get("/k") is None
        assert etcd.pid != child


STUBBORN = "import signal; signal.signal(15, signal.SIG_IGN); print(flush=True); signal.pause()"


@pytest.fixture
def child() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts processes that end with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*command: str) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(["/usr/bin/setpriv", "--pdeathsig", "KILL", *command], stdout=subprocess.PIPE))
        return started[-1]

    try:
        yield start
    finally:
        for process in started:
            process.kill()
            process.communicate()


async def test_a_leftover_is_ended_but_never_a_stranger_with_its_pid(
    tmp_path: Path, child: Callable[..., subprocess.Popen[bytes]]
) -> None:
    file = tmp_path / "pid"
    bystander = child("sleep", "1000")
    stubborn = child(sys.executable, "-c", STUBBORN)
    assert stubborn.stdout is not None
    stubborn.stdout.readline()
    write_pid_file(file, bystander.pid)
    text = file.read_text()
    started = identity_of(bystander.pid)
    assert started is not None
    file.write_text(text.replace(str(started.started), str(started.started - 1)))
    assert await end_leftover(file) is False
    assert bystander.poll() is None
    write_pid_file(file, stubborn.pid)
    assert await end_leftover(file, patience_s=0.2) is True
    assert stubborn.wait(5) == -signal.SIGKILL
    assert await end_leftover(file) is False
    file.write_text("garbage")
    assert await end_leftover(file) is False


async def test_a_log_that_grew_too_long_keeps_its_end(settings: EtcdSettings) -> None:
    settings.data_dir.mkdir()
    small = EtcdSettings(settings.data_dir, 1, 2, settings.files, log_bytes_max=1000)
    small.log_file.write_text("".join(f"line {n}\n" for n in range(500)))
    EtcdProcess(small, RealClock()).trim_log()
    lines = small.log_file.read_text().splitlines()
    assert lines[-1] == "line 499"
    assert lines[0].startswith("line ")
    assert small.log_file.stat().st_size <= 500
