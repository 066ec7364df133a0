"""The replay: a service under a load, loads from files, the other autoscalers' models, the command."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from model.autoscale import Autoscale, ScalingMetric, ScalingSchedule
from model.errors import BadInput
from sim.replay import made
from sim.replay.compare import Case, compare
from sim.replay.loads import Load, busiest, load_of, read_load
from sim.replay.main import main
from sim.replay.ours import Ours
from sim.replay.policies import default, read_policy
from sim.replay.rivals import Hpa, Kpa, Nomad
from sim.replay.service import Run, oracle_cost, replay


class Script:
    """A scaler that does what it was told to."""

    name = "script"
    every_s = 1

    def __init__(self, counts: dict[int, int]) -> None:
        self.counts = counts
        self.seen: list[tuple[float, float, int, int]] = []

    def sense(self, demand: float, served: float, ready: int, starting: int) -> None:
        self.seen.append((demand, served, ready, starting))

    def decide(self, now_s: int, scale: int, ready: int) -> int:
        return self.counts.get(now_s, scale)


def test_a_replica_costs_from_its_order_and_serves_from_its_start() -> None:
    script = Script({2: 3, 8: 1})
    run = replay(script, [20.0] * 10, capacity=10.0, start_s=3, first=1)
    assert [ready for _, _, ready, _ in script.seen] == [1, 1, 1, 1, 1, 3, 3, 3, 1, 1]
    assert run.cost == 2 + 6 * 3 + 2
    assert run.unserved == 7 * 10.0
    assert run.unserved_percent == 35.0
    assert run.ready == [(0, 1), (5, 3), (8, 1)]


def test_those_that_start_are_taken_back_first() -> None:
    script = Script({1: 4, 2: 6, 3: 3})
    replay(script, [0.0] * 12, capacity=1.0, start_s=5, first=2)
    assert [ready for _, _, ready, _ in script.seen] == [2] * 6 + [3] * 6
    assert [ready + starting for _, _, ready, starting in script.seen] == [2, 4, 6, *[3] * 9]


def test_a_reversal_is_a_turn_within_ten_minutes() -> None:
    run = Run("x", 86_400, 1.0, 0.0, 1, [(0, 1), (100, 2), (200, 3), (700, 2), (1300, 3), (2000, 2)])
    assert run.actions_per_day == 5
    assert run.reversals_per_day == 2


def test_the_oracle_pays_for_what_is_needed() -> None:
    assert oracle_cost([0.0, 10.0, 10.1, 35.0], 10.0, 1) == 1 + 1 + 2 + 4


def written(path: Path, text: str) -> Path:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def test_records_of_intervals_become_a_rate(tmp_path: Path) -> None:
    text = "minute,requests\n1998-04-30 21:30,60\n1998-04-30 21:31,120\n1998-04-30 21:35,30\n1998-04-30 21:36,0\n"
    load = read_load(written(tmp_path / "a.csv.gz", text))
    assert load.start_ms == 893_971_800_000
    assert load.demand == [1.0] * 60 + [2.0] * 60 + [0.0] * 180 + [0.5] * 60 + [0.0] * 60
    assert load.how == "records (requests) of 60 s, as a rate that holds until the next"


def test_rows_without_demand_are_arrivals_and_a_column_can_be_named(tmp_path: Path) -> None:
    rows = ("TIMESTAMP,ContextTokens,Generated", "2023-11-16 18:15:46.6805900,374,44", "2023-11-16 18:15:46.9,6,1",
            "2023-11-16 18:15:48.1,2,3")  # fmt: skip
    path = written(tmp_path / "a.csv", "\n".join(rows))
    assert read_load(path).demand == [2.0, 0.0, 1.0]
    assert read_load(path, "ContextTokens").demand == [380.0, 0.0, 2.0]
    with pytest.raises(BadInput, match=r"a.csv: no column 'cpu': there are contexttokens, generated"):
        read_load(path, "cpu")


@pytest.mark.parametrize("times", [("0", "1", "3"), ("1700000000", "1700000001", "1700000003")])
def test_numbers_are_seconds_and_need_no_heading(tmp_path: Path, times: tuple[str, ...]) -> None:
    load = read_load(written(tmp_path / "a.csv", "".join(f"{at},5\n" for at in times)))
    assert load.demand == [5.0, 5.0, 0.0, 5.0]


def test_milliseconds_are_told_by_their_size(tmp_path: Path) -> None:
    load = read_load(written(tmp_path / "a.csv", "1700000000000,1\n1700000001500,2\n"))
    assert (load.start_ms, load.demand) == (1_700_000_000_000, [1.0, 2.0])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "no record in it"),
        ("time,value\n", "no record in it"),
        ("time,value\nyesterday,3\n", "a.csv:2: 'yesterday' is no time"),
        ("services:\n  web:\n    image: x\n", "a.csv: looks like a Compose file: a trace is CSV, a time and a demand in each "
         "row, such as 2024-05-01 12:00:00,338; write: shoal autoscale replay TRACE --policy "),
        ("# of the shop\nname: shop\nservices: {web: {image: x}}\n", "looks like a Compose file: a trace is CSV"),
        ("services: {}\n", "looks like a Compose file: a trace is CSV"),
        ("max: 3\nmetrics: [inflight: 3]\n", "looks like a policy: a trace is CSV"),
        ("time,value\n1,3\n2,-1\n", "a.csv:3: expected a number of units from 0 up in column 2"),
        ("time,value\n1,3\n2,nan\n", "a.csv:3: expected a number"),
        ("time,value\n1,3\n2\n", "a.csv:3: expected a number"),
        ("0,1\n1000000000,1\n", "spans 11,574 days: at most 400"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_line(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(BadInput, match=what) as caught:
        read_load(written(tmp_path / "a.csv", text))
    assert "\n" not in str(caught.value)


def test_no_file_and_no_gzip_are_said_too(tmp_path: Path) -> None:
    (tmp_path / "b.gz").write_bytes(b"not gzipped")
    for name in ("none.csv", "b.gz"):
        with pytest.raises(BadInput, match=name):
            read_load(tmp_path / name)


def test_the_busiest_hours() -> None:
    load = Load("x", [1.0] * 3600 + [5.0] * 3600 + [2.0] * 3600, 1_000)
    assert busiest(load, 1) == Load("x", [5.0] * 3600, 3_601_000, "; the busiest 1 h")
    assert busiest(load, 9) is load


@pytest.mark.parametrize("kind", made.KINDS)
def test_a_made_load_is_the_same_again_and_another_with_another_seed(kind: str) -> None:
    first = made.load(kind, 7, 3600)
    assert first == made.load(kind, 7, 3600)
    assert first != made.load(kind, 8, 3600)
    assert len(first) == 3600
    assert min(first) >= 0
    assert 200 < sum(first) / 3600 < 4_000


def test_a_made_load_by_its_word() -> None:
    assert load_of("made:days/2").demand == made.load("days", 2)
    for word in ("made:x", "made:days/x", "made:"):
        with pytest.raises(BadInput, match="expected made:KIND"):
            load_of(word)


STEP = [100.0] * 600 + [400.0] * 900
"""Ten seconds a replica, of which seven are its target."""


def counts(run: Run) -> dict[int, int]:
    return dict(run.counts)


def test_the_rule_meets_a_step_within_seconds_and_explains_it() -> None:
    ours = Ours(Autoscale(1, 1000, (ScalingMetric("connections", 7.0),)), 10.0)
    run = replay(ours, STEP, 10.0, 5, 15)
    assert run.counts[-1][1] == 58
    assert run.counts[-1][0] <= 625
    assert ours.told[0][0] == 605
    assert ours.told[0][1] == "15 -> 30 replicas: connections 233/s of 7/s a replica over 10 s want 34; at most +15 in 15 s"


def test_an_hpa_sees_no_more_than_a_full_cpu() -> None:
    run = replay(Hpa(0.7, 10.0, 1, 1000), STEP, 10.0, 5, 15)
    first = next(count for at, count in run.counts if at > 600)
    assert first <= 22, "15 full replicas at a target of 0.7"
    assert run.counts[-1][1] >= 52
    assert max(counts(run).values()) <= 75


def test_a_kpa_panics_and_does_not_shrink_until_it_is_over() -> None:
    run = replay(Kpa(7.0, 1, 1000), [100.0] * 300 + [400.0] * 20 + [100.0] * 300, 10.0, 5, 15)
    assert max(count for _, count in run.counts) >= 57
    shrunk = next(at for (_, before), (at, count) in pairwise(run.counts) if count < before and at > 300)
    assert 360 <= shrunk <= 400
    assert run.counts[-1][1] == 15


def test_nomad_acts_once_in_five_minutes() -> None:
    run = replay(Nomad(0.7, 10.0, 1, 1000), STEP, 10.0, 5, 20)
    times = [at for at, _ in run.counts[1:]]
    assert len(times) >= 2
    assert all(after - at >= 300 for at, after in pairwise(times))


def test_the_rules_schedules_follow_the_clock_of_the_load() -> None:
    policy = replace(default(7.0), schedules=(ScalingSchedule("0 8 * * *", 3600, min=5),))
    load = Load("x", [5.0] * 7200, 1_700_032_400_000 + 600_000)  # 07:23 in UTC
    run = compare(load, Case(policy, 7.0, 10.0, against=())).runs[0]
    assert run.counts[1] == (2200, 5)


def test_a_policy_of_a_file_or_a_compose_file(tmp_path: Path) -> None:
    policy = written(tmp_path / "policy.yaml", "min: 2\nmax: 20\nmetrics:\n  - connections: 50/s\n")
    expected = Autoscale(2, 20, (ScalingMetric("connections", 50.0),))
    assert read_policy(policy) == expected
    indented = policy.read_text().replace("\n", "\n      ")
    compose = f"services:\n  db: {{image: x}}\n  web:\n    image: x\n    x-autoscale:\n      {indented}\n"
    path = written(tmp_path / "compose.yaml", compose)
    assert read_policy(path) == read_policy(path, "web") == expected
    with pytest.raises(BadInput, match="service 'db' has no x-autoscale: those with one: web"):
        read_policy(path, "db")
    with pytest.raises(BadInput, match=r"policy.yaml:3:\d+: policy.x-autoscale"):
        read_policy(written(tmp_path / "policy.yaml", "min: 2\nmax: 20\nmetrics: [nonsense: 3]\n"))


def test_the_command_prints_a_table_json_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = written(tmp_path / "t.csv", "time,value\n" + "".join(f"{at},{100 if at < 600 else 400}\n" for at in range(1200)))
    picture = tmp_path / "t.svg"
    assert main([str(trace), "--target", "7", "--plot", str(picture), "--explain"]) == 0
    text = capsys.readouterr().out
    assert "POLICY   UNSERVED" in text
    assert " replicas: connections " in text
    root = ElementTree.fromstring(picture.read_text())
    assert root.tag.endswith("svg")
    assert main([str(trace), "--target", "7", "--against", "hpa", "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["policy"] for row in found["policies"]] == ["shoal", "hpa"]
    assert found["capacity"] == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["none.csv"], "none.csv: No such file"),
        (["made:days", "--against", "ecs"], "--against ecs: expected some of hpa, kpa, nomad"),
        (["made:days", "--policy", "none.yaml"], "none.yaml: No such file"),
        (["made:days", "--target", "0"], "'--target'"),
        ([], "TRACE"),
    ],
)
def test_bad_usage_is_one_line(words: list[str], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 1
    said = capsys.readouterr().err
    assert what in said
    assert said.count("\n") == 1
