"""`irlstack ledger`: what plans and metadata say was probed, against when answers really came."""

import json
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import irlstack as irl
from irlstack.ledger import Ledger, moments
from tests.conftest import Command

SLACK = timedelta(seconds=0.1)
"""Positions are noted as taken a little before their probes leave, and answers take their time."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plan of two shards and both of their runs, and a run of another plan, as somebody keeps them."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "2026").mkdir()
    plan = irl.Plan("10.3.0.0/16", ports=[80, 443], rate=30_000, seed=3, shards=2, contact="scan@example.org")
    plan.save(folder / "2026" / "web.toml")
    (folder / "irlstack.toml").write_text("[policy]\n")
    for shard in (0, 1):
        run = irl.scan(
            plan=plan, shard=shard, engine="sim", cooldown_time=0.2, notes="the monthly count", authorized="ticket 9"
        )
        summary = run.write(folder / f"shard{shard}.parquet")
        (folder / "2026" / f"shard{shard}.json").write_text(json.dumps(summary))
    echo = irl.Plan("10.3.0.0/22", probe_module="icmp_echoscan", rate=1000, seed=3)
    echo.save(folder / "echo.toml")
    run = irl.scan(plan=echo, engine="sim", cooldown_time=0.1)
    (folder / "echo.json").write_text(json.dumps(run.write(folder / "echo.parquet")))
    return folder


def test_every_answer_came_right_after_the_second_the_ledger_names(runs: Path) -> None:
    book = Ledger.of(runs)
    assert (len(book.plans), len(book.runs), book.passed_over, book.without_plan()) == (2, 3, {}, [])
    rows = pl.concat([pl.read_parquet(runs / f"shard{shard}.parquet").sample(150, seed=1) for shard in (0, 1)])
    for row in rows.iter_rows(named=True):
        target = f"{IPv4Address(row['saddr'])}:{row['sport']}"
        (entry,) = book.find(target)
        ((after, until, certain),) = entry.probed
        assert certain
        assert until - after < timedelta(seconds=1.1)
        assert after - SLACK <= row["timestamp"] <= until + SLACK, target


def test_all_ports_and_probes_of_an_address_are_told(command: Command, runs: Path) -> None:
    done = command("ledger", "10.3.0.7", runs)
    assert done.status == 0
    lines = done.out.splitlines()
    told = sorted(line.split(" was probed")[0] for line in lines if "was probed" in line)
    assert told == ["10.3.0.7", "10.3.0.7:443", "10.3.0.7:80"]
    assert lines.count("  why: the monthly count") == 2
    assert lines.count("  authorised by: ticket 9") == 2
    assert lines.count("  contact: scan@example.org") == 2
    assert lines.count("  why: not recorded") == 1
    assert lines.count("  synthetic: no frame left the machine") == 3
    assert done.err == ""


def test_when_and_ledger_agree(command: Command, runs: Path) -> None:
    (found,) = json.loads(command("ledger", "10.3.0.7:80", runs, "--json").out)
    assert found["notes"] == "the monthly count"
    again = command("when", found["plan_file"], "10.3.0.7:80", "-m", found["metadata_file"])
    assert f"in the second before {found['probed'][0]['until']}" in again.out


def test_what_was_not_probed_is_not_told(command: Command, runs: Path) -> None:
    for target in ("10.1.0.1", "10.3.0.7:81", "[fd00::7]:80", "fd00::7"):
        done = command("ledger", target, runs)
        assert (done.status, done.out) == (1, "")
        assert f"{target} was not probed by any of the 3 runs known here" in " ".join(done.err.split())


def test_a_target_beyond_where_a_run_ended_was_not_probed(runs: Path, tmp_path: Path) -> None:
    plan = irl.Plan("10.3.0.0/16", ports=80, rate=0, seed=5)
    run = irl.scan(plan=plan, engine="sim", cooldown_time=0.1, max_results=1)
    for _ in run:
        pass
    plan.save(tmp_path / "plan.toml")
    (tmp_path / "run.json").write_text(json.dumps(run.summary))
    book = Ledger.of(tmp_path)
    taken = run.summary["stats"]["targets"]
    assert 0 < taken < 1 << 16
    for position, line in enumerate("".join(plan.targets().lines()).splitlines()):
        if position < 10 or abs(position - taken) < 10:
            assert bool(list(book.find(line))) is (position < taken), position


def test_runs_whose_plan_is_gone_are_said_to_be_unknown(command: Command, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "shard0.json").write_text((runs / "2026" / "shard0.json").read_text())
    (tmp_path / "other.json").write_text('{"no": "run"}')
    done = command("ledger", "10.3.0.7", tmp_path)
    assert done.status == 5
    assert "whose plan is not here" in " ".join(done.err.split())
    (tmp_path / "shard0.json").unlink()
    (tmp_path / "half.json").write_text('{"plan_fingerprint": ')
    (tmp_path / "half.toml").write_text("version = ")
    done = command("ledger", "10.3.0.7", tmp_path)
    assert done.status == 5
    assert done.err.count("passed over") == 2


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pl.DataFrame]:
    """A run whose targets waited for their turn, for longer than a second."""
    folder = tmp_path_factory.mktemp("busy")
    plan = irl.Plan("10.3.0.0/24", "10.3.128.0/26", ports=80, rate=0, seed=5)
    plan.save(folder / "plan.toml")
    world = irl.World(seed=1, everything_open=True)
    run = irl.scan(plan=plan, engine="sim", world=world, cooldown_time=0.2, prefix_budget=100)
    rows = pl.DataFrame(run)
    (folder / "run.json").write_text(json.dumps(run.summary))
    return folder, rows


def test_who_waited_for_a_turn_was_probed_before_nobody_waited_any_more(busy: tuple[Path, pl.DataFrame]) -> None:
    folder, rows = busy
    book = Ledger.of(folder)
    assert rows.height == 320
    spans = []
    for row in rows.iter_rows(named=True):
        (entry,) = book.find(f"{IPv4Address(row['saddr'])}:80")
        ((after, until, certain),) = entry.probed
        assert certain
        assert after - SLACK <= row["timestamp"] <= until + SLACK
        spans.append((until - after).total_seconds())
    assert max(spans) > 2


def test_who_waited_when_the_run_ended_was_perhaps_not_probed(command: Command, tmp_path: Path) -> None:
    plan = irl.Plan("10.3.0.0/24", ports=80, rate=0, seed=5)
    plan.save(tmp_path / "plan.toml")
    run = irl.scan(plan=plan, engine="sim", cooldown_time=0.1, prefix_budget=10, max_runtime=0.5)
    pl.DataFrame(run)
    (tmp_path / "run.json").write_text(json.dumps(run.summary))
    done = command("ledger", "10.3.0.7:80", tmp_path)
    assert done.status == 0
    assert "or not any more: it may have been among those that waited when the run ended" in done.out
    assert json.loads(command("ledger", "10.3.0.7:80", tmp_path, "--json").out)[0]["probed"][0]["certain"] is False
    assert " or not at all" in command("when", tmp_path / "plan.toml", "10.3.0.7:80", "-m", tmp_path / "run.json").out


def test_a_run_that_followed_a_list_is_not_taken_for_one_of_its_plan(command: Command, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("10.3.0.7\n")
    plan = irl.Plan("10.3.0.0/24", ports=80, rate=0, max_targets=1 << 40)
    plan.save(tmp_path / "plan.toml")
    made = irl.exchange(pl.DataFrame({"saddr": ["10.3.0.7"]}), plan=plan, engine="sim", cooldown_time=0.1, reprobe=0)
    pl.DataFrame(made)
    (tmp_path / "run.json").write_text(json.dumps(made.summary))
    done = command("ledger", "10.3.0.7", tmp_path)
    assert done.status == 5
    assert "followed a list" in " ".join(done.err.split())


def test_a_plan_without_a_run_is_said_where_it_has_the_target(command: Command, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "web.toml").write_bytes((runs / "2026" / "web.toml").read_bytes())
    (tmp_path / "shard0.json").write_bytes((runs / "2026" / "shard0.json").read_bytes())
    plan = irl.Plan.load(tmp_path / "web.toml")
    targets = {shard: "".join(plan.targets(first=7, count=1, shard=shard).lines()).strip() for shard in (0, 1)}
    assert command("ledger", targets[0], tmp_path).err == ""
    done = command("ledger", targets[1], tmp_path)
    assert done.status == 5
    assert "no run of that shard is here" in " ".join(done.err.split())


def test_metadata_alone_tell_that_a_run_did_not_name_a_target(command: Command, runs: Path, tmp_path: Path) -> None:
    document = json.loads((runs / "2026" / "shard0.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(document))
    for target, status in (("10.3.0.7:80", 5), ("10.9.0.7:80", 1), ("fd00::7", 1), ("10.9.0.7", 1)):
        assert command("ledger", target, tmp_path).status == status, target
    document["targets"]["given_count"] = 2
    (tmp_path / "run.json").write_text(json.dumps(document))
    assert command("ledger", "10.9.0.7:80", tmp_path).status == 5
    del document["targets"]
    (tmp_path / "run.json").write_text(json.dumps(document))
    assert command("ledger", "10.9.0.7:80", tmp_path).status == 5


def test_later_passes_are_moments_of_their_own() -> None:
    def second(elapsed_s: float, watermark: int, number: int, reached: int) -> dict[str, Any]:
        return {"elapsed_s": elapsed_s, "watermark": watermark, "pass": number, "pass_watermark": reached}

    seconds = [second(1.0, 60, 0, 60), second(2.0, 100, 1, 20), second(3.0, 100, 1, 100)]
    run = {"start_time": "2026-01-01T00:00:00Z", "reprobe": 1, "per_second": seconds}
    start = datetime(2026, 1, 1, tzinfo=UTC)

    def told(position: int) -> list[tuple[float, float]]:
        return [((a - start).total_seconds(), (b - start).total_seconds()) for a, b, _ in moments(run, position)]

    assert told(0) == [(0, 1), (1, 2)]
    assert told(59) == [(0, 1), (2, 3)]
    assert told(60) == [(1, 2), (2, 3)]
    assert told(100) == []
    assert list(moments(run | {"start_time": None}, 0)) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["10.3.0.7"], "Name the folders"),
        (["10.3.0.7", "absent"], "absent: Not a folder"),
        (["nobody", "."], "'nobody' is no target"),
        (["10.3.0.7:0x50", "."], "is no target"),
    ],
)
def test_wrong_arguments_get_one_sentence(command: Command, runs: Path, arguments: list[str], said: str) -> None:
    command("plan", "10.0.0.0/24", "-p", "80")
    done = command("ledger", *arguments)
    assert done.status == 2
    assert said in " ".join(done.err.split())
