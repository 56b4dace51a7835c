"""`irlstack report`: every number on the page against the rows, counted here in another way; and the map."""

import json
import math
import subprocess
import sys
import tracemalloc
import xml.etree.ElementTree as ElementTree
from collections import Counter
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import irlstack as irl
from irlstack.lab.topology import Impairment
from irlstack.report.hilbert import curve
from irlstack.report.rows import RowsFile
from irlstack.report.tally import QUANTILES, count
from tests.conftest import Command

XHTML = "{http://www.w3.org/1999/xhtml}"
FORMATS = ("parquet", "csv", "jsonl")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of two ports and all answers, on a link that loses some, in every format."""
    folder = tmp_path_factory.mktemp("run")
    made = irl.scan(
        "10.0.0.0/13",
        ports=[80, 443],
        engine="sim",
        rate=0,
        seed=1,
        cooldown_time=0.3,
        rows="all",
        reprobe=1,
        impairment=Impairment(loss=0.05),
    )
    summary = made.write(*(folder / f"out.{suffix}" for suffix in FORMATS))
    (folder / "meta.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture(scope="module")
def ipv6(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an IPv6 run."""
    folder = tmp_path_factory.mktemp("ipv6")
    made = irl.scan("fd00:10::/110", probe_module="icmp_echoscan", engine="sim", rate=0, seed=1, cooldown_time=0.3)
    (folder / "meta.json").write_text(json.dumps(made.write(*(folder / f"out.{suffix}" for suffix in FORMATS))))
    return folder


def numbers(page: Path) -> dict[str, float]:
    """The numbers of a page by name; reading it as XML fails at anything that is not closed or escaped."""
    root = ElementTree.fromstring(page.read_text(encoding="utf-8"))
    found = {each.attrib["data-name"]: float(each.attrib["value"]) for each in root.iter(f"{XHTML}data")}
    assert found
    return found


def views(page: Path) -> dict[str, Any]:
    """The maps in a page."""
    root = ElementTree.fromstring(page.read_text(encoding="utf-8"))
    text = next(each.text for each in root.iter(f"{XHTML}script") if each.attrib.get("id") == "map-data")
    return json.loads(text or "")


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_number_is_what_rows_and_metadata_say(command: Command, run: Path, tmp_path: Path, suffix: str) -> None:
    given = [run / "out.parquet"] if suffix == "parquet" else [run / "meta.json", run / f"out.{suffix}"]
    assert command("report", *given, "-o", "page.html").status == 0
    shown = numbers(tmp_path / "page.html")
    document = json.loads((run / "meta.json").read_text())
    rows = pl.read_parquet(run / "out.parquet")
    found = rows.filter(pl.col("success") & ~pl.col("repeat"))
    times = rows["rtt"].drop_nulls().sort().to_list()

    expected = {
        "rows": rows.height,
        "found": found.height,
        "answered": rows.select("saddr", "sport").n_unique(),
        "row_repeats": rows["repeat"].sum(),
        "rtt:count": len(times),
        "rtt:absent": rows["rtt"].null_count(),
        "rtt:least": times[0],
        "rtt:most": times[-1],
        "seconds_sent": document["sent"],
        "seconds_found": document["found"],
        "seconds_lost": document["per_second"][-1]["lost"],
        "stage:rows_lost": 0,
    }
    expected |= {f"rtt:{share:g}": times[math.ceil(share * len(times)) - 1] for share in QUANTILES}
    for name, column, of in (
        ("class", "classification", rows),
        ("port", "sport", found),
        ("probe", "probe_num", rows),
    ):
        expected |= {f"{name}:{key}": n for key, n in Counter(of[column].to_list()).items()}
    by_cell = Counter(int(address) >> 8 for address in found["saddr"])
    cells = {name: value for name, value in shown.items() if name.startswith("prefix:")}
    assert sorted(cells.values()) == sorted(sorted(by_cell.values())[-len(cells) :])
    for name, value in cells.items():
        assert value == by_cell[int(ip_network(name.removeprefix("prefix:")).network_address) >> 8]

    flags = {name: value for name, value in shown.items() if name.startswith("flag:")}
    # Two ports each.
    assert sorted(flags.values()) == sorted(n for n in by_cell.values() if n >= 0.9 * 512)
    cells |= flags
    stats = document["stats"]
    expected |= {"targets": stats["targets"], "probes_sent": stats["probes_sent"]}
    expected |= {name: document[name] for name in ("hitrate", "send_s", "send_rate")}
    expected |= {"elapsed_s": document["per_second"][-1]["elapsed_s"]}
    for each in document["passes"]:
        expected |= {f"pass:{each['pass']}:{name}": each[name] for name in ("targets", "sent", "found", "answered")}
    stages = {name for name in shown if name.startswith("stage:") and name != "stage:rows_lost"}
    expected |= {name: stats[name.removeprefix("stage:")] for name in stages}
    assert len(stages) > 15
    assert shown == expected | cells


