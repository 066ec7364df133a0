"""Full names: what a service, network or volume of a stack is called in the cluster.

Rules: `<stack>_<key>`; a name the file gives, or an external thing, keeps its own. A name that only repeats the project's
default (`<project>_<key>`) follows the stack when the stack is called otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Names:
    """The names of one project under the stack name `stack`."""

    def __init__(self, stack: str, project: Mapping[str, Any]) -> None:
        self.stack = stack
        self._project = project

    def service(self, key: str) -> str:
        return f"{self.stack}_{key}"

    def network(self, key: str) -> str:
        return self._resource("networks", key)

    def volume(self, key: str) -> str:
        return self._resource("volumes", key)

    def secret(self, key: str) -> str:
        return self._resource("secrets", key)

    def config(self, key: str) -> str:
        return self._resource("configs", key)

    def _resource(self, section: str, key: str) -> str:
        entry = (self._project.get(section) or {}).get(key) or {}
        name = entry.get("name")
        if name and name != f"{self._project.get('name')}_{key}":
            return str(name)
        return str(name or key) if entry.get("external") else f"{self.stack}_{key}"
