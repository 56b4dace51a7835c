"""[`Stack`][irlstack.stack.Stack]: an opened network.

[`scan`][irlstack.stack.scan] and [`exchange`][irlstack.stack.exchange] open one for a run.
"""

import asyncio
import json
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv6Address
from types import TracebackType
from typing import Any, Literal, Self, Unpack

from irlstack import checkpoint as checkpoints
from irlstack._core import Batch, RawCompletion, RawStack, RawStream, World
from irlstack.bounds import check_numbers
from irlstack.errors import ConfigError
from irlstack.lab.topology import Impairment
from irlstack.on_disk import OnDisk
from irlstack.policy import Policy
from irlstack.request import Address, ExchangeKeywords, Path, Request, ScanKeywords
from irlstack.run import Run

_ASYNC_WAIT_S = 0.05
_SIMULATED_SOURCE = {"ipv4": "198.18.0.10", "ipv6": "fd00:18::10"}


def _names(interface: str | Sequence[str] | None) -> list[str]:
    """The names of interfaces; none where the route shall say."""
    if interface is None:
        return []
    names = [interface] if isinstance(interface, str) else list(interface)
    if not names or "" in names:
        raise ConfigError("An interface has no name: give those that probes shall leave by, as in -i eth0,eth1.")
    return names


