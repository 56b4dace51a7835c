"""The prefix budget: no /24 and no /48 gets more probes a second than it may, and nobody is left out."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import irlstack as irl
from tests.conftest import Command

BUDGET = 100.0
SLACK_S = 0.02
"""An answer is read a little after its probe left, and not always as much after it."""
EVERYBODY = irl.World(seed=1, everything_open=True)
SCAN: dict[str, Any] = {"engine": "sim", "world": EVERYBODY, "seed": 1, "cooldown_time": 0.2, "rate": 0}


def most_in_a_second(rows: pl.DataFrame, prefix: pl.Expr, times_apart: int) -> Mapping[Any, float]:
    """The least time that so many answers in a row from a prefix took, as answers a second."""
    gaps = rows.sort("timestamp").group_by(prefix.alias("prefix")).agg(
        (pl.col("timestamp") - pl.col("timestamp").shift(times_apart)).dt.total_microseconds().min()
    )  # fmt: skip
    return {prefix: gap / 1e6 for prefix, gap in gaps.iter_rows()}


@pytest.mark.parametrize("threads", [1, 2])
def test_no_24_gets_more_than_its_share(threads: int) -> None:
    run = irl.scan("10.3.0.0/22", ports=80, prefix_budget=BUDGET, sender_threads=threads, **SCAN)
    rows = pl.DataFrame(run)
    summary = run.summary
    assert rows.height == summary["stats"]["probes_sent"] == summary["targets"]["targets"] == 1024
    # 50 gaps between 51 probes to a /24 are 0.5 s: what it gets in any half second is its share.
    took = most_in_a_second(rows, pl.col("saddr") // 256, 50)
    assert len(took) == 4
    assert all(50 / BUDGET - SLACK_S <= each <= 50 / BUDGET + 0.3 for each in took.values()), took
    assert 255 / BUDGET - SLACK_S <= summary["send_s"] < 255 / BUDGET + 1.5
    assert summary["prefix_budget"] == BUDGET
    assert summary["imbalances"] == []
    assert summary["stats"]["held"] > 500
    assert (summary["stats"]["waiting"], summary["stats"]["unprobed"]) == (0, 0)
    waiting = [second["waiting"] for second in summary["per_second"]]
    assert max(waiting) > 100
    assert waiting[-1] == 0


def test_without_a_budget_a_24_gets_them_all_at_once() -> None:
    run = irl.scan("10.3.0.0/22", ports=80, **SCAN)
    assert pl.DataFrame(run).height == 1024
    assert run.summary["send_s"] < 1
    assert run.summary["prefix_budget"] is None
    assert run.stats["held"] == 0


def test_later_passes_and_several_ports_count_too() -> None:
    filtered = irl.World(seed=1)
    run = irl.scan(
        "10.3.0.0/26", ports=[80, 443], reprobe=1, prefix_budget=BUDGET, rows="all", **SCAN | {"world": filtered}
    )
    pl.DataFrame(run)
    stats = run.stats
    assert stats["reprobed"] > 50
    assert stats["probes_sent"] == 128 + stats["reprobed"]
    assert run.summary["send_s"] >= (stats["probes_sent"] - 2) / BUDGET


def test_no_48_gets_more_than_its_share() -> None:
    run = irl.scan("fd00:10::/122", "fd00:10:1::/122", ports=80, prefix_budget=BUDGET, **SCAN)
    rows = pl.DataFrame(run)
    assert rows.height == run.stats["probes_sent"] == 128
    took = most_in_a_second(rows, pl.col("saddr").bin.slice(0, 6), 30)
    assert len(took) == 2
    assert all(each >= 30 / BUDGET - SLACK_S for each in took.values()), took


def test_an_exchange_keeps_to_it_as_well() -> None:
    run = irl.exchange(
        "10.3.0.0/25", ports=80, request="GET / HTTP/1.0\r\n\r\n", prefix_budget=BUDGET, reprobe=0, **SCAN
    )
    rows = pl.DataFrame(run)
    assert rows.height == 128
    assert run.summary["send_s"] >= 127 / BUDGET - SLACK_S
    assert run.stats["held"] > 50


def test_a_run_that_is_stopped_counts_those_that_waited(tmp_path: Path) -> None:
    run = irl.scan("10.3.0.0/22", ports=80, prefix_budget=1, max_runtime=0.5, **SCAN)
    pl.DataFrame(run)
    stats = run.stats
    assert stats["probes_sent"] == 4
    assert (stats["targets"], stats["unprobed"], stats["waiting"]) == (1024, 1020, 0)
    assert run.summary["per_second"][-1]["waiting"] == 1020


def test_flag_and_configuration_set_it(command: Command, tmp_path: Path) -> None:
    (tmp_path / "irlstack.toml").write_text("[policy]\nprefix_budget = 300\n")
    scan = ["scan", "10.3.0.0/24", "-p", "80", "--engine", "sim", "-r", "0", "-c", "0.1", "-o", "o.csv", "--json", "-q"]
    assert '"prefix_budget": 300.0' in command(*scan).out
    assert '"prefix_budget": 2000.0' in command(*scan, "--prefix-budget", "2k").out
    done = command(*scan, "--prefix-budget", "0")
    assert done.status == 2
    assert "A prefix budget of 0.0 is not possible" in " ".join(done.err.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["10.0.0.0/16", "-P", "2"], "budget 50 probes/s to a /24; the fullest gets about 512, which takes 10 s"),
        (["10.0.0.0/16", "-n", "6.25%"], "the fullest gets about 16, which takes 0.3 s"),
        (["10.3.0.0/25", "10.3.1.0-10.3.1.9", "--shards", "2"], "the fullest gets about 64, which takes 1.3 s"),
        (["fd00:10::/112"], "budget 50 probes/s to a /48; the fullest gets about 65,536, which takes 21 min"),
        (["-I", "list.txt"], "budget 50 probes/s to a /24\n"),
    ],
)
def test_a_dry_run_says_how_long_it_makes_the_fullest_network_take(
    command: Command, tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "list.txt").write_text("10.3.0.1\n10.3.0.2\n")
    done = command("scan", *arguments, "-p", "80", "--prefix-budget", "50", "--engine", "sim", "--dryrun")
    assert said in re.sub(" +", " ", done.err)


@pytest.mark.parametrize("wrong", [0, -1, float("inf"), float("nan")])
def test_what_is_no_budget_is_refused(wrong: float) -> None:
    with pytest.raises(irl.ConfigError, match="prefix budget"):
        irl.Policy(prefix_budget=wrong)
