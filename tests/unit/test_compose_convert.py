"""From the resolved project to shoal's records."""

from __future__ import annotations

import re
from typing import Any

import pytest

from model.autoscale import Autoscale, MetricsPort, ScalingMetric
from model.codec import decode, encode
from model.compose import ComposeError
from model.compose.convert import to_stack
from model.spec import (
    Attachment,
    ContainerSpec,
    Counts,
    FileRef,
    Healthcheck,
    Mount,
    NetworkSpec,
    Placement,
    Port,
    Resources,
    RestartPolicy,
    ServiceSpec,
    StackSpec,
    Ulimit,
    UpdateConfig,
    VolumeSpec,
)
from tests.compose_files import load

FULL = """
services:
  web:
    image: app:1
    command: serve --port 80
    entrypoint: [/bin/tini]
    environment: {B: "2", A: "1", BARE: }
    labels: {l: m}
    working_dir: /w
    user: "1:2"
    group_add: [audio]
    hostname: h
    domainname: d.org
    init: true
    tty: true
    stdin_open: true
    read_only: true
    privileged: true
    cap_add: [NET_ADMIN]
    cap_drop: [ALL]
    security_opt: [no-new-privileges]
    sysctls: {net.core.somaxconn: 10}
    ulimits: {nproc: 5, nofile: {soft: 1, hard: 2}}
    memswap_limit: -1
    shm_size: 64m
    oom_score_adj: 5
    cpu_shares: 10
    cpuset: 0-1
    volumes: ["data:/data:ro,nocopy", "/etc/x:/x:rslave", "/anon", {type: tmpfs, target: /t, tmpfs: {size: 1m, mode: 0o1777}}]
    tmpfs: ["/run:size=2m,mode=755,ro"]
    devices: ["/dev/fuse"]
    networks: {back: {aliases: [w], ipv4_address: 10.0.0.5, priority: 5}, default: }
    mac_address: 02:00:00:00:00:01
    ports: ["8080:80/udp", {target: 81, mode: host, host_ip: 1.2.3.4}]
    dns: 1.1.1.1
    dns_search: [a.org]
    dns_opt: [ndots:1]
    extra_hosts: [h=1.2.3.4]
    pid: host
    ipc: host
    healthcheck: {test: curl x, interval: 1s, timeout: 2s, retries: 4, start_period: 5s, start_interval: 1s}
    stop_signal: SIGINT
    stop_grace_period: 1m
    logging: {driver: json-file, options: {max-size: 1m}}
    secrets: [{source: s, target: /s, uid: "1", gid: "2", mode: 0400}]
    configs: [c]
    pull_policy: always
    platform: linux/amd64
    x-autoscale: {max: 5, metrics: [cpu: 60%]}
    x-metrics: {port: 9000, path: /m}
    x-other: {max: 5, min: 1}
    deploy:
      replicas: 3
      labels: {tier: web}
      endpoint_mode: dnsrr
      placement: {constraints: [node.role == worker], preferences: [{spread: node.labels.zone}], max_replicas_per_node: 2}
      resources: {limits: {cpus: "0.5", memory: 128M, pids: 50}, reservations: {cpus: "0.25", memory: 64M}}
      restart_policy: {condition: on-failure, delay: 5s, max_attempts: 3, window: 1m}
      update_config:
        {parallelism: 2, delay: 1s, order: start-first, failure_action: rollback, monitor: 2s, max_failure_ratio: 0.1}
      rollback_config: {parallelism: 0}
networks: {back: {driver: overlay, internal: true, ipam: {config: [{subnet: 10.0.0.0/24}]}, labels: {a: b}}}
volumes: {data: {driver: local, driver_opts: {type: tmpfs}, labels: {k: v}}}
secrets: {s: {external: true}}
configs: {c: {content: hi}}
"""


def convert(text: str, stack: str = "shop", **options: Any) -> StackSpec:
    return to_stack(load(text, project_name=stack, **options).project, stack=stack)


def one(text: str, **options: Any) -> ServiceSpec:
    return convert(f"services: {{a: {{image: x, {text}}}}}", **options).services[0]


