"""One node of the network tests: run in a network namespace of its own, takes one JSON command a line, answers with one.
A container's network is `name` or `name=address`.

Usage: python -m tests.root.network_node RUN_DIR UNDERLAY
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agent.network.balance_port import NoBalancer
from agent.network.driver import KernelNetwork
from agent.network.kernel import own_routes
from agent.network.port import AttachmentWanted, NetworkDriver
from agent.network.rtnl import Netlink
from agent.plan.network import LinkPlan, NetworkWanted, PeerWanted
from model.errors import ShoalError

remembered: set[tuple[str, str]] = set()
told: list[list[str]] = []


class Told(NoBalancer):
    """Keeps which networks the balancer was told of."""

    def networks(self, plans: Mapping[str, LinkPlan]) -> None:
        told.append(sorted(plans))


def forgotten(network: str, address: str) -> bool:
    return (network, address) not in remembered


def network_wanted(row: dict[str, Any]) -> NetworkWanted:
    peers = [PeerWanted(**{**peer, "addresses": tuple(peer.get("addresses", ()))}) for peer in row.get("peers", [])]
    return NetworkWanted(**{**row, "peers": tuple(peers), "addresses": tuple(row.get("addresses", ()))})


async def perform(driver: NetworkDriver, command: dict[str, Any]) -> Any:
    match command:
        case {"do": "apply", **rest}:
            orders = rest.get("orders") or [rest["networks"]]
            await asyncio.gather(*(driver.apply([network_wanted(row) for row in order]) for order in orders))
            return None
        case {"do": "told"}:
            return told
        case {"do": "attach", "id": container_id, "networks": names}:
            return asdict(await driver.attach(container_id, [AttachmentWanted(*name.split("=")) for name in names]))
        case {"do": "connect", "id": container_id, "network": name}:
            return asdict(await driver.connect(container_id, AttachmentWanted(*name.split("="))))
        case {"do": "disconnect", "id": container_id, "network": name}:
            return asdict(await driver.disconnect(container_id, name))
        case {"do": "remember", "places": places}:
            remembered.clear()
            return remembered.update((network, address) for network, address in places)
        case {"do": "own_routes"}:
            with Netlink() as nl:
                return own_routes(nl)
        case {"do": "detach", "id": container_id}:
            return await driver.detach(container_id)
        case {"do": "detach_all", "ids": ids}:
            ends = await asyncio.gather(*(driver.detach(container_id) for container_id in ids), return_exceptions=True)
            return [f"{type(end).__name__}: {end}" if end else "" for end in ends]
        case {"do": "recover", "ids": ids}:
            return await driver.recover(ids)
        case {"do": "guard", "addresses": addresses}:
            return await driver.guard(addresses)
        case {"do": "repair"}:
            return await driver.repair()
        case {"do": "close", "remove": remove}:
            return await driver.close(remove=remove)
        case {"do": "run", "argv": argv}:
            done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, timeout=20, check=False)
            return {"code": done.returncode, "out": done.stdout + done.stderr}
    raise ValueError(command)


async def main() -> None:
    driver = KernelNetwork(Path(sys.argv[1]), sys.argv[2], balance=Told(), forgotten=forgotten)
    await driver.open()
    print("{}", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        try:
            answer = {"ok": await perform(driver, json.loads(line))}
        except ShoalError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
