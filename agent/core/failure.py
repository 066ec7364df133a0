"""An error as a failure of an effect.

Rules: one line; what cannot succeed as the service is written is permanent.
"""

from __future__ import annotations

from agent.plan.records import Failure
from model.errors import NotFound, ShoalError

_NEVER = frozenset({"image_not_found", "registry_refused", "bad_input"})


def failure_of(error: ShoalError) -> Failure:
    permanent = bool(getattr(error, "permanent", False)) or error.code in _NEVER or isinstance(error, NotFound)
    return Failure(str(error).split("\n")[0], permanent, getattr(error, "exit_code", None))
