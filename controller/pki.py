"""The controller's keys and certificates on disk: DIR/pki, DIR/admin.json and DIR/prometheus.

Rules: every file is written whole (temporary file, rename) with mode 0600 in a directory of mode 0700. A start makes what is
missing and renews what ends soon or does not carry this machine's names; it never replaces a CA. To run a second
controller copy `ca.pem` and `ca.key` into its DIR/pki: everything else is made there.
The etcd child has a CA of its own: no certificate of the cluster, of a node or of an operator, opens it.
"""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509

from controller.certificates import Authority, KeyPair, days_left, new_authority, read_peer, sans_of
from model.errors import ShoalError
from model.pki_names import CONTROLLER_SERVER_NAME, ROLE_CONTROLLER, ROLE_METRICS, ROLE_OPERATOR

RENEW_DAYS: Final = 90
LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "::1")


class PkiError(ShoalError):
    code = "pki"


@dataclass(frozen=True, slots=True)
class Pki:
    """What a running controller needs; paths are absolute."""

    directory: Path
    authority: Authority
    controller: KeyPair
    operator: KeyPair

    def path(self, name: str) -> Path:
        return self.directory / name


def ensure_pki(directory: Path, name: str, names: Sequence[str]) -> Pki:
    """Loads DIR/pki, makes what is missing. `names`: host names and addresses this controller is reached under."""
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory.chmod(0o700)
    ca = _authority(directory, "ca", "shoal cluster CA")
    sans = [CONTROLLER_SERVER_NAME, *LOCAL_NAMES, *names]
    controller = _leaf(directory, "controller", ca, name, ROLE_CONTROLLER, sans)
    operator = _leaf(directory, "operator", ca, "admin", ROLE_OPERATOR, ())
    return Pki(directory, ca, controller, operator)


def ensure_etcd_pki(pki: Pki) -> None:
    """The files of the own etcd: etcd-ca, etcd-server (the child's) and etcd-client (the controller's), .pem and .key."""
    ca = _authority(pki.directory, "etcd-ca", "shoal etcd CA")
    _leaf(pki.directory, "etcd-server", ca, "etcd", "etcd", LOCAL_NAMES)
    _leaf(pki.directory, "etcd-client", ca, "controller", ROLE_CONTROLLER, ())


def write_admin_context(path: Path, name: str, apis: Sequence[str], pki: Pki) -> None:
    """The CLI context of the cluster's first operator."""
    context = {
        "name": name,
        "apis": list(apis),
        "ca": pki.authority.pem.decode(),
        "certificate": pki.operator.certificate.decode(),
        "key": pki.operator.key.decode(),
    }
    write_private(path, json.dumps(context, indent=2).encode() + b"\n")


def write_prometheus_files(directory: Path, pki: Pki) -> None:
    """What a Prometheus needs to read every metric and nothing else: `ca.pem`, `metrics.pem` and `metrics.key`."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(directory / "ca.pem", pki.authority.pem)
    _leaf(directory, "metrics", pki.authority, "metrics", ROLE_METRICS, ())


def write_private(path: Path, data: bytes) -> None:
    """Replaces `path` as a whole; nobody but the owner can ever read it. Unchanged content is not written again."""
    if path.exists() and path.read_bytes() == data:
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _authority(directory: Path, stem: str, name: str) -> Authority:
    pair = _read(directory, stem)
    if pair is None:
        if (directory / f"{stem}.pem").exists() or (directory / f"{stem}.key").exists():
            raise PkiError(f"{directory}: {stem}.pem or {stem}.key is missing: put back both, or remove both to begin anew")
        pair = new_authority(name)
        _write(directory, stem, pair)
    try:
        return Authority(pair)
    except ValueError as error:
        raise PkiError(f"{directory}/{stem}.pem or .key cannot be read: {error}") from error


def _leaf(directory: Path, stem: str, ca: Authority, name: str, role: str, sans: Sequence[str]) -> KeyPair:
    pair = _read(directory, stem)
    if pair is None or not _good(pair, ca, name, role, sans):
        pair = ca.issue(name, role, list(dict.fromkeys(sans)))
        _write(directory, stem, pair)
    return pair


def _good(pair: KeyPair, ca: Authority, name: str, role: str, sans: Sequence[str]) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(pair.certificate)
        certificate.verify_directly_issued_by(ca.certificate)
    except Exception:  # whatever is wrong with it, a new one is the answer
        return False
    peer = read_peer(certificate)
    wanted = set(sans)
    return (
        (peer.name, peer.role) == (name, role)
        and wanted <= sans_of(certificate)
        and days_left(certificate, dt.datetime.now(dt.UTC)) > RENEW_DAYS
    )


def _read(directory: Path, stem: str) -> KeyPair | None:
    try:
        return KeyPair((directory / f"{stem}.pem").read_bytes(), (directory / f"{stem}.key").read_bytes())
    except FileNotFoundError:
        return None


def _write(directory: Path, stem: str, pair: KeyPair) -> None:
    write_private(directory / f"{stem}.key", pair.key)
    write_private(directory / f"{stem}.pem", pair.certificate)
