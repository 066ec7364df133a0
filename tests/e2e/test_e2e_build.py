"""Building as a person does it: a Compose file with `build:`, a Dockerfile on a node of the lab, and what a failure says."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.cluster import Lab
from tests.e2e.harness import LabUnderTest, eventually

DOCKERFILE = """\
### the first stage is not in the image
ARG TAG=none
FROM busybox:$TAG as build-stage
WORKDIR /usr/src/app
COPY . .
RUN dd if=/dev/zero of=node_modules bs=1k count=2000 && mkdir build && cp page.html build/ && ls -A > build/files
FROM busybox
COPY --from=build-stage /usr/src/app/build /srv
EXPOSE 80
HEALTHCHECK --interval=1s CMD ["test", "-e", "/srv/page.html"]
CMD ["httpd", "-f", "-p", "80", "-h", "/srv"]
"""
COMPOSE = """\
services:
  site:
    build: {context: ., args: {TAG: latest}, tags: ["site:1"], labels: {who: me}}
    pull_policy: if_not_present
    ports: ["8999:80"]
    init: true
    stop_grace_period: 1s
    deploy: {placement: {constraints: [node.hostname == n1]}}
"""


@pytest.fixture
def folder(lab: LabUnderTest, tmp_path: Path) -> Iterator[Path]:
    files = {"Dockerfile": DOCKERFILE, "compose.yaml": COMPOSE, "page.html": "one", ".dockerignore": "secret\n*.log\n!b.log\n"}
    for name, text in {**files, "secret": "x", "a.log": "x", "b.log": "x"}.items():
        (tmp_path / name).write_text(text)
    yield tmp_path
    lab.call("rm", "-v", "shop")
    lab("image", "prune", "-a", "-f")


def fetched(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def test_apply_builds_and_runs_what_was_built(lab: LabUnderTest, folder: Path) -> None:
    record = Lab(lab.name).record()
    node = next(machine for machine in record.nodes() if machine.name == "n1")
    url, file = f"http://{record.address(node)}:8999", str(folder / "compose.yaml")
    plan = lab.call("plan", "-f", file, "-p", "shop")
    assert (plan.code, "shop-site would be built for service site" in plan.out) == (2, True), plan
    said = lab("apply", "-f", file, "-p", "shop", "--build-node", "n1")
    assert "building shop-site for service site" in said
    assert "Successfully tagged shop-site:latest\nSuccessfully tagged site:1" in said
    eventually(lambda: fetched(f"{url}/page.html") == "one", "the page is served")
    sent = [".dockerignore", "Dockerfile", "b.log", "build", "compose.yaml", "node_modules", "page.html"]
    assert fetched(f"{url}/files").split() == sent
    (image,) = json.loads(lab("image", "inspect", "site:1"))
    assert (image["Nodes"], image["Config"]["Labels"]) == (["n1"], {"who": "me"})
    assert image["Config"]["Healthcheck"]["Test"] == ["CMD", "test", "-e", "/srv/page.html"]
    _history(lab, image)
    assert lab("build", "-q", "--node", "n2", "-", stdin="FROM site:1\nLABEL a=b\n").startswith("sha256:")  # it comes from n1
    replica = lab.running("shop_site")

    (folder / "page.html").write_text("two")
    assert "building" not in lab("apply", "-f", file, "-p", "shop")  # the cluster has it
    assert lab.running("shop_site")[0]["container_id"] == replica[0]["container_id"]
    again = lab("apply", "-f", file, "-p", "shop", "--build", "--build-node", "n1")
    assert again.count("Using cache") == 1  # WORKDIR: what is copied has changed
    eventually(lambda: fetched(f"{url}/page.html") == "two", "the new page is served")
    _bound(lab, folder / "meu-site", f"http://{record.address(node)}:8998/page.html")


def _bound(lab: LabUnderTest, site: Path, url: str) -> None:
    """The tutorial's page from a folder of the node; bench/builds.py does it with Apache."""
    site.mkdir()
    (site / "page.html").write_text("first")
    options = ("--name", "site-trybe2", "-p", "8998:80", "-v", f"{site}/:/srv/", "--init", "--stop-timeout", "1")
    lab("run", "-d", *options, "--node", "n1", "site:1")
    eventually(lambda: fetched(url) == "first", "the folder's page is served")
    (site / "page.html").write_text("changed")
    assert fetched(url) == "changed"
    assert json.loads(lab("inspect", "site-trybe2"))[0]["container"]["Mounts"] == [
        {"Type": "bind", "Source": str(site), "Destination": "/srv", "Mode": "", "RW": True, "Propagation": "rprivate"}
    ]
    lab("stop", "site-trybe2")
    lab("rm", "site-trybe2")
    assert (site / "page.html").read_text() == "changed"


def _history(lab: LabUnderTest, image: dict[str, Any]) -> None:
    rows = json.loads(lab("history", "site:1", "-o", "json"))
    top = [row["CreatedBy"].removeprefix("/bin/sh -c #(nop) ") for row in rows[:4]]
    assert [text.split()[0] for text in top] == ["LABEL", "CMD", "HEALTHCHECK", "EXPOSE"]
    assert image["ContainerConfig"]["Cmd"][-1] == '#(nop) LABEL "who"="me"'
    assert not [row for row in rows if "node_modules" in row["CreatedBy"]]
    (base,) = json.loads(lab("image", "inspect", "busybox"))
    assert (image["Size"] - base["Size"] < 10_000, rows[-1]["CreatedBy"]) == (True, "busybox-static and its commands")


def test_what_fails_is_a_line_and_the_commands_code(lab: LabUnderTest, folder: Path) -> None:
    (folder / "Failing").write_text("FROM busybox\nRUN echo so far && exit 7\n")
    failed = lab.call("build", "-t", "new:1", "-f", str(folder / "Failing"), "--node", "n2", str(folder))
    assert (failed.code, failed.err) == (
        7, "shoal: The command '/bin/sh -c echo so far && exit 7' returned a non-zero code: 7\n"
    )  # fmt: skip
    assert "STEP 2/2: RUN echo so far && exit 7\nso far\n" in failed.out
    for words, said in (
        ([str(folder / "nix")], 'unable to prepare context: path "'),
        (["--target", "nix", str(folder)], "failed to reach build target nix in Dockerfile"),
        (["--node", "nix", str(folder)], "no node is called nix"),
    ):
        wrong = lab.call("build", *words)
        assert (wrong.code, wrong.err.count("\n"), said in wrong.err) == (1, 1, True), wrong
    assert lab("images", "-q", "new:1") == ""
    built = lab("build", "-q", "--node", "n2", "-", stdin="FROM busybox\nARG A\nRUN echo $A\n", timeout=60).strip()
    assert built.startswith("sha256:")
