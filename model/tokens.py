"""Join tokens: `SHOAL-1-<sha256 hex of the CA certificate's DER>-<id>-<secret>`.

Rules: the token pins the cluster CA, so a machine that joins needs to trust nobody on the way. The secret is never logged or
stored; the store holds its SHA-256.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

from model.errors import BadInput

_TOKEN = re.compile(r"SHOAL-1-([0-9a-f]{64})-([0-9a-z]{1,32})-([0-9A-Za-z_]{16,128})")


@dataclass(frozen=True, slots=True)
class Token:
    """`ca_sha256`: hex; `id`: the public half, names the token document; `secret`: the private half."""

    ca_sha256: str
    id: str
    secret: str = field(repr=False)

    def text(self) -> str:
        return f"SHOAL-1-{self.ca_sha256}-{self.id}-{self.secret}"

    def secret_sha256(self) -> str:
        """What the store keeps of the secret."""
        return hashlib.sha256(self.secret.encode()).hexdigest()


def parse_token(text: str) -> Token:
    """Raises BadInput, without repeating the secret."""
    found = _TOKEN.fullmatch(text.strip())
    if not found:
        raise BadInput("this is not a join token (SHOAL-1-...): make one with `shoal node token`")
    return Token(*found.groups())
