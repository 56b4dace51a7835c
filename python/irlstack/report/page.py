"""A run as one HTML page that needs nothing else, neither network nor other files."""

import base64
import json
import zlib
from collections.abc import Callable, Mapping
from datetime import datetime
from html import escape
from importlib.resources import files
from itertools import pairwise
from typing import Any

from irlstack._core import __version__
from irlstack.cli import quantity
from irlstack.report import charts, losses, named, stages
from irlstack.report.flagging import Flags
from irlstack.report.hilbert import HilbertMap, on_map
from irlstack.report.recorded import Recorded
from irlstack.report.tally import BINS_A_DECADE, RoundTrips, Tally, View, bin_edge

_MOST_POINTS = 600
_MOST_MAP_BYTES = 8 << 20
"""Of compressed maps in a page; the others have to be asked for by prefix."""
_MOST_LISTED = 12
_NAN = float("nan")

_MOST_FLAGS = 50


def page(run: Recorded, tally: Tally | None, flags: Flags) -> str:
    """The page.

    Args:
        run: the run; what its metadata does not tell is left out or said to be unknown.
        tally: what its rows add up to; None where there are none at hand.
        flags: prefixes that answer everywhere.
    """
    document = run.document
    title = f"{document['probe_module']}, {_started(document)}"
    sections = [
        _warnings(run, tally),
        _tiles(document, tally),
        _over_time(document),
        "" if tally is None else _answers(tally, document),
        "" if tally is None else _round_trips(tally.round_trips),
        _losses(document),
        "" if tally is None else _map(tally, _counted(tally)),
        "" if tally is None else _flags(flags),
        _how(document),
    ]
    body = "\n".join(section for section in sections if section)
    return (
        '<!DOCTYPE html>\n<html lang="en" xmlns="http://www.w3.org/1999/xhtml">\n<head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width"/>'
        f'<meta name="generator" content="irlstack {__version__}"/><title>{escape(title)}</title>\n'
        f"<style>\n{_asset('style.css')}</style></head>\n<body>\n<header><h1>{escape(title)}</h1>\n"
        f"{_lead(document)}</header>\n{body}\n</body></html>\n"
    )


def number(name: str, value: float, text: str | None = None) -> str:
    """A number of the page, by its name and exact value beside what is read."""
    shown = f"{value:,}" if text is None else text
    return f'<data data-name="{escape(name)}" value="{value}">{escape(shown)}</data>'


def _asset(name: str) -> str:
    return files("irlstack.report").joinpath(name).read_text(encoding="utf-8")


def _started(document: Mapping[str, Any]) -> str:
    start = document.get("start_time")
    return "never begun" if start is None else f"{datetime.fromisoformat(start):%Y-%m-%d %H:%M} UTC"


def _lead(document: Mapping[str, Any]) -> str:
    ports = str(document.get("target_ports") or "").removeprefix("0")
    words = [
        f"{len(document.get('source_ips') or [])} source address(es)",
        f"engine {document.get('engine', 'unknown')}",
        f"plan {document['plan_fingerprint'][:16]}",
        f"irlstack {document.get('version', 'unknown')}",
    ]
    if ports:
        words.insert(0, f"port {ports}")
    notes = f"<p>{escape(str(document['notes']))}</p>" if document.get("notes") else ""
    return f'<p class="lead">{escape(" · ".join(words))}</p>{notes}'


def _warnings(run: Recorded, tally: Tally | None) -> str:
    document, said = run.document, []
    if document.get("synthetic"):
        said.append("Synthetic: the hosts were made up and answered inside the process. No frame left the machine.")
    if document.get("unsent"):
        said.append("A dry run, or answers judged again: no frame was sent.")
    if document.get("kernel_rst"):
        said.append("The kernel sent RSTs of its own for answers that it saw: this run had no filter.")
    if document.get("error"):
        said.append(f"The run ended early: {document['error']}")
    if document.get("interrupted"):
        said.append("The run was interrupted; what it had until then is here.")
    said += [f"The counters do not balance: {each}." for each in document.get("imbalances") or ()]
    if tally is None:
        said.append("Without the file of its rows: round-trip times, answers by kind and the map are not here.")
    elif (kept := stages.rows_kept(document)) is not None and kept != tally.rows:
        said.append(f"The file has {tally.rows:,} rows, but the run says that it wrote {kept:,}: is it this run's?")
    return "\n".join(f'<p class="warning">{escape(each)}</p>' for each in said)


