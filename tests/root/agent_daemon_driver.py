"""Runs a real agent daemon through its day and prints what was seen as one line of JSON. Started by test_agent_daemon.py.

Rules: runs as the first process of its own pid, mount and network namespaces, so nothing outlives it. Containers are real
(conmon, crun, overlayfs, veth, bridge); only the controller is played by this script.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from grpc import aio

from model import codec
from model.pki_names import node_server_name
from model.spec import Port, Resources, RestartPolicy, ServiceSpec
from protos import node_pb2 as pb
from protos import node_pb2_grpc
from tests.contract.agent_support import Dispatcher, DispatchSession, Keys, desired, web
from tests.patience import PATIENCE

COUNT = 6
PORT = 17445
SLEEP = ("sleep", "1000")


def archive() -> bytes:
    """A docker-archive of one busybox image, `web:1`, with a volume /data that has content."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name in ("bin", "tmp", "etc", "proc", "sys", "dev", "data"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        busybox = Path("/bin/busybox").read_bytes()
        _add(tar, "bin/busybox", busybox, 0o755)
        for name in ("sh", "sleep", "ip", "cat", "head", "tail"):
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
        _add(tar, "data/seed", b"seed")
    data = layer.getvalue()
    config = {
        "architecture": "amd64", "os": "linux",
        "config": {"Cmd": ["/bin/sleep", "1000"], "Env": ["PATH=/bin"], "Volumes": {"/data": {}}},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(data).hexdigest()]},
    }  # fmt: skip
    manifest = [{"Config": "config.json", "RepoTags": ["web:1"], "Layers": ["layer.tar"]}]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in (("config.json", config), ("manifest.json", manifest)):
            _add(tar, name, json.dumps(content).encode())
        _add(tar, "layer.tar", data)
    return out.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))


class Day:
    """One agent, killed and started again, and what was seen of it."""

    def __init__(self, work: Path, cgroup: str) -> None:
        self.work = work
        self.data, self.run = work / "data", work / "run"
        self.cgroup = cgroup
        self.seen: dict[str, Any] = {}
        self.keys = Keys.make()
        self.dispatcher = Dispatcher(self.keys)
        self.agent: subprocess.Popen[bytes] | None = None
        self.session: DispatchSession

    def start(self) -> None:
        words = [
            sys.executable, "-m", "shoal", "agent", "--data-dir", str(self.data), "--run-dir", str(self.run), "--name", "n1",
            "--advertise", "10.99.0.1", "--listen", f"127.0.0.1:{PORT}", "--cgroup-parent", self.cgroup,
        ]  # fmt: skip
        with open(self.work / "agent.log", "ab") as log:
            self.agent = subprocess.Popen(words, stderr=log)

    def kill(self) -> None:
        assert self.agent is not None
        self.agent.kill()
        self.agent.wait()

    def enroll(self) -> None:
        (self.data / "pki").mkdir(parents=True)
        for name, data in (
            ("ca.pem", self.keys.node.ca),
            ("node.pem", self.keys.node.certificate),
            ("node.key", self.keys.node.key),
        ):
            (self.data / "pki" / name).write_bytes(data)
        plain = {"name": "n1", "node_id": "id1", "controllers": [self.dispatcher.address]}
        (self.data / "node.json").write_text(json.dumps(plain))

    def stub(self) -> tuple[Any, Any]:
        options = [("grpc.ssl_target_name_override", node_server_name("n1"))]
        channel = aio.secure_channel(f"127.0.0.1:{PORT}", self.keys.controller.client(), options=options)
        return channel, node_pb2_grpc.AgentStub(channel)

    async def inspect(self, slot: int) -> dict[str, Any]:
        channel, stub = self.stub()
        async with channel:
            key = pb.ReplicaKey(service_id="s1", slot=slot)
            answer = await stub.Inspect(pb.ContainerRequest(key=key), wait_for_ready=True, timeout=10 * PATIENCE)
        return dict(json.loads(answer.json))

    async def exec(self, slot: int, *command: str) -> tuple[str, int]:
        channel, stub = self.stub()
        async with channel:
            call = stub.Exec()
            key = pb.ReplicaKey(service_id="s1", slot=slot)
            await call.write(pb.ExecInput(start=pb.ExecStart(key=key, command=command)))
            output, code = b"", -1
            while isinstance(message := await call.read(), pb.ExecOutput):
                output += message.stdout + message.stderr
                code = message.exit_code if message.WhichOneof("kind") == "exit_code" else code
        return output.decode(), code

    async def links(self, slot: int) -> list[str]:
        """Interfaces in the container."""
        text, _ = await self.exec(slot, "ip", "-o", "link")
        return [line.split(": ")[1].split("@")[0] for line in text.splitlines()]

    async def load(self) -> None:
        channel, stub = self.stub()
        async with channel:
            await stub.LoadImage(iter([pb.Chunk(data=archive())]), wait_for_ready=True, timeout=20 * PATIENCE)

    async def status(self, wanted: Callable[[pb.Replica], bool]) -> pb.Replica:
        """The first replica reported from now on that is as wanted; sentences of events are kept on the way."""
        while True:
            status = await self.session.next("status")
            self.seen.setdefault("sentences", []).extend(event.sentence for event in status.events)
            for replica in status.replicas:
                if wanted(replica):
                    return pb.Replica.FromString(replica.SerializeToString())


