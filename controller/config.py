"""The controller's settings and its command line."""

from __future__ import annotations

import argparse
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urlsplit

from model.autoscale_check import url_problem
from model.errors import BadInput

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


@dataclass(frozen=True, slots=True)
class Config:
    """`etcd` empty: an own etcd in DATA_DIR/etcd. Ports of 0: free ones are chosen."""

    data_dir: Path
    api: tuple[str, int] = ("0.0.0.0", 7443)
    dispatch: tuple[str, int] = ("0.0.0.0", 7444)
    advertise: str = "127.0.0.1"
    name: str = "controller"
    node_timeout_s: float = 10.0
    etcd: tuple[str, ...] = ()
    etcd_cacert: Path | None = None
    etcd_cert: Path | None = None
    etcd_key: Path | None = None
    pool: str = "10.0.0.0/8"
    prometheus: str = ""
    scale_every_s: float = 5.0
    lab_socket: str = ""
    log_level: str = "info"


def parse(argv: Sequence[str]) -> Config:
    """Exits with argparse's own message on a wrong flag. Raises BadInput on a wrong value."""
    parser = argparse.ArgumentParser(prog="shoal controller", description="The control plane of a shoal cluster.")
    parser.add_argument("--data-dir", required=True, type=Path, metavar="DIR")
    parser.add_argument("--api", default="0.0.0.0:7443", metavar="HOST:PORT", help="HTTPS for people and tools")
    parser.add_argument("--dispatch", default="0.0.0.0:7444", metavar="HOST:PORT", help="gRPC for agents")
    parser.add_argument("--advertise", default="", metavar="HOST", help="how others reach this machine")
    parser.add_argument("--name", default="", help="this controller's name (default: the host's)")
    parser.add_argument("--node-timeout", default="10s", metavar="TIME", help="silence after which a node is down")
    parser.add_argument("--etcd", default="", metavar="URL,...", help="an existing etcd instead of an own one")
    parser.add_argument("--etcd-cacert", type=Path, metavar="FILE")
    parser.add_argument("--etcd-cert", type=Path, metavar="FILE")
    parser.add_argument("--etcd-key", type=Path, metavar="FILE")
    parser.add_argument("--pool", default="10.0.0.0/8", metavar="CIDR", help="where networks get their subnets from")
    parser.add_argument("--prometheus", default="", metavar="URL", help="who is asked for metrics of policies in PromQL")
    parser.add_argument("--scale-every", default="5s", metavar="TIME", help="how often the autoscaler looks at a service")
    parser.add_argument("--lab-socket", default="", metavar="FILE", help="in a lab: who makes machines for node groups")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    flags = parser.parse_args(argv)
    etcd = tuple(url.strip() for url in flags.etcd.split(",") if url.strip())
    _check_etcd(etcd, (flags.etcd_cacert, flags.etcd_cert, flags.etcd_key))
    return Config(
        data_dir=flags.data_dir.absolute(),
        api=host_port("--api", flags.api),
        dispatch=host_port("--dispatch", flags.dispatch),
        advertise=flags.advertise or own_address(flags.api),
        name=flags.name or socket.gethostname(),
        node_timeout_s=duration_s("--node-timeout", flags.node_timeout),
        etcd=etcd,
        etcd_cacert=flags.etcd_cacert,
        etcd_cert=flags.etcd_cert,
        etcd_key=flags.etcd_key,
        pool=_pool(flags.pool),
        prometheus=_prometheus(flags.prometheus),
        scale_every_s=duration_s("--scale-every", flags.scale_every),
        lab_socket=flags.lab_socket,
        log_level=flags.log_level,
    )


def _check_etcd(urls: Sequence[str], files: Sequence[Path | None]) -> None:
    """The store holds everything: over a wire it is spoken to with mutual TLS only."""
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise BadInput(f"--etcd {url!r}: expected URLs such as https://10.0.0.1:2379")
        if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
            raise BadInput(f"--etcd {url}: not encrypted: use https, with --etcd-cacert, --etcd-cert and --etcd-key")
        if parts.scheme == "https" and None in files:
            raise BadInput(f"--etcd {url}: needs --etcd-cacert, --etcd-cert and --etcd-key")
    if not urls and any(files):
        raise BadInput("--etcd-cacert, --etcd-cert and --etcd-key go with --etcd")


def host_port(flag: str, text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdigit() or int(port) > 65535:
        raise BadInput(f"{flag} {text!r}: expected HOST:PORT")
    return host, int(port)


def duration_s(flag: str, text: str) -> float:
    found = _DURATION.fullmatch(text)
    seconds = float(found[1]) * _UNITS[found[2] or ""] if found else 0.0
    if not 0.5 <= seconds <= 86_400:
        raise BadInput(f"{flag} {text!r}: expected a time from 500ms to 24h, such as 10s")
    return seconds


def join_host(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def own_address(listen: str) -> str:
    """The address in `listen` when it is a real one, else that of the default route (nothing is sent)."""
    host = listen.rpartition(":")[0].removeprefix("[").removesuffix("]")
    if host not in ("", "0.0.0.0", "::"):
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def _prometheus(url: str) -> str:
    if url and (problem := url_problem(url)):
        raise BadInput(f"--prometheus: {problem}")
    return url


def _pool(text: str) -> str:
    try:
        pool = ip_network(text, strict=True)
    except ValueError as error:
        raise BadInput(f"--pool {text!r}: {error}") from None
    if pool.version != 4 or pool.prefixlen > 20:
        raise BadInput(f"--pool {text!r}: expected an IPv4 network of /20 or larger")
    return str(pool)
