"""Scans of the simulated Internet: what is found is what is there, and who stops reading stops the frames."""

import asyncio
import gc
import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import irlstack as irl
from irlstack.lab import Impairment

WORLD = irl.World(seed=1)
PROBES = {
    "tcp_synscan": {"ports": 80},
    "icmp_echoscan": {},
    "udp": {"ports": 53, "probe_args": {"text": "hello"}},
}
RANGES = {"ipv4": "10.0.0.0/13", "ipv6": "fd00::/109"}


def plan_of(family: str = "ipv4", probe: str = "tcp_synscan", **options: object) -> irl.Plan:
    given = {"rate": 0, "seed": 7, "probe_module": probe} | PROBES[probe] | options
    return irl.Plan(RANGES[family], **given)  # type: ignore[arg-type]


def scan(plan: irl.Plan, **options: object) -> irl.Run:
    given = {"engine": "sim", "world": WORLD, "cooldown_time": 0.2} | options
    return irl.scan(plan=plan, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", ["success", "all"])
@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("family", RANGES)
def test_nothing_is_missed_and_nothing_invented(family: str, probe: str, rows: str) -> None:
    plan = plan_of(family, probe)
    run = scan(plan, rows=rows)
    batches = list(run)
    check = WORLD.check(plan, batches, rows=rows)
    assert check["missed"] == check["invented"] == 0
    assert check["found"] == run.stats["found"] > 1000
    assert run.stats["probes_sent"] == check["probed"] == plan.total
    assert run.summary["imbalances"] == []


def test_hosts_of_every_kind_are_among_the_targets() -> None:
    plan = plan_of()
    truth = WORLD.check(plan, list(scan(plan)))["truth"]
    assert all(truth.values()), truth


def test_the_check_sees_what_is_missed_and_what_is_invented() -> None:
    plan = plan_of()
    batches = list(scan(plan))
    other = irl.World(seed=2).check(plan, batches)
    assert other["missed"] > 1000
    assert other["invented"] > 1000
    few = WORLD.check(plan, batches[:1])
    assert few["missed"] == len(pl.concat(pl.DataFrame(each) for each in batches)) - len(batches[0])


def test_with_loss_as_many_are_missed_as_the_loss_predicts() -> None:
    """2 % each way: a target is missed with 1 - 0.98^2 = 3.96 %; the bound is five standard deviations."""
    plan = plan_of()
    check = WORLD.check(plan, list(scan(plan, impairment=Impairment(loss=0.02))))
    expected = check["found"] + check["missed"]
    share = 1 - 0.98**2
    # Duplicate answers have a second chance, which the bound has room for.
    assert abs(check["missed"] - share * expected) < 5 * math.sqrt(expected * share * (1 - share))
    assert check["invented"] == 0


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("family", RANGES)
def test_the_probes_of_a_target_are_numbered_from_0(family: str, probe: str) -> None:
    small = {"ipv4": "10.0.0.0/22", "ipv6": "fd00::/118"}[family]
    plan = irl.Plan(small, rate=0, seed=7, probe_module=probe, probes=3, **PROBES[probe])  # type: ignore[arg-type]
    rows = pl.DataFrame(scan(plan, world=irl.World(everything_open=True), rows="all"))
    numbers = rows.group_by("saddr").agg(pl.col("probe_num").sort())["probe_num"].to_list()
    assert numbers == [[0, 1, 2]] * plan.total
    repeats = rows.group_by("saddr").agg(pl.col("repeat").sum())["repeat"]
    assert set(repeats) == {2}


def test_later_passes_number_their_probes_on() -> None:
    plan = irl.Plan("10.0.0.0/18", ports=80, rate=0, seed=7, probes=2)
    world, impairment = irl.World(everything_open=True), Impairment(loss=0.5)
    run = scan(plan, world=world, impairment=impairment, reprobe=1, no_rst=True, rows="all")
    rows = pl.DataFrame(run)
    assert set(rows["probe_num"]) == {0, 1, 2, 3}
    first = set(rows.filter(pl.col("probe_num") < 2)["saddr"])
    late = rows.filter(pl.col("probe_num") >= 2)
    assert run.summary["passes"][1]["targets"] <= plan.total - len(first) + 5
    assert len(late) > 100
    assert not first & set(late["saddr"])


@pytest.mark.parametrize("listed", [False, True], ids=["prefixes", "a list"])
def test_the_silent_are_probed_again_and_as_many_found_as_the_loss_predicts(listed: bool) -> None:
    """20 % each way: each probe is answered with 0.8^2 = 64 %; the bounds are five standard deviations."""
    plan = irl.Plan("10.0.0.0/16", ports=80, rate=0, seed=7)
    if listed:
        lines = "".join(plan.targets().lines()).encode()
        plan = irl.Plan(list_of_ips_file=lines, rate=0, seed=7)
    world, impairment = irl.World(everything_open=True), Impairment(loss=0.2)
    run = scan(plan, world=world, impairment=impairment, reprobe=2, no_rst=True)
    rows = pl.DataFrame(run)
    passes = run.summary["passes"]
    assert [each["pass"] for each in passes] == [0, 1, 2]
    silent = plan.total
    for each in passes:
        assert each["targets"] == each["sent"] == silent
        assert abs(each["found"] - 0.64 * silent) < 5 * math.sqrt(silent * 0.64 * 0.36)
        assert (rows["probe_num"] == each["pass"]).sum() == each["found"]
        silent -= each["found"]
    share = 1 - 0.36**3
    assert abs(len(rows) - share * plan.total) < 5 * math.sqrt(plan.total * share * (1 - share))
    assert rows["saddr"].n_unique() == len(rows) == run.stats["found"]
    assert run.stats["probes_sent"] == run.stats["probes_planned"] == sum(each["sent"] for each in passes)
    assert run.summary["imbalances"] == []


def test_where_nobody_is_silent_there_is_no_later_pass() -> None:
    plan = irl.Plan("10.0.0.0/16", ports=80, rate=0, seed=7)
    run = scan(plan, world=irl.World(everything_open=True), reprobe=2)
    assert sum(map(len, run)) == run.stats["probes_sent"] == plan.total
    assert [each["sent"] for each in run.summary["passes"]] == [plan.total]


def test_duplicates_and_reordering_change_nothing_that_is_found() -> None:
    plan = plan_of()
    impairment = Impairment(duplicate=0.1, reorder=0.1, delay_ms=2)
    run = scan(plan, impairment=impairment)
    check = WORLD.check(plan, list(run))
    assert check["missed"] == check["invented"] == 0
    assert run.stats["repeats"] > 100


def test_shards_find_together_what_the_whole_finds() -> None:
    plan = plan_of(shards=3)
    found = [pl.concat(pl.DataFrame(each) for each in scan(plan, shard=shard))["saddr"] for shard in range(3)]
    together = np.sort(np.concatenate(found))
    assert (np.diff(together.astype(np.int64)) > 0).all()
    whole = pl.DataFrame(scan(plan_of()))["saddr"].sort()
    assert (together == whole.to_numpy()).all()


def test_rows_carry_the_target_the_time_and_the_round_trip() -> None:
    before = time.time_ns()
    rows = pa.table(scan(plan_of(), impairment=Impairment(delay_ms=3)))
    assert rows.schema.names == [each["name"] for each in irl.scan_fields() if each["default"]]
    assert set(rows["sport"].to_pylist()) == {80}
    assert set(rows["classification"].to_pylist()) == {"synack"}
    times = rows["timestamp"].cast(pa.int64()).to_numpy()
    assert before < times.min() <= times.max() < time.time_ns()
    assert 6_000_000 <= rows["rtt"].to_numpy().min() < 60_000_000


def test_all_of_ipv6_is_sixteen_bytes_wide() -> None:
    rows = pl.DataFrame(scan(plan_of("ipv6")))
    assert rows["saddr"].bin.size().unique().to_list() == [16]


def test_several_workers_find_the_same() -> None:
    plan = plan_of()
    check = WORLD.check(plan, list(scan(plan, sender_threads=2)))
    assert check["missed"] == check["invented"] == 0


def test_the_truth_comes_in_columns_for_numpy() -> None:
    rows = pa.table(plan_of().targets())
    addresses, ports = rows["address"].to_numpy(), rows["port"].to_numpy()
    classes, flags, responses = WORLD.truth(addresses, ports)
    assert classes.dtype == flags.dtype == np.uint8
    assert responses.dtype == np.uint16
    for index in range(0, len(addresses), 50_000):
        one = WORLD.truth_of(irl.PrefixSet.all("ipv4").select(int(addresses[index])), int(ports[index]))
        assert one["class"] == WORLD.classes[classes[index]]
        assert one["response_id"] == responses[index]


# --- runs as streams -------------------------------------------------------------------------------------------------


def slow(**options: object) -> irl.Run:
    """A run of many seconds."""
    return scan(irl.Plan("10.0.0.0/8", ports=80, rate=50_000, seed=1), world=irl.World(everything_open=True), **options)


def sends(run: irl.Run) -> bool:
    """Whether probes still leave, 100 ms from now."""
    time.sleep(0.1)
    before = run.stats["probes_sent"]
    time.sleep(0.2)
    return run.stats["probes_sent"] != before


def stop_by_break(run: irl.Run) -> None:
    for batch in run:
        if len(batch):
            break


def stop_by_exception(run: irl.Run) -> None:
    def read() -> None:
        for batch in run:
            len(batch) // 0

    with pytest.raises(ZeroDivisionError):
        read()


def stop_by_close(run: irl.Run) -> None:
    rows = iter(run)
    next(rows)
    rows.close()


def stop_by_garbage(run: irl.Run) -> None:
    rows = iter(run)
    next(rows)
    del rows
    gc.collect()


def stop_by_async_break(run: irl.Run) -> None:
    async def read() -> None:
        async for batch in run:
            if len(batch):
                break

    asyncio.run(read())


def stop_by_cancel(run: irl.Run) -> None:
    async def read() -> None:
        async for _ in run:
            pass

    async def go() -> None:
        task = asyncio.create_task(read())
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(go())


def stop_by_ctrl_c(run: irl.Run) -> None:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        for _ in run:
            pass


def stop_by_with(run: irl.Run) -> None:
    with run:
        rows = iter(run)
        next(rows)


def stop_by_stream(run: irl.Run) -> None:
    reader = pa.RecordBatchReader.from_stream(run)
    reader.read_next_batch()
    reader.close()
    del reader
    gc.collect()


@pytest.mark.parametrize(
    "stop",
    [
        stop_by_break,
        stop_by_exception,
        stop_by_close,
        stop_by_garbage,
        stop_by_async_break,
        stop_by_cancel,
        stop_by_ctrl_c,
        stop_by_with,
        stop_by_stream,
    ],
)
def test_who_stops_reading_stops_the_frames(stop: Callable[[irl.Run], None]) -> None:
    run = slow()
    stop(run)
    assert run.stats["probes_sent"] > 0
    assert not sends(run)


def test_nothing_begins_before_the_first_batch_is_asked_for() -> None:
    run = slow()
    assert run.stats == run.summary == {}
    assert run.rate is None
    assert repr(run) == "<Run, not begun>"


def test_a_stream_that_is_not_read_pauses_the_sender() -> None:
    run = scan(irl.Plan("10.0.0.0/9", ports=80, rate=0, seed=1), world=irl.World(everything_open=True), queue=2)
    rows = iter(run)
    next(rows)
    deadline = time.monotonic() + 20
    while sends(run):
        assert time.monotonic() < deadline, "the sender does not pause"
    paused = run.stats["probes_sent"]
    assert paused < 1 << 22
    next(rows)
    for _ in range(4):
        next(rows)
    assert run.stats["overruns"] == 0
    rows.close()


def test_the_rate_changes_in_flight() -> None:
    run = slow()
    rows = iter(run)
    run.rate = 1000
    threading.Thread(target=lambda: list(rows), daemon=True).start()
    time.sleep(0.3)
    before = run.stats["probes_sent"]
    time.sleep(1)
    assert run.stats["probes_sent"] - before == pytest.approx(1000, rel=0.3)
    run.stop()


def test_bounds_end_a_run() -> None:
    few = slow(max_results=1000)
    found = sum(map(len, few))
    assert 1000 <= found < 20_000
    assert found == 1000
    barren = irl.scan(
        "10.0.0.0/12", ports=81, engine="sim", world=WORLD, rate=50_000, min_hitrate=90.0, cooldown_time=0
    )
    list(barren)
    assert barren.summary["send_s"] == pytest.approx(5, abs=1.5), "a hit rate below the bound for 5 s ends a run"
    short = slow(max_runtime=0.3)
    list(short)
    assert short.summary["send_s"] == pytest.approx(0.3, abs=0.15)


# --- files -----------------------------------------------------------------------------------------------------------


def test_the_same_rows_go_to_every_file(tmp_path: Path) -> None:
    run = scan(plan_of())
    paths = [tmp_path / name for name in ("rows.parquet", "rows.csv", "rows.jsonl", "plain")]
    summary = run.write(*paths)
    parquet = pq.read_table(paths[0])
    assert parquet.num_rows == summary["found"] == run.stats["rows"]
    assert b"irlstack" in b"".join(parquet.schema.metadata or {})
    csv = pl.read_csv(paths[1])
    assert csv.columns == parquet.schema.names
    dotted = {
        f"{value >> 24}.{value >> 16 & 255}.{value >> 8 & 255}.{value & 255}" for value in parquet["saddr"].to_pylist()
    }
    assert set(csv["saddr"]) == dotted
    lines = [json.loads(line) for line in paths[2].read_text().splitlines()]
    assert {line["saddr"] for line in lines} == dotted
    assert paths[3].read_text() == paths[1].read_text()


def test_a_file_that_cannot_be_opened_is_found_before_the_first_frame(tmp_path: Path) -> None:
    run = scan(plan_of())
    with pytest.raises(FileNotFoundError):
        run.write(tmp_path / "absent/rows.csv")
    assert run.stats == {}
    with pytest.raises(irl.ConfigError, match="xls"):
        run.write(tmp_path / "rows.xls")
    assert run.stats == {}


def test_chosen_columns_only(tmp_path: Path) -> None:
    run = scan(plan_of(), output_fields=["saddr", "rtt"])
    assert pl.DataFrame(run).columns == ["saddr", "rtt"]
    with pytest.raises(irl.ConfigError, match="saddr"):
        list(scan(plan_of(), output_fields=["address"]))


# --- permission ------------------------------------------------------------------------------------------------------


def test_global_targets_need_permission_before_anything_is_opened() -> None:
    with pytest.raises(irl.PolicyError, match="--authorized"):
        irl.scan("9.9.9.0/24", ports=80, interface="no such interface")


def test_the_default_rate_serves_the_simulated_link() -> None:
    run = irl.scan("10.0.0.0/28", ports=80, engine="sim", cooldown_time=0.1)
    list(run)
    assert run.summary["rate"] == 10_000
    assert run.summary["synthetic"] is True


def test_all_four_permissions_open_the_way(tmp_path: Path) -> None:
    (tmp_path / "deny").write_text("9.9.9.0/25\n")
    policy = irl.Policy(contact="a@example.org", authorized="ticket 17", blocklist_file=tmp_path / "deny", rate=10_000)
    run = irl.scan("9.9.9.0/24", ports=80, engine="sim", policy=policy, cooldown_time=0.1)
    list(run)
    assert run.stats["probes_sent"] == 128
    assert run.summary["authorized"] == "ticket 17"
