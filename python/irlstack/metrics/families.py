"""Which numbers of a run are served, under which names."""

import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
    StateSetMetricFamily,
    UnknownMetricFamily,
)

import irlstack
from irlstack.run import Run

PREFIX = "irlstack_"
_CLASSES = {"probe": "probes", "reset": "resets", "segment": "segments", "neighbour": "neighbour"}


@dataclass(frozen=True)
class Counters:
    """A family of counters of `Run.stats`.

    Attributes:
        name: without prefix and suffix.
        meaning: a sentence.
        labels: their names.
        fields: the field of each sample, by the values of its labels.
        unit: in the words of OpenMetrics.
    """

    name: str
    meaning: str
    labels: tuple[str, ...]
    fields: Mapping[tuple[str, ...], str]
    unit: str = ""


def _one(name: str, field: str, meaning: str, unit: str = "") -> Counters:
    return Counters(name, meaning, (), {(): field}, unit)


def _by(name: str, label: str, meaning: str, **fields: str) -> Counters:
    return Counters(name, meaning, (label,), {(value,): field for value, field in fields.items()})


COUNTERS = (
    _by("frames_built", "class", "Frames built.", **{name: f"{each}_built" for name, each in _CLASSES.items()}),
    _by("frames_sent", "class", "Frames taken by the device.", **{n: f"{each}_sent" for n, each in _CLASSES.items()}),
    Counters(
        "frames_refused",
        "Frames refused by the policy, or given up because the device was gone or the run stopped.",
        ("class", "by"),
        {(name, by): f"{each}_refused_by_{by}" for name, each in _CLASSES.items() for by in ("policy", "device")},
    ),
    _by(
        "frames_skipped",
        "class",
        "Frames that were due and not built.",
        reset="resets_skipped",
        segment="segments_skipped",
    ),
    _one("frames_lost", "device_lost", "Frames counted as sent that the device refused too late to offer them again."),
    _one("device_full", "device_full", "Times that the device said it is full; nothing is lost by it."),
    _one(
        "sendto_failures",
        "sendto_failures",
        "Times that the device said so --retries times in a row and took no frame.",
    ),
    _one("targets_taken", "targets", "Targets taken from the plan."),
    _one("targets_reprobed", "reprobed", "Targets taken again in later passes, in every pass anew."),
    _one("targets_unresolved", "unresolved", "On-link targets whose MAC nobody gave, and not probed for it."),
    _one("targets_held", "held", "Times that a target had to wait because its prefix had had its share."),
    _one("records_received", "received", "Records received."),
    _by(
        "records",
        "outcome",
        "What became of records; in an exchange the rows are of connections and of the silent.",
        row="rows",
        repeat="repeats",
        unselected="unselected",
        not_ours="not_ours",
        invalid="invalid",
        neighbour="neighbours",
        fragment="fragments",
        segment="segments_received",
        error="errors_received",
    ),
    _one("records_lost", "overruns", "Records that were lost because they were not read in time."),
    _one("targets_found", "found", "Targets found: first successes."),
    _one("targets_answered", "answered", "Targets that answered in any way."),
    _one("successes", "successes", "Successes, repeats included."),
    _one("cooldown_successes", "cooldown_successes", "Successes after the last probe, repeats included."),
    _one("cooldown_targets_found", "cooldown_found", "Targets found after the last probe."),
    _one("answers_crossed", "crossed", "Answers that came by another interface than their probe went."),
    _by(
        "recheck_probed",
        "was",
        "Targets probed again at the end.",
        found="recheck_found_probed",
        other="recheck_others_probed",
    ),
    _by(
        "recheck_found",
        "was",
        "Targets that were found when probed again at the end.",
        found="recheck_found_again",
        other="recheck_others_found",
    ),
    _by(
        "pauses",
        "because_of",
        "Times that sending paused.",
        rows="pauses",
        memory="memory_pauses",
        connections="connection_pauses",
    ),
    _one("connections_opened", "connections_opened", "Connections opened."),
    _by(
        "connections_closed",
        "how",
        "Connections that are over: reset by us, finished by both sides, or ended otherwise.",
        reset="connections_reset",
        finished="connections_finished",
        reset_by_peer="connections_reset_by_peer",
        timed_out="connections_timed_out",
        unreachable="connections_unreachable",
        aborted="connections_aborted",
    ),
    _one("targets_refused", "refused", "Targets that refused a connection."),
    _one("targets_silent", "silent", "Targets silent to the end, where they become rows."),
    _one("exchanges", "exchanged", "Exchanges that ended as asked."),
    _by(
        "turned_away",
        "because_of",
        "SYN-ACKs turned away for the time being.",
        prefix="turned_away",
        table="table_full",
    ),
    _one("response", "bytes_received", "Bytes of responses that came in order.", "bytes"),
    _one("retransmits", "retransmits", "Segments of ours sent again."),
    _one("out_of_order", "out_of_order", "Segments that came out of order."),
    _one(
        "out_of_order_dropped",
        "out_of_order_dropped",
        "Segments that came out of order and were dropped for want of memory.",
    ),
)

