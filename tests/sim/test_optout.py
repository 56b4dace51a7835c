"""The opt-out file: who is in it is not probed, until its day is over, also when it changes while a run goes on."""

import gc
import logging
import weakref
from datetime import date
from pathlib import Path

import polars as pl
import pytest

import irlstack as irl
from irlstack import optout
from tests.conftest import Command

TODAY = date(2026, 6, 30)
SCAN = {"ports": 80, "engine": "sim", "seed": 1, "cooldown_time": 0.2}


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_lines_carry_reason_and_last_day(tmp_path: Path) -> None:
    text = (
        "# who asked\n\n192.0.2.0/24  # until 2026-06-30: by mail, ticket 812\n198.51.100.7 #by phone\n"
        "203.0.113.0/24 # until 2026-06-29\n2001:db8::/32\n"
    )
    found = optout.read(write(tmp_path / "out.txt", text), TODAY)
    assert found.lines == [
        optout.Line(3, "192.0.2.0/24", TODAY, "by mail, ticket 812"),
        optout.Line(4, "198.51.100.7", None, "by phone"),
        optout.Line(6, "2001:db8::/32", None, ""),
    ]
    assert found.expired == [optout.Line(5, "203.0.113.0/24", date(2026, 6, 29), "")]
    assert found.text.decode() == text.replace("203.0.113.0/24 # until 2026-06-29", "")


@pytest.mark.parametrize("comment", ["until", "until soon", "until 2026-02-30", "Until: ticket 5"])
def test_a_day_that_is_none_is_refused(tmp_path: Path, comment: str) -> None:
    with pytest.raises(irl.ConfigError, match=r"line 2: '[Uu]ntil.*names no day"):
        optout.read(write(tmp_path / "out.txt", f"10.0.0.1\n10.0.0.2 # {comment}\n"))


def test_who_opted_out_is_not_probed_and_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = write(
        tmp_path / "out.txt", "10.3.0.0/17 # until 2999-01-01: asked\n10.3.128.0/17 # until 2020-01-01\nfd00::/8\n"
    )
    run = irl.scan("10.3.0.0/16", rate=0, policy=irl.Policy(optout_file=out), **SCAN)
    rows = pl.DataFrame(run)
    assert rows.height > 100
    assert rows["saddr"].min() >= (10 << 24) + (3 << 16) + (1 << 15)
    stats = run.stats
    assert (stats["targets"], stats["probes_refused_by_policy"], stats["probes_sent"]) == (1 << 16, 1 << 15, 1 << 15)
    assert run.summary["imbalances"] == []
    assert "out.txt, line 2: 10.3.128.0/17 opted out until 2020-01-01; that is over." in caplog.text
    assert caplog.text.count("opted out") == 1


def test_nobody_left_is_refused(tmp_path: Path) -> None:
    out = write(tmp_path / "out.txt", "10.0.0.0/8\n")
    run = irl.scan("10.3.0.0/16", rate=0, policy=irl.Policy(optout_file=out), **SCAN)
    with pytest.raises(irl.PolicyError, match="No target is left"):
        next(iter(run))


def test_it_is_looked_at_again_while_a_run_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    out = write(tmp_path / "out.txt", "10.3.0.0/24\n")
    run = irl.scan("10.3.0.0/16", rate=10_000, policy=irl.Policy(optout_file=out), **SCAN)
    seen, changed = [], False
    for batch in run:
        seen.append(pl.DataFrame(batch))
        if not changed and run.stats["elapsed_s"] > 0.5:
            # First nonsense, which changes nothing and is said; then the rest of the Internet opts out.
            write(out, "10.3.0.0/99\n")
            changed = True
        elif "cannot be read again" in caplog.text and "1 lines hold" not in caplog.text:
            write(out, "10.0.0.0/8 # asked just now\n")
    assert "1 lines hold now" in caplog.text
    stats = run.stats
    refused = stats["probes_refused_by_policy"]
    assert 256 < refused < stats["targets"] == 1 << 16
    assert stats["probes_sent"] + refused == stats["targets"]
    # Once everybody had opted out nobody was probed any more, so nobody answered in the last second.
    last = pl.concat(seen)["timestamp"].max()
    assert run.summary["per_second"][-1]["elapsed_s"] > 6
    assert (last.timestamp() - pl.concat(seen)["timestamp"].min().timestamp()) < 6


def test_a_dropped_run_is_not_held_by_its_watch(tmp_path: Path) -> None:
    out = write(tmp_path / "out.txt", "")
    run = irl.scan("10.3.0.0/16", rate=1000, policy=irl.Policy(optout_file=out), **SCAN)
    raw = run._begun()
    del run
    assert not raw.is_finished()
    alive = weakref.ref(raw)
    del raw
    gc.collect()
    assert alive() is None


def test_the_configuration_names_it_beside_itself(command: Command, tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    write(tmp_path / "conf" / "out.txt", "10.3.0.0/17\n")
    write(tmp_path / "conf" / "irlstack.toml", '[policy]\noptout_file = "out.txt"\n')
    scan = ["scan", "10.3.0.0/16", "-p", "80", "--engine", "sim", "-r", "0", "-c", "0.1", "-o", "o.csv"]
    done = command(*scan, "--config", "conf/irlstack.toml")
    assert done.status == 0, done.err
    assert "32,768 probes" in done.err
    write(tmp_path / "conf" / "out.txt", "10.3.0.0/17 # until then\n")
    done = command(*scan, "--config", "conf/irlstack.toml")
    assert done.status == 2
    assert "line 1" in done.err
    (tmp_path / "conf" / "out.txt").unlink()
    done = command(*scan, "--config", "conf/irlstack.toml")
    assert done.status == 2
    assert "out.txt: No such file" in " ".join(done.err.split())
