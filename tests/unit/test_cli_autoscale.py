"""`shoal autoscale` and the floor of `shoal scale`: what is asked of the controller, and what a person reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import CliRunner

from cli import autoscale, service
from cli.autoscale import autoscale_command
from cli.main import COMMANDS, main
from model.errors import BadInput

LAST: dict[str, Any] = {
    "at": "2026-01-01T00:00:00.000Z", "at_ms": 1, "before": 2, "wanted": 6, "acted": True, "ready": 2, "starting": 0,
    "sentence": "2 -> 6 replicas: connections 300/s of 50/s a replica want 6", "metrics": [],
}  # fmt: skip
ROW: dict[str, Any] = {
    "service": "shop_web", "mode": "on", "min": 2, "max": 20, "now": 6, "wanted": 6, "ready": 5, "starting": 1, "paused": "in",
    "metrics": [
        {"text": "connections 50/s of 50/s", "problem": "n1 is silent"}, {"text": "cpu 45% of 60%", "problem": ""},
    ],
    "floor": 0, "floor_until": "", "last": LAST, "history": [LAST],
    "sentence": "shop_web: 6 replicas: connections 300/s of 50/s a replica want 6", "lines": ["scales itself"],
}  # fmt: skip


class FakeClient:
    """Remembers what is asked, answers from a table."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str, Any]] = []

    def get(self, path: str, **query: Any) -> Any:
        self.asked.append(("GET", path, query))
        return self.answers[path]

    def post(self, path: str, body: Any = None, **query: Any) -> Any:
        self.asked.append(("POST", path, body))
        return self.answers[path]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    made = FakeClient({"/v1/autoscale": [ROW], "/v1/autoscale/shop_web": ROW})

    @contextmanager
    def connected() -> Iterator[FakeClient]:
        yield made

    monkeypatch.setattr(autoscale, "connected", connected)
    monkeypatch.setattr(service, "connected", connected)
    return made


def said(*words: str) -> str:
    done = CliRunner().invoke(autoscale_command, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_table_like_dockers(client: FakeClient) -> None:
    head, row = said("ls").splitlines()
    assert head.split("   ")[0].strip() == "SERVICE"
    titles = "SERVICE MODE MIN MAX NOW WANTED METRICS LAST DECISION"
    assert " ".join(head.split()) == titles
    assert "on (in paused)" in row
    assert "connections 50/s of 50/s; cpu 45% of 60%" in row
    assert "2 -> 6, " in row
    assert "ago" in row
    assert LAST["sentence"] in said("ls", "-o", "wide")
    assert "   n1 is silent   " in said("ls", "-o", "wide")
    assert said("ls", "-q") == "shop_web\n"
    assert '"service": "shop_web"' in said("ls", "-o", "json")


def test_history_and_reasons(client: FakeClient) -> None:
    assert "2 -> 6 replicas: connections" in said("history", "shop_web")
    assert said("explain", "shop_web") == f"{ROW['sentence']}\n  scales itself\n"
    assert "sentence: " in said("explain", "shop_web", "-o", "yaml")


@pytest.mark.parametrize(
    ("words", "direction"), [((), "both"), (("--in",), "in"), (("--out",), "out"), (("--in", "--out"), "both")]
)
def test_pauses(client: FakeClient, words: tuple[str, ...], direction: str) -> None:
    client.answers["/v1/autoscale/shop_web/pause"] = {"service": "shop_web", "paused": direction}
    assert said("pause", "shop_web", *words).startswith("shop_web: ")
    assert client.asked == [("POST", "/v1/autoscale/shop_web/pause", {"direction": direction})]


def test_help_names_every_verb_also_the_launchers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["autoscale", "--help"]) == 0
    told = capsys.readouterr().out
    for verb in ("ls", "history", "explain", "pause", "resume", "replay"):
        assert f"  {verb} " in told
    assert {"autoscale", "scale"} <= set(COMMANDS)


@pytest.mark.parametrize(
    ("words", "body"), [((), {}), (("--floor-for", "90s"), {"floor_s": 90.0}), (("--floor-for", "0s"), {"floor_s": 0.0})]
)
def test_a_manual_scale_says_how_long_it_holds(client: FakeClient, words: tuple[str, ...], body: dict[str, float]) -> None:
    answer = {"name": "shop_web", "before": 2, "replicas": 7, "floor": 7, "floor_until": "2026-01-01T00:10:00.000Z"}
    client.answers["/v1/services/shop_web/scale"] = answer
    done = CliRunner().invoke(service.scale, ["shop_web=7", "--no-wait", *words], catch_exceptions=False)
    assert done.output == ("shop_web scaled from 2 to 7; its autoscaler keeps at least 7 until 2026-01-01T00:10:00.000Z\n")
    assert client.asked == [("POST", "/v1/services/shop_web/scale", {"replicas": 7, **body})]


def test_a_time_that_is_none() -> None:
    for word in ("ten", "-5s", "5"):
        with pytest.raises(BadInput, match="expected a time such as 10m"):
            service.parse_time(word)
