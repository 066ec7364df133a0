"""The parts of the table of fields: mappings that stand inside services and resources (see `fields`).

Rules: as in `fields`; the reasons of what shoal leaves aside are worded here once.
"""

from __future__ import annotations

from typing import Any

from model.compose.kinds import (
    ANY,
    BOOL,
    BYTES,
    COUNT,
    DURATION,
    INT,
    STR,
    TEXT,
    Command,
    Context,
    Enum,
    Field,
    Int,
    KeyValues,
    ListOf,
    MapOf,
    Num,
    Obj,
    Or,
)
from model.compose.problems import Mark
from model.compose.shorts import (
    BUILD_CONTEXT,
    DEVICE_COUNT,
    EXTRA_HOSTS,
    OCTAL,
    PATH,
    PUBLISHED,
    ULIMIT,
    context_short,
    depends_short,
    host_path,
    mount_short,
    names_short,
    path_short,
    port_short,
    service_short,
    source_short,
)
from model.compose.tree import copy_map

NOT_YET = "is kept but not acted on yet"
NEVER = "has no meaning in a cluster and is left out"
PLACED = "says only where replicas are placed: no device is given to the container"
CACHED = "is not acted on: each node keeps the cache of its own builds"
BUILD_REFUSED = {
    "additional_contexts": "a build has one context",
    "entitlements": "a build is given no more rights",
    "privileged": "a build is given no more rights",
    "secrets": "builds are given no secrets",
    "ssh": "builds are given no keys",
}
"""What an image cannot be built with: applying a file that has it is refused."""

LABELS = KeyValues(bare="")
STRINGS = ListOf(STR)
UNIQUE = ListOf(STR, unique=True)
WORDS = ListOf(STR, scalar=True, unique=True)
OPTIONS = MapOf(TEXT)

PORT = Obj(
    {
        "name": Field(STR),
        "mode": Field(Enum(("ingress", "host"))),
        "host_ip": Field(STR),
        "target": Field(Int(1, 65535)),
        "published": Field(PUBLISHED),
        "protocol": Field(Enum(("tcp", "udp", "sctp"))),
        "app_protocol": Field(STR, NOT_YET),
    },
    required=("target",),
)

PORT_ANY = Or(PORT, port_short)

MOUNT_OBJ = Obj(
    {
        "type": Field(Enum(("bind", "volume", "tmpfs", "cluster", "npipe", "image"))),
        "source": Field(STR),
        "target": Field(STR),
        "read_only": Field(BOOL),
        "consistency": Field(STR, NEVER),
        "bind": Field(
            Obj(
                {
                    "propagation": Field(STR),
                    "create_host_path": Field(BOOL),
                    "recursive": Field(Enum(("enabled", "disabled", "writable", "readonly")), NOT_YET),
                    "selinux": Field(Enum(("z", "Z")), NOT_YET),
                }
            )
        ),
        "volume": Field(Obj({"labels": Field(LABELS, NOT_YET), "nocopy": Field(BOOL), "subpath": Field(STR)})),
        "tmpfs": Field(Obj({"size": Field(BYTES), "mode": Field(INT)})),
        "image": Field(Obj({"subpath": Field(STR)}), NOT_YET),
    },
    required=("type",),
    short=mount_short,
)


def MOUNT(cx: Context, value: Any, path: str, mark: Mark) -> Any:
    """One entry of `volumes`; the path of a bind mount is made absolute."""
    mount = MOUNT_OBJ(cx, value, path, mark)
    if isinstance(mount, dict) and mount.get("type") == "bind" and isinstance(mount.get("source"), str):
        mount["source"] = host_path(cx, mount["source"])
    return mount


HOOK = Obj(
    {
        "command": Field(Command()),
        "user": Field(STR),
        "privileged": Field(BOOL),
        "working_dir": Field(STR),
        "environment": Field(KeyValues(bare=None)),
    },
    required=("command",),
)
FILE_REF = Obj(
    {
        "source": Field(STR),
        "target": Field(STR),
        "uid": Field(TEXT),
        "gid": Field(TEXT),
        "mode": Field(OCTAL),
    },
    short=source_short,
)
ULIMITS = MapOf(ULIMIT)
GENERIC = ListOf(Obj({"discrete_resource_spec": Field(Obj({"kind": Field(STR), "value": Field(INT)}))}))
DEVICE_REQUEST = Obj(
    {
        "capabilities": Field(STRINGS),
        "count": Field(DEVICE_COUNT),
        "device_ids": Field(STRINGS),
        "driver": Field(STR),
        "options": Field(LABELS),
    },
    required=("capabilities",),
)



def _refused(key: str) -> str:
    return f"is refused by apply: {BUILD_REFUSED[key]}"


BUILD_OBJ = Obj(
    {
        **{name: Field(STR) for name in ("dockerfile", "dockerfile_inline", "network", "target")},
        "isolation": Field(STR, NEVER),
        "entitlements": Field(STRINGS, _refused("entitlements")),
        **{name: Field(STRINGS, CACHED) for name in ("cache_from", "cache_to")},
        "tags": Field(STRINGS),
        "platforms": Field(STRINGS, "is not acted on: images are built for the node that builds them"),
        **{name: Field(BOOL) for name in ("no_cache", "pull")},
        "privileged": Field(BOOL, _refused("privileged")),
        **{name: Field(TEXT, NOT_YET) for name in ("provenance", "sbom")},
        "context": Field(BUILD_CONTEXT),
        "args": Field(KeyValues(bare=None)),
        "ssh": Field(LABELS, _refused("ssh")),
        "labels": Field(LABELS),
        "additional_contexts": Field(LABELS, _refused("additional_contexts")),
        "shm_size": Field(BYTES, NOT_YET),
        "extra_hosts": Field(EXTRA_HOSTS, NOT_YET),
        "secrets": Field(ListOf(FILE_REF), _refused("secrets")),
        "ulimits": Field(ULIMITS, NOT_YET),
    },
    short=context_short,
)
HEALTHCHECK = Obj(
    {
        "disable": Field(BOOL),
        "test": Field(ANY),
        "interval": Field(DURATION),
        "timeout": Field(DURATION),
        "start_period": Field(DURATION),
        "start_interval": Field(DURATION),
        "retries": Field(COUNT),
    }
)


