"""ZMap's command lines run unchanged: only where they go, and how long, is said beside them."""

import json
import shlex
import subprocess
import sys
from datetime import datetime
from ipaddress import IPv4Address
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import Command

# What makes them harmless here, and short: in place of the network a synthetic one, and of all of IPv4 a part.
HERE = "--engine sim -c 0 10.2.64.0/19"
# As ZMap's pages, its README, its help and its wiki have them.
DOCUMENTED = [
    "zmap -p 80 -o results.csv 10.0.0.0/8 192.168.0.0/16",
    "zmap -p 80 10.0.0.0/8 192.168.0.0/16",
    "zmap -B 10M -p 80 -n 10000 -o results.csv",
    "zmap -p 80",
    "zmap -N 5 -B 10M -p 80",
    "zmap -p 80,100-102",
    "zmap -p 80 -o -",
    "zmap -p 80 --output-fields=* -o -",
    "zmap -M udp -p 137 --probe-args=file:examples/udp-probes/netbios_137.pkt",
    "zmap -p 443 -s 3 -n 1000000 -o results",
]
# Made up of its options, in its spelling.
LINES = [
    "zmap -p 80 -o results.csv",
    "zmap -p 443 -n 5000 -o results.csv",
    "zmap --target-ports=80,443 --max-targets=50% --rate=100000 --output-file=results.csv",
    "zmap -B 10M -p 80 -N 100 -o results.csv",
    'zmap -p 443 -O json --output-fields="saddr,daddr,sport,dport,classification" -o results.json',
    'zmap -p 80 --output-module=csv --output-fields="*" --output-filter="success = 1 && repeat = 0" -o results.csv',
    'zmap -p 80 -f "classification,saddr,success,repeat" --output-filter="success = 1 || success = 0" -o results.csv',
    "zmap --probe-module=icmp_echoscan -P 2 -r 50000 -o results.csv",
    "zmap -M udp -p 53 --probe-args=text:hello -o results.csv",
    "zmap -M udp -p 5632 --probe-args=hex:02 --output-fields=saddr,data -o results.csv",
    "zmap -p 80 --seed=5 --shards=3 --shard=1 -o results.csv",
    "zmap -p 80 -w allow.txt -b deny.txt -q -u status.csv -m metadata.json -l zmap.log -o results.csv",
    "zmap -p 80 -T 2 --cores=0,1 --cooldown-time=1 --max-runtime=1 -S 198.18.0.10 -s 50000-60000 -o results.csv",
    "zmap -p 22 --dedup-method=full --probe-ttl=64 --max-sendto-failures=10 --retries=2 --notes=x -o results.csv",
]


def run(command: Command, line: str) -> list[str]:
    name, *arguments = shlex.split(line)
    assert name == "zmap"
    here = shlex.split(HERE)
    if "-w" in arguments:
        here.pop()
    if any(each.startswith("--cooldown-time") for each in arguments):
        here = [each for each in here if each not in ("-c", "0")]
    done = command("scan", *arguments, *here)
    assert done.status == 0, done.err
    (rows,) = (each for each in Path().iterdir() if each.name.startswith("results"))
    return rows.read_text().splitlines()


