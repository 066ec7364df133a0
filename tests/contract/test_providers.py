"""What every provider of machines promises: once is enough, gone is gone, a list is whole, every failure is one line, and what
is given up leaves nothing behind. Against the twin in memory, commands, and a lab's helper with a lab of paper."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.decide.machines.types import Listed
from controller.providers.command import OUTPUT_MAX, run
from controller.providers.commands import CommandProvider
from controller.providers.lab import LabProvider
from controller.providers.memory import MemoryProvider
from controller.providers.port import Join, Order, Provider, ProviderError
from controller.providers.ssh import SshProvider
from model.autoscale import MachineTemplate, NodeGroupSpec, ProviderSpec
from tests.contract.controller_harness import eventually

pytestmark = [pytest.mark.contract, pytest.mark.timeout(60)]

JOIN = Join(("https://10.0.0.1:7443",), "SHOAL-1-secret")
CLOUD = """
import json, pathlib, sys
folder, asked = pathlib.Path(sys.argv[1]), json.load(sys.stdin)
assert "SHOAL" not in " ".join(sys.argv)
file = folder / f"{asked['cluster']}.{asked['group']}.{asked.get('name', '')}"
match asked["verb"]:
    case "create":
        assert asked["join"]["token"] and asked["join"]["urls"] and asked["template"]["memory_bytes"]
        if not file.exists():
            file.write_text(json.dumps(asked))
        print(json.dumps({"id": "m-" + asked["name"]}))
    case "delete":
        file.unlink(missing_ok=True)
    case "list":
        names = sorted(path.name.split(".")[2] for path in folder.glob(f"{asked['cluster']}.{asked['group']}.*"))
        print(json.dumps({"machines": [{"name": name, "id": "m-" + name} for name in names]}))
