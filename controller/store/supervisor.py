"""The controller's own etcd: started, watched, started again when it dies, ended with the controller.

Rules:
- The etcd is BOUND to the controller's life (parent-death signal), not adopted by the next one: it loses nothing by a
  SIGKILL, a new one is ready in about a second, and there is never an etcd that nobody watches. Start it from the thread
  that runs the controller's loop (the main thread): the kernel binds the child to the thread, not to the process.
- One controller for one data directory: a lock file held for life says so. Whoever holds the lock may end a leftover etcd.
- etcd writes its log itself (a pipe that nobody reads would stop it); the file is cut when it grows too long.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import platform
import socket
from collections.abc import Callable
from typing import Protocol

from controller.store.etcd import EtcdStore
from controller.store.etcd_channel import EtcdTarget
from controller.store.etcd_command import ETCD, SETPRIV, EtcdSettings, back_off_s, etcd_command, etcd_environment
from controller.store.leftover import end_leftover, write_pid_file
from model.store_port import StoreDenied, StoreError

READY_S = 60.0
LONG_LIFE_S = 30.0
LOG_CHECK_S = 30.0
STOP_S = 5.0
LOCK_S = 2.0


class Timer(Protocol):
    def monotonic(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class EtcdProcess:
    """`await start()`, then `await supervise()` as a task for as long as the controller lives, then `await stop()`."""

    def __init__(self, settings: EtcdSettings, clock: Timer, log: Callable[[str], None] = lambda text: None) -> None:
        self.settings = settings
        self.restarts = 0
        self._clock = clock
        self._log = log
        self._lock = -1
        self._stopping = False
        self._born = 0.0
        self._process: asyncio.subprocess.Process | None = None

    @property
    def target(self) -> EtcdTarget:
        """What an EtcdStore needs to speak with this etcd."""
        files = self.settings.files
        return EtcdTarget((self.settings.endpoint,), files.server_ca, files.client_cert, files.client_key)

    @property
    def pid(self) -> int:
        """0: none runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else 0

    async def start(self) -> None:
        """Starts etcd and waits until it answers. Raises StoreError with etcd's last word when it does not."""
        for program in (ETCD, SETPRIV):
            if not os.access(program, os.X_OK):
                raise StoreError(f"{program} is missing: install the packages etcd-server and util-linux")
        self.settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self._take_lock()
        self._stopping = False
        try:
            if await end_leftover(self.settings.pid_file):
                self._log("ended an etcd that an earlier controller left behind")
            for port in (self.settings.client_port, self.settings.peer_port):
                check_free(port)
            await self._spawn()
            await self._ready()
        except BaseException:
            await self.stop()
            raise

    async def supervise(self) -> None:
        """For ever: starts etcd again when it dies, and keeps its log short."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._keep_alive())
            both.create_task(self._keep_log_short())

    async def stop(self) -> None:
        """Ends etcd (SIGTERM, then SIGKILL) and gives the data directory free. Cancel `supervise` first or after."""
        self._stopping = True
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(STOP_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        if self._lock >= 0:
            self.settings.pid_file.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = -1

    # ---- inside

    async def _take_lock(self) -> None:
        """Waits a little: the threads of a controller that was just killed may still be on their way out."""
        until = self._clock.monotonic() + LOCK_S
        lock = os.open(self.settings.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while not _locked(lock):
                if self._clock.monotonic() > until:
                    where = self.settings.data_dir
                    raise StoreError(f"another controller uses {where}: give this one its own data directory")
                await self._clock.sleep(0.05)
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock

    async def _spawn(self) -> None:
        log = os.open(self.settings.log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *etcd_command(self.settings),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=etcd_environment(platform.machine()),
                start_new_session=True,  # a Ctrl-C in our terminal must not end it before we do
            )
        finally:
            os.close(log)
        self._born = self._clock.monotonic()
        write_pid_file(self.settings.pid_file, self._process.pid)

    async def _ready(self) -> None:
        store = EtcdStore(self.target)
        until = self._clock.monotonic() + READY_S
        try:
            while True:
                try:
                    await store.get("ready")
                    return
                except StoreDenied:
                    raise
                except StoreError as error:
                    if self.pid == 0 or self._clock.monotonic() > until:
                        raise StoreError(f"etcd did not start: {self._last_word() or error}") from error
                await self._clock.sleep(0.05)
        finally:
            await store.close()

    def _last_word(self) -> str:
        """The last line of etcd's log that is worth a look."""
        try:
            with self.settings.log_file.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 8192))
                lines = log.read().decode(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return next(
            (line[:500] for line in reversed(lines) if '"error"' in line or '"fatal"' in line), lines[-1][:500] if lines else ""
        )

    async def _keep_alive(self) -> None:
        deaths = 0
        while True:
            assert self._process is not None, "start() comes before supervise()"
            code = await self._process.wait()
            if self._is_stopping():
                return
            lived_s = self._clock.monotonic() - self._born
            deaths = deaths + 1 if lived_s < LONG_LIFE_S else 1
            self._log(f"etcd died with {code} after {lived_s:.0f} s: start it again")
            await self._clock.sleep(back_off_s(deaths))
            if self._is_stopping():
                return
            self.restarts += 1
            await self._spawn()

    def _is_stopping(self) -> bool:
        """It may change over any await."""
        return self._stopping

    async def _keep_log_short(self) -> None:
        while True:
            await self._clock.sleep(LOG_CHECK_S)
            self.trim_log()

    def trim_log(self) -> None:
        """Keeps the newest half of a log that grew too long; etcd appends, so it goes on at the new end."""
        limit = self.settings.log_bytes_max
        with contextlib.suppress(FileNotFoundError), self.settings.log_file.open("r+b") as log:
            size = log.seek(0, os.SEEK_END)
            if size <= limit:
                return
            log.seek(size - limit // 2)
            tail = log.read().partition(b"\n")[2]
            log.seek(0)
            log.write(tail)
            log.truncate()


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def check_free(port: int) -> None:
    """Raises StoreError when somebody listens there: we might take a stranger's etcd for our own."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise StoreError(f"port 127.0.0.1:{port} for etcd: {error.strerror}: choose another one") from error


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now (another process may still be faster)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
