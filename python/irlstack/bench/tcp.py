"""`irlstack bench tcp`: whole connections a second, of hosts that all answer, on the same cores as their client.

Everybody does the same: connects to ever new hosts of 10.0.0.0/8, sends a request, reads the answer to the last byte
and closes. The answers come from the kernel's responder, which counts them.
"""

import contextlib
import dataclasses
import functools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import irlstack as irl
from irlstack.bench import clients, commands, document, far_end, figures, ground, peers
from irlstack.bench.rounds import Say, chosen, interleaved
from irlstack.errors import ConfigError, EngineError

OURS = ("exchange",)
_END_WITHIN_S = 240.0
_SENDERS = 1000
_ZGRAB2_A_SECOND = 8_000
"""Targets a second that ZGrab2 is given: more than it manages."""
_TAKEN = ("kernel_answered", "kernel_silent", "kernel_passed", "kernel_no_room")
"""Counters of the hosts that count a frame to them each."""
_STRAGGLERS = 20
"""Fewer answers than this between two looks are late ones."""


@dataclass(frozen=True)
class Work:
    """What every contender does with every host.

    Attributes:
        service: the hosts', which answer the request.
        request: what is sent.
        close: how the client closes, "rst" or "fin".
    """

    service: str
    request: str
    close: str

    @property
    def reply(self) -> int:
        """Bytes of the answer."""
        return len(irl.World().reply_of("10.0.0.0", clients.PORT, self.service))


_ASK = "GET / HTTP/1.0\r\nX-Padding: ".ljust(96, "x") + "\r\n\r\n"
_CRAWL = "GNUTELLA CONNECT/0.6\r\nUser-Agent: IRLstack\r\nX-Ultrapeer: False\r\nCrawler: 0.1\r\n\r\n"
WORKS = {
    "rst": Work("exchange:100", _ASK, "rst"),
    "fin": Work("exchange:100", _ASK, "fin"),
    # The paper's (section 4.3): four control packets, one request packet, one reply packet.
    "gnutella": Work("gnutella", _CRAWL, "rst"),
}


@dataclass(frozen=True)
class Exchanged:
    """What one contender did in one round.

    Attributes:
        rate: complete exchanges a second, over the time in which the far end gave answers.
        seconds: how long that was.
        complete: exchanges whose answer arrived to the last byte, by the client's account.
        failed: those it says failed.
        served: answers that the far end gave.
        packets: frames an answer, both ways, that the far end took and sent.
    """

    rate: float
    seconds: float
    complete: int
    failed: int
    served: int
    packets: float


class Client(Protocol):
    """Something that makes connections until it ends by itself."""

    @property
    def layout(self) -> str:
        """What it does, and how it was told to."""

    def start(self) -> None:
        """Begins."""

    def finish(self) -> tuple[int, int]:
        """Waits for its end; how many exchanges were complete, and how many failed."""

    def stop(self) -> object:
        """Ends it, whatever it is at."""


Make = Callable[[ground.Ground], Client]


class Processes:
    """One process or several of `irlstack.bench.clients`.

    Args:
        place: where.
        job: what each does; they share the hosts.
        count: how many.
    """

    _HOW = {  # noqa: RUF012 - a table
        "sockets": "blocking sockets in Rust, one connection after the other",
        "asyncio": f"asyncio streams, {clients.CONNECTIONS} connections at once",
    }

    def __init__(self, place: ground.Ground, job: clients.Job, count: int = 1) -> None:
        self.layout = f"{self._HOW[job.client]}; {count} process{'es' if count > 1 else ''}"
        self._within_s = job.seconds + _END_WITHIN_S
        jobs = [dataclasses.replace(job, first=each, step=count) for each in range(count)]
        self._running = [
            commands.Process(
                place,
                job.client,
                self.layout,
                [sys.executable, "-m", clients.__name__, json.dumps(asdict(each))],
            )
            for each in jobs
        ]

    def start(self) -> None:
        """Starts all of them."""
        for each in self._running:
            each.start()

    def finish(self) -> tuple[int, int]:
        """Waits for all of them, and adds up what they say."""
        complete = failed = 0
        for each in self._running:
            each.wait(self._within_s)
            said = json.loads(each.said)
            complete, failed = complete + said["complete"], failed + said["failed"]
        return complete, failed

    def stop(self) -> None:
        """Ends all of them."""
        for each in self._running:
            each.stop()


