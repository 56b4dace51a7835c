"""The options that say what is probed and in what order, shared by `plan` and `scan`, with ZMap's names."""

import math
import sys
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

from cyclopts import Group, Parameter

import irlstack as irl
from irlstack.cli import quantity
from irlstack.errors import ConfigError

STANDARD_STREAM = "stdio:"
"""What `-` becomes before the options are parsed: the parser takes a bare hyphen for an option without a name."""

TARGETS = Group("What is probed", sort_key=1)
ORDER = Group("In what order", sort_key=2)
SENDING = Group("How it is sent", sort_key=3)
POLICY = Group("Permission", sort_key=5)


@Parameter(name="*")
@dataclass(kw_only=True)
class PlanOptions:
    """What fixes a run."""

    target_ports: Annotated[str | None, Parameter(alias=("-p", "--target-port"), group=TARGETS)] = None
    """Ports of each address: 80, 80,443, 8000-8010 or *."""
    top_ports: Annotated[int | None, Parameter(group=TARGETS)] = None
    """Instead of -p: so many of the most common TCP ports, or with -M udp of UDP's."""
    probe_module: Annotated[str, Parameter(alias="-M", group=TARGETS)] = "tcp_synscan"
    """tcp_synscan (the default), tcp_synackscan, icmp_echoscan, udp, dns or ntp."""
    probe_args: Annotated[str | None, Parameter(group=TARGETS)] = None
    """layout=smallest for tcp_synscan; text:TEXT, hex:DIGITS, file:PATH or template:PATH for udp, template-fields to
    list what a template takes; TYPE,NAME for dns. TEXT takes \\r \\n \\t \\xNN."""
    blocklist_file: Annotated[tuple[Path, ...], Parameter(alias="-b", group=TARGETS)] = ()
    """Prefixes never to probe, one a line. May be given again."""
    allowlist_file: Annotated[tuple[Path, ...], Parameter(alias="-w", group=TARGETS)] = ()
    """Prefixes to probe, one a line. May be given again."""
    list_of_ips_file: Annotated[Path | None, Parameter(alias="-I", group=TARGETS)] = None
    """Addresses or ADDRESS:PORT lines to probe, instead of prefixes; - is standard input."""
    plan: Annotated[Path | None, Parameter(group=TARGETS)] = None
    """Take all of this from a plan file."""

    seed: Annotated[int | None, Parameter(alias="-e", group=ORDER)] = None
    """Fixes the order; random when not given."""
    order: Annotated[Literal["random", "spread"], Parameter(group=ORDER)] = "random"
    """random (the default): the first are a sample of all. spread: no network is probed twice within its share."""
    max_targets: Annotated[str | None, Parameter(alias="-n", group=ORDER)] = None
    """At most so many targets, or a share such as 1%, over all shards."""
    shards: Annotated[int | None, Parameter(group=ORDER)] = None
    """Into how many shards the run is cut."""
    probes: Annotated[int | None, Parameter(alias="-P", group=ORDER)] = None
    """Probes a target, one right after the other; the column probe_num, from 0, tells which was answered."""

    rate: Annotated[str | None, Parameter(alias="-r", group=SENDING)] = None
    """Probes a second, 100k or 1.5M; 0 = as fast as goes without loss of ours. Default 10k."""
    bandwidth: Annotated[str | None, Parameter(alias="-B", group=SENDING)] = None
    """Bits a second on the wire, 10M or 1G, instead of a rate."""
    source_ip: Annotated[tuple[str, ...], Parameter(alias="-S", group=SENDING)] = ()
    """Source address, several (192.0.2.10,192.0.2.12) or a range (192.0.2.10-192.0.2.13), by default the interface's
    own. May be given again; of several interfaces, the one whose subnet holds it sends from it."""
    source_port: Annotated[str | None, Parameter(alias="-s", group=SENDING)] = None
    """Source port or range. Default 61000-65535."""
    probe_ttl: Annotated[int | None, Parameter(group=SENDING)] = None
    """Time to live, or hop limit. Default 255."""

    contact: Annotated[str | None, Parameter(group=POLICY)] = None
    """Whom a probed network can write to: an e-mail address or URL."""

    def make(self, targets: tuple[str, ...], policy: irl.Policy) -> irl.Plan:
        """The plan these options and the positional targets describe.

        Raises:
            ConfigError: whatever does not fit together.
        """
        if self.rate is not None and self.bandwidth is not None:
            raise ConfigError("Give a rate or a bandwidth, not both.")
        if self.plan is not None:
            self._refuse_beside_a_plan(targets)
            loaded = irl.Plan.load(self.plan)
            return loaded.replace(rate=self.rate_for(loaded), contact=self.contact)
        probe = irl.Probe.resolve(self.probe_module, parse_probe_args(self.probe_module, self.probe_args))
        blocklist = list(self.blocklist_file) or ([policy.blocklist_file] if policy.blocklist_file else [])
        count, share = (None, None) if self.max_targets is None else quantity.parse_share("-n", self.max_targets)
        list_of_ips: Path | bytes | BinaryIO | None = self.list_of_ips_file
        if STANDARD_STREAM in (*targets, str(list_of_ips)):
            if len(targets) + (list_of_ips is not None) > 1:
                raise ConfigError("Targets come from standard input (-) or from elsewhere, not both.")
            # A share needs two plans of one list; else it is read as it comes.
            targets, list_of_ips = (), sys.stdin.buffer if share is None else sys.stdin.buffer.read()

        def build(max_targets: int | None, rate: int | None) -> irl.Plan:
            return irl.Plan(
                *targets,
                ports=self.target_ports,
                top_ports=self.top_ports,
                list_of_ips_file=list_of_ips,
                allowlist_file=self.allowlist_file,
                blocklist_file=blocklist,
                seed=self.seed,
                order=self.order,
                probe_module=self.probe_module,
                probe_args=probe.args,
                source_ip=[address for each in self.source_ip for address in source_addresses(each)],
                source_port=self.source_port,
                probe_ttl=self.probe_ttl,
                probes=self.probes,
                rate=rate,
                max_targets=max_targets,
                shards=self.shards,
                contact=self.contact or policy.contact,
            )

        rate = None if self.rate is None else parse_rate(self.rate)
        if rate is None and self.bandwidth is None and policy.rate is not None:
            rate = math.floor(policy.rate)
        plan = build(count, rate)
        if share is not None:
            # The key, and the seed unless given, are drawn anew; nothing has been sent or shown that they contradict.
            plan = build(max(1, math.ceil(plan.counts()["kept"] * share * len_ports(plan))), rate)
        return plan if self.bandwidth is None else plan.replace(rate=self._rate_of_bandwidth(plan))

    def rate_for(self, plan: irl.Plan) -> int | None:
        """Probes a second that were asked for beside a plan; None for the plan's own."""
        if self.rate is not None and self.bandwidth is not None:
            raise ConfigError("Give a rate or a bandwidth, not both.")
        if self.bandwidth is not None:
            return self._rate_of_bandwidth(plan)
        return None if self.rate is None else parse_rate(self.rate)

    def _rate_of_bandwidth(self, plan: irl.Plan) -> int:
        bits = quantity.parse_number("--bandwidth", self.bandwidth or "0")
        if bits <= 0:
            raise ConfigError(f"--bandwidth {self.bandwidth} sends nothing: give bits a second, 10M or 1G.")
        return max(1, math.floor(bits / bits_on_the_wire(plan.frame_len)))

    def _refuse_beside_a_plan(self, targets: tuple[str, ...]) -> None:
        fresh = PlanOptions()
        allowed = {"plan", "rate", "bandwidth", "contact"}
        given = [name for name, value in vars(self).items() if name not in allowed and value != getattr(fresh, name)]
        if targets or given:
            what = "targets" if targets else "--" + given[0].replace("_", "-")
            raise ConfigError(f"A plan says what is probed: {what} cannot be given beside --plan.")


