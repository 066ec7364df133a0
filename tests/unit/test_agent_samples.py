"""Two readings and the time between: rates, counters that went back, clocks that were set; files as the kernel writes them."""

from __future__ import annotations

from math import isnan, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.plan import samples
from agent.plan.samples import CgroupCounters, Counters, Link, Moment, passed_s, rate, used

V1 = (
    b"12500000000\n",
    b"nr_periods 40\nnr_throttled 10\nthrottled_time 123\nnr_bursts 0\n",
    b"5000000\n",
    b"cache 7\ninactive_file 9999999\ntotal_cache 1\ntotal_inactive_file 1000000\ntotal_active_file 3\n",
    b"17\n",
    b"254:0 Read 100\n254:0 Write 30\n254:0 Sync 0\n254:0 Total 130\n7:1 Read 1\n7:1 Write 2\nTotal 133\n",
)
V2 = (
    b"usage_usec 12500000\nuser_usec 1\nnr_periods 40\nnr_throttled 10\nthrottled_usec 5\n",
    b"5000000\n",
    b"anon 5\ninactive_file 1000000\n",
    b"17\n",
    b"254:0 rbytes=100 wbytes=30 rios=1 wios=1 dbytes=7 dios=0\n7:1 rbytes=1 wbytes=2 rios=0\n",
)


def counters(version: int, cpu: bytes, *others: bytes) -> Counters:
    return CgroupCounters(version).take(cpu, enumerate(others, 1))


def test_both_kinds_of_cgroups_say_the_same() -> None:
    wanted = Counters(12.5, 40, 10, 4_000_000, 17, 101, 32)
    assert counters(1, *V1) == wanted
    assert counters(2, *V2) == wanted


def test_files_that_are_not_there_count_as_nothing() -> None:
    assert counters(1, b"5\n", b"", b"", b"", b"", b"Total 0\n") == Counters(5e-9, 0, 0, 0, 0, 0, 0)
    assert counters(2, b"") == Counters(0.0, 0, 0, 0, 0, 0, 0)


def read(version: int, cpu: bytes, *others: bytes) -> CgroupCounters:
    found = CgroupCounters(version)
    found.take(cpu, enumerate(others, 1))
    return found


@pytest.mark.parametrize(("version", "texts"), [(1, V1), (2, V2)])
def test_of_files_that_are_not_read_again_what_they_said_holds(version: int, texts: tuple[bytes, ...]) -> None:
    found = read(version, *texts)
    memory, io = {1: (2, 5), 2: (1, 4)}[version]
    assert found.take(texts[0], [(memory, b"6000000\n"), (io, b"")]) == Counters(12.5, 40, 10, 5_000_000, 17, 0, 0)
    assert found.take(texts[0], []) == Counters(12.5, 40, 10, 5_000_000, 17, 0, 0)


def test_which_files_are_read_again() -> None:
    ran = b"13500000000\n"
    assert CgroupCounters(1).due(ran, 1) == (1, 2, 3, 4, 5), "nothing is known yet"
    assert read(1, b"12500000000\n").due(ran, 1) == (2, 5), "memory and disks"
    assert read(1, *V1).due(ran, 1) == (1, 2, 5), "it has a limit of CPU"
    assert read(1, *V1).due(V1[0], 1) == (), "no process of it ran"
    assert [read(1, *V1).due(V1[0], turn) for turn in (5, 10)] == [(1, 2, 4, 5), (1, 2, 3, 4, 5)]
    assert read(2, *V2).due(b"usage_usec 13500000\n", 1) == (1, 4)
    assert read(2, *V2).due(V2[0], 1) == (4,), "the kernel may write to disk later"
    assert [read(2, *V2).due(V2[0], turn) for turn in (5, 10)] == [(1, 3, 4), (1, 2, 3, 4)]


def test_what_was_used_between_two_readings() -> None:
    before, after = Counters(10.0, 100, 10, 5, 1, 1000, 2000), Counters(12.0, 120, 15, 7, 3, 1500, 6000)
    assert used(before, after, 2.0) == (1.0, 0.25, 7, 3, 250.0, 2000.0)
    assert used(before, before, 2.0).throttled == 0.0, "no period has passed"


def test_a_counter_that_went_back_gives_no_value() -> None:
    before, after = Counters(10.0, 100, 10, 5, 1, 1000, 2000), Counters(1.0, 3, 0, 7, 3, 1500, 100)
    found = used(before, after, 2.0)
    assert isnan(found.cpu_cores)
    assert isnan(found.throttled)
    assert found.read_bytes_per_s == 250.0
    assert isnan(found.write_bytes_per_s)


@pytest.mark.parametrize(
    ("unix_s", "monotonic_s", "wanted"),
    [(101.0, 51.0, 1.0), (101.4, 51.0, 1.0), (161.0, 51.0, nan), (40.0, 51.0, nan), (100.0, 50.0, nan), (99.0, 49.0, nan)],
)
def test_the_time_between_two_readings(unix_s: float, monotonic_s: float, wanted: float) -> None:
    assert passed_s(Moment(100.0, 50.0), Moment(unix_s, monotonic_s)) == pytest.approx(wanted, nan_ok=True)


@given(st.floats(0, 1e15), st.floats(0, 1e15), st.floats(1e-3, 1e4))
def test_a_rate_is_never_negative_and_gives_back_what_came(before: float, grown: float, seconds: float) -> None:
    found = rate(before, before + grown, seconds)
    assert found >= 0
    assert found * seconds == pytest.approx(before + grown - before, rel=1e-9)
    if before + grown > before:
        assert isnan(rate(before + grown, before, seconds))


DEV = b"""Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     500       5    0    0    0     0          0         0      500       5    0    0    0     0       0          0
  eth0: 1000 10 0 0 0 0 0 0 2000 20 0 0 0 0 0 0
shv-abcdef01200:    10     1    0    0    0     0          0         0       20       1    0    0    0     0       0          0
shv-abcdef01201:1 1 0 0 0 0 0 0 2 1 0 0 0 0 0 0
shb-0007: 1 1 0 0 0 0 0 0 2 1 0 0 0 0 0 0
"""


def test_links_and_whose_they_are() -> None:
    found = samples.links(DEV)
    assert found["eth0"] == Link(1000, 2000)
    assert len(found) == 5
    mine = samples.sandbox_link("abcdef012" + "0" * 55)
    assert samples.sandboxes(found) == {mine: Link(22, 11)}, "what the host's end sent, the container received"


ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth1\t0000000A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
shb-1\t0001000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""


def test_the_ways_out_of_the_machine() -> None:
    assert samples.ways_out(ROUTES, "10.0.7.9") == {"eth0", "eth1"}
    assert samples.ways_out(ROUTES, "") == {"eth0"}
    assert samples.total(samples.links(DEV), ["eth0", "lo", "none"]) == Link(1500, 2500)


def test_the_machine_itself() -> None:
    stat = b"cpu  100 10 50 4000 40 5 5 0 30 0\ncpu0 1 1\n"
    assert samples.machine_cpu_s(stat, 100) == 1.7
    assert samples.machine_memory_bytes(b"MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  400 kB\n") == 600 * 1024
    assert samples.machine_memory_bytes(b"") == 0
    assert samples.machine_io(b"nr_free 1\npgpgin 10\npgpgout 20\n") == (10 * 1024, 20 * 1024)
