"""Losses made visible, in closing words, metadata, report and methods paragraph; and who answers everywhere."""

import json
from collections import Counter
from ipaddress import IPv4Network
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import irlstack as irl
from irlstack.lab.topology import Impairment
from tests.conftest import Command


def test_a_lossy_run_says_what_it_lost_and_missed() -> None:
    world = irl.World(seed=1)
    link = Impairment(loss=0.05, seed=4)
    run = irl.scan("10.0.0.0/13", ports=80, engine="sim", world=world, impairment=link, rate=200_000, probes=2,
                   cooldown_time=0.5, recheck=0.2, recheck_rate=200_000)  # fmt: skip
    rows = pl.DataFrame(run)
    loss, again = run.summary["loss"], run.summary["recheck"]
    truth = 1 - 0.95**2
    # An interval misses what it is of in one run of twenty; the estimate is not far from it in any.
    assert abs(loss["probe_loss"] - truth) < 0.02
    # Half as wide again as the interval of three thousand pairs would be.
    assert loss["probe_loss_high"] - loss["probe_loss_low"] < 0.03
    assert abs(again["loss"] - truth) < 0.05
    assert rows["saddr"].n_unique() == rows.height == run.summary["found"]
    assert rows.filter(pl.col("probe_num") == 2).height == again["others_found"]
    assert run.summary["passes"][-1]["recheck"] is True


def test_one_probe_a_target_tells_nothing_and_that_is_said(command: Command, tmp_path: Path) -> None:
    rows = tmp_path / "rows.parquet"
    done = command("scan", "10.0.0.0/16", "-p", "80", "--engine", "sim", "-r", "0", "-c", "0", "-o", rows, "--json")
    document = json.loads(done.out.splitlines()[-1])
    assert (document["loss"], document["recheck"]) == (None, None)
    assert "answer" not in done.err
    assert "what the network lost" in command("methods", rows).out


def test_the_command_line_says_it_in_a_sentence_each(command: Command, tmp_path: Path) -> None:
    rows = tmp_path / "rows.parquet"
    asked = ["--reprobe", "1", "--reprobe-wait", "0", "--recheck", "5%", "--recheck-rate", "100k"]
    done = command("scan", "10.0.0.0/14", "-p", "80", "--engine", "sim", "-r", "0", "-c", "0", *asked, "-o", rows)
    assert "Of probes to those that would answer, 0 % (0 to " in done.err
    assert "found targets that were probed once more" in done.err
    said = " ".join(command("methods", rows).out.split())
    for sentence in (
        "Those that had not answered were probed again, once, 0 s after the pass before.",
        "At the end, 5 % of all were probed once more, at 100,000 probes/s at most.",
        "Ranges are 95 % intervals.",
    ):
        assert sentence in said
    command("report", rows, "-o", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert ">recheck<" in page
    assert "Of probes to those that would answer" in page


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--recheck", "1000"], "is not a share of the targets"),
        (["--recheck", "0%"], "is not a share"),
        (["--recheck", "1%", "--recheck-rate", "0"], "--recheck-rate 0 is not possible"),
        (["--reprobe-wait", "soon"], "is not a time"),
        (["--recheck", "1%", "--dedup-method", "window"], "--recheck has to know"),
    ],
)
def test_what_cannot_be_is_said(command: Command, arguments: list[str], why: str) -> None:
    done = command("scan", "10.0.0.0/16", "-p", "80", "--engine", "sim", *arguments)
    assert done.status == 2
    assert why in " ".join(done.err.split())


def test_middleboxes_are_flagged_and_nobody_else(tmp_path: Path) -> None:
    world, rows = irl.World(seed=1), tmp_path / "rows.parquet"
    irl.scan("10.0.0.0/12", ports=80, engine="sim", world=world, rate=0, cooldown_time=0.2).write(rows)
    truth = {
        IPv4Network((block << 8, 24))
        for block in range(10 << 16, (10 << 16) + 4096)
        if Counter(world.truth_of(str(IPv4Network((block << 8, 24))[host]), 80)["class"] for host in (3, 77, 200))
        == {"middlebox": 3}
    }
    flagged = irl.report.flags(rows)
    assert {each.prefix for each in flagged} == truth
    assert truth
    assert all((each.kind, each.found, each.probed) == ("packed", 256, 256) for each in flagged)