def test_the_account_of_answers_adds_up_to_what_was_received(command: Command, run: Path, tmp_path: Path) -> None:
    command("report", run / "out.parquet", "-o", "page.html")
    shown = numbers(tmp_path / "page.html")
    parts = ("rows", "repeats", "unselected", "not_ours", "invalid", "neighbours", "fragments")
    assert shown["stage:received"] == sum(shown[f"stage:{name}"] for name in parts) == shown["rows"]


def test_the_page_needs_nothing_else(command: Command, run: Path, tmp_path: Path) -> None:
    command("report", run / "out.parquet", "-o", "page.html")
    root = ElementTree.fromstring((tmp_path / "page.html").read_text(encoding="utf-8"))
    links = [
        value
        for each in root.iter()
        for name, value in each.attrib.items()
        if name in ("src", "href", "{http://www.w3.org/1999/xlink}href")
    ]
    assert all(link.startswith("data:image/png;base64,") for link in links)
    style = "".join(each.text or "" for each in root.iter() if each.tag.endswith("}style"))
    assert "prefers-color-scheme" in style
    assert "@import" not in style
    assert "http" not in style


def test_what_a_run_says_cannot_break_out_of_the_page(command: Command, run: Path, tmp_path: Path) -> None:
    document = json.loads((run / "meta.json").read_text())
    document["notes"] = document["contact"] = evil = "</script><script>alert('&')</script>"
    (tmp_path / "meta.json").write_text(json.dumps(document))
    assert command("report", "meta.json", run / "out.csv").status == 0
    text = (tmp_path / "meta.html").read_text()
    assert evil not in text
    assert "alert" in "".join(ElementTree.fromstring(text).itertext())


def test_metadata_alone_make_a_page_that_says_what_is_missing(command: Command, run: Path, tmp_path: Path) -> None:
    assert command("report", run / "meta.json", "-o", "page.html").status == 0
    shown = numbers(tmp_path / "page.html")
    assert "rows" not in shown
    assert shown["found"] == json.loads((run / "meta.json").read_text())["found"]
    assert "Without the file of its rows" in (tmp_path / "page.html").read_text()


def test_rows_of_another_run_are_noticed(command: Command, run: Path, ipv6: Path, tmp_path: Path) -> None:
    assert command("report", run / "meta.json", ipv6 / "out.parquet", "-o", "page.html").status == 0
    assert "is it this run" in (tmp_path / "page.html").read_text()


def test_the_maps_of_a_page_hold_every_address_once_a_level(command: Command, run: Path, tmp_path: Path) -> None:
    command("report", run / "out.parquet", "-o", "page.html")
    data = views(tmp_path / "page.html")
    assert data["views"][data["first"]]["prefix"] == "10.0.0.0/8"
    assert {len(key) for key in data["views"]} == {0, 2, 4}
    tally = count(RowsFile(run / "out.parquet"))
    rows = pl.read_parquet(run / "out.parquet").filter(pl.col("success") & ~pl.col("repeat"))
    for length in (0, 8, 16):
        chosen = [view for view in tally.views if view.prefix.prefixlen == length]
        assert sum(int(view.counts.sum()) for view in chosen) == rows.height
        for view in chosen:
            start = int(view.prefix.network_address)
            inside = [(int(address) - start) >> (16 - length) for address in rows["saddr"] if address >= start]
            assert view.counts.tolist() == np.bincount([at for at in inside if at < 65536], minlength=65536).tolist()