def HEALTH(cx: Context, value: Any, path: str, mark: Mark) -> Any:
    """`healthcheck`: text under `test` is a shell command."""
    if isinstance(value, dict) and isinstance(value.get("test"), str):
        value = copy_map(value)
        value["test"] = ["CMD-SHELL", value["test"]]
    result = HEALTHCHECK(cx, value, path, mark)
    test = (result or {}).get("test")
    if test is not None and not (isinstance(test, list) and all(isinstance(word, str) for word in test)):
        return cx.bad(f"{path}.test", test, "text, or a list starting with NONE, CMD or CMD-SHELL", mark)
    if test and test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        return cx.bad(f"{path}.test[0]", test[0], "one of NONE, CMD, CMD-SHELL", mark)
    return result


UPDATE = Obj(
    {
        "parallelism": Field(COUNT),
        "delay": Field(DURATION),
        "failure_action": Field(Enum(("pause", "continue", "rollback"))),
        "monitor": Field(DURATION),
        "max_failure_ratio": Field(Num(0, 1)),
        "order": Field(Enum(("stop-first", "start-first"))),
    }
)
DEPLOY = Obj(
    {
        "mode": Field(Enum(("replicated", "global", "replicated-job", "global-job"))),
        "endpoint_mode": Field(Enum(("vip", "dnsrr"))),
        "replicas": Field(COUNT),
        "labels": Field(LABELS),
        "rollback_config": Field(UPDATE, NOT_YET),
        "update_config": Field(UPDATE),
        "resources": Field(
            Obj(
                {
                    "limits": Field(Obj({"cpus": Field(Num(0)), "memory": Field(BYTES), "pids": Field(INT)})),
                    "reservations": Field(
                        Obj(
                            {
                                "cpus": Field(Num(0)),
                                "memory": Field(BYTES),
                                "pids": Field(INT),
                                "generic_resources": Field(GENERIC),
                                "devices": Field(ListOf(DEVICE_REQUEST), PLACED),
                            }
                        )
                    ),
                }
            )
        ),
        "restart_policy": Field(
            Obj(
                {
                    "condition": Field(Enum(("none", "on-failure", "any"))),
                    "delay": Field(DURATION),
                    "max_attempts": Field(COUNT),
                    "window": Field(DURATION),
                }
            )
        ),
        "placement": Field(
            Obj(
                {
                    "constraints": Field(STRINGS),
                    "preferences": Field(ListOf(Obj({"spread": Field(STR)}))),
                    "max_replicas_per_node": Field(COUNT),
                }
            )
        ),
    }
)
NETWORK_REF = Obj(
    {
        "aliases": Field(UNIQUE),
        "interface_name": Field(STR, NOT_YET),
        "ipv4_address": Field(STR),
        "ipv6_address": Field(STR, "is not acted on: a container's IPv6 address follows from its IPv4 address"),
        "link_local_ips": Field(STRINGS, NOT_YET),
        "mac_address": Field(STR, NOT_YET),
        "driver_opts": Field(OPTIONS, NOT_YET),
        "priority": Field(INT),
        "gw_priority": Field(INT),
    }
)

NETWORK_REFS = Or(MapOf(NETWORK_REF, names=True, keep_null=True), names_short)

DEPENDENCY = Obj(
    {
        "condition": Field(Enum(("service_started", "service_healthy", "service_completed_successfully"))),
        "restart": Field(BOOL),
        "required": Field(BOOL),
    },
    required=("condition",),
)

DEPENDS_ON = Or(MapOf(DEPENDENCY, names=True), depends_short)
MODEL_REF = Obj({"endpoint_var": Field(STR), "model_var": Field(STR)})
MODEL_REFS = Or(MapOf(MODEL_REF, names=True, keep_null=True), names_short)

BLKIO_LIMITS = ListOf(Obj({"path": Field(STR), "rate": Field(BYTES)}))
BLKIO = Obj(
    {
        **{f"device_{verb}_{unit}": Field(BLKIO_LIMITS) for verb in ("read", "write") for unit in ("bps", "iops")},
        "weight": Field(INT),
        "weight_device": Field(ListOf(Obj({"path": Field(STR), "weight": Field(INT)}))),
    }
)
WATCH = Obj(
    {
        "path": Field(PATH),
        "action": Field(Enum(("rebuild", "sync", "restart", "sync+restart", "sync+exec"))),
        "target": Field(STR),
        "ignore": Field(WORDS),
        "include": Field(WORDS),
        "exec": Field(HOOK),
        "initial_sync": Field(BOOL),
    },
    required=("path", "action"),
)
ENV_FILE = Obj({"path": Field(PATH), "required": Field(BOOL), "format": Field(STR)}, required=("path",), short=path_short)
EXTENDS = Obj({"service": Field(STR), "file": Field(STR)}, required=("service",), short=service_short)