def test_every_field_is_carried() -> None:
    stack = convert(FULL)
    assert stack.services == (
        ServiceSpec(
            name="shop_web",
            stack="shop",
            container=ContainerSpec(
                image="app:1",
                command=("serve", "--port", "80"),
                entrypoint=("/bin/tini",),
                env=(("A", "1"), ("B", "2")),
                labels=(("l", "m"),),
                working_dir="/w",
                user="1:2",
                group_add=("audio",),
                hostname="h",
                domainname="d.org",
                init=True,
                tty=True,
                stdin_open=True,
                read_only=True,
                privileged=True,
                cap_add=("NET_ADMIN",),
                cap_drop=("ALL",),
                security_opt=("no-new-privileges",),
                sysctls=(("net.core.somaxconn", "10"),),
                ulimits=(Ulimit("nofile", 1, 2), Ulimit("nproc", 5, 5)),
                limits=Resources(0.5, 128 << 20, 50),
                memswap_limit_bytes=-1,
                shm_size_bytes=64 << 20,
                oom_score_adj=5,
                cpu_shares=10,
                cpuset="0-1",
                mounts=(
                    Mount("volume", "/data", "shop_data", read_only=True, nocopy=True),
                    Mount("bind", "/x", "/etc/x", propagation="rslave"),
                    Mount("volume", "/anon"),
                    Mount("tmpfs", "/t", tmpfs_size_bytes=1 << 20, tmpfs_mode=0o1777),
                    Mount("tmpfs", "/run", read_only=True, tmpfs_size_bytes=2 << 20, tmpfs_mode=0o755),
                ),
                devices=("/dev/fuse:/dev/fuse:rwm",),
                networks=(
                    Attachment("shop_back", ("w",), "10.0.0.5", mac_address="02:00:00:00:00:01", priority=5),
                    Attachment("shop_default"),
                ),
                ports=(Port(80, 8080, "udp"), Port(81, mode="host", host_ip="1.2.3.4")),
                dns=("1.1.1.1",),
                dns_search=("a.org",),
                dns_opt=("ndots:1",),
                extra_hosts=(("h", "1.2.3.4"),),
                pid_mode="host",
                ipc_mode="host",
                healthcheck=Healthcheck(("CMD-SHELL", "curl x"), 1.0, 2.0, 4, 5.0, 1.0),
                restart=RestartPolicy("on-failure", 5.0, 3, 60.0),
                stop_signal="SIGINT",
                stop_grace_period_s=60.0,
                log_driver="json-file",
                log_options=(("max-size", "1m"),),
                secrets=(FileRef("s", "/s", "1", "2", 0o400),),
                configs=(FileRef("shop_c"),),
                pull_policy="always",
                platform="linux/amd64",
            ),
            replicas=3,
            placement=Placement(("node.role == worker",), ("node.labels.zone",), 2),
            reservations=Resources(0.25, 64 << 20, 0),
            update=UpdateConfig(2, 1.0, "start-first", "rollback", 2.0, 0.1),
            rollback=UpdateConfig(0),
            labels=(("tier", "web"),),
            endpoint_mode="dnsrr",
            extensions=(("x-other", '{"max":5,"min":1}'),),
            autoscale=Autoscale(1, 5, (ScalingMetric("cpu", 0.6),)),
            metrics=MetricsPort(9000, "/m"),
        ),
    )
    assert stack.networks == (
        NetworkSpec("shop_back", "shop", subnet="10.0.0.0/24", internal=True, labels=(("a", "b"),)),
        NetworkSpec("shop_default", "shop"),
    )
    assert stack.volumes == (VolumeSpec("shop_data", "shop", options=(("type", "tmpfs"),), labels=(("k", "v"),)),)


def test_records_go_through_the_codec() -> None:
    stack = convert(FULL)
    assert decode(StackSpec, encode(stack)) == stack


def test_defaults() -> None:
    assert one("") == ServiceSpec("shop_a", ContainerSpec("x", networks=(Attachment("shop_default"),)), stack="shop")