@pytest.mark.parametrize("line", DOCUMENTED)
def test_a_line_of_zmaps_documentation_runs_unchanged(tmp_path: Path, line: str) -> None:
    payload = tmp_path / "examples/udp-probes/netbios_137.pkt"
    payload.parent.mkdir(parents=True)
    payload.write_bytes(b"\x80\xf0\x00\x10")
    arguments = shlex.split(line)[1:]
    here = ["--engine", "sim", "-c", "0", *(["-t", "1"] if "10.0.0.0/8" in arguments else ["10.2.64.0/19"])]
    scan = [sys.executable, "-m", "irlstack", "scan", *arguments, *here]
    done = subprocess.run(scan, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    files = [path for path in tmp_path.iterdir() if path.name.startswith("results")]
    rows = files[0].read_text().splitlines() if files else done.stdout.splitlines()
    assert len(rows) >= 5


@pytest.mark.parametrize("line", LINES)
def test_a_command_line_of_zmap_runs_unchanged(command: Command, line: str) -> None:
    Path("allow.txt").write_text("10.2.64.0/18\n")
    Path("deny.txt").write_text("10.2.70.0/24 # do not\n")
    assert len(run(command, line)) > 20


def test_they_do_what_zmap_does(command: Command, tmp_path: Path) -> None:
    assert len(run(command, LINES[3])) <= 1 + 100, "at most so many results"
    (tmp_path / "results.csv").unlink()
    objects = [json.loads(line) for line in run(command, LINES[4])]
    assert all(list(each) == ["saddr", "daddr", "sport", "dport", "classification"] for each in objects)
    assert {each["sport"] for each in objects} == {443}
    (tmp_path / "results.json").unlink()
    everything = run(command, LINES[6])
    assert everything[0] == "classification,saddr,success,repeat"
    table = pl.read_csv(tmp_path / "results.csv")
    assert set(table["classification"]) == {"synack", "rst", "icmp"}, "the filter lets failures through"
    assert table["repeat"].sum() > 0, "and repeats"
    (tmp_path / "results.csv").unlink()
    filtered = run(command, LINES[5])
    assert len(filtered) - 1 == table.filter((pl.col("success") == 1) & (pl.col("repeat") == 0)).height


def test_a_filter_may_name_what_is_no_column_and_what_is_wrong_is_said_first(command: Command, tmp_path: Path) -> None:
    scan = ["scan", "10.0.0.0/14", "-p", "80", "--engine", "sim", "-r", "0", "-c", "0", "-o", "rows.csv", "--json"]
    done = command(*scan, "-f", "saddr", "--output-filter", "classification = rst && ttl > 10 || (saddr = 10.2.81.7)")
    assert done.status == 0, done.err
    document = json.loads(done.out.splitlines()[-1])
    rows = (tmp_path / "rows.csv").read_text().splitlines()
    assert rows[0] == "saddr"
    assert "10.2.81.7" in rows
    assert len(rows) - 1 == document["stats"]["rows"] > 300
    assert document["output_filter"].startswith("classification = rst")
    (tmp_path / "rows.csv").unlink()
    for wrong, why in (("succes = 1", "character 1"), ("success = 1 &&", "at its end"), ("ttl = high", "whole number")):
        done = command(*scan, "--output-filter", wrong)
        assert (done.status, why in " ".join(done.err.split())) == (2, True), done.err
        assert not (tmp_path / "rows.csv").exists()
    done = command(*scan, "--rows", "all", "--output-filter", "success = 1")
    assert done.status == 2
    assert "give one of them" in " ".join(done.err.split())


@pytest.mark.parametrize("probe", ["tcp_synscan", "icmp_echoscan", "udp"])
def test_zmaps_other_fields_are_there_in_every_format(command: Command, tmp_path: Path, probe: str) -> None:
    ports = [] if probe == "icmp_echoscan" else ["-p", "53"]
    outputs = ["-o", "rows.csv", "-o", "rows.jsonl", "-o", "rows.parquet"]
    done = command(
        "scan",
        "10.2.0.0/16",
        *ports,
        "-M",
        probe,
        *shlex.split(HERE)[:-1],
        "-r",
        "0",
        "--rows",
        "all",
        "-f",
        "*",
        *outputs,
    )
    assert done.status == 0, done.err
    table = pl.read_parquet(tmp_path / "rows.parquet").rows(named=True)
    texts = pl.read_csv(tmp_path / "rows.csv", infer_schema=False).rows(named=True)
    objects = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(table) == len(texts) == len(objects) > 100
    errors = 0
    for row, text, each in zip(table, texts, objects, strict=True):
        dotted = str(IPv4Address(row["saddr"]))
        assert text["saddr"] == each["saddr"] == dotted
        # What ZMap has in a uint32 of a little-endian machine.
        assert row["saddr_raw"] == int(text["saddr_raw"]) == each["saddr_raw"]
        assert row["saddr_raw"].to_bytes(4, "little") == IPv4Address(dotted).packed
        instant = datetime.strptime(text["timestamp_str"], "%Y-%m-%dT%H:%M:%S.%f%z")
        assert int(instant.timestamp()) == row["timestamp_ts"] == each["timestamp_ts"]
        assert row["timestamp_us"] // 1000 == instant.microsecond // 1000
        assert (row["icmp_responder"] is None) == (text["icmp_responder"] is None) == (each["icmp_responder"] is None)
        if row["icmp_responder"] is not None:
            errors += 1
            assert each["icmp_responder"] == str(IPv4Address(row["icmp_responder"]))
            assert row["icmp_type"] == 3
        if probe == "udp":
            assert row["udp_pkt_size"] == (None if row["data"] is None else 8 + len(row["data"]))
        if probe == "icmp_echoscan":
            assert (row["type"], row["code"], row["icmp_id"], row["seq"]) == (0, 0, row["dport"], row["seqnum"])
            assert len(row["data"]) == 16
    assert (errors > 0) == (probe != "icmp_echoscan"), "hosts of this World answer echo requests or are silent"
