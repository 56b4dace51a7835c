"""SIGKILL at random moments, then `--resume`: the rows are those of a run that nobody disturbed, each once."""

import json
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import irlstack as irl
from irlstack.ledger import Ledger
from tests.conftest import Command

IRLSTACK = [sys.executable, "-m", "irlstack"]
SCAN = ["scan", "10.0.0.0/12", "-p", "80", "-e", "7", "--engine", "sim", "-c", "0.2", "--checkpoint-interval", "0.1"]
KILLS = 20
SEED = 20260101
COLUMNS = ["saddr", "sport", "classification", "success", "repeat"]


def read(path: Path) -> pl.DataFrame:
    """The rows of a file, without what no two runs have in common."""
    rows = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path)
    if rows.schema["saddr"] == pl.String:
        rows = rows.with_columns(pl.col("saddr").map_elements(lambda text: int(IPv4Address(text)), pl.Int64))
    return rows.select(pl.col(COLUMNS[:2]).cast(pl.Int64), *COLUMNS[2:]).sort(COLUMNS)


def start(arguments: Sequence[object], folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*IRLSTACK, *map(str, arguments)], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(arguments: Sequence[object], folder: Path) -> dict[str, Any]:
    """Runs a scan to its end, and returns its metadata."""
    with start([*arguments, "-q", "--json"], folder) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return json.loads(out)  # type: ignore[no-any-return]


def wait_for(checkpoint: Path, process: "subprocess.Popen[str]", size: int) -> None:
    """Waits until a run's checkpoint has grown beyond a size."""
    deadline = time.monotonic() + 20
    while not checkpoint.exists() or checkpoint.stat().st_size <= size:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the checkpoint does not grow"
        time.sleep(0.01)


