"""The bodies people's tools send, and the rows they get, as pydantic models: the only place where pydantic is used.

Rules: what is not known is refused (a typo must not be silently ignored); every text has a length limit.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from model.node_words import key_problem, kind_problem
from model.spec import GENERIC_MAX
from model.spec_check import REPLICAS_MAX

Name = Annotated[str, Field(min_length=1, max_length=255)]
Text = Annotated[str, Field(max_length=4096)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class NodeInfoBody(BaseModel):
    """What a machine says of itself (model.documents.NodeInfo); unknown fields are those of a newer agent."""

    model_config = ConfigDict(extra="ignore")

    address: Text = ""
    underlay: Text = ""
    hostname: Text = ""
    cpus: float = Field(default=0.0, ge=0, le=1e6)
    memory_bytes: int = Field(default=0, ge=0, le=2**60)
    pids: int = Field(default=0, ge=0, le=2**40)
    os: Text = "linux"
    arch: Text = "x86_64"
    kernel: Text = ""
    agent_version: Text = ""
    cgroup: Text = ""
    boot_id: Text = ""
    metrics: Text = ""


class JoinBody(Body):
    token: Annotated[str, Field(max_length=512)]
    csr: Annotated[str, Field(max_length=16_384)]
    name: Annotated[str, Field(min_length=1, max_length=63)]
    info: NodeInfoBody = NodeInfoBody()
    labels: dict[Name, Text] = {}


class TokenBody(Body):
    role: Literal["worker", "manager"] = "worker"
    ttl_s: float = Field(default=86_400.0, gt=0, le=366 * 86_400)


class RegistryCertificateBody(Body):
    csr: Annotated[str, Field(max_length=16_384)]
    name: Annotated[str, Field(min_length=1, max_length=63)]
    names: Annotated[list[Name], Field(min_length=1, max_length=5000)]


class ScaleBody(Body):
    """`floor_s`: so long the autoscaler of a service that has one keeps at least so many; 0: not at all; None: ten minutes."""

    replicas: int
    floor_s: float | None = Field(default=None, ge=0, le=30 * 86_400)

    @field_validator("replicas")
    @classmethod
    def _in_range(cls, replicas: int) -> int:
        if not 0 <= replicas <= REPLICAS_MAX:
            raise PydanticCustomError("replicas", f"{replicas}: expected a number from 0 to {REPLICAS_MAX:,}")
        return replicas


class PauseBody(Body):
    direction: Literal["in", "out", "both"] = "both"


class NodePatchBody(Body):
    """None removes a label or a kind of generic resource."""

    labels: dict[Name, Text | None] = {}
    generic: dict[Name, Annotated[int, Field(ge=1, le=GENERIC_MAX)] | None] = {}
    availability: Literal["active", "pause", "drain"] | None = None

    @field_validator("labels", "generic")
    @classmethod
    def _well_named(cls, changes: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """What is removed may be called as it is."""
        problem_of = key_problem if info.field_name == "labels" else kind_problem
        if problem := next(filter(None, (problem_of(name) for name, value in changes.items() if value is not None)), ""):
            raise PydanticCustomError("name", problem)
        return changes


class PullBody(Body):
    """`digest`: what the name is to stand for, of an index or a manifest; empty: what its registry says now. `policy` missing:
    a node that has the name is left alone."""

    reference: Annotated[str, Field(min_length=1, max_length=512)]
    policy: Literal["missing", "always"] = "always"
    digest: Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64})?$")] = ""
    nodes: list[Name] = Field(default=[], max_length=10_000)


class TagBody(Body):
    name: Annotated[str, Field(min_length=1, max_length=512)]


class CommitBody(Body):
    """`changes`: Dockerfile instructions; `pause`: the container stands still while it is read."""

    name: Annotated[str, Field(max_length=512)] = ""
    author: Annotated[str, Field(max_length=512)] = ""
    message: Annotated[str, Field(max_length=4096)] = ""
    changes: Annotated[list[Annotated[str, Field(max_length=4096)]], Field(max_length=100)] = []
    pause: bool = True


class PruneBody(Body):
    all: bool = False


class ConnectBody(Body):
    """`links`: (name, further name for it)."""

    container: Name
    aliases: list[Name] = Field(default=[], max_length=100)
    ipv4_address: Annotated[str, Field(max_length=15)] = ""
    links: list[Annotated[list[Name], Field(min_length=2, max_length=2)]] = Field(default=[], max_length=100)


class DisconnectBody(Body):
    container: Name
    force: bool = False


class Problem(BaseModel):
    code: str
    message: str
    problems: list[str]


class ErrorAnswer(BaseModel):
    error: Problem


Object = dict[str, Any]
Objects = list[dict[str, Any]]
