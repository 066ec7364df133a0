"""What the controller tells its decisions of networks: how large they are, and the routes they are kept away from."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.config import Config
from controller.wiring import settings_of, subnets_of

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


@pytest.mark.parametrize(
    ("pool", "prefix"), [("10.0.0.0/8", 16), ("10.64.0.0/10", 16), ("172.16.0.0/16", 20), ("10.9.0.0/20", 24)]
)
def test_networks_are_as_large_as_the_pool_has_room_for(pool: str, prefix: int) -> None:
    settings = settings_of(Config(Path("/data"), pool=pool), ["192.168.0.0/24"])
    assert (settings.network_prefix, settings.pool, settings.avoid) == (prefix, pool, ("192.168.0.0/24",))
