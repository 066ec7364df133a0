"""Machines that stand in a list: taken into the cluster and given back over ssh.

Rules: `ssh` of this machine, in batch mode: nothing is ever asked. A host's key is pinned, in the file given or by what was
seen first. The host was chosen by the decision and stored (`Order.id`) before anything is done on it. shoal itself is copied
from the controller's own installation when the machine has none.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from controller.decide.machines.types import Listed
from controller.providers import ssh_scripts
from controller.providers.command import run
from controller.providers.port import Join, Order, ProviderError
from model.autoscale import NodeGroupSpec

CONNECT_S: Final = 10
AT_ONCE: Final = 8


class SshProvider:
    """Implements Provider. `installation`: the folder that is copied; a checkout is none."""

    def __init__(self, spec: NodeGroupSpec, data_dir: Path, installation: Path | None = None) -> None:
        self._spec = spec.provider
        self._known_hosts = self._spec.known_hosts or str(data_dir / "known_hosts")
        self._installation = Path(sys.prefix) if installation is None else installation

    def missing(self) -> tuple[str, ...]:
        files = [("key", self._spec.key_file), ("known_hosts", self._spec.known_hosts)]
        return tuple(
            f"{name} {path} cannot be read on the controller's machine"
            for name, path in files
            if path and not os.access(path, os.R_OK)
        )

    async def create(self, order: Order, join: Join) -> str:
        host = self._host(order)
        said = (await self._on(host, ssh_scripts.probe())).split()
        name = said[2] if len(said) > 2 else ""
        if name == order.node:
            return host
        if name:
            raise ProviderError(f"{host} is node {name} already: take it out of the group's hosts, or remove that node")
        await self._on(host, ssh_scripts.packages())
        if said[:1] != ["installed"]:
            await self._copy(host)
        await self._on(host, ssh_scripts.join(order, host_of(host)[0], join, _unit()))
        return host

    async def delete(self, order: Order) -> None:
        await self._on(self._host(order), ssh_scripts.leave(order.node))

    async def list(self, cluster: str, group: str) -> tuple[Listed, ...]:
        """Of all hosts: one that does not answer leaves the list unknown."""
        turns = asyncio.Semaphore(AT_ONCE)

        async def ask(host: str) -> str:
            async with turns:
                return await self._on(host, ssh_scripts.list_name())

        try:
            async with asyncio.TaskGroup() as tasks:
                asked = {host: tasks.create_task(ask(host)) for host in self._spec.hosts}
        except* ProviderError as errors:
            raise ProviderError(str(errors.exceptions[0])) from None
        found = [(host, task.result().split()) for host, task in asked.items()]
        return tuple(Listed(said[1], host) for host, said in found if len(said) == 2 and said[1].startswith(f"{group}-"))

    def _host(self, order: Order) -> str:
        if order.id not in self._spec.hosts:
            raise ProviderError(f"{order.node}: {order.id or 'no host'} is not one of the group's hosts")
        return order.id

    async def _on(self, host: str, script: str) -> str:
        """What a script says that runs there as root."""
        return (await run(f"ssh {host}", [*self.command(host), self._shell("sh -s")], script.encode())).decode(errors="replace")

    def _shell(self, words: str) -> str:
        return words if self._spec.user == "root" else f"sudo -n {words}"

    def command(self, host: str) -> Sequence[str]:
        name, port = host_of(host)
        strict = "yes" if self._spec.known_hosts else "accept-new"
        key = ["-i", self._spec.key_file, "-o", "IdentitiesOnly=yes"] if self._spec.key_file else []
        return [
            "ssh", "-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_S}", "-o", "ServerAliveInterval=15",
            "-o", f"UserKnownHostsFile={self._known_hosts}", "-o", f"StrictHostKeyChecking={strict}", *key,
            "-p", port, "-l", self._spec.user, "--", name,
        ]  # fmt: skip

    async def _copy(self, host: str) -> None:
        """The installation as it is: same folder, and the same Python on the machine."""
        if not (self._installation / "bin" / "shoal").exists() or str(self._installation) != ssh_scripts.PREFIX:
            where = ssh_scripts.PREFIX
            raise ProviderError(f"{host} has no shoal, and this controller is not installed in {where}: `make install` there")
        parent, name = ssh_scripts.PREFIX.rsplit("/", 1)
        send = 'from=$1 name=$2; shift 2; tar -C "$from" -czf - "$name" | "$@"'
        words = ["sh", "-c", send, "sh", parent, name, *self.command(host), self._shell(f"tar -C {parent} -xzf -")]
        await run(f"copy shoal to {host}", words, b"")


def host_of(text: str) -> tuple[str, str]:
    """`HOST`, `HOST:PORT` or an IPv6 address, as host and port."""
    name, mark, port = text.rpartition(":")
    if not mark or ":" in name or not port.isdigit():
        return text, "22"
    return name, port


def _unit() -> str:
    return (Path(__file__).resolve().parents[2] / "deploy" / "systemd" / "shoal-agent.service").read_text()
