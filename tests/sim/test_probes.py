"""Probes beside those of every scan: what they find is what is there, and what a program makes of answers is kept."""

import pickle
import struct
import subprocess
import sys
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import irlstack as irl

WORLD = irl.World(seed=1)
RANGES = {"ipv4": "10.0.0.0/13", "ipv6": "fd00::/109"}
ADDRESS = {"ipv4": "10.9.8.7", "ipv6": "fd00::7"}
PROBES: dict[str, dict[str, Any]] = {
    "tcp_synackscan": {"ports": 80},
    "dns": {"ports": 53, "probe_args": {"question": "AAAA,example.com"}},
    "ntp": {"ports": 123},
    "udp": {"ports": 53, "probe_args": {"template": "${DADDR}:${DPORT} ${RAND_ALPHANUM=8}"}},
}


def scan(plan: irl.Plan, **options: object) -> irl.Run:
    given = {"engine": "sim", "world": WORLD, "cooldown_time": 0.2} | options
    return irl.scan(plan=plan, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("family", RANGES)
def test_nothing_is_missed_and_nothing_invented(family: str, probe: str) -> None:
    plan = irl.Plan(RANGES[family], probe_module=probe, rate=0, seed=7, **PROBES[probe])
    run = scan(plan, rows="all")
    check = WORLD.check(plan, list(run), rows="all")
    assert check["missed"] == check["invented"] == 0
    assert check["answered"] > 1000
    assert check["found"] == run.stats["found"]
    # An echo of a question is no response to it.
    assert (check["found"] > 1000) == (probe not in ("dns", "ntp"))
    assert run.summary["imbalances"] == []


@pytest.mark.parametrize("family", RANGES)
def test_a_template_comes_back_as_the_plan_says_it_went(family: str) -> None:
    plan = irl.Plan(RANGES[family], probe_module="udp", rate=0, seed=7, max_targets=1 << 16, **PROBES["udp"])
    source = {"ipv4": "198.18.0.10", "ipv6": "fd00:18::10"}[family]
    again = irl.Plan.from_toml(plan.to_toml().replace("sources = []", f'sources = ["{source}"]'))
    rows = pl.DataFrame(scan(plan, output_fields=["data"]))
    sent = {frame[42 if family == "ipv4" else 62 :] for frame in again.frames(1000)}
    assert len(rows) > 100
    assert all(b":53 " in data and len(data.split()[1]) == 8 for data in rows["data"])
    assert len(sent) == 1000


def level(batch: irl.Batch) -> dict[str, Any]:
    """The first byte behind the cookie, and how long the payload is."""
    table = pa.table(batch)
    heads = pc.binary_slice(table["data"], 4, 5)
    return {
        "level": pa.array([None if head is None else head[0] for head in heads.to_pylist()], pa.uint8()),
        "size": pc.binary_length(table["data"]),
    }


def pong(parse: object = level, **changed: object) -> irl.Probe:
    declared: dict[str, Any] = {
        "protocol": "udp",
        "template": bytes(4) + b"\x2aping",
        "patches": ["payload[0:4] = cookie"],
        "match": ["+pong: payload[0:4] == cookie, payload[4] == 42", "other:"],
        "fields": ["level uint8", "size int64"],
        "parse": parse,
    }
    return irl.Probe("pong", **(declared | changed))


def plan_of(probe: irl.Probe, family: str = "ipv4", **options: object) -> irl.Plan:
    given: dict[str, Any] = {"ports": 53, "rate": 0, "seed": 7} | options
    return irl.Plan(RANGES[family], probe_module=probe, **given)


@pytest.mark.parametrize("family", RANGES)
def test_a_probe_of_ones_own_finds_who_is_there_and_its_program_sees_every_answer(family: str) -> None:
    plan = plan_of(pong(), family)
    run = scan(plan, rows="all")
    rows = pl.DataFrame(run)
    echo = irl.Plan(RANGES[family], probe_module="udp", ports=53, rate=0, seed=7)
    truth = pl.DataFrame(scan(echo, rows="all"))
    names = {"pong": "udp", "icmp": "icmp"}
    mine = set(zip(rows["saddr"], rows["classification"].replace_strict(names), strict=True))
    assert mine == set(zip(truth["saddr"], truth["classification"], strict=True))
    assert run.stats["found"] == (truth["classification"] == "udp").sum() > 1000
    made = rows.filter(pl.col("success"))
    assert made["level"].unique().to_list() == [42]
    assert made["size"].unique().to_list() == [9]
    assert rows.filter(~pl.col("success"))["level"].null_count() == (~rows["success"]).sum()
    assert rows.columns[-2:] == ["level", "size"]
    assert rows.schema["level"] == pl.UInt8
    assert run.summary["imbalances"] == []


def test_a_syn_ack_scan_of_ones_own_and_the_built_in_find_the_same() -> None:
    header = bytes(12) + struct.pack("!BBHHH", 0x50, 0x12, 0xFFFF, 0, 0)
    probe = irl.Probe(
        "mine",
        protocol="tcp",
        template=header,
        patches=["transport[8:4] = cookie"],
        match=["+rst: transport[13] & 0x04 == 0x04, transport[4:4] == cookie"],
    )
    plan = irl.Plan(RANGES["ipv4"], ports=80, probe_module=probe, rate=0, seed=7)
    rows = pl.DataFrame(scan(plan, output_fields=["saddr", "data"]))
    built_in = irl.Plan(RANGES["ipv4"], ports=80, probe_module="tcp_synackscan", rate=0, seed=7)
    assert set(rows["saddr"]) == set(pl.DataFrame(scan(built_in))["saddr"])
    assert rows["data"].unique().to_list() == [b""]


def test_what_a_program_makes_is_written_whatever_the_format(tmp_path: Path) -> None:
    plan = plan_of(pong(), max_targets=1 << 16)
    files = [tmp_path / "out.parquet", tmp_path / "out.csv", tmp_path / "out.jsonl"]
    scan(plan, output_fields=["saddr", "size", "sport", "level"]).write(*files)
    table = pq.read_table(files[0])
    assert table.column_names == ["saddr", "size", "sport", "level"]
    assert table.schema.field("level").type == pa.uint8()
    csv = pl.read_csv(files[1])
    assert csv.columns == table.column_names
    assert csv["level"].to_list() == table["level"].to_pylist() == pl.read_ndjson(files[2])["level"].to_list()
    assert len(csv) > 100


def lists(batch: irl.Batch) -> dict[str, list[Any]]:
    payloads = batch.to_pydict()["data"]
    return {"level": [None if data is None else data[4] for data in payloads], "size": list(map(len, payloads))}


def frame(batch: irl.Batch) -> pl.DataFrame:
    return pl.DataFrame(batch).select(level=pl.lit(42), size=pl.col("data").bin.size())


@pytest.mark.parametrize("parse", [lists, frame])
def test_a_program_may_return_lists_or_a_table(parse: object) -> None:
    rows = pl.DataFrame(scan(plan_of(pong(parse), max_targets=1 << 16), output_fields=["level", "size"]))
    assert rows.unique().rows() == [(42, 9)]


def raises(_: irl.Batch) -> dict[str, Any]:
    raise ZeroDivisionError("of the test")


BROKEN: dict[str, tuple[Any, str]] = {
    "raises": (raises, "it raised ZeroDivisionError: of the test .*test_probes.py"),
    "is short": (lambda _: {"level": [1], "size": [1]}, "has 1 values where the batch has"),
    "is of another type": (lambda batch: {"level": ["x"] * len(batch), "size": [1] * len(batch)}, "level cannot have"),
    "does not fit": (lambda batch: {"level": pa.array([300] * len(batch)), "size": [1] * len(batch)}, "is not UInt8"),
    "lacks a field": (lambda batch: {"level": [1] * len(batch)}, "made no column size"),
    "is nothing": (lambda _: None, "return a dict of columns by name, or a table"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_a_broken_program_makes_is_an_error_and_no_row_is_lost(case: str, tmp_path: Path) -> None:
    parse, reason = BROKEN[case]
    plan = plan_of(pong(parse), max_targets=1 << 16)
    out = tmp_path / "out.parquet"
    run = scan(plan)
    with pytest.raises(irl.ConfigError, match=rf"parse of the probe pong failed: .*{reason}"):
        run.write(out)
    rows = pl.read_parquet(out)
    assert len(rows) == run.stats["rows"] > 0
    assert rows["level"].null_count() == len(rows)
    assert "parse of the probe pong failed" in run.summary["error"]
    got: list[irl.Batch] = []
    again = scan(plan)
    with pytest.raises(irl.ConfigError, match=reason):
        got.extend(again)
    assert sum(map(len, got)) == again.stats["rows"] > 0


def test_a_program_that_breaks_later_keeps_what_it_made() -> None:
    calls = []

    def once(batch: irl.Batch) -> dict[str, Any]:
        calls.append(len(batch))
        return level(batch) if len(calls) == 1 else raises(batch)

    got: list[irl.Batch] = []
    with pytest.raises(irl.ConfigError, match="of the test"):
        got.extend(scan(plan_of(pong(once), rate=500_000)))
    assert len(calls) == 2
    assert got[0].to_pydict()["level"] == [42] * calls[0]
    assert got[1].to_pydict()["level"] == [None] * calls[1]


def test_a_probe_of_ones_own_is_part_of_its_plan(tmp_path: Path) -> None:
    probe = pong()
    plan = plan_of(probe)
    for value in (probe, plan):
        again = pickle.loads(pickle.dumps(value))  # noqa: S301
        assert again == value
        assert again.parse is level
    assert irl.Probe.resolve(plan.probe_module, plan.probe_args) == probe
    other = plan_of(pong(template=bytes(4) + b"\x2aping!"), secret=bytes(16))
    assert other.fingerprint() != plan_of(pong(), secret=bytes(16)).fingerprint()
    plan.save(tmp_path / "plan.toml")
    loaded = irl.Plan.load(tmp_path / "plan.toml")
    assert loaded == plan
    assert loaded.parse is None
    # Without its program a plan's answers are rows all the same, with the payload to look at.
    rows = pl.DataFrame(scan(loaded, output_fields=["saddr", "classification", "data"]))
    assert rows["classification"].unique().to_list() == ["pong"]
    made = pl.DataFrame(scan(irl.Plan.load(tmp_path / "plan.toml", level)))
    assert set(made["saddr"]) == set(rows["saddr"])
    assert "level" in made.columns


def test_declarations_that_cannot_work_are_refused_in_words() -> None:
    for changed, reason in (
        ({"patches": ["payload[1:4] = cookie"]}, "odd"),
        ({"patches": ["payload[8:4] = cookie"]}, "ends at byte"),
        ({"template": bytes(2000)}, "room for 1452"),
        ({"fields": ["ttl uint8"]}, "name of another column"),
        ({"fields": []}, "declares no fields"),
        ({"parse": 7}, "can be called"),
    ):
        with pytest.raises(irl.ConfigError, match=reason):
            pong(**changed)  # type: ignore[arg-type]
    tcp = {"protocol": "tcp", "template": bytes(12) + b"\x50\x10" + bytes(6), "match": ["+rst: transport[13] & 4 == 4"]}
    with pytest.raises(irl.ConfigError, match="no patch writes the cookie"):
        irl.Probe("mine", **tcp)  # type: ignore[arg-type]
    with pytest.raises(irl.ConfigError, match="probe_args cannot be given beside it"):
        plan_of(pong(), probe_args={"text": "x"})
    assert "level" not in pl.DataFrame(scan(plan_of(pong(None), max_targets=4096))).columns


def test_the_command_line_lists_probes_and_what_templates_take(tmp_path: Path) -> None:
    def said(*arguments: str) -> str:
        command = [sys.executable, "-m", "irlstack", "scan", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    listed = said("--list-probe-modules")
    assert [line.split()[0] for line in listed.splitlines()] == irl.Probe.names()
    assert all(len(line) <= 80 for line in listed.splitlines())
    assert "${RAND_DIGIT}" in said("--probe-args", "template-fields")
    (tmp_path / "template").write_bytes(b"\xff${DADDR_N}")
    asked = ("10.0.0.0/13", "-p", "53", "-M", "udp", "-e", "7", "--engine", "sim", "-r", "0", "-c", "0.2")
    rows = said(*asked, "--probe-args", f"template:{tmp_path / 'template'}", "-f", "saddr,data").splitlines()[1:]
    assert len(rows) > 1000
    assert all(data == "ff" + IPv4Address(address).packed.hex() for address, data in (row.split(",") for row in rows))
