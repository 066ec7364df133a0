"""The ssh provider against Debian's sshd on loopback: keys are pinned, a machine joins and leaves once, and others' machines
are left alone.

sshd is unpacked, not installed, and runs in a mount namespace with folders of its own in place of /etc/shoal, /opt and others;
`systemctl` there is a script that writes down what it is asked, since no systemd runs here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.decide.machines.types import Listed
from controller.providers.port import Join, Order, ProviderError
from controller.providers.ssh import SshProvider
from deploy.images.debs import BuildError, download
from model.autoscale import MachineTemplate, NodeGroupSpec, ProviderSpec

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

JOIN = Join(("https://10.0.0.1:7443",), "SHOAL-1-secret")
CACHE = Path("/var/cache/shoal/ssh")
COVERED = ("/etc/shoal", "/opt", "/var/lib/shoal", "/etc/systemd", "/usr/local/bin", "/run/sshd")
INSIDE = """
set -eu
for folder in {covered}; do mkdir -p "$folder"; mount -t tmpfs -o mode=755 tmpfs "$folder"; done
(cat /etc/passwd; echo 'sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin') > {folder}/passwd
mount --bind {folder}/passwd /etc/passwd
mkdir -p /opt/shoal/bin /etc/systemd/system /var/empty
printf '#!/bin/sh\\n' > /opt/shoal/bin/shoal
printf '#!/bin/sh\\necho "$@" >> {folder}/asked\\n' > /usr/local/bin/systemctl
for program in conmon crun catatonit nft ip python3; do
    command -v $program >/dev/null || ln -s /bin/true /usr/local/bin/$program
done
chmod 755 /opt/shoal/bin/shoal /usr/local/bin/systemctl
LD_LIBRARY_PATH={libraries} exec {sshd} -D -e -f {folder}/sshd_config
"""


def unpacked() -> Path:
    """Debian's sshd."""
    program = CACHE / "root" / "usr" / "sbin" / "sshd"
    if not program.exists():
        if shutil.which("apt-get") is None:
            pytest.skip("no apt-get: sshd cannot be had")
        try:
            debs = download(["libwrap0", "openssh-server"], CACHE)
        except BuildError as error:
            pytest.skip(f"openssh-server cannot be downloaded: {error}")
        for deb in debs:
            subprocess.run(["dpkg-deb", "-x", str(deb), str(CACHE / "root")], check=True)
    found = {**os.environ, "LD_LIBRARY_PATH": libraries()}
    seen = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False, env=found).stdout
    if "not found" in seen:
        pytest.skip("sshd lacks libraries here")
    return program


def libraries() -> str:
    return ":".join(sorted(str(folder) for folder in (CACHE / "root" / "usr" / "lib").glob("*-linux-gnu")))


def keygen(file: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)


