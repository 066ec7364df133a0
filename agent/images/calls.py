"""Requests to registries: who asks is told when it is asked, what failed for the moment is tried again, the rest is one line.

Rules: synchronous, runs in worker threads. Server errors and lost connections are retried with back-off. `stop` ends every
wait. What a registry says of an error is passed on, shortened to one line.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import ssl
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from agent.images.auth import Authorizer
from agent.images.errors import (
    HUB_ENDPOINT,
    ImageNotFound,
    PullStopped,
    RegistryRefused,
    RegistryUnavailable,
    denied,
    unauthorized,
)
from agent.images.records import Credentials, RegistryConfig
from agent.images.transport import Reply, Transport
from model.image_ref import DEFAULT_REGISTRY, ImageRef
from model.registry_auth import speaks_no_tls

_BACKOFF_S_MAX = 5.0
_ERROR_BYTES_MAX = 64 << 10
_SAID_CHARS_MAX = 200
_UNKNOWN_CA = (18, 19, 20, 21)
"""OpenSSL's numbers for a certificate that nobody known has signed."""
_LINE_ENDED = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
"""TLS that is broken off and not refused, as a registry does that is started again."""
_T = TypeVar("_T")


class Retry(Exception):
    """This attempt failed in a way the next may not."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


BROKEN = (Retry, OSError, http.client.HTTPException)
"""What is worth another attempt."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who is asked for which image, as whom; `scope` is what a token must allow."""

    endpoint: str
    ref: ImageRef
    credentials: Credentials | None
    pushes: bool = False
    also: str = ""
    """Another repository that is to be read."""

    @property
    def scope(self) -> str:
        own = f"repository:{self.ref.repository}:{'pull,push' if self.pushes else 'pull'}"
        return f"{own} repository:{self.also}:pull" if self.also else own

    def reading(self, repository: str) -> Access:
        return replace(self, also=repository)


class Calls:
    """One node's way to all registries."""

    def __init__(self, config: RegistryConfig) -> None:
        self.config = config
        self.transport = Transport(config)
        self._auth = Authorizer(self.transport, config.token_servers)
        self.stop = threading.Event()

    def close(self) -> None:
        self.stop.set()
        self.transport.close()

    def access(self, endpoint: str, ref: ImageRef, auth: Credentials | None, *, pushes: bool = False) -> Access:
        """Credentials given with a call belong to the registry named in the reference, never to a mirror in between."""
        found = auth if endpoint == own_endpoint(ref) else None
        found = found or self.config.credentials.get(endpoint)
        if found is None and endpoint == HUB_ENDPOINT:
            found = self.config.credentials.get(DEFAULT_REGISTRY)
        return Access(endpoint, ref, found, pushes)

    def url(self, access: Access, path: str) -> str:
        return f"{self.transport.base_url(access.endpoint)}/v2/{access.ref.repository}/{path}"

    @contextlib.contextmanager
    def exchange(
        self,
        access: Access,
        method: str,
        url: str,
        headers: Mapping[str, str],
        wanted: Collection[int],
        body: bytes | Callable[[], Iterable[bytes]] | None = None,
    ) -> Iterator[Reply]:
        """One request, a second one when it wants to know who asks. Raises one of `BROKEN` when it may pass, or ImageError."""
        for _ in range(2):
            known = self._auth.headers(access.endpoint, access.scope, access.credentials)
            sent = body() if callable(body) else body
            with self.transport.exchange(method, url, {**headers, **known}, sent) as reply:
                if reply.status in wanted:
                    yield reply
                    return
                self._judge(access, reply, known.get("Authorization"))
        raise unauthorized(access.endpoint, access.ref.familiar, given=access.credentials is not None)

    def retried(self, attempt: Callable[[], _T], what: str) -> _T:
        failures = 0
        while True:
            try:
                return attempt()
            except BROKEN as error:
                failures += 1
                self.wait(error, failures, what)

    def wait(self, error: Exception, failures: int, what: str) -> None:
        """After a failed attempt; raises when it was the last."""
        why = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        if isinstance(error, ssl.SSLError) and not isinstance(error, _LINE_ENDED):
            problem = f"TLS failed ({getattr(error, 'reason', None) or why}){_what_helps(error)}"
            raise RegistryRefused(f"{what}: {problem}") from None
        if failures >= self.config.attempts:
            raise RegistryUnavailable(f"{what}: {' '.join(why.split())[:_SAID_CHARS_MAX]} ({failures} attempts)") from None
        wait_s = min(self.config.backoff_s * 2 ** (failures - 1), _BACKOFF_S_MAX) * random.uniform(0.75, 1.25)
        if isinstance(error, Retry) and error.wait_s is not None:
            wait_s = max(wait_s, min(error.wait_s, 4 * _BACKOFF_S_MAX))
        if self.stop.wait(wait_s):
            raise PullStopped(f"{what}: stopped") from None

    def check_stop(self, what: str) -> None:
        if self.stop.is_set():
            raise PullStopped(f"{what}: stopped")

    def _judge(self, access: Access, reply: Reply, sent: str | None) -> None:
        """Return when a new try as somebody is worth it; raise otherwise."""
        said = _said(reply.text(_ERROR_BYTES_MAX))
        endpoint, image, given = access.endpoint, access.ref.familiar, access.credentials is not None
        if reply.status == 401:
            challenge = reply.headers.get("www-authenticate", "")
            if self._auth.answer(endpoint, access.scope, access.credentials, challenge, sent):
                return
        if reply.status == 401 or (reply.status == 403 and not given):
            raise unauthorized(endpoint, image, given=given)
        if reply.status == 403:
            raise denied(endpoint, image, "push it" if access.pushes else "pull it", said)
        if reply.status == 429 or reply.status >= 500:
            after = reply.headers.get("retry-after", "")
            raise Retry(f"answers {reply.status}{said}", float(after) if after.isascii() and after.isdigit() else None)
        if access.pushes and reply.status == 405:
            raise RegistryRefused(f"registry {endpoint} is read-only: {image} cannot be pushed there{said}")
        if access.pushes and reply.status == 404:
            raise ImageNotFound(f"registry {endpoint} has no repository for {image}{said}: it must be created there first")
        if reply.status == 404:
            raise ImageNotFound(f"image {image} not found at registry {endpoint}")
        raise RegistryRefused(f"registry {endpoint} refuses {image}: HTTP status {reply.status}{said}")


def own_endpoint(ref: ImageRef) -> str:
    """The registry that a reference names, by the address it is spoken to at."""
    return HUB_ENDPOINT if ref.registry == DEFAULT_REGISTRY else ref.registry


def _what_helps(error: ssl.SSLError) -> str:
    """What is wrong with a certificate, or that there is none, and what helps."""
    if speaks_no_tls(error.reason):
        return ": it speaks plain http: give it a certificate, or start agents with --insecure-registry HOST:PORT"
    if not isinstance(error, ssl.SSLCertVerificationError):
        return ""
    hint = ": if its CA is known to you, start agents with --registry-ca HOST:PORT=FILE"
    return f": {error.verify_message.rstrip('.')}{hint if error.verify_code in _UNKNOWN_CA else ''}"


def _said(raw: bytes) -> str:
    """` (CODE: message)` of a registry's error document, or nothing."""
    try:
        first = json.loads(raw)["errors"][0]
        text = f"{first.get('code', '')}: {first.get('message', '')}"
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return ""
    clean = "".join(char if char.isprintable() else " " for char in text[:_SAID_CHARS_MAX])
    return f" ({' '.join(clean.split())})"
