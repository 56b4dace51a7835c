"""The metadata of a run name what was probed and who was left alone, for papers and for answers."""

import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import irlstack as irl
from irlstack.report.methods import methods
from tests.conftest import Command

ROOT = Path(__file__).parents[2]
SCAN: dict[str, Any] = {"engine": "sim", "seed": 1, "cooldown_time": 0.1, "rate": 0}


def finished(*targets: str, **keywords: Any) -> dict[str, Any]:
    run = irl.scan(*targets, **SCAN | keywords)
    pl.DataFrame(run)
    return run.summary


def said(document: dict[str, Any]) -> str:
    return " ".join(methods(document).split())


def test_targets_are_named_as_they_were_typed_with_how_much_they_are(tmp_path: Path) -> None:
    allow, deny = tmp_path / "allow.txt", tmp_path / "deny.txt"
    allow.write_text("10.4.0.0/24 # a lab\n")
    deny.write_text("10.3.0.0/25\n10.3.0.0/26\n192.0.2.0/24\n")
    document = finished(
        "10.3.0.0/24", "10.3.1.7-10.3.1.9", ports="80,443,8000-8009", allowlist_file=[allow], blocklist_file=[deny],
        max_targets=1000, shards=2,
    )  # fmt: skip
    assert document["targets"] == {
        "family": "ipv4",
        "given": ["10.3.0.0/24", "10.3.1.7-10.3.1.9"],
        "given_count": 2,
        "given_sha256": sha256(b"10.3.0.0/24\n10.3.1.7-10.3.1.9\n").hexdigest(),
        "allow_files": [{"path": str(allow), "sha256": sha256(allow.read_bytes()).hexdigest()}],
        "list": None,
        "ports": "80,443,8000-8009",
        "port_count": 12,
        "order": "random",
        "addresses_asked": 515,
        "addresses_special": 0,
        "addresses_denied": 128,
        "list_duplicates": 0,
        "addresses": 387,
        "targets": 1000,
        "targets_of_shard": 500,
    }
    assert document["deny_files"] == [
        {"path": str(deny), "sha256": sha256(deny.read_bytes()).hexdigest(), "addresses": 384}
    ]
    text = said(document)
    hashed = document["targets"]["allow_files"][0]["sha256"]
    assert (
        f"Named as targets were 10.3.0.0/24, 10.3.1.7-10.3.1.9 and the allow file {allow} (SHA-256 {hashed})." in text
    )
    assert f"the deny file {deny} (SHA-256 {document['deny_files'][0]['sha256']}) of 384 addresses." in text
    assert "which prefixes were named" not in text


