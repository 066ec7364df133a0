"""Credentials for registries as they stand in the store: sealed with a key that only the cluster's controllers have.

Rules: the key is derived from the cluster CA's private key, which every controller has on its disk and etcd never sees. The
same credentials of the same service are sealed alike, so that applying them again changes nothing (AES-SIV, RFC 5297); another
service's seal, or one of another cluster, does not open. What does not open is as if it were not there.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_KEY_BYTES: Final = 64
"""Two keys of AES-256."""
_BLOCK_BYTES: Final = 128
"""How long they are is not told either."""
_INFO: Final = b"shoal registry credentials 1"
_MARK: Final = "siv1:"


@dataclass(frozen=True, slots=True)
class Login:
    username: str
    password: str = field(repr=False)


class Seals(Protocol):
    def seal(self, service_id: str, login: Login) -> str:
        """A text that tells nothing of them."""

    def open(self, service_id: str, text: str) -> Login | None:
        """None: it was not sealed here for this service, or was changed since."""


class Sealing:
    """`secret`: what only controllers of the cluster know, the same on all of them."""

    def __init__(self, secret: bytes) -> None:
        key = HKDF(algorithm=hashes.SHA256(), length=_KEY_BYTES, salt=None, info=_INFO).derive(secret)
        self._cipher = AESSIV(key)

    def seal(self, service_id: str, login: Login) -> str:
        plain = json.dumps([login.username, login.password]).encode()
        plain = plain.ljust(-(-len(plain) // _BLOCK_BYTES) * _BLOCK_BYTES)
        return _MARK + base64.b64encode(self._cipher.encrypt(plain, [service_id.encode()])).decode()

    def open(self, service_id: str, text: str) -> Login | None:
        if not text.startswith(_MARK):
            return None
        try:
            data = base64.b64decode(text.removeprefix(_MARK), validate=True)
            username, password = json.loads(self._cipher.decrypt(data, [service_id.encode()]))
        except (InvalidTag, ValueError):
            return None
        return Login(username, password)


class NoSeals:
    """Of a controller without keys (tests, the simulation): credentials are not kept."""

    def seal(self, service_id: str, login: Login) -> str:
        return ""

    def open(self, service_id: str, text: str) -> Login | None:
        return None
