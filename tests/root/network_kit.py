"""Two nodes for the tests of the kernel's NetworkDriver: network namespaces on a bridge in a third, nothing of the host's."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NET = "10.77.0.0/16"
PREFIX6 = "fd00:77::/96"
SLICES = {"n1": "10.77.1.0/24", "n2": "10.77.2.0/24"}
UNDERLAY = {"n1": "192.0.2.1", "n2": "192.0.2.2"}
SECOND = {"name": "back", "vni": 4098, "subnet": "10.78.0.0/16", "slice": "10.78.1.0/24"}


def sh(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


class Node:
    """A driver process in namespace `netns`, spoken to by lines of JSON."""

    def __init__(self, netns: str, name: str, run_dir: Path) -> None:
        self.name = name
        self._argv = ["nsenter", f"--net=/run/netns/{netns}", "setpriv", "--pdeathsig", "KILL"]
        self._argv += [sys.executable, "-m", "tests.root.network_node", str(run_dir), UNDERLAY[name]]
        self.start()

    def run_as_nobody(self, *argv: str) -> None:
        """In the node's namespace, also while there is no driver."""
        sh(*self._argv[:2], *argv)

    def start(self) -> None:
        self.process = subprocess.Popen(self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "{}\n"

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def __call__(self, do: str, **rest: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **rest}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["ok"]

    def run(self, *argv: str) -> tuple[int, str]:
        answer = self("run", argv=list(argv))
        return answer["code"], answer["out"]

    def network(self, *others: str, fixed: dict[str, list[str]] | None = None, **more: Any) -> dict[str, Any]:
        """`shop_default` with these nodes; `fixed`: addresses of each node's containers outside its slice."""
        told = fixed or {}
        peers = [{"node": o, "underlay": UNDERLAY[o], "slice": SLICES[o], "addresses": told.get(o, [])} for o in others]
        row = {"name": "shop_default", "vni": 4097, "subnet": NET, "slice": SLICES[self.name], "peers": peers}
        return {**row, "addresses": told.get(self.name, []), **more}

    def apply(self, *others: str, fixed: dict[str, list[str]] | None = None, **more: Any) -> None:
        self("apply", networks=[self.network(*others, fixed=fixed, **more)])

    def inside(self, path: str, *argv: str) -> str:
        code, out = self.run("nsenter", f"--net={path}", *argv)
        assert code == 0, out
        return out

    def ping(self, inside: str, address: str, *options: str) -> bool:
        """One answer is enough: a link that came up this moment loses what is sent through it."""
        path = f"--net={inside}"
        return self.run("nsenter", path, "ping", "-c", "1", "-w", "2", "-i", "0.2", *options, address)[0] == 0


@contextlib.contextmanager
def two_nodes(tmp_path: Path) -> Iterator[dict[str, Node]]:
    """`n1` and `n2`; at the end everything is removed, and nothing may be left."""
    tag = secrets.token_hex(3)
    spaces = {name: f"shtest-{tag}-{name}" for name in ("sw", *SLICES)}
    made: dict[str, Node] = {}
    with contextlib.ExitStack() as stack:
        for space in spaces.values():
            sh("ip", "netns", "add", space)
            stack.callback(subprocess.run, ["ip", "netns", "del", space], check=False)
        sh("ip", "-n", spaces["sw"], "link", "add", "br0", "up", "type", "bridge")
        for name, address in UNDERLAY.items():
            sh("ip", "-n", spaces["sw"], "link", "add", name, "type", "veth", "peer", "name", "up0", "netns", spaces[name])
            sh("ip", "-n", spaces["sw"], "link", "set", name, "up", "master", "br0")
            sh("ip", "-n", spaces[name], "address", "add", f"{address}/24", "dev", "up0")
            sh("ip", "-n", spaces[name], "link", "set", "up0", "up")
            made[name] = Node(spaces[name], name, tmp_path / name)
            stack.callback(made[name].stop)
        yield made
        for node in made.values():
            node("close", remove=True)
            assert not list((tmp_path / node.name / "netns").iterdir())
            left = [row for row in node.run("ip", "-br", "link")[1].splitlines() if row.startswith("sh")]
            assert left == []
            assert "shoal" not in node.run("nft", "list", "tables")[1]