def spec(*command: str, **fields: Any) -> ServiceSpec:
    base = web()
    return replace(base, container=replace(base.container, command=command, init=True, **fields))


async def run_many(day: Day) -> None:
    before = time.monotonic()
    await day.session.send(desired(1, COUNT, spec(*SLEEP)))
    await day.session.until_states(dict.fromkeys(range(1, COUNT + 1), "running"))
    day.seen["start_s"] = time.monotonic() - before
    day.seen["exec"] = await day.exec(2, "cat", "/data/seed")
    day.seen["exec_missing"] = (await day.exec(2, "nope"))[1]


async def killed_container(day: Day) -> None:
    before = await day.inspect(1)
    began = time.monotonic()
    os.kill(before["State"]["Pid"], 9)
    await day.status(lambda row: row.key.slot == 1 and row.state == "running" and row.restarts == 1)
    after = await day.inspect(1)
    day.seen["back_s"] = time.monotonic() - began
    day.seen["same_address"] = before["NetworkSettings"] == after["NetworkSettings"]
    day.seen["new_container"] = before["Id"] != after["Id"]


async def killed_agent(day: Day) -> None:
    before = [(await day.inspect(slot))["State"]["Pid"] for slot in range(1, COUNT + 1)]
    day.kill()
    day.start()
    day.session = await day.dispatcher.session()
    whole = await day.session.next("status")
    day.seen["adopted"] = sorted((row.key.slot, row.state, row.restarts) for row in whole.replicas)
    day.seen["same_pids"] = before == [(await day.inspect(slot))["State"]["Pid"] for slot in range(1, COUNT + 1)]
    await day.session.send(desired(1, COUNT))


async def ended_meanwhile(day: Day) -> None:
    pid = (await day.inspect(3))["State"]["Pid"]
    day.kill()
    os.kill(pid, 9)
    day.start()
    day.session = await day.dispatcher.session()
    row = await day.status(lambda row: row.key.slot == 3 and row.HasField("exit_code"))
    day.seen["exit_code_meanwhile"] = row.exit_code
    await day.status(lambda row: row.key.slot == 3 and row.state == "running")


def wired(generation: int, *networks: str) -> pb.ToNode:
    message = desired(generation, COUNT)
    message.desired.networks.add(name="other", vni=8, subnet="10.1.0.0/16", slice="10.1.1.0/24")
    message.desired.services[0].rewired = bool(networks)
    for network in networks:
        message.desired.services[0].networks.add(network=network)
    return message


async def rewired(day: Day) -> None:
    """Networks come and go while the container runs, over a restart of the agent."""
    before = await day.inspect(2)
    held = before["NetworkSettings"]["Networks"]["shop_default"]["IPAddress"]
    await day.session.send(wired(2, "shop_default", "other"))
    row = await day.status(lambda row: row.key.slot == 2 and len(row.addresses) == 2)
    got = [item.address.split("/")[0] for item in row.addresses]
    day.seen["rewired_kept"] = got[0] == held
    day.seen["rewired_links"] = await day.links(2)
    text, _ = await day.exec(2, "cat", "/etc/hosts")
    day.seen["rewired_hosts"] = [line.split("\t")[0] for line in text.splitlines()[-2:]] == got
    day.kill()
    day.start()
    day.session = await day.dispatcher.session()
    whole = await day.session.next("status")
    (again,) = [row for row in whole.replicas if row.key.slot == 2]
    day.seen["rewired_adopted"] = [item.address.split("/")[0] for item in again.addresses] == got
    await day.session.send(wired(3))
    await day.status(lambda row: row.key.slot == 2 and len(row.addresses) == 1)
    day.seen["rewired_back"] = await day.links(2)
    day.seen["rewired_same_container"] = (await day.inspect(2))["State"]["Pid"] == before["State"]["Pid"]
    await day.session.send(desired(1, COUNT))


def published(row: pb.Replica) -> bool:
    return row.key.service_id == "pub" and row.state == "running" and bool(row.ports)


