"""`irlstack methods`: what a paper has to say of a run, from the metadata alone; what they do not tell is said too."""

import textwrap
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from irlstack.report import losses, named
from irlstack.report.flagging import Flags, flagged

_COLUMNS = 80
_PROBES = {
    "tcp_synscan": "TCP SYN probes",
    "tcp_synackscan": "TCP SYN-ACK probes",
    "icmp_echoscan": "ICMP echo requests",
    "udp": "UDP datagrams",
    "dns": "DNS queries over UDP",
    "ntp": "NTP client requests",
}
SOFTWARE_TITLE = "IRLstack: Internet measurement from Python with a Rust and eBPF core"
SOFTWARE_AUTHOR = "The IRLstack contributors"
PAPER_TITLE = "Enabling High-Performance Internet-Wide Measurements on Windows"
PAPER_AUTHORS = ("Smith, Matt", "Loguinov, Dmitri")
PAPER_PLACE, PAPER_YEAR = "Passive and Active Measurement (PAM)", 2010


def methods(document: Mapping[str, Any], flags: Flags | None = None) -> str:
    """The methods paragraph of a run, its unknowns, and BibTeX for what it cites.

    Args:
        document: the run's metadata.
        flags: what its rows say of prefixes that answer everywhere, where they are at hand.
    """
    unknown: list[str] = []
    sentences = [
        _what(document, unknown),
        _named(document, unknown),
        _order(document, unknown),
        _pace(document, unknown),
        _where_from(document, unknown),
        _left_out(document, unknown),
        _manners(document, unknown),
        _outcome(document, unknown),
        _dialogue(document),
        _loss(document, unknown),
        "" if flags is None else flagged(flags),
        _clock(document, unknown),
    ]
    if document.get("synthetic"):
        sentences.insert(0, "No host of the Internet was measured: all were made up, and no frame left the machine.")
    if document.get("unsent"):
        sentences.insert(0, "No frame was sent: this was a dry run, or answers captured earlier were judged again.")
    if document.get("interrupted") or document.get("error"):
        why = document.get("error") or "it was interrupted"
        sentences.append(f"The run did not end as planned: {str(why).rstrip('.')}.")
    text = _filled(" ".join(each for each in sentences if each))
    missing = _filled(f"The metadata do not tell: {'; '.join(unknown) or 'nothing that is asked here'}.")
    return f"{text}\n\n{missing}\n\n{bibtex(str(document.get('version') or 'unknown'))}"


def bibtex(version: str) -> str:
    """Entries for the software in this version, and for the paper whose system it rebuilds."""
    return (
        f"@software{{irlstack,\n  author = {{{{{SOFTWARE_AUTHOR}}}}},\n  title = {{{{{SOFTWARE_TITLE}}}}},\n"
        f"  version = {{{version}}},\n}}\n\n"
        f"@inproceedings{{smith2010enabling,\n  author = {{{' and '.join(PAPER_AUTHORS)}}},\n"
        f"  title = {{{{{PAPER_TITLE}}}}},\n  booktitle = {{{PAPER_PLACE}}},\n  year = {{{PAPER_YEAR}}},\n}}\n"
    )


def _filled(text: str) -> str:
    return textwrap.fill(text, _COLUMNS, break_long_words=False, break_on_hyphens=False)


def _known(document: Mapping[str, Any], name: str, what: str, unknown: list[str]) -> Any:
    """A value of the metadata; where there is none, what it is joins the unknown."""
    value = document.get(name)
    if value in (None, "", []):
        unknown.append(what)
        return None
    return value


def _time(text: str) -> str:
    return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _what(document: Mapping[str, Any], unknown: list[str]) -> str:
    start = _known(document, "send_start_time", "when sending began", unknown)
    end = _known(document, "send_end_time", "when sending ended", unknown)
    when = f"From {_time(start)} to {_time(end)}" if start and end else "At a time not recorded"
    module = _known(document, "probe_module", "which probe was sent", unknown)
    probes = _PROBES.get(str(module), f"probes of the module {module}" if module else "probes")
    arguments = ", ".join(f"{name}={value}" for name, value in (document.get("probe_args") or {}).items())
    sources = _known(document, "source_ips", "from which addresses", unknown) or []
    family = "" if not sources else "IPv6 " if ":" in sources[0] else "IPv4 "
    ports = str(document.get("target_ports") or "").removeprefix("0")
    where = f"port {ports} of " if ports.isdigit() else f"ports {ports} of " if ports else ""
    addresses = _known(document, "blocklist_total_allowed", "how many addresses were eligible", unknown)
    of = f"{int(addresses):,} eligible {family}addresses" if addresses is not None else f"{family}addresses"
    sent = f"{document['stats'].get('probes_sent', document.get('sent', 0)):,}"
    version = _known(document, "version", "the version of IRLstack", unknown)
    return (
        f"{when} we sent {sent} {probes}{f' ({arguments})' if arguments else ''} to {where}{of} with IRLstack"
        f"{f' {version}' if version else ''} [irlstack], which follows Smith and Loguinov [smith2010enabling]."
    )


