"""A stand-in for the agent as a process of its own, to be killed: `python -m tests.root.runtime_agent DIR PARENT`.

It enters its private mounts, recovers, then obeys lines of JSON on stdin and answers each with a line on stdout:
{"run": [command...]} -> {"id", "pid"};  {"created": [command...]} -> the same, not started;
{"found": true} -> what recover gave;  {"exit": id} -> {"code", "oom", "message"};
{"exec": [id, command...]} -> {"code", "text"};  {"delete": id};  {"stop": true}.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from agent.runtime.mountns import enter_private_mounts
from model import codec
from tests.root.runtime_kit import Kit, kit_open


async def _obey(kit: Kit, found: list[Any], request: dict[str, Any]) -> Any:
    from agent.plan.container import ExecRequest

    match request:
        case {"run": command}:
            order = kit.order(*command)
            container_id = await kit.started(order)
            return {"id": container_id, "pid": kit.pid(container_id), "monitor": kit.monitor(container_id)}
        case {"created": command}:
            order = kit.order(*command)
            return {"id": order.id, "pid": await kit.runtime.create(order)}
        case {"found": _}:
            return found
        case {"exit": container_id}:
            exited = await kit.exit_of(container_id)
            return {"code": exited.exit_code, "oom": exited.oom, "message": exited.message}
        case {"exec": [container_id, *command]}:
            session = await kit.runtime.exec(container_id, ExecRequest(tuple(command)))
            text = b"".join([data async for _, data in session.output()])
            code = await session.wait()
            await session.close()
            return {"code": code, "text": text.decode()}
        case {"delete": container_id}:
            await kit.runtime.delete(container_id)
    return {}


async def _main(directory: Path, parent: str) -> None:
    kit, recovered = await kit_open(directory, "crun", parent)
    found = [codec.to_plain(item) for item in recovered]
    collector = asyncio.ensure_future(kit.collect())
    loop = asyncio.get_running_loop()
    print(json.dumps({"ready": True}), flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        request = json.loads(line)
        if "stop" in request:
            break
        print(json.dumps(await _obey(kit, found, request)), flush=True)
    collector.cancel()
    await kit.runtime.close()


if __name__ == "__main__":
    root = Path(sys.argv[1])
    enter_private_mounts([root / "data/containers", root / "run"])
    asyncio.run(_main(root, sys.argv[2]))
