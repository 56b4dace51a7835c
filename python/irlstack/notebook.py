"""What a notebook shows of a run: a short table."""

from collections.abc import Mapping
from html import escape
from typing import Any


def table(state: str, document: Mapping[str, Any]) -> str:
    """A run as an HTML table: what it is, what it sent and found, what was lost on our side, and how fast it went.

    Args:
        state: in a word.
        document: its metadata; empty before it has begun.
    """
    lines = [("state", state), *(_lines(document) if document else ())]
    rows = "".join(
        f'<tr><th scope="row" style="text-align:left">{escape(name)}</th>'
        f'<td style="text-align:left">{escape(value)}</td></tr>'
        for name, value in lines
    )
    return f"<table><tbody>{rows}</tbody></table>"


def _lines(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    # Late: the words for numbers are the command line's, which needs all of irlstack.
    from irlstack.cli.quantity import show_rate, show_seconds
    from irlstack.report.named import targets

    stats = document["stats"]
    synthetic = ", synthetic: no frame leaves the machine" if document["synthetic"] else ""
    if document.get("unsent"):
        synthetic = ": nothing was sent"
    lost = [
        (stats["probes_refused_by_device"], "probes not taken by the device"),
        (stats["device_lost"], "frames lost in it"),
        (stats["overruns"], "answers not read in time"),
        (document["rows_lost"], "rows not written"),
    ]
    told = ", ".join(f"{count:,} {what}" for count, what in lost if count)
    asked = show_rate(document["rate"], "pps") if document["rate"] else "as fast as goes without loss of ours"
    lines = [
        ("engine", f"{document['engine']} on {document['iface']}{synthetic}"),
        ("probe", document["probe_module"]),
        ("targets", _short(targets(document, most=3) or "unknown")),
        ("ports", document["target_ports"]),
        ("probes sent", f"{stats['probes_sent']:,} of {stats['probes_planned']:,}"),
        ("found", f"{stats['found']:,} ({document['hitrate']:.3g} % of the probes)"),
        ("lost on our side", told or "nothing"),
        ("rate", f"{show_rate(document['send_rate'], 'pps')} (asked for: {asked})"),
        ("time", show_seconds(stats["elapsed_s"])),
    ]
    if document["error"]:
        lines.append(("error", document["error"]))
    return lines


def _short(text: str, most: int = 120) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
