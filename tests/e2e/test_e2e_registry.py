"""The tutorial's way to a registry of one's own, and `shoal registry`: pushed by one node, pulled by another, with a login."""

from __future__ import annotations

import base64
import http.client
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from lab.cluster import Lab
from tests.contract.registry_process import skopeo
from tests.e2e.harness import ROOT, Done, LabUnderTest, eventually, remove_all
from tests.patience import PATIENCE

PASSWORD = "a pass: word"


@pytest.fixture
def clean(lab: LabUnderTest) -> Iterator[LabUnderTest]:
    """No image is on a node, before and after."""
    lab("image", "prune", "-a", "-f")
    yield lab
    remove_all(lab)
    lab("image", "prune", "-a", "-f")


def asked(lab: LabUnderTest, node: str, path: str, login: str = "") -> tuple[int, Any]:
    """What curl gets at that node's published port; 0 when nobody is there."""
    record = Lab(lab.name).record()
    connection = http.client.HTTPConnection(record.address(record.machine(node)), 5000, timeout=10)
    headers = {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"} if login else {}
    try:
        connection.request("GET", path, headers=headers)
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read() or b"null")
    except ConnectionRefusedError:
        return 0, None
    finally:
        connection.close()


def shoal_on(lab: LabUnderTest, node: str, *words: str, stdin: str) -> Done:
    """`shoal WORDS` by a person who is logged in on a node."""
    argv = Lab(lab.name).enter_command(node, [sys.executable, "-m", "shoal", *words])
    done = subprocess.run(
        argv, cwd=ROOT, env=lab.environment, input=stdin, capture_output=True, text=True, timeout=60 * PATIENCE, check=False
    )
    return Done(done.returncode, done.stdout, done.stderr)


def test_the_tutorials_way_to_a_registry_of_ones_own(clean: LabUnderTest) -> None:
    lab = clean
    run = lab.call("run", "-d", "-p", "5000:5000", "--restart=always", "--name", "registry", "registry:2")
    assert (run.code, re.fullmatch(r"[0-9a-f]{64}\n", run.out) is not None) == (0, True), run
    told = run.err.splitlines()
    assert told[:2] == ["Unable to find image 'registry:2' locally", "2: Pulling from library/registry"]
    assert re.fullmatch(r"Digest: sha256:[0-9a-f]{64}", told[-2])
    assert told[-1] == "Status: Downloaded newer image for registry:2"
    for node in ("n1", "n2", "n3"):
        eventually(lambda node=node: asked(lab, node, "/v2/") == (200, {}), "an answer")  # type: ignore[misc]
    (row,) = lab.json("ps")
    assert (row["name"], row["image"], row["ports"]) == ("registry", "registry:2", ["0.0.0.0:5000->5000/tcp"])
    assert [image["tag"] for image in lab.json("images", "registry")] == ["2"]
    (described,) = json.loads(lab("container", "inspect", "registry"))
    assert described["container"]["Id"] == run.out.strip()
    lab.on(row["node"], "kill", "-KILL", str(described["container"]["State"]["Pid"]))
    eventually(lambda: (lab.json("ps")[0]["restarts"], asked(lab, "n2", "/v2/")[0]) == (1, 200), "it is restarted")

    lab("pull", "-q", "busybox", "--node", "n1")
    short = lab("images", "-q", "busybox").strip()
    assert lab("tag", short, "localhost:5000/apache") == ""
    pushed = lab("push", "localhost:5000/apache").splitlines()
    assert pushed[:2] == ["Using default tag: latest", "The push refers to repository [localhost:5000/apache]"]
    assert re.fullmatch(r"latest: digest: sha256:[0-9a-f]{64} size: \d+", pushed[-1])
    assert asked(lab, "n3", "/v2/apache/tags/list") == (200, {"name": "apache", "tags": ["latest"]})
    assert "Status: Downloaded newer image for localhost:5000/apache:latest" in lab(
        "pull", "localhost:5000/apache", "--node", "n2"
    )
    assert lab.json("images", "localhost:5000/apache")[0]["nodes"] == ["n1", "n2"]
    assert lab("run", "--rm", "--node", "n3", "localhost:5000/apache", "echo", "here") == "here\n"


PRIVATE: Final = """
services:
  web:
    image: localhost:5000/apache:1.0
    command: sleep 1000
    network_mode: none
    stop_grace_period: 0s
    deploy: {placement: {constraints: [node.hostname != NODE]}}
"""


def _replicas_pull_with_the_login(lab: LabUnderTest, tmp_path: Path) -> None:
    """What the service was applied with goes along to nodes that never pulled."""
    lab("rmi", "-f", "localhost:5000/apache:1.0", "busybox")
    registry = lab.running("registry_registry")[0]["node"]
    lab.apply(tmp_path, PRIVATE.replace("NODE", registry), "private")
    first = lab.running("private_web")[0]["node"]
    lab("node", "drain", first)
    other = {"n1", "n2", "n3"} - {registry, first}
    eventually(lambda: {row["node"] for row in lab.running("private_web")} == other, "it has moved")
    lab("node", "activate", first)
    (image,) = lab.json("images", "localhost:5000/apache")
    assert lab.json("service", "inspect", "private_web")[0]["image"] == f"localhost:5000/apache:1.0@{image['digest']}"
    lab("rm", "private")


