"""The NetworkDriver's promises, against the kernel's and the one in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.network.memory import MemoryNetwork
from model.errors import ShoalError
from tests.root.network_kit import PREFIX6, SECOND, two_nodes
from tests.root.network_node import forgotten, perform, remembered

pytestmark = pytest.mark.contract
Driver = Callable[..., Any]
SHOP = {"name": "shop", "vni": 4097, "subnet": "10.77.0.0/16", "slice": "10.77.1.0/29", "prefix6": PREFIX6}


@pytest.fixture(params=["memory", pytest.param("kernel", marks=pytest.mark.root)])
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Driver]:
    if request.param == "kernel":
        with two_nodes(tmp_path) as nodes:
            yield nodes["n1"]
        return
    memory = MemoryNetwork(forgotten=forgotten)

    def call(do: str, **rest: Any) -> Any:
        try:
            return plain(asyncio.run(perform(memory, {"do": do, **rest})))
        except ShoalError as error:
            raise RuntimeError(str(error)) from error

    yield call
    remembered.clear()


def plain(found: Any) -> Any:
    """As it would come by JSON."""
    if isinstance(found, dict):
        return {key: plain(value) for key, value in found.items()}
    return [plain(value) for value in found] if isinstance(found, tuple | list) else found


def test_attached_tells_addresses_way_out_and_mtu(driver: Driver) -> None:
    driver("apply", networks=[{**SHOP, "internal": True}, SECOND])
    got = driver("attach", id="a" * 64, networks=["shop", "back"])
    assert got.pop("netns_path")
    assert got == {
        "addresses": [["shop", "10.77.1.2/16"], ["back", "10.78.1.2/16"]],
        "addresses6": [["shop", "fd00:77::a4d:102/112"]],
        "gateway": "10.78.1.1",
        "mtu": 1450,
    }
    assert driver("attach", id="h" * 64, networks=["host"])["netns_path"] == ""
    none = driver("attach", id="n" * 64, networks=["none"])
    assert (bool(none["netns_path"]), none["addresses"]) == (True, [])


def test_connect_and_disconnect_are_idempotent_and_tell_the_whole_state(driver: Driver) -> None:
    driver("apply", networks=[SHOP, SECOND])
    driver("attach", id="a" * 64, networks=["shop"])
    both = driver("connect", id="a" * 64, network="back=10.78.1.9")
    assert both == driver("connect", id="a" * 64, network="back")
    assert both["addresses"] == [["shop", "10.77.1.2/16"], ["back", "10.78.1.9/16"]]
    left = driver("disconnect", id="a" * 64, network="shop")
    assert left == driver("disconnect", id="a" * 64, network="shop")
    assert (left["addresses"], left["gateway"]) == ([["back", "10.78.1.9/16"]], "10.78.1.1")
    with pytest.raises(RuntimeError, match="network other is not on this node yet"):
        driver("connect", id="a" * 64, network="other")
    with pytest.raises(RuntimeError, match="no network namespace of its own"):
        driver("disconnect", id="never", network="shop")


def test_a_full_slice_says_how_many_addresses_rest(driver: Driver) -> None:
    driver("apply", networks=[SHOP])
    ids = [letter * 64 for letter in "abcde"]
    for container_id in ids:
        driver("attach", id=container_id, networks=["shop"])
    with pytest.raises(RuntimeError, match=r"every address of this node's slice 10\.77\.1\.0/29 is taken$"):
        driver("attach", id="f" * 64, networks=["shop"])
    driver("remember", places=[["shop", "10.77.1.3"]])
    driver("detach", id=ids[1])
    with pytest.raises(RuntimeError, match="is taken; 1 of them rest until every node forgot them"):
        driver("attach", id="f" * 64, networks=["shop"])
    driver("remember", places=[])
    assert driver("attach", id="f" * 64, networks=["shop"])["addresses"] == [["shop", "10.77.1.3/16"]]


def test_fixed_addresses_go_only_to_who_asks_on_their_own_node(driver: Driver) -> None:
    peer = {"node": "n2", "underlay": "192.0.2.2", "slice": "10.77.2.0/24", "addresses": ["10.77.1.3"]}
    driver("apply", networks=[{**SHOP, "peers": [peer], "addresses": ["10.77.1.2", "10.77.9.9"]}])
    assert driver("attach", id="a" * 64, networks=["shop"])["addresses"] == [["shop", "10.77.1.4/16"]]
    assert driver("attach", id="b" * 64, networks=["shop=10.77.9.9"])["addresses"] == [["shop", "10.77.9.9/16"]]
    for address, why in (
        ("10.77.9.9", "another container on this node has it"),
        ("10.77.1.3", "a container on another node has it"),
        ("10.77.3.3", "not one of this node's addresses"),
    ):
        with pytest.raises(RuntimeError, match=why):
            driver("attach", id="c" * 64, networks=[f"shop={address}"])


def test_recover_keeps_who_is_named_and_detaches_the_others(driver: Driver) -> None:
    driver("apply", networks=[SHOP])
    for letter in "ab":
        driver("attach", id=letter * 64, networks=["shop"])
    driver("recover", ids=["a" * 64])
    assert driver("connect", id="a" * 64, network="shop")["addresses"] == [["shop", "10.77.1.2/16"]]
    with pytest.raises(RuntimeError, match="no network namespace of its own"):
        driver("connect", id="b" * 64, network="shop")
