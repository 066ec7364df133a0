"""How the controller's own etcd is started: its settings, and the command line as data. Pure.

Rules: only the controller's certificate is taken (client-cert-auth against a CA of its own); every port is on loopback; the
quota is explicit; old revisions go by themselves; progress notifications come often, so that a quiet watch does not fall
behind a compaction. The JSON gateway is off: it would be a second door, and it calls the first one with the server's own
certificate.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

ETCD: Final = "/usr/bin/etcd"
SETPRIV: Final = "/usr/bin/setpriv"
NAME: Final = "shoal"
QUOTA_BYTES: Final = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class EtcdFiles:
    """Certificate and key of the server, ours as its client, and the CA that signed each (it may be one and the same)."""

    server_ca: Path
    server_cert: Path
    server_key: Path
    client_ca: Path
    client_cert: Path
    client_key: Path


@dataclass(frozen=True, slots=True)
class EtcdSettings:
    """`data_dir` belongs to one controller alone; the database is in `data_dir/db`, log and pid file beside it."""

    data_dir: Path
    client_port: int
    peer_port: int
    files: EtcdFiles
    quota_bytes: int = QUOTA_BYTES
    compaction_retention: str = "5m"
    log_bytes_max: int = 4_000_000

    @property
    def endpoint(self) -> str:
        return f"https://127.0.0.1:{self.client_port}"

    @property
    def log_file(self) -> Path:
        return self.data_dir / "etcd.log"

    @property
    def pid_file(self) -> Path:
        return self.data_dir / "etcd.pid"

    @property
    def lock_file(self) -> Path:
        return self.data_dir / "lock"


def etcd_command(settings: EtcdSettings) -> list[str]:
    """The child is bound to our life: the kernel kills it when the thread that started it dies, even by SIGKILL."""
    peer = f"https://127.0.0.1:{settings.peer_port}"
    files = settings.files
    flags = {
        "name": NAME,
        "data-dir": settings.data_dir / "db",
        "listen-client-urls": settings.endpoint,
        "advertise-client-urls": settings.endpoint,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"{NAME}={peer}",
        "initial-cluster-state": "new",
        "heartbeat-interval": 50,  # alone it has no rival: a short election makes it ready sooner
        "election-timeout": 250,
        "client-cert-auth": "true",
        "trusted-ca-file": files.client_ca,
        "cert-file": files.server_cert,
        "key-file": files.server_key,
        "peer-client-cert-auth": "true",
        "peer-trusted-ca-file": files.client_ca,
        "peer-cert-file": files.server_cert,
        "peer-key-file": files.server_key,
        "quota-backend-bytes": settings.quota_bytes,
        "auto-compaction-mode": "periodic",
        "auto-compaction-retention": settings.compaction_retention,
        "snapshot-count": 10000,
        "experimental-watch-progress-notify-interval": "10s",
        "enable-v2": "false",
        "enable-grpc-gateway": "false",
        "logger": "zap",
        "log-level": "warn",
        "log-outputs": "stderr",
    }
    return [SETPRIV, "--pdeathsig", "KILL", ETCD, *(f"--{flag}={value}" for flag, value in flags.items())]


def etcd_environment(machine: str) -> dict[str, str]:
    """A clean one: etcd would take any ETCD_* variable as a flag. `machine`: as of `uname -m`."""
    environment = {"PATH": "/usr/bin:/bin"}
    if machine in ("aarch64", "arm64"):
        environment["ETCD_UNSUPPORTED_ARCH"] = "arm64"  # 3.4 refuses to start there without it
    return environment


def back_off_s(deaths: int) -> float:
    """Seconds to wait before the start after the n-th early death in a row."""
    return min(5.0, 0.1 * 2.0 ** min(deaths - 1, 10)) if deaths > 0 else 0.0
