"""One replica's container in the shape of `docker inspect`.

Rules: pure; Docker's names and meanings. What shoal adds stands under `Shoal`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from agent.images.records import ImageConfig
from agent.plan.container import HostMount
from agent.plan.inspect_network import network_settings, port_bindings
from agent.plan.life import stop_signal
from agent.plan.mounts import mount_plans
from agent.plan.network import NetworkWanted
from agent.plan.networks import attachments
from agent.plan.publish import exposed
from agent.plan.records import Life
from model.spec import ContainerSpec
from model.stamps import utc_text

_STATUS = {"created": "created", "running": "running", "exited": "exited"}
_NEVER = "0001-01-01T00:00:00Z"


def inspected(
    life: Life, config: ImageConfig, pid: int, mounts: Sequence[HostMount], networks: Iterable[NetworkWanted] = ()
) -> dict[str, Any]:
    """Docker's inspect of the replica's present container. `mounts`: the host side of its mounts, in their order. `networks`:
    those of the node."""
    command = _command(life.spec.container, config)
    return {
        "Id": life.container_id,
        "Name": f"/{life.name}",
        "Created": moment(life.id.created_ms / 1000),
        "Path": command[0] if command else "",
        "Args": list(command[1:]),
        "State": _state(life, pid),
        "Image": life.image.id if life.image else "",
        "RestartCount": life.attempts.restarts,
        "Config": _config(life, config),
        "HostConfig": _host_config(life),
        "NetworkSettings": network_settings(life, config.exposed_ports, networks),
        "Mounts": _mounts(life, mounts),
        "Shoal": {
            "ServiceId": life.id.service_id,
            "Service": life.spec.name,
            "Slot": life.id.slot,
            "Version": life.id.version,
            "State": life.state,
            "Message": life.message,
        },
    }


def moment(at: float) -> str:
    """RFC 3339 in UTC; Docker's zero time for 0."""
    if not at:
        return _NEVER
    return utc_text(datetime.fromtimestamp(at, UTC), "microseconds")


def _state(life: Life, pid: int) -> dict[str, Any]:
    running = life.stage == "running"
    waiting = life.stage == "exited" and life.goal == "run" and not life.ended
    state: dict[str, Any] = {
        "Status": "restarting" if waiting else _STATUS.get(life.stage, "created"),
        "Running": running,
        "Paused": False,
        "Restarting": waiting,
        "OOMKilled": life.oom,
        "Dead": False,
        "Pid": pid if running else 0,
        "ExitCode": life.exit_code or 0,
        "Error": "" if running else life.message,
        "StartedAt": moment(life.started_at),
        "FinishedAt": moment(life.finished_at),
    }
    if life.health.status:
        state["Health"] = {"Status": life.health.status, "FailingStreak": life.health.streak, "Log": []}
    return state


def _config(life: Life, config: ImageConfig) -> dict[str, Any]:
    spec = life.spec.container
    env = dict(config.env) | dict(spec.env)
    labels = dict(config.labels) | dict(spec.labels)
    return {
        "Hostname": spec.hostname or life.container_id[:12],
        "Domainname": spec.domainname,
        "User": spec.user or config.user,
        "Tty": spec.tty,
        "OpenStdin": spec.stdin_open,
        "Env": [f"{name}={value}" for name, value in env.items()],
        "Cmd": _list(spec.command if spec.command is not None else config.cmd if spec.entrypoint is None else None),
        "Entrypoint": _list(spec.entrypoint if spec.entrypoint is not None else config.entrypoint),
        "Image": spec.image,
        "WorkingDir": spec.working_dir or config.working_dir or "/",
        "Volumes": {plan.mount.target: {} for plan in mount_plans(life) if plan.anonymous},
        "Labels": labels,
        "StopSignal": stop_signal(life),
        "ExposedPorts": {
            f"{target}/{protocol}": {} for text in (*config.exposed_ports, *spec.expose) for target, protocol in exposed(text)
        },
    }


def _host_config(life: Life) -> dict[str, Any]:
    spec, limits = life.spec.container, life.spec.container.limits
    policy = {"any": "always", "on-failure": "on-failure", "none": "no"}[spec.restart.condition]
    return {
        "NetworkMode": next((item.network for item in attachments(life)), "none"),
        "PortBindings": port_bindings(spec.ports),
        "PublishAllPorts": spec.publish_all,
        "Links": [f"/{target}:/{life.name}/{alias}" for target, alias in spec.links] or None,
        "RestartPolicy": {"Name": policy, "MaximumRetryCount": spec.restart.max_attempts or 0},
        "NanoCpus": round(limits.cpus * 1e9),
        "Memory": limits.memory_bytes,
        "MemorySwap": spec.memswap_limit_bytes or 0,
        "PidsLimit": limits.pids or None,
        "CpuShares": spec.cpu_shares or 0,
        "CpusetCpus": spec.cpuset,
        "Init": spec.init,
        "Privileged": spec.privileged,
        "ReadonlyRootfs": spec.read_only,
        "CapAdd": list(spec.cap_add),
        "CapDrop": list(spec.cap_drop),
        "SecurityOpt": list(spec.security_opt),
        "Sysctls": dict(spec.sysctls),
        "Ulimits": [{"Name": item.name, "Soft": item.soft, "Hard": item.hard} for item in spec.ulimits],
        "ExtraHosts": [f"{name}:{address}" for name, address in spec.extra_hosts],
        "Dns": list(spec.dns),
        "DnsOptions": list(spec.dns_opt),
        "DnsSearch": list(spec.dns_search),
        "ShmSize": spec.shm_size_bytes or 64 << 20,
        "OomScoreAdj": spec.oom_score_adj or 0,
    }


def _mounts(life: Life, mounts: Sequence[HostMount]) -> list[dict[str, Any]]:
    rows = []
    for index, plan in enumerate(mount_plans(life)):
        mount = plan.mount
        rows.append(
            {
                "Type": mount.type,
                **({"Name": plan.volume} if plan.volume else {}),
                "Source": mounts[index].source if index < len(mounts) else mount.source,
                "Destination": mount.target,
                "Mode": "",
                "RW": not mount.read_only,
                "Propagation": mount.propagation or ("rprivate" if mount.type == "bind" else ""),
            }
        )
    return rows


def _command(spec: ContainerSpec, config: ImageConfig) -> tuple[str, ...]:
    entrypoint = spec.entrypoint if spec.entrypoint is not None else config.entrypoint or ()
    command = spec.command if spec.command is not None else (config.cmd or () if spec.entrypoint is None else ())
    return (*entrypoint, *command)


def _list(words: tuple[str, ...] | None) -> list[str] | None:
    return list(words) if words is not None else None
