"""`irlstack methods`: the paragraph says what the metadata say, and names what they do not."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import irlstack as irl
from irlstack.report.methods import PAPER_AUTHORS, PAPER_TITLE, PAPER_YEAR, SOFTWARE_TITLE, bibtex, methods
from tests.conftest import Command

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The metadata of a run with all that a run can be told."""
    deny = tmp_path_factory.mktemp("run") / "optout.txt"
    deny.write_text("10.0.0.0/24\n")
    policy = irl.Policy(contact="scan@example.org", authorized="ticket 4711", blocklist_file=deny)
    run = irl.scan(
        "10.0.0.0/18", ports=443, engine="sim", rate=50_000, seed=7, cooldown_time=0.2, reprobe=1, policy=policy,
        blocklist_file=[deny], contact="scan@example.org", max_targets=9000,
    )  # fmt: skip
    for _ in run:
        pass
    return run.summary


def said(document: dict[str, Any]) -> str:
    """The text on one line."""
    return " ".join(methods(document).split())


def test_the_paragraph_has_what_a_reviewer_asks_for(document: dict[str, Any]) -> None:
    text = said(document)
    stats = document["stats"]
    for expected in (
        f"we sent {stats['probes_sent']:,} TCP SYN probes to port 443 of 16,128 eligible IPv4 addresses",
        f"IRLstack {irl.__version__}",
        "seed 7 (chosen beforehand)",
        f"the fingerprint {document['plan_fingerprint']}.",
        "first 9,000 targets",
        "at most 50,000 probes/s",
        "probed again, once.",
        "listened for 0.2 s",
        "Probes left from 198.18.0.10, ports 61000 to 65535 by the engine sim.",
        f"256 addresses were left out by IANA's registries of special-purpose space as of {document['iana_snapshot']}",
        f"optout.txt (SHA-256 {document['deny_files'][0]['sha256']})",
        "could write to scan@example.org.",
        "authorised by: ticket 4711.",
        f"Of 9,000 targets taken, {stats['answered']:,} answered at all and {stats['found']:,} were found",
        "0 answers were lost before they were read",
        f"{document['passes'][1]['found']} targets were found in later passes only.",
        "No host of the Internet was measured",
    ):
        assert expected in text, expected
    unknown = text[text.index("The metadata do not tell") :]
    assert "contact" not in unknown
    assert "authorised" not in unknown


def test_nothing_is_invented(document: dict[str, Any]) -> None:
    given = json.dumps(document)
    text = said(document)
    for number in re.findall(r"\d[\d,.]*\d|\d", text.split("@software")[0]):
        plain = number.replace(",", "")
        times = [document[name] for name in ("send_start_time", "send_end_time")]
        known = plain in given or any(plain in time for time in times)
        rounded = any(f"{value:,.0f}" == number for value in (document["send_rate"], document["rate"]))
        rounded |= plain == f"{document['hitrate']:.4g}" or number == "2010"
        rounded |= plain == f"{document['clock']['max_error_us'] / 1e6:g}"
        assert known or rounded, number


@pytest.mark.parametrize(
    ("key", "unknown"),
    [
        ("contact", "whom probed networks could write to"),
        ("authorized", "who authorised the run"),
        ("seed", "the seed of the order"),
        ("clock", "whether the clock was right"),
        ("iana_snapshot", "which registry of special-purpose space was used"),
        ("send_start_time", "when sending began"),
        ("rate", "the rate that was asked for"),
        ("version", "the version of IRLstack"),
        ("rows_lost", "all of our own losses"),
    ],
)
def test_what_is_missing_is_said(document: dict[str, Any], key: str, unknown: str) -> None:
    assert unknown not in said(document)
    for less in ({name: value for name, value in document.items() if name != key}, document | {key: None}):
        text = said(less)
        assert unknown in text[text.index("The metadata do not tell") :]
        assert "None" not in text


def test_any_key_may_be_missing(document: dict[str, Any]) -> None:
    for key in document.keys() - {"plan_fingerprint", "stats"}:
        assert "None" not in said({name: value for name, value in document.items() if name != key}), key
    bare = said({"plan_fingerprint": "00ff", "stats": {}})
    assert "At a time not recorded" in bare
    assert "None" not in bare


def test_what_is_cited_is_what_the_citation_file_says() -> None:
    cff = (ROOT / "CITATION.cff").read_text()
    assert f'title: "{SOFTWARE_TITLE}"' in cff
    assert f'title: "{PAPER_TITLE}"' in cff
    assert f"year: {PAPER_YEAR}" in cff
    for author in PAPER_AUTHORS:
        family, given = author.split(", ")
        assert f"given-names: {given}\n        family-names: {family}" in cff
    entries = bibtex("0.1.0")
    assert entries.count("{") == entries.count("}")
    assert "version = {0.1.0}" in entries


def test_the_command_prints_it(command: Command, document: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text(json.dumps(document))
    done = command("methods", "meta.json")
    assert done.status == 0
    assert done.out == methods(document)
    paragraph = done.out.split("@software")[0]
    assert max(map(len, paragraph.splitlines())) <= 80
