"""Runs that open their stack themselves: `scan`, `exchange`, and `resume` by a checkpoint."""

import json
from collections.abc import Sequence
from typing import Any, Literal, Unpack

from irlstack import checkpoint as checkpoints
from irlstack._core import World
from irlstack.errors import ConfigError
from irlstack.lab.topology import Impairment
from irlstack.link import Link
from irlstack.policy import Policy
from irlstack.request import ExchangeKeywords, Path, Request, ScanKeywords
from irlstack.run import Run


def scan(
    *targets: object,
    interface: str | Sequence[str] | None = None,
    gateway_mac: str | None = None,
    source_mac: str | None = None,
    vlan: int | None = None,
    iplayer: bool = False,
    engine: str = "auto",
    batch: int = 128,
    dad: Literal["fast", "rfc5227", "off"] = "fast",
    world: World | None = None,
    impairment: Impairment | None = None,
    **keywords: Unpack[ScanKeywords],
) -> Run:
    """Probe targets and hand over who answered.

    Rows are ZMap's: saddr daddr sport dport seqnum acknum window ttl ipid classification success repeat probe_num
    timestamp rtt. IPv4 addresses are uint32, IPv6 ones 16 bytes, times ns UTC. Nothing is sent before the first batch
    is asked for.

    Args:
        targets: prefixes, addresses, ranges; all of IPv4 when there are none.
        interface: its name, or a list of several: see [`Stack`][irlstack.Stack].
        gateway_mac: see there.
        source_mac: see there.
        vlan: see there.
        iplayer: see there.
        dad: see there.
        engine: "auto" ("live" from 300,000 frames a second on), "live", "packet", or "sim": a synthetic Internet inside
            this process. "pcap:FILE" writes what would be sent into a file, and "replay:FILE" judges the answers in a
            capture again: neither sends anything (docs/capture.md).
        batch: see [`Stack`][irlstack.Stack].
        world: of "sim": its hosts; World(seed=1) when None.
        impairment: of "sim": what its link does to frames.
        keywords: those of [`Plan`][irlstack.Plan] and of `ScanKeywords`.

    Raises:
        ConfigError: something does not fit together.
        PolicyError: the targets may not be probed as it stands; the message says what is missing.
        PrivilegeError, EngineError: at the first batch, see [`Stack`][irlstack.Stack].
    """
    link = Link(interface, gateway_mac, source_mac, vlan, iplayer, engine, batch, dad, world, impairment)
    asked = Request(targets, keywords, opens=engine != "sim", sends=link.on_disk is None)
    # A dry run is begun anew, and never gone on with as a real one.
    return asked.scan(lambda: link.open(asked), link.described() if link.on_disk is None else None)


