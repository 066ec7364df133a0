"""TLS of a registry of one's own: a certificate of the cluster's CA, or one's own; its key is in its volume and nowhere else.

Rules: a key is made on this machine, handed to the running registry over the cluster's own TLS (as `shoal exec` does), and kept
by nobody else: it stands in no document, in no variable and in no `inspect`. The certificate is public and stands beside the
service. Whoever may run commands in the registry, or is root on its node, can read the key.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cli.registry_project import KEYS, key_file
from model.errors import BadInput, RuntimeFailed

if TYPE_CHECKING:
    from cryptography import x509

    from cli.client import Client

RENEW_DAYS: Final = 90
KEY_BYTES_MAX: Final = 32_768
LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "::1")
_HAND_OVER: Final = f'umask 077; mkdir -p {KEYS}; cat >{KEYS}/.new; [ -s {KEYS}/.new ]; mv {KEYS}/.new "$1"'
_FORGET: Final = f'for file in {KEYS}/*.key; do [ "$file" = "$1" ] || rm -f "$file"; done'


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with what follows it in its chain, and its key, PEM."""

    certificate: str
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Told:
    """What a certificate says of itself."""

    names: tuple[str, ...]
    until: dt.datetime


def names_of(nodes: Iterable[Any], more: Sequence[str]) -> list[str]:
    """What a registry of these nodes (the API's rows) is called: a published port answers on each of them."""
    found = [name for node in nodes for name in (node["name"], node["address"]) if name]
    return list(dict.fromkeys([*LOCAL_NAMES, *found, *more]))


def told(certificate: str) -> Told:
    """Raises BadInput when it is none."""
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificate(certificate.encode())
        names: x509.SubjectAlternativeName | list[Any]
        try:
            names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            names = []
        return Told(tuple(str(name.value) for name in names), found.not_valid_after_utc)
    except ValueError as error:
        raise BadInput(f"this is no certificate in PEM: {error}") from None


def why_new(certificate: str, ca: str, names: Iterable[str], now: dt.datetime) -> str:
    """Why this certificate of the cluster's CA (PEM) will not do any more; empty: it does."""
    if not certificate:
        return "there is none"
    if not _is_of(certificate, ca):
        return "it is of another CA"
    found = told(certificate)
    if missing := sorted(set(names) - set(found.names)):
        return f"it lacks {missing[0]}"
    return f"it ends on {found.until:%Y-%m-%d}" if found.until - now < dt.timedelta(days=RENEW_DAYS) else ""


def is_own(certificate: str, ca: str) -> bool:
    """Whether it is not of the cluster's CA."""
    return bool(certificate) and not _is_of(certificate, ca)


def issued(client: Client, name: str, names: Sequence[str]) -> Pair:
    """A new key, and the controller's certificate for it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    text = csr.public_bytes(serialization.Encoding.PEM).decode()
    made = client.post("/v1/registry-certificates", {"csr": text, "name": name, "names": list(names)})
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Pair(made["certificate"], private)


def own(certificate_file: str, key_file_: str) -> Pair:
    """One's own, from files. Raises BadInput when they cannot be read or do not fit."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    try:
        certificate, key = Path(certificate_file).read_bytes(), Path(key_file_).read_bytes()
    except OSError as error:
        raise BadInput(f"{error.filename}: {(error.strerror or str(error)).lower()}") from None
    try:
        found = x509.load_pem_x509_certificate(certificate)
    except ValueError:
        raise BadInput(f"{certificate_file}: this is no certificate in PEM") from None
    try:
        private = serialization.load_pem_private_key(key, None)
    except (ValueError, TypeError):
        raise BadInput(f"{key_file_}: this is no private key in PEM without a passphrase") from None
    if len(key) > KEY_BYTES_MAX:
        raise BadInput(f"{key_file_}: longer than {KEY_BYTES_MAX} bytes: one private key is expected")
    if _public(private.public_key()) != _public(found.public_key()):
        raise BadInput(f"{key_file_}: this is not the key of the certificate in {certificate_file}")
    return Pair(certificate.decode("ascii", "replace").strip(), key)


def hand_over(client: Client, replica: str, pair: Pair) -> None:
    """Give the running registry its key: it has waited for it."""
    if _run(client, replica, ["/bin/sh", "-ec", _HAND_OVER, "sh", key_file(pair.certificate)], pair.key):
        raise RuntimeFailed(f"{replica}: its key cannot be written into its volume: see `shoal logs {replica}`")


def has_key(client: Client, replica: str, certificate: str) -> bool:
    return _run(client, replica, ["/bin/sh", "-c", 'test -s "$1"', "sh", key_file(certificate)]) == 0


def forget_others(client: Client, replica: str, certificate: str) -> None:
    """Keys of certificates that it has no more."""
    _run(client, replica, ["/bin/sh", "-c", _FORGET, "sh", key_file(certificate)])


def _run(client: Client, replica: str, words: list[str], stdin: bytes = b"") -> int:
    from cli.terminal import fed

    return fed(client.context, f"/v1/replicas/{replica}/exec", stdin, cmd=words)


def _is_of(certificate: str, ca: str) -> bool:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    try:
        authority = x509.load_pem_x509_certificate(ca.encode())
        x509.load_pem_x509_certificate(certificate.encode()).verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _public(key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return bytes(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))
