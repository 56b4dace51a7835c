"""[`Stack`][irlstack.stack.Stack]: an opened network; and [`scan`][irlstack.stack.scan], which opens one for a run."""

import asyncio
import json
import os
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict
from ipaddress import IPv4Address, IPv6Address
from types import TracebackType
from typing import Any, Literal, Self, TypedDict, Unpack

from irlstack._core import DEFAULT_RATE, Batch, Plan, RawCompletion, RawStack, RawStream, World, refuse_early
from irlstack.errors import ConfigError
from irlstack.lab.topology import Impairment
from irlstack.policy import Policy
from irlstack.run import About, Run

Address = str | IPv4Address | IPv6Address
Path = str | os.PathLike[str]
_ASYNC_WAIT_S = 0.05
_SIMULATED_SOURCE = {"ipv4": "198.18.0.10", "ipv6": "fd00:18::10"}


class PlanKeywords(TypedDict, total=False):
    """The keywords of [`Plan`][irlstack.Plan]."""

    ports: int | str | Sequence[int] | None
    list_of_ips_file: Path | bytes | None
    allowlist_file: Sequence[Path]
    blocklist_file: Sequence[Path]
    seed: int | None
    secret: bytes | None
    probe_module: str
    probe_args: Mapping[str, str]
    source_ip: Address | Sequence[Address]
    source_port: str | None
    probe_ttl: int | None
    probes: int | None
    rate: int | None
    max_targets: int | None
    shards: int | None
    contact: str | None


class ScanKeywords(PlanKeywords, total=False):
    """What a scan is told beside its targets.

    Attributes:
        plan: a plan instead of targets and the keywords of one.
        shard: which shard of it, from 0.
        policy: who is responsible; by default what the configuration files say.
        authorized: who authorised the run, in place of the policy's.
        sender_threads: sender threads, one a core, spread over the interfaces; one for each interface when None.
        cores: numbers of the CPUs that they are bound to, in turn; the system chooses when there are none.
        reprobe: how often those that are silent are probed again: so many more passes over the targets, each to those
            that no answer of any kind (a RST and an ICMP error are answers) was received about. A pass begins 1 s after
            the one before it, or after `cooldown_time` where that is shorter; later answers still count. Needs a map
            of all targets within `max_memory`.
        cooldown_time: how long to listen after the last probe, in seconds.
        max_runtime: stop sending after so many seconds.
        max_results: stop sending after so many rows; there are no more of them.
        min_hitrate: stop sending when fewer than so many percent of the probes find a target, for 5 s.
        retries: how often a frame that the device refuses is offered again before that counts as a failure.
        max_sendto_failures: stop sending after more failures than this.
        no_rst: do not answer SYN-ACKs with a RST of ours.
        rows: "success", each target once, or "all" answers.
        output_fields: columns by name, see `irlstack schema`.
        max_memory: bytes for the map of targets that have answered.
        dedup_method: how repeats are recognised: "full", by a map of all targets that must fit `max_memory`; "window",
            by the targets that answered last, as many as fit; "none": repeats are rows too, only marked as such;
            "default": full where it fits, otherwise window.
        queue: batches that may wait for their reader before the sender pauses.
        notes: free text for the metadata.
        user_metadata: any JSON value for the metadata.
    """

    plan: Plan | None
    shard: int
    policy: Policy | None
    authorized: str | None
    sender_threads: int | None
    cores: Sequence[int]
    reprobe: int
    cooldown_time: float
    max_runtime: float | None
    max_results: int | None
    min_hitrate: float
    retries: int
    max_sendto_failures: int | None
    no_rst: bool
    rows: Literal["success", "all"]
    output_fields: Sequence[str] | None
    max_memory: int
    dedup_method: Literal["default", "full", "window", "none"]
    queue: int
    notes: str | None
    user_metadata: object


_RUN_KEYWORDS = frozenset(ScanKeywords.__annotations__) - frozenset(PlanKeywords.__annotations__)
_NOT_FOR_THE_CORE = frozenset({"plan", "policy", "authorized", "notes", "user_metadata"})


def _names(interface: str | Sequence[str] | None) -> list[str]:
    """The names of interfaces; none where the route shall say."""
    if interface is None:
        return []
    names = [interface] if isinstance(interface, str) else list(interface)
    if not names or "" in names:
        raise ConfigError("An interface has no name: give those that probes shall leave by, as in -i eth0,eth1.")
    return names


