"""A run watched from outside: what is served adds up, and serving it holds nothing up."""

import gc
import json
import signal
import socket
import subprocess
import sys
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as plain_text_to_metric_families

import irlstack as irl
from irlstack.metrics.families import COUNTERS, ELSEWHERE, GAUGES, PREFIX
from tests.conftest import Command

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
Samples = dict[tuple[str, tuple[str, ...]], float]


def get(url: str, accept: str = OPENMETRICS) -> tuple[str, str]:
    """The content type and the text."""
    place = urlsplit(url)
    assert place.hostname is not None
    with closing(HTTPConnection(place.hostname, place.port, timeout=10)) as connection:
        connection.request("GET", place.path, headers={"Accept": accept})
        answer = connection.getresponse()
        return answer.headers["Content-Type"], answer.read().decode()


def scrape(url: str) -> Samples:
    """Each sample by its name and the values of its labels."""
    kind, text = get(url)
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    assert text.endswith("# EOF\n")
    families = list(text_string_to_metric_families(text))
    assert all(family.name.startswith(PREFIX) and family.documentation for family in families)
    return {
        (each.name.removeprefix(PREFIX), tuple(value for _, value in sorted(each.labels.items()))): each.value
        for family in families
        for each in family.samples
    }


def state(samples: Samples) -> str:
    (now,) = [labels[0] for (name, labels), value in samples.items() if name == "run_state" and value == 1]
    return now


def counted(samples: Samples) -> dict[str, float]:
    """The counters by the names that `Run.stats` has for them."""
    found = {}
    for each in COUNTERS:
        name = each.name + (f"_{each.unit}" if each.unit else "") + "_total"
        for values, field in each.fields.items():
            labels = dict(zip(each.labels, values, strict=True))
            assert field not in found, "it is served twice"
            found[field] = samples[name, tuple(labels[label] for label in sorted(labels))]
    return found


def balances(samples: Samples) -> bool:
    """The two equations of conservation, of one scrape."""
    total = {name: sum(v for (n, _), v in samples.items() if n == name + "_total") for name in ("records",)}
    built = {labels: value for (name, labels), value in samples.items() if name == "frames_built_total"}
    gone = {
        (kind,): samples["frames_sent_total", (kind,)]
        + samples["frames_refused_total", ("policy", kind)]
        + samples["frames_refused_total", ("device", kind)]
        for (kind,) in built
    }
    came = (
        samples["records_received_total", ()]
        + samples["connections_opened_total", ()]
        + samples["targets_silent_total", ()]
    )
    return built == gone and came == total["records"]


def test_what_is_served_while_a_scan_goes_on_ends_as_the_metadata_say() -> None:
    run = irl.scan("10.0.0.0/14", ports=80, engine="sim", rate=200_000, cooldown_time=0.3, seed=1)
    with irl.metrics.serve(run) as server:
        assert scrape(server.url) == {
            ("run_state", (each,)): float(each == "not_begun") for each in ("not_begun", "sending", "receiving", "done")
        }
        rows = iter(run)
        next(rows)
        first = scrape(server.url)
        assert state(first) == "sending"
        assert 0 < first["frames_sent_total", ("probe",)] < 1 << 18
        assert 0 < first["progress_ratio", ()] < 1
        assert first["remaining_seconds", ()] > 0
        assert first["queue_batches", ()] <= first["queue_batches_most", ()] == 32
        for _ in rows:
            pass
        last = scrape(server.url)
    assert state(last) == "done"
    assert balances(last)
    document, stats = run.summary, run.stats
    assert counted(last) == {field: stats[field] for field in counted(last)}
    for name, label, field in (
        ("records_total", "row", "rows"),
        ("records_total", "repeat", "repeats"),
        ("records_total", "unselected", "unselected"),
        ("frames_sent_total", "probe", "probes_sent"),
        ("frames_sent_total", "reset", "resets_sent"),
    ):
        assert last[name, (label,)] == stats[field] > 0, (name, label)
    new = {name for name, _ in last} & stats.keys()
    assert counted(last).keys() | GAUGES.keys() | ELSEWHERE | new == stats.keys(), "every field is served"
    assert last["targets_found_total", ()] == document["found"] > 1000
    assert last["positions", ()] == last["positions_planned", ()] == last["probes_planned", ()] == 1 << 18
    assert last["elapsed_seconds", ()] == document["elapsed_s"]
    assert last["asked_probes_per_second", ()] == 200_000
    assert (last["progress_ratio", ()], last["remaining_seconds", ()], last["sent_probes_per_second", ()]) == (1, 0, 0)
    assert last["worker_probes_sent_total", ("sim", "0")] == document["sent"]
    assert last["filter_total", ("delivered",)] == document["filter"]["delivered"]
    counters = [key for key in first if key[0].endswith("_total")]
    assert [key for key in counters if first[key] > last[key]] == [], "counters only grow"