async def published_port(day: Day) -> None:
    """A port of mode host leads to the container, under the same number after a restart of the agent."""
    listening = ("sh", "-c", "while :; do echo hello | busybox nc -l -p 80; done")
    message = desired(4, COUNT)
    service = message.desired.services.add(service_id="pub", name="pub")
    service.slots.add(slot=90, version=1, created_ms=9)
    service.specs.add(version=1, json=codec.encode(spec(*listening, ports=(Port(80, mode="host"),))))
    await day.session.send(message)
    first = await day.status(published)
    day.seen["published_answer"] = await hello(first.ports[0].published)
    day.kill()
    day.start()
    day.session = await day.dispatcher.session()
    again = await day.status(published)
    day.seen["published_same"] = list(first.ports) == list(again.ports)
    day.seen["published_again"] = await hello(again.ports[0].published)
    await day.session.send(desired(1, COUNT))
    await day.session.until_states(dict.fromkeys(range(1, COUNT + 1), "running"))


async def hello(published: str) -> str:
    """What the container says on the port; asked again while it does not listen yet."""
    port = int(published.rpartition(":")[2])
    async with asyncio.timeout(10 * PATIENCE):
        while True:
            with contextlib.suppress(ConnectionError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    if text := (await reader.read(100)).decode().strip():
                        return text
                finally:
                    writer.close()
            await asyncio.sleep(0.05)


async def failures(day: Day) -> None:
    once = RestartPolicy("none")
    rows = {
        "oom": spec("sh", "-c", "head -c 100m /dev/zero | tail", limits=Resources(memory_bytes=20 << 20), restart=once),
        "command": replace(spec(), container=replace(web().container, command=("nope",))),
        "image": replace(web(), container=replace(web().container, image="127.0.0.1:1/none:1", pull_policy="never")),
        "code": spec("sh", "-c", "exit 3", restart=once),
    }
    message = desired(2, COUNT)
    for number, (name, row) in enumerate(rows.items()):
        service = message.desired.services.add(service_id=name, name=name)
        service.slots.add(slot=100 + number, version=1, created_ms=9)
        service.specs.add(version=1, json=codec.encode(row))
    await day.session.send(message)
    found: dict[str, list[Any]] = {}

    def ended(row: pb.Replica) -> bool:
        if row.state in ("failed", "rejected"):
            found[row.key.service_id] = [row.state, row.exit_code if row.HasField("exit_code") else None, row.message]
        return len(found) == len(rows)

    await day.status(ended)
    day.seen["failures"] = found


def fill(path: Path) -> None:
    """Until nothing more fits."""
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 65536)


def link_names() -> list[str]:
    links = json.loads(subprocess.run(["ip", "-j", "link"], capture_output=True, check=True).stdout)
    return [link["ifname"] for link in links if link["ifname"] != "lo"]


async def full_disk(day: Day) -> None:
    await day.session.send(desired(3, COUNT))
    await day.session.until_states(dict.fromkeys(range(1, COUNT + 1), "running"))  # what goes leaves room on the disk
    filler = day.data / "filler"
    fill(filler)
    await day.session.send(desired(4, COUNT + 1))
    row = await day.status(lambda row: row.key.slot == COUNT + 1 and row.state == "failed")
    day.seen["full_disk"] = row.message
    filler.unlink()
    await day.status(lambda row: row.key.slot == COUNT + 1 and row.state == "running")


async def removed(day: Day) -> None:
    await day.session.send(pb.ToNode(goodbye=pb.Goodbye(reason="removed by the test", removed=True)))
    assert day.agent is not None
    day.seen["exit"] = await asyncio.to_thread(day.agent.wait)
    day.seen["identity_left"] = (day.data / "node.json").exists() or (day.data / "pki").exists()
    day.seen["replicas_left"] = len(list((day.data / "replicas").iterdir()))
    day.seen["volumes_left"] = len(list((day.data / "volumes").iterdir()))
    day.seen["links_left"] = link_names()
    mounts = Path("/proc/self/mounts").read_text()
    day.seen["mounts_left"] = [line for line in mounts.splitlines() if str(day.work) in line and "overlay" in line]
    processes = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in os.listdir("/proc") if pid.isdigit()]
    day.seen["processes_left"] = [line.decode(errors="replace") for line in processes if b"sleep" in line or b"conmon" in line]


PARTS = (
    run_many, killed_container, killed_agent, ended_meanwhile, rewired, published_port, failures, full_disk, removed,
)  # fmt: skip


async def main(work: Path, cgroup: str) -> None:
    day = Day(work, cgroup)
    async with day.dispatcher.on():
        day.enroll()
        day.start()
        try:
            day.session = await day.dispatcher.session()
            await day.load()
            for part in PARTS:
                day.seen["part"] = part.__name__
                await part(day)
            day.seen["part"] = "done"
        finally:
            day.kill()
            print(json.dumps(day.seen))


if __name__ == "__main__":
    for words in (["link", "set", "lo", "up"], ["addr", "add", "10.99.0.1/24", "dev", "lo"]):
        subprocess.run(["ip", *words], check=True)
    (Path(sys.argv[1]) / "data").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "none", Path(sys.argv[1]) / "data"], check=True)
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
