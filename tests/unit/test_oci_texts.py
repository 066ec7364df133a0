"""The small pure parts around containers: users, limits and usage, log lines, messages, files of /etc."""

from __future__ import annotations

import pytest

from agent.plan.cgroups import cgroup_path, size, usage_v1, usage_v2
from agent.plan.etc_files import hosts, resolv_conf
from agent.plan.exits import create_error, exit_message
from agent.plan.log_lines import LogName, log_options, parse_line, parse_name, parse_time, parts, surplus, surplus_containers
from agent.plan.users import User, find_user
from model.errors import DiskFull, RuntimeFailed
from model.spec import ContainerSpec


def test_damaged_passwd_lines_are_skipped() -> None:
    passwd = "broken\nx:y:z\nann:x:notanumber:1::/h:/s\nann:x:5:6::/home/ann:/bin/sh\n::::::\n"
    assert find_user("ann", (), passwd, "g:x:9:ann,bob\nbad\n") == User(5, 6, (6, 9), "/home/ann")
    assert find_user("5", (), passwd, "") == User(5, 6, (), "/home/ann")
    assert find_user("", (), "", "") == User(0, 0, (), "/")


@pytest.mark.parametrize(
    ("code", "oom", "memory", "message"),
    [
        (0, False, 0, ""),
        (3, False, 0, "ended with exit code 3"),
        (137, False, 0, "ended by SIGKILL (exit code 137)"),
        (137, True, 64 << 20, "out of memory: killed at 64.0 MiB (exit code 137)"),
        (137, True, 0, "out of memory: killed (the node ran out of memory) (exit code 137)"),
        (200, False, 0, "ended with exit code 200"),
        (None, False, 0, "ended while nobody watched: its exit code is lost"),
    ],
)
def test_exit_messages(code: int | None, oom: bool, memory: int, message: str) -> None:
    assert exit_message(code, oom, memory) == message


@pytest.mark.parametrize(
    ("text", "message", "code"),
    [
        ("executable file `/bin/nope` not found in $PATH: No such file or directory\n", "/bin/nope", 127),
        ("executable file `nope` not found in $PATH: No such file or directory", "nope", 127),
        ("open executable: Permission denied", "run", 126),
        ('time="2026-11-21T23:36:00Z" level=error msg="runc create failed: unable to start container process: '
         'exec: \\"nope\\": executable file not found in $PATH"\n', "nope", 127),
        ('runc create failed: unable to start container process: exec: "/etc/passwd": permission denied', "run", 126),
        ("exec container process `run`: Exec format error", "run", 126),
    ],
)  # fmt: skip
def test_faults_of_the_command(text: str, message: str, code: int) -> None:
    found = create_error(text, "run")
    assert str(found).startswith(f'cannot start: "{message}": ')
    assert str(found).endswith(f"(exit code {code})")
    assert (found.exit_code, found.permanent) == (code, True)


def test_other_faults_keep_the_runtime_s_words_on_one_line() -> None:
    assert isinstance(create_error("write `x`: No space left on device", "run"), DiskFull)
    found = create_error("mount `proc` to `proc`:\n Operation not permitted\n", "run")
    assert str(found) == "cannot start: mount `proc` to `proc`: Operation not permitted"
    assert not found.permanent
    assert str(create_error("", "run")) == "cannot start: the runtime gave no reason"
    assert len(str(create_error("x" * 9999, "run"))) < 500


def test_log_lines() -> None:
    line = parse_line(b"2026-11-21T23:06:24.381585033+00:00 stdout F hi there\n", "c")
    assert line is not None
    assert (line.at_ns, line.stream, line.line, line.container_id) == (1795302384381585033, "stdout", b"hi there\n", "c")
    part = parse_line(b"2026-11-21T23:06:24.381585033+00:00 stderr P half\n")
    assert part is not None
    assert part.line == b"half"
    empty = parse_line(b"2026-11-21T23:06:24.381585033+00:00 stdout F \n")
    assert empty is not None
    assert empty.line == b"\n"
    for damaged in (b"\n", b"x y z\n", b"2026 stdout F x\n", b"2026-11-21T23:06:24.381585033+00:00 other F x\n"):
        assert parse_line(damaged) is None
    assert parse_time(b"2026-11-22T01:06:24.381585033+02:00") == 1795302384381585033


def test_log_names_sort_into_the_order_of_writing() -> None:
    name = LogName(3, "ab.c-1", 12)
    assert parse_name(name.text) == name
    assert name.text == "000003-ab.c-1.log.000012"
    assert parse_name("000003-ab.log.tmp") is None
    names = ["000002-a.log", "000002-a.log.000001", "000001-b.log.000010", "000001-b.log.000009", "000002-a.log.tmp"]
    assert [part.text for part in parts(names)] == ["000001-b.log.000009", "000001-b.log.000010", "000002-a.log.000001"]
    assert [part.part for part in surplus([LogName(1, "a", n) for n in (1, 2, 3, 4)], 3)] == [1]
    assert surplus_containers(names, 1) == ["000001-b.log.000009", "000001-b.log.000010"]
    assert len(surplus_containers(names, 0)) == 4