def _tiles(document: Mapping[str, Any], tally: Tally | None) -> str:
    stats = document["stats"]
    tiles = []

    def tile(label: str, value: str) -> None:
        tiles.append(f"<div><dt>{label}</dt><dd>{value}</dd></div>")

    for label, name in (("targets", "targets"), ("probes sent", "probes_sent"), ("answered", "answered")):
        if name in stats:
            tile(label, number(name, stats[name]))
    tile("found", number("found", document["found"]))
    if "hitrate" in document:
        tile("found of probes", number("hitrate", document["hitrate"], f"{document['hitrate']:.3g} %"))
    if "send_s" in document:
        tile("sending took", number("send_s", document["send_s"], quantity.show_seconds(document["send_s"])))
        tile("at", number("send_rate", document["send_rate"], quantity.show_rate(document["send_rate"], "pps")))
    if tally is not None:
        tile("rows", number("rows", tally.rows))
    return f'<dl class="tiles">{"".join(tiles)}</dl>'


def _over_time(document: Mapping[str, Any]) -> str:
    seconds = document.get("per_second") or []
    if not seconds:
        return "<h2>Over time</h2><p>The metadata has no status by second.</p>"
    steps = _steps(seconds)
    sent = [(at, probes / step) for at, step, probes, _ in steps]
    found = [(at, new / step) for at, step, _, new in steps]
    # After the last probe answers still come: there is no rate of them then.
    hits = [(at, 100 * new / probes if probes else _NAN) for at, _, probes, new in steps]
    each = "second" if len(steps) == len(seconds) else f"{len(seconds) / len(steps):.1f} seconds"
    last = seconds[-1]
    return (
        "<h2>Over time</h2>"
        f"<figure>{charts.lines('probes sent a second', 'probes sent / s', 's', [('sent', sent)])}"
        f"{charts.lines('targets found a second', 'targets found / s', 's', [('found', found)])}"
        f"{charts.lines('hit rate', 'hit rate, %', 's', [('share', hits)])}"
        f"<figcaption>A point for each {each}; the hit rate is what was found in that time of what was sent in it. "
        f"After {number('elapsed_s', last['elapsed_s'], quantity.show_seconds(last['elapsed_s']))}: "
        f"{number('seconds_sent', last['sent'])} probes, {number('seconds_found', last['found'])} found, "
        f"{number('seconds_lost', last['lost'])} answers lost before they were read.</figcaption></figure>"
    )


