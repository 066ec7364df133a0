"""The lab's Prometheus: Debian's program on a machine of its own, with the project's own configuration at the lab's pace.

Rules: it reads deploy/prometheus, as an installation does, and changes only addresses, times and places; what it has collected
goes with its lab. It listens on the lab's bridge only, without a password.
"""

from __future__ import annotations

import http.client
import shutil
from pathlib import Path
from typing import Any, Final

import yaml

from lab.layout import CONTROLLER, PROMETHEUS, PROMETHEUS_PORT, LabPaths, LabRecord
from model.errors import RuntimeFailed

SOURCE: Final = Path(__file__).resolve().parents[1] / "deploy" / "prometheus"
EVERY: Final = "2s"


def prepare(record: LabRecord, paths: LabPaths) -> tuple[str, ...]:
    """Writes the configuration; the command line. Raises RuntimeFailed where the program is missing."""
    program = shutil.which("prometheus")
    if program is None:
        raise RuntimeFailed("prometheus is missing: install Debian's package prometheus, or run `make setup`")
    folder = paths.machine_state(PROMETHEUS)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    address = record.address(record.machine(PROMETHEUS))
    config = configuration(yaml.safe_load((SOURCE / "prometheus.yml").read_text()), record, paths)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config, sort_keys=False))
    return (
        program, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
        "--storage.tsdb.retention.time=1d", f"--web.listen-address={address}:{PROMETHEUS_PORT}",
        "--log.level=warn",
    )  # fmt: skip


def is_ready(url: str) -> bool:
    """Whether it answers queries. Raises OSError while nobody listens."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=2)
    try:
        connection.request("GET", "/-/ready")
        return connection.getresponse().status == 200
    finally:
        connection.close()


def configuration(plain: dict[str, Any], record: LabRecord, paths: LabPaths) -> dict[str, Any]:
    """An installation's configuration as the lab wants it."""
    files = paths.machine_state(CONTROLLER) / "prometheus"

    def here(value: Any) -> Any:
        match value:
            case dict():
                return {key: EVERY if str(key).endswith("_interval") else here(item) for key, item in value.items()}
            case list():
                return [here(item) for item in value]
            case str() if value.startswith("shoal/"):
                return str(files / value.removeprefix("shoal/"))
            case str() if value.endswith(".yml"):
                return str(SOURCE / value)
            case str():
                return value.replace("https://CONTROLLER:7443", record.api)
        return value

    found: dict[str, Any] = here(plain)
    return found