def test_log_options() -> None:
    found = log_options("json-file", (("max-size", "2m"), ("max-file", "7"), ("labels", "x")))
    assert (found.bytes_max, found.files_max, found.off) == (2 << 20, 7, False)
    assert log_options("none", ()).off
    assert log_options("", (("max-size", "1"),)).bytes_max == 16 << 10
    for driver, options in (("syslog", ()), ("", (("max-size", "big"),)), ("", (("max-file", "0"),))):
        with pytest.raises(RuntimeFailed):
            log_options(driver, options)


def test_usage_from_cgroup_files() -> None:
    one = usage_v1(
        {
            "cpuacct.usage": "1500000000\n", "memory.usage_in_bytes": "5000\n",
            "memory.stat": "cache 1\ntotal_inactive_file 1000\n",
            "memory.limit_in_bytes": "9223372036854771712\n", "pids.current": "3\n", "pids.max": "max\n",
            "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
            "cpu.stat": "nr_periods 1\nthrottled_time 2000000000\n",
            "blkio.throttle.io_service_bytes": "8:0 Read 10\n8:0 Write 20\n9:0 Read 5\nTotal 35\n",
        },
        7.0,
    )  # fmt: skip
    assert (one.cpu_s, one.memory_bytes, one.memory_limit_bytes, one.pids, one.pids_limit) == (1.5, 4000, 0, 3, 0)
    assert (one.read_bytes, one.write_bytes, one.throttled_s, one.oom_kills, one.at) == (15, 20, 2.0, 2, 7.0)
    two = usage_v2(
        {
            "cpu.stat": "usage_usec 1500000\nthrottled_usec 5\n", "memory.current": "5000", "memory.stat": "inactive_file 6000",
            "memory.max": "max", "memory.events": "oom_kill 1", "pids.current": "1", "pids.max": "20",
            "io.stat": "8:0 rbytes=10 wbytes=20 rios=1\n9:0 rbytes=5 wbytes=0",
        },
        0.0,
    )  # fmt: skip
    assert (two.cpu_s, two.memory_bytes, two.memory_limit_bytes, two.pids_limit) == (1.5, 0, 0, 20)
    assert (two.read_bytes, two.write_bytes, two.oom_kills) == (15, 20, 1)


def test_small_texts() -> None:
    assert (size(5), size(1536), size(64 << 20), size(3 << 40)) == ("5 B", "1.5 KiB", "64.0 MiB", "3.0 TiB")
    assert cgroup_path("shoal/", "x") == "/shoal/x"


def test_etc_files() -> None:
    text = hosts("web", "example.org", ("10.0.0.2",), (("db", "10.0.0.9"), ("evil\n1.2.3.4", "x y")))
    assert "10.0.0.2\tweb.example.org web\n" in text
    assert "10.0.0.9\tdb\n" in text
    assert "x\tevil 1.2.3.4\n" in text
    spec = ContainerSpec(image="x")
    assert resolv_conf(spec, (), "nameserver 9.9.9.9\n") == "nameserver 9.9.9.9\n"
    assert resolv_conf(spec, ("10.0.0.1",), "nameserver 9.9.9.9\n") == "nameserver 10.0.0.1\noptions ndots:0\n"
    spec = ContainerSpec(image="x", dns=("1.1.1.1",), dns_search=("a.b", "c"), dns_opt=("ndots:2",))
    assert resolv_conf(spec, ("10.0.0.1",), "") == "nameserver 10.0.0.1\nsearch a.b c\noptions ndots:2\n"
    assert resolv_conf(spec, (), "", "172.30.0.1") == "nameserver 1.1.1.1\nsearch a.b c\noptions ndots:2\n"


@pytest.mark.parametrize(("host", "found"), [
    ("nameserver 127.0.0.53\nsearch lan\n", "nameserver 172.30.0.1\nsearch lan\n"),
    ("nameserver ::1\n# none\n", "nameserver 172.30.0.1\n"),
    ("nameserver 127.0.0.53\nnameserver 9.9.9.9\n", "nameserver 127.0.0.53\nnameserver 9.9.9.9\n"),
])  # fmt: skip
def test_resolvers_that_answer_only_on_the_host_are_asked_by_the_node(host: str, found: str) -> None:
    spec = ContainerSpec(image="x")
    assert resolv_conf(spec, (), host, "172.30.0.1") == found
    assert resolv_conf(spec, (), host) == host


def test_host_gateway_is_the_node_as_the_container_sees_it() -> None:
    extra = (("node", "host-gateway"), ("db", "10.0.0.9"))
    assert "10.0.0.1\tnode\n" in hosts("web", "", ("10.0.0.2", "fd00::2"), extra, "10.0.0.1")
    without = hosts("web", "", ("10.0.0.2", "fd00::2"), extra)
    assert "\tnode\n" not in without
    assert without.endswith("10.0.0.9\tdb\n10.0.0.2\tweb\nfd00::2\tweb\n")