class _Request:
    """A scan's keywords sorted: the plan, who is responsible, and how it is run."""

    def __init__(
        self, targets: Sequence[object], keywords: Mapping[str, Any], base: Policy | None = None, *, opens: bool
    ) -> None:
        run = {name: value for name, value in keywords.items() if name in _RUN_KEYWORDS}
        plan = {name: value for name, value in keywords.items() if name not in _RUN_KEYWORDS}
        given = run.get("plan")
        if given is not None:
            given = given.replace(rate=plan.pop("rate", None), contact=plan.pop("contact", None))
            if targets or plan:
                what = next(iter(plan), "targets")
                raise ConfigError(f"A plan says what is probed: {what} cannot be given beside it.")
        policy: Policy = run.get("policy") or base or Policy.from_config()
        if run.get("authorized") is not None:
            policy = Policy(authorized=run["authorized"]).over(policy)
        if given is None and not plan.get("blocklist_file") and policy.blocklist_file is not None:
            plan["blocklist_file"] = [policy.blocklist_file]
        self.plan = Plan(*targets, **plan) if given is None else given
        self.policy = policy
        self.keywords = {name: value for name, value in run.items() if name not in _NOT_FOR_THE_CORE}
        # A wrong shard, an empty target set and a missing permission are said now, not at the first batch.
        self.plan.targets(shard=self.keywords.get("shard", 0))
        refuse_early(self.plan, policy, opens)

        user_metadata = run.get("user_metadata")
        self.about = About(
            seed_provided=given is not None or plan.get("seed") is not None,
            notes=run.get("notes"),
            user_metadata=None if user_metadata is None else json.dumps(user_metadata),
        )

    def run(self, open_stack: Callable[[], RawStack]) -> Run:
        """The run, which opens its stack when it begins."""
        return Run(
            lambda: open_stack().scan(self.plan, self.policy, **self.keywords),
            family=self.plan.family,
            output_fields=self.keywords.get("output_fields"),
            about=self.about,
        )

    @property
    def rate(self) -> float:
        """Probes a second that were asked for; 0 for as many as go."""
        given = (self.plan.rate, self.policy.rate, DEFAULT_RATE)
        return next(rate for rate in given if rate is not None)

    @property
    def towards(self) -> IPv4Address | IPv6Address:
        """A target, whose route stands for all."""
        first = next(iter(self.plan.targets(count=1))).to_pydict()["address"][0]
        return IPv4Address(first) if isinstance(first, int) else IPv6Address(first)


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
        vlan: a tag that frames carry.
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
        raw = RawStack.open(names, source_ip, towards, gateway_mac, vlan, engine, dad, source_mac, rate, batch)
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
        """The engine: engine, why, xdp_mode, driver, kernel, interface, synthetic, kernel_rst.

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
            layer: 2 = with an Ethernet header; 3 = from the IP header on: the next hop is resolved.
            fill_checksums: write the checksums of IPv4, TCP, UDP, ICMP and ICMPv6.

        Returns:
            A completion to wait for or await; several may be outstanding.
        """
        return Completion(self._streaming().send(frames, lengths, layer, fill_checksums))

    def receive(self, timeout: float = 1.0) -> Iterator[Batch]:
        """Batches of received frames, until none comes for `timeout` seconds. Frames are kept from the first call on.

        Columns: timestamp (UTC, ns) and frame (binary, from the Ethernet header on). Received is what arrives on
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
        return _Request(targets, keywords, self._policy, opens=False).run(lambda: raw)


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
        dad: see there.
        engine: "auto" ("live" from 300,000 frames a second on), "live", "packet", or "sim": a synthetic Internet inside
            this process.
        batch: see [`Stack`][irlstack.Stack].
        world: of "sim": its hosts; World(seed=1) when None.
        impairment: of "sim": what its link does to frames.
        keywords: those of [`Plan`][irlstack.Plan] and of `ScanKeywords`.

    Raises:
        ConfigError: something does not fit together.
        PolicyError: the targets may not be probed as it stands; the message says what is missing.
        PrivilegeError, EngineError: at the first batch, see [`Stack`][irlstack.Stack].
    """
    if engine != "sim" and (world is not None or impairment is not None):
        raise ConfigError('A World and an impairment go with engine="sim".')
    link = {"interface": interface, "gateway_mac": gateway_mac, "source_mac": source_mac, "vlan": vlan}
    for name, value in link.items():
        if engine == "sim" and value is not None:
            raise ConfigError(f"The simulated link has no {name} to choose.")
    names = _names(interface)
    request = _Request(targets, keywords, opens=engine != "sim")

    def open_stack() -> RawStack:
        if engine == "sim":
            sources = request.plan.source_ip or [_SIMULATED_SOURCE[request.plan.family]]
            return RawStack.simulate(world or World(), sources, **asdict(impairment or Impairment()))
        sources, towards = request.plan.source_ip, request.towards
        return RawStack.open(names, sources, towards, gateway_mac, vlan, engine, dad, source_mac, request.rate, batch)

    return request.run(open_stack)
