"""Scenarios of the autoscaler as text: commands, then what was decided and why.

Rules: a block is one command, a line of four dashes, and what it gave: every change with the second it came at, and the last
sentence.

    policy YAML       what stands below x-autoscale, as one flow mapping; begins anew with `replicas N`
    replicas N        so many run, wanted by somebody else
    load S NAME=V...  so many seconds in which each metric has that total; `-`: nothing is heard of it
    fails NAME WORDS  the sensor says why it has nothing; without words it is well again
    waiting N         callers held
    pause in|out|both|none
    floor N S         set by hand for so many seconds
    leader            another one: it has the document and no samples
    decide            once more, now
"""

from __future__ import annotations

from model.compose.autoscale import AUTOSCALE, autoscale_of, check_autoscale
from model.compose.problems import Report
from model.compose.yamlread import read_yaml
from model.documents import ScaleOrderDoc
from model.spec import Resources
from tests.scenarios.model_service import Service

MARK = "----"


def run(text: str) -> str:
    """The same file with what the commands give now."""
    blocks, service = [], Service(1)
    for block in text.strip().split("\n\n"):
        command = block.partition(f"\n{MARK}")[0]
        if command.startswith("#"):
            blocks.append(block)
            continue
        service.told.clear()
        lines = said(service, command)
        blocks.append("\n".join([command, MARK, *lines]))
    return "\n\n".join(blocks) + "\n"


def said(service: Service, command: str) -> list[str]:
    word, _, rest = command.partition(" ")
    words = rest.split()
    if word == "policy":
        _policy(service, rest)
    elif word == "replicas":
        service.scale = service.ready = int(words[0])
    elif word == "load":
        values = dict(row.split("=") for row in words[1:])
        service.load(int(words[0]), **{name: None if value == "-" else float(value) for name, value in values.items()})
    elif word == "fails":
        service.problems[words[0]] = " ".join(words[1:])
    elif word == "waiting":
        service.waiting = int(words[0])
    elif word == "pause":
        service.order = ScaleOrderDoc("id", "web", paused="" if rest == "none" else rest)  # type: ignore[arg-type]
    elif word == "floor":
        service.order = ScaleOrderDoc("id", "web", floor=int(words[0]), floor_until_ms=service.now_ms + int(words[1]) * 1000)
    elif word == "leader":
        service.rows.clear()
    elif word == "decide":
        service.decide()
    else:
        raise ValueError(f"no such command: {command}")
    last = [service.step.sentence] if word in ("load", "decide") else []
    return [f"{at:>5} s  {sentence}" for at, sentence in service.told] + last


def _policy(service: Service, text: str) -> None:
    report = Report()
    alone = {AUTOSCALE: read_yaml(text.encode(), "scenario", report)[0]}
    check_autoscale(alone, "policy", report, "replicated", Resources(1.0, 1 << 30), Resources())
    report.raise_if_any()
    policy = autoscale_of(alone)
    assert policy is not None
    service.policy = policy
