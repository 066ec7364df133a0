"""The policy to replay: a file with what stands below `x-autoscale`, a Compose file, or the defaults.

Rules: a policy file is checked as in a Compose file, with file, line and field.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cli.compose_files import load_compose
from model.autoscale import Autoscale, ScalingMetric
from model.compose.autoscale import AUTOSCALE, autoscale_of, check_autoscale
from model.compose.problems import Report
from model.compose.yamlread import read_yaml
from model.errors import BadInput
from model.spec import Resources

MAX: Final = 1_000


def default(target: float) -> Autoscale:
    """All defaults, on connections per second."""
    return Autoscale(1, MAX, (ScalingMetric("connections", target),))


def read_policy(path: Path, service: str = "") -> Autoscale:
    """`service`: which one of a Compose file; empty: the only one with a policy. Raises BadInput."""
    report = Report()
    try:
        trees = read_yaml(path.read_bytes(), str(path), report)
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error
    report.raise_if_any()
    if not trees:
        raise BadInput(f"{path}: is empty: expected what stands below {AUTOSCALE}")
    if "services" in trees[0]:
        return _of_compose(path, service)
    alone = trees[0] if AUTOSCALE in trees[0] else {AUTOSCALE: trees[0]}
    check_autoscale(alone, "policy", report, "replicated", Resources(1.0, 1 << 30), Resources())
    report.raise_if_any()
    policy = autoscale_of(alone)
    if policy is None:
        raise BadInput(f"{path}: no policy in it")
    return policy


def _of_compose(path: Path, service: str) -> Autoscale:
    services = load_compose((str(path),)).project["services"]
    found = {name: policy for name, row in services.items() if (policy := autoscale_of(row)) is not None}
    if service and service not in found:
        raise BadInput(f"{path}: service {service!r} has no {AUTOSCALE}: those with one: {', '.join(found) or 'none'}")
    if not service and len(found) != 1:
        raise BadInput(f"{path}: {len(found)} services have {AUTOSCALE}: name one with --service: {', '.join(found) or 'none'}")
    return found[service or next(iter(found))]
