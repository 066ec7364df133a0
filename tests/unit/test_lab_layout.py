"""A lab as data: names, addresses, shares, command lines."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import layout
from lab.layout import LabPaths, LabRecord, MachineRecord
from model.errors import BadInput

RECORD = LabRecord(
    "lab", "10.213.4.0/24", machines=(MachineRecord("controller", 2, role="controller"), MachineRecord("n1", 11, 1.0, 2**30))
)


def test_addresses_follow_from_the_subnet() -> None:
    assert RECORD.gateway == "10.213.4.1"
    assert RECORD.api == "https://10.213.4.2:7443"
    assert RECORD.registry == "10.213.4.3:5000"
    assert RECORD.address(RECORD.machine("n1")) == "10.213.4.11"
    with pytest.raises(BadInput, match="no node n9"):
        RECORD.machine("n9")


def test_a_new_node_takes_the_lowest_free_name() -> None:
    assert layout.next_node(RECORD) == ("n2", 12)


@given(st.integers(1, 128), st.integers(2**30, 2**40), st.integers(1, 64))
def test_all_shares_together_are_no_more_than_the_machine(cores: int, memory: int, nodes: int) -> None:
    cpus, share = layout.share(cores, memory, nodes)
    assert share * nodes <= memory
    assert cpus * nodes <= cores + 1e-9 or cpus == 0.1


def test_a_subnet_that_is_routed_or_taken_is_passed_over() -> None:
    found = layout.free_subnet(["0.0.0.0/0", "10.213.0.0/23"], ["10.213.2.0/24"])
    assert found == "10.213.3.0/24"
    with pytest.raises(BadInput, match="no free subnet"):
        layout.free_subnet(["10.0.0.0/8"], [])


@pytest.mark.parametrize("name", ["", "Lab", "1st", "a/b", "x" * 40, "../up"])
def test_names_that_could_do_harm_are_refused(name: str) -> None:
    with pytest.raises(BadInput, match="lab name"):
        layout.check_name(name)


def test_link_names_fit_the_kernel() -> None:
    assert len(layout.port_name("a-very-long-name-of-a-lab", 254)) <= 15


def test_the_lab_starts_the_ordinary_daemons_with_their_ordinary_flags() -> None:
    paths = LabPaths("lab")
    agent = layout.agent_command(RECORD, RECORD.machine("n1"), paths, "python3", "TOKEN")
    assert agent[:4] == ("python3", "-m", "shoal", "agent")
    assert "--token" in agent
    assert "--token" not in layout.agent_command(RECORD, RECORD.machine("n1"), paths, "python3", "")
    assert "--metrics" not in agent
    seen = replace(RECORD, machines=(*RECORD.machines, MachineRecord(layout.PROMETHEUS, 4, role=layout.PROMETHEUS)))
    assert ("--metrics", f"{seen.address(seen.machine('n1'))}:7446") == layout.agent_command(
        seen, seen.machine("n1"), paths, "python3", ""
    )[-2:]
    assert layout.controller_command(seen, paths, "python3")[-2:] == ("--prometheus", "http://10.213.4.4:9090")
    controller = layout.controller_command(RECORD, paths, "python3")
    assert controller[:4] == ("python3", "-m", "shoal", "controller")
    assert not ipaddress.ip_network(layout.POOL).overlaps(ipaddress.ip_network(layout.UNDERLAYS))
