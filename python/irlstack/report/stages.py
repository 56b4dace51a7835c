"""Where frames and answers of a run went, stage by stage: the equations of conservation, from its counters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["sum", "part", "loss"]
_Line = tuple[str, str, str, Kind]


@dataclass(frozen=True)
class Stage:
    """A line of the account.

    Attributes:
        name: the counter.
        what: what it counts, in a few words.
        meaning: the same in a sentence.
        count: how many.
        kind: a sum that the lines below it make up, a part of it, or a part that is lost.
    """

    name: str
    what: str
    meaning: str
    count: int
    kind: Kind


_SENT: tuple[_Line, ...] = (
    ("targets", "targets taken", "from the plan, in its order", "sum"),
    ("reprobed", "taken again", "in later passes, because they were silent", "part"),
    ("unresolved", "not resolved", "on our own link, and nobody has the address", "loss"),
    ("held", "put off", "times that a target waited because its prefix had had its share", "part"),
    ("unprobed", "not probed", "taken when the run ended", "loss"),
    ("probes_built", "probes built", "sent + refused by policy + refused by device", "sum"),
    ("probes_refused_by_policy", "refused by policy", "denied while running, opted out, or never allowed", "part"),
    ("probes_refused_by_device", "refused by device", "it was gone, or the run was stopped", "loss"),
    ("probes_sent", "sent", "taken by the device", "part"),
    ("device_lost", "lost in the device", "frames of any kind that it refused too late to offer them again", "loss"),
    ("resets_sent", "RSTs of ours sent", "so that nobody waits for us", "sum"),
    ("resets_skipped", "RSTs left out", "too many were owed, or the way was not known", "part"),
)
_OF_AN_EXCHANGE: tuple[_Line, ...] = (
    ("segments_built", "segments built", "sent + refused by policy + refused by device", "sum"),
    ("segments_refused_by_policy", "refused by policy", "denied while running", "part"),
    ("segments_refused_by_device", "refused by device", "it was gone, or the run was stopped", "loss"),
    ("segments_sent", "sent", "taken by the device", "part"),
    ("connections_opened", "connections opened", "the sum of how they ended", "sum"),
    ("connections_reset", "reset by us", "", "part"),
    ("connections_finished", "closed by both", "", "part"),
    ("connections_reset_by_peer", "reset by the peer", "", "part"),
    ("connections_timed_out", "timed out", "the peer fell silent", "part"),
    ("connections_unreachable", "unreachable", "an ICMP error said so", "part"),
    ("connections_aborted", "broken off", "the run was stopped", "part"),
    ("silent", "silent targets", "as far as they are rows", "sum"),
)
_RECEIVED: tuple[_Line, ...] = (
    ("rows", "rows", "given to the outputs", "part"),
    ("repeats", "repeats", "of targets that had answered before", "part"),
    ("unselected", "not selected", "answers that were not asked for, such as RSTs", "part"),
    ("not_ours", "not ours", "no answer to this run", "part"),
    ("invalid", "invalid", "a wrong checksum or content", "loss"),
    ("neighbours", "neighbour frames", "ARP and neighbour discovery", "part"),
    ("fragments", "fragments", "which no probe expects", "part"),
)
_SEGMENTS: tuple[_Line, ...] = (
    ("segments_received", "segments", "of connections", "part"),
    ("errors_received", "ICMP errors", "about connections", "part"),
)
_LOST: tuple[_Line, ...] = (
    ("overruns", "lost before they were read", "beside these: a worker did not drain its ring in time", "loss"),
)


def of(document: Mapping[str, Any]) -> list[Stage]:
    """The account of a run, of the counters that its metadata has."""
    stats = document["stats"]
    if "exchanged" in document:
        whole = "with connections and silent targets, the sum of the lines from here to ICMP errors"
        lines = (
            *_SENT,
            *_OF_AN_EXCHANGE,
            ("received", "records received", whole, "sum"),
            *_RECEIVED,
            *_SEGMENTS,
            *_LOST,
        )
    else:
        whole = "the sum of the lines from here to fragments"
        lines = (*_SENT, ("received", "records received", whole, "sum"), *_RECEIVED, *_LOST)
    account = [Stage(name, what, why, stats[name], kind) for name, what, why, kind in lines if name in stats]
    if "rows_lost" in document:
        lost = document["rows_lost"]
        account.append(Stage("rows_lost", "rows lost", "given to outputs that could not keep them", lost, "loss"))
    return account


def rows_kept(document: Mapping[str, Any]) -> int | None:
    """Rows that each output should have; None where that cannot be told."""
    if document.get("rows_lost") or "rows" not in document["stats"]:
        return None
    return int(document["stats"]["rows"])
