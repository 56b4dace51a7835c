"""The tables of docs/zmap.md, compared with what `irlstack scan` takes."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import irlstack as irl
from irlstack.cli import app
from tests.conftest import Command
from tests.sim.test_zmap import DOCUMENTED, LINES

PAGE = (Path(__file__).parents[2] / "docs/zmap.md").read_text()
OURS = [probe for probe, _ in irl.Probe.meanings() if probe != "own"]


def table(section: str) -> Iterator[list[str]]:
    """The rows of the table below a heading, without its head."""
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    for line in lines[2:]:
        yield [cell.strip() for cell in line.strip("|").split("|")]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


OPTIONS = {name: here for cell, here, _ in table("Options") for name in names(cell)}


def taken() -> set[str]:
    """Every name of an option that `irlstack scan` takes."""
    scan = app["scan"]
    arguments = {name for argument in scan.assemble_argument_collection() for name in argument.names}
    return {name for name in arguments if name.startswith("-")} | {*scan.help_flags, *app.version_flags}


def test_the_table_of_options_is_what_the_command_line_takes() -> None:
    assert set(OPTIONS.values()) == {"same", "differs", "not here"}
    here = {name for name, what in OPTIONS.items() if what != "not here"}
    assert here - taken() == set(), "said to be here, and are not"
    assert (OPTIONS.keys() - here) & taken() == set(), "are here, and said not to be"


def test_what_is_not_the_same_is_explained() -> None:
    for cell, here, words in table("Options"):
        assert here == "same" or len(words) > 10, cell
    for cell, _, here, words in table("Fields"):
        assert here == "same" or len(words) > 10, cell


def test_the_table_has_every_option_of_zmaps_command_lines() -> None:
    for line in (*DOCUMENTED, *LINES):
        used = {each.partition("=")[0] for each in shlex.split(line)[1:] if re.match(r"--?[a-zA-Z]", each)}
        assert used <= OPTIONS.keys(), line


@pytest.mark.parametrize("probe", OURS)
def test_the_table_of_fields_is_what_a_probe_has(probe: str) -> None:
    have = {each["name"] for each in irl.scan_fields(probe_module=probe)}
    told: set[str] = set()
    for cell, of, here, _ in table("Fields"):
        if here == "not here":
            assert not set(names(cell)) & have
        elif of == "every module" or probe in names(of):
            told |= set(names(cell))
            assert told <= have
    # What is not told of is no name of ZMap's: it is in every probe's rows.
    own = {"probe_num", "timestamp", "rtt"} | {"data"}
    tcp = {name for cell, of, *_ in table("Fields") if "tcp_synscan" in of for name in names(cell)}
    assert have - told <= own | tcp


@pytest.mark.parametrize(("cell", "of"), [(row[0], row[1]) for row in table("Fields") if row[2] == "not here"])
def test_a_field_that_is_not_here_says_what_to_take_instead(command: Command, cell: str, of: str) -> None:
    (module,) = names(of)
    probe = ["-M", module] if module in OURS else []
    for name in names(cell):
        done = command(
            "scan", "10.0.0.0/24", "-p", "80", "--engine", "sim", *probe, "-f", f"saddr,{name}", "-o", "a.csv"
        )
        said = " ".join(done.err.split())
        assert (done.status, done.out) == (2, "")
        assert f"There is no output field '{name}': " in said
        assert "take" in said
        assert not Path("a.csv").exists()


def test_a_field_of_another_probe_is_refused(command: Command) -> None:
    scan = ["scan", "10.0.0.0/24", "-p", "80", "--engine", "sim"]
    done = command(*scan, "-f", "saddr,stratum")
    assert (done.status, done.out) == (2, "")
    assert "one of the probe ntp, and this is tcp_synscan: leave it out" in " ".join(done.err.split())
    done = command(*scan, "--output-filter", "stratum = 1")
    assert (done.status, done.out) == (2, "")
    assert "one of the probe ntp" in " ".join(done.err.split())


def test_listings_name_what_the_probe_has(command: Command) -> None:
    ntp = command("scan", "-M", "ntp", "--list-output-fields").out
    assert "stratum" in ntp
    assert "dns_id" not in ntp
    assert "stratum" not in command("scan", "--list-output-fields").out
    every = command("schema").out
    assert all(f"of {probe} also" in every for probe in ("icmp_echoscan", "udp", "dns", "ntp"))
    assert [line.split()[0] for line in command("scan", "--list-output-modules").out.splitlines()] == [
        "csv",
        "json",
        "parquet",
    ]


def test_sources_may_be_a_range(command: Command) -> None:
    line = ["plan", "10.0.0.0/24", "-p", "80", "-o", "-"]
    some = command(*line, "-S", "198.18.0.10-198.18.0.12,198.18.0.20").out
    assert all(f'"198.18.0.{number}"' in some for number in (10, 11, 12, 20))
    for wrong in ("198.18.0.10-198.18.0.9", "198.18.0.0-198.19.0.0", "198.18.0.10-fd00::1", "198.18.0.10-x"):
        done = command(*line, "-S", wrong)
        assert done.status == 2
        assert "write 192.0.2.10-192.0.2.13" in " ".join(done.err.split())