_MOST_SOURCES = 256
"""In a range; a wider one is a slip of the hand."""


def source_addresses(text: str) -> list[str]:
    """Addresses of ours, with commas between them, each of them or the first and the last of a range."""
    out = []
    for item in text.split(","):
        first, dash, last = (part.strip() for part in item.partition("-"))
        if not dash:
            out.append(first)
            continue
        try:
            low, high = ip_address(first), ip_address(last)
        except ValueError as error:
            raise ConfigError(f"--source-ip {item!r} cannot be read; write 192.0.2.10-192.0.2.13.") from error
        if low.version != high.version or not 0 <= int(high) - int(low) < _MOST_SOURCES:
            raise ConfigError(
                f"--source-ip {item!r} is no range of at most {_MOST_SOURCES} addresses; write 192.0.2.10-192.0.2.13."
            )
        out += [str(low + number) for number in range(int(high) - int(low) + 1)]
    return out


def len_ports(plan: irl.Plan) -> int:
    """How many targets an address is."""
    counts = plan.counts()
    return max(1, plan.total // counts["kept"]) if counts["kept"] else 1


def parse_rate(text: str) -> int:
    """Whole probes a second."""
    rate = quantity.parse_number("--rate", text)
    if rate != int(rate):
        raise ConfigError(f"A rate of {text} is not possible: give whole probes a second, or 0.")
    return int(rate)


def bits_on_the_wire(frame_len: int) -> int:
    """What a frame takes of an Ethernet link: at least 60 bytes, check sequence, preamble and gap, as ZMap counts."""
    return 8 * (max(frame_len, 60) + 4 + 8 + 12)


def parse_probe_args(probe: str, text: str | None) -> dict[str, str]:
    r"""`layout=smallest`, or ZMap's `text:GET /\r\n`, `hex:00ff`, `file:payload.bin`."""
    if text is None:
        return {}
    if probe == "dns":
        return {"question": text.removeprefix("question=")}
    kind, colon, rest = text.partition(":")
    if colon and kind == "text":
        payload = unescape(rest)
        plain = payload.decode("ascii", "replace").isprintable() and payload.isascii()
        return {"text": payload.decode()} if plain else {"hex": payload.hex()}
    if colon and kind == "hex":
        return {"hex": rest}
    if colon and kind == "file":
        return {"hex": Path(rest).read_bytes().hex()}
    if colon and kind == "template":
        return _template(Path(rest).read_bytes())
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(equals and name for name, equals, _ in pairs):
        how = "text:TEXT, hex:DIGITS, file:PATH or template:PATH" if probe == "udp" else "NAME=VALUE"
        raise ConfigError(f"--probe-args {text!r} cannot be read; for {probe} write {how}.")
    return {name: value for name, _, value in pairs}


def _template(content: bytes) -> dict[str, str]:
    """As text where it is some, so that a plan can be read."""
    try:
        return {"template": content.decode()}
    except UnicodeDecodeError:
        return {"template_hex": content.hex()}


_ESCAPES = {"r": b"\r", "n": b"\n", "t": b"\t", "\\": b"\\"}


def unescape(text: str) -> bytes:
    r"""TEXT of the command line: UTF-8 with \r \n \t \\ and \xNN."""
    out, position = bytearray(), 0
    while (at := text.find("\\", position)) >= 0:
        out += text[position:at].encode()
        letter, digits = text[at + 1 : at + 2], text[at + 2 : at + 4]
        if letter in _ESCAPES:
            out += _ESCAPES[letter]
            position = at + 2
        elif letter == "x" and len(digits) == 2 and all(digit in "0123456789abcdefABCDEF" for digit in digits):
            out.append(int(digits, 16))
            position = at + 4
        else:
            raise ConfigError(f"{text[at : at + 4]!r} is no escape; there are \\r \\n \\t \\\\ and \\xNN.")
    return bytes(out + text[position:].encode())
