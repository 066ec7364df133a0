"""OCI configs as plain values: what a container gets by default, and what widens it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.images.records import ImageConfig
from agent.plan.capabilities import DEFAULT
from agent.plan.container import ContainerOrder, ExecRequest, HostMount
from agent.plan.oci import BundlePlace, Device, HostFacts, RootFacts, oci_config, parse_device
from agent.plan.oci_process import exec_process
from agent.plan.users import User
from model.errors import RuntimeFailed
from model.spec import ContainerSpec, Resources, Ulimit

FACTS = HostFacts(
    machine="x86_64",
    cgroup_version=1,
    capabilities=(*DEFAULT, "CAP_NET_ADMIN", "CAP_SYS_ADMIN"),
    rlimits={"RLIMIT_NOFILE": 20_000, "RLIMIT_NPROC": -1},
    swap=True,
    init="/usr/bin/catatonit",
    node="n1",
)
PLACE = BundlePlace("/c/rootfs", "/c/hosts", "/c/hostname", "/c/resolv.conf", "/shoal/abc")
ROOT = RootFacts("root:x:0:0::/root:/bin/sh\nann:x:1000:1001::/home/ann:/bin/sh\n", "video:x:44:ann\n")
IMAGE = ImageConfig(entrypoint=("/run.sh",), cmd=("serve",), env=(("A", "1"), ("PATH", "/bin")), working_dir="/srv", user="ann")


def order(
    image: ImageConfig = IMAGE, netns: str = "/run/netns/x", mounts: tuple[HostMount, ...] = (), **spec: Any
) -> ContainerOrder:
    return ContainerOrder(
        id="0123456789abcdef", name="shop_web.1", log_key="k", spec=replace(ContainerSpec(image="web"), **spec), image=image,
        layers=(Path("/l"),), netns=netns, mounts=mounts,
    )  # fmt: skip


def config(root: RootFacts = ROOT, facts: HostFacts = FACTS, **rest: Any) -> dict[str, Any]:
    return oci_config(order(**rest), facts, PLACE, root, "QlBG")


def env(found: dict[str, Any]) -> dict[str, str]:
    return dict(line.split("=", 1) for line in found["process"]["env"])


def test_the_default_container_as_a_whole() -> None:
    held = sorted(DEFAULT)
    found = config()
    assert found["process"] == {
        "terminal": False,
        "user": {"uid": 1000, "gid": 1001, "additionalGids": [44, 1001]},
        "args": ["/run.sh", "serve"],
        "env": ["PATH=/bin", "HOSTNAME=0123456789ab", "SHOAL_REPLICA=shop_web.1", "SHOAL_NODE=n1", "A=1", "HOME=/home/ann"],
        "cwd": "/srv",
        "capabilities": {"bounding": held, "effective": [], "permitted": [], "inheritable": [], "ambient": []},
        "noNewPrivileges": True,
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 20_000, "hard": 20_000}],
        "oomScoreAdj": 0,
    }
    assert found["root"] == {"path": "/c/rootfs", "readonly": False}
    assert found["annotations"] == {"shoal.replica": "shop_web.1", "run.oci.seccomp_bpf_data": "QlBG"}
    linux = found["linux"]
    assert linux["namespaces"] == [
        {"type": "mount"}, {"type": "uts"}, {"type": "pid"}, {"type": "ipc"}, {"type": "network", "path": "/run/netns/x"},
    ]  # fmt: skip
    assert linux["resources"] == {"devices": [{"allow": False, "access": "rwm"}]}
    assert "seccomp" not in linux
    assert "/proc/kcore" in linux["maskedPaths"]
    assert "/proc/sys" in linux["readonlyPaths"]
    targets = [row["destination"] for row in found["mounts"]]
    assert targets == [
        "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup", "/etc/hosts", "/etc/hostname",
        "/etc/resolv.conf",
    ]  # fmt: skip


def test_the_capabilities_are_docker_s_fourteen() -> None:
    held = set(config()["process"]["capabilities"]["bounding"])
    assert len(held) == 14
    assert {"CAP_MKNOD", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_AUDIT_WRITE"} <= held
    assert not held & {"CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"}
    assert "CAP_NET_ADMIN" in config(cap_add=("net_admin",))["process"]["capabilities"]["bounding"]


@pytest.mark.parametrize(
    ("add", "drop", "held"),
    [
        ((), ("ALL",), set()),
        (("CHOWN",), ("ALL",), {"CAP_CHOWN"}),
        (("ALL",), (), set(FACTS.capabilities)),
        (("ALL",), ("CAP_SYS_ADMIN",), set(FACTS.capabilities) - {"CAP_SYS_ADMIN"}),
        (("SYS_TIME",), (), set(DEFAULT)),
    ],
)
def test_capabilities(add: tuple[str, ...], drop: tuple[str, ...], held: set[str]) -> None:
    found = config(cap_add=add, cap_drop=drop, user="root")["process"]["capabilities"]
    assert set(found["bounding"]) == held == set(found["effective"])


def test_no_command_at_all_is_refused() -> None:
    with pytest.raises(RuntimeFailed, match="has no command") as caught:
        config(image=ImageConfig())
    assert caught.value.permanent


def test_an_entrypoint_of_the_spec_drops_the_image_s_command() -> None:
    assert config(entrypoint=("/other",))["process"]["args"] == ["/other"]
    assert config(command=("x",))["process"]["args"] == ["/run.sh", "x"]
    assert config(entrypoint=(), command=("x",))["process"]["args"] == ["x"]


def test_init_runs_the_command_below_catatonit() -> None:
    found = config(init=True)
    assert found["process"]["args"] == ["/dev/init", "--", "/run.sh", "serve"]
    row = next(row for row in found["mounts"] if row["destination"] == "/dev/init")
    assert row["source"] == "/usr/bin/catatonit"
    assert "ro" in row["options"]
    with pytest.raises(RuntimeFailed, match="catatonit is not installed"):
        config(init=True, facts=replace(FACTS, init=""))


def test_users_by_name_number_and_group() -> None:
    assert config(user="0")["process"]["user"] == {"uid": 0, "gid": 0, "additionalGids": []}
    assert config(user="5000")["process"]["user"]["uid"] == 5000
    assert config(user="ann:video")["process"]["user"] == {"uid": 1000, "gid": 44, "additionalGids": []}
    assert config(user="ann", group_add=("7",))["process"]["user"]["additionalGids"] == [7, 44, 1001]
    for user in ("bob", "ann:nope", "-1", "4294967295"):
        with pytest.raises(RuntimeFailed, match="not in the image") as caught:
            config(user=user)
        assert caught.value.permanent


def test_the_spec_s_environment_wins_and_a_nul_byte_is_refused() -> None:
    assert env(config(env=(("A", "2"), ("HOME", "/x"))))["A"] == "2"
    assert env(config(env=(("HOME", "/x"),)))["HOME"] == "/x"
    assert env(config(tty=True))["TERM"] == "xterm"
    with pytest.raises(RuntimeFailed, match="NUL"):
        config(env=(("A", "x\0y"),))


@pytest.mark.parametrize("path", ["/proc/self/fd/9", "/proc", "//proc/1", "/srv/../proc/x", "srv"])
def test_a_working_directory_below_proc_is_refused(path: str) -> None:
    with pytest.raises(RuntimeFailed, match="working directory") as caught:
        config(working_dir=path)
    assert caught.value.permanent


def test_limits() -> None:
    limits = Resources(cpus=1.5, memory_bytes=64 << 20, pids=100)
    found = config(limits=limits, cpuset="0", cpu_shares=512, oom_score_adj=300)
    assert found["linux"]["resources"] == {
        "cpu": {"quota": 150_000, "period": 100_000, "shares": 512, "cpus": "0"},
        "memory": {"limit": 64 << 20, "swap": 128 << 20},
        "pids": {"limit": 100},
        "devices": [{"allow": False, "access": "rwm"}],
    }
    assert found["process"]["oomScoreAdj"] == 300
    assert "swap" not in config(limits=limits, facts=replace(FACTS, swap=False))["linux"]["resources"]["memory"]
    for wrong in (Resources(memory_bytes=1 << 20), limits):
        with pytest.raises(RuntimeFailed, match="below the"):
            config(limits=wrong, memswap_limit_bytes=1 << 20)


def test_rlimits_are_clipped_to_the_node_s_hard_limit() -> None:
    found = config(ulimits=(Ulimit("nofile", -1, -1), Ulimit("nproc", 10, -1)))["process"]["rlimits"]
    assert found == [
        {"type": "RLIMIT_NOFILE", "soft": 20_000, "hard": 20_000},
        {"type": "RLIMIT_NPROC", "soft": 10, "hard": 2**64 - 1},
    ]
    with pytest.raises(RuntimeFailed, match="ulimit 'files' is unknown"):
        config(ulimits=(Ulimit("files", 1, 1),))


def test_only_the_container_s_own_sysctls() -> None:
    found = config(sysctls=(("net.core.somaxconn", "1024"), ("kernel.shmmax", "1")))["linux"]["sysctl"]
    assert found["net.core.somaxconn"] == "1024"
    with pytest.raises(RuntimeFailed, match="not the container's own"):
        config(sysctls=(("vm.swappiness", "1"),))
    with pytest.raises(RuntimeFailed, match="not the container's own"):
        config(sysctls=(("net.core.somaxconn", "1"),), netns="host")
    with pytest.raises(RuntimeFailed, match="not the container's own"):
        config(sysctls=(("kernel.sem", "1"),), ipc_mode="host")


def test_privileged_widens_everything() -> None:
    found = config(privileged=True)
    assert set(found["process"]["capabilities"]["bounding"]) == set(FACTS.capabilities)
    assert found["process"]["noNewPrivileges"] is False
    assert "maskedPaths" not in found["linux"]
    assert "run.oci.seccomp_bpf_data" not in found["annotations"]
    assert found["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert not any("ro" in row["options"] for row in found["mounts"])


def test_security_options() -> None:
    assert config(security_opt=("no-new-privileges:false",))["process"]["noNewPrivileges"] is False
    assert "run.oci.seccomp_bpf_data" not in config(security_opt=("seccomp=unconfined",))["annotations"]
    assert "maskedPaths" not in config(security_opt=("systempaths=unconfined",))["linux"]
    with pytest.raises(RuntimeFailed, match="not supported"):
        config(security_opt=("seccomp=/my/profile.json",))


def test_namespaces_of_the_host() -> None:
    kinds = {row["type"] for row in config(netns="host", pid_mode="host", ipc_mode="host")["linux"]["namespaces"]}
    assert kinds == {"mount", "uts"}
    assert {"type": "network"} in config(netns="")["linux"]["namespaces"]
    assert {"type": "cgroup"} in config(facts=replace(FACTS, cgroup_version=2))["linux"]["namespaces"]
    with pytest.raises(RuntimeFailed, match="pid: 'service:x'"):
        config(pid_mode="service:x")


def test_mounts_come_parents_first_and_replace_defaults() -> None:
    mounts = (
        HostMount("/data/deep/er", "/v/2", read_only=True),
        HostMount("/data", "/v/1", propagation="rslave"),
        HostMount("/etc/hosts", "/my/hosts"),
        HostMount("/dev/shm", tmpfs_size_bytes=1 << 20, tmpfs_mode=0o700),
    )
    rows = config(mounts=mounts)["mounts"]
    targets = [row["destination"] for row in rows]
    assert targets.index("/data") < targets.index("/data/deep/er")
    assert targets.count("/etc/hosts") == targets.count("/dev/shm") == 1
    by_target = {row["destination"]: row for row in rows}
    assert by_target["/data/deep/er"]["options"] == ["rbind", "rprivate", "ro"]
    assert by_target["/data"]["options"] == ["rbind", "rslave", "rw"]
    assert by_target["/etc/hosts"]["source"] == "/my/hosts"
    assert by_target["/dev/shm"]["options"] == ["nosuid", "nodev", "noexec", "mode=700", "size=1048576"]
    with pytest.raises(RuntimeFailed, match="other than /"):
        config(mounts=(HostMount("/", "/v"),))


def test_mount_targets_are_where_they_really_lie() -> None:
    root = replace(ROOT, mount_targets=("/usr/data",))
    assert "/usr/data" in [row["destination"] for row in config(root=root, mounts=(HostMount("/data", "/v"),))["mounts"]]


def test_devices() -> None:
    assert parse_device("/dev/fuse") == ("/dev/fuse", "/dev/fuse", "rwm")
    assert parse_device("/dev/fuse:/dev/x:r") == ("/dev/fuse", "/dev/x", "r")
    for wrong in ("fuse", "/dev/fuse:/etc/x", "/dev/fuse:/dev/../etc/x", "/dev/fuse:rq"):
        with pytest.raises(RuntimeFailed, match="device"):
            parse_device(wrong)
    linux = config(root=replace(ROOT, devices=(Device("/dev/fuse", "c", 10, 229, access="r"),)))["linux"]
    assert linux["devices"][0]["path"] == "/dev/fuse"
    assert linux["resources"]["devices"][1] == {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "r"}


def test_exec_keeps_the_container_s_rights_unless_it_is_privileged() -> None:
    base = config()["process"]
    root = User(0, 0, (), "/root")
    found = exec_process(ExecRequest(("id",), user="root", env=(("B", "2"),), tty=True), base, root, FACTS.capabilities)
    assert found["user"]["uid"] == 0
    assert found["capabilities"]["effective"] == sorted(DEFAULT)
    assert found["noNewPrivileges"] is True
    assert {"B=2", "A=1", "HOME=/root", "TERM=xterm"} <= set(found["env"])
    wide = exec_process(ExecRequest(("id",), privileged=True), base, root, FACTS.capabilities)
    assert set(wide["capabilities"]["bounding"]) == set(FACTS.capabilities)
    assert wide["noNewPrivileges"] is False
    with pytest.raises(RuntimeFailed, match="no command"):
        exec_process(ExecRequest(()), base, root, ())
