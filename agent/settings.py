"""The agent's command line as a record.

Rules: argparse only, nothing heavy is imported. Every wrong value is one line.
"""

from __future__ import annotations

import argparse
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Settings:
    """`cpus` in cores and `memory_bytes`: 0 means detect. `listen`: host and port of the agent's gRPC service;
    `metrics`: of its metrics page, None: there is none."""

    data_dir: Path
    run_dir: Path
    name: str
    join: tuple[str, ...] = ()
    token: str = ""
    advertise: str = ""
    listen_host: str = "0.0.0.0"
    listen_port: int = 7445
    metrics: tuple[str, int] | None = None
    cpus: float = 0.0
    memory_bytes: int = 0
    labels: tuple[tuple[str, str], ...] = ()
    insecure: tuple[str, ...] = ()
    mirrors: tuple[tuple[str, str], ...] = ()
    registry_cas: tuple[tuple[str, str], ...] = ()
    cgroup_parent: str = "shoal"
    runtime: Literal["crun", "runc"] = "crun"
    log_level: str = "info"


def parse(argv: Sequence[str]) -> Settings:
    """Ends the process with a usage error (exit code 2) when the words make no sense."""
    parser = _parser()
    words = parser.parse_args(argv)
    name = words.name or socket.gethostname().split(".")[0].lower()
    data_dir = Path(words.data_dir).absolute()
    return Settings(
        data_dir=data_dir,
        run_dir=Path(words.run_dir).absolute() if words.run_dir else Path("/run/shoal") / name,
        name=name,
        join=tuple(url for item in words.join for url in item.split(",") if url),
        token=words.token,
        advertise=words.advertise,
        listen_host=words.listen[0],
        listen_port=words.listen[1],
        metrics=words.metrics,
        cpus=words.cpus,
        memory_bytes=words.memory,
        labels=tuple(words.label),
        insecure=tuple(words.insecure_registry),
        mirrors=tuple(words.registry_mirror),
        registry_cas=tuple(words.registry_ca),
        cgroup_parent=words.cgroup_parent,
        runtime=words.runtime,
        log_level=words.log_level,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("shoal agent", description="Run this node's containers.")
    add = parser.add_argument
    add("--data-dir", required=True, metavar="DIR", help="images, volumes, journal, keys")
    add("--run-dir", default="", metavar="DIR", help="sockets and bundles (default /run/shoal/NAME)")
    add("--join", action="append", default=[], metavar="URL", help="https://HOST:PORT of a controller (first start)")
    add("--token", default="", help="join token (first start)")
    add("--name", default="", metavar="NODE", help="this node's name (default: the host's name)")
    add("--advertise", type=_ipv4, default="", metavar="IP", help="address other nodes and controllers reach this node at")
    add("--listen", type=_host_port, default=("0.0.0.0", 7445), metavar="HOST:PORT")
    add("--metrics", type=_host_port, metavar="HOST:PORT", help="tell metrics there; over TLS unless loopback (default: no)")
    add("--cpus", type=_positive, default=0.0, metavar="N", help="cores to offer (default: detected)")
    add("--memory", type=_bytes, default=0, metavar="BYTES", help="memory to offer (default: detected)")
    add("--label", action="append", default=[], type=_pair, metavar="K=V", help="node label (first start)")
    add("--insecure-registry", action="append", default=[], metavar="HOST:PORT", help="speak plain http with it")
    add("--registry-mirror", action="append", default=[], type=_pair, metavar="FROM=TO", help="ask TO instead of FROM")
    add("--registry-ca", action="append", default=[], type=_ca, metavar="HOST:PORT=FILE", help="the CA of its certificate")
    add("--cgroup-parent", default="shoal", metavar="PATH")
    add("--runtime", choices=("crun", "runc"), default="crun")
    add("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    return parser


def _host_port(text: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if not separator or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r}: expected HOST:PORT")
    return host.strip("[]") or "0.0.0.0", int(port)


def _ca(text: str) -> tuple[str, str]:
    endpoint, file = _pair(text)
    try:
        ssl.create_default_context(cafile=file)
    except (OSError, ssl.SSLError) as error:
        raise argparse.ArgumentTypeError(f"{file}: no CA certificate can be read there ({error.strerror or error})") from None
    return endpoint, file


def _ipv4(text: str) -> str:
    """Other nodes' routes and rules are made of it: a name would be refused there, on all of them."""
    try:
        return str(IPv4Address(text)) if text else ""
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected an IPv4 address") from None


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0")
    return value


def _bytes(text: str) -> int:
    units = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
    digits = text.strip().lower().removesuffix("b").removesuffix("i")
    unit = digits[-1:] if digits[-1:].isalpha() else ""
    number = digits.removesuffix(unit) if unit else digits
    if unit not in units or not number.replace(".", "", 1).isdigit():
        raise argparse.ArgumentTypeError(f"{text!r}: expected bytes, or a number with K, M, G")
    return int(float(number) * units[unit])


def _pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=VALUE")
    return key, value
