"""The page of figures: medians of rounds, and what failed is named."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from bench.table import BENCHES, module, page, section, short

ROOT = Path(__file__).parents[2]


def test_a_figure_is_given_with_its_median_and_its_ends() -> None:
    lines = section("store", [{"get [ms]": 3.0}, {"get [ms]": 1.0}, {"get [ms]": 2.0}])
    assert "| get [ms] | 2 | 1 | 3 |" in lines


def test_a_round_that_failed_is_told_beside_those_that_did_not() -> None:
    text = page(["store"], {"store": [{"get [ms]": 0.123456}, "etcd: not found"]}, 0.5)
    assert "1 of 2 rounds" in text
    assert "Failed: etcd: not found" in text
    assert "| get [ms] | 0.123 | 0.123 | 0.123 |" in text


def test_every_bench_has_its_module() -> None:
    assert [name for name in BENCHES if importlib.util.find_spec(module(name)) is None] == []


def test_numbers_keep_three_digits_and_whole_ones_all() -> None:
    assert [short(value) for value in (0.0, 0.00123456, 12.345, 1234.5, 1_000_000)] == [
        "0",
        "0.00123",
        "12.3",
        "1,234",
        "1,000,000",
    ]


def test_a_bench_that_is_ended_takes_away_what_it_made() -> None:
    code = """
import sys
from bench import figures

def main():
    try:
        print("begun", flush=True)  # guarded from here on: the signal may come before the next line
        sys.stdin.read()
    finally:
        print("taken away")

figures.run(main)
"""
    bench = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    with bench:
        assert bench.stdout is not None
        assert bench.stdout.readline() == "begun\n"
        bench.terminate()
        assert (bench.stdout.read(), bench.wait()) == ("taken away\n", 143)


def test_a_benchs_json_is_all_that_stands_on_stdout() -> None:
    code = "from bench import figures; figures.run(lambda: (print('text'), figures.add('a', 1.5, 's')))"
    done = subprocess.run([sys.executable, "-c", code, "--json"], capture_output=True, text=True, cwd=ROOT, check=True)
    assert (done.stdout, done.stderr) == ('{"a [s]": 1.5}\n', "text\n")
