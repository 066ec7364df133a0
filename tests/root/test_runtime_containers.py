"""What a container really gets from the kernel: rights, limits, mounts, files, signals; and how its faults read."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from agent.plan.container import ExecRequest, HostMount
from model.errors import DiskFull, RuntimeFailed
from model.spec import Resources, Ulimit
from tests.contract.etcd_harness import eventually
from tests.root.runtime_kit import Kit, busybox_layer, in_private_mounts, kit_open, leftovers, with_kit

pytestmark = pytest.mark.root


def test_rights_of_an_ordinary_container(tmp_path: Path) -> None:
    async def body(kit: Kit) -> None:
        _, text = await kit.ran("cat", "/proc/self/status")
        rows = dict(line.split(":", 1) for line in text.splitlines())
        assert rows["CapBnd"].strip() == rows["CapEff"].strip() == "00000000a80425fb"
        assert rows["NoNewPrivs"].strip() == "1"
        assert rows["Seccomp"].strip() == "2"
        script = "mount -t tmpfs x /tmp; chroot / true && hostname x; echo 1 > /proc/sysrq-trigger; :"
        exited, text = await kit.ran("sh", "-c", script)
        assert exited.exit_code == 0
        assert text.lower().count("operation not permitted") + text.lower().count("permission denied") == 2
        assert "Read-only file system" in text or "can't create" in text

    with_kit(tmp_path, body)


def test_a_device_that_a_container_makes_opens_nothing(tmp_path: Path) -> None:
    async def body(kit: Kit) -> None:
        devices = [f"b {row.split()[0]} {row.split()[1]}" for row in Path("/proc/partitions").read_text().splitlines()[2:]]
        devices += ["c 1 1", "c 10 130", "c 10 237"]
        script = "; ".join(f"mknod /x {device} && echo made; cat /x && echo opened; rm -f /x" for device in devices)
        _, text = await kit.ran("sh", "-c", script)
        assert text.count("made") == len(devices)
        assert text.lower().count("operation not permitted") == len(devices)
        assert "opened" not in text

    with_kit(tmp_path, body)


def test_the_user_sees_its_name_home_groups_and_no_power(tmp_path: Path) -> None:
    async def body(kit: Kit) -> None:
        _, text = await kit.ran(
            "sh", "-c", "id; echo $HOME; pwd; grep CapEff /proc/self/status", user="ann", working_dir="/home/ann"
        )
        assert text.splitlines() == [
            "uid=1000(ann) gid=1000(ann) groups=44(video),1000(ann)", "/home/ann", "/home/ann", "CapEff:\t0000000000000000",
        ]  # fmt: skip

    with_kit(tmp_path, body)


def test_files_of_etc_and_hostname(tmp_path: Path) -> None:
    async def body(kit: Kit) -> None:
        script = "hostname; cat /etc/hostname /etc/hosts /etc/resolv.conf"
        plain = kit.order("sh", "-c", script, hostname="web", extra_hosts=(("db", "10.1.1.1"),))
        order = replace(plain, addresses=("10.9.0.2",), nameservers=("10.9.0.1",))
        await kit.exit_of(await kit.started(order))
        text = b"".join([line.line async for line in kit.runtime.logs(order.log_key)]).decode()
        assert text.startswith("web\nweb\n")
        assert "10.9.0.2\tweb\n" in text
        assert "10.1.1.1\tdb\n" in text
        assert text.endswith("nameserver 10.9.0.1\noptions ndots:0\n")

    with_kit(tmp_path, body)


def test_files_of_etc_follow_the_networks_of_a_running_container(tmp_path: Path) -> None:
    async def body(kit: Kit) -> None:
        plain = kit.order("sleep", "1000", hostname="web")
        order = replace(plain, addresses=("10.9.0.2", "10.8.0.2"), nameservers=("10.9.0.1",))
        await kit.started(order)
        await kit.runtime.readdress(replace(order, addresses=("10.7.0.2",), nameservers=("10.7.0.1",), layers=()))
        session = await kit.runtime.exec(order.id, ExecRequest(("cat", "/etc/hosts", "/etc/resolv.conf")))
        text = b"".join([data async for _, data in session.output()]).decode()
        await session.close()
        assert text.endswith("ff02::2\tip6-allrouters\n10.7.0.2\tweb\nnameserver 10.7.0.1\noptions ndots:0\n")

    with_kit(tmp_path, body)


def test_mounts_read_only_root_and_tmpfs(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "v/file").write_text("from the host\n")

    async def body(kit: Kit) -> None:
        mounts = (
            HostMount("/data", str(tmp_path / "v")),
            HostMount("/ro", str(tmp_path / "v"), read_only=True),
            HostMount("/scratch", tmpfs_size_bytes=1 << 20, tmpfs_mode=0o700),
        )
        script = "cat /ro/file; echo new > /data/new; echo x > /ro/x; echo x > /x; stat -c %a /scratch; df -k /scratch /dev/shm"
        _, text = await kit.ran("sh", "-c", script, mounts=mounts, read_only=True, shm_size_bytes=2 << 20)
        assert "from the host" in text
        assert (tmp_path / "v/new").read_text() == "new\n"
        assert not (tmp_path / "v/x").exists()
        assert text.count("Read-only file system") == 2
        assert "\n700\n" in text
        assert " 1024 " in text
        assert " 2048 " in text

    with_kit(tmp_path, body)


def test_out_of_memory_says_so(tmp_path: Path) -> None:
    async def body(kit: Kit) -> None:
        exited, _ = await kit.ran("tail", "-c", "60m", "/dev/zero", limits=Resources(memory_bytes=32 << 20))
        assert (exited.exit_code, exited.oom) == (137, True)
        assert exited.message == "out of memory: killed at 32.0 MiB (exit code 137)"

    before = [path.exists() for path in (Path("/oom"), Path("oom"))]
    with_kit(tmp_path, body)
    assert [path.exists() for path in (Path("/oom"), Path("oom"))] == before, "conmon wrote outside the container's directory"


def test_limits_are_those_of_the_kernel(tmp_path: Path) -> None:
    async def body(kit: Kit) -> None:
        limits = Resources(cpus=0.5, memory_bytes=64 << 20, pids=20)
        order = kit.order(limits=limits, ulimits=(Ulimit("nofile", 100, -1),), oom_score_adj=200)
        await kit.started(order)
        pid = kit.pid(order.id)
        usage = await kit.runtime.usage(order.id)
        assert usage is not None
        assert (usage.memory_limit_bytes, usage.pids_limit, usage.pids) == (64 << 20, 20, 1)
        soft = next(line.split()[3] for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if "open files" in line)
        assert soft == "100"
        assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "200\n"

    with_kit(tmp_path, body)


def test_init_passes_signals_on_and_a_bare_shell_needs_a_kill(tmp_path: Path) -> None:
    async def body(kit: Kit) -> None:
        command = ("sh", "-c", "echo up; exec sleep 1000")
        with_init, bare = kit.order(*command, init=True), kit.order(*command)
        for order in (with_init, bare):
            await kit.started(order)
            assert (await anext(kit.runtime.logs(order.log_key, follow=True))).line == b"up\n"
            await kit.runtime.kill(order.id, 15)
        assert (await kit.exit_of(with_init.id)).exit_code == 143
        await kit.runtime.kill(bare.id, 9)
        assert (await kit.exit_of(bare.id)).exit_code == 137

    with_kit(tmp_path, body)


def test_faults_of_the_command_read_as_one_line_with_a_code(tmp_path: Path) -> None:
    async def body(kit: Kit) -> None:
        faults = {
            "/bin/nope": ('cannot start: "/bin/nope": no such file or directory (exit code 127)', 127),
            "nope": ('cannot start: "nope": not found in $PATH (exit code 127)', 127),
            "/etc/passwd": ('cannot start: "/etc/passwd": permission denied (exit code 126)', 126),
        }
        for command, (message, code) in faults.items():
            with pytest.raises(RuntimeFailed) as caught:
                await kit.runtime.create(kit.order(command))
            assert (str(caught.value), caught.value.exit_code, caught.value.permanent) == (message, code, True)
        assert os.listdir(tmp_path / "data/containers") == []

    with_kit(tmp_path, body)


def test_what_the_kernel_cannot_execute_reads_like_any_bad_command(tmp_path: Path) -> None:
    async def body(kit: Kit) -> None:
        for name, text in (("garbage", b"\x7fELF" * 9), ("lost", b"#!/no/such\n")):
            (kit.layer / "bin" / name).write_bytes(text)
            (kit.layer / "bin" / name).chmod(0o755)
        exited, _ = await kit.ran("/bin/garbage")
        assert (exited.exit_code, exited.message) == (126, 'cannot start: "/bin/garbage": exec format error (exit code 126)')
        exited, _ = await kit.ran("/bin/lost")
        assert (exited.exit_code, exited.message) == (
            127,
            'cannot start: "/bin/lost": no such file or directory (exit code 127)',
        )

    with_kit(tmp_path, body)


def test_privileged_sees_the_host_s_devices_and_modes_of_the_host_work(tmp_path: Path) -> None:
    async def body(kit: Kit) -> None:
        _, text = await kit.ran("sh", "-c", "ls /dev; grep Seccomp: /proc/self/status", privileged=True)
        assert {name for name in os.listdir("/dev") if name in ("kmsg", "vda", "fuse")} <= set(text.split())
        assert text.endswith("Seccomp:\t0\n")
        _, text = await kit.ran("sh", "-c", "ps | wc -l", pid_mode="host", ipc_mode="host", netns="host")
        assert int(text) > 3

    with_kit(tmp_path, body)


def test_a_missing_mount_source_and_a_strange_user_are_named(tmp_path: Path) -> None:
    async def body(kit: Kit) -> None:
        with pytest.raises(RuntimeFailed, match="/no/such, to be mounted on /data, does not exist"):
            await kit.runtime.create(kit.order(mounts=(HostMount("/data", "/no/such"),)))
        with pytest.raises(RuntimeFailed, match="user 'bob' is not in the image"):
            await kit.runtime.create(kit.order(user="bob"))

    with_kit(tmp_path, body)


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_an_image_with_a_link_for_a_kernel_directory_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").mkdir()

    async def body(kit: Kit) -> None:
        hostile = busybox_layer(tmp_path / "hostile")
        (hostile / name).rmdir()
        (hostile / name).symlink_to(tmp_path / "outside")
        with pytest.raises(RuntimeFailed, match=f"/{name} is not a directory"):
            await kit.runtime.create(replace(kit.order(), layers=(hostile,)))
        assert os.listdir(tmp_path / "outside") == []

    with_kit(tmp_path, body)


def test_a_mount_target_behind_a_link_stays_inside(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "v").mkdir()

    async def body(kit: Kit) -> None:
        hostile = busybox_layer(tmp_path / "hostile")
        (hostile / "data").symlink_to(tmp_path / "outside")
        order = replace(kit.order("touch", "/data/x", mounts=(HostMount("/data", str(tmp_path / "v")),)), layers=(hostile,))
        assert (await kit.exit_of(await kit.started(order))).exit_code == 0
        assert os.listdir(tmp_path / "outside") == []
        assert os.listdir(tmp_path / "v") == ["x"]

    with_kit(tmp_path, body)


def test_containers_get_no_descriptor_and_no_environment_of_the_agent(tmp_path: Path) -> None:
    async def body(kit: Kit) -> None:
        handle = os.open("/", os.O_RDONLY)
        os.set_inheritable(handle, True)
        os.environ["SECRET_OF_THE_AGENT"] = "x"
        try:
            _, text = await kit.ran("sh", "-c", "env; ls /proc/self/fd")
        finally:
            os.close(handle)
            del os.environ["SECRET_OF_THE_AGENT"]
        assert "SECRET" not in text
        assert {line for line in text.splitlines() if line.isdigit()} <= {"0", "1", "2", "3"}

    with_kit(tmp_path, body)


def test_the_root_is_shared_read_only_and_writes_stay_apart(tmp_path: Path) -> None:
    async def body(kit: Kit) -> None:
        for _ in range(2):
            exited, text = await kit.ran("sh", "-c", "ls /new 2>&1; touch /new; stat -c %a /")
            assert exited.exit_code == 0
            assert "No such file" in text
            assert text.endswith("755\n")
        assert not (kit.layer / "new").exists()

    with_kit(tmp_path, body)


def test_cancelling_a_create_leaves_nothing(tmp_path: Path) -> None:
    async def body(kit: Kit) -> None:
        for after_s in (0.0, 0.002, 0.01, 0.02, 0.03):
            order = kit.order()
            task = asyncio.ensure_future(kit.runtime.create(order))
            await asyncio.sleep(after_s)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                assert not (tmp_path / "data/containers" / order.id).exists()
            await kit.runtime.delete(order.id)

    with_kit(tmp_path, body)


async def _many(kit: Kit) -> None:
    for _ in range(8):
        await kit.runtime.create(kit.order())


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    """A tiny tmpfs as data directory."""
    data = tmp_path / "data"
    data.mkdir()
    parent = f"shoaltest-{secrets.token_hex(4)}"

    async def whole() -> None:
        kit, _ = await kit_open(tmp_path, "crun", parent)
        try:
            (data / "filler").write_bytes(b"x" * (100 << 10))
            with pytest.raises(DiskFull, match="disk full"):
                await _many(kit)
        finally:
            for name in os.listdir(data / "containers"):
                await kit.runtime.delete(name)
            await kit.runtime.close()
            kit.runtime.cgroups.remove(f"/{kit.parent}")

    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "x", str(data)], check=True)
    try:
        in_private_mounts(whole)
        assert [line for line in leftovers(tmp_path, parent) if str(data) not in line.split(" ")] == []
    finally:
        subprocess.run(["umount", str(data)], check=True)


def test_a_part_of_a_volume_is_mounted_and_a_link_out_of_it_is_not_followed(tmp_path: Path) -> None:
    """Another container may make the link after the volume was prepared, so the runtime itself must not follow it."""
    volume = tmp_path / "v"
    (volume / "real/sub").mkdir(parents=True)
    (volume / "real/sub/file").write_text("inside")
    (volume / "inner").symlink_to("real/sub")
    (volume / "outer").symlink_to("/etc")

    async def body(kit: Kit) -> None:
        for subpath in ("real/sub", "inner"):
            mounts = (HostMount("/data", str(volume), subpath=subpath),)
            exited, text = await kit.ran("sh", "-c", "cat /data/file; echo more > /data/more; ls /data", mounts=mounts)
            assert (exited.exit_code, text) == (0, "insidefile\nmore\n")
        for subpath in ("outer", "../..", "real/../../.."):
            with pytest.raises(RuntimeFailed, match="subpath"):
                await kit.runtime.create(kit.order(mounts=(HostMount("/data", str(volume), subpath=subpath),)))

    with_kit(tmp_path, body)
    assert sorted(path.name for path in (volume / "real/sub").iterdir()) == ["file", "more"]


def test_a_container_stands_still_while_what_it_wrote_is_read_and_goes_on_with_the_next_agent(tmp_path: Path) -> None:
    async def body(kit: Kit) -> None:
        order = kit.order("sh", "-c", "echo mine > /file; exec sleep 1000")
        pid = kit.pid(await kit.started(order))
        async with kit.runtime.written(order.id, pause=False) as upper:
            await eventually((upper / "file").exists, "it has written")
            assert not _frozen(pid)
        async with kit.runtime.written(order.id, pause=True) as upper:
            assert _frozen(pid)
            assert (upper / "file").read_text() == "mine\n"
        assert not _frozen(pid)
        died = kit.runtime.written(order.id, pause=True)
        await died.__aenter__()
        again, found = await kit_open(tmp_path, "crun", kit.parent)
        assert ([each.state for each in found], _frozen(pid)) == (["running"], False)
        await again.runtime.close()
        await died.__aexit__(None, None, None)

    with_kit(tmp_path, body)


def _frozen(pid: int) -> bool:
    """By the kernel's own word, of cgroup v1 or v2."""
    places = dict(line.split(":", 2)[1:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())
    if "freezer" in places:
        return Path(f"/sys/fs/cgroup/freezer{places['freezer']}/freezer.state").read_text() == "FROZEN\n"
    return "frozen 1" in Path(f"/sys/fs/cgroup{places['']}/cgroup.events").read_text()
