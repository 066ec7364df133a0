"""A whole control plane on loopback, as an installation has it: etcd, controllers (`python -m shoal controller`), light agents.

Rules: everything is in one temporary folder and dies with this process, also when that is killed (parent-death signals). The
nodes' documents are written straight into the store, with certificates of the cluster's CA: 5,000 joins over HTTPS are not what
is measured.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography import x509

from controller.certificates import Authority
from controller.clock import RealClock
from controller.pki import Pki, ensure_etcd_pki, ensure_pki
from controller.store.etcd import EtcdStore
from controller.store.etcd_command import EtcdFiles, EtcdSettings
from controller.store.supervisor import EtcdProcess, free_port
from model import codec
from model.documents import NodeDoc, key
from model.pki_names import ROLE_NODE
from model.store_port import Put

ROOT: Final = Path(__file__).resolve().parents[2]
BOUND: Final = ("/usr/bin/setpriv", "--pdeathsig", "KILL")
TXN_NODES: Final = 100
DEADLINE_S: Final = 300.0
"""On a busy machine the lead may be lost, and a new leader takes in thousands of sessions first; the figures tell it."""
Row = tuple[str, str, str]
"""name, certificate, key of a node"""


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder; a child of its own takes it away even when we are killed."""
    path = Path(tempfile.mkdtemp(prefix="shoal-bench-cp-"))
    reader, writer = os.pipe()
    command = ["/bin/sh", "-c", 'read -r _; sleep 1; rm -rf -- "$1"', "sh", str(path)]
    cleaner = subprocess.Popen(command, stdin=reader, start_new_session=True)
    os.close(reader)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(writer)
        cleaner.kill()
        cleaner.wait()


