"""Certificates: making CAs, signing, reading. In memory only; controller/pki.py keeps them in files.

Rules: EC P-256 everywhere. CN is the name, OU the role. A daemon's certificate may act as server and as client, because a
daemon is both. What a CSR asks for is ignored except its public key: names and role come from us.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from model.errors import BadInput

CA_DAYS: Final = 3650
LEAF_DAYS: Final = 825
NODE_DAYS: Final = 3650
"""A node's certificate is refused as soon as its node document names another serial, so it may live long."""
CSR_BYTES_MAX: Final = 16_384
_BACKDATED: Final = dt.timedelta(hours=1)  # clocks of machines differ a little


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate with its key, both PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom a certificate names. `serial` is lower-case hex."""

    name: str
    role: str
    serial: str


class Authority:
    """A certificate authority with its key."""

    def __init__(self, pair: KeyPair) -> None:
        self.pem = pair.certificate
        self.certificate = x509.load_pem_x509_certificate(pair.certificate)
        key = serialization.load_pem_private_key(pair.key, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("the CA's key is not an elliptic curve key")
        self._key = key

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the certificate's DER: what join tokens pin."""
        return hashlib.sha256(self.certificate.public_bytes(serialization.Encoding.DER)).hexdigest()

    def secret(self) -> bytes:
        """What only they know who have its key, to derive other keys from; never to be written or sent."""
        return self._key.private_numbers().private_value.to_bytes(66, "big")

    def issue(self, name: str, role: str, sans: Sequence[str] = (), days: int = LEAF_DAYS) -> KeyPair:
        """A new key and its certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        return KeyPair(self._sign(key.public_key(), name, role, sans, days), _pem(key))

    def sign_csr(
        self, csr_pem: str, name: str, role: str, sans: Sequence[str], days: int = NODE_DAYS, *, serves_only: bool = False
    ) -> bytes:
        """PEM certificate for the CSR's key. Raises BadInput when the CSR is none or its signature is wrong.

        `serves_only`: it is good for a server, and not to call anybody with.
        """
        if len(csr_pem) > CSR_BYTES_MAX:
            raise BadInput(f"csr: longer than {CSR_BYTES_MAX} bytes: send one certificate signing request in PEM")
        try:
            csr = x509.load_pem_x509_csr(csr_pem.encode())
            valid = csr.is_signature_valid
            key = csr.public_key()
        except (ValueError, TypeError, InvalidSignature) as error:
            raise BadInput("csr: not a certificate signing request in PEM") from error
        if not valid or not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise BadInput("csr: its signature is wrong or its key is not EC P-256: make a new key and request")
        return self._sign(key, name, role, sans, days, serves_only)

    def _sign(
        self, key: ec.EllipticCurvePublicKey, name: str, role: str, sans: Sequence[str], days: int, serves_only: bool = False
    ) -> bytes:
        builder = _builder(_subject(name, role), self.certificate.subject, key, days)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_USAGE_LEAF, critical=True)
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, *([] if serves_only else [ExtendedKeyUsageOID.CLIENT_AUTH])]
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(identifier, critical=False)
        if sans:
            builder = builder.add_extension(x509.SubjectAlternativeName([_san(san) for san in sans]), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def new_authority(name: str) -> KeyPair:
    """A self-signed CA that may sign leaves only."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(name, "ca")
    builder = _builder(subject, subject, key.public_key(), CA_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_USAGE_CA, critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    return KeyPair(certificate.public_bytes(serialization.Encoding.PEM), _pem(key))


def read_peer(certificate: x509.Certificate) -> Peer:
    """Name, role and serial of a certificate that TLS has already verified."""
    return Peer(_attribute(certificate, NameOID.COMMON_NAME), _attribute(certificate, NameOID.ORGANIZATIONAL_UNIT_NAME),
                serial_of(certificate))  # fmt: skip


def serial_of(certificate: x509.Certificate) -> str:
    return f"{certificate.serial_number:x}"


def sans_of(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(name.value) for name in names}


def days_left(certificate: x509.Certificate, now: dt.datetime) -> float:
    return (certificate.not_valid_after_utc - now).total_seconds() / 86_400


def _attribute(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> str:
    values = certificate.subject.get_attributes_for_oid(oid)
    return str(values[0].value) if values else ""


def _subject(name: str, role: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role), x509.NameAttribute(NameOID.COMMON_NAME, name)]
    )


def _san(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number(), now - _BACKDATED,
                                      now + dt.timedelta(days=days))  # fmt: skip
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _usage(leaf: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=leaf, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=not leaf, crl_sign=not leaf, encipher_only=False, decipher_only=False,
    )  # fmt: skip


_USAGE_LEAF: Final = _usage(True)
_USAGE_CA: Final = _usage(False)
