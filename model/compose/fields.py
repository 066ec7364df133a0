"""THE table of Compose fields: what kind of value each takes, and whether shoal acts on it.

Rules: every field of the Compose Specification and of docker stack's dialect stands here; `Field(kind)` is supported,
`Field(kind, why)` is accepted with the named warning `unsupported:<path>`, `x-` keys are accepted and kept everywhere.
Nothing is ignored in silence. When shoal learns a field, its reason goes away here and nowhere else.
"""

from __future__ import annotations

from model.compose.kinds import (
    ANY,
    BOOL,
    BYTES,
    COUNT,
    DURATION,
    INT,
    STR,
    SWAP_BYTES,
    TEXT,
    Command,
    Enum,
    Field,
    Int,
    KeyValues,
    ListOf,
    MapOf,
    Num,
    Obj,
    Pattern,
)
from model.compose.parts import (
    BLKIO,
    BUILD_OBJ,
    DEPENDS_ON,
    DEPLOY,
    ENV_FILE,
    EXTENDS,
    FILE_REF,
    HEALTH,
    HOOK,
    LABELS,
    MODEL_REFS,
    MOUNT,
    NETWORK_REFS,
    NEVER,
    NOT_YET,
    OPTIONS,
    PORT_ANY,
    STRINGS,
    ULIMITS,
    UNIQUE,
    WATCH,
    WORDS,
)
from model.compose.shorts import (
    EXTERNAL,
    EXTRA_HOSTS,
    GPUS,
    PATH,
    device_short,
    path_short,
)

_CPU_TIME = "is not acted on: use deploy.resources.limits.cpus"
_OTHER_STACK = "is not acted on: join the other stack's network (external: true), where its services have their names"