def _steps(seconds: list[dict[str, Any]]) -> list[tuple[float, float, int, int]]:
    """(end, length, probes, found) of steps of time: seconds, or several of them in a long run."""
    stride = -(-len(seconds) // _MOST_POINTS)
    chosen = seconds[stride - 1 :: stride]
    if chosen[-1] is not seconds[-1]:
        chosen = [*chosen, seconds[-1]]
    start = {"elapsed_s": 0.0, "sent": 0, "found": 0}
    return [
        (new["elapsed_s"], step, new["sent"] - old["sent"], new["found"] - old["found"])
        for old, new in pairwise([start, *chosen])
        if (step := new["elapsed_s"] - old["elapsed_s"]) > 0
    ]


def _answers(tally: Tally, document: Mapping[str, Any]) -> str:
    tables = [_counts("classification", "answer", "class", tally.classes.most_common(), tally.rows)]
    if tally.found is not None and len(tally.ports) > 1:
        tables.append(_counts("port", "found on port", "port", tally.ports.most_common(), tally.found))
    if len(tally.probes) > 1:
        tables.append(_counts("probe number", "answers to probe", "probe", sorted(tally.probes.items()), tally.rows))
    selected = document.get("rows_selected", "unknown")
    repeats = f" {number('row_repeats', tally.repeats)} of them are repeats." if tally.repeats else ""
    note = f'<p class="note">Rows of the file; the run wrote: {escape(str(selected))}.{repeats}</p>'
    return f'<h2>Answers</h2>{note}<div class="columns">{"".join(tables)}</div>'


def _counts(kind: str, head: str, name: str, counts: list[tuple[Any, int]], total: int) -> str:
    if not counts:
        return f"<p>The file has no column for the {kind}.</p>"
    rows = [
        f'<tr><th scope="row">{escape(str(key))}</th><td class="number">{number(f"{name}:{key}", count)}</td>'
        f'<td class="number">{100 * count / total:.2f} %</td></tr>'
        for key, count in counts[:_MOST_LISTED]
    ]
    if rest := counts[_MOST_LISTED:]:
        others = sum(count for _, count in rest)
        rows.append(
            f'<tr><th scope="row">{len(rest):,} others</th>'
            f'<td class="number">{number(f"{name}:others", others)}</td>'
            f'<td class="number">{100 * others / total:.2f} %</td></tr>'
        )
    return (
        f'<table><thead><tr><th>{head}</th><th class="number">rows</th><th class="number">share</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _round_trips(times: RoundTrips | None) -> str:
    head = "<h2>Round-trip times</h2>"
    if times is None or not times.count:
        return f"{head}<p>No row has one: the probe carries no time, or the column was not asked for.</p>"
    first = next(at for at, count in enumerate(times.bins) if count)
    last = max(at for at, count in enumerate(times.bins) if count)
    # Whole decades on both sides, so that two reports can be laid beside each other.
    first, last = first // BINS_A_DECADE * BINS_A_DECADE, (last // BINS_A_DECADE + 1) * BINS_A_DECADE
    shown = times.bins[first:last]
    titles = [
        f"{duration(bin_edge(first + at))} to {duration(bin_edge(first + at + 1))}: {count:,} rows"
        for at, count in enumerate(shown)
    ]
    ticks = [(at, duration(bin_edge(first + at))) for at in range(0, len(shown) + 1, BINS_A_DECADE)]
    marks = [("shortest", "rtt:least", times.least)]
    marks += [
        ("median" if share == 0.5 else f"{share:.0%}", f"rtt:{share:g}", at) for share, at in times.quantiles.items()
    ]
    marks.append(("longest", "rtt:most", times.most))
    heads = "".join(f'<th class="number">{label}</th>' for label, _, _ in marks)
    cells = "".join(f'<td class="number">{number(name, value, duration(value))}</td>' for _, name, value in marks)
    absent = f" {number('rtt:absent', times.absent)} rows have none." if times.absent else ""
    return (
        f"{head}<figure>{charts.histogram('round-trip times', 'rows', shown, ticks, titles)}"
        f"<figcaption>{number('rtt:count', times.count)} rows with a round-trip time, {BINS_A_DECADE} bars to a factor "
        f"of ten; the line is the share of rows up to there.{absent}</figcaption></figure>"
        f"<table><thead><tr>{heads}</tr></thead><tbody><tr>{cells}</tr></tbody></table>"
    )


def duration(ns: float) -> str:
    """A time in ns as people read it: three figures and a unit.

    >>> duration(63_000), duration(1e9), duration(100)
    ('63 µs', '1 s', '100 ns')
    """
    for factor, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "µs")):
        if ns >= 0.9995 * factor:
            return f"{ns / factor:.3g} {unit}"
    return f"{ns:.3g} ns"


def _losses(document: Mapping[str, Any]) -> str:
    rows = []
    for stage in stages.of(document):
        kind = {"sum": "sum", "loss": "part loss", "part": "part"}[stage.kind]
        if stage.kind == "loss" and not stage.count:
            kind = "part"
        rows.append(
            f'<tr class="{kind}"><th scope="row">{escape(stage.what)}</th>'
            f'<td class="number">{number(f"stage:{stage.name}", stage.count)}</td>'
            f'<td class="told">{escape(stage.meaning)}</td></tr>'
        )
    return (
        '<h2>Where frames and answers went</h2><p class="note">Every frame that was built and every answer that was '
        f"received is in one of these. {_network(document)}</p><table><tbody>{''.join(rows)}</tbody></table>"
        f"{_passes(document)}"
    )


