"""Node groups as people write them: every fault has its line; what comes from elsewhere is checked alike."""

from __future__ import annotations

from dataclasses import replace

import pytest

from model import codec
from model.autoscale import MachineTemplate, NodeGroupSpec, ProviderSpec
from model.documents import NodeGroupDoc
from model.errors import BadInput
from model.nodegroups import group_problems, read_groups

WHOLE = b"""
name: burst
min: 1
max: 6
buffer: 1
template: {cpus: 4, memory: 8G, labels: {pool: burst}}
provider:
  exec: {create: [/opt/cloud, create], delete: [/opt/cloud, delete], list: /opt/list, timeout: 2m}
utilization: 40%
unready_max: 0.3
idle: 5m
after_add: 90s
provision: 10m
back_off: 1m
remove_volumes: true
"""


def test_every_setting_can_be_written() -> None:
    provider = ProviderSpec("exec", ("/opt/cloud", "create"), ("/opt/cloud", "delete"), ("/opt/list",), timeout_s=120.0)
    template = MachineTemplate(4.0, 8 << 30, (("pool", "burst"),))
    spec = NodeGroupSpec("burst", provider, 1, 6, template, 1, 0.4, 300.0, 90.0, 600.0, 60.0, 0.3, remove_volumes=True)
    assert read_groups(WHOLE, "g.yaml") == [spec]
    assert group_problems(spec) == []
    document = NodeGroupDoc("id", spec)
    assert codec.decode(NodeGroupDoc, codec.encode(document)) == document


def test_what_is_left_out_is_as_documented_and_a_file_may_hold_several() -> None:
    text = b"name: a\nmax: 1\ntemplate: {cpus: 1, memory: 1G}\nprovider: {lab: }\n"
    both = read_groups(text + b"---\n" + text.replace(b"name: a", b"name: b"), "g.yaml")
    assert [spec.name for spec in both] == ["a", "b"]
    defaults = NodeGroupSpec("a", ProviderSpec("lab"), max=1, template=MachineTemplate(1.0, 1 << 30))
    assert both[0] == defaults
    assert (defaults.idle_s, defaults.after_add_s, defaults.provision_s, defaults.unready_max) == (600.0, 600.0, 900.0, 0.45)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ((b"idle:", b"idel:"), "g.yaml:11:7: idel: unknown field 'idel' (did you mean 'idle'?)"),
        ((b"max: 6", b"max: six"), "g.yaml:4:6: max: found 'six', expected a whole number"),
        ((b"min: 1", b"min: 7"), "g.yaml:3:6: min: found min 7 and max 6, expected 0 <= min <= max <= 5,000"),
        ((b"40%", b"400%"), "g.yaml:9:14: utilization: found '400%', expected a share from 0 to 100%"),
        ((b"name: burst", b"name: Burst"), "g.yaml:2:7: name: found 'Burst', expected a lower-case letter, then up to 23 of "
         "a-z, 0-9 and '-', the last one no '-'"),
        ((b"list: /opt/list", b"list: list"), "g.yaml:8:3: provider.exec.list: expected a command: the absolute path of a "
         "program, then its words"),
        ((b", list: /opt/list", b""), "g.yaml:8:9: provider.exec: has no 'list', which is needed"),
        ((b"5m", b"5 minutes"), "g.yaml:11:7: idle: found '5 minutes', expected a duration such as 1m30s or 500ms"),
        ((b"memory: 8G", b"memory: much"), "g.yaml:6:29: template.memory: found 'much', expected a size such as 128M or 1g"),
        ((b"pool: burst", b"'po ol': burst"), "g.yaml:6:11: template.labels: found 'po ol': 'burst', expected letters, digits "
         "and _./:-"),
    ],
)  # fmt: skip
def test_every_fault_names_its_line(change: tuple[bytes, bytes], problem: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_groups(WHOLE.replace(*change), "g.yaml")
    assert caught.value.problems == (problem,)


def test_a_group_has_one_provider_and_one_name() -> None:
    text = b"name: a\nmax: 1\ntemplate: {cpus: 1, memory: 1G}\nprovider: {lab: {}, ssh: {hosts: [h]}}\n"
    with pytest.raises(BadInput, match=r"g.yaml:4:11: provider: expected exactly one of lab, exec and ssh"):
        read_groups(text, "g.yaml")
    one = text.replace(b"lab: {}, ", b"")
    with pytest.raises(BadInput, match="there are two groups a"):
        read_groups(one + b"---\n" + one, "g.yaml")
    with pytest.raises(BadInput, match="holds no node group"):
        read_groups(b"", "g.yaml")


def test_hosts_of_ssh_are_hosts() -> None:
    provider = ProviderSpec("ssh", hosts=("10.0.0.1", "-oProxyCommand=x", "host:22"), user="root; reboot", key_file="key")
    spec = NodeGroupSpec("a", provider, max=1, template=MachineTemplate())
    assert [problem.split(": ", 2)[1] for problem in group_problems(spec)] == [
        "provider.ssh.hosts", "provider.ssh.user", "provider.ssh.key",
    ]  # fmt: skip
    assert group_problems(replace(spec, provider=ProviderSpec("ssh")))


def test_numbers_that_are_none_are_refused() -> None:
    spec = NodeGroupSpec("a", ProviderSpec("lab"), max=1, template=MachineTemplate())
    for changed in (
        replace(spec, idle_s=float("nan")), replace(spec, provision_s=0.0), replace(spec, utilization=2.0),
        replace(spec, buffer=2), replace(spec, max=0), replace(spec, template=MachineTemplate(float("inf"))),
        replace(spec, provider=ProviderSpec("lab", timeout_s=0.0)),
    ):  # fmt: skip
        assert len(group_problems(changed)) >= 1


def test_no_more_machines_than_hosts() -> None:
    spec = NodeGroupSpec("a", ProviderSpec("ssh", hosts=("10.0.0.1",)), max=2)
    (problem,) = group_problems(spec)
    assert problem == "node group a: max: found 2 with 1 hosts, expected at most one machine a host"
    assert group_problems(replace(spec, max=1)) == []


def test_a_list_at_the_top_is_no_group() -> None:
    with pytest.raises(BadInput, match=r"at the top, expected name, max, template, provider$"):
        read_groups(b"- name: a\n", "g.yaml")
