"""The node's own key and certificates for both of its wires, and who may call it.

Rules: the private key is 0600 and never leaves the node. A caller is judged by the role (OU) in the certificate that TLS has
verified, never by what it says.
"""

from __future__ import annotations

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


@lru_cache(maxsize=32)
def role_of(certificate_pem: bytes) -> str:
    """The OU of a certificate; empty when it has none."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    units = x509.load_pem_x509_certificate(certificate_pem).subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    return str(units[0].value) if units else ""
