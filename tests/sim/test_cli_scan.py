"""The commands `scan`, `demo`, `doctor` and `schema`, on the simulated link where they need one."""

import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

import irlstack as irl
from irlstack.cli.progress import COLUMNS
from tests.conftest import Command

IRLSTACK = [sys.executable, "-m", "irlstack"]
SIM = ["--engine", "sim", "-r", "0", "-c", "0.2", "-e", "1"]


def test_without_a_file_addresses_go_to_stdout() -> None:
    done = subprocess.run(
        [*IRLSTACK, "scan", "10.0.0.0/14", "-p", "80", *SIM], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) > 1000
    assert all(line.startswith("10.") and "," not in line for line in lines)


def test_an_output_module_decides_whatever_the_suffix(command: Command, tmp_path: Path) -> None:
    scan = ["scan", "10.0.0.0/14", "-p", "80", *SIM, "-q"]
    done = command(*scan, "-O", "json", "-o", "a.txt", "-o", "b.csv")
    assert done.status == 0, done.err
    assert (tmp_path / "a.txt").read_text() == (tmp_path / "b.csv").read_text()
    rows = [json.loads(line) for line in (tmp_path / "a.txt").read_text().splitlines()]
    found = {row["saddr"] for row in rows}
    assert len(found) > 100
    assert command(*scan, "-O", "parquet", "-o", "c").status == 0
    assert pl.read_parquet(tmp_path / "c").height == len(found)


def test_an_output_module_writes_to_stdout_too() -> None:
    scan = [*IRLSTACK, "scan", "10.0.0.0/14", "-p", "80", *SIM, "-q"]
    plain, csv, jsonl = (
        subprocess.run([*scan, *more], capture_output=True, text=True, check=True).stdout.splitlines()
        for more in ([], ["-O", "csv"], ["-O", "json"])
    )
    assert len(plain) > 1000
    assert sorted(csv) == sorted(["saddr", *plain])
    assert sorted(json.loads(line)["saddr"] for line in jsonl) == sorted(plain)


@pytest.mark.parametrize(
    ("more", "said"), [(["-O", "redis"], "csv, json"), (["-O", "parquet"], "name a file with --output-file")]
)
def test_an_output_module_that_cannot_be_is_refused_before_the_first_frame(
    command: Command, more: list[str], said: str
) -> None:
    done = command("scan", "10.0.0.0/14", "-p", "80", *SIM, *more)
    assert done.status == 2
    assert said in done.err


def test_dedup_methods_differ_in_what_they_do_with_repeats(command: Command, tmp_path: Path) -> None:
    def rows(method: str, *more: str) -> pl.DataFrame:
        scan = [
            "scan",
            "10.0.0.0/14",
            "-p",
            "80",
            *SIM,
            "-q",
            "-m",
            "meta.json",
            "-o",
            "out.parquet",
            "-f",
            "saddr,repeat",
        ]
        done = command(*scan, "--dedup-method", method, *more)
        assert done.status == 0, done.err
        document = json.loads((tmp_path / "meta.json").read_text())
        table = pl.read_parquet(tmp_path / "out.parquet")
        assert document["found"] == table["saddr"].n_unique()
        assert document["dedup_method"].startswith("window" if method == "window" else "exact")
        assert document["filter_duplicates"] is (method != "none")
        return table

    full, window, none = (rows(method) for method in ("full", "window", "none"))
    assert sorted(full["saddr"]) == sorted(window["saddr"]) == sorted(none["saddr"].unique())
    assert not full["repeat"].any()
    assert none["repeat"].sum() == none.height - full.height > 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--dedup-method", "full", "--max-memory", "4096"], "needs 65536 bytes"),
        (["--dedup-method", "bitmap"], "full"),
    ],
)
def test_a_dedup_method_that_cannot_be_is_refused(command: Command, more: list[str], said: str) -> None:
    done = command("scan", "10.0.0.0/14", "-p", "80", *SIM, *more)
    assert done.status == 2
    assert said in done.err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--reprobe", "-1"], "a whole number up to 65535"),
        (["--reprobe", "-1", "--dryrun"], "a number of passes from 0"),
        (["--reprobe", "65535"], "65536 probes of one target"),
        (["--reprobe", "1", "--dedup-method", "window"], "take another --dedup-method than window"),
        (["--reprobe", "1", "--max-memory", "4096"], "takes 65536 bytes: give --max-memory as much"),
        (["--reprobe", "some"], "--reprobe"),
    ],
)
def test_a_reprobe_that_cannot_be_is_refused(command: Command, more: list[str], said: str) -> None:
    done = command("scan", "10.0.0.0/14", "-p", "80", *SIM, *more)
    assert done.status == 2
    assert said in " ".join(done.err.split())


