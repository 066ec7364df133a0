"""What a failed gRPC call to etcd means. Pure: status code and text in, verdict out.

Rule: only what is KNOWN to have been refused before it was proposed counts as "not written". etcd's texts are part of its
API (v3rpc/rpctypes/error.go); everything else that fails after sending is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from model.store_port import (
    StoreCompacted,
    StoreDenied,
    StoreError,
    StoreFull,
    StoreInvalid,
    StoreLeaseLost,
    StoreTooLarge,
)


class Kind(Enum):
    NOT_DONE = "not_done"
    """Surely without effect: another endpoint may be asked, for a write too."""
    UNKNOWN = "unknown"
    """A read may be asked again; a write may have happened."""
    LOGIN = "login"
    """The token is gone: log in again and repeat."""
    FATAL = "fatal"
    """Asking again gives the same answer: raise `error`."""


@dataclass(frozen=True, slots=True)
class Verdict:
    kind: Kind
    text: str
    error: StoreError | None = None


NOT_PROPOSED: Final = (
    "failed to connect to all addresses",
    "dns resolution failed",
    "etcdserver: no leader",
    "etcdserver: too many requests",
    "etcdserver: not capable",
    "etcdserver: rpc not supported for learner",
)
"""Refused by etcd's interceptors, by its proposal limit, or never sent by gRPC."""

TOKEN_GONE: Final = ("invalid auth token", "revision of auth store is old", "auth store is old", "user name is empty")
TLS_REFUSED: Final = (
    "tsi_data_corrupted",
    "certificate required",
    "bad certificate",
    "certificate_verify_failed",
    "handshake failed",
)


def judge(code: str, details: str, endpoint: str, *, has_login: bool) -> Verdict:
    """`code` is the gRPC status name in capitals, `details` its text."""
    low = details.lower()
    text = f"{endpoint}: {details or code}"
    if any(sign in low for sign in TOKEN_GONE):
        if has_login:
            return Verdict(Kind.LOGIN, text)
        return _fatal(StoreDenied(f"etcd {endpoint} asks for a user and password ({details}): configure them"))
    if any(sign in low for sign in TLS_REFUSED):
        return _fatal(
            StoreDenied(f"etcd {endpoint}: TLS failed ({_short(details)}): check the CA, our certificate and its key")
        )
    if any(sign in low for sign in NOT_PROPOSED):
        return Verdict(Kind.NOT_DONE, text)
    known = _known(code, low, details, endpoint)
    if known is not None:
        return _fatal(known)
    if code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "INTERNAL", "UNKNOWN", "ABORTED", "DATA_LOSS"):
        return Verdict(Kind.UNKNOWN, text)
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED") or "authentication failed" in low:
        return _fatal(StoreDenied(f"etcd {endpoint}: {details}: check the user, its password and role"))
    return _fatal(StoreError(f"etcd {endpoint}: {code} {details}"))


def not_done(verdict: Verdict) -> Verdict:
    """The same, when what failed came before the call itself (the log-in): the call surely had no effect."""
    return Verdict(Kind.NOT_DONE, verdict.text) if verdict.kind in (Kind.UNKNOWN, Kind.LOGIN) else verdict


def _known(code: str, low: str, details: str, endpoint: str) -> StoreError | None:
    if "database space exceeded" in low:
        return StoreFull(
            f"etcd {endpoint} is out of space: it is compacted and defragmented by itself; if this stays, raise its quota"
        )
    if "requested lease not found" in low:
        return StoreLeaseLost(f"etcd {endpoint}: the lease is gone: ask for a new one")
    if "required revision has been compacted" in low:
        return StoreCompacted(0)
    if "request is too large" in low or "too many operations" in low or "message larger than max" in low:
        return StoreTooLarge(f"etcd {endpoint}: {details}: split the transaction")
    if "duplicate key" in low or "key is not provided" in low:
        return StoreInvalid(f"etcd {endpoint}: {details}")
    if "permission denied" in low or "authentication failed" in low:
        return StoreDenied(f"etcd {endpoint}: {details}: check the user, its password and role")
    return None


def _fatal(error: StoreError) -> Verdict:
    return Verdict(Kind.FATAL, str(error), error)


def _short(details: str) -> str:
    return details if len(details) <= 160 else details[:157] + "..."