def until(probe: Callable[[], Any], what: str, every_s: float = 0.05, within_s: float = DEADLINE_S) -> Any:
    """The first truthy answer."""
    end = time.monotonic() + within_s
    while not (found := probe()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {within_s:g} s")
        time.sleep(every_s)
    return found


def cpu_s(pid: int) -> float:
    """What the process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Etcd:
    """The controller's own kind of etcd, but alone: it has to outlive a killed controller."""

    def __init__(self, path: Path, pki: Pki) -> None:
        ensure_etcd_pki(pki)
        self._pki = pki
        stems = [str(pki.path(stem)) for stem in ("etcd-ca", "etcd-server", "etcd-client")]
        ca, server, client = stems
        names = (f"{ca}.pem", f"{server}.pem", f"{server}.key", f"{ca}.pem", f"{client}.pem", f"{client}.key")
        settings = EtcdSettings(path, free_port(), free_port(), EtcdFiles(*map(Path, names)))
        self.process = EtcdProcess(settings, RealClock())
        self.flags = (
            "--etcd", settings.endpoint, "--etcd-cacert", names[3], "--etcd-cert", names[4], "--etcd-key", names[5],
        )  # fmt: skip
        self._tls = ssl.create_default_context(cafile=names[3])
        self._tls.load_cert_chain(names[4], names[5])
        self._port = settings.client_port

    def cpu_s(self) -> float:
        return cpu_s(self.process.pid)

    def counters(self) -> dict[str, float]:
        """Since etcd's start: `txns` (that a client asked for), `bytes` (that clients sent), `db_bytes`."""
        with contextlib.closing(http.client.HTTPSConnection("127.0.0.1", self._port, context=self._tls)) as connection:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        return {
            "txns": _metric(text, 'grpc_server_started_total{grpc_method="Txn",[^}]*}'),
            "bytes": _metric(text, "etcd_network_client_grpc_received_bytes_total"),
            "db_bytes": _metric(text, "etcd_mvcc_db_total_size_in_bytes"),
        }


def _metric(text: str, name: str) -> float:
    return sum(map(float, re.findall(rf"^{name} (\S+)$", text, re.MULTILINE)))


class Process:
    """One child, and what /proc says of it."""

    def __init__(self, command: Sequence[str], log: Path, **environment: str) -> None:
        with log.open("ab") as file:
            self.child = subprocess.Popen(
                [*BOUND, *command], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file,
                env={**os.environ, **environment},
            )  # fmt: skip
        self.log = log

    def check(self) -> None:
        if self.child.poll() is not None:
            raise RuntimeError(f"{self.log.name} ended with {self.child.returncode}: {self.log.read_text()[-2000:]}")

    def cpu_s(self) -> float:
        return cpu_s(self.child.pid)

    def rss_mb(self, peak: bool = False) -> float:
        """Now, or the most since `forget_peak`."""
        text = Path(f"/proc/{self.child.pid}/status").read_text()
        found = re.search(rf"^{'VmHWM' if peak else 'VmRSS'}:\s+(\d+)", text, re.MULTILINE)
        return int(found[1]) / 1024 if found else 0.0

    def forget_peak(self) -> None:
        Path(f"/proc/{self.child.pid}/clear_refs").write_text("5")

    def stop(self, by: int = signal.SIGTERM) -> None:
        self.child.send_signal(by)
        try:
            self.child.wait(20)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        for pipe in (self.child.stdin, self.child.stdout):
            if pipe is not None:
                pipe.close()


class Controller(Process):
    """`shoal controller` in a folder of its own, with the cluster's CA."""

    def __init__(self, path: Path, pki: Pki, name: str, flags: Sequence[str], profile: Path | None = None) -> None:
        (path / "pki").mkdir(parents=True)
        for file in ("ca.pem", "ca.key"):
            shutil.copy(pki.path(file), path / "pki" / file)
        start = ["-m", "shoal", "controller"] if profile is None else ["-m", "bench.control_plane_kit.profiled", str(profile)]
        command = [
            sys.executable, *start, "--data-dir", str(path), "--api", "127.0.0.1:0", "--dispatch", "127.0.0.1:0",
            "--advertise", "127.0.0.1", "--name", name, *flags,
        ]  # fmt: skip
        self._context = path / "admin.json"
        super().__init__(command, path / "controller.log")

    def up(self) -> bool:
        self.check()
        with contextlib.suppress(OSError):
            return self._context.exists() and self.call("GET", "/healthz")[0] == 200
        return False

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """As the command line asks."""
        context = json.loads(self._context.read_text())
        url = urlsplit(context["apis"][0])
        tls = ssl.create_default_context(cadata=context["ca"])
        with tempfile.NamedTemporaryFile("w", dir=self._context.parent, suffix=".pem") as file:
            file.write(context["certificate"] + context["key"])
            file.flush()
            tls.load_cert_chain(file.name)
        host = url.hostname or ""
        with contextlib.closing(http.client.HTTPSConnection(host, url.port, context=tls, timeout=120)) as connection:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            data = response.read()
        kind = response.getheader("content-type") or ""
        return response.status, json.loads(data) if kind.startswith("application/json") else data.decode()

    def ok(self, method: str, path: str, body: Any = None) -> Any:
        status, answer = self.call(method, path, body)
        if status != 200:
            raise RuntimeError(f"{method} {path}: {status} {answer}")
        return answer


class Agents(Process):
    """A process of light agents."""

    def __init__(self, path: Path, rows: Sequence[Row], ca: str, controllers: Sequence[str], seed: int) -> None:
        path.mkdir()
        for name, certificate, private in rows:
            (path / f"{name}.pem").write_text(certificate + private)
        named = [(name, str(path / f"{name}.pem")) for name, _, _ in rows]
        file = path / "agents.json"
        file.write_text(json.dumps({"ca": ca, "controllers": list(controllers), "seed": seed, "agents": named}))
        super().__init__([sys.executable, "-m", "bench.control_plane_kit.agents", str(file)], path / "agents.log")

    def ask(self, command: str) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write(command.encode() + b"\n")
        self.child.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        if not line:
            self.child.wait()
            self.check()
        found: dict[str, Any] = json.loads(line)
        return found


def certificates(authority: Authority, count: int) -> tuple[list[Row], list[NodeDoc]]:
    """Of `count` nodes, and their documents."""
    rows, documents = [], []
    for number in range(count):
        name = f"node{number:05}"
        pair = authority.issue(name, ROLE_NODE)
        serial = x509.load_pem_x509_certificate(pair.certificate).serial_number
        rows.append((name, pair.certificate.decode(), pair.key.decode()))
        documents.append(NodeDoc(name, f"id-{name}", f"{serial:x}"))
    return rows, documents


async def register(store: EtcdStore, documents: Sequence[NodeDoc]) -> None:
    for start in range(0, len(documents), TXN_NODES):
        run = documents[start : start + TXN_NODES]
        await store.txn([], [Put(key("nodes", document.name), codec.encode(document)) for document in run])


def cluster_pki(path: Path) -> Pki:
    return ensure_pki(path, "bench", ["127.0.0.1"])