def _named(document: Mapping[str, Any], unknown: list[str]) -> str:
    """Which targets were named."""
    targets = named.targets(document)
    if targets is None:
        unknown.append("which prefixes were named as targets (the plan with the fingerprint below does)")
        return ""
    return f"Named as targets were {targets}."


def _order(document: Mapping[str, Any], unknown: list[str]) -> str:
    seed = _known(document, "seed", "the seed of the order", unknown)
    version = _known(document, "permutation_version", "the version of the order", unknown)
    limit = document.get("max_targets")
    bound = f" Of that order the first {limit:,} targets were to be probed." if limit else ""
    given = "chosen beforehand" if document.get("seed_provided") else "drawn at random"
    order = f"seed {seed} ({given})" if seed is not None else "a seed not recorded"
    total = document.get("total_shards") or 1
    shard = f" This is shard {document['shard_num']} of {total}, counted from 0." if total > 1 else ""
    numbered = f" (version {version})" if version is not None else ""
    return (
        f"Targets were probed in the order of a keyed permutation{numbered} with {order}; the plan has the "
        f"fingerprint {document['plan_fingerprint']}.{bound}{shard}"
    )


def _pace(document: Mapping[str, Any], unknown: list[str]) -> str:
    rate = document.get("rate")
    if rate is None:
        unknown.append("the rate that was asked for")
        asked = "The rate"
    else:
        asked = (
            f"The rate was at most {rate:,.0f} probes/s; it"
            if rate
            else "The rate was bounded by our own loss only; it"
        )
    average = _known(document, "send_rate", "the rate that was reached", unknown)
    # Waits between passes and a slow recheck are not in it.
    within = " within its passes" if len(document.get("passes") or []) > 1 else ""
    reached = f"{asked} was {average:,.0f} probes/s on average{within}." if average is not None else ""
    times = document.get("packet_streams")
    each = (
        ""
        if not times
        else " Each target got one probe."
        if times == 1
        else f" Each target got {times} probes in a row."
    )
    again = document.get("reprobe") or 0
    often = "once" if again == 1 else f"up to {again} times"
    apart = document.get("reprobe_wait_secs")
    after = "" if apart is None else f", {apart:g} s after the pass before"
    later = f" Those that had not answered were probed again, {often}{after}." if again else ""
    share, slowly = document.get("recheck_share"), document.get("recheck_rate")
    if share and slowly:
        later += f" At the end, {100 * share:g} % of all were probed once more, at {slowly:,.0f} probes/s at most."
    wait = document.get("cooldown_secs")
    listened = f" After the last probe we listened for {wait:g} s." if wait is not None else ""
    budget = named.budget(document)
    spared = f" At most {budget} were sent." if budget not in (None, "none") else ""
    return f"{reached}{spared}{each}{later}{listened}".strip()


def _where_from(document: Mapping[str, Any], unknown: list[str]) -> str:
    sources = document.get("source_ips") or []
    engine = _known(document, "engine", "how frames were sent", unknown)
    kernel = _known(document, "kernel", "the operating system", unknown)
    driver = _known(document, "driver", "the network device", unknown)
    ours = (
        f"{sources[0]}"
        if len(sources) == 1
        else f"{len(sources)} addresses, {sources[0]} among them"
        if sources
        else ""
    )
    first, last = document.get("source_port_first"), document.get("source_port_last")
    ports = f", ports {first} to {last}" if first is not None and last is not None else ""
    on = f" on Linux {kernel}" if kernel else ""
    by = f" through a device of the driver {driver}" if driver else ""
    frames = f"Probes left{f' from {ours}{ports}' if ours else ''} by the engine {engine}{on}{by}." if engine else ""
    ttl = document.get("probe_ttl")
    return f"{frames}{f' Their initial time to live was {ttl}.' if ttl is not None else ''}".strip()