"""


def order(name: str, group: str = "burst") -> Order:
    return Order("c1", group, name, MachineTemplate(2.0, 1 << 30), (("pool", "burst"),))


@contextlib.asynccontextmanager
async def commands(folder: Path) -> AsyncIterator[Provider]:
    script = folder / "cloud.py"
    script.write_text(CLOUD)
    (folder / "there").mkdir()
    words = (sys.executable, str(script), str(folder / "there"))
    yield CommandProvider(ProviderSpec("exec", words, words, words))


@contextlib.asynccontextmanager
async def helper(folder: Path) -> AsyncIterator[Provider]:
    """A server that speaks as lab/helper.py does, with the commands' cloud behind it: its lines are this process's."""
    async with commands(folder) as behind:
        assert isinstance(behind, CommandProvider)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            line = await reader.readline()
            try:
                said = await run("helper", behind._spec.create, line)
                writer.write(said.strip() + b"\n" if said.strip() else b"{}\n")
            except ProviderError as error:
                writer.write(json.dumps({"error": str(error)}).encode() + b"\n")
            writer.close()

        with tempfile.TemporaryDirectory() as short:
            path = f"{short}/s"
            async with await asyncio.start_unix_server(serve, path):
                yield LabProvider(path)


@contextlib.asynccontextmanager
async def memory(folder: Path) -> AsyncIterator[Provider]:
    yield MemoryProvider()


@pytest.fixture(params=[memory, commands, helper], ids=["memory", "exec", "lab"])
async def provider(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Provider]:
    async with request.param(tmp_path) as made:
        yield made


async def test_what_is_made_is_listed_and_what_is_deleted_is_not(provider: Provider) -> None:
    assert await provider.list("c1", "burst") == ()
    assert await provider.create(order("burst-1"), JOIN) == "m-burst-1"
    await provider.create(order("burst-2"), JOIN)
    assert await provider.list("c1", "burst") == (Listed("burst-1", "m-burst-1"), Listed("burst-2", "m-burst-2"))
    await provider.delete(order("burst-1"))
    assert await provider.list("c1", "burst") == (Listed("burst-2", "m-burst-2"),)


async def test_twice_is_once(provider: Provider) -> None:
    for _ in range(2):
        assert await provider.create(order("burst-1"), JOIN) == "m-burst-1"
    assert len(await provider.list("c1", "burst")) == 1
    for _ in range(2):
        await provider.delete(order("burst-1"))
    assert await provider.list("c1", "burst") == ()


async def test_other_groups_and_clusters_machines_are_not_listed(provider: Provider) -> None:
    await provider.create(order("other-1", "other"), JOIN)
    assert await provider.list("c1", "burst") == ()
    assert await provider.list("c2", "other") == ()


# -- what commands do wrong --------------------------------------------------------------------------------------------


def shell(text: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("echo no quota >&2; exit 3", "create burst-1: ended with exit code 3: no quota"),
        ("exit 1", "create burst-1: ended with exit code 1: it said nothing"),
        ("kill -9 $$", "create burst-1: ended with exit code -9: it said nothing"),
        ("echo done", "create burst-1: expected JSON, found 'done'"),
        ('echo \'{"id": 7}\'', 'create burst-1: expected {"id": "..."}, found \'{"id": 7}\''),
        ("head -c 3000000 /dev/zero", "create burst-1: said more than 1 MiB"),
    ],
)
async def test_a_command_that_fails_is_one_line(text: str, problem: str) -> None:
    provider = CommandProvider(ProviderSpec("exec", shell(text)))
    with pytest.raises(ProviderError) as caught:
        await provider.create(order("burst-1"), JOIN)
    assert str(caught.value) == problem


async def test_a_list_that_says_nothing_is_no_empty_list() -> None:
    for text in ("true", "echo '[]'", "echo '{\"machines\": [{}]}'"):
        with pytest.raises(ProviderError, match="list: expected"):
            await CommandProvider(ProviderSpec("exec", list=shell(text))).list("c1", "burst")


async def test_a_program_that_is_not_there_is_one_line() -> None:
    with pytest.raises(ProviderError, match="create burst-1: /no/such cannot be run: No such file or directory"):
        await CommandProvider(ProviderSpec("exec", ("/no/such",))).create(order("burst-1"), JOIN)


async def test_a_command_need_not_read_what_it_is_told() -> None:
    await run("x", shell("exec <&-; true"), b"x" * OUTPUT_MAX)


async def test_a_command_that_is_given_up_is_killed_with_what_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    command = f"sleep 1000 & echo $$ $! > {pids}; wait"
    running = asyncio.create_task(run("x", shell(command), b""))
    await asyncio.to_thread(eventually, lambda: pids.exists() and len(pids.read_text().split()) == 2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    for pid in map(int, pids.read_text().split()):
        assert _gone(pid)


async def test_what_a_command_leaves_behind_does_not_hold_it_up(tmp_path: Path) -> None:
    begin = time.monotonic()
    assert await run("x", shell(f"sleep 1000 & echo $! > {tmp_path}/pid; echo said"), b"") == b"said\n"
    assert time.monotonic() - begin < 30
    assert _gone(int((tmp_path / "pid").read_text()))


def _gone(pid: int) -> bool:
    """Within a moment; a zombie that nobody has waited for yet is gone too."""

    def gone() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    return eventually(gone)


async def test_the_environment_of_commands_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_SECRET", "x")
    said = await run("x", shell("env"), b"")
    assert b"SHOAL_SECRET" not in said
    assert b"PATH=" in said


# -- the lab -----------------------------------------------------------------------------------------------------------


async def test_without_a_lab_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match="this controller is in no lab"):
        await LabProvider("").create(order("burst-1"), JOIN)
    with pytest.raises(ProviderError, match="the lab's helper cannot be reached"):
        await LabProvider(str(tmp_path / "none")).list("c1", "burst")


async def test_what_the_helper_refuses_is_told() -> None:
    from lab.helper import _Server

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s"
        server = _Server(path, "no-such-lab")
        serving = asyncio.get_running_loop().run_in_executor(None, server.serve_forever, 0.01)
        try:
            with pytest.raises(ProviderError, match="lab: lab no-such-lab is not up"):
                await LabProvider(str(path)).list("c1", "burst")
            with pytest.raises(ProviderError, match="the lab's helper: KeyError"):
                await LabProvider(str(path))._ask(b"{}\n")
            assert stat.S_ISSOCK(os.stat(path).st_mode)
        finally:
            server.shutdown()
            await serving
            server.server_close()


# -- the twin's faults -------------------------------------------------------------------------------------------------


async def test_the_twin_fails_hangs_and_lies_when_told_to() -> None:
    twin = MemoryProvider()
    twin.faults["create"] = "fail"
    with pytest.raises(ProviderError):
        await twin.create(order("burst-1"), JOIN)
    twin.faults["create"] = "lie"
    assert await twin.create(order("burst-1"), JOIN) == "m-burst-1"
    assert await twin.list("c1", "burst") == ()
    twin.faults["list"] = "hang"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await twin.list("c1", "burst")




def test_what_a_provider_needs_on_this_machine_and_does_not_find_is_named(tmp_path: Path) -> None:
    program = ProviderSpec("exec", ("/nope/prov.sh", "create"), ("/nope/prov.sh", "delete"), ("/bin/sh",))
    assert CommandProvider(program).missing() == ("/nope/prov.sh is no program on the controller's machine",)
    keyed = ProviderSpec("ssh", hosts=("10.0.0.1",), key_file="/nope/key")
    ssh = SshProvider(NodeGroupSpec("burst", keyed), tmp_path)
    assert ssh.missing() == ("key /nope/key cannot be read on the controller's machine",)
    assert LabProvider("").missing() == ("provider lab: this controller is in no lab: use exec or ssh",)


async def test_a_command_that_cannot_be_started_has_begun_nothing() -> None:
    for words, begun in ((("/nope/prov.sh",), False), (("/bin/false",), True)):
        with pytest.raises(ProviderError) as caught:
            await run("create x-1", words, b"")
        assert caught.value.begun is begun
