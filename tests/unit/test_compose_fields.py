"""Fields: long and short forms, what is wrong and where, and the table of what shoal acts on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from model.compose import validate_resolved
from model.compose.fields import SERVICE, TOP
from model.compose.kinds import Field, ListOf, MapOf, Obj, Or
from tests.compose_files import faults, ids, load, service


def test_every_fault_of_a_file_is_reported_with_place_path_and_expectation() -> None:
    text = """services:
  web:
    imag: x
    image: 5
    ports: ["80:80/foo", {published: 80}]
    deploy:
      replicas: many
      mode: replicate
      resources: {limits: {memory: lots, cpus: -1}}
    stop_grace_period: 100
    volumes: ["a::b"]
    networks: 5
sevices: {}
"""
    assert faults(text) == [
        "/p/compose.yaml:3:11: services.web.imag: unknown field 'imag' (did you mean 'image'?)",
        "/p/compose.yaml:4:12: services.web.image: found the number 5, expected text (put it in quotes)",
        "/p/compose.yaml:5:13: services.web.ports[0]: found '80:80/foo', expected a port with the protocol tcp, udp or sctp",
        "/p/compose.yaml:5:26: services.web.ports[1]: has no 'target', which is needed",
        "/p/compose.yaml:7:17: services.web.deploy.replicas: found 'many', expected a whole number",
        "/p/compose.yaml:8:13: services.web.deploy.mode: found 'replicate', expected one of replicated, global, "
        "replicated-job, global-job (did you mean 'replicated'?)",
        "/p/compose.yaml:9:36: services.web.deploy.resources.limits.memory: found 'lots', expected a size such as 128M or 1g",
        "/p/compose.yaml:9:48: services.web.deploy.resources.limits.cpus: found the number -1, expected a number of at least 0",
        "/p/compose.yaml:10:24: services.web.stop_grace_period: found the number 100, expected a duration such as 1m30s "
        "or 500ms",
        "/p/compose.yaml:11:15: services.web.volumes[0]: found 'a::b', expected a volume like source:target or "
        "source:target:options, no part empty",
        "/p/compose.yaml:12:15: services.web.networks: found the number 5, expected a list of names or a mapping",
        "/p/compose.yaml:13:10: sevices: unknown field 'sevices' (did you mean 'services'?)",
    ]


def test_a_flood_of_faults_is_cut_off() -> None:
    lines = faults("services: {a: {" + ",".join(f"bad{i}: 1" for i in range(500)) + "}}")
    assert len(lines) == 50


def test_ports_in_all_forms() -> None:
    ports = service('ports: [3000, "81:80", "127.0.0.1:53:53/udp", "7-8:17-18", {target: "90", published: 9000, mode: host}]')
    assert ports["ports"] == [
        {"mode": "ingress", "target": 3000, "protocol": "tcp"},
        {"mode": "ingress", "target": 80, "protocol": "tcp", "published": "81"},
        {"mode": "ingress", "target": 53, "protocol": "udp", "published": "53", "host_ip": "127.0.0.1"},
        {"mode": "ingress", "target": 17, "protocol": "tcp", "published": "7"},
        {"mode": "ingress", "target": 18, "protocol": "tcp", "published": "8"},
        {"mode": "host", "target": 90, "protocol": "tcp", "published": "9000"},
    ]


def test_sexagesimal_ports_stay_ports() -> None:
    assert service("ports: [22:22]")["ports"][0]["published"] == "22"


def test_relative_paths_are_against_the_folder_of_the_file() -> None:
    found = service('volumes: ["./a:/a", "../b:/b", "~/c:/c", {type: bind, source: d, target: /d}]', env={"HOME": "/root"})
    assert [mount["source"] for mount in found["volumes"]] == ["/p/a", "/b", "/root/c", "/p/d"]


def test_unresolved_paths_stay_as_written() -> None:
    assert service('volumes: ["./a:/a"]', resolve_paths=False)["volumes"][0]["source"] == "./a"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("cap_add: [1]", "services.a.cap_add[0]"),
        ("environment: [5]", "services.a.environment[0]"),
        ("environment: {A: [1]}", "services.a.environment.A"),
        ("command: 'a \"b'", "services.a.command"),
        ("ulimits: {nofile: {soft: 1}}", "services.a.ulimits.nofile"),
        ("healthcheck: {test: [ls]}", "services.a.healthcheck.test[0]"),
        ("extra_hosts: [nothing]", "services.a.extra_hosts[0]"),
        ("restart: sometimes", "services.a.restart"),
        ("secrets: [{source: s, mode: 9999}]", "services.a.secrets[0].mode"),
        ("deploy: {placement: {constraints: node.role == x}}", "services.a.deploy.placement.constraints"),
        ("deploy: {update_config: {max_failure_ratio: 1.5}}", "services.a.deploy.update_config.max_failure_ratio"),
        ("tty: maybe", "services.a.tty"),
        ("pull_policy: now", "services.a.pull_policy"),
        ("devices: ['']", "services.a.devices[0]"),
        ("cpus: .nan", "services.a.cpus"),
        ("mem_limit: .inf", "services.a.mem_limit"),
    ],
)
def test_faults_name_the_field(text: str, where: str) -> None:
    lines = faults(f"services: {{a: {{image: x, {text}}}}}")
    assert len(lines) == 1
    assert f": {where}: " in lines[0]
    assert "expected" in lines[0]


def test_unsupported_fields_are_named_warnings_and_errors_when_strict() -> None:
    text = "services: {web: {image: x, build: {ssh: [a]}, privileged: false, uts: host, attach: false, x-other: {max: 3}}}"
    loaded = load(text)
    assert ids(loaded) == ["unsupported:services.web.build.ssh", "unsupported:services.web.uts"]
    assert str(loaded.warnings[0]).startswith("/p/compose.yaml:1:41: unsupported:services.web.build.ssh: is refused")
    assert [line.split(": ")[1] for line in faults(text, strict=True)] == ids(loaded)


def test_extensions_are_kept_at_every_level() -> None:
    loaded = load("x-a: {b: 1}\nservices: {a: {image: x, x-b: {min: 1}, deploy: {x-d: 2}}}\n", strict=True)
    assert loaded.project["x-a"] == {"b": 1}
    assert loaded.project["services"]["a"]["x-b"] == {"min": 1}
    assert loaded.project["services"]["a"]["deploy"]["x-d"] == 2


def test_values_shoal_leaves_aside_are_named_too() -> None:
    loaded = load("services: {a: {image: x, network_mode: 'service:b', pid: 'service:b', pull_policy: daily}, b: {image: y}}")
    assert ids(loaded) == [
        "unsupported:services.a.pid",
        "unsupported:services.a.pull_policy",
        "unsupported:services.a.network_mode",
    ]


@pytest.mark.parametrize(
    ("text", "warnings"),
    [
        ("ports: ['80:80'], expose: [81, '90-92/udp'], networks: {n: {aliases: [x], gw_priority: 1}}", []),
        ("network_mode: host, ports: ['80:80']", ["services.a.ports"]),
        ("network_mode: bridge, ports: ['80:80']", []),
        ("ports: [{target: 80, mode: host, x-ingress: local}]", ["services.a.ports[0].x-ingress"]),
        ("extra_hosts: ['h:host-gateway', 'g=10.0.0.1'], dns: 10.0.0.1, domainname: d.org", []),
        ("external_links: [other]", ["services.a.external_links"]),
        ("mac_address: '02:00:00:00:00:01'", ["services.a.mac_address"]),
        ("networks: {n: {ipv6_address: 'fd00::5'}}", ["services.a.networks.n.ipv6_address"]),
    ],
)
def test_words_about_networks_that_are_left_aside(text: str, warnings: list[str]) -> None:
    loaded = load(f"services: {{a: {{image: x, {text}}}}}\nnetworks: {{n: }}")
    assert ids(loaded) == [f"unsupported:{path}" for path in warnings]


@pytest.mark.parametrize(
    ("text", "warnings"),
    [
        ("driver: bridge, internal: true, attachable: true, enable_ipv6: true", []),
        ("driver: macvlan", ["driver"]),
        ("driver_opts: {encrypted: '', com.docker.network.driver.mtu: 1400}", ["driver_opts.com.docker.network.driver.mtu"]),
        ("ipam: {config: [{subnet: 10.9.0.0/16}, {subnet: 'fd00:9::/64'}]}, enable_ipv6: true", []),
        ("ipam: {config: [{subnet: 'fd00:9::/64'}]}", ["ipam.config"]),
        ("ipam: {config: [{subnet: 10.9.0.0/16}, {subnet: 10.8.0.0/16}]}", ["ipam.config"]),
        ("ipam: {config: [{subnet: 10.9.0.0/16, gateway: 10.9.0.1}]}", ["ipam.config[0].gateway"]),
    ],
)
def test_words_of_a_network_that_are_left_aside(text: str, warnings: list[str]) -> None:
    loaded = load(f"services: {{a: {{image: x, networks: [n]}}}}\nnetworks: {{n: {{{text}}}}}")
    assert ids(loaded) == [f"unsupported:networks.n.{path}" for path in warnings]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("expose: [http]", "services.a.expose[0]"),
        ("ports: ['1.2.3:80:80']", "services.a.ports[0].host_ip"),
        ("networks: {n: {ipv4_address: 10.0.0.300}}", "services.a.networks.n.ipv4_address"),
        ("networks: [m]", "networks.m.ipam.config[0].subnet"),
    ],
)
def test_what_networks_cannot_read_is_warned_of_and_refused_when_applied(text: str, path: str) -> None:
    loaded = load(f"services: {{a: {{image: x, {text}}}}}\nnetworks: {{n: , m: {{ipam: {{config: [{{subnet: ten}}]}}}}}}")
    assert ids(loaded) == [f"unusable:{path}"]
    (problem,) = validate_resolved(loaded.project)
    assert (problem.path, "expected" in problem.message) == (path, True)


def test_a_dependency_is_warned_of_only_where_a_file_says_it() -> None:
    other = "db: {image: y}"
    assert ids(load(f"services: {{a: {{image: x, links: [db]}}, {other}}}", strict=True)) == []
    said = ["unsupported:services.a.depends_on"]
    assert ids(load(f"services: {{a: {{image: x, links: [db], depends_on: [db]}}, {other}}}")) == said
    assert ids(load(f"services: {{a: {{image: x}}, {other}}}", "services: {a: {depends_on: [db]}}")) == said


def test_x_ingress_has_two_words() -> None:
    assert not ids(load("services: {a: {image: x, x-ingress: local, ports: [{target: 80, x-ingress: cluster}]}}"))
    (line,) = faults("services: {a: {image: x, ports: [{target: 80, x-ingress: near}]}}")
    assert "services.a.ports[0].x-ingress: found 'near', expected local or cluster" in line


def _rows(kind: Any, path: str) -> Iterator[tuple[str, Field]]:
    if isinstance(kind, Obj):
        for name, row in kind.fields.items():
            yield f"{path}.{name}", row
            yield from _rows(row.kind, f"{path}.{name}")
    elif isinstance(kind, (MapOf, ListOf)):
        yield from _rows(kind.kind, path + ".*")
    elif isinstance(kind, Or):
        yield from _rows(kind.long, path)


def test_each_reason_of_the_table_is_a_readable_sentence() -> None:
    rows = dict(_rows(TOP, ""))
    assert len(rows) > 200
    assert all(row.later == row.later.strip() and len(row.later) != 1 for row in rows.values())
    assert not rows[".services.*.image"].later
    assert not rows[".services.*.build"].later
    assert rows[".services.*.build.secrets"].later


def test_every_unsupported_service_field_warns() -> None:
    samples: dict[str, Any] = {
        "annotations": {"a": "b"}, "attach": True, "blkio_config": {"weight": 1},
        "cgroup": "host", "cgroup_parent": "x", "configs": [], "container_name": "abc", "cpu_count": 1, "cpu_percent": 5,
        "cpu_rt_period": 1, "cpu_rt_runtime": 1, "credential_spec": {"file": "x"}, "depends_on": {},
        "develop": {"watch": []}, "device_cgroup_rules": ["c 1:1 r"], "external_links": ["x"], "gpus": "all",
        "isolation": "default", "mac_address": "02:00:00:00:00:01",
        "mem_swappiness": 5, "models": {"m": None}, "oom_kill_disable": True,
        "post_start": [{"command": ["x"]}], "pre_stop": [{"command": ["x"]}], "provider": {"type": "x"},
        "pull_refresh_after": "1d", "runtime": "crun", "secrets": [], "storage_opt": {"size": "1G"},
        "use_api_socket": True, "userns_mode": "host", "uts": "host", "volumes_from": ["container:x"],
    }  # fmt: skip
    later = {name for name, row in SERVICE.fields.items() if row.later}
    assert later == set(samples)
    import json

    for name in later:
        if samples[name] not in ([], {}):
            text = json.dumps({"services": {"a": {"image": "x", name: samples[name]}}})
            assert f"unsupported:services.a.{name}" in ids(load(text)), name


def test_validate_resolved_takes_what_load_gives_and_refuses_the_rest() -> None:
    good = load("services: {a: {image: x, ports: ['80:80'], volumes: ['v:/v']}}\nvolumes: {v: }").project
    assert validate_resolved(good) == ()
    for bad, expected in [
        ([], "expected a mapping"),
        ({}, "name: found None"),
        ({**good, "services": {"a": {"image": ""}}}, "services.a.image: names no image"),
        ({**good, "services": {"a": {"build": {"context": "/"}}}}, "services.a.image: names no image: `shoal apply` builds it"),
        ({**good, "services": {"a": {"image": "x", "env_file": "e"}}}, "has to be resolved"),
        ({**good, "services": {"a": {"image": "x", "networks": {"no": None}}}}, "networks has no 'no'"),
        ({**good, "volumes": {"v": {"name": 5}}}, "volumes.v.name: found the number 5"),
        ({**good, "extra": 1}, "unknown field 'extra'"),
        ({5: 1}, "a key is no text"),
    ]:
        assert any(expected in str(problem) for problem in validate_resolved(bad)), (expected, validate_resolved(bad))


def test_validate_resolved_survives_depth() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert "deeper than" in str(validate_resolved({"name": "a", "x-a": deep})[0])


def test_a_priority_is_a_number_within_its_range_and_said_once() -> None:
    (line,) = faults("services: {a: {image: x, x-priority: high}}")
    assert "services.a.x-priority: found 'high', expected a whole number from -1000 to 1000" in line
    (line,) = faults("services: {a: {image: x, deploy: {x-priority: 1001}}}")
    assert "services.a.deploy.x-priority: found the number 1001" in line
    (line,) = faults("services: {a: {image: x, x-priority: 1, deploy: {x-priority: 2}}}")
    assert "services.a.x-priority: found 1, but deploy.x-priority says 2" in line
    assert not ids(load("services: {a: {image: x, x-priority: 2, deploy: {x-priority: 2}}}"))
