"""Exchanges with lists on the simulated link: each row of a list comes out once, with all that was in it."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

import irlstack as irl
from irlstack.lab import Impairment

OPEN = irl.World(seed=1, everything_open=True)
GET = b"GET / HTTP/1.0\r\n\r\n"


def exchange(*targets: object, **options: Any) -> irl.Run:
    given = {"engine": "sim", "ports": 80, "rate": 200_000, "seed": 7, "cooldown_time": 0.3, "request": GET} | options
    return irl.exchange(*targets, **given)


def test_every_row_comes_out_once_with_what_was_in_it_whoever_answers_and_whatever_is_lost() -> None:
    count = 20_000
    table = pl.DataFrame(
        {
            "row": range(count),
            # A tenth is there again, at once and much later.
            "ip": [f"10.7.{number % 18_000 >> 8}.{number % 18_000 & 255}" for number in range(count)],
            "note": [None if number % 3 else f'"{number}", and more\n' for number in range(count)],
            "score": [number / 7 for number in range(count)],
            "days": pl.date_range(pl.date(2000, 1, 1), pl.date(2000, 1, 1), eager=True).repeat_by(count).explode(),
        }
    )
    table = pl.concat([table[:100], table[:100].with_columns(row=pl.col("row") + count), table[100:]])
    run = exchange("10.0.0.0/8", table, rows="all", impairment=Impairment(loss=0.02), reprobe=1)
    said = pl.DataFrame(run).sort("row")
    assert run.summary["imbalances"] == []
    further = [name for name in table.columns if name != "ip"]
    assert said.columns[-len(further) :] == further
    # Types, nulls and all.
    assert said.select(further).equals(table.sort("row").select(further))
    octets = said["saddr"].to_list()
    addresses = [".".join(str(each >> shift & 255) for shift in (24, 16, 8, 0)) for each in octets]
    assert addresses == table.sort("row")["ip"].to_list()
    assert run.summary["list"]["duplicates"] > 0
    assert run.summary["list"]["left"] == 0
    # Two exchanges with a target never share their four numbers.
    ends = said.select("saddr", "sport", "daddr", "dport")
    assert ends.n_unique() == ends.height


def test_what_a_scan_found_can_be_talked_with(tmp_path: Path) -> None:
    for family, targets in (("ipv4", "10.11.0.0/20"), ("ipv6", "2001:db8::/116")):
        found = irl.scan(targets, engine="sim", ports=80, rate=200_000, seed=7, cooldown_time=0.3)
        found.write(tmp_path / "found.parquet", tmp_path / "found.csv")
        first = pl.read_parquet(tmp_path / "found.parquet")
        assert first.height > 20
        for name in ("found.parquet", "found.csv"):
            run = exchange(targets, list_of_ips_file=tmp_path / name)
            said = pl.DataFrame(run)
            assert sorted(said["saddr"]) == sorted(first["saddr"]), (family, name)
            # Names of a scan that an exchange has, too.
            assert {"list_timestamp", "list_daddr", "list_dport", "classification", "rtt"} < set(said.columns)


def test_an_ipv6_list_may_lie_anywhere_in_a_prefix_of_more_targets_than_can_be_numbered() -> None:
    table = pl.DataFrame({"ip": [f"2001:db8:{number:x}::1" for number in range(50)]})
    said = pl.DataFrame(exchange("2001:db8::/32", table, world=OPEN))
    assert said.height == 50
    assert set(said["status"]) == {"success"}


def test_a_list_of_two_families_says_what_to_do_when_what_came_before_is_done(tmp_path: Path) -> None:
    lines = "".join(f"10.1.{number >> 8}.{number & 255}\n" for number in range(20_000))
    (tmp_path / "mixed.csv").write_text(lines + "2001:db8::1\n10.0.0.3\n")
    run = exchange("10.0.0.0/8", list_of_ips_file=tmp_path / "mixed.csv", world=OPEN)
    batches = []
    with pytest.raises(irl.ConfigError, match="split the list in two"):
        batches.extend(run)
    assert sum(batch.num_rows for batch in batches) == 20_000


def test_bad_rows_are_counted_and_told_of_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("ip,port\n10.0.0.1,80\nnowhere,80\n10.0.0.2,99999\n192.0.2.1,80\n10.0.0.3,81\n")
    run = exchange("10.0.0.0/8", list_of_ips_file=tmp_path / "list.csv", world=OPEN)
    assert sorted(row["sport"] for row in pl.DataFrame(run).to_dicts()) == [80, 81]
    counts = run.summary["list"]
    assert (counts["rows"], counts["targets"], counts["bad"], counts["outside"]) == (5, 2, 2, 1)
    assert "line 3: " in counts["first_bad"][0]
    assert "line 4: " in counts["first_bad"][1]


def test_a_list_waits_where_its_memory_ends_and_loses_nothing() -> None:
    count = 100_000
    table = pl.DataFrame(
        {"ip": range(10 << 24, (10 << 24) + count), "tag": [f"{number:0>40}" for number in range(count)]}
    )
    # A quarter is the list's: about a batch of rows.
    run = exchange("10.0.0.0/8", table, world=OPEN, max_memory=2 << 20, rate=0, max_bytes=100)
    said = pl.DataFrame(run)
    assert said.height == count
    assert said["tag"].n_unique() == count


def test_bounds_on_a_prefix_make_rows_of_a_list_wait_and_not_fail() -> None:
    table = pl.DataFrame({"ip": [f"10.0.0.{number}" for number in range(200)]})
    said = pl.DataFrame(exchange("10.0.0.0/8", table, world=OPEN, max_per_prefix=3, reprobe=0, rows="all"))
    assert dict(said.group_by("status").len().iter_rows()) == {"success": 200}