GAUGES = {
    "waiting": ("targets_waiting", "Targets taken that wait for their prefix's turn or their neighbour's MAC."),
    "unprobed": ("targets_unprobed", "Targets taken that nobody has at present, or that the run ended before."),
    "probes_planned": ("probes_planned", "Probes of this shard when nothing ends it early."),
    "pass": ("pass", "Which pass over the targets this is, from 0."),
    "passes": ("passes", "How many there are when nothing ends the run early."),
}
"""Fields of `Run.stats` that may go down."""
ELSEWHERE = frozenset({"elapsed_s", "rate", "sending"})
"""Fields of it that are served in another form."""
_KNOWN = frozenset(field for each in COUNTERS for field in each.fields.values()) | GAUGES.keys() | ELSEWHERE


class Families:
    """What `prometheus_client` asks at each scrape: the numbers of one moment."""

    def __init__(self, run: "weakref.ref[Run]") -> None:
        self._run = run

    def collect(self) -> Iterator[Metric]:
        """The families; of a run that has not begun only its state."""
        run = self._run()
        at = {} if run is None else run.snapshot()
        state = _state(at)
        yield StateSetMetricFamily(PREFIX + "run_state", "What the run is doing.", state)
        if at:
            yield _info(at)
            yield from _counters(at["stats"])
            yield from _progress(at)
            yield from _workers(at)


def _state(at: Mapping[str, Any]) -> dict[str, bool]:
    now = "not_begun"
    if at:
        now = "done" if at["finished"] else "sending" if at["stats"]["sending"] else "receiving"
    return {each: each == now for each in ("not_begun", "sending", "receiving", "done")}


def _info(at: Mapping[str, Any]) -> Metric:
    labels = {
        "version": irlstack.__version__,
        "run": at["run"],
        "engine": at["engine"],
        "interface": at["iface"],
        "synthetic": str(at["synthetic"]).lower(),
        "probe_module": at["probe_module"],
        "plan_fingerprint": at["plan_fingerprint"],
        "shard": str(at["shard_num"]),
        "shards": str(at["total_shards"]),
    }
    return InfoMetricFamily(PREFIX + "run", "What the run is; synthetic: no frame leaves the machine.", labels)


def _counters(stats: Mapping[str, Any]) -> Iterator[Metric]:
    for each in COUNTERS:
        family = CounterMetricFamily(PREFIX + each.name, each.meaning, labels=each.labels, unit=each.unit)
        for values, field in each.fields.items():
            family.add_metric(values, stats[field])
        yield family
    for field, (name, meaning) in GAUGES.items():
        yield GaugeMetricFamily(PREFIX + name, meaning, stats[field])
    # A counter that was added and has no name here is served all the same.
    for field in sorted(stats.keys() - _KNOWN):
        yield UnknownMetricFamily(PREFIX + field, f"The field {field} of the statistics.", float(stats[field]))


def _progress(at: Mapping[str, Any]) -> Iterator[Metric]:
    stats = at["stats"]
    sending, sent, planned, elapsed_s = (
        stats[name] for name in ("sending", "probes_sent", "probes_planned", "elapsed_s")
    )
    done = min(1.0, sent / max(planned, 1)) if sending else 1.0
    left = max(0, planned - sent) if sending else 0

    def gauge(name: str, meaning: str, value: float, unit: str = "") -> Metric:
        return GaugeMetricFamily(PREFIX + name, meaning, value, unit=unit)

    yield gauge("positions", "Positions of the shard that have been taken, of the first pass.", at["watermark"])
    yield gauge("positions_planned", "Positions of the shard.", at["positions"])
    yield gauge("progress", "Probes sent of those planned; 1 when no more are sent.", done, "ratio")
    yield gauge("start_time", "When the run began, since the epoch.", at["start_s"], "seconds")
    yield gauge("elapsed", "How long the run has gone on.", elapsed_s, "seconds")
    if sent or not sending:
        left_s = left * elapsed_s / sent if left else 0.0
        yield gauge("remaining", "Until the last probe, at the mean rate so far.", left_s, "seconds")
    asked = "Probes a second asked for; 0 while the fastest is searched for."
    yield gauge("asked_probes_per_second", asked, stats["rate"])
    yield gauge("sent_probes_per_second", "Probes a second over the last whole second.", at["rate_now"])
    yield gauge("queue_batches", "Batches of rows that wait for their reader.", at["queue"])
    yield gauge("queue_batches_most", "How many may wait before sending pauses.", at["queue_most"])
    filtered = CounterMetricFamily(PREFIX + "filter", "What the filter counted, by name.", labels=["counter"])
    for name, count in at["filter"].items():
        filtered.add_metric([name], count)
    if at["filter"]:
        yield filtered


def _workers(at: Mapping[str, Any]) -> Iterator[Metric]:
    """What each worker did; of a run that was gone on with, in this session."""
    for name, field, meaning in (
        ("worker_probes_sent", "probes_sent", "Probes sent by each worker, in this session."),
        ("worker_records_received", "received", "Records received by each worker, in this session."),
        ("worker_records_lost", "overruns", "Records lost by each worker, in this session."),
    ):
        family = CounterMetricFamily(PREFIX + name, meaning, labels=["worker", "interface"])
        for number, worker in enumerate(at["workers"]):
            family.add_metric([str(number), worker["iface"]], worker[field])
        yield family
