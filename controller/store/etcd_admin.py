"""Administration of an etcd cluster over our own client: space, compaction, defragmentation, the NOSPACE alarm.

Rule: facts and single acts only; when to do what is decided in maintenance.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from controller.store.etcd_channel import EtcdChannel, Member
from model.store_port import StoreError
from protos import etcd_pb2 as pb

DEFRAGMENT_S: Final = 60.0
COMPACT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class MemberSpace:
    """One member that answered: the size of its file, and how much of that is in use."""

    endpoint: str
    member_id: int
    size_bytes: int
    used_bytes: int
    version: str
    leads: bool


class EtcdAdmin:
    """Acts on the cluster behind `channel` (an EtcdStore's `channel`). Raises the errors of the Store port."""

    def __init__(self, channel: EtcdChannel) -> None:
        self._channel = channel

    async def space(self) -> tuple[MemberSpace, ...]:
        """Every member that answers. Raises StoreUnavailable when none does."""
        found: list[MemberSpace] = []
        last: StoreError | None = None
        for member in self._channel.members:
            try:
                found.append(await self._space_of(member))
            except StoreError as error:
                last = error
        if not found and last is not None:
            raise last
        return tuple(found)

    async def _space_of(self, member: Member) -> MemberSpace:
        status = await self._channel.call(lambda at: at.maintenance.Status, pb.StatusRequest(), member=member)
        own = status.header.member_id
        used = status.dbSizeInUse or status.dbSize
        return MemberSpace(member.address, own, status.dbSize, used, status.version, status.leader == own)

    async def revision(self) -> int:
        """The store's newest revision."""
        request = pb.RangeRequest(key=b"\0", count_only=True, limit=1)
        return (await self._channel.call(lambda at: at.kv.Range, request)).header.revision

    async def full_members(self) -> tuple[int, ...]:
        """The ids of the members that raised NOSPACE."""
        request = pb.AlarmRequest(action=pb.AlarmRequest.GET, alarm=pb.NOSPACE)
        response = await self._channel.call(lambda at: at.maintenance.Alarm, request)
        return tuple(sorted(alarm.memberID for alarm in response.alarms if alarm.alarm == pb.NOSPACE))

    async def compact(self, revision: int) -> None:
        """Drops what is older than `revision` and waits until it is dropped. Raises StoreCompacted when it already was."""
        request = pb.CompactionRequest(revision=revision, physical=True)
        await self._channel.call(lambda at: at.kv.Compact, request, timeout_s=COMPACT_S)

    async def defragment(self, endpoint: str) -> None:
        """Shrinks the file of one member, which stands still meanwhile."""
        members = [member for member in self._channel.members if member.address == endpoint]
        if not members:
            raise StoreError(
                f"etcd: {endpoint} is no member we know: {', '.join(one.address for one in self._channel.members)}"
            )
        await self._channel.call(
            lambda at: at.maintenance.Defragment, pb.DefragmentRequest(), timeout_s=DEFRAGMENT_S, member=members[0]
        )

    async def disarm(self, member_id: int) -> None:
        request = pb.AlarmRequest(action=pb.AlarmRequest.DEACTIVATE, memberID=member_id, alarm=pb.NOSPACE)
        await self._channel.call(lambda at: at.maintenance.Alarm, request)
