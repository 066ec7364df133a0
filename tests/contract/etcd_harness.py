"""Real etcd members for the contract tests, and a TCP proxy to cut them off with.

Rules: every member has its own temporary folder and free ports, and dies with the test process even when that is killed
(setpriv sets the parent-death signal before etcd is executed). Nothing here sleeps to let time pass: it waits for a condition.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import trustme

from controller.store.etcd_channel import EtcdTarget

ETCD = "/usr/bin/etcd"
DEADLINE_S = 30.0


PORTS = range(21000, 32000)
"""Below the range that outgoing connections take their ports from."""


def free_port() -> int:
    for _ in range(200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", secrets.choice(PORTS)))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise AssertionError("no free port")


def own_folder() -> Path:
    """A temporary folder of this process; those of processes that were killed are removed."""
    for old in Path(tempfile.gettempdir()).glob("shoal-test-etcd-*"):
        owner = old.name.split("-")[3]
        if owner.isdigit() and not Path("/proc", owner).exists():
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"shoal-test-etcd-{os.getpid()}-"))


@dataclass(frozen=True)
class Certificates:
    """One CA and one certificate for 127.0.0.1, good for server, peer and client."""

    ca: Path
    cert: Path
    key: Path

    @staticmethod
    def make(folder: Path, name: str = "only") -> Certificates:
        folder.mkdir(parents=True, exist_ok=True)
        ca = trustme.CA()
        issued = ca.issue_cert("127.0.0.1", "localhost")
        made = Certificates(folder / f"{name}-ca.pem", folder / f"{name}.pem", folder / f"{name}.key")
        ca.cert_pem.write_to_path(made.ca)
        made.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(made.key)
        return made


class Member:
    """One etcd process."""

    def __init__(self, folder: Path, name: str, flags: Sequence[str] = (), tls: Certificates | None = None) -> None:
        self.folder, self.name, self.tls = folder, name, tls
        self.client_port, self.peer_port = free_port(), free_port()
        self.flags = tuple(flags)
        self.scheme = "https" if tls else "http"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.client_port}"

    @property
    def peer(self) -> str:
        return f"{self.name}=http://127.0.0.1:{self.peer_port}"

    def start(self, cluster: str = "") -> None:
        peer = f"http://127.0.0.1:{self.peer_port}"
        secured: tuple[str, ...] = ()
        if self.tls:
            secured = (
                "--client-cert-auth",
                f"--trusted-ca-file={self.tls.ca}",
                f"--cert-file={self.tls.cert}",
                f"--key-file={self.tls.key}",
            )
        log = (self.folder / f"{self.name}.log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL", ETCD),
                    *(
                        "--name",
                        self.name,
                        "--data-dir",
                        str(self.folder / self.name),
                        "--logger",
                        "zap",
                        "--log-level",
                        "warn",
                    ),
                    *("--listen-client-urls", self.endpoint, "--advertise-client-urls", self.endpoint),
                    *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                    *("--initial-cluster", cluster or self.peer, "--heartbeat-interval", "50", "--election-timeout", "500"),
                    *secured,
                    *self.flags,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self, number: int = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.process.wait(DEADLINE_S)
        while (
            number == signal.SIGSTOP and Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T"
        ):
            pass

    @property
    def log(self) -> str:
        return (self.folder / f"{self.name}.log").read_text()

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()

    def etcdctl(self, *words: str, user: str = "", member_only: bool = True) -> str:
        command = ["etcdctl", "--endpoints", self.endpoint]
        if user:
            command += ["--user", user]
        if self.tls:
            command += ["--cacert", str(self.tls.ca), "--cert", str(self.tls.cert), "--key", str(self.tls.key)]
        done = subprocess.run(
            [*command, *words],
            env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
        assert done.returncode == 0, f"etcdctl {words}: {done.stderr}"
        return done.stdout


class Cluster:
    """One etcd, or several that form a cluster. A context manager."""

    def __init__(self, members: int = 1, *, flags: Sequence[str] = (), tls: bool = False) -> None:
        self.folder = own_folder()
        self.tls = Certificates.make(self.folder / "certs") if tls else None
        self.members = [Member(self.folder, f"m{number}", flags, self.tls) for number in range(members)]

    def __enter__(self) -> Cluster:
        for member in self.members:
            member.start(self.initial)
        for member in self.members:
            wait_healthy(member)
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            member.end()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def initial(self) -> str:
        return ",".join(member.peer for member in self.members)

    def restart(self, member: Member) -> None:
        member.start(self.initial)

    def target(self, *members: Member, **more: object) -> EtcdTarget:
        chosen = members or tuple(self.members)
        return target_of([member.endpoint for member in chosen], self.tls, **more)

    def leader(self) -> Member:
        """The member that leads; asks every living member."""
        for member in self.members:
            if member.process is not None and member.process.poll() is None:
                status = member.etcdctl("endpoint", "status", "-w", "fields")
                fields = dict(line.split(" : ", 1) for line in status.splitlines() if " : " in line)
                if fields['"MemberID"'] == fields['"Leader"']:
                    return member
        raise AssertionError("no leader")


def target_of(endpoints: Sequence[str], tls: Certificates | None = None, **more: object) -> EtcdTarget:
    files = {"ca_file": tls.ca, "cert_file": tls.cert, "key_file": tls.key} if tls else {}
    return EtcdTarget(tuple(endpoints), **files, **more)  # type: ignore[arg-type]


def wait_healthy(member: Member) -> None:
    """Waits until the member answers a linearizable read; fails with its log."""
    assert member.process is not None
    command = ["etcdctl", "--endpoints", member.endpoint, "--dial-timeout", "20s", "--command-timeout", "20s", "get", "x"]
    if member.tls:
        command += ["--cacert", str(member.tls.ca), "--cert", str(member.tls.cert), "--key", str(member.tls.key)]
    done = subprocess.run(command, env={"ETCDCTL_API": "3"}, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, f"{member.name} did not become healthy: {done.stderr}\n{member.log[-2000:]}"


class Proxy:
    """A TCP proxy before one port. `cut()` ends every connection; `cut_at(n)` ends the next one after n bytes of answers;
    `mute` keeps answers back (the request arrives, the answer never does)."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.mute = False
        self.cuts = 0
        self._to = port
        self._limits: list[int] = []
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut_at(self, *answer_bytes: int) -> None:
        self._limits.extend(answer_bytes)

    def cut(self) -> None:
        self.cuts += 1
        for writer in tuple(self._open):
            writer.transport.abort()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        pair = [writer]
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._to)
            pair.append(up_writer)
            self._open.add(up_writer)
            limit = self._limits.pop(0) if self._limits else 0
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, up_writer, 0, False))
                both.create_task(self._pump(up_reader, writer, limit, True))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            for one in pair:
                self._open.discard(one)
                one.transport.abort()
            self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int, answers: bool) -> None:
        passed = 0
        while data := await reader.read(16384):
            if answers and self.mute:
                continue
            passed += len(data)
            writer.write(data)
            await writer.drain()
            if limit and passed >= limit:
                self.cuts += 1
                raise ConnectionResetError
        raise ConnectionResetError


@contextlib.asynccontextmanager
async def proxied(member: Member) -> AsyncIterator[Proxy]:
    proxy = await Proxy(member.client_port).start()
    try:
        yield proxy
    finally:
        await proxy.stop()


async def eventually(check: Callable[[], bool], what: str, within_s: float = DEADLINE_S) -> None:
    """Waits until `check()` is true; the pause only yields the loop to what is waited for."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while not check():
        assert loop.time() < deadline, f"not in {within_s} s: {what}"
        await asyncio.sleep(0.01)