def test_a_registry_behind_a_login(clean: LabUnderTest, tmp_path: Path) -> None:
    lab = clean
    told = lab("registry", "up", "--user", "ana", "--password-stdin", stdin=f"{PASSWORD}\n")
    assert told.splitlines()[-1] == "registry registry: images are pushed as localhost:5000/NAME"
    (found,) = lab.json("registry", "status")
    assert (found["state"], found["images_as"]) == ("healthy", ["localhost:5000"])
    assert (found["users"], found["volumes"]) == (["ana"], ["registry_data"])
    assert [row["name"] for row in lab.running("registry_registry")] == ["registry_registry.1"]

    lab("pull", "-q", "busybox", "--node", "n1")
    lab("tag", "busybox", "localhost:5000/apache:1.0")
    refused = lab.call("push", "localhost:5000/apache:1.0")
    assert refused.code == 1
    assert "unauthorized" in refused.err or "no basic auth credentials" in refused.err
    assert asked(lab, "n2", "/v2/_catalog")[0] == 401
    wrong = shoal_on(lab, "n1", "login", "-u", "ana", "--password-stdin", "localhost:5000", stdin="wrong")
    assert (wrong.code, "incorrect username or password" in wrong.err) == (1, True), wrong
    login = shoal_on(lab, "n1", "login", "-u", "ana", "--password-stdin", "localhost:5000", stdin=PASSWORD)
    assert (login.code, login.out) == (0, "Login Succeeded\n"), login
    assert "1.0: digest: sha256:" in lab("push", "localhost:5000/apache:1.0")
    assert asked(lab, "n2", "/v2/_catalog", f"ana:{PASSWORD}") == (200, {"repositories": ["apache"]})
    assert asked(lab, "n2", "/v2/apache/tags/list", f"ana:{PASSWORD}") == (200, {"name": "apache", "tags": ["1.0"]})
    _replicas_pull_with_the_login(lab, tmp_path)

    before = lab.running("registry_registry")[0]["container_id"]
    lab("registry", "up")  # again, and without a user: it stays as it is, and behind its login
    assert lab.running("registry_registry")[0]["container_id"] == before
    lab("logout", "localhost:5000")
    refused = lab.call("run", "--rm", "localhost:5000/of-nobody:1.0")
    assert (refused.code, "else `shoal login localhost:5000`" in refused.err) == (1, True), refused
    assert lab("registry", "down") == "registry\n"
    lab("registry", "up")  # what is in its volume is there again, the login went with `down`
    eventually(lambda: asked(lab, "n3", "/v2/_catalog") == (200, {"repositories": ["apache"]}), "what was pushed before")
    assert lab("registry", "down", "--volumes") == "registry\n"
    assert lab.call("registry", "status").err.startswith("shoal: no registry is called registry")


def test_a_registry_with_tls_and_a_login(clean: LabUnderTest, tmp_path: Path) -> None:
    """By whoever knows the cluster's CA: nodes, this machine, skopeo."""
    lab = clean
    record = Lab(lab.name).record()
    first, second = (f"{record.address(record.machine(node))}:5000" for node in ("n1", "n2"))
    lab("registry", "up", "--tls", "--tls-name", "images.example", "--user", "ana", "--password-stdin", stdin=f"{PASSWORD}\n")
    (found,) = lab.json("registry", "status")
    assert {"localhost", "n1", "n2", first.partition(":")[0], "images.example"} <= set(found["tls"]["names"])
    told = lab("inspect", "registry_registry.1") + lab("service", "inspect", "registry_registry")
    assert ("BEGIN CERTIFICATE" in told, "PRIVATE" in told) == (True, False)
    lab("pull", "-q", "busybox", "--node", "n1")
    for registry in (first, second):
        lab("login", "-u", "ana", "--password-stdin", registry, stdin=PASSWORD)
    for name in (f"{first}/web:1", f"{second}/web:2"):
        lab("tag", "busybox", name)
        assert "digest: sha256:" in lab("push", name)
    (tmp_path / "ca.crt").write_text(lab("registry", "ca"))
    options = [f"--cert-dir={tmp_path}", f"--creds=ana:{PASSWORD}"]
    assert sorted(json.loads(skopeo("list-tags", *options, f"docker://{first}/web"))["Tags"]) == ["1", "2"]
    given = [option.replace("--", f"--{side}-") for side in ("src", "dest") for option in options]
    skopeo("copy", *given, f"docker://{first}/web:1", f"docker://{second}/by/skopeo:1")
    assert "Status: Downloaded newer image" in lab("pull", f"{first}/by/skopeo:1", "--node", "n2")

    shoal_on(lab, "n1", "login", "-u", "ana", "--password-stdin", "localhost:5000", stdin=PASSWORD)
    lab("tag", "busybox", "localhost:5000/web:3")
    assert "digest: sha256:" in lab("push", "localhost:5000/web:3")  # what was plain http on a node's own address is not now
    before = lab.running("registry_registry")[0]["container_id"]
    lab("registry", "up")  # what it has is good: nothing changes
    assert lab.running("registry_registry")[0]["container_id"] == before
    lab("registry", "down", "--volumes")
    for registry in (first, second, "localhost:5000"):
        lab("logout", registry)
