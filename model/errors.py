"""The one exception tree of shoal.

Rules: a message is ONE line that says what, where and what to do. Whoever shows an error to a person prints `str(error)`
and nothing else. `status` is the HTTP status the API answers with; `code` is the stable word that tools match on.
"""

from __future__ import annotations

from collections.abc import Sequence


class ShoalError(Exception):
    """Base of everything shoal raises on purpose."""

    status = 500
    code = "internal"


class BadInput(ShoalError):
    """What a person wrote cannot be taken. `problems` holds one line for each fault found."""

    status = 400
    code = "bad_input"

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems: tuple[str, ...] = tuple(problems) or (message,)


class NotFound(ShoalError):
    status = 404
    code = "not_found"


class Conflict(ShoalError):
    """The thing exists, is in use, or changed meanwhile."""

    status = 409
    code = "conflict"


class Unauthorized(ShoalError):
    """No certificate, or one that may not do this."""

    status = 403
    code = "unauthorized"


class Unavailable(ShoalError):
    """A daemon cannot be reached or is not ready; the same call may succeed later."""

    status = 503
    code = "unavailable"


class StoreError(ShoalError):
    status = 503
    code = "store"


class StoreUnknown(StoreError):
    """The write may or may not have taken effect: read again before deciding."""

    code = "store_unknown"


class StoreUnavailable(StoreError):
    """The store did not take the request: nothing was written."""

    code = "store_unavailable"


class StoreFull(StoreError):
    """etcd's NOSPACE alarm: writes are refused until maintenance has freed space."""

    code = "store_full"


class StoreCompacted(StoreError):
    """The wanted revision is compacted away: list again and go on from there."""

    code = "store_compacted"

    def __init__(self, revision: int) -> None:
        super().__init__(f"store revision is compacted up to {revision}: list again")
        self.revision = revision


class RuntimeFailed(ShoalError):
    """A container could not be created, started or stopped on this node. The message becomes the replica's message.

    `permanent`: it can never start as it is written. `exit_code`: what Docker would answer (127 not found, 126 not executable).
    """

    code = "runtime"

    def __init__(self, message: str, *, permanent: bool = False, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.exit_code = exit_code


class ImageError(RuntimeFailed):
    """An image is missing, refused or damaged."""

    code = "image"


class DiskFull(RuntimeFailed):
    code = "disk_full"
