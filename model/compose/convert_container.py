"""One service of a resolved project -> its `ContainerSpec`.

Rules: pure; the input was checked. What has no place in the record was already named by a warning of the loader.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

from model.compose.autoscale import without_labels
from model.compose.check_network import INGRESS, OWN_NETWORKS
from model.compose.names import Names
from model.compose.portwords import exposed
from model.compose.scalars import duration_s, parse_bytes, parse_int
from model.spec import (
    Attachment,
    ContainerSpec,
    FileRef,
    Healthcheck,
    Mount,
    Pairs,
    Port,
    Resources,
    RestartPolicy,
    Ulimit,
)

_Json = Mapping[str, Any]


def pairs(values: _Json | None) -> Pairs:
    """A mapping as sorted pairs; entries without a value are left out."""
    return tuple((key, str(value)) for key, value in sorted((values or {}).items()) if value is not None)


def size(text: Any) -> int | None:
    """Bytes of a checked size, None when not said."""
    return None if text is None else parse_bytes(str(text))


def number(value: Any) -> float:
    return float(value or 0)


def words(value: Any) -> tuple[str, ...]:
    return tuple(value or ())


def _command(value: Any) -> tuple[str, ...] | None:
    return None if value is None else tuple(value)


def container_spec(names: Names, service: _Json) -> ContainerSpec:
    """How to run one container of the service."""
    get = service.get
    logging: _Json = get("logging") or {}
    return ContainerSpec(
        image=get("image") or "",
        command=_command(get("command")),
        entrypoint=_command(get("entrypoint")),
        env=pairs(get("environment")),
        labels=pairs(without_labels(get("labels"))),
        working_dir=get("working_dir") or "",
        user=get("user") or "",
        group_add=words(get("group_add")),
        hostname=get("hostname") or "",
        domainname=get("domainname") or "",
        init=bool(get("init")),
        tty=bool(get("tty")),
        stdin_open=bool(get("stdin_open")),
        read_only=bool(get("read_only")),
        privileged=bool(get("privileged")),
        cap_add=words(get("cap_add")),
        cap_drop=words(get("cap_drop")),
        security_opt=words(get("security_opt")),
        sysctls=pairs(get("sysctls")),
        ulimits=_ulimits(get("ulimits") or {}),
        limits=limits_of(service),
        memswap_limit_bytes=size(get("memswap_limit")),
        shm_size_bytes=size(get("shm_size")),
        oom_score_adj=get("oom_score_adj"),
        cpu_shares=get("cpu_shares"),
        cpuset=get("cpuset") or "",
        mounts=_mounts(names, service),
        devices=tuple(_device(device) for device in get("devices") or ()),
        networks=_attachments(names, service),
        ports=_ports(service),
        expose=tuple(dict.fromkeys(port for text in get("expose") or () for port in exposed(str(text)))),
        links=tuple(_link(names, text) for text in get("links") or ()),
        dns=words(get("dns")),
        dns_search=words(get("dns_search")),
        dns_opt=words(get("dns_opt")),
        extra_hosts=tuple(_host(line) for line in get("extra_hosts") or ()),
        pid_mode=_mode(get("pid")),
        ipc_mode=_mode(get("ipc")),
        healthcheck=_healthcheck(get("healthcheck")),
        restart=_restart(service),
        stop_signal=get("stop_signal") or "",
        stop_grace_period_s=duration_s(get("stop_grace_period") or "10s"),
        log_driver=logging.get("driver") or "",
        log_options=pairs(logging.get("options")),
        secrets=tuple(_file_ref(names.secret(ref["source"]), ref) for ref in get("secrets") or ()),
        configs=tuple(_file_ref(names.config(ref["source"]), ref) for ref in get("configs") or ()),
        pull_policy={"always": "always", "never": "never"}.get(get("pull_policy") or "", "missing"),  # type: ignore[arg-type]
        platform=get("platform") or "",
    )


def _mode(value: str | None) -> str:
    """A namespace mode without those that point at another container (a warning of the loader names them)."""
    return "" if value is None or ":" in value else value


def _ulimits(limits: _Json) -> tuple[Ulimit, ...]:
    rows = []
    for name, value in sorted(limits.items()):
        soft, hard = (value["soft"], value["hard"]) if isinstance(value, dict) else (value, value)
        rows.append(Ulimit(name, soft, hard))
    return tuple(rows)


def reservations_of(service: _Json) -> Resources:
    """What each replica reserves."""
    asked: _Json = ((service.get("deploy") or {}).get("resources") or {}).get("reservations") or {}
    return Resources(
        cpus=number(asked.get("cpus")),
        memory_bytes=size(asked.get("memory") or service.get("mem_reservation")) or 0,
        pids=asked.get("pids") or 0,
        generic=_generic(asked),
    )


def _generic(asked: _Json) -> tuple[tuple[str, int], ...]:
    """Generic resources, and devices by their first capability: so many, or one where all are asked for."""
    counts: Counter[str] = Counter()
    for entry in asked.get("generic_resources") or ():
        row = entry.get("discrete_resource_spec") or {}
        counts[row.get("kind") or ""] += row.get("value") or 0
    for request in asked.get("devices") or ():
        count = request.get("count")
        chosen = len(request.get("device_ids") or ())
        counts[(request.get("capabilities") or [""])[0]] += count if isinstance(count, int) and count > 0 else chosen or 1
    return tuple(sorted(counts.items()))


def limits_of(service: _Json) -> Resources:
    """What each replica may use at most."""
    limits: _Json = ((service.get("deploy") or {}).get("resources") or {}).get("limits") or {}
    cpus = limits.get("cpus") or service.get("cpus")
    if not cpus and (service.get("cpu_quota") or 0) > 0:
        cpus = service["cpu_quota"] / (service.get("cpu_period") or 100_000)
    pids = limits.get("pids") or service.get("pids_limit") or 0
    memory = size(limits.get("memory") or service.get("mem_limit")) or 0
    return Resources(number(cpus), memory, max(pids, 0))


def _mounts(names: Names, service: _Json) -> tuple[Mount, ...]:
    mounts = [_mount(names, entry) for entry in service.get("volumes") or ()]
    mounts += [_tmpfs(text) for text in service.get("tmpfs") or ()]
    return tuple(mount for mount in mounts if mount is not None)


def _mount(names: Names, entry: _Json) -> Mount | None:
    kind = entry["type"]
    options: _Json = entry.get(kind) or {}
    source, target, read_only = entry.get("source") or "", entry["target"], bool(entry.get("read_only"))
    if kind == "bind":
        propagation = options.get("propagation") or ""
        create = options.get("create_host_path", True)
        return Mount("bind", target, source, read_only, propagation=propagation, create_host_path=create)
    if kind == "tmpfs":
        return Mount("tmpfs", target, "", read_only, tmpfs_size_bytes=size(options.get("size")), tmpfs_mode=options.get("mode"))
    if kind in ("volume", "cluster"):
        full = names.volume(source) if source else ""
        nocopy, subpath = bool(options.get("nocopy")), options.get("subpath") or ""
        return Mount("volume", target, full, read_only, nocopy=nocopy, subpath=subpath)
    return None


def _tmpfs(text: str) -> Mount:
    """`/run:size=64m,mode=1777,ro` as a mount."""
    target, _, rest = text.partition(":")
    options = dict(part.partition("=")[::2] for part in rest.split(",") if part)
    mode = options.get("mode")
    return Mount(
        "tmpfs",
        target,
        read_only="ro" in options,
        tmpfs_size_bytes=size(options.get("size")),
        tmpfs_mode=parse_int("0" + mode) if mode else None,
    )


def _device(device: _Json) -> str:
    return f"{device['source']}:{device.get('target') or device['source']}:{device.get('permissions') or 'rwm'}"


def _attachments(names: Names, service: _Json) -> tuple[Attachment, ...]:
    mode = service.get("network_mode") or ""
    if mode in OWN_NETWORKS:
        return (Attachment(mode),)
    networks: _Json = service.get("networks") or {"default": None}
    order = sorted(networks, key=lambda key: (*_rank(networks[key] or {}), key))
    return tuple(
        _attachment(names.network(key), networks[key] or {}, service.get("mac_address") if index == 0 else None)
        for index, key in enumerate(order)
    )


def _rank(options: _Json) -> tuple[float, float]:
    """The first network is the one whose gateway leads out."""
    return -(options.get("gw_priority") or 0), -(options.get("priority") or 0)


def _attachment(network: str, options: _Json, mac_address: str | None) -> Attachment:
    return Attachment(
        network=network,
        aliases=words(options.get("aliases")),
        ipv4_address=options.get("ipv4_address") or "",
        mac_address=options.get("mac_address") or mac_address or "",
        priority=int(options.get("priority") or 0),
    )


def _ports(service: _Json) -> tuple[Port, ...]:
    if service.get("network_mode") in ("host", "none"):
        return ()
    return tuple(port_spec(port, service.get(INGRESS) or "cluster") for port in service.get("ports") or ())


def port_spec(port: _Json, ingress: str) -> Port:
    """One long form; `ingress`: what the service says of all its ports."""
    low, dash, high = str(port.get("published") or "0").partition("-")
    mode: Literal["ingress", "host"] = "host" if port.get("mode") == "host" else "ingress"
    return Port(
        target=port["target"],
        published=int(low),
        protocol=port.get("protocol") or "tcp",
        mode=mode,
        host_ip=port.get("host_ip") or "",
        published_end=int(high) if dash and high != low else 0,
        local=mode == "ingress" and port.get(INGRESS, ingress) == "local",
    )


def _link(names: Names, text: str) -> tuple[str, str]:
    """`db` or `db:alias` as (full name of the service, name here)."""
    key, _, alias = text.partition(":")
    return names.service(key), alias or key


def _host(line: str) -> tuple[str, str]:
    name, _, address = line.partition("=")
    return name, address


def _healthcheck(check: _Json | None) -> Healthcheck | None:
    if not check:
        return None
    test = words(check.get("test"))
    return Healthcheck(
        test=test,
        interval_s=duration_s(check.get("interval") or "30s") or 30.0,
        timeout_s=duration_s(check.get("timeout") or "30s") or 30.0,
        retries=check.get("retries") or 3,
        start_period_s=duration_s(check.get("start_period") or "0"),
        start_interval_s=duration_s(check.get("start_interval") or "5s") or 5.0,
        disable=bool(check.get("disable")) or test[:1] == ("NONE",),
    )


def _restart(service: _Json) -> RestartPolicy:
    """`deploy.restart_policy`, else `restart`, else always (a job: on failure)."""
    deploy: _Json = service.get("deploy") or {}
    job = str(deploy.get("mode") or "").endswith("-job")
    policy: _Json | None = deploy.get("restart_policy")
    if policy:
        delay = policy.get("delay")
        return RestartPolicy(
            condition=policy.get("condition") or ("on-failure" if job else "any"),
            delay_s=duration_s(delay) if delay else None,
            max_attempts=policy.get("max_attempts"),
            window_s=duration_s(policy.get("window") or "0"),
        )
    word, _, attempts = (service.get("restart") or "").partition(":")
    if word == "on-failure" or (job and word != "no"):
        return RestartPolicy("on-failure", max_attempts=int(attempts) if attempts else None)
    return RestartPolicy("none") if word == "no" else RestartPolicy()


def _file_ref(full_name: str, ref: _Json) -> FileRef:
    mode = ref.get("mode")
    return FileRef(
        source=full_name,
        target=ref.get("target") or "",
        uid=ref.get("uid") or "",
        gid=ref.get("gid") or "",
        mode=int(str(mode), 8) if mode else None,
    )
