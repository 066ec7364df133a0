"""Performing the core's effects with the ports: one coroutine for each kind of effect.

Rules: returns the outcome as a stimulus, raises only ShoalError (the runner makes a failure of it) or CancelledError. Keeps no
state that a restart would miss: prepared mounts are made again when they are not at hand.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from agent.core.attach import Attacher
from agent.core.failure import failure_of
from agent.core.logins import Logins
from agent.core.ports import Ports
from agent.plan import effects as fx
from agent.plan.container import ContainerOrder, ExecRequest, HostMount
from agent.plan.etc_facts import etc_facts, known_to
from agent.plan.health import command
from agent.plan.mounts import mount_plans
from agent.plan.records import Desired, ImageFacts, Life, ReplicaId, WantedVolume
from model.errors import RuntimeFailed, ShoalError

if TYPE_CHECKING:
    from pathlib import Path

    from agent.images.records import Image, ImageConfig, PullPolicy

_PROBE_OUTPUT_BYTES = 4096


class Performer:
    """`desired` gives the newest desired state: the options of named volumes stand in it."""

    def __init__(self, ports: Ports, desired: Callable[[], Desired]) -> None:
        self._ports = ports
        self._desired = desired
        self._mounts: dict[ReplicaId, tuple[HostMount, ...]] = {}
        self.attacher = Attacher(ports, desired)
        self.logins = Logins()
        self.pids: dict[str, int] = {}

    def hold(self, life: Life) -> None:
        """Its container uses the image: it must not be deleted."""
        if life.image is not None and life.container_id:
            self._ports.images.hold(life.image.id, life.container_id)

    async def pull(self, effect: fx.PullImage) -> fx.Stimulus:
        image = await self._ports.images.pull(
            effect.reference, digest=effect.digest, auth=self.logins.of(effect.service_id), policy=pull_policy(effect.policy)
        )
        config = image.config
        facts = ImageFacts(image.id, config.stop_signal, config.healthcheck, config.volumes, config.exposed_ports)
        return fx.Pulled(effect, facts)

    async def apply_networks(self, effect: fx.ApplyNetworks) -> fx.Stimulus:
        await self._ports.network.apply(effect.networks)
        return fx.NetworksApplied(effect.token)

    async def volumes(self, effect: fx.PrepareVolumes) -> fx.Stimulus:
        self._mounts[effect.replica] = await self._prepare(effect.life)
        return fx.Done(effect.replica, effect.token)

    async def _prepare(self, life: Life) -> tuple[HostMount, ...]:
        plans = mount_plans(life)
        if not plans:
            return ()
        from agent.volumes.prepare import host_mounts

        image = await self._image(life)
        known: Mapping[str, WantedVolume] = {volume.name: volume for volume in self._desired().volumes}
        copies = self._ports.data_dir / "copies"
        return await asyncio.to_thread(host_mounts, plans, self._ports.volumes, known, image.layers, copies)

    async def _image(self, life: Life) -> Image:
        assert life.image is not None
        found, container = self._ports.images.get(life.image.id), life.spec.container
        if found is not None:
            return found
        auth = self.logins.of(life.id.service_id)
        return await self._ports.images.pull(container.image, digest=container.image_digest, auth=auth)

    async def attach(self, effect: fx.AttachNetwork) -> fx.Stimulus:
        life = await self.attacher.attach(effect.life)
        return fx.Done(effect.replica, effect.token, life.netns, life.addresses, life.ports)

    async def rewire(self, effect: fx.Rewire) -> fx.Stimulus:
        """What was reached is told also when the rest has failed."""
        life, failure = await self.attacher.rewire(effect.life)
        if life.container_id:
            from agent.images.records import ImageConfig

            try:
                await self._ports.runtime.readdress(self._order(life, ImageConfig()))
            except ShoalError as error:
                failure = failure or failure_of(error)
        return fx.Rewired(effect.replica, effect.token, life.addresses, life.ports, failure)

    async def create(self, effect: fx.CreateContainer) -> fx.Stimulus:
        life = effect.life
        image = await self._image(life)
        mounts = self._mounts.get(life.id)
        order = self._order(life, image.config, image.layers, mounts if mounts is not None else await self._prepare(life))
        self._ports.images.hold(image.id, life.container_id)
        self.pids[life.container_id] = await self._ports.runtime.create(order)
        return fx.Done(effect.replica, effect.token)

    def _order(
        self, life: Life, config: ImageConfig, layers: tuple[Path, ...] = (), mounts: tuple[HostMount, ...] = ()
    ) -> ContainerOrder:
        etc = etc_facts(life, known_to(life, self._desired().networks))
        return ContainerOrder(
            id=life.container_id,
            name=life.name,
            log_key=life.id.text,
            spec=life.spec.container,
            image=config,
            layers=layers,
            netns=life.netns,
            addresses=etc.addresses,
            nameservers=etc.nameservers,
            mounts=mounts,
            meta=(("replica", life.id.text),),
            forwarder=etc.forwarder,
            host_gateway=etc.host_gateway,
        )

    async def start(self, effect: fx.StartContainer) -> fx.Stimulus:
        await self._ports.runtime.start(effect.container_id)
        return fx.Done(effect.replica, effect.token)

    async def delete(self, container_id: str) -> None:
        await self._ports.runtime.delete(container_id)
        self.pids.pop(container_id, None)
        self._ports.images.release(container_id)

    async def detach(self, effect: fx.DetachNetwork) -> fx.Stimulus:
        await self.attacher.detach(effect.sandbox)
        return fx.Done(effect.replica, effect.token)

    async def release(self, effect: fx.ReleaseReplica) -> fx.Stimulus:
        life = effect.life
        self._mounts.pop(life.id, None)
        anonymous = [plan.volume for plan in mount_plans(life) if plan.anonymous]
        if anonymous:
            await asyncio.to_thread(self._ports.volumes.release, anonymous)
        await self._ports.runtime.forget_logs(life.id.text)
        return fx.Done(effect.replica, effect.token)

    async def drain(self, effect: fx.Drain) -> fx.Stimulus:
        """However it ends, the stop goes on."""
        await self._ports.balance.drained(effect.places, effect.within_s)
        return fx.Drained(effect.replica, effect.token)

    async def kill(self, effect: fx.KillContainer) -> None:
        await self._ports.runtime.kill(effect.container_id, signal_number(effect.signal))

    async def probe(self, effect: fx.Probe) -> fx.Stimulus:
        """A probe that fails in whatever way is an unhealthy outcome, never an error."""
        output = bytearray()
        try:
            async with asyncio.timeout(effect.check.timeout_s or 30.0):
                session = await self._ports.runtime.exec(effect.container_id, ExecRequest(command(effect.check)))
                try:
                    async for _, data in session.output():
                        output += data[: max(0, _PROBE_OUTPUT_BYTES - len(output))]
                    code = await session.wait()
                finally:
                    await session.close()
        except TimeoutError:
            return fx.Probed(effect.replica, effect.container_id, False, f"no answer in {effect.check.timeout_s:g} s")
        except RuntimeFailed as error:
            return fx.Probed(effect.replica, effect.container_id, False, str(error))
        text = output.decode(errors="replace").strip().split("\n")[-1]
        return fx.Probed(effect.replica, effect.container_id, code == 0, text or f"health check ended with code {code}")

    async def look(self, effect: fx.Look) -> fx.Stimulus:
        return fx.Looked(effect.replica, effect.container_id, self._ports.runtime.listening(effect.container_id))

    def mounts_of(self, life: Life) -> tuple[HostMount, ...]:
        """The host side of a replica's mounts, to look at only."""
        if life.id in self._mounts:
            return self._mounts[life.id]
        rows = []
        for plan in mount_plans(life):
            volume = self._ports.volumes.get(plan.volume) if plan.volume else None
            rows.append(HostMount(plan.mount.target, str(volume.path) if volume else plan.mount.source))
        return tuple(rows)


def pull_policy(text: str) -> PullPolicy:
    """What is no policy is taken as `missing`."""
    return "always" if text == "always" else "never" if text == "never" else "missing"


def signal_number(name: str) -> int:
    """`SIGTERM`, `TERM` or `15`; what is no signal is taken as SIGTERM."""
    if name.isdigit():
        return int(name)
    try:
        return int(signal.Signals["SIG" + name.upper().removeprefix("SIG")])
    except KeyError:
        pass
    upper = name.upper().removeprefix("SIG")
    if upper.startswith(("RTMIN+", "RTMAX-")) and upper[6:].isdigit():
        return signal.SIGRTMIN + int(upper[6:]) if upper[3] == "I" else signal.SIGRTMAX - int(upper[6:])
    return int(signal.SIGTERM)
