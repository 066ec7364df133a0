"""Node groups over the API: made, changed, refused, removed; what is shown of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.api import nodegroups
from controller.api.context import Api, Call
from model import codec
from model.autoscale import MachineTemplate, NodeGroupSpec, ProviderSpec
from model.documents import Event, Machine, MachinesDoc, key
from model.errors import BadInput, Conflict, NotFound
from model.store_port import Put
from tests.unit.api_kit import call, controllers

SPEC = NodeGroupSpec("burst", ProviderSpec("lab"), max=3, template=MachineTemplate(2.0, 1 << 30))


async def put(api: Api, spec: NodeGroupSpec) -> str:
    answer = await nodegroups.put_group(api, call(spec, name=spec.name))
    return str(answer["change"])


def removal(name: str = "burst", *, force: bool = False) -> Call:
    return replace(call(name=name), query={"force": force})


async def with_machines(api: Api) -> None:
    group = api.snapshot().of("nodegroups")["burst"]
    rows = (Machine("burst-1", "ready", 1_000, "i-1"), Machine("burst-2", "failed", 2_000, message="quota exceeded"))
    said = Event(2_000, "machines", "nodegroup/burst", "burst-2 failed: quota exceeded")
    until_ms = api.now_ms() + 60_000
    document = MachinesDoc(group.id, "burst", rows, number=2, history=(said,), failures=1, back_off_until_ms=until_ms)
    await api.commit([], [Put(key("machines", "burst"), codec.encode(document))])


async def test_applied_again_it_is_unchanged_and_changed_it_is_updated() -> None:
    async with controllers(1) as (api,):
        assert [await put(api, SPEC), await put(api, SPEC), await put(api, replace(SPEC, max=4))] == [
            "created", "unchanged", "updated",
        ]  # fmt: skip
        (row,) = await nodegroups.list_groups(api, call())
        assert (row["name"], row["provider"], row["max"], row["machines"], row["cpus"]) == ("burst", "lab", 4, 0, 2.0)
        assert row["state"] == "ok"


async def test_what_cannot_be_is_refused_with_every_problem() -> None:
    async with controllers(1) as (api,):
        with pytest.raises(BadInput) as caught:
            await nodegroups.put_group(api, call(replace(SPEC, max=0, idle_s=-1.0), name="other"))
        assert [text.partition(": ")[2].partition(",")[0] for text in caught.value.problems] == [
            "max: found 0", "idle: found -1 s", "the body names 'burst'",
        ]  # fmt: skip


async def test_its_machines_and_why_are_shown() -> None:
    async with controllers(1) as (api,):
        await put(api, SPEC)
        await with_machines(api)
        found = await nodegroups.get_group(api, call(name="burst"))
        assert (found["machines"], found["ready"], found["leaving"], found["failures"]) == (2, 1, 1, 1)
        assert found["state"].startswith("1 failure, waits ")
        assert (found["spec"]["min"], found["spec"]["utilization"], found["spec"]["back_off_s"]) == (0, 0.5, 300.0)
        assert codec.from_plain(NodeGroupSpec, found["spec"]) == SPEC
        assert [row["message"] for row in found["members"]] == ["", "quota exceeded"]
        why = await nodegroups.explain(api, call(name="burst"))
        assert why["sentence"] == "burst: 2 machines (1 leaving) of 0 to 3; burst-2 failed: quota exceeded"
        assert why["lines"][0].startswith("1 failure in a row: it makes no machine for another ")
        assert any(line.startswith("burst-1 (i-1) is ready since") for line in why["lines"])
        assert why["events"][0]["sentence"] == "burst-2 failed: quota exceeded"


async def test_a_group_with_machines_keeps_its_provider() -> None:
    async with controllers(1) as (api,):
        await put(api, SPEC)
        other = replace(SPEC, provider=ProviderSpec("ssh", hosts=("10.0.0.1", "10.0.0.2", "10.0.0.3")))
        assert await put(api, other) == "updated"
        await put(api, SPEC)
        await with_machines(api)
        with pytest.raises(Conflict, match="has machines of provider lab"):
            await put(api, other)


async def test_removed_it_waits_for_its_machines_and_takes_no_changes() -> None:
    async with controllers(1) as (api,):
        await put(api, SPEC)
        for _ in range(2):
            await nodegroups.remove_group(api, removal())
        found = await nodegroups.get_group(api, call(name="burst"))
        assert (found["removing"], found["state"]) == (True, "removing")
        with pytest.raises(Conflict, match="is being removed"):
            await put(api, SPEC)
        for missing in (nodegroups.get_group, nodegroups.remove_group, nodegroups.explain):
            with pytest.raises(NotFound, match="no node group is called none"):
                await missing(api, removal("none"))


async def test_by_force_it_says_which_machines_may_still_be_there() -> None:
    async with controllers(1) as (api,):
        await put(api, SPEC)
        await with_machines(api)
        await nodegroups.remove_group(api, removal())
        done = await nodegroups.remove_group(api, removal(force=True))
        assert done["forgotten"] == ["burst-1 (i-1)", "burst-2"]
        assert api.snapshot().of("nodegroups")["burst"].forget
