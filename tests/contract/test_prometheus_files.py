"""What stands in deploy/prometheus, judged by Prometheus' own promtool."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from controller.pki import ensure_pki, write_prometheus_files
from lab.layout import CONTROLLER, PROMETHEUS, LabPaths, LabRecord, MachineRecord
from lab.prometheus import EVERY, configuration

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
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