SERVICE = Obj(
    {
        "annotations": Field(LABELS, NOT_YET),
        "attach": Field(BOOL, NEVER),
        "blkio_config": Field(BLKIO, NOT_YET),
        "build": Field(BUILD_OBJ),
        "cap_add": Field(UNIQUE),
        "cap_drop": Field(UNIQUE),
        "cgroup": Field(Enum(("host", "private")), NOT_YET),
        "cgroup_parent": Field(STR, NEVER),
        "command": Field(Command()),
        "configs": Field(ListOf(FILE_REF), NOT_YET),
        "container_name": Field(
            Pattern(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", "a name of at least two letters, digits or _.-"),
            "is not acted on: replicas are named <stack>_<service>.<slot>",
        ),
        "cpu_count": Field(COUNT, _CPU_TIME),
        "cpu_percent": Field(Num(0), _CPU_TIME),
        "cpu_period": Field(INT),
        "cpu_quota": Field(INT),
        "cpu_rt_period": Field(INT, _CPU_TIME),
        "cpu_rt_runtime": Field(INT, _CPU_TIME),
        "cpu_shares": Field(COUNT),
        "cpus": Field(Num(0)),
        "cpuset": Field(STR),
        "credential_spec": Field(Obj({n: Field(STR) for n in ("config", "file", "registry")}), NEVER),
        "depends_on": Field(DEPENDS_ON, "gives no order of starting: a service is restarted until what it needs is there"),
        "deploy": Field(DEPLOY),
        "develop": Field(Obj({"watch": Field(ListOf(WATCH))}), NEVER),
        "device_cgroup_rules": Field(STRINGS, NOT_YET),
        "devices": Field(
            ListOf(
                Obj(
                    {"source": Field(STR), "target": Field(STR), "permissions": Field(STR)},
                    required=("source",),
                    short=device_short,
                )
            )
        ),
        "dns": Field(WORDS),
        "dns_opt": Field(UNIQUE),
        "dns_search": Field(WORDS),
        "domainname": Field(STR),
        "entrypoint": Field(Command()),
        "env_file": Field(ListOf(ENV_FILE, scalar=True)),
        "environment": Field(KeyValues(bare=None)),
        "expose": Field(ListOf(TEXT, unique=True)),
        "extends": Field(EXTENDS),
        "external_links": Field(UNIQUE, _OTHER_STACK),
        "extra_hosts": Field(EXTRA_HOSTS),
        "gpus": Field(GPUS, NOT_YET),
        "group_add": Field(ListOf(TEXT, unique=True)),
        "healthcheck": Field(HEALTH),
        "hostname": Field(STR),
        "image": Field(STR),
        "init": Field(BOOL),
        "ipc": Field(STR),
        "isolation": Field(STR, NEVER),
        "label_file": Field(ListOf(PATH, scalar=True)),
        "labels": Field(LABELS),
        "links": Field(UNIQUE),
        "logging": Field(Obj({"driver": Field(STR), "options": Field(OPTIONS)})),
        "mac_address": Field(STR, NOT_YET),
        "mem_limit": Field(BYTES),
        "mem_reservation": Field(BYTES),
        "mem_swappiness": Field(BYTES, NOT_YET),
        "memswap_limit": Field(SWAP_BYTES),
        "models": Field(MODEL_REFS, NOT_YET),
        "network_mode": Field(STR),
        "networks": Field(NETWORK_REFS),
        "oom_kill_disable": Field(BOOL, NOT_YET),
        "oom_score_adj": Field(Int(-1000, 1000)),
        "pid": Field(STR),
        "pids_limit": Field(INT),
        "platform": Field(STR),
        "ports": Field(ListOf(PORT_ANY, spread=True)),
        "post_start": Field(ListOf(HOOK), NOT_YET),
        "pre_stop": Field(ListOf(HOOK), NOT_YET),
        "privileged": Field(BOOL),
        "profiles": Field(UNIQUE),
        "provider": Field(Obj({"type": Field(STR), "options": Field(ANY)}, required=("type",)), NEVER),
        "pull_policy": Field(
            Pattern(
                r"\A(always|never|build|if_not_present|missing|refresh|daily|weekly|every_([0-9]+[wdhms])+)\Z",
                "one of always, missing, never, build, refresh, daily, weekly, every_<duration>",
            )
        ),
        "pull_refresh_after": Field(STR, NOT_YET),
        "read_only": Field(BOOL),
        "restart": Field(Pattern(r"\A(no|always|unless-stopped|on-failure(:\d+)?|)\Z", "no, always, on-failure[:N] or "
                                 "unless-stopped")),
        "runtime": Field(STR, NOT_YET),
        "scale": Field(COUNT),
        "secrets": Field(ListOf(FILE_REF), NOT_YET),
        "security_opt": Field(UNIQUE),
        "shm_size": Field(BYTES),
        "stdin_open": Field(BOOL),
        "stop_grace_period": Field(DURATION),
        "stop_signal": Field(STR),
        "storage_opt": Field(OPTIONS, NOT_YET),
        "sysctls": Field(KeyValues(bare="")),
        "tmpfs": Field(WORDS),
        "tty": Field(BOOL),
        "ulimits": Field(ULIMITS),
        "use_api_socket": Field(BOOL, NEVER),
        "user": Field(STR),
        "userns_mode": Field(STR, NOT_YET),
        "uts": Field(STR, NOT_YET),
        "volumes": Field(ListOf(MOUNT)),
        "volumes_from": Field(UNIQUE, "is not acted on: name the volume in both services"),
        "working_dir": Field(STR),
    },
    what="a mapping with 'image' and how to run it",
)  # fmt: skip

_OWN = {"name": Field(STR), "external": Field(EXTERNAL), "labels": Field(LABELS)}
NETWORK = Obj(
    {
        **_OWN,
        "driver": Field(STR),
        "driver_opts": Field(OPTIONS),
        "ipam": Field(
            Obj(
                {
                    "driver": Field(STR),
                    "config": Field(
                        ListOf(
                            Obj(
                                {
                                    "subnet": Field(STR),
                                    "ip_range": Field(STR, NOT_YET),
                                    "gateway": Field(STR, NOT_YET),
                                    "aux_addresses": Field(OPTIONS, NOT_YET),
                                }
                            )
                        )
                    ),
                    "options": Field(OPTIONS, NOT_YET),
                }
            )
        ),
        "internal": Field(BOOL),
        "enable_ipv4": Field(BOOL, NOT_YET),
        "enable_ipv6": Field(BOOL),
        "attachable": Field(BOOL),
    }
)
VOLUME = Obj({**_OWN, "driver": Field(STR), "driver_opts": Field(OPTIONS)})
_FILE_LIKE = {
    **_OWN,
    "environment": Field(STR),
    "file": Field(PATH),
    "content": Field(STR),
    "driver": Field(STR, NOT_YET),
    "driver_opts": Field(OPTIONS, NOT_YET),
    "template_driver": Field(STR, NOT_YET),
}
SECRET = Obj({name: row for name, row in _FILE_LIKE.items() if name != "content"})
CONFIG = Obj({name: row for name, row in _FILE_LIKE.items() if name not in ("driver", "driver_opts")})
MODEL = Obj(
    {
        "name": Field(STR),
        "model": Field(STR),
        "context_size": Field(INT),
        "runtime_flags": Field(STRINGS),
    },
    required=("model",),
)
INCLUDE = Obj(
    {"path": Field(ListOf(STR, scalar=True)), "env_file": Field(ListOf(STR, scalar=True)), "project_directory": Field(STR)},
    required=("path",),
    short=path_short,
)


def named(kind: Obj) -> MapOf:
    return MapOf(kind, names=True, keep_null=True)


SECTIONS = ("services", "networks", "volumes", "secrets", "configs", "models")
TOP = Obj(
    {
        "version": Field(TEXT),
        "name": Field(STR),
        "include": Field(ListOf(INCLUDE)),
        "services": Field(MapOf(SERVICE, names=True, keep_null=True)),
        "networks": Field(named(NETWORK)),
        "volumes": Field(named(VOLUME)),
        "secrets": Field(named(SECRET)),
        "configs": Field(named(CONFIG)),
        "models": Field(named(MODEL), NOT_YET),
    },
    what="a mapping with 'services'",
)