def resume(
    checkpoint: Path,
    *,
    policy: Policy | None = None,
    authorized: str | None = None,
    rate: int | None = None,
    contact: str | None = None,
    checkpoint_interval: float | None = None,
    **changes: Any,
) -> Run:
    """Go on with a scan by its checkpoint, on the machine that it began on or another: `resume(path).write()`.

    Plan, outputs and options are the checkpoint's; the outputs are looked for beside it. What was probed within the
    last minute before a crash is probed again, and no row comes twice. Permission is asked for anew.

    Args:
        checkpoint: the file.
        policy: who is responsible; by default what the configuration files say.
        authorized: who authorised this session, in place of the policy's.
        rate: probes a second, in place of the plan's.
        contact: in place of the plan's.
        checkpoint_interval: seconds between two commits.
        changes: in place of what it began with: interface, gateway_mac, source_mac, vlan, iplayer, engine, batch, dad,
            sender_threads, cores, cooldown_time, max_runtime, min_hitrate, retries, max_sendto_failures, max_memory,
            queue, notes, user_metadata.

    Raises:
        ConfigError: it is no checkpoint, of another version, of a run that is done; rows that it knows of are missing;
            or a change would make another run of it.
        PolicyError: the targets may not be probed as it stands.
        OSError: a file cannot be read or written.
    """
    saved = checkpoints.Saved.load(checkpoint, checkpoint_interval)
    header = saved.header
    link: dict[str, Any] = {**header["link"], "world": saved.world}
    if header["link"]["impairment"] is not None:
        link["impairment"] = Impairment(**header["link"]["impairment"])
    notes = changes.pop("notes", header["about"]["notes"])
    user_metadata = changes.pop("user_metadata", None)
    keywords: dict[str, Any] = dict(header["keywords"])
    for name, value in changes.items():
        if name in checkpoints.FIXED or name not in {*link, *keywords, *ScanKeywords.__annotations__}:
            raise ConfigError(f"{name} cannot be changed of a scan that is gone on with.")
        (link if name in link else keywords)[name] = value
    opened = Link(**link)
    if opened.on_disk is not None or (opened.engine == "sim") != (header["link"]["engine"] == "sim"):
        raise ConfigError("A simulated scan is gone on with in the simulation, and a real one on an interface.")
    plan = saved.plan.replace(rate=rate, contact=contact)
    asked = Request(
        (),
        {**keywords, "plan": plan, "policy": policy, "authorized": authorized, "notes": notes},
        opens=opened.engine != "sim",
    )
    asked.about.seed_provided = header["about"]["seed_provided"]
    asked.about.user_metadata = header["about"]["user_metadata"]
    if user_metadata is not None:
        asked.about.user_metadata = json.dumps(user_metadata)
    return asked.scan(lambda: opened.open(asked), saved=saved)


def exchange(
    *targets: object,
    request: bytes | str = b"",
    interface: str | Sequence[str] | None = None,
    gateway_mac: str | None = None,
    source_mac: str | None = None,
    vlan: int | None = None,
    iplayer: bool = False,
    engine: str = "auto",
    batch: int = 128,
    dad: Literal["fast", "rfc5227", "off"] = "fast",
    world: World | None = None,
    impairment: Impairment | None = None,
    **keywords: Unpack[ExchangeKeywords],
) -> Run:
    r"""Connect to targets, send each a request, and hand over what came back.

    Targets are probed as in a scan; whoever answers the SYN gets a connection, in user space, with the request in the
    acknowledgement. Rows: saddr daddr sport dport timestamp status stage connect_ns first_byte_ns close_ns retransmits
    closed_by bytes truncated response, the statuses ZGrab2's.

        for batch in irl.exchange("10.0.0.0/16", ports=80, request=b"GET / HTTP/1.0\r\n\r\n"):
            ...

    Args:
        targets: prefixes, addresses, ranges; all of IPv4 when there are none; a table for a list, see
            `ExchangeKeywords`.
        request: what is sent: bytes as they are, or text with `{address}`, `{port}` and `{host}` in the places of the
            target's, and `{{` and `}}` for braces; nothing is sent where it is empty.
        interface: see [`scan`][irlstack.scan], as for all that follow.
        gateway_mac: see there.
        source_mac: see there.
        vlan: see there.
        iplayer: see there.
        dad: see there.
        engine: see there.
        batch: see there.
        world: see there.
        impairment: see there.
        keywords: those of [`Plan`][irlstack.Plan] and of `ExchangeKeywords`.

    Raises:
        ConfigError: something does not fit together.
        PolicyError: the targets may not be probed as it stands; the message says what is missing.
        PrivilegeError, EngineError: at the first batch, see [`Stack`][irlstack.Stack]; and where the host's kernel
            would reset our connections.
    """
    link = Link(interface, gateway_mac, source_mac, vlan, iplayer, engine, batch, dad, world, impairment)
    asked = Request(targets, keywords, opens=engine != "sim", reads=True, sends=link.on_disk is None)
    return asked.exchange(lambda: link.open(asked), request)
