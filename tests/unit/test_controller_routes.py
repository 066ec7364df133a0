"""What the controller keeps networks away from: the routes of its own machine."""

from __future__ import annotations

from controller.wiring import subnets_of

TABLE = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
shb-1001\t0000400A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
shx-1001\t0001400A\t0001400A\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0
*\t0000400A\t00000000\t0200\t0\t0\t1024\t0000FFFF\t0\t0\t0
tun0\t00000A0A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
"""


def test_routes_of_others_are_kept_clear_and_shoals_own_are_not() -> None:
    assert subnets_of(TABLE) == ["10.10.0.0/16", "192.168.0.0/16"]
    assert subnets_of("") == []
