"""What is refused is refused before anything is written: no file is made or overwritten, and stdout stays empty."""

from pathlib import Path

import pytest

from tests.conftest import Command

RUN = {"-p": "80", "--engine": "sim", "-c": "0", "-r": "100k", "-m": "metadata.json", "-u": "status.csv"}
KEPT = "the rows of another day\n"

# Wrong arguments, and a part of the sentence that says what to do.
SCAN = {
    "-p 70000": "write 80, 80,443, 8000-8010 or *",
    "-p 80,": "write 80, 80,443, 8000-8010 or *",
    "-M nosuch": "there are tcp_synscan",
    "--probe-args layout=x": "the layouts are linux and smallest",
    "-M udp --probe-args foo": "write text:TEXT, hex:DIGITS",
    "-M udp --probe-args file:missing": "missing: No such file",
    "-M dns --probe-args Q,": "the types are A, NS",
    "-b missing": "missing: No such file",
    "-I missing": "missing: No such file",
    "-e -1": "a whole number up to",
    "--order x": "Choose from",
    "-n 200%": "write a number above 0% and up to 100%",
    "--shards 0": "it is at least 1",
    "--shard 5": "so use 0 to 0",
    "--shard -1": "a whole number from 0",
    "-P 0": "it is at least 1",
    "-r x": "write 10000, 100k or 1.5M",
    "-r 1.5": "give whole probes a second",
    "-r 5 -B 5": "not both",
    "-S x": 'write "192.0.2.10"',
    "-S 198.18.0.9-198.18.0.1": "write 192.0.2.10-192.0.2.13",
    "-s 50000-40000": "the range runs backwards",
    "--probe-ttl 300": "a whole number up to 255",
    "--reprobe 99999": "a whole number up to 65535",
    "--reprobe-wait x": "write 8, 90s, 5m or 2h",
    "--recheck 200%": "up to 100%",
    "--recheck-rate 0 --recheck 1%": "give probes a second, above 0",
    "--dedup-method window --reprobe 1": "take another --dedup-method",
    "--dedup-method full --max-memory 4096 10.0.0.0/8": "give --max-memory as much",
    "--max-memory 1": "give 4096 or more",
    "--engine nosuch": "nosuch",
    "--batch 1000": "a whole number from 1 to 256",
    "-T 0": "a whole number from 1",
    "--cores 9999": "this process may run on",
    "-c x": "write 8, 90s, 5m or 2h",
    "-t x": "write 8, 90s, 5m or 2h",
    "-N -1": "a whole number from 0",
    "--min-hitrate 101": "percent from 0 to 100",
    "--retries -1": "a whole number from 0",
    "--max-sendto-failures -2": "a whole number from 0",
    "-o x.txt": "name it .parquet, .csv or .jsonl",
    "-O nosuch": "there are csv, json",
    "-o no/rows.csv": "No such file",
    "-o rows.csv": "named twice",
    "-m no/metadata.json": "No such file",
    "-u rows.csv": "named twice",
    "--checkpoint rows.csv": "named twice",
    "--checkpoint-interval 0": "give more than 0",
    "-f nosuch": "there are saddr",
    "-f saddr,saddr": "once is enough",
    "-f ,": "write saddr,sport",
    "--output-filter success": "was expected here",
    "--rows all --output-filter success=1": "give one of them",
    "--user-metadata {": "is no JSON",
    "--optout-file missing": "missing: No such file",
    "--prefix-budget 0": "give probes a second, above 0",
    "10.0.0.0/33": "write 192.0.2.0/24",
    "fd00::/120": "split it in two",
}
EXCHANGE = {
    "--until 0": "until is 1 or more",
    "--until=": "at least one byte",
    "--until \\x": "there are \\r \\n",
    "--until 99999999999": "a whole number up to",
    "--request \\x": "there are \\r \\n",
    "--request {nope}": "{address}",
    "--request {": "{address}",
    "--request @missing": "missing: No such file",
    "--request-column url": "list_of_ips_file",
    "--max-bytes x": "write 10000, 100k or 1.5M",
    "--timeout 0": "give more",
    "--timeout x": "write 8, 90s, 5m or 2h",
    "--close x": "Choose from",
    "--max-connections 0": "give more",
    "--max-connections 99999999999": "a whole number up to",
    "--max-per-prefix 0": "give more",
    "--max-memory 1": "give --max-memory as much",
    "--rows x": "Choose from",
    "--checkpoint c": "leave out --checkpoint",
    "-M udp": "begins with the probe tcp_synscan",
    "-P 2": "--reprobe instead of --probes",
    "-f ttl": "there are saddr",
    "-T -1": "a whole number from 1",
    "-o no/rows.parquet": "No such file",
}
CASES = [("scan", *case) for case in SCAN.items()] + [("exchange", *case) for case in EXCHANGE.items()]


@pytest.mark.parametrize(("name", "wrong", "hint"), CASES, ids=[" ".join(case[:2]) for case in CASES])
def test_a_wrong_value_is_refused_before_anything_is_written(
    command: Command, name: str, wrong: str, hint: str
) -> None:
    Path("rows.csv").write_text(KEPT)
    before = sorted(Path().iterdir())
    given = wrong.split()
    fixed = [each for option in RUN.items() if option[0] not in given for each in option]
    # The first output could be written, and is not.
    done = command(name, "10.2.64.0/28", *fixed, "-q", "-o", "rows.csv", "-o", "new.parquet", *given)
    said = " ".join(done.err.split())
    assert (done.status, done.out) == (2, ""), said
    assert said.startswith("irlstack: ")
    assert hint in said
    assert sorted(Path().iterdir()) == before
    assert Path("rows.csv").read_text() == KEPT


def test_the_same_goes_for_standard_output(command: Command) -> None:
    for name, wrong in (
        ("exchange", ["--until", "0"]),
        ("exchange", ["--request", "{nope}"]),
        ("scan", ["--cores", "9"]),
        ("scan", ["-B", "0"]),
    ):
        done = command(name, "10.2.64.0/28", "-p", "80", "--engine", "sim", "-q", "-f", "saddr,sport", *wrong)
        assert (done.status, done.out) == (2, ""), "not even the names of the columns"


def test_what_is_right_overwrites_as_ever(command: Command) -> None:
    Path("rows.csv").write_text(KEPT)
    fixed = [each for option in RUN.items() for each in option]
    done = command("scan", "10.2.64.0/20", *fixed, "-q", "-o", "rows.csv", "--max-sendto-failures", "-1")
    assert done.status == 0, done.err
    assert Path("rows.csv").read_text().startswith("saddr,daddr")
    assert Path("status.csv").read_text().startswith("real-time,")
    assert Path("metadata.json").stat().st_size > 1000