def wait_for_seconds(updates: Path, process: "subprocess.Popen[str]", count: int) -> None:
    """Waits until a run has written down so many seconds, beside the header of that file."""
    deadline = time.monotonic() + 20
    while not updates.exists() or len(updates.read_text().splitlines()) <= count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no second goes by"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("output", "threads", "rate", "more"),
    [
        ("out.parquet", 1, 250_000, []),
        ("out.parquet", 2, 250_000, ["--rows", "all"]),
        ("out.csv", 1, 500_000, ["--reprobe", "1"]),
        ("out.csv", 2, 250_000, []),
    ],
)
def test_killed_at_random_moments_and_resumed_the_rows_are_an_undisturbed_runs(
    tmp_path: Path, output: str, threads: int, rate: int, more: list[str]
) -> None:
    chance = random.Random(f"{SEED} {output} {threads}")
    scan = [*SCAN, "-T", threads, "-o", output, *more]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    expected = finish([*scan, "-r", "0"], whole)
    checkpoint = killed / f"{output}.checkpoint"
    moments, command, size = [], [*scan, "-r", rate], 0
    for _ in range(KILLS // 4):
        with start([*command, "-q"], killed) as process:
            wait_for(checkpoint, process, size)
            moments.append(chance.uniform(0.0, 0.6))
            time.sleep(moments[-1])
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL, "it ended before it was killed"
        size = checkpoint.stat().st_size
        command = ["scan", "--resume", checkpoint.name, "--checkpoint-interval", "0.1"]
    print(f"seed {SEED}, {output}, {threads} threads: killed after", *(f"{each:.3f}" for each in moments))
    document = finish([*command, "-r", "0"], killed)
    rows, undisturbed = read(killed / output), read(whole / output)
    if "all" in more:
        # Whoever answers twice answers each probe twice.
        rows, undisturbed = (each.filter(~pl.col("repeat")) for each in (rows, undisturbed))
    assert rows.equals(undisturbed)
    assert rows.select("saddr", "sport").is_duplicated().sum() == 0
    assert document["found"] == expected["found"] > 10_000
    assert document["imbalances"] == []
    sessions = document["sessions"]
    assert len(sessions) == KILLS // 4 + 1
    positions = [(each["pass"], each["position"]) for each in sessions]
    assert positions == sorted(positions), "nothing that was done is done again"
    # What was sent twice was sent in the interval and the cooldown before a kill, with what a busy machine takes.
    assert document["sent"] - expected["sent"] < len(moments) * rate
    assert sorted(path.name for path in killed.iterdir()) == [output], "nothing is left beside the rows"


def test_ctrl_c_writes_a_checkpoint_and_says_how_to_go_on_also_on_another_machine(
    command: Command, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    scan = [*SCAN, "-r", "300k", "-o", "a.parquet", "-o", "b.csv"]
    for number in (signal.SIGINT, signal.SIGTERM):
        here = tmp_path / number.name
        here.mkdir()
        with start(scan, here) as process:
            wait_for(here / "a.parquet.checkpoint", process, 10_000)
            process.send_signal(number)
            _, err = process.communicate(timeout=10)
        assert process.returncode == 130
        assert "irlstack scan --resume a.parquet.checkpoint" in err
        assert stat.S_IMODE((here / "a.parquet.checkpoint").stat().st_mode) == 0o600, "it holds the plan's key"
        assert read(here / "a.parquet").equals(read(here / "b.csv")), "and the rows are whole files"
    shutil.move(here, there)
    done = command("scan", "--resume", there / "a.parquet.checkpoint", "-r", "0", "-T", "2", "-m", "meta.json", "-q")
    assert done.status == 0, done.err
    undisturbed = finish([*SCAN, "-r", "0", "-o", "whole.parquet"], tmp_path)
    for output in ("a.parquet", "b.csv"):
        assert read(there / output).equals(read(tmp_path / "whole.parquet"))
    document = json.loads((tmp_path / "meta.json").read_text())
    assert document["found"] == undisturbed["found"]
    assert (document["senders"], document["rate"]) == (2, 0)
    assert not here.exists()


def test_the_ledger_knows_each_session_to_the_second(command: Command, tmp_path: Path) -> None:
    scan = [*SCAN, "-r", "160k", "-o", "out.parquet", "-u", "seconds.csv"]
    with start(scan, tmp_path) as process:
        wait_for_seconds(tmp_path / "seconds.csv", process, 2)
        process.send_signal(signal.SIGKILL)
    irl.checkpoint.Saved.load(tmp_path / "out.parquet.checkpoint").plan.save(tmp_path / "plan.toml")
    done = command("scan", "--resume", "out.parquet.checkpoint", "-r", "400k", "-m", "run.json", "-q")
    assert done.status == 0, done.err
    document = json.loads((tmp_path / "run.json").read_text())
    rates = {second["rate"] for second in document["per_second"]}
    assert rates == {160_000.0, 400_000.0}
    book = Ledger.of(tmp_path)
    rows = pl.read_parquet(tmp_path / "out.parquet").sample(200, seed=1)
    slack = timedelta(seconds=0.15)
    for row in rows.iter_rows(named=True):
        (entry,) = book.find(f"{IPv4Address(row['saddr'])}:{row['sport']}")
        assert all(until - after < timedelta(seconds=1.2) for after, until, _ in entry.probed)
        assert any(after - slack <= row["timestamp"] <= until + slack for after, until, _ in entry.probed), entry.probed


def test_a_bound_ends_a_session_and_not_the_run(command: Command, tmp_path: Path) -> None:
    scan = [*SCAN, "-r", "200k", "-o", "out.csv"]
    done = command(*scan, "-t", "0.5")
    assert done.status == 0
    assert "--resume out.csv.checkpoint" in done.err
    done = command("scan", "--resume", "out.csv.checkpoint", "--json", "-q", "-r", "0", "-t", "60")
    assert done.status == 0
    assert json.loads(done.out)["sent"] == 1 << 20, "a session that ended in order leaves nothing to be probed twice"
    assert not (tmp_path / "out.csv.checkpoint").exists()
    finish([*SCAN, "-r", "0", "-o", "whole.csv"], tmp_path)
    assert read(tmp_path / "out.csv").equals(read(tmp_path / "whole.csv"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["10.0.0.0/24"], "targets cannot be given"),
        (["-o", "other.csv"], "--output-file cannot be given"),
        (["-e", "9"], "--seed cannot be given"),
        (["--reprobe", "3"], "--reprobe cannot be given"),
        (["-N", "5"], "--max-results cannot be given"),
        (["--rows", "all"], "--rows cannot be given"),
        (["-r", "1.5"], "whole probes"),
    ],
)
def test_what_would_make_another_run_of_it_is_refused(
    command: Command, tmp_path: Path, arguments: list[str], said: str
) -> None:
    assert command(*SCAN, "-r", "200k", "-o", "out.csv", "-t", "0.3").status == 0
    before = (tmp_path / "out.csv.checkpoint").read_bytes()
    done = command("scan", "--resume", "out.csv.checkpoint", *arguments)
    assert done.status == 2
    assert said in " ".join(done.err.split())
    assert (tmp_path / "out.csv.checkpoint").read_bytes() == before


def test_files_that_do_not_fit_are_refused_each_with_its_reason(command: Command, tmp_path: Path) -> None:
    assert command(*SCAN, "-r", "200k", "-o", "out.csv", "-o", "out.parquet", "-t", "0.6").status == 0
    checkpoint = tmp_path / "out.csv.checkpoint"
    saved = checkpoint.read_bytes()

    def refused(said: str) -> None:
        done = command("scan", "--resume", "out.csv.checkpoint")
        assert done.status == 2
        assert said in " ".join(done.err.split()), done.err

    for content, said in [
        (b"", "no checkpoint of irlstack"),
        (b"saddr,sport\n", "no checkpoint of irlstack"),
        (saved.replace(b"checkpoint 1", b"checkpoint 2", 1), "of version 2"),
        (saved[:40], "nothing to go on with"),
    ]:
        checkpoint.write_bytes(content)
        refused(said)
    checkpoint.write_bytes(saved)
    rows = (tmp_path / "out.csv").read_bytes()
    (tmp_path / "out.csv").write_bytes(rows[:-10])
    refused("rows that were safe are missing")
    (tmp_path / "out.csv").write_bytes(rows)
    (tmp_path / "out.parquet").rename(tmp_path / "elsewhere.parquet")
    refused("copy them there")
    (tmp_path / "elsewhere.parquet").rename(tmp_path / "out.parquet")
    done = command("scan", "--resume", "out.csv.checkpoint", "-r", "0", "-t", "60")
    assert done.status == 0, done.err
    assert read(tmp_path / "out.csv").equals(read(tmp_path / "out.parquet"))
    checkpoint.write_bytes(saved)
    done = command("scan", "--resume", "absent.checkpoint")
    assert (done.status, "absent.checkpoint: No such file" in done.err) == (2, True)


def test_a_half_written_end_is_passed_over(command: Command, tmp_path: Path) -> None:
    assert command(*SCAN, "-r", "200k", "-o", "out.csv", "-t", "0.6").status == 0
    checkpoint = tmp_path / "out.csv.checkpoint"
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[:-7])
    assert command("scan", "--resume", "out.csv.checkpoint", "-r", "0", "-t", "60", "-q").status == 0
    finish([*SCAN, "-r", "0", "-o", "whole.csv"], tmp_path)
    assert read(tmp_path / "out.csv").equals(read(tmp_path / "whole.csv"))


