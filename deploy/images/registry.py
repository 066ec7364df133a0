"""`registry:2` as Docker's is: Debian's docker-registry with that image's configuration, entry point and volume.

Rules: pure, but for the packages read. What Docker's documentation says of the image holds: `/etc/docker/registry/config.yml`,
data in `/var/lib/registry`, port 5000, `REGISTRY_*` variables over the configuration, `registry garbage-collect` as a command.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from deploy.images.debs import FileEntry, deb_entries

PACKAGES: Final = ("docker-registry", "libc6")
TAGS: Final = ("2", "latest")
_CONFIG_FILE: Final = "etc/docker/registry/config.yml"
_CONFIG: Final = """\
version: 0.1
log:
  fields:
    service: registry
storage:
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: /var/lib/registry
http:
  addr: :5000
  headers:
    X-Content-Type-Options: [nosniff]
health:
  storagedriver:
    enabled: true
    interval: 10s
    threshold: 3
"""
_ENTRYPOINT: Final = """\
#!/bin/sh
set -e
case "$1" in
    *.yaml|*.yml) set -- registry serve "$@" ;;
    serve|garbage-collect|help|-*) set -- registry "$@" ;;
esac
exec "$@"
"""


def registry_entries(debs: Sequence[Path]) -> Iterator[FileEntry]:
    """The program with the C library it is linked to; Debian's own service and settings stay out."""
    for deb in debs:
        for entry in deb_entries(deb):
            if not entry.path.startswith(("etc/", "usr/lib/systemd", "var/")) and "/gconv/" not in entry.path:
                yield entry
    yield FileEntry("usr/bin/registry", "link", 0o777, link="docker-registry")
    yield FileEntry("var/lib/registry", "dir", 0o755)
    yield FileEntry("entrypoint.sh", "file", 0o755, data=_ENTRYPOINT.encode())
    yield FileEntry(_CONFIG_FILE, "file", 0o644, data=_CONFIG.encode())


def registry_config(path: str) -> dict[str, Any]:
    """How it is run; `path` is its PATH variable."""
    return {
        "Env": [path],
        "Entrypoint": ["/entrypoint.sh"],
        "Cmd": [f"/{_CONFIG_FILE}"],
        "ExposedPorts": {"5000/tcp": {}},
        "Volumes": {"/var/lib/registry": {}},
    }
