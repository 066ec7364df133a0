"""The journal: what is written is read back, what is damaged is put aside."""

from __future__ import annotations

from pathlib import Path

from agent.core.journal import Journal
from agent.plan.network import NetworkWanted
from agent.plan.records import Attempts, Desired, Health, ImageFacts, Life, ReplicaId, Slot, WantedService, WantedSpec
from model.spec import ContainerSpec, Healthcheck, Mount, ServiceSpec

SPEC = ServiceSpec("shop_web", ContainerSpec("web:1", mounts=(Mount("volume", "/data", "d"),)))
LIFE = Life(
    ReplicaId("s1", 1, 5, 2), SPEC, "shop_web.1", stage="running", state="running", since=1.5, container_id="c" * 64,
    image=ImageFacts("sha256:1", "SIGINT", Healthcheck(("CMD", "x"))), addresses=(("net", "10.0.0.2/24"),), exit_code=3,
    attempts=Attempts(2, 7, (1.0, 2.0)), health=Health("healthy"), volumes=True, attached=True, netns="/run/ns",
)  # fmt: skip


def test_a_life_comes_back_as_it_was(tmp_path: Path) -> None:
    Journal(tmp_path).save(LIFE)
    assert Journal(tmp_path).load() == [LIFE]
    Journal(tmp_path).drop(LIFE.id)
    assert Journal(tmp_path).load() == []


def test_the_desired_state_comes_back(tmp_path: Path) -> None:
    desired = Desired(
        4,
        (WantedService("s1", "shop_web", (Slot(1, 2, 5),)),),
        (WantedSpec("s1", 2, SPEC),),
        (NetworkWanted("net", 7, "10.0.0.0/16", "10.0.1.0/24"),),
    )
    Journal(tmp_path).save_desired(desired)
    assert Journal(tmp_path).load_desired() == desired


def test_damage_is_put_aside(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.save(LIFE)
    (path,) = (tmp_path / "replicas").iterdir()
    path.write_bytes(path.read_bytes()[:50])
    (tmp_path / "replicas/.new-x.json").write_text("half")
    assert journal.load() == []
    assert [file.name for file in (tmp_path / "replicas").iterdir()] == [f"{path.name}.bad"]
    assert journal.load_desired() == Desired()


def test_a_removed_node_forgets(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.save(LIFE)
    journal.save_desired(Desired(3))
    journal.wipe()
    assert (journal.load(), journal.load_desired()) == ([], Desired())