def test_ipv6_maps_begin_where_the_addresses_part(command: Command, ipv6: Path, tmp_path: Path) -> None:
    for suffix in FORMATS:
        assert command("report", ipv6 / "meta.json", ipv6 / f"out.{suffix}", "-o", f"{suffix}.html").status == 0
    data = views(tmp_path / "parquet.html")
    assert next(each["prefix"] for each in data["views"].values()) == "fd00:10::/104"
    assert views(tmp_path / "csv.html") == views(tmp_path / "jsonl.html") == data
    shown = irl.report.hilbert(ipv6 / "out.parquet")
    rows = pl.read_parquet(ipv6 / "out.parquet")
    assert str(shown.prefix) == "fd00:10::/104"
    assert shown.counts.sum() == rows.height
    lowest = min(IPv6Address(each) for each in rows["saddr"])
    narrow = irl.report.hilbert(ipv6 / "out.csv", "fd00:10::/112")
    assert narrow.counts.sum() == sum(IPv6Address(each) in narrow.prefix for each in rows["saddr"])
    assert lowest in narrow.prefix


def test_a_prefix_can_be_asked_for(command: Command, run: Path, tmp_path: Path) -> None:
    assert command("report", run / "out.parquet", "-o", "page.html", "--prefix", "10.2.0.0/16").status == 0
    data = views(tmp_path / "page.html")
    assert data["views"][data["first"]]["prefix"] == "10.2.0.0/16"
    for wrong, said in (("10.0.0.0/12", "divisible by 8"), ("10.0.0.1/8", "host bits"), ("fd00::/8", "other address")):
        done = command("report", run / "out.parquet", "--prefix", wrong)
        assert done.status == 2
        assert said in " ".join(done.err.split())


def test_the_curve_visits_neighbours_and_prefixes_are_squares() -> None:
    x, y = curve(8)
    assert len({*zip(x.tolist(), y.tolist(), strict=True)}) == 65536
    assert (abs(np.diff(x)) + abs(np.diff(y)) == 1).all()
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 255, 0)
    wide_x, wide_y = curve(4)
    steps = np.arange(65536)
    assert (x >> 4 == wide_x[steps >> 8]).all()
    assert (y >> 4 == wide_y[steps >> 8]).all()


def test_a_hilbert_map_of_addresses_counts_them_where_they_belong() -> None:
    addresses = np.array([int(IPv4Address(each)) for each in ("0.0.0.1", "0.0.9.9", "0.1.0.0", "255.255.0.1")], "u4")
    shown = irl.report.hilbert(addresses)
    picture = np.asarray(shown)
    assert picture.shape == (256, 256)
    # Upper left, one to the right, upper right.
    assert (picture[0, 0], picture[0, 1], picture[0, 255], picture.sum()) == (2, 1, 1, 4)
    drawing = ElementTree.fromstring(shown.svg())
    assert drawing.attrib["aria-label"] == "Answers by /16 in 0.0.0.0/0"
    assert repr(shown) == "<HilbertMap of 0.0.0.0/0: 4 answers by /16>"
    assert irl.report.hilbert(pl.DataFrame({"saddr": addresses}), "0.1.0.0/16").counts.sum() == 1
    nobody = irl.report.hilbert(addresses, "10.0.0.0/8")
    assert "nobody answered here" in nobody.svg()
    with pytest.raises(irl.ConfigError, match="uint32"):
        irl.report.hilbert(np.array([0.5]))
    with pytest.raises(irl.ConfigError, match="no column saddr"):
        irl.report.hilbert(pl.DataFrame({"address": addresses}))


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    schema = pa.schema([("saddr", pa.uint32()), ("success", pa.bool_()), ("rtt", pa.int64())])
    peaks = []
    for groups in (2, 12):
        path = tmp_path / f"{groups}.parquet"
        with pq.ParquetWriter(path, schema) as writer:
            for group in range(groups):
                numbers = np.arange(group << 18, group + 1 << 18, dtype="int64")
                columns = [numbers.astype("u4") * np.uint32(2654435761), np.ones(len(numbers), bool), numbers]
                writer.write_table(pa.table(columns, schema=schema))
        tracemalloc.start()
        tally = count(RowsFile(path))
        total = groups << 18
        assert tally.rows == total
        assert tally.round_trips is not None
        # The times are the numbers from 0 on.
        assert tally.round_trips.quantiles == {share: math.ceil(share * total) - 1 for share in QUANTILES}
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] < 250 << 20


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["absent"], "absent: No such file"),
        (["words"], "words is not the metadata of a run"),
        (["other.json"], "other.json is not the metadata of a run"),
        (["bare.parquet"], "--metadata-file"),
        (["meta.json", "words"], "no column saddr"),
        (["meta.json", "empty"], "no part-*.parquet"),
    ],
)
def test_what_is_no_run_is_refused(
    command: Command, run: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "words").write_text("port,state\n80,open\n")
    (tmp_path / "other.json").write_text("[1, 2]")
    (tmp_path / "meta.json").write_text((run / "meta.json").read_text().replace('"saddr", ', ""))
    (tmp_path / "empty").mkdir()
    pq.write_table(pa.table({"saddr": [1]}), tmp_path / "bare.parquet")
    done = command("report", *arguments)
    assert done.status == 2
    assert said in " ".join(done.err.split())
    assert not list(tmp_path.glob("*.html"))