def test_another_stack_name_renames_what_the_project_named() -> None:
    text = "services: {a: {image: x, networks: [n, e, own], volumes: ['v:/v']}}\nvolumes: {v: }\n"
    project = load(text + "networks: {n: , e: {external: true}, own: {name: fixed}}", project_name="p").project
    stack = to_stack(project, stack="other")
    assert stack.services[0].name == "other_a"
    assert [network.name for network in stack.networks] == ["e", "fixed", "other_n"]
    assert [network.external for network in stack.networks] == [True, False, False]
    assert stack.volumes[0].name == "other_v"
    assert stack.services[0].container.mounts[0].source == "other_v"


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("tty: true", RestartPolicy()),
        ("restart: always", RestartPolicy("any")),
        ("restart: unless-stopped", RestartPolicy("any")),
        ("restart: 'no'", RestartPolicy("none")),
        ("restart: on-failure", RestartPolicy("on-failure")),
        ("restart: on-failure:3", RestartPolicy("on-failure", max_attempts=3)),
        ("restart: 'no', deploy: {restart_policy: {condition: any}}", RestartPolicy("any")),
        ("deploy: {mode: replicated-job}", RestartPolicy("on-failure")),
        ("deploy: {mode: global-job}, restart: 'no'", RestartPolicy("none")),
    ],
)
def test_restart(text: str, policy: RestartPolicy) -> None:
    assert one(text).container.restart == policy


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("cpus: 1.5, mem_limit: 1g, pids_limit: 5", Resources(1.5, 1 << 30, 5)),
        ("cpu_quota: 50000", Resources(0.5)),
        ("cpu_quota: 50000, cpu_period: 25000", Resources(2.0)),
        ("pids_limit: -1", Resources()),
        ("mem_limit: 1k, deploy: {resources: {limits: {memory: 1024}}}", Resources(0.0, 1024)),
    ],
)
def test_limits(text: str, limits: Resources) -> None:
    assert one(text).container.limits == limits


@pytest.mark.parametrize("mode", ["host", "none", "bridge"])
def test_network_mode(mode: str) -> None:
    stack = convert(f"services: {{a: {{image: x, network_mode: {mode}}}}}")
    assert stack.services[0].container.networks == (Attachment(mode),)
    assert stack.networks == ()


def test_modes_and_counts() -> None:
    assert one("scale: 4").replicas == 4
    assert one("deploy: {replicas: 0}").replicas == 0
    assert one("deploy: {mode: global}").mode == "global"


def test_a_disabled_healthcheck() -> None:
    for text in ("healthcheck: {disable: true}", "healthcheck: {test: [NONE]}"):
        check = one(text).container.healthcheck
        assert check is not None
        assert check.disable


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("ports: [80]", (Port(80),)),
        ("ports: ['8000-8010:80']", (Port(80, 8000, published_end=8010),)),
        ("ports: ['8000-8001:80-81/udp']", (Port(80, 8000, "udp"), Port(81, 8001, "udp"))),
        ("ports: ['127.0.0.1:5000:5000']", (Port(5000, 5000, host_ip="127.0.0.1"),)),
        ("ports: [{target: 80, published: 8000-8002, mode: host}]", (Port(80, 8000, mode="host", published_end=8002),)),
        ("ports: ['81:80', {target: 82, x-ingress: local}]", (Port(80, 81), Port(82, local=True))),
        ("x-ingress: local, ports: ['81:80', {target: 82, mode: host}]", (Port(80, 81, local=True), Port(82, mode="host"))),
        ("x-ingress: local, ports: [{target: 82, x-ingress: cluster}]", (Port(82),)),
        ("network_mode: host, ports: ['81:80']", ()),
    ],
)
def test_ports(text: str, ports: tuple[Port, ...]) -> None:
    assert one(text).container.ports == ports


def test_exposed_ports_are_written_out() -> None:
    assert one("expose: [80, '90-91/udp', '80/tcp']").container.expose == ("80/tcp", "90/udp", "91/udp")


def test_links_name_services_by_their_full_names() -> None:
    stack = convert("services: {a: {image: x, links: [db, 'db:store']}, db: {image: y}}")
    assert stack.services[0].container.links == (("shop_db", "db"), ("shop_db", "store"))


