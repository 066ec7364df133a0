"""How many replicas a service has after `apply`. Pure.

Rules: `deploy.replicas` is the count, unless the service is autoscaled: then it is only the first one, and later only the
policy's bounds are kept to. Whose policy was taken out of the file keeps the count it has, until the file says another one.
"""

from __future__ import annotations

from controller.decide.scaling.bounds import reach
from model.autoscale import Autoscale
from model.documents import ServiceDoc
from model.spec import ServiceSpec


def applied(before: ServiceDoc | None, spec: ServiceSpec) -> tuple[int, int | None]:
    """(scale, kept_replicas) of the document."""
    if spec.autoscale is not None:
        return clamped(spec.autoscale, spec.replicas if before is None else before.scale), None
    if before is None:
        return spec.replicas, None
    if before.spec.autoscale is not None or before.kept_replicas == spec.replicas:
        return before.scale, spec.replicas
    return spec.replicas, None


def clamped(policy: Autoscale, count: int) -> int:
    """Within what the policy or one of its schedules allows; which of them holds now is the autoscaler's business. A policy
    that only recommends, or is off, changes nothing."""
    if policy.mode != "on":
        return count
    least, most = reach(policy)
    return min(max(count, least), most)