class Exchange(commands.Process):
    """Our exchange, from the command line, with rows in a Parquet file."""

    def __init__(self, place: ground.Ground, work: Work, prefix: str, extra: Sequence[str]) -> None:
        self._rows = place.folder / "exchange.parquet"
        self._rows.unlink(missing_ok=True)
        how: commands.Options = ["-p", str(clients.PORT), "-r", "0", "--engine", "live", "--close", work.close]
        how = [*how, "--until", str(work.reply), *extra]
        files: commands.Options = ["-b", place.deny, "-o", self._rows, "-m", place.folder / "exchange.json"]
        layout = " ".join(["request in the handshake's ACK, deny list, Parquet; -r 0 --close", work.close, *extra])
        command = [sys.executable, "-m", "irlstack", "exchange", prefix, "--request", _escaped(work.request)]
        super().__init__(place, "exchange", layout, [*command, *how, "-S", ground.SPARE, *files, "-q"])
        self.ends_by_itself = True

    def finish(self) -> tuple[int, int]:
        """Waits for its end, and counts its rows."""
        self.wait(_END_WITHIN_S)
        return rows_in(self._rows)


class ZGrab2(commands.Process):
    """ZGrab2's module banner, which sends a probe and keeps what comes."""

    def __init__(self, place: ground.Ground, peer: peers.Peer, work: Work, seconds: float) -> None:
        targets = place.folder / "targets.txt"
        count = round(seconds * _ZGRAB2_A_SECOND)
        targets.write_text("".join(f"{clients.host(number)}\n" for number in range(count)), encoding="ascii")
        self._rows = place.folder / "zgrab2.jsonl"
        layout = f"module banner with the request as its probe, {_SENDERS} senders, closes by FIN, JSON lines"
        # Told its address, it does not ask a public one whether there is an Internet.
        how: commands.Options = ["-p", str(clients.PORT), "-s", str(_SENDERS), "--local-addr", ground.HOST]
        files: commands.Options = ["-f", targets, "-o", self._rows]
        # It wants a deny list there, be it empty.
        home = place.folder / "home"
        settings = home / ".config" / "zgrab2"
        settings.mkdir(parents=True, exist_ok=True)
        (settings / "blocklist.conf").touch()
        command: commands.Options = [
            "env",
            f"HOME={home}",
            peer.path,
            "banner",
            "--probe",
            _escaped(work.request),
            *how,
            *files,
        ]
        super().__init__(place, "ZGrab2", layout, command)
        self.ends_by_itself = True

    def finish(self) -> tuple[int, int]:
        """Waits for its end, and counts its lines."""
        self.wait(_END_WITHIN_S)
        with self._rows.open(encoding="utf-8") as lines:
            said = [json.loads(line)["data"]["banner"]["status"] for line in lines]
        complete = said.count("success")
        return complete, len(said) - complete