def test_a_dry_run_says_that_later_passes_are_not_in_its_counts(command: Command) -> None:
    done = command("scan", "10.0.0.0/24", "-p", "80", "-r", "1k", "-d", "--reprobe", "3")
    assert done.status == 0
    assert "probes       256\n" in done.err
    assert "reprobe      the silent, up to 3 times: up to 768 probes more" in done.err
    assert "reprobe" not in command("scan", "10.0.0.0/24", "-p", "80", "-r", "1k", "-d").err


def test_without_dedup_later_passes_know_who_is_silent_all_the_same(command: Command) -> None:
    more = ["--reprobe", "1", "--dedup-method", "none", "-m", "m.json", "-o", "o.csv"]
    assert command("scan", "10.0.0.0/14", "-p", "80", *SIM, *more).status == 0
    document = json.loads(Path("m.json").read_text())
    first, second = document["passes"]
    assert second["targets"] == second["sent"] == first["targets"] - first["answered"] < 1 << 18
    assert document["sent"] == first["sent"] + second["sent"]


def test_threads_are_bound_to_the_cores_in_turn() -> None:
    last = max(os.sched_getaffinity(0))
    run = irl.scan(
        "10.0.0.0/14", ports=80, engine="sim", rate=1000, cooldown_time=0, sender_threads=2, cores=[last], queue=1
    )
    with run:
        rows = iter(run)
        deadline = time.monotonic() + 10
        while (bound := _cpus_of_workers()) != [{last}, {last}]:
            assert time.monotonic() < deadline, bound
            time.sleep(0.01)
        del rows


def _cpus_of_workers() -> list[set[int]]:
    tasks = Path("/proc/self/task").iterdir()
    workers = [task for task in tasks if (task / "comm").read_text().startswith("irl-worker")]
    return [os.sched_getaffinity(int(task.name)) for task in workers]


@pytest.mark.parametrize(
    ("cores", "said"), [("99999", "99999 cannot be"), ("0,x", "'x' is no number"), ("0-1", "'0-1'")]
)
def test_cores_that_are_not_there_are_refused(command: Command, cores: str, said: str) -> None:
    done = command("scan", "10.0.0.0/16", "-p", "80", *SIM, "--cores", cores)
    assert done.status == 2
    assert said in done.err


