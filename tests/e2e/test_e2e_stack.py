"""The main job: a Compose file becomes containers on all nodes, that answer, scale out and in, and go."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.harness import LabUnderTest, addresses, eventually, identity

WEB = """
services:
  web:
    image: shoal/web:1.0
    deploy:
      replicas: 6
"""
ASK = "import sys,urllib.request as u\nfor a in sys.argv[1:]: print(u.urlopen(f'http://{a}:8080/',timeout=10).read().decode())"


def test_apply_plan_scale_and_remove(lab: LabUnderTest, tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(WEB)
    assert lab.call("plan", "-f", str(file), "-p", "shop").code == 2
    lab("apply", "-f", str(file), "-p", "shop")
    rows = lab.running("shop_web")
    assert sorted(row["name"] for row in rows) == [f"shop_web.{slot}" for slot in range(1, 7)]
    assert {row["node"] for row in rows} == {"n1", "n2", "n3"}
    assert lab.call("plan", "-f", str(file), "-p", "shop").code == 0

    before = identity(rows)
    lab("apply", "-f", str(file), "-p", "shop")
    lab("service", "scale", "shop_web=9")
    assert {name: what for name, what in identity(lab.running("shop_web")).items() if name in before} == before
    lab("service", "scale", "shop_web=2")
    assert len(lab.running("shop_web")) == 2
    (service,) = lab.json("service", "ls")
    assert (service["name"], service["mode"], service["running"], service["wanted"]) == ("shop_web", "replicated", 2, 2)

    lab("rm", "shop")
    assert lab.replicas(every=True) == []
    assert lab.json("service", "ls") == []


def test_every_replica_answers_with_its_own_name_from_every_node(lab: LabUnderTest, tmp_path: Path) -> None:
    lab.apply(tmp_path, WEB, "shop")
    rows = lab.running("shop_web")
    for node in ("n1", "n2", "n3"):
        asking = next(row["name"] for row in rows if row["node"] == node)
        answers = lab("exec", asking, "python3", "-c", ASK, *map(addresses, rows)).split("\n")
        got = [line.split()[0] for line in answers if line]
        assert got == [row["name"] for row in rows]


def test_a_changed_image_replaces_one_replica_after_the_other(lab: LabUnderTest, tmp_path: Path) -> None:
    lab.apply(tmp_path, WEB, "shop")
    before = identity(lab.running("shop_web"))
    lab.apply(tmp_path, WEB.replace("web:1.0", "web:2.0"), "shop")
    rows = lab.running("shop_web")
    assert {row["image"] for row in rows} == {"shoal/web:2.0"}
    assert not {what[0] for what in identity(rows).values()} & {what[0] for what in before.values()}


def test_a_global_service_runs_once_on_every_node_and_constraints_hold(lab: LabUnderTest, tmp_path: Path) -> None:
    text = """
services:
  each:
    image: busybox
    command: sleep 1000
    init: true
    deploy: {mode: global}
  one:
    image: busybox
    command: sleep 1000
    init: true
    deploy: {replicas: 2, placement: {constraints: ["node.hostname == n2"]}}
  never:
    image: busybox
    command: sleep 1000
    deploy: {replicas: 1, resources: {reservations: {memory: 500G}}}
"""
    lab.apply(tmp_path, text, "kinds", "--no-wait")
    eventually(lambda: len(lab.running("kinds_each")) == 3 and len(lab.running("kinds_one")) == 2, "5 replicas running")
    assert {row["node"] for row in lab.running("kinds_each")} == {"n1", "n2", "n3"}
    assert {row["node"] for row in lab.running("kinds_one")} == {"n2"}
    (waiting,) = lab.replicas("kinds_never")
    assert waiting["state"] == "pending"
    assert "3 nodes: not enough memory" in waiting["message"]
    assert "not enough memory" in lab("explain", "kinds_never")


def test_drain_moves_replicas_and_pause_takes_no_new_ones(lab: LabUnderTest, tmp_path: Path) -> None:
    lab.apply(tmp_path, WEB, "shop")
    lab("node", "drain", "n3")
    eventually(lambda: len(lab.running("shop_web")) == 6, "six running again")
    assert {row["node"] for row in lab.running("shop_web")} == {"n1", "n2"}
    lab("node", "pause", "n2")
    lab("service", "scale", "shop_web=8")
    assert [row["node"] for row in lab.running("shop_web")].count("n2") == 3


def test_one_line_for_a_bad_file(lab: LabUnderTest, tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text("services:\n  web:\n    imgae: busybox\n")
    done = lab.call("apply", "-f", str(file), "-p", "bad")
    assert done.code == 1
    assert "compose.yaml:3" in done.err
    assert "image" in done.err
    assert "Traceback" not in done.err
