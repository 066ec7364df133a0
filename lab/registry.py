"""The lab's own image registry: Debian's docker-registry with a configuration of ours.

Rules: it listens on the one address given, has no authentication and speaks plain http, so the address must be loopback or
the lab's own bridge. It is a child that the kernel ends with the process that started it; when it dies by itself it is
started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import secrets
import shutil
import signal
import socket
from pathlib import Path

from agent.images.calls import Calls
from agent.images.records import RegistryConfig
from lab.push import PushResult, push_layout
from model.errors import ShoalError

_READY_S_MAX = 15.0
_STOP_S_MAX = 5.0
_POLL_S = 0.02
_RESTARTS_MAX = 5


class RegistryFailed(ShoalError):
    """The lab's registry does not start or does not answer."""


class LabRegistry:
    """`start`, then `push_layout` images into it; `endpoint` is `host:port`. Port 0 takes a free one."""

    def __init__(self, directory: Path, host: str = "127.0.0.1", port: int = 0) -> None:
        self.directory = directory
        self.host = host
        self.port = port
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._calls: Calls | None = None

    @property
    def endpoint(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    def prepare(self) -> list[str]:
        """Write the configuration; the command line that serves it, for whoever supervises processes himself."""
        program = shutil.which("docker-registry")
        if program is None:
            raise RegistryFailed("docker-registry is missing: install Debian's package docker-registry")
        if self.port == 0:
            self.port = _free_port(self.host)
        (self.directory / "data").mkdir(parents=True, exist_ok=True)
        file = self.directory / "registry.yml"
        file.write_text(json.dumps(self._configuration(), indent=1))  # JSON is YAML
        return [program, "serve", str(file)]

    async def start(self) -> None:
        """Serve, and return once it answers. Raises RegistryFailed."""
        command = self.prepare()
        self._calls = Calls(RegistryConfig(insecure=frozenset({self.endpoint}), timeout_s=30.0))
        await self._spawn(command)
        try:
            await self._answering()
        except BaseException:
            await self.stop()
            raise
        self._watcher = asyncio.get_running_loop().create_task(self._watch(command), name="lab registry")

    async def stop(self) -> None:
        """End the child; its files stay."""
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
            self._watcher = None
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), _STOP_S_MAX)
            except TimeoutError:
                process.kill()
                await process.wait()
        if self._calls is not None:
            self._calls.close()
            self._calls = None

    async def push_layout(self, path: Path, name_tag: str) -> PushResult:
        """Push the image in the OCI layout `path` as `name_tag`; see lab/push.py."""
        calls = self._calls or Calls(RegistryConfig(insecure=frozenset({self.endpoint})))
        return await asyncio.to_thread(push_layout, calls, self.endpoint, path, name_tag)

    def _configuration(self) -> dict[str, object]:
        return {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(self.directory / "data")},
                "cache": {"blobdescriptor": "inmemory"},
                "delete": {"enabled": True},
                "maintenance": {"uploadpurging": {"enabled": False}},
            },
            "http": {"addr": self.endpoint, "secret": secrets.token_hex(16)},
            "health": {"storagedriver": {"enabled": False}},
        }

    async def _spawn(self, command: list[str]) -> None:
        setpriv = shutil.which("setpriv")
        tied = [setpriv, "--pdeathsig", "KILL", *command] if setpriv else command
        with (self.directory / "registry.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *tied, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, close_fds=True, cwd=self.directory
            )

    async def _answering(self) -> None:
        assert self._process is not None
        try:
            async with asyncio.timeout(_READY_S_MAX):
                while not await asyncio.to_thread(_is_answering, self.host, self.port):
                    if self._process.returncode is not None:
                        raise RegistryFailed(f"the lab's registry does not start at {self.endpoint}: {self._last_line()}")
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise RegistryFailed(f"the lab's registry does not answer at {self.endpoint}: {self._last_line()}") from None

    async def _watch(self, command: list[str]) -> None:
        for _ in range(_RESTARTS_MAX):
            assert self._process is not None
            await self._process.wait()
            await self._spawn(command)
            with contextlib.suppress(RegistryFailed):
                await self._answering()

    def _last_line(self) -> str:
        lines = (self.directory / "registry.log").read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it said nothing"


def _is_answering(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=2.0)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