class Host:
    """A machine that can be reached at `name`."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.name = folder, f"127.0.0.1:{port}"
        self.asked = folder / "asked"

    def inside(self, pid: int, path: str) -> str:
        return Path(f"/proc/{pid}/root{path}").read_text()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[tuple[Host, int]]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    sshd = unpacked()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    for name in ("host", "user"):
        keygen(tmp_path / name)
    (tmp_path / "authorized").write_text((tmp_path / "user.pub").read_text())
    (tmp_path / "authorized").chmod(0o600)
    (tmp_path / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {tmp_path}/authorized\nPasswordAuthentication no\nPermitRootLogin yes\n"
        f"SetEnv PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
    )
    script = INSIDE.format(covered=" ".join(COVERED), folder=tmp_path, sshd=sshd, libraries=libraries())
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private", "sh", "-c", script],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    try:
        _until_it_listens(process, port, tmp_path / "log")
        yield Host(tmp_path, port), process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _until_it_listens(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + 20
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)


def provider(host: Host, **changes: str) -> SshProvider:
    spec = ProviderSpec("ssh", hosts=(host.name,), key_file=changes.pop("key_file", str(host.folder / "user")), **changes)  # type: ignore[arg-type]
    return SshProvider(NodeGroupSpec("pool", spec, max=1), host.folder, host.folder / "no-installation")


def order(host: Host, node: str = "pool-1") -> Order:
    return Order("c1", "pool", node, MachineTemplate(), (("pool", "a"), ("shoal.group", "pool")), host.name)


async def test_a_machine_joins_once_is_listed_and_leaves(host: tuple[Host, int]) -> None:
    machine, pid = host
    ssh = provider(machine)
    assert await ssh.list("c1", "pool") == ()
    assert await ssh.create(order(machine), JOIN) == machine.name
    asked = "daemon-reload\nenable shoal-agent\nrestart shoal-agent\n"
    assert machine.asked.read_text() == asked
    options = machine.inside(pid, "/etc/shoal/agent.env")
    assert options == (
        "OPTIONS=--name pool-1 --advertise 127.0.0.1 --listen 127.0.0.1:7445 --label pool=a --label shoal.group=pool "
        "--join https://10.0.0.1:7443 --token SHOAL-1-secret\n"
    )
    assert "ExecStart=/opt/shoal/bin/shoal agent" in machine.inside(pid, "/etc/systemd/system/shoal-agent.service")
    assert await ssh.create(order(machine), Join(JOIN.urls, "SHOAL-1-other")) == machine.name
    assert machine.asked.read_text() == asked, "it had joined: nothing is done again"
    assert await ssh.list("c1", "pool") == (Listed("pool-1", machine.name),)
    assert await ssh.list("c1", "poo") == ()
    await ssh.delete(order(machine, "pool-2"))
    assert await ssh.list("c1", "pool") != (), "another node's name leaves it alone"
    for _ in range(2):
        await ssh.delete(order(machine))
    assert machine.asked.read_text() == asked + "disable --now shoal-agent\n"
    assert await ssh.list("c1", "pool") == ()


async def test_somebody_elses_node_is_left_alone(host: tuple[Host, int]) -> None:
    machine, _ = host
    ssh = provider(machine)
    await ssh.create(order(machine, "other-1"), JOIN)
    with pytest.raises(ProviderError, match=r"is node other-1 already"):
        await ssh.create(order(machine), JOIN)


async def test_a_machine_without_shoal_needs_an_installed_controller(host: tuple[Host, int]) -> None:
    machine, pid = host
    Path(f"/proc/{pid}/root/opt/shoal/bin/shoal").unlink()
    with pytest.raises(ProviderError, match=r"has no shoal, and this controller is not installed in /opt/shoal"):
        await provider(machine).create(order(machine), JOIN)


async def test_the_keys_of_hosts_are_pinned(host: tuple[Host, int], tmp_path: Path) -> None:
    machine, _ = host
    (tmp_path / "none_known").write_text("")
    with pytest.raises(ProviderError, match="Host key verification failed"):
        await provider(machine, known_hosts=str(tmp_path / "none_known")).list("c1", "pool")
    ssh = provider(machine)
    await ssh.list("c1", "pool")  # taken at first sight
    known = (machine.folder / "known_hosts").read_text()
    keygen(tmp_path / "another")
    wrong = (tmp_path / "another.pub").read_text().split()[1]
    (machine.folder / "known_hosts").write_text(f"[127.0.0.1]:{machine.name.split(':')[1]} ssh-ed25519 {wrong}\n")
    with pytest.raises(ProviderError, match="Host key verification failed"):
        await ssh.list("c1", "pool")
    (machine.folder / "known_hosts").write_text(known)
    await ssh.list("c1", "pool")


async def test_a_key_that_is_refused_and_a_host_that_is_away_are_one_line(host: tuple[Host, int], tmp_path: Path) -> None:
    machine, _ = host
    keygen(tmp_path / "stranger")
    with pytest.raises(ProviderError, match=r"ssh 127.0.0.1:\d+: ended with exit code 255: .*Permission denied"):
        await provider(machine, key_file=str(tmp_path / "stranger")).list("c1", "pool")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        away = Host(machine.folder, int(probe.getsockname()[1]))
    with pytest.raises(ProviderError, match="Connection refused"):
        await provider(away).list("c1", "pool")
    with pytest.raises(ProviderError, match="is not one of the group's hosts"):
        await provider(machine).create(order(away), JOIN)