def test_it_says_what_the_run_is_and_that_it_is_synthetic() -> None:
    run = irl.scan("10.0.0.0/24", ports=80, engine="sim", rate=0, cooldown_time=0, shards=2, shard=1)
    with irl.metrics.serve(run) as server:
        list(run)
        families = {each.name: each for each in text_string_to_metric_families(get(server.url)[1])}
    (info,) = families["irlstack_run"].samples
    document = run.summary
    assert info.labels == {
        "version": irl.__version__,
        "run": run.id,
        "engine": "sim",
        "interface": "sim",
        "synthetic": "true",
        "probe_module": "tcp_synscan",
        "plan_fingerprint": document["plan_fingerprint"],
        "shard": "1",
        "shards": "2",
    }
    assert run.id == document["plan_fingerprint"][:16] + "-1"
    assert families["irlstack_response_bytes"].unit == "bytes"
    assert families["irlstack_elapsed_seconds"].unit == "seconds"


def test_an_exchange_is_served_too_and_balances_with_its_connections() -> None:
    run = irl.exchange(
        "10.2.64.0/19", ports=80, request=b"GET / HTTP/1.0\r\n\r\n", engine="sim", rate=0, cooldown_time=0.3, rows="all"
    )
    with irl.metrics.serve(run) as server:
        list(run)
        last = scrape(server.url)
    assert balances(last)
    assert last["exchanges_total", ()] == run.summary["exchanged"] > 0
    assert last["response_bytes_total", ()] > 0
    assert last["targets_silent_total", ()] > 0


def test_who_takes_plain_text_gets_it() -> None:
    run = irl.scan("10.0.0.0/24", ports=80, engine="sim", rate=0, cooldown_time=0)
    with irl.metrics.serve(run) as server:
        list(run)
        for accept in ("text/plain", "*/*"):
            kind, text = get(server.url, accept)
            assert kind.startswith("text/plain")
            assert "# EOF" not in text
            samples = [each for family in plain_text_to_metric_families(text) for each in family.samples]
            assert ("irlstack_targets_taken_total", 256) in [(each.name, each.value) for each in samples]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("9464", ("127.0.0.1", 9464)),
        (0, ("127.0.0.1", 0)),
        ("localhost:1", ("127.0.0.1", 1)),
        ("127.3.2.1:80", ("127.3.2.1", 80)),
        ("[::1]:9464", ("::1", 9464)),
    ],
)
def test_loopback_has_many_names(text: str | int, where: tuple[str, int]) -> None:
    assert irl.metrics.address(text) == where


@pytest.mark.parametrize("text", ["0.0.0.0:9464", "[::]:9464", "198.18.0.1:9464", "[fd00::1]:9464", "*:9464"])
def test_no_other_address_is_served_on(command: Command, text: str) -> None:
    done = command("scan", "10.0.0.0/24", "-p", "80", "--engine", "sim", "--metrics", text, "-o", "rows.csv")
    assert done.status == 2
    assert "ssh -L 9464:127.0.0.1:9464" in done.err or "is no address" in done.err
    assert not Path("rows.csv").exists()


def test_a_port_that_is_in_use_is_said_before_a_file_is_opened(command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = command("scan", "10.0.0.0/24", "-p", "80", "--engine", "sim", "--metrics", port, "-o", "rows.csv")
    assert (done.status, f"port {port} of 127.0.0.1 is in use" in done.err) == (2, True)
    assert not Path("rows.csv").exists()
    for wrong in ("65536", "-1", "http", "127.0.0.1:"):
        assert command("scan", "10.0.0.0/24", "-p", "80", "--engine", "sim", f"--metrics={wrong}").status == 2


def test_a_client_that_says_nothing_holds_nobody_up() -> None:
    run = irl.scan("10.0.0.0/24", ports=80, engine="sim", rate=0, cooldown_time=0)
    with irl.metrics.serve(run) as server:
        port = int(server.url.split(":")[2].split("/")[0])
        with socket.create_connection(("127.0.0.1", port)):
            list(run)
            assert state(scrape(server.url)) == "done"
            server.close()


def test_the_server_goes_with_the_run_and_does_not_keep_it() -> None:
    run = irl.scan("10.0.0.0/24", ports=80, engine="sim", rate=0, cooldown_time=0)
    server = irl.metrics.serve(run)
    list(run)
    assert state(scrape(server.url)) == "done"
    del run
    gc.collect()
    server._thread.join(timeout=10)
    assert not server._thread.is_alive()
    with pytest.raises(ConnectionRefusedError):
        get(server.url)


def test_the_command_line_serves_until_ctrl_c(tmp_path: Path) -> None:
    scan = ["scan", "10.0.0.0/9", "-p", "80", "--engine", "sim", "-r", "200k", "-o", "rows.csv", "-q", "--json"]
    with subprocess.Popen(
        [sys.executable, "-m", "irlstack", *scan, "--metrics", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said, _, url = process.stderr.readline().strip().rpartition(" ")
        assert said == "Metrics at"
        while not (at := scrape(url)).get(("sent_probes_per_second", ())):
            assert process.poll() is None
        assert state(at) == "sending"
        assert at["frames_sent_total", ("probe",)] > 0
        assert at["sent_probes_per_second", ()] < 2 * at["asked_probes_per_second", ()] == 400_000
        process.send_signal(signal.SIGINT)
        document = json.loads(process.stdout.read())
        assert process.wait(timeout=10) == 130
    assert document["sent"] >= at["frames_sent_total", ("probe",)]
    with pytest.raises(ConnectionRefusedError):
        get(url)