class Stack:
    """An opened interface: engine, filter, policy, our addresses and our neighbours.

        with irl.Stack("eth0", source_ip="192.0.2.10") as stack:
            for batch in stack.scan("10.0.0.0/16", ports=80, rate=10_000):
                ...

    Args:
        interface: its name; where the route leads when None. A list of names opens several, whose scans share targets,
            rate and policy; each sends from those of the addresses that lie in its subnets, by its own routes.
        source_ip: our address, or a list of them: spare ones of the link, which we then answer for, or the host's own.
            Several interfaces need one each, or none for their own.
        source_port: ports on which `receive` listens, "61000-61999"; needed on the host's own addresses.
        towards: an address whose route decides interface and source where they are not given.
        gateway_mac: where every frame goes; resolved by ARP or neighbour discovery when None.
        source_mac: where frames come from; the interface's own MAC when None. Neighbours are told of the interface's
            own in any case, so that answers arrive. Of several interfaces neither can be given.
        vlan: the VLAN, 1 to 4094, whose tag frames carry, and whose neighbours are asked.
        iplayer: the device has to be one without Ethernet, such as tun or WireGuard, whose packets begin with the IP
            header. Without it such a device is known for one, too.
        engine: "auto", "live" or "packet". "auto" takes "live" unless `rate` is low; "live" in turn sends by a packet
            socket while there is little to send, and holds a core while there is much.
        batch: frames that "live" hands to the kernel at a time, 1 to 256.
        dad: duplicate-address detection for spare addresses: "fast", "rfc5227" or "off".
        policy: who is responsible for what is sent; by default what the configuration files say.
        rate, contact, authorized, blocklist_file: in place of the policy's.

    Raises:
        ConfigError: no such route or source address, or one that belongs to none or several of the interfaces.
        PrivilegeError: names the capability that is missing.
        EngineError: the interface is gone, occupied by another program, or an address belongs to somebody else.
    """

    def __init__(
        self,
        interface: str | Sequence[str] | None = None,
        *,
        source_ip: Address | Sequence[Address] = (),
        source_port: str | None = None,
        towards: Address | None = None,
        gateway_mac: str | None = None,
        source_mac: str | None = None,
        vlan: int | None = None,
        iplayer: bool = False,
        engine: str = "auto",
        batch: int = 128,
        dad: Literal["fast", "rfc5227", "off"] = "fast",
        policy: Policy | None = None,
        rate: float | None = None,
        contact: str | None = None,
        authorized: str | None = None,
        blocklist_file: Path | None = None,
    ) -> None:
        given = Policy(rate=rate, contact=contact, authorized=authorized, blocklist_file=blocklist_file)  # type: ignore[arg-type]
        policy = given.over(policy or Policy.from_config())
        names = _names(interface)
        raw = RawStack.open(names, source_ip, towards, gateway_mac, vlan, engine, dad, source_mac, rate, batch, iplayer)
        self._hold(raw, policy, source_port)

    @classmethod
    def simulated(
        cls,
        world: World | None = None,
        *,
        source_ip: Address | Sequence[Address] = ("198.18.0.10", "fd00:18::10"),
        source_port: str | None = None,
        impairment: Impairment | None = None,
        policy: Policy | None = None,
    ) -> Self:
        """A stack whose interface leads to a World inside this process: for tests, and for trying things out.

        Args:
            world: its hosts; World(seed=1) when None.
            source_ip: our address, or a list of them.
            source_port: ports on which `receive` listens.
            impairment: what the link does to frames.
            policy: who is responsible; by default what the configuration files say.
        """
        stack = cls.__new__(cls)
        raw = RawStack.simulate(world or World(), source_ip, **asdict(impairment or Impairment()))
        stack._hold(raw, policy or Policy.from_config(), source_port)  # noqa: SLF001 - its own
        return stack

    def _hold(self, raw: RawStack, policy: Policy, source_port: str | None) -> None:
        self._raw: RawStack | None = raw
        self._policy = policy
        self._source_port = source_port
        self._lock = threading.Lock()
        self._stream: RawStream | None = None

    def _opened(self) -> RawStack:
        if self._raw is None:
            raise ConfigError("This stack is closed.")
        return self._raw

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the interface once the runs on it have ended; frames that still wait are not sent."""
        with self._lock:
            if self._stream is not None:
                self._stream.stop()
            self._stream = self._raw = None

    @property
    def info(self) -> dict[str, Any]:
        """The engine: engine, why, xdp_mode, driver, kernel, interface, synthetic, unsent, iplayer, kernel_rst.

        Where several interfaces differ, it says what each is.
        """
        return self._opened().info()

    @property
    def counters(self) -> dict[str, int]:
        """What became of frames so far, runs and `receive` together, by name.

        frames_received and frames_lost are those for `receive`: lost are those that nobody read in time. overruns is
        what did not fit into a receiver's ring buffer. The rest is the filter's: delivered, no_owner, bad_cookie, ...
        """
        counters = self._opened().counters()
        with self._lock:
            received, lost = self._stream.counts() if self._stream is not None else (0, 0)
        return counters | {"frames_received": received, "frames_lost": lost}

    @property
    def sources(self) -> list[IPv4Address | IPv6Address]:
        """Our addresses."""
        return self._opened().sources()

    def __repr__(self) -> str:
        if self._raw is None:
            return "<Stack, closed>"
        info = self.info
        return f"<Stack {info['interface']}, {info['engine']}: {', '.join(map(str, self.sources))}>"

    def _streaming(self) -> RawStream:
        raw = self._opened()
        with self._lock:
            if self._stream is None:
                self._stream = raw.stream(self._policy, self._source_port)
            return self._stream

    def send(
        self,
        frames: object,
        lengths: object | None = None,
        *,
        layer: Literal[2, 3] = 2,
        fill_checksums: bool = False,
    ) -> "Completion":
        """Send frames of the caller's. They are copied first, so the memory is the caller's again at once.

        Every frame is judged by the policy: whole IPv4 and IPv6 packets from our addresses, and to globally reachable
        addresses only with contact, deny file, rate and authorisation. The stack has to be of one interface.

        Args:
            frames: unsigned bytes of shape (n, width) by the buffer protocol (NumPy), an Arrow binary array, or a list
                of bytes.
            lengths: n lengths, where frames of shape (n, width) are shorter than the width.
            layer: 2 = with an Ethernet header; 3 = from the IP header on: the next hop is resolved. Devices without
                Ethernet take 3 alone.
            fill_checksums: write the checksums of IPv4, TCP, UDP, ICMP and ICMPv6.

        Returns:
            A completion to wait for or await; several may be outstanding.
        """
        return Completion(self._streaming().send(frames, lengths, layer, fill_checksums))

    def receive(self, timeout: float = 1.0) -> Iterator[Batch]:
        """Batches of received frames, until none comes for `timeout` seconds. Frames are kept from the first call on.

        Columns: timestamp (UTC, ns) and frame (binary, from the Ethernet header on, or from the IP header on where
        the device has no Ethernet). Received is what arrives on
        `source_port`, and on spare addresses whatever no scan has a claim to.
        """
        stream = self._streaming()
        stream.listen()
        return self._batches(stream, timeout)

    @staticmethod
    def _batches(stream: RawStream, timeout: float) -> Iterator[Batch]:
        while (batch := stream.receive(timeout)) is not None:
            yield batch

    def scan(self, *targets: object, **keywords: Unpack[ScanKeywords]) -> Run:
        """A scan on this stack; nothing is sent before the first batch is asked for. See [`scan`][irlstack.scan]."""
        raw = self._opened()
        return Request(targets, keywords, self._policy, opens=False).scan(lambda: raw)

    def exchange(self, *targets: object, request: bytes | str = b"", **keywords: Unpack[ExchangeKeywords]) -> Run:
        """Exchanges on this stack, beside its other runs. See [`exchange`][irlstack.exchange]."""
        raw = self._opened()
        asked = Request(targets, keywords, self._policy, opens=False, reads=True)
        return asked.exchange(lambda: raw, request)


class Completion:
    """Tells when the frames of one `Stack.send` have left: `wait()` for it, or `await` it."""

    def __init__(self, raw: RawCompletion) -> None:
        self._raw = raw

    def wait(self, timeout: float | None = None) -> bool:
        """Wait, at most for `timeout` seconds; says whether the frames have left.

        Raises:
            PolicyError: some were refused; the message says why.
            EngineError: some could not be sent.
        """
        return self._raw.wait(timeout)

    def __await__(self) -> Generator[Any, None, bool]:
        return self._left().__await__()

    async def _left(self) -> bool:
        while not await asyncio.to_thread(self._raw.wait, _ASYNC_WAIT_S):
            pass
        return True

    @property
    def done(self) -> bool:
        """Whether nothing more will come of them."""
        return self._raw.state()[4]

    @property
    def sent(self) -> int:
        """Frames the device took, once done."""
        return self._raw.state()[0]

    @property
    def refused(self) -> int:
        """Frames the policy refused."""
        return self._raw.state()[1]

    def __repr__(self) -> str:
        return f"<Completion, {'done' if self.done else 'waiting'}: {self.sent} sent, {self.refused} refused>"


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
    link = _Link(interface, gateway_mac, source_mac, vlan, iplayer, engine, batch, dad, world, impairment)
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
    opened = _Link(**link)
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
    link = _Link(interface, gateway_mac, source_mac, vlan, iplayer, engine, batch, dad, world, impairment)
    asked = Request(targets, keywords, opens=engine != "sim", reads=True, sends=link.on_disk is None)
    return asked.exchange(lambda: link.open(asked), request)


@dataclass
class _Link:
    """Where a run shall be opened."""

    interface: str | Sequence[str] | None
    gateway_mac: str | None
    source_mac: str | None
    vlan: int | None
    iplayer: bool
    engine: str
    batch: int
    dad: str
    world: World | None
    impairment: Impairment | None

    def __post_init__(self) -> None:
        if self.engine != "sim" and (self.world is not None or self.impairment is not None):
            raise ConfigError('A World and an impairment go with engine="sim".')
        for name in ("interface", "gateway_mac", "source_mac", "vlan"):
            if self.engine == "sim" and getattr(self, name) is not None:
                raise ConfigError(f"The simulated link has no {name} to choose.")
        if self.engine == "sim" and self.iplayer:
            raise ConfigError("The simulated link speaks Ethernet: leave out iplayer.")
        check_numbers({"batch": self.batch})
        self.names = _names(self.interface)
        self.on_disk = OnDisk.named(self.engine)
        if self.on_disk is not None and (self.names or self.iplayer):
            raise ConfigError("A file has no interface to choose: leave out interface and iplayer.")

    def described(self) -> dict[str, Any]:
        """The same as JSON, for a checkpoint."""
        names = ("gateway_mac", "source_mac", "vlan", "iplayer", "engine", "batch", "dad")
        return {
            "interface": self.names or None,
            "world": None if self.world is None else checkpoints.describe_world(self.world),
            "impairment": None if self.impairment is None else asdict(self.impairment),
            **{name: getattr(self, name) for name in names},
        }

    def open(self, asked: Request) -> RawStack:
        if self.on_disk is not None:
            return self.on_disk.open(asked.plan, self.gateway_mac, self.source_mac, self.vlan)
        sources = asked.plan.source_ip
        if self.engine == "sim":
            sources = sources or [_SIMULATED_SOURCE[asked.plan.family]]
            impairment = asdict(self.impairment or Impairment())
            return RawStack.simulate(self.world or World(), sources, **impairment)
        return RawStack.open(
            self.names,
            sources,
            asked.towards,
            self.gateway_mac,
            self.vlan,
            self.engine,
            self.dad,
            self.source_mac,
            asked.rate,
            self.batch,
            self.iplayer,
        )