def test_an_address_that_answers_on_every_port_is_flagged_where_its_prefix_is_not(tmp_path: Path) -> None:
    world, rows = irl.World(seed=1), tmp_path / "rows.parquet"
    run = irl.scan("10.2.64.0/19", ports="1-20", engine="sim", world=world, rate=0, cooldown_time=0.2)
    run.write(rows)
    table = pl.read_parquet(rows)
    # One that answers everywhere, beside those of the World.
    first = table.row(0, named=True)
    alone = pl.DataFrame([first | {"saddr": 0x0A024607, "sport": port} for port in range(1, 20)], schema=table.schema)
    (tmp_path / "m.json").write_text(json.dumps(run.summary))
    pl.concat([table, alone]).write_parquet(tmp_path / "more.parquet")
    flagged = irl.report.flags(tmp_path / "m.json", rows=tmp_path / "more.parquet")
    single = [each for each in flagged if each.prefix.prefixlen == 32]
    assert [(str(each.prefix), each.kind, each.found, each.probed) for each in single] == [
        ("10.2.70.7/32", "all ports", 19, 20)
    ]


def test_a_small_sample_cannot_tell(command: Command, tmp_path: Path) -> None:
    rows = tmp_path / "rows.parquet"
    irl.scan("10.0.0.0/12", ports=80, engine="sim", rate=0, cooldown_time=0, max_targets=20_000).write(rows)
    assert irl.report.flags(rows) == []
    command("report", rows, "-o", tmp_path / "page.html")
    assert "This run cannot tell" in (tmp_path / "page.html").read_text()


def test_a_target_that_answered_often_counts_once_and_rows_that_cannot_tell_flag_nobody(
    command: Command, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.parquet"
    scan = ["scan", "10.2.64.0/19", "-p", "80", "--probes", "4", "--engine", "sim", "-r", "0", "-c", "0.2", "-o", rows]
    command(*scan)
    once = irl.report.flags(rows)
    command(*scan, "--rows", "all", "-f", "saddr,success,repeat")
    assert irl.report.flags(rows) == once
    assert [str(each.prefix) for each in once] == ["10.2.81.0/24"]
    for fields in ("saddr", "saddr,repeat", "saddr,success"):
        command(*scan, "--rows", "all", "-f", fields)
        assert irl.report.flags(rows) == []
    command("report", rows, "-o", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "which are a target&#x27;s first success" in page
    assert '"what":"answers"' in page.replace(" ", "")
    command(*scan, "-f", "saddr")
    assert irl.report.flags(rows) == once
    command("report", rows, "-o", tmp_path / "page.html")
    assert '"what":"targetsfound"' in (tmp_path / "page.html").read_text().replace(" ", "")


def test_a_part_of_the_targets_flags_nobody_by_chance(tmp_path: Path) -> None:
    # Half of all targets, of which 85 % answer: by chance, nine tenths of what some prefixes had of them do.
    run = irl.scan("10.0.0.0/8", ports=80, engine="sim", rate=0, cooldown_time=0, max_targets=1000)
    run.write(tmp_path / "rows.parquet")
    document = run.summary
    document["stats"]["targets"] = document["targets"]["addresses"] // 2
    (tmp_path / "meta.json").write_text(json.dumps(document))
    answers = np.random.default_rng(1).random(1 << 18) < 0.85 / 2
    addresses = (10 << 24) + answers.nonzero()[0]
    pl.DataFrame({"saddr": addresses.astype("u4"), "success": True}).write_parquet(tmp_path / "half.parquet")
    assert irl.report.flags(tmp_path / "meta.json", rows=tmp_path / "half.parquet") == []


def test_a_part_with_enough_of_each_prefix_still_tells(tmp_path: Path) -> None:
    rows = tmp_path / "rows.parquet"
    run = irl.scan("10.2.64.0/19", ports="1-20", engine="sim", world=irl.World(seed=1), rate=0, cooldown_time=0.2,
                   shards=2, shard=1)  # fmt: skip
    run.write(rows)
    assert [(str(each.prefix), each.kind, each.probed) for each in irl.report.flags(rows)] == [
        ("10.2.81.0/24", "packed", 2560)
    ]