def _left_out(document: Mapping[str, Any], unknown: list[str]) -> str:
    cut = document.get("blocklist_total_not_allowed")
    registry = _known(document, "iana_snapshot", "which registry of special-purpose space was used", unknown)
    files = named.deny_files(document)
    lists = [f"IANA's registries of special-purpose space as of {registry}"] if registry else []
    lists += [f"the deny file {each}" for each in files]
    if not lists:
        return ""
    count = f"{int(cut):,} addresses were" if cut is not None else "Addresses were"
    none = "" if files else " No deny file was named."
    optout = named.optout(document)
    asked = f" Left alone, too, was who asked: {optout}." if optout not in (None, "none") else ""
    return f"{count} left out by {' and '.join(lists)}.{none}{asked}"


def _manners(document: Mapping[str, Any], unknown: list[str]) -> str:
    contact = _known(document, "contact", "whom probed networks could write to", unknown)
    authorised = _known(document, "authorized", "who authorised the run", unknown)
    resets = document["stats"].get("resets_sent")
    said = f"Probed networks could write to {contact}." if contact else ""
    by = f" The run was authorised by: {str(authorised).rstrip('.')}." if authorised else ""
    ended = f" {resets:,} SYN-ACKs were answered with a RST, so that no half-open connection stayed." if resets else ""
    kernel = " The host's kernel sent RSTs of its own as well." if document.get("kernel_rst") else ""
    return f"{said}{by}{ended}{kernel}".strip()


def _outcome(document: Mapping[str, Any], unknown: list[str]) -> str:
    stats = document["stats"]
    answered = stats.get("answered")
    targets = stats.get("targets")
    heard = (
        f" of {targets:,} targets taken, {answered:,} answered at all and" if answered is not None and targets else ""
    )
    rate = document.get("hitrate")
    share = f", {rate:.4g} % of the probes sent" if rate is not None else ""
    method = _known(document, "dedup_method", "how repeated answers were recognised", unknown)
    repeats = f" Repeated answers were recognised by a map of the answered ({method})." if method else ""
    return f"{f'Of{heard[3:]}' if heard else 'In all'} {document.get('found', 0):,} were found{share}.{repeats}"


def _dialogue(document: Mapping[str, Any]) -> str:
    """What an exchange did with those that answered."""
    if "exchanged" not in document:
        return ""
    template = " (with the target's address or port in it)" if document.get("request_is_template") else ""
    size = len(document["request"]) // 2 if set(document["request"]) <= set("0123456789abcdef") else None
    sent = f"a request of {size:,} bytes{template}" if size else "no request" if size == 0 else "a request of its own"
    ended = f"complete (until {document['until']}) or cut at {document['max_bytes']:,} bytes"
    return (
        f"With those that answered, {document['connections']:,} TCP connections were opened in user space, each was "
        f"sent {sent}, and {document['exchanged']:,} ended with a response that was {ended}, within "
        f"{document['timeout']:g} s. We closed by {document['close'].upper()}."
    )


def _loss(document: Mapping[str, Any], unknown: list[str]) -> str:
    stats = document["stats"]
    parts = [
        (stats.get("probes_refused_by_device"), "probes were not taken by the device"),
        (stats.get("device_lost"), "frames were lost in it"),
        (stats.get("overruns"), "answers were lost before they were read"),
        (document.get("rows_lost"), "rows could not be written"),
    ]
    told = [f"{count:,} {what}" for count, what in parts if count is not None]
    if len(told) < len(parts):
        unknown.append("all of our own losses")
    own = f"On our side, {', '.join(told)}." if told else ""
    passes = [each for each in document.get("passes") or [] if not each.get("recheck")]
    later = sum(each["found"] for each in passes[1:])
    found = f" {later:,} targets were found in later passes only." if len(passes) > 1 else ""
    network = losses.sentences(document)
    if not network:
        unknown.append("what the network lost (--probes, --reprobe or --recheck would tell)")
    intervals = " Ranges are 95 % intervals." if network else ""
    return f"{own}{found} {' '.join(network)}{intervals}".strip()


def _clock(document: Mapping[str, Any], unknown: list[str]) -> str:
    clock = _known(document, "clock", "whether the clock was right", unknown)
    if not clock:
        return ""
    step = "in step" if clock["synchronised"] else "not known to be in step"
    return f"The host's clock was {step} with UTC (error at most {clock['max_error_us'] / 1e6:g} s)."
