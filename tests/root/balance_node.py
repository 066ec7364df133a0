"""One node of the load balancer's tests, in a network namespace of its own: takes one JSON command a line, answers with one."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from agent.core.clock import RealClock
from agent.network.balance_port import LocalPort
from agent.network.balancer import KernelBalancer
from agent.network.nfnl import Conntrack
from agent.network.nft import Nft
from agent.plan.names import EndpointsMessage
from agent.plan.network import LinkPlan
from model import codec
from model.errors import ShoalError

SAID: list[list[str]] = []


async def perform(balancer: KernelBalancer, command: dict[str, Any]) -> Any:
    match command:
        case {"do": "take", "message": message}:
            return balancer.take(codec.from_plain(EndpointsMessage, message))
        case {"do": "networks", "plans": plans}:
            return balancer.networks({plan["name"]: codec.from_plain(LinkPlan, plan) for plan in plans})
        case {"do": "applied", "beyond": beyond}:
            return await asyncio.wait_for(balancer.applied(beyond), 10)
        case {"do": "floor", "number": number}:
            return balancer.floor(number)
        case {"do": "forgotten", "place": place}:
            return balancer.forgotten(*place)
        case {"do": "drained", "places": places, "within_s": within_s}:
            return await balancer.drained([(network, address) for network, address in places], within_s)
        case {"do": "publish", "sandbox": sandbox, "ports": ports}:
            rows = balancer.publish(sandbox, [codec.from_plain(LocalPort, port) for port in ports], f"replica {sandbox}")
            return [row.published for row in rows]
        case {"do": "held", "beyond": beyond}:
            return await asyncio.wait_for(balancer.held(beyond), 10)
        case {"do": "traffic"}:
            return [row._asdict() for row in await balancer.traffic()]
        case {"do": "open"}:
            balancer._counting._next_look_s = 0.0  # it has rested
            return {row.replica: row.open for row in await balancer.load()}
        case {"do": "repair"}:
            return await balancer.repair()
        case {"do": "said"}:
            return SAID
        case {"do": "close", "remove": remove}:
            return await balancer.close(remove=remove)
    raise ValueError(command)


async def main() -> None:
    balancer = KernelBalancer(Nft(), sys.argv[1], Conntrack(), RealClock(), lambda *words: SAID.append(list(words)))
    await balancer.open()
    print("{}", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        try:
            answer = {"ok": await perform(balancer, json.loads(line))}
        except (ShoalError, TimeoutError) as error:
            answer = {"error": str(error) or type(error).__name__}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