def _network(document: Mapping[str, Any]) -> str:
    """What is known of losses in the network."""
    told = losses.sentences(document)
    if not told:
        return (
            "What the network lost is not known to the sender; runs with --probes, --reprobe or --recheck tell from "
            "their own answers how much it was."
        )
    return escape(" ".join(told) + " Ranges are 95 % intervals.")


def _named(each: Mapping[str, Any]) -> str:
    return "recheck" if each.get("recheck") else str(each["pass"])


def _passes(document: Mapping[str, Any]) -> str:
    passes = document.get("passes") or []
    if len(passes) < 2:
        return ""
    columns = ("targets", "sent", "found", "answered")
    rows = "".join(f'<tr><th scope="row">{_named(each)}</th>{_pass_cells(each, columns)}</tr>' for each in passes)
    heads = "".join(f'<th class="number">{name}</th>' for name in columns)
    return (
        f"<table><thead><tr><th>pass</th>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        '<p class="note">The later a target is found, the more of the earlier probes to it, or answers, were lost.</p>'
    )


def _pass_cells(one: Mapping[str, Any], columns: tuple[str, ...]) -> str:
    cells = (number(f"pass:{one['pass']}:{name}", one[name]) for name in columns)
    return "".join(f'<td class="number">{cell}</td>' for cell in cells)


def _counted(tally: Tally) -> str:
    return "answers" if tally.found is None else "targets found"


def _map(tally: Tally, what: str) -> str:
    first = next(view for view in tally.views if view.prefix == tally.first)
    shown = HilbertMap(first.prefix, on_map(first.counts), what)
    views, left_out, size = {}, tally.left_out, 0
    for view in sorted(
        tally.views, key=lambda each: (each is not first, each.prefix.prefixlen, -int(each.counts.sum()))
    ):
        packed = base64.b64encode(zlib.compress(view.counts.astype("<u4").tobytes(), 6)).decode()
        if size and size + len(packed) > _MOST_MAP_BYTES:
            left_out += 1
            continue
        size += len(packed)
        drawn = HilbertMap(view.prefix, view.counts.reshape(256, 256), what)
        views[_key(view)] = {
            "prefix": str(view.prefix),
            "cells": packed,
            "title": drawn.title,
            "legend": drawn.legend(shown.name),
        }
    data = {"what": what, "ipv6": first.prefix.version == 6, "first": _key(first), "views": views}
    more = f" {left_out:,} further maps are not in this page; irlstack report --prefix shows one." if left_out else ""
    cell = first.prefix.prefixlen + 16
    return (
        f'<h2>Where they are</h2><figure id="map"><div class="crumbs"></div>{shown.svg()}<p id="here"></p>'
        "<figcaption>A Hilbert curve: the lowest address is upper left, the highest upper right; a "
        f"prefix is a square, and near addresses are near. Click on a square to open it.{more}</figcaption></figure>"
        f"{_top_cells(first, cell, what)}"
        f'<script type="application/json" id="map-data">{_json(data)}</script>'
        f"<script>\n{_asset('map.js')}</script>"
    )


def _flags(flags: Flags) -> str:
    """Prefixes and addresses whose answers should not be taken for hosts."""
    head = "<h2>Who answers everywhere</h2>"
    if not flags.looked_at:
        return f'{head}<p class="note">This run cannot tell: {escape(flags.why)}.</p>'
    rows = "".join(
        f'<tr><th scope="row">{each.prefix}</th><td class="text">{each.kind}</td>'
        f'<td class="number">{number(f"flag:{each.prefix}", each.found)}</td>'
        f'<td class="number">{each.probed:,}</td></tr>'
        for each in flags.flags[:_MOST_FLAGS]
    )
    more = len(flags.flags) - _MOST_FLAGS
    rest = f" {more:,} more are not shown; irl.report.flags has them." if more > 0 else ""
    columns = '<th></th><th></th><th class="number">found</th><th class="number">probed</th>'
    table = f"<table><thead><tr>{columns}</tr></thead><tbody>{rows}</tbody></table>" if rows else ""
    return (
        f'{head}<p class="note">/24s in which at least 90 % of the targets were found (packed), and other addresses '
        "that answer on at least 90 % of the ports: rarely hosts, rather one box that answers for all. "
        f"{len(flags.flags):,} were found.{rest}</p>{table}"
    )


