"""The lab's registry is filled with the demo images, built on this machine without any download but Debian packages.

Rules: built images stay in a cache that labs share and `lab down` leaves (`make clean` removes it); a registry's own blobs go
with its lab.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from agent.images.calls import Calls
from agent.images.records import RegistryConfig
from deploy.images.build import build_demo_images
from deploy.images.debs import BuildError
from lab.layout import REGISTRY, REGISTRY_PORT, LabPaths, LabRecord
from lab.push import push_layout
from lab.registry import LabRegistry
from model.errors import RuntimeFailed, Unavailable

CACHE: Final = Path("/var/cache/shoal/images")
_ANSWER_S: Final = 30.0


def build(say: Callable[[str], None]) -> dict[str, Path]:
    """Layouts of the demo images by name; the first time takes about a minute."""
    if not CACHE.exists():
        say("building the demo images from Debian packages (once, about a minute)")
    try:
        return build_demo_images(CACHE)
    except BuildError as error:
        raise RuntimeFailed(f"the demo images cannot be built: {error}") from error


def registry_command(paths: LabPaths, record: LabRecord) -> list[str]:
    """Writes the registry's configuration; the command line that serves it."""
    return LabRegistry(paths.machine_state(REGISTRY), record.registry.partition(":")[0], REGISTRY_PORT).prepare()


def push(layouts: Mapping[str, Path], registry: str, say: Callable[[str], None]) -> None:
    """Push every layout under its name; what is there already is not sent again."""
    _wait_for(registry)
    calls = Calls(RegistryConfig(insecure=frozenset({registry})))
    try:
        results = [push_layout(calls, registry, path, name) for name, path in sorted(layouts.items())]
    finally:
        calls.close()
    sent = sum(result.bytes_sent for result in results)
    say(f"registry {registry}: {len(results)} images, {sent >> 20} MiB sent")


def _wait_for(registry: str) -> None:
    host, _, port = registry.partition(":")
    end = time.monotonic() + _ANSWER_S
    while True:
        connection = http.client.HTTPConnection(host, int(port), timeout=2)
        try:
            connection.request("GET", "/v2/")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() > end:
                raise Unavailable(f"the lab's registry at {registry} does not answer ({error})") from error
            time.sleep(0.05)
        finally:
            connection.close()
