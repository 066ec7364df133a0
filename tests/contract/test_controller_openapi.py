"""The description against the server: schemathesis makes requests from it, right and wrong ones, and checks every answer.

Rules: few examples with a fixed seed, so that a run is short and the same each time. Answers that never end (`follow`) and long
waits (`wait`) are left out; the other contract tests have them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from controller.api.openapi import description
from controller.api.routes import ROUTES
from tests.contract.controller_harness import ControllerProcess, controller_process

pytestmark = [pytest.mark.contract, pytest.mark.timeout(180)]

EXAMPLES = 6
CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)
ENDLESS = ("follow", "wait", "index")


def bounded() -> dict[str, Any]:
    """The description without what makes an answer wait."""
    found = description(ROUTES)
    for path in found["paths"].values():
        for operation in path.values():
            operation["parameters"] = [row for row in operation["parameters"] if row["name"] not in ENDLESS]
    return found


SCHEMA = schemathesis.openapi.from_dict(bounded())
ARCHIVES = ("POST /v1/build", "POST /v1/images/load")
"""Bodies that schemathesis cannot make (test_controller_agents.py has them)."""
FOUND: list[Any] = [row.ok() for row in SCHEMA.get_all_operations() if isinstance(row, Ok)]
OPERATIONS: dict[str, Any] = {f"{row.method.upper()} {row.path}": row for row in FOUND}


@pytest.fixture(scope="module")
def controller() -> Iterator[ControllerProcess]:
    with controller_process() as process:
        yield process


@pytest.fixture(scope="module")
def session(controller: ControllerProcess) -> Iterator[requests.Session]:
    context = controller.context()
    with requests.Session() as made, tempfile.TemporaryDirectory(prefix="shoal-test-") as folder:
        for name in ("ca", "certificate", "key"):
            Path(folder, name).write_text(context[name])
        made.cert, made.verify = (f"{folder}/certificate", f"{folder}/key"), f"{folder}/ca"
        made.trust_env = False
        yield made


def test_every_route_is_among_them() -> None:
    assert len(OPERATIONS) == len(ROUTES)


@pytest.mark.parametrize("name", sorted({*OPERATIONS} - {*ARCHIVES}))
def test_answers_are_as_described(name: str, controller: ControllerProcess, session: requests.Session) -> None:
    base_url = controller.context()["apis"][0]

    @seed(1)
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=OPERATIONS[name].as_strategy())
    def run(case: Any) -> None:
        response = case.call(base_url=base_url, session=session, timeout=30, verify=session.verify, cert=session.cert)
        # 503 is described and true here: no node has joined.
        case.validate_response(response, checks=CHECKS[1:] if response.status_code == 503 else CHECKS)

    run()
