"""What stands in deploy/prometheus and deploy/grafana, judged by Prometheus' own promtool and by the metrics there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.core import metrics_page
from agent.core.metrics import AgentMetrics
from controller.api.metrics import Facts, render
from controller.api.tally import Tally
from controller.pki import ensure_pki, write_prometheus_files
from lab.layout import CONTROLLER, PROMETHEUS, LabPaths, LabRecord, MachineRecord
from lab.prometheus import EVERY, configuration
from model.documents import NodeInfo
from tests.unit.test_controller_metrics import cluster, snapshot

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
DASHBOARDS = FOLDER.parent / "grafana" / "dashboards"
WORD = re.compile(r"(?:\w+:)?shoal_\w+(?::\w+)?|process_\w+|\bup\b")
OF_A_HISTOGRAM = ("_bucket", "_sum", "_count")
pytestmark = [
    pytest.mark.contract,
    pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian's package prometheus)"),
]


def promtool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True, check=False)


def test_the_rules_do_what_their_tests_say() -> None:
    said = promtool("test", "rules", FOLDER / "rules_test.yml")
    assert said.returncode == 0, said.stdout + said.stderr


def test_the_configuration_is_one(tmp_path: Path) -> None:
    """With the files a controller writes beside it, as its head says."""
    copy = shutil.copytree(FOLDER, tmp_path / "etc")
    write_prometheus_files(copy / "shoal", ensure_pki(tmp_path / "pki", "c1", ["10.0.0.1"]))
    said = promtool("check", "config", copy / "prometheus.yml")
    assert said.returncode == 0, said.stdout + said.stderr
    (copy / "shoal" / "metrics.key").unlink()
    assert promtool("check", "config", copy / "prometheus.yml").returncode != 0


def test_the_labs_configuration_is_the_same_elsewhere(tmp_path: Path) -> None:
    paths = LabPaths("lab1", tmp_path / "state", tmp_path / "run")
    record = LabRecord("lab1", "10.213.0.0/24", machines=(MachineRecord(PROMETHEUS, 4, role=PROMETHEUS),))
    pki = ensure_pki(tmp_path / "pki", "c1", ["10.0.0.1"])
    paths.machine_state(CONTROLLER).mkdir(parents=True)
    write_prometheus_files(paths.machine_state(CONTROLLER) / "prometheus", pki)
    plain = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    config = configuration(plain, record, paths)
    assert config["global"] == {"scrape_interval": EVERY, "evaluation_interval": EVERY}
    assert [job["job_name"] for job in config["scrape_configs"]] == [job["job_name"] for job in plain["scrape_configs"]]
    assert "CONTROLLER" not in yaml.safe_dump(config)
    file = tmp_path / "lab.yml"
    file.write_text(yaml.safe_dump(config))
    said = promtool("check", "config", file)
    assert said.returncode == 0, said.stdout + said.stderr


# ---- every expression, of rules and dashboards


def groups() -> Iterator[dict[str, Any]]:
    for name in ("recording.yml", "alerts.yml"):
        yield from yaml.safe_load((FOLDER / name).read_text())["groups"]


def rules() -> list[dict[str, Any]]:
    return [rule for group in groups() for rule in group["rules"]]


def asked() -> dict[str, str]:
    """Every expression by where it stands, with a dashboard's variables filled in."""
    found = {str(rule.get("alert") or rule["record"]): str(rule["expr"]) for rule in rules()}
    for path in sorted(DASHBOARDS.glob("*.json")):
        plain = json.loads(path.read_text())
        for panel in plain["panels"]:
            for target in panel["targets"]:
                text = str(target["expr"]).replace("$__rate_interval", "1m")
                found[f"{path.stem}: {panel['title']} {target['refId']}"] = re.sub(r"\$\w+", "x", text)
        for variable in plain["templating"]["list"]:
            found[f"{path.stem}: ${variable['name']}"] = re.sub(r"label_values\((.*), \w+\)", r"\1", variable["query"])
    return found


def told() -> set[str]:
    """The names that controllers and agents tell: all families, also those without a row now."""
    now = metrics_page.Now(NodeInfo(), (), (), {}, 0, 0, 0)
    texts = (render(Tally(), Facts(snapshot(cluster()), True, 0)), metrics_page.render(AgentMetrics(), now))
    names = {"up", *(str(rule["record"]) for rule in rules() if "record" in rule)}
    for name, kind in re.findall(r"^# TYPE (\S+) (\w+)$", b"".join(texts).decode(), re.MULTILINE):
        names |= {name + end for end in OF_A_HISTOGRAM} if kind == "histogram" else {name}
    return names


def test_every_expression_asks_for_metrics_that_there_are() -> None:
    names, wrong = told(), []
    for where, text in asked().items():
        words = set(WORD.findall(re.sub(r'"[^"]*"', "", text)))
        assert words, where
        wrong += [f"{where}: {word}" for word in words - names]
    assert wrong == []


def test_every_expression_is_promql(tmp_path: Path) -> None:
    rows = [{"record": f"test:{number}", "expr": text} for number, text in enumerate(asked().values())]
    (tmp_path / "all.yml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rows}]}))
    said = promtool("check", "rules", tmp_path / "all.yml")
    assert said.returncode == 0, said.stdout + said.stderr
    assert f"{len(rows)} rules found" in said.stdout


def test_every_alert_says_for_whom_it_is_what_is_wrong_and_what_to_do() -> None:
    alerts = [rule for rule in rules() if "alert" in rule]
    assert alerts
    for rule in alerts:
        assert rule["labels"]["severity"] in ("warning", "critical"), rule["alert"]
        assert {"summary", "description"} == rule["annotations"].keys(), rule["alert"]


def test_the_dashboards_are_what_their_program_writes() -> None:
    from deploy.grafana.generate import texts

    assert {path: path.read_text() for path in DASHBOARDS.iterdir()} == texts()


def test_grafana_finds_its_prometheus_under_the_name_that_dashboards_use() -> None:
    folder = DASHBOARDS.parent / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "shoal.yaml").read_text())["datasources"]
    used = {target["datasource"]["uid"] for path in DASHBOARDS.iterdir() for panel in json.loads(path.read_text())["panels"]
            for target in panel["targets"]}  # fmt: skip
    assert used == {source["uid"]}
    assert yaml.safe_load((folder / "dashboards" / "shoal.yaml").read_text())["providers"]