def test_targets_come_from_a_list_and_from_a_list_on_standard_input(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(*targets: str) -> set[str]:
        done = command("scan", *targets, "-p", "80", *SIM, "-q", "-o", "out.csv", "-f", "saddr")
        assert done.status == 0, done.err
        return set((tmp_path / "out.csv").read_text().split()[1:])

    some = irl.PrefixSet("10.0.0.0/14")
    hosts = [str(some.select(rank)) for rank in range(0, some.count, 7)]
    expected = found("10.0.0.0/14") & set(hosts)
    assert len(expected) > 100
    lines = "".join(f"{host}\n" for host in hosts)
    (tmp_path / "hosts").write_text("# a comment\n" + lines)
    assert found("-I", "hosts") == expected
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    assert found("-I", "-") == expected
    twice = command("scan", "10.0.0.0/14", "-I", "-", "-p", "80", *SIM)
    assert twice.status == 2
    assert "not both" in twice.err


def test_metadata_is_the_last_line_of_stdout(tmp_path: Path) -> None:
    arguments = ["scan", "10.0.0.0/13", "-p", "80", *SIM, "-o", "out.parquet", "--json", "-m", "meta.json"]
    done = subprocess.run([*IRLSTACK, *arguments], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.count("\n") == 1
    document = json.loads(done.stdout)
    assert document == json.loads((tmp_path / "meta.json").read_text())
    assert document["found"] == pl.read_parquet(tmp_path / "out.parquet").height > 1000
    assert document["sent"] == 1 << 19
    assert document["engine"] == "sim"
    assert document["synthetic"] is True
    assert document["elapsed_s"] > 0
    assert document["seed_provided"] is True
    assert document["argv"][1:] == arguments
    assert document["plan_fingerprint"]
    assert "synthetic" in done.stderr


def test_a_plan_file_is_run_shard_by_shard_and_when_tells_the_second(command: Command) -> None:
    assert command("plan", "10.0.0.0/14", "-p", "80", "--shards", "2", "-r", "100k").status == 0
    scan = [
        "scan",
        "--plan",
        "plan.toml",
        "--shard",
        "1",
        "--engine",
        "sim",
        "-c",
        "0.2",
        "-m",
        "m.json",
        "-o",
        "o.csv",
    ]
    assert command(*scan).status == 0
    document = json.loads(Path("m.json").read_text())
    assert document["sent"] == 1 << 17
    plan = irl.Plan.load("plan.toml")
    rows = next(iter(plan.targets(first=60_000, count=1, shard=1))).to_pydict()
    address = irl.PrefixSet.all("ipv4").select(rows["address"][0])
    told = command("when", "plan.toml", f"{address}:80", "-m", "m.json")
    assert told.status == 0
    assert f"position {rows['position'][0]} of shard 1 of 2" in told.out
    probed = datetime.fromisoformat(told.out.split("before ")[1].strip())
    start = datetime.fromisoformat(document["send_start_time"])
    assert 0 < (probed - start).total_seconds() < 2
    assert "again" not in told.out
    assert command(*scan, "--reprobe", "2").status == 0
    first, *later = command("when", "plan.toml", f"{address}:80", "-m", "m.json").out.splitlines()
    assert len(later) == 2
    assert all(line.startswith("and again in the second before ") for line in later)
    assert first.split("before ")[1] < later[0].split()[6] <= later[1].split()[6]
    other = next(iter(plan.targets(count=1, shard=0))).to_pydict()["address"][0]
    absent = command("when", "plan.toml", f"{irl.PrefixSet.all('ipv4').select(other)}:80", "-m", "m.json")
    assert absent.status == 1
    assert "another shard" in absent.err


def test_status_updates_have_zmaps_columns_a_line_a_second(command: Command) -> None:
    done = command(
        "scan", "10.0.0.0/16", "-p", "80", "--engine", "sim", "-r", "40k", "-u", "s.csv", "-o", "o.csv", "-c", "0.2"
    )
    assert done.status == 0
    lines = Path("s.csv").read_text().splitlines()
    assert lines[0] == COLUMNS
    assert 2 <= len(lines) - 1 <= 4
    assert all(line.count(",") == COLUMNS.count(",") for line in lines)


def test_chosen_fields_and_all_rows(command: Command) -> None:
    arguments = ["-f", "saddr,classification,success", "--rows", "all", "-o", "o.csv"]
    assert command("scan", "10.0.0.0/13", "-p", "80", *SIM, *arguments).status == 0
    rows = pl.read_csv("o.csv")
    assert rows.columns == ["saddr", "classification", "success"]
    assert set(rows["classification"]) == {"synack", "rst", "icmp"}


def test_targets_come_from_standard_input(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "".join(irl.Plan("10.0.0.0/16", ports=80, seed=1).targets().lines()).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert command("scan", "-", *SIM, "-o", "o.csv", "-m", "m.json").status == 0
    assert json.loads(Path("m.json").read_text())["sent"] == 1 << 16


def test_ctrl_c_keeps_the_rows_and_exits_130(tmp_path: Path) -> None:
    scan = ["scan", "10.0.0.0/9", "-p", "80", "--engine", "sim", "-r", "200k", "-o", "o.csv", "--json"]
    with subprocess.Popen([*IRLSTACK, *scan], stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        deadline = time.monotonic() + 20
        while not (tmp_path / "o.csv").exists() or (tmp_path / "o.csv").stat().st_size < 10_000:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=10)
    assert process.returncode == 130
    document = json.loads(out)
    assert document["interrupted"] is True
    assert pl.read_csv(tmp_path / "o.csv").height == document["stats"]["rows"] > 100


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["9.9.9.0/24", "-p", "80"], 3, "--authorized"),
        (["-p", "80"], 3, "--contact"),
        (["9.9.9.9", "-p", "80", "-i", "nope"], 3, "globally reachable"),
        (["10.0.0.0/24", "-p", "80", "-r", "10", "--engine", "pigeon", "-i", "nope"], 2, "pigeon"),
        (["10.0.0.0/24", "-p", "80", *SIM, "-o", "absent/o.csv"], 2, "absent/o.csv"),
        (["10.0.0.0/24", "-p", "80", *SIM, "-o", "o.xlsx"], 2, "xlsx"),
        (["10.0.0.0/24", "-p", "80", *SIM, "-f", "address"], 2, "address"),
        (["10.0.0.0/24", "-p", "80", "--engine", "sim", "-c", "soon"], 2, "soon"),
        (["10.0.0.0/24", "-p", "80", *SIM, "--user-metadata", "{"], 2, "JSON"),
        (["10.0.0.0/24", "-p", "80", "--shards", "3", "--shard", "3", *SIM], 2, "0 to 2"),
        (["10.0.0.0/24", "-p", "80", *SIM, "-T", "0"], 2, "sender"),
        (["10.0.0.0/24", "-p", "80", *SIM, "-i", "va,va2"], 2, "no interface to choose"),
        (["10.0.0.0/24", "-p", "80", "-r", "10", "-i", "va,,va2"], 2, "no name"),
        (["10.0.0.0/24", "-p", "80", *SIM, "-G", "02:00:00:00:00:01"], 2, "gateway_mac"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_sent(
    command: Command, arguments: list[str], status: int, said: str
) -> None:
    done = command("scan", *arguments)
    assert (done.status, done.out) == (status, "")
    assert said in done.err
    assert "Traceback" not in done.err


def test_a_dry_run_needs_no_permission_and_sends_nothing(command: Command) -> None:
    done = command("scan", "0.0.0.0/0", "-p", "80-379", "-d")
    assert done.status == 0
    assert len(done.out.splitlines()) == 10
    assert "special-purpose" in done.err


def test_every_accepted_option_is_used_or_refused(command: Command) -> None:
    """An option that is unknown, or cannot mean what it is given, is not ignored."""
    for option in ("--resume", "--checkpoint", "--output-filter", "--reprobe", "--no-such-option"):
        assert command("scan", "10.0.0.0/24", "-p", "80", *SIM, option, "x").status == 2


def test_a_file_that_cannot_grow_ends_the_run_with_5_and_the_rows_until_then_are_kept(tmp_path: Path) -> None:
    bound = (100_000, 100_000)
    scan = [*IRLSTACK, "scan", "10.0.0.0/13", "-p", "80", *SIM, "-o", "o.csv", "--json"]
    done = subprocess.run(
        scan,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, bound),
    )
    assert done.returncode == 5, done.stderr
    assert "o.csv" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout)["error"]
    kept = (tmp_path / "o.csv").read_text().splitlines()
    assert len(kept) > 500


def test_the_demo_finds_everything(command: Command) -> None:
    done = command("demo", "--sim")
    assert done.status == 0
    assert done.out.startswith("sent ")
    assert done.out.endswith("missed 0 invented 0\n")


def test_doctor_tells_what_there_is(command: Command) -> None:
    done = command("doctor", "--json")
    assert done.status == 0
    report = json.loads(done.out)
    assert "sim" in report["engines"]
    assert report["versions"]["irlstack"] == irl.__version__
    assert all(check["fine"] or check["mend"] for check in report["checks"])
    plain = command("doctor")
    assert f"kernel      {os.uname().release}" in plain.out


def test_schemas_are_printed_with_their_version(command: Command) -> None:
    done = command("schema")
    assert done.out.startswith(f"scan, version {irl.SCHEMA_VERSION}")
    columns = json.loads(command("schema", "--json").out)
    assert [each["name"] for each in columns if each["default"]][:4] == ["saddr", "daddr", "sport", "dport"]
    assert json.loads(command("schema", "-6", "--json").out)[0]["type"] == "fixed_size_binary[16]"
    done = command("schema", "exchange")
    assert done.out.startswith(f"exchange, version {irl.EXCHANGE_SCHEMA_VERSION}")
    columns = json.loads(command("schema", "exchange", "--json").out)
    assert columns[0]["name"] == "saddr"
    assert columns[-1]["type"] == "binary"


def test_help_of_every_command_fits_80_columns(command: Command) -> None:
    for name in ("scan", "plan", "when", "lab", "lab up", "demo", "doctor", "schema"):
        done = command(*name.split(), "--help")
        assert done.status == 0
        assert max(map(len, done.out.splitlines())) <= 80