def test_parts_of_a_run_that_broke_off_are_rows_too(run: Path, tmp_path: Path) -> None:
    parts = tmp_path / "out.parquet.parts"
    parts.mkdir()
    table = pq.read_table(run / "out.parquet")
    pq.write_table(table.slice(0, 1000), parts / "part-000000.parquet")
    pq.write_table(table.slice(1000, 500), parts / "part-000001.parquet")
    (parts / "open.tmp").write_bytes(b"PAR1")
    assert count(RowsFile(parts)).rows == 1500


def test_no_rows_at_all_are_a_report_too(command: Command, run: Path, tmp_path: Path) -> None:
    for name, text in (("a.csv", (run / "out.csv").read_text().splitlines()[0] + "\n"), ("b.jsonl", ""), ("c.csv", "")):
        (tmp_path / name).write_text(text)
        done = command("report", run / "meta.json", name, "-o", f"{name}.html")
        assert done.status == 0, done.err
        assert numbers(tmp_path / f"{name}.html")["rows"] == 0


def test_a_missing_package_is_named_with_the_extra() -> None:
    script = "import sys; sys.modules['pyarrow'] = None; import irlstack.cli; print(irlstack.cli.main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", script, "report", __file__], capture_output=True, text=True, check=True
    )
    assert "is not the metadata" in done.stderr
    script = "import sys; sys.modules['numpy'] = None; import irlstack as irl; irl.report.hilbert([1])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "pip install 'irlstack[report]'" in done.stderr


def test_an_exchange_has_a_report_too(command: Command, tmp_path: Path) -> None:
    run = irl.exchange("10.4.0.0/16", ports=80, request=b"hello", engine="sim", rate=0, seed=1, cooldown_time=0.3)
    summary = run.write(*(tmp_path / f"out.{suffix}" for suffix in FORMATS))
    (tmp_path / "meta.json").write_text(json.dumps(summary))
    rows = pl.read_parquet(tmp_path / "out.parquet")
    pages = []
    for suffix in FORMATS:
        assert command("report", "meta.json", f"out.{suffix}", "-o", f"{suffix}.html").status == 0
        pages.append(numbers(tmp_path / f"{suffix}.html"))
    shown = pages[0]
    assert pages == [shown] * 3
    statuses = Counter(rows["status"].to_list())
    assert {f"class:{name}": count for name, count in statuses.items()}.items() <= shown.items()
    assert sum(value for name, value in shown.items() if name.startswith("prefix:")) <= statuses["success"]
    assert shown["rtt:count"] == rows["connect_ns"].count()
    stage = {name.removeprefix("stage:"): value for name, value in shown.items() if name.startswith("stage:")}
    parts = ("rows", "repeats", "unselected", "not_ours", "invalid", "neighbours", "fragments")
    received = stage["received"] + stage["connections_opened"] + stage["silent"]
    assert received == sum(stage[name] for name in (*parts, "segments_received", "errors_received"))
    said = " ".join(command("methods", "meta.json").out.split())
    assert f"{summary['connections']:,} TCP connections were opened in user space, each was sent a request of 5" in said