def _key(view: View) -> str:
    """The bytes that a prefix fixes, in hex."""
    return view.prefix.network_address.packed[: view.prefix.prefixlen // 8].hex()


def _top_cells(view: View, cell: int, what: str) -> str:
    """The cells of a map with the most, for those who want to read and not to look."""
    order = (-view.counts.astype("int64")).argsort(kind="stable")[:8]
    rows = []
    for at in order:
        count = int(view.counts[at])
        if count:
            packed = bytearray(view.prefix.network_address.packed)
            start = view.prefix.prefixlen // 8
            packed[start : start + 2] = int(at).to_bytes(2)
            name = str(type(view.prefix)((bytes(packed), cell)))
            rows.append(
                f'<tr><th scope="row">{name}</th><td class="number">{number(f"prefix:{name}", count)}</td></tr>'
            )
    head = f'<thead><tr><th>/{cell} with the most</th><th class="number">{what}</th></tr></thead>'
    return f"<table>{head}<tbody>{''.join(rows)}</tbody></table>" if rows else ""


def _json(value: object) -> str:
    """JSON that may stand in HTML and XML."""
    text = json.dumps(value)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


_HOW: dict[str, Callable[[Mapping[str, Any]], object]] = {
    "command": lambda of: " ".join(of["argv"]) if of.get("argv") else None,
    "probe arguments": lambda of: _pairs(of.get("probe_args")),
    "started": lambda of: of.get("start_time"),
    "ended": lambda of: of.get("recv_end_time"),
    "ended by": lambda of: of.get("ended_by"),
    "asked for": lambda of: None if of.get("rate") is None else _asked(of["rate"]),
    "sources": lambda of: ", ".join(of.get("source_ips") or []),
    "source ports": lambda of: (
        f"{of['source_port_first']}-{of['source_port_last']}" if "source_port_first" in of else ""
    ),
    "interface": lambda of: (
        f"{of.get('iface')} ({of.get('driver') or 'no driver'}), Linux {of.get('kernel') or 'unknown'}"
    ),
    "engine": lambda of: f"{of.get('engine')}: {of.get('engine_why')}",
    "plan": lambda of: of["plan_fingerprint"],
    "targets": lambda of: named.targets(of),
    "seed": lambda of: of.get("seed"),
    "shard": lambda of: f"{of['shard_num']} of {of['total_shards']}" if "total_shards" in of else None,
    "addresses": lambda of: _allowed(of),
    "deny files": lambda of: ", ".join(named.deny_files(of)),
    "opt-out file": lambda of: named.optout(of),
    "prefix budget": lambda of: named.budget(of),
    "IANA registry of": lambda of: of.get("iana_snapshot"),
    "repeats known by": lambda of: of.get("dedup_method"),
    "contact": lambda of: of.get("contact"),
    "authorised by": lambda of: of.get("authorized"),
    "clock": lambda of: _clock(of.get("clock")),
}


def _how(document: Mapping[str, Any]) -> str:
    rows = []
    for name, find in _HOW.items():
        value = find(document)
        shown = "not in the metadata" if value in (None, "") else str(value)
        rows.append(f'<tr><th scope="row">{name}</th><td class="text">{escape(shown)}</td></tr>')
    return f"<h2>How it was done</h2><table><tbody>{''.join(rows)}</tbody></table>"


def _pairs(arguments: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{name}={value}" for name, value in (arguments or {}).items()) or "the probe's own"


def _asked(rate: float) -> str:
    return quantity.show_rate(rate, "pps") if rate else "as fast as goes without loss of ours"


def _allowed(document: Mapping[str, Any]) -> str | None:
    if "blocklist_total_allowed" not in document:
        return None
    kept, cut = int(document["blocklist_total_allowed"]), int(document["blocklist_total_not_allowed"])
    return f"{kept:,} probed, {cut:,} cut out by deny list and registry"


def _clock(clock: Mapping[str, Any] | None) -> str | None:
    if not clock:
        return None
    return (
        f"{'kept' if clock['synchronised'] else 'not kept'} in step with UTC, error up to {clock['max_error_us']:,} µs"
    )