def _escaped(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n")


def rows_in(path: Path) -> tuple[int, int]:
    """Rows of a Parquet file whose `status` is "success", and others.

    Raises:
        EngineError: there is no such file, or no PyArrow.
    """
    try:
        import pyarrow.compute as compute
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise EngineError("Counting the rows of an exchange needs PyArrow: pip install 'irlstack[pyarrow]'") from error
    try:
        status = parquet.read_table(path, columns=["status"])["status"]
    except (OSError, KeyError, ValueError) as error:
        raise EngineError(f"{path} has no rows of an exchange: {error}") from error
    complete = int(compute.sum(compute.equal(status, "success")).as_py() or 0)
    return complete, len(status) - complete


def contenders(
    work: Work, prefix: str, seconds: float, extra: Sequence[str]
) -> tuple[dict[str, Make], dict[str, str], dict[str, str]]:
    """The contenders there are by name, others' versions, and for each contender that is missing why."""
    found, missing = peers.find(["zgrab2"])
    versions = {name: peer.version for name, peer in found.items()}
    all_of: dict[str, Make] = {}
    if why := _exchange_missing():
        missing["exchange"] = why
    else:
        all_of["exchange"] = lambda place: Exchange(place, work, prefix, extra)
    sockets = clients.Job("sockets", work.request, work.reply, work.close, seconds)
    streams = dataclasses.replace(sockets, client="asyncio")
    all_of["kernel sockets"] = functools.partial(Processes, job=sockets)
    all_of["kernel sockets (2)"] = functools.partial(Processes, job=sockets, count=2)
    all_of["asyncio"] = functools.partial(Processes, job=streams)
    if "zgrab2" in found:
        all_of["ZGrab2"] = lambda place: ZGrab2(place, found["zgrab2"], work, seconds)
    return all_of, versions, missing


def _exchange_missing() -> str | None:
    command = [sys.executable, "-m", "irlstack", "exchange", "--help"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - this very program
    return None if asked.returncode == 0 else "this irlstack has no command 'exchange'"


def run(
    what: str, prefix: str, rounds: int, seconds: float, only: Sequence[str], extra: Sequence[str], say: Say
) -> dict[str, Any]:
    """Has every contender work in every round, and returns the document.

    Args:
        what: which of `WORKS`.
        prefix: whom our exchange asks; the others ask as many of 10.0.0.0/8 as they can.
        rounds: how often.
        seconds: how long the others ask.
        only: contenders by name; all when empty.
        extra: options more for our exchange.
        say: for words on the way.

    Raises:
        ConfigError: no such work or contender.
        PrivilegeError: not root.
        EngineError: a contender failed.
    """
    document.need_linux()
    if what not in WORKS:
        raise ConfigError(f"--work {what}: there is no such work; there are {', '.join(WORKS)}.")
    work = WORKS[what]
    makers, versions, missing = contenders(work, prefix, seconds, extra)
    makers = chosen(makers, missing, only)
    document.need_root("tcp")
    settings = {
        "work": what,
        "service": work.service,
        "request_bytes": len(work.request),
        "reply_bytes": work.reply,
        "close": work.close,
        "prefix": prefix,
        "rounds": rounds,
        "seconds": seconds,
        "extra": list(extra),
    }
    out = document.begin("tcp", versions, missing, settings)
    if not only:
        for name, why in missing.items():
            say(f"without {name}: {why}")
    done: dict[str, list[Exchanged]] = {name: [] for name in makers}
    layouts = {}
    with ground.make(hosts=True, service=work.service) as place:
        for number, name in interleaved(list(makers), rounds):
            client = makers[name](place)
            layouts[name] = client.layout
            done[name].append(_round(place, client))
            once = done[name][-1]
            say(f"round {number}: {name}: {once.rate:,.0f} a second, {once.complete:,} of {once.served:,} complete")
    out["contenders"] = {
        name: {
            "layout": layouts[name],
            "rate": figures.spread([one.rate for one in each]),
            "packets": figures.spread([one.packets for one in each]),
            "incomplete": figures.spread([1 - one.complete / (one.complete + one.failed) for one in each]),
            "rounds": [asdict(one) for one in each],
        }
        for name, each in done.items()
    }
    out["ratios"] = figures.ratios({name: [one.rate for one in each] for name, each in done.items()}, OURS)
    return out


def _round(place: ground.Ground, client: Client) -> Exchanged:
    before = _counters(place)
    with far_end.Watch(place.lab, lambda: _served(_counters(place)), _STRAGGLERS) as watch, _ended(client):
        client.start()
        complete, failed = client.finish()
    if not complete:
        raise EngineError(f"Of {failed} exchanges none was complete: {client.layout}.")
    after = _counters(place)
    frames = sum(after[name] - before[name] for name in _TAKEN)
    answers = after["kernel_answered"] + after["answered"] - before["kernel_answered"] - before["answered"]
    seconds, served = watch.seconds(), watch.frames()
    return Exchanged(complete / seconds, seconds, complete, failed, served, (frames + answers) / served)


@contextlib.contextmanager
def _ended(client: Client) -> Iterator[None]:
    try:
        yield
    except BaseException:
        # What went wrong first is what is said.
        with contextlib.suppress(irl.IrlError):
            client.stop()
        raise


def _counters(place: ground.Ground) -> dict[str, int]:
    counted: dict[str, int] = place.lab.counters()[place.lab.interface("gateway").name]
    return counted


def _served(counted: dict[str, int]) -> int:
    return counted["kernel_served"] + counted["answered"]