def test_the_first_network_is_the_one_that_leads_out() -> None:
    text = "services: {a: {image: x, networks: {b: , c: {priority: 5}, d: {gw_priority: 1}}}}\nnetworks: {b: , c: , d: }"
    assert [row.network for row in convert(text).services[0].container.networks] == ["shop_d", "shop_c", "shop_b"]


def test_an_ipv6_address_of_ones_choice_is_not_carried() -> None:
    text = "networks: {n: {ipv4_address: 10.0.0.5, ipv6_address: 'fd00::5'}}"
    stack = convert(f"services: {{a: {{image: x, {text}}}}}\nnetworks: {{n: }}")
    assert stack.services[0].container.networks == (Attachment("shop_n", (), "10.0.0.5"),)


def test_networks_of_two_ip_versions() -> None:
    text = "enable_ipv6: true, driver: macvlan, ipam: {config: [{subnet: 'fd00:9::/64'}, {subnet: 10.9.0.0/16}]}"
    stack = convert(f"services: {{a: {{image: x, networks: [n]}}}}\nnetworks: {{n: {{{text}}}}}")
    assert stack.networks == (NetworkSpec("shop_n", "shop", "overlay", "10.9.0.0/16", "fd00:9::/64", enable_ipv6=True),)


def test_dockers_own_networks_as_external_ones() -> None:
    stack = convert("services: {a: {image: x, networks: [out]}}\nnetworks: {out: {external: true, name: host}}")
    assert (stack.services[0].container.networks, stack.networks) == ((Attachment("host"),), ())


def test_dollars_are_taken_as_they_are() -> None:
    assert one("command: [sh, -c, 'echo $$HOME']").container.command == ("sh", "-c", "echo $HOME")


def test_what_cannot_run_is_refused() -> None:
    project = load("services: {a: {image: '$NO'}}").project
    with pytest.raises(ComposeError) as caught:
        to_stack(project, stack="shop")
    assert str(caught.value) == "services.a.image: names no image"
    with pytest.raises(ComposeError) as caught:
        to_stack(project | {"services": {}}, stack="No Good")
    assert "expected a project name" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "priority"),
    [("", 0), ("x-priority: 10", 10), ("deploy: {x-priority: -3}", -3), ("x-priority: '${NONE:-7}'", 7)],
)
def test_priority(text: str, priority: int) -> None:
    service = one(text)
    assert service.priority == priority
    assert service.extensions == ()


@pytest.mark.parametrize(
    ("text", "generic"),
    [
        ("generic_resources: [{discrete_resource_spec: {kind: gpu, value: 2}}]", (("gpu", 2),)),
        ("devices: [{capabilities: [tpu, x], count: 3}]", (("tpu", 3),)),
        ("devices: [{capabilities: [gpu], device_ids: ['0', '3']}]", (("gpu", 2),)),
        ("devices: [{capabilities: [fpga], count: all}, {capabilities: [gpu]}]", (("fpga", 1), ("gpu", 1))),
        ("generic_resources: [{discrete_resource_spec: {kind: a, value: 1}}], devices: [{capabilities: [a]}]", (("a", 2),)),
    ],
)
def test_generic_resources(text: str, generic: Counts) -> None:
    spec = one(f"deploy: {{resources: {{reservations: {{{text}}}}}}}")
    assert spec.reservations.generic == generic


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("generic_resources: [{discrete_resource_spec: {kind: gpu}}]", "generic_resources[0]: expected a discrete"),
        ("generic_resources: [{discrete_resource_spec: {value: 1}}]", "generic_resources[0]: expected a discrete"),
        ("generic_resources: [{discrete_resource_spec: {kind: 'GPU!', value: 1}}]",
         "generic_resources[0].discrete_resource_spec.kind: found 'GPU!', expected letters, digits, '-', '_' and '.'"),
        ("devices: [{capabilities: []}]", "devices[0].capabilities: expected at least one"),
    ],
)
def test_generic_resources_that_say_nothing_are_refused(text: str, where: str) -> None:
    with pytest.raises(ComposeError, match=re.escape(f": services.a.deploy.resources.reservations.{where}")):
        one(f"deploy: {{resources: {{reservations: {{{text}}}}}}}")
