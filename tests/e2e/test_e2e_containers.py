"""Single containers, logs, exec, volumes, and the one line that tells what went wrong."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.harness import ROOT, LabUnderTest, eventually


def test_run_in_the_foreground_gives_output_and_exit_code(lab: LabUnderTest) -> None:
    done = lab.call("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.code, done.out, done.err.splitlines()[-1]) == (3, "out\n", "err")  # before that: its pull, if no node had it
    eventually(lambda: lab.json("service", "ls") == [], "the container removed")


def test_run_detached_exec_logs_stop_start_rm(lab: LabUnderTest) -> None:
    lab("run", "-d", "--name", "box", "--node", "n2", "-e", "WHO=me", "busybox", "sh", "-c", "echo hello $WHO; exec sleep 1000")
    (row,) = lab.running("box")
    assert (row["name"], row["node"]) == ("box", "n2")
    assert lab("logs", "box") == "hello me\n"
    assert lab("exec", "box", "sh", "-c", "echo $WHO; hostname").splitlines()[0] == "me"
    assert lab.call("exec", "box", "sh", "-c", "exit 5").code == 5
    assert lab("exec", "-i", "box", "cat", stdin="to and fro\n") == "to and fro\n"
    assert lab.call("rm", "box").code == 1
    lab("stop", "box")
    assert lab.running("box") == []
    lab("start", "box")
    eventually(lambda: lab.running("box"), "box running again")
    lab("rm", "-f", "box")
    assert "no stack, service or replica has this name" in lab.call("ps", "box", "-a").err


def test_exec_with_a_terminal(lab: LabUnderTest) -> None:
    lab("run", "-d", "--name", "box", "--init", "busybox", "sleep", "1000")
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "shoal", "exec", "-it", "box", "sh", "-c", "tty; read word; echo got $word; exit 4"],
        stdin=follower, stdout=follower, stderr=follower, cwd=ROOT, env=lab.environment, start_new_session=True,
    )  # fmt: skip
    os.close(follower)
    seen = b""
    while b"/dev/" not in seen:
        seen += os.read(leader, 4096)
    os.write(leader, b"it\r")
    while b"got it" not in seen:
        seen += os.read(leader, 4096)
    assert process.wait(timeout=20) == 4
    os.close(leader)


def test_logs_of_a_service_are_followed(lab: LabUnderTest, tmp_path: Path) -> None:
    command = "sh -c 'while :; do echo tick; sleep 0.2; done'"
    text = f"services: {{talk: {{image: busybox, init: true, command: {command}, deploy: {{replicas: 2}}}}}}"
    lab.apply(tmp_path, text, "chat")
    process = subprocess.Popen(
        [sys.executable, "-m", "shoal", "logs", "-f", "chat_talk"],
        cwd=ROOT,
        env=lab.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    seen: set[str] = set()
    for line in process.stdout:
        seen.add(line.split("@")[0])
        if len(seen) == 2:
            break
    process.kill()
    process.wait()
    process.stdout.close()
    assert seen == {"chat_talk.1", "chat_talk.2"}


def test_a_named_volume_keeps_its_data_and_its_replica_on_its_node(lab: LabUnderTest, tmp_path: Path) -> None:
    text = """
services:
  db:
    image: busybox
    init: true
    command: sh -c 'echo x >> /data/starts; sleep 100000'
    volumes: ["data:/data"]
volumes: {data: {}}
"""
    lab.apply(tmp_path, text, "keep")
    (first,) = lab.running("keep_db")
    lab("rm", "keep")
    (volume,) = lab.json("volume", "ls")
    assert (volume["name"], volume["nodes"]) == ("keep_data", [first["node"]])
    lab.apply(tmp_path, text, "keep")
    (second,) = lab.running("keep_db")
    assert second["node"] == first["node"]
    assert lab("exec", "keep_db", "cat", "/data/starts") == "x\nx\n"
    done = lab.call("volume", "rm", "keep_data")
    assert done.code == 1
    assert "keep_db.1" in done.err
    lab("rm", "-v", "keep")
    assert lab.json("volume", "ls") == []


CASES = [
    ("image missing", "{image: nowhere/nothing:9}", ("nowhere/nothing:9", "not found")),
    ("bad command", "{image: busybox, command: /no/such/program}", ("/no/such/program", "127")),
    ("out of memory", "{image: busybox, command: tail /dev/zero, mem_limit: 32M}", ("memory", "137")),
    ("exit code", "{image: busybox, command: sh -c 'exit 9'}", ("9",)),
]


@pytest.mark.parametrize(("what", "service", "words"), CASES, ids=[case[0] for case in CASES])
def test_what_went_wrong_stands_in_one_line(
    lab: LabUnderTest, tmp_path: Path, what: str, service: str, words: tuple[str, ...]
) -> None:
    lab.apply(tmp_path, f"services: {{it: {service}}}", "wrong", "--no-wait")

    def told() -> bool:
        (row,) = lab.replicas("wrong_it")
        return row["state"] in ("failed", "rejected") and all(word in row["message"] for word in words)

    eventually(told, f"{what}: a message with {words}, state failed or rejected")
    (row,) = lab.replicas("wrong_it")
    assert "\n" not in row["message"]


def test_limits_and_isolation_are_those_asked_for(lab: LabUnderTest, tmp_path: Path) -> None:
    text = """
services:
  tight:
    image: busybox
    init: true
    command: sleep 100000
    read_only: true
    user: nobody
    working_dir: /tmp
    hostname: snug
    tmpfs: [/scratch]
    cap_drop: [ALL]
    ulimits: {nofile: 123}
    deploy: {resources: {limits: {memory: 32M, cpus: "0.5", pids: 20}}}
"""
    lab.apply(tmp_path, text, "lim")
    script = "id -un; pwd; hostname; ulimit -n; touch /x 2>/dev/null || echo ro; touch /scratch/x && echo rw"
    lines = lab("exec", "lim_tight", "sh", "-c", f"{script}; grep CapEff /proc/self/status").split()
    assert lines == ["nobody", "/tmp", "snug", "123", "ro", "rw", "CapEff:", "0000000000000000"]
    memory = lab.container("lim_tight.1")["HostConfig"]["Memory"]
    assert memory == 32 << 20
