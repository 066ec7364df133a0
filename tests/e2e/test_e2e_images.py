"""The tutorial's way with images: list, inspect, history, tag by id, push, remove, pull again; on all nodes of the lab."""

from __future__ import annotations

import http.client
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.cluster import Lab
from tests.e2e.harness import LabUnderTest, eventually

NAME = "linuxtips/apache"


@pytest.fixture
def registry(lab: LabUnderTest) -> Iterator[str]:
    """The lab's own. No image is on a node, before and after."""
    lab("image", "prune", "-a", "-f")
    yield Lab(lab.name).record().registry
    lab("image", "prune", "-a", "-f")


def rows(lab: LabUnderTest, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = lab.json("images", *words)
    return found


def asked(registry: str, path: str) -> Any:
    connection = http.client.HTTPConnection(registry, timeout=10)
    try:
        connection.request("GET", path, headers={"Accept": "application/vnd.oci.image.manifest.v1+json"})
        reply = connection.getresponse()
        return json.loads(reply.read()), reply.getheader("Docker-Content-Digest")
    finally:
        connection.close()


def test_the_tutorials_way_with_images(lab: LabUnderTest, registry: str, tmp_path: Path) -> None:
    assert lab("images", "ps").split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE", "NODES"]
    lines = lab("pull", "shoal/web:1.0").splitlines()
    assert lines[0] == "1.0: Pulling from shoal/web"
    assert {line.split(": ")[1] for line in lines[1:-3]} == {"Pull complete"}
    assert lines[-2:] == ["Status: Downloaded newer image for shoal/web:1.0", "docker.io/shoal/web:1.0"]
    again = lab("pull", "shoal/web:1.0").splitlines()
    assert again[1:] == [lines[-3], "Status: Image is up to date for shoal/web:1.0", "docker.io/shoal/web:1.0"]

    (row,) = rows(lab, "shoal/web")
    short = lab("images", "-q", "shoal/web").strip()
    assert (row["tag"], row["nodes"], row["id"][7:19]) == ("1.0", ["n1", "n2", "n3"], short)
    (found,) = json.loads(lab("image", "inspect", short[:6]))
    assert (found["Id"], found["RepoTags"], found["Nodes"]) == (row["id"], ["shoal/web:1.0"], row["nodes"])
    entrypoint = " ".join(found["Config"]["Entrypoint"])
    assert lab("image", "inspect", "-f", "{{.Config.Entrypoint}} {{.Os}}", short) == f"[{entrypoint}] linux\n"
    _history(lab, found)
    _given_away(lab, registry, short, row["id"])
    _archived(lab, tmp_path / "apache.tar", f"{registry}/{NAME}:1.0", row["id"])


def _history(lab: LabUnderTest, found: dict[str, Any]) -> None:
    history = json.loads(lab("history", "shoal/web:1.0", "-o", "json"))
    assert [step["Id"] for step in history] == [found["Id"], *["<missing>"] * (len(history) - 1)]
    assert sum(step["Size"] for step in history) == found["Size"]
    head, first, *_ = lab("history", "shoal/web:1.0").splitlines()
    assert head.split() == ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    assert first.startswith(found["Id"][7:19])
    before = rows(lab)
    remote = json.loads(lab("history", "--remote", "registry:2", "-o", "json"))
    assert (remote[0]["Tags"], sum(step["Size"] for step in remote) > 1_000_000) == (["registry:2"], True)
    assert rows(lab) == before


def _given_away(lab: LabUnderTest, registry: str, short: str, image_id: str) -> None:
    name = f"{registry}/{NAME}"
    assert lab("tag", short, f"{name}:1.0") == lab("image", "tag", short, f"{NAME}:1.0") == ""
    assert {(row["repository"], row["id"], len(row["nodes"])) for row in rows(lab)} == {
        (repository, image_id, 3) for repository in (name, NAME, "shoal/web")
    }
    (found,) = json.loads(lab("image", "inspect", short))
    assert set(found["RepoTags"]) == {f"{name}:1.0", f"{NAME}:1.0", "shoal/web:1.0"}
    pushed = lab("push", f"{name}:1.0").splitlines()
    assert pushed[0] == f"The push refers to repository [{name}]"
    last = re.fullmatch(r"1\.0: digest: (sha256:[0-9a-f]{64}) size: (\d+)", pushed[-1])
    assert last is not None, pushed
    manifest, digest = asked(registry, f"/v2/{NAME}/manifests/1.0")
    assert (digest, len(manifest["layers"])) == (last[1], len(pushed) - 2)
    assert asked(registry, f"/v2/{NAME}/tags/list")[0]["tags"] == ["1.0"]
    assert {line.split(": ")[1] for line in lab("push", f"{name}:1.0").splitlines()[1:-1]} == {"Layer already exists"}

    refused = lab.call("rmi", short)
    assert (refused.code, refused.out) == (1, "")
    assert f"unable to delete {short} (must be forced) - image is referenced in multiple repositories" in refused.err
    removed = lab("rmi", "-f", short).splitlines()
    assert [line for line in removed if "@" not in line][:3] == [f"Untagged: {each}:1.0" for each in (name, NAME, "shoal/web")]
    assert f"Deleted: {image_id}" in removed
    assert rows(lab) == []
    told = lab("pull", f"{name}:1.0", "--node", "n2").splitlines()
    assert (told[0], f"Digest: {digest}" in told) == (f"1.0: Pulling from {NAME}", True)
    assert [(row["id"], row["nodes"]) for row in rows(lab)] == [(image_id, ["n2"])]


def _archived(lab: LabUnderTest, archive: Path, name: str, image_id: str) -> None:
    """From the one node that has it into all of them, without a registry."""
    assert lab("save", "-o", str(archive), name) == ""
    digests = rows(lab, "--digests")
    lab("rmi", name)
    assert lab("load", "-i", str(archive)) == f"Loaded image: {name}\n"
    (row,) = rows(lab, "--digests")
    assert (row["id"], row["nodes"]) == (image_id, ["n1", "n2", "n3"])
    assert row["digest"] == digests[0]["digest"]


def test_an_image_in_use_stays(lab: LabUnderTest, registry: str) -> None:
    options = ("--name", "user", "--node", "n1", "--init", "--stop-timeout", "1")
    container = lab("run", "-d", *options, "busybox", "sleep", "100000")[:12]
    lab("pull", "-q", "busybox")
    (row,) = rows(lab, "busybox")
    short = row["id"][7:19]
    for words, why in (
        (("busybox",), f'unable to remove repository reference "busybox" (must force) - container {container} is using'),
        (("-f", short), f"unable to delete {short} (cannot be forced) - image is being used by running container {container}"),
    ):
        refused = lab.call("rmi", *words)
        assert (refused.code, refused.out, why in refused.err) == (1, "", True), refused
    assert "Total reclaimed space: 0B" in lab("image", "prune", "-a", "-f")
    assert rows(lab, "busybox")[0]["nodes"] == ["n1", "n2", "n3"]
    lab("stop", "user")
    refused = lab.call("rmi", "busybox")
    assert (refused.code, "(must force) - container" in refused.err) == (1, True), refused
    assert "Untagged: busybox:latest" in lab("rmi", "-f", "busybox").splitlines()
    assert [(row["repository"], row["nodes"]) for row in rows(lab)] == [("<none>", ["n1"])]
    lab("rm", "-f", "user")
    assert f"deleted: {row['id']}" in lab("image", "prune", "-f").splitlines()
    assert rows(lab) == []


def test_a_container_becomes_an_image_that_runs(lab: LabUnderTest, registry: str, tmp_path: Path) -> None:
    script = "echo mine > /root/file; rm /bin/vi; touch /ready; exec sleep 100000"
    words = ("--init", "--stop-timeout", "1", "-v", "kept:/kept")
    lab("run", "-d", "--name", "maker", "--node", "n1", *words, "busybox", "sh", "-c", script)
    eventually(lambda: lab.call("exec", "maker", "test", "-e", "/ready").code == 0, "it has written")
    made = lab("commit", "-m", "mine", "-a", "ana", "-c", 'CMD ["cat", "/root/file"]', "maker", "img:v1").strip()
    (row,) = rows(lab, "img:v1")
    assert (row["id"], row["nodes"]) == (made, ["n1"])
    top = json.loads(lab("history", "img:v1", "-o", "json"))[0]
    assert (top["Comment"], top["CreatedBy"][:5], top["Size"] > 0) == ("mine", "sh -c", True)
    assert lab("run", "--rm", "--node", "n1", "img:v1") == "mine\n"
    assert lab.call("run", "--rm", "--node", "n1", "img:v1", "ls", "/bin/vi").code == 1
    assert lab("exec", "maker", "cat", "/root/file") == "mine\n"
    assert lab("commit", "--pause=false", "maker").startswith("sha256:")
    _exported(lab, tmp_path)
    lab("rm", "-f", "maker")


def test_what_one_node_has_runs_on_all(lab: LabUnderTest, registry: str) -> None:
    """No registry has it: nobody listens where its name leads."""
    name = "localhost:9/own:1"
    lab("pull", "-q", "--node", "n1", "busybox")
    lab("tag", "busybox", name)
    lab("rmi", "busybox")
    (row,) = rows(lab, "--digests")
    assert row["nodes"] == ["n1"]
    assert lab("run", "--rm", "--node", "n2", name, "echo", "from n1") == "from n1\n"
    lab("run", "-d", "--name", "own", "--node", "n3", "--init", "--stop-timeout", "1", name, "sleep", "100000")
    (found,) = rows(lab, "--digests")
    assert (found["nodes"], found["digest"], found["id"]) == (["n1", "n2", "n3"], row["digest"], row["id"])
    lab("rm", "-f", "own")


def _exported(lab: LabUnderTest, folder: Path) -> None:
    """All files of a container, of one that runs and of the same when it is stopped; an image again; without its volume."""
    lab("exec", "maker", "sh", "-c", "echo kept > /kept/file; chown 7:8 /root/file; chmod 4750 /root/file")
    lab("export", "-o", str(folder / "runs.tar"), "maker")
    lab("stop", "maker")
    lab("container", "export", "-o", str(folder / "stopped.tar"), "maker")
    for name in ("runs.tar", "stopped.tar"):
        with tarfile.open(folder / name) as archive:
            names = set(archive.getnames())
            found = archive.getmember("root/file")
        assert {"bin", "usr/bin/ls", "etc", "kept"} <= names
        assert not names & {"usr/bin/vi", "kept/file", "proc/self"}
        assert (found.uid, found.gid, found.mode) == (7, 8, 0o4750)
    lab("import", "--node", "n2", str(folder / "stopped.tar"), "whole:1")
    told = lab("run", "--rm", "--node", "n2", "whole:1", "sh", "-c", "cat /root/file; stat -c '%u %g %a' /root/file")
    assert told == "mine\n7 8 4750\n"
    nobody = lab.call("export", "-o", str(folder / "none.tar"), "nobody")
    assert (nobody.code, nobody.err.count("\n"), (folder / "none.tar").exists()) == (1, 1, False)


def test_a_tar_becomes_an_image_on_all_nodes(lab: LabUnderTest, registry: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "files.tar.gz", "w:gz") as archive:
        archive.add(__file__, "etc/file")
    made = lab("import", "-c", "ENV A=1", "-m", "files", str(tmp_path / "files.tar.gz"), "files:1").strip()
    (row,) = rows(lab, "files")
    assert (row["id"], row["nodes"]) == (made, ["n1", "n2", "n3"])
    (found,) = json.loads(lab("image", "inspect", "files:1"))
    assert (found["Config"]["Env"], found["Comment"], found["Os"]) == (["A=1"], "files", "linux")


def test_unknown_names_are_a_line_each(lab: LabUnderTest, registry: str) -> None:
    found = lab.call("image", "inspect", "nothing", "other:1")
    assert (found.code, found.out) == (1, "[]\n")
    assert found.err == "shoal: No such image: nothing:latest\nshoal: No such image: other:1\n"
    assert lab.call("history", "nothing").code == lab.call("tag", "nothing", "x").code == lab.call("push", "nothing").code == 1
