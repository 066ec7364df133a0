"""Two readings and the time between: rates, counters that went back, clocks that were set; files as the kernel writes them."""

from __future__ import annotations

from math import isnan, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.plan import samples
from agent.plan.samples import CgroupCounters, Counters, Link, Moment, held_back, passed_s, rate

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


IO = {1: 5, 2: 4}
"""The place of what disks did."""


def read(version: int, cpu: bytes, *others: bytes) -> CgroupCounters:
    """Read in full on turn 0, when 100 s had passed."""
    found = CgroupCounters(version)
    found.take(0, 100.0, cpu, enumerate(others, 1))
    return found


def counters(version: int, cpu: bytes, *others: bytes) -> Counters:
    """The same, and once more with disks two seconds later, when each had read 500 bytes more and written 100."""
    more = others[-1].replace(b"100", b"600").replace(b"30", b"130")
    return read(version, cpu, *others).take(2, 102.0, cpu, [(IO[version], more)])


def test_both_kinds_of_cgroups_say_the_same() -> None:
    wanted = Counters(12.5, 40, 10, 4_000_000, 17, 250.0, 50.0)
    assert counters(1, *V1) == wanted
    assert counters(2, *V2) == wanted


def test_files_that_are_not_there_count_as_nothing() -> None:
    assert read(1, b"5\n", b"", b"", b"", b"", b"Total 0\n").take(2, 102.0, b"5\n", []) == Counters(5e-9, 0, 0, 0, 0, 0, 0)
    assert CgroupCounters(2).take(0, 100.0, b"", []) == Counters(0.0, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(("version", "texts"), [(1, V1), (2, V2)])
def test_of_files_that_are_not_read_again_what_they_said_holds(version: int, texts: tuple[bytes, ...]) -> None:
    found = read(version, *texts)
    memory = {1: 2, 2: 1}[version]
    assert found.take(2, 102.0, texts[0], [(memory, b"6000000\n")]) == Counters(12.5, 40, 10, 5_000_000, 17, 0, 0)
    assert found.take(3, 103.0, texts[0], []) == Counters(12.5, 40, 10, 5_000_000, 17, 0, 0)


@pytest.mark.parametrize("version", [1, 2])
def test_rates_of_disks_are_those_between_two_readings_of_them_and_stand_meanwhile(version: int) -> None:
    def io(size: int) -> list[tuple[int, bytes]]:
        return [(IO[version], {1: b"7:1 Read %d\n7:1 Write 0\n", 2: b"7:1 rbytes=%d wbytes=0\n"}[version] % size)]

    found, told = CgroupCounters(version), list[float]()
    for turn, size in ((1, 1000), (2, 1300), (3, 0), (4, 1700), (5, 0), (6, 2000), (7, 0), (8, 50)):
        cpu = {1: b"%d\n", 2: b"usage_usec %d\n"}[version] % turn
        places = found.due(turn, cpu)
        assert (IO[version] in places) == bool(size)
        told.append(found.take(turn, 100.0 + turn, cpu, io(size) if size else []).read_bytes_per_s)
    assert told[1:7] == [300.0, 300.0, 200.0, 200.0, 150.0, 150.0]
    assert isnan(told[0]), "read once only"
    assert isnan(told[7]), "it went back"


def test_v1_s_disks_stand_still_with_the_processes_and_are_looked_at_once_after_these_stopped() -> None:
    found = CgroupCounters(1)
    rows = [(100 + turn, b"7:1 Read %d\n" % size) for turn, size in ((0, 1000), (1, 1000), (2, 2000))]
    for turn, (at_s, text) in enumerate(rows):
        found.take(turn, at_s, b"%d\n" % turn, [(5, text)])
    assert found.due(3, b"9\n") == (2,)
    assert found.take(3, 103.0, b"9\n", [(2, b"1\n")]).read_bytes_per_s == 500.0
    assert found.due(4, b"9\n") == (5,), "what it did before it stopped"
    assert found.take(4, 104.0, b"9\n", [(5, b"7:1 Read 6000\n")]).read_bytes_per_s == 2000.0
    assert found.due(6, b"9\n") == ()
    assert found.take(6, 106.0, b"9\n", []).read_bytes_per_s == 0.0
    assert found.take(8, 116.0, b"10\n", [(5, b"7:1 Read 6100\n")]).read_bytes_per_s == 10.0, "since it stood still"


def test_which_files_are_read_again() -> None:
    ran = b"13500000000\n"
    assert CgroupCounters(1).due(1, ran) == (1, 2, 3, 4, 5), "nothing is known yet"
    one = b"12500000000\n"
    assert [read(1, one).due(turn, ran) for turn in (1, 2)] == [(2,), (2, 5)], "memory, and disks every other time"
    assert [read(1, *V1).due(turn, ran) for turn in (1, 2)] == [(1, 2), (1, 2, 5)], "it has a limit of CPU"
    assert [read(1, *V1).due(turn, V1[0]) for turn in (1, 2)] == [(), ()], "no process of it ran"
    assert [read(1, *V1).due(turn, V1[0]) for turn in (5, 10)] == [(1, 2, 4), (1, 2, 3, 4, 5)]
    assert [read(2, *V2).due(turn, b"usage_usec 13500000\n") for turn in (1, 2)] == [(1,), (1, 4)]
    assert [read(2, *V2).due(turn, V2[0]) for turn in (1, 2)] == [(), (4,)], "the kernel may write to disk later"
    assert [read(2, *V2).due(turn, V2[0]) for turn in (5, 10)] == [(1, 3), (1, 2, 3, 4)]


def test_in_how_many_periods_it_was_held_back() -> None:
    before = Counters(10.0, 100, 10, 5, 1, 0, 0)
    assert held_back(before, Counters(12.0, 120, 15, 7, 3, 0, 0)) == 0.25
    assert held_back(before, before) == 0.0, "no period has passed"
    assert isnan(held_back(before, Counters(1.0, 3, 0, 7, 3, 0, 0))), "a counter that went back"
    assert isnan(rate(before.cpu_s, 1.0, 2.0))


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
    names, counts = samples.links(DEV)
    assert names == ["lo", "eth0", "shv-abcdef01200", "shv-abcdef01201", "shb-0007"]
    assert counts[1] == (1000, 2000)
    mine = samples.sandbox_link("abcdef012" + "0" * 55)
    assert samples.sandboxes(names, counts) == {mine: Link(22, 11)}, "what the host's end sent, the container received"


ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth1\t0000000A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
shb-1\t0001000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""


def test_the_ways_out_of_the_machine() -> None:
    assert samples.ways_out(ROUTES, "10.0.7.9") == {"eth0", "eth1"}
    assert samples.ways_out(ROUTES, "") == {"eth0"}
    assert samples.total(*samples.links(DEV), {"eth0", "lo", "none"}) == Link(1500, 2500)


def test_the_machine_itself() -> None:
    stat = b"cpu  100 10 50 4000 40 5 5 0 30 0\ncpu0 1 1\n"
    assert samples.machine_cpu_s(stat, 100) == 1.7
    assert samples.machine_memory_bytes(b"MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  400 kB\n") == 600 * 1024
    assert samples.machine_memory_bytes(b"") == 0
    assert samples.machine_io(b"nr_free 1\npgpgin 10\npgpgout 20\n") == (10 * 1024, 20 * 1024)
