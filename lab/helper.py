"""The lab's helper on the host: makes and deletes machines for the controller's node groups, as a cloud would.

Rules: it listens on a socket in the lab's own folder, one request and one answer a connection, a line of JSON each
(controller/providers/wire.py). It stands in the lab's cgroup and in the host's namespaces, so a machine outlives the controller
that asked for it, and `lab down` finds both. It keeps nothing: what there is stands in the lab's record.
"""

from __future__ import annotations

import json
import os
import socketserver
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from model.errors import BadInput, ShoalError

LINE_MAX: Final = 1 << 20
READ_S: Final = 10.0


class _Handler(socketserver.StreamRequestHandler):
    timeout = READ_S

    def handle(self) -> None:
        assert isinstance(self.server, _Server)
        try:
            answer = answered(self.server.lab, json.loads(self.rfile.readline(LINE_MAX)))
        except ShoalError as error:
            answer = {"error": str(error)}
        except (OSError, ValueError, KeyError, TypeError) as error:
            answer = {"error": f"the lab's helper: {type(error).__name__}: {error}"}
        self.wfile.write(json.dumps(answer).encode() + b"\n")


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def __init__(self, path: Path, lab: str) -> None:
        self.lab = lab
        super().__init__(str(path), _Handler)


def answered(lab: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Does what is asked. Raises ShoalError."""
    from lab.cluster import Lab  # heavy, and most labs never ask
    from lab.layout import MachineRecord

    found, group = Lab(lab), str(asked["group"])
    match asked["verb"]:
        case "create":
            template = asked["template"]
            labels = tuple(sorted((str(key), str(value)) for key, value in template["labels"].items()))
            machine = MachineRecord(
                str(asked["name"]), 0, float(template["cpus"]), int(template["memory_bytes"]), labels=labels, group=group
            )
            return {"id": found.make_machine(machine, str(asked["join"]["token"]))}
        case "delete":
            found.delete_machine(str(asked["name"]), group)
            return {}
        case "list":
            record = found.record()
            return {"machines": [{"name": row.name, "id": record.address(row)} for row in found.machines_of(group)]}
        case verb:
            raise BadInput(f"the lab's helper does not know {verb!r}")


def main(argv: Sequence[str]) -> int:
    """`shoal lab-helper LAB`: for ever."""
    from lab.layout import LabPaths

    path = LabPaths(argv[0]).socket
    path.unlink(missing_ok=True)
    os.umask(0o077)
    with _Server(path, argv[0]) as server:
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