def test_a_list_is_named_with_its_hash(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("10.3.0.7\n10.3.0.8\n10.3.0.7\n")
    document = finished(list_of_ips_file=listed, ports=80)
    of = document["targets"]
    hashed = sha256(listed.read_bytes()).hexdigest()
    assert of["list"] == {"path": str(listed), "sha256": hashed}
    assert (of["given"], of["given_count"], of["given_sha256"]) == ([], 0, None)
    assert (of["addresses_asked"], of["list_duplicates"], of["addresses"], of["targets"]) == (3, 1, 2, 2)
    assert f"Named as targets were the list {listed} (SHA-256 {hashed})." in said(document)


def test_of_many_prefixes_the_document_has_the_first_their_number_and_their_hash() -> None:
    prefixes = [f"10.{high}.{low}.0/30" for high in range(20) for low in range(200)]
    document = finished(*prefixes, ports=80)
    of = document["targets"]
    assert (of["given"], of["given_count"], of["addresses"]) == (prefixes[:1000], 4000, 16_000)
    assert of["given_sha256"] == sha256("".join(f"{each}\n" for each in prefixes).encode()).hexdigest()
    text = said(document)
    assert f"{prefixes[11]} and 3,988 more (SHA-256 of all, a line each: {of['given_sha256']})" in text
    assert prefixes[12] not in text
    assert len(json.dumps(of)) < 64_000


def test_a_document_of_an_older_version_says_that_it_does_not_know() -> None:
    document = finished("10.3.0.0/24", ports=80)
    del document["targets"], document["optout_file"], document["prefix_budget"]
    text = said(document)
    assert "which prefixes were named as targets" in text[text.index("The metadata do not tell") :]
    assert "Named as targets" not in text


def test_the_opt_out_file_is_named_each_time_that_it_was_read_and_nobody_in_it(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    out.write_text("10.3.0.0/24 # until 2020-01-01\n10.3.1.0/24 # asked by Ada\n")
    first = sha256(out.read_bytes()).hexdigest()
    run = irl.scan("10.3.0.0/16", ports=80, optout_file=out, **SCAN | {"rate": 20_000, "cooldown_time": 1.5})
    second = None
    for _ in run:
        if second is None and run.stats["elapsed_s"] > 0.5:
            out.write_text("10.3.0.0/23\n10.3.4.0/24\n")
            second = sha256(out.read_bytes()).hexdigest()
    document = run.summary
    of = document["optout_file"]
    assert (of["path"], of["sha256"], of["lines"], of["expired"]) == (str(out), first, 1, 1)
    assert of["reread_count"] == 1
    (last,) = of["reread"]
    assert (last["sha256"], last["lines"], last["expired"]) == (second, 2, 0)
    assert of["read_time"] <= document["send_start_time"] < last["read_time"] < document["recv_end_time"]
    assert "Ada" not in json.dumps(document)
    text = said(document)
    assert f"Left alone, too, was who asked: {out} (SHA-256 {first}), with 1 lines in force and 1 that had" in text
    assert "at last with 2 lines in force." in text


def test_the_opt_out_file_of_a_flag_stands_over_the_configuration(command: Command, tmp_path: Path) -> None:
    (tmp_path / "irlstack.toml").write_text('[policy]\noptout_file = "conf.txt"\n')
    (tmp_path / "conf.txt").write_text("10.3.0.0/25\n")
    (tmp_path / "flag.txt").write_text("10.3.0.0/26\n")
    scan = ["scan", "10.3.0.0/24", "-p", "80", "--engine", "sim", "-r", "0", "-c", "0.1", "-o", "o.csv", "--json", "-q"]
    for flag, name, refused in (([], "conf.txt", 128), (["--optout-file", "flag.txt"], "flag.txt", 64)):
        document = json.loads(command(*scan, *flag).out)
        assert document["optout_file"]["path"] == name
        assert document["stats"]["probes_refused_by_policy"] == refused
    done = command(*scan, "--optout-file", "absent.txt")
    assert done.status == 2
    assert "absent.txt: No such file" in " ".join(done.err.split())


def test_the_documentation_names_every_key_of_what_was_probed(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    out.write_text("10.9.0.1\n")
    document = finished("10.3.0.0/26", ports=80, optout_file=out, blocklist_file=[out])
    told = set(re.findall(r"`([a-z][a-z_0-9-]*)`", (ROOT / "docs" / "metadata.md").read_text()))
    nested = {"path", "sha256", "addresses"}
    for name in ("targets", "optout_file"):
        assert name in told
        assert document[name].keys() - nested <= told, name
    assert document["deny_files"][0].keys() == nested
    known = document.keys() | document["targets"].keys() | document["optout_file"].keys()
    known |= document["per_second"][0].keys() | {"request", "until", "close", "timeout"}
    assert told - known <= {"methods", "ledger"}


def test_a_budget_is_said(tmp_path: Path) -> None:
    assert "At most 500 probes/s to each /24 were sent." in said(finished("10.3.0.0/26", ports=80, prefix_budget=500))


@pytest.mark.parametrize("of", ["exchange", "scan"])
def test_the_page_has_them_too(command: Command, tmp_path: Path, of: str) -> None:
    request = ["--request", "x"] if of == "exchange" else []
    done = command(
        of, "10.3.0.0/26", "10.4.0.0/26", "-p", "80", "--engine", "sim", "-r", "0", "-c", "0.1", "-q", "-m", "m.json",
        "-o", "o.csv", "--prefix-budget", "1k", *request,
    )  # fmt: skip
    assert done.status == 0, done.err
    assert command("report", "m.json").status == 0
    page = (tmp_path / "m.html").read_text()
    assert '<th scope="row">targets</th><td class="text">10.3.0.0/26, 10.4.0.0/26</td>' in page
    assert '<th scope="row">prefix budget</th><td class="text">1,000 probes/s to each /24</td>' in page
    assert '<th scope="row">opt-out file</th><td class="text">none</td>' in page
