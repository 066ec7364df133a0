"""The node's own key and certificates for both of its wires, and who may call it.

Rules: the private key is 0600 and never leaves the node. A caller is judged by the role (OU) in the certificate that TLS has
verified, never by what it says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import grpc


@dataclass(frozen=True, slots=True)
class NodePki:
    """PEM bytes of DIR/pki."""

    ca: bytes
    certificate: bytes
    key: bytes

    def client(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)

    def server(self) -> grpc.ServerCredentials:
        return grpc.ssl_server_credentials([(self.key, self.certificate)], self.ca, require_client_auth=True)


def load_pki(data_dir: Path) -> NodePki:
    folder = data_dir / "pki"
    return NodePki(*((folder / name).read_bytes() for name in ("ca.pem", "node.pem", "node.key")))


def caller_role(auth_context: Mapping[str, Iterable[bytes]]) -> str:
    """The role of the certificate TLS has verified for this call; empty without one.

    gRPC gives the subject as text (RFC 2253). Where it does not, the certificate is read, which loads a large library.
    """
    subject = next(iter(auth_context.get("x509_subject", ())), b"")
    if subject:
        return role_in_subject(subject.decode("utf-8", "replace"))
    pem = next(iter(auth_context.get("x509_pem_cert", ())), b"")
    return role_of(pem) if pem else ""


def role_in_subject(subject: str) -> str:
    """The OU of a subject like `CN=c1,OU=controller`; empty unless there is exactly one. A backslash escapes a separator."""
    units = [part[3:] for part in re.split(r"(?<!\\)[,+]", subject) if part.startswith("OU=")]
    return units[0] if len(units) == 1 and "\\" not in subject else ""


@lru_cache(maxsize=32)
def role_of(certificate_pem: bytes) -> str:
    """The OU of a certificate; empty when it has none."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    units = x509.load_pem_x509_certificate(certificate_pem).subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    return str(units[0].value) if units else ""