def test_permission_is_asked_for_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irlstack.policy.config_files", list)
    (tmp_path / "deny.txt").write_text("")
    plan = irl.Plan(
        "9.9.9.0/24", ports=80, rate=100, contact="scan@example.org", blocklist_file=[tmp_path / "deny.txt"]
    )
    link: dict[str, Any] = {"interface": ["nope"], "engine": "packet", "dad": "fast", "batch": 128}
    link |= dict.fromkeys(("world", "impairment", "gateway_mac", "source_mac", "vlan"))
    link["iplayer"] = False
    recipe = irl.checkpoint.Recipe(plan, {}, link)
    about = {"seed_provided": False, "notes": None, "user_metadata": None}
    record = {"header": True, "output_module": None}
    path = tmp_path / "out.checkpoint"
    irl.checkpoint.create(path, recipe, [tmp_path / "out.csv"], record, about, 1.0)
    assert b"ticket" not in path.read_bytes(), "who authorised a session authorised that one"
    with pytest.raises(irl.PolicyError, match="authorised"):
        irl.resume(path)
    irl.resume(path, authorized="ticket 2")
    assert not (tmp_path / "out.csv").exists(), "and nothing begins before it is written"


def test_a_simulated_scan_stays_one(command: Command, tmp_path: Path) -> None:
    assert command(*SCAN, "-r", "200k", "-o", "out.csv", "-t", "0.3").status == 0
    done = command("scan", "--resume", "out.csv.checkpoint", "--engine", "packet", "-i", "lo")
    assert (done.status, "gone on with in the simulation" in done.err) == (2, True)


def test_runs_that_cannot_be_gone_on_with_say_so(tmp_path: Path) -> None:
    with pytest.raises(irl.ConfigError, match="no exchange"):
        irl.exchange("10.0.0.0/24", ports=80, engine="sim").write(tmp_path / "x.csv", checkpoint=tmp_path / "c")
    with pytest.raises(irl.ConfigError, match="name files"):
        irl.scan("10.0.0.0/24", ports=80, engine="sim").write("-", checkpoint=tmp_path / "c")
    listed = irl.scan(list_of_ips_file=b"10.0.0.1\n", ports=80, engine="sim")
    with pytest.raises(irl.ConfigError, match="standard input"):
        listed.write(tmp_path / "x.csv", checkpoint=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_signals_change_the_rate_in_flight(tmp_path: Path) -> None:
    scan = ["scan", "10.0.0.0/9", "-p", "80", "--engine", "sim", "-o", "o.csv", "--json", "-t", "20", "-u", "u.csv"]
    with start([*scan, "-r", "100k"], tmp_path) as process:
        wait_for_seconds(tmp_path / "u.csv", process, 1)
        for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGUSR2):
            process.send_signal(number)
            assert "The rate goes from" in (process.stderr.readline() if process.stderr else "")
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=10)
    document = json.loads(out)
    assert document["rate"] == pytest.approx(100_000 * 1.05 * 1.05 * 0.95)
    assert document["per_second"][-1]["rate"] == document["rate"]
    (tmp_path / "u.csv").unlink()
    with start([*scan, "-r", "0"], tmp_path) as process:
        wait_for_seconds(tmp_path / "u.csv", process, 1)
        process.send_signal(signal.SIGUSR1)
        said = process.stderr.readline() if process.stderr else ""
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    assert "searched for" in said
