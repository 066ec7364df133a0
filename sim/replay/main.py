"""`shoal autoscale replay`: what the autoscaler would have done under a load, without a cluster.

Rules: nothing but the rule decides; the figures of the others are of models (`rivals.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from cli.main import run
from cli.output import show, table
from model.autoscale import Autoscale
from model.errors import BadInput
from sim.replay.compare import RIVALS, SHARE, Case, Compared, compare
from sim.replay.loads import Load, busiest, load_of
from sim.replay.ours import FED
from sim.replay.plot import plot
from sim.replay.policies import default, read_policy

COLUMNS = (
    ("POLICY", lambda row: row["policy"]),
    ("UNSERVED", lambda row: f"{row['unserved_percent']:.3f} %"),
    ("COST", lambda row: f"{row['cost']:.3f}"),
    ("ACTIONS/DAY", lambda row: f"{row['actions_per_day']:,.0f}"),
    ("REVERSALS/DAY", lambda row: f"{row['reversals_per_day']:,.0f}"),
    ("MOST", lambda row: f"{row['most']:,}"),
)
AVERAGE = 20


@click.command("replay", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("load", metavar="TRACE")
@click.option("--policy", type=click.Path(path_type=Path), help="what stands below x-autoscale, or a Compose file (defaults)")
@click.option("--service", default="", help="whose policy, of a Compose file with several")
@click.option("--column", default="", help="the column of demand, when its heading does not tell")
@click.option("--target", type=click.FloatRange(0, min_open=True), help="units/s a replica should bear (the policy's)")
@click.option("--capacity", type=click.FloatRange(0, min_open=True), help=f"units/s that a replica can serve (target/{SHARE})")
@click.option("--start-s", type=click.IntRange(0, 3600), default=5, show_default=True, help="seconds a replica needs to start")
@click.option("--hours", type=click.FloatRange(0, min_open=True), help="only so many, the busiest")
@click.option("--against", default=",".join(RIVALS), show_default=True, help="which other autoscalers; empty: none")
@click.option("--plot", "--svg", "picture", type=click.Path(path_type=Path), help="write demand and capacity there, as SVG")
@click.option("--explain", is_flag=True, help="every change with its reason")
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", help="how to print it")
def replay_command(
    load: str, policy: Path | None, service: str, column: str, target: float | None, capacity: float | None, start_s: int,
    hours: float | None, against: str, picture: Path | None, explain: bool, output: str,
) -> None:  # fmt: skip
    """What the autoscaler would have done under the load of TRACE, and what others would have.

    TRACE is CSV, also gzipped: times and demand, per interval or by the second, or one row per arrival; or one that is made:
    made:days, made:steps, made:spikes, made:mixed, made:surges or made:batches, with /SEED. Without a policy or target, a
    replica bears a twentieth of the average.
    """
    found = load_of(load, column)
    found = busiest(found, hours) if hours else found
    case = _case(found, read_policy(policy, service) if policy else None, target, capacity, start_s, _against(against))
    compared = compare(found, case)
    if picture is not None:
        _draw(compared, picture)
    if output != "table":
        show(_plain(compared, explain), output)
        return
    click.echo(f"{found.name}: {found.how}; {len(found.demand) / 3600:,.1f} h, {found.mean:,.1f} units/s on average")
    click.echo(f"a replica should bear {case.target:,.4g} units/s, can serve {case.capacity:,.4g}, needs {start_s} s to start")
    click.echo(table(compared.rows(), COLUMNS))
    if explain:
        click.echo("\n".join(f"{_clock(at)}  {sentence}" for at, sentence in compared.told))


def _against(words: str) -> tuple[str, ...]:
    names = tuple(word.strip() for word in words.split(",") if word.strip())
    for name in names:
        if name not in RIVALS:
            raise BadInput(f"--against {name}: expected some of {', '.join(RIVALS)}")
    return tuple(dict.fromkeys(names))


def _case(
    load: Load, policy: Autoscale | None, target: float | None, capacity: float | None, start_s: int, against: tuple[str, ...]
) -> Case:
    """Target and capacity from what was said, the policy, or the load."""
    if policy is None:
        policy = default(target or max(load.mean / AVERAGE, 1e-9))
    fed = next((metric.target for metric in policy.metrics if metric.kind in FED), None)
    cpu = next((metric.target for metric in policy.metrics if metric.kind == "cpu"), None)
    if fed is None and cpu is None and not target:
        raise BadInput("no metric of the policy is one that a load can stand for: expected connections, inflight, bytes or cpu")
    if fed is None and not target and not capacity:
        raise BadInput("the policy has only cpu: say with --capacity how many units a second a replica can serve")
    aim = target or fed or (capacity or 0) * (cpu or 0)
    return Case(_aimed(policy, target), aim, capacity or aim / (SHARE if fed or not cpu else cpu), start_s, against)


def _aimed(policy: Autoscale, target: float | None) -> Autoscale:
    """The policy with `target` in place of that of the metrics which the load stands for."""
    if not target:
        return policy
    metrics = tuple(replace(metric, target=target) if metric.kind in FED else metric for metric in policy.metrics)
    return replace(policy, metrics=metrics)


def _plain(compared: Compared, explain: bool) -> dict[str, Any]:
    load, case = compared.load, compared.case
    found: dict[str, Any] = {
        "trace": load.name, "how": load.how, "seconds": len(load.demand), "mean": round(load.mean, 4), "target": case.target,
        "capacity": case.capacity, "start_s": case.start_s, "policies": compared.rows(),
        "writes_per_day": round(compared.writes_per_day, 1),
    }  # fmt: skip
    if explain:
        found["changes"] = [{"second": at, "sentence": sentence} for at, sentence in compared.told]
    return found


def _draw(compared: Compared, path: Path) -> None:
    captions = [
        f"{row['policy']}: {row['unserved_percent']:.3f} % unserved, cost {row['cost']:.3f}, "
        f"{row['actions_per_day']:,.0f} actions and {row['reversals_per_day']:,.0f} reversals a day"
        for row in compared.rows()
    ]
    load = compared.load
    title = f"{load.name}: demand (grey), capacity (blue), unserved (red), in units a second"
    text = plot(title, load.demand, compared.case.capacity, list(zip(compared.runs, captions, strict=True)), load.start_ms)
    path.write_text(text, encoding="utf-8")


def _clock(second: int) -> str:
    return f"{second // 86_400}d {second // 3600 % 24:02}:{second // 60 % 60:02}:{second % 60:02}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; gives the exit code."""
    return run(replay_command, list(argv) if argv is not None else None, "shoal autoscale replay")

