"""[`Stack`][irlstack.stack.Stack]: an opened network, for whole frames and for runs that share it."""

import asyncio
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict
from ipaddress import IPv4Address, IPv6Address
from types import TracebackType
from typing import Any, Literal, Self, Unpack

from irlstack._core import Batch, RawCompletion, RawStack, RawStream, World
from irlstack.errors import ConfigError
from irlstack.lab.topology import Impairment
from irlstack.link import interface_names
from irlstack.policy import Policy
from irlstack.request import Address, ExchangeKeywords, Path, Request, ScanKeywords
from irlstack.run import Run

_ASYNC_WAIT_S = 0.05


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
        names = interface_names(interface)
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
