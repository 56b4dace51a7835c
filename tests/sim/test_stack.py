"""Frames of one's own through a stack, to the simulated Internet and back."""

import asyncio
import struct
from ipaddress import IPv4Address

import numpy as np
import pyarrow as pa
import pytest

import irlstack as irl
from irlstack.lab import Impairment

OURS = "198.18.0.10"
WORLD = irl.World(everything_open=True)


def packets(count: int = 64) -> list[bytes]:
    """SYNs from the IP header on."""
    plan = irl.Plan("10.0.0.0/16", ports=80, seed=1, source_ip=[OURS], probe_args={"layout": "smallest"})
    return [frame[14:] for frame in plan.frames(count)]


@pytest.fixture
def stack() -> irl.Stack:
    return irl.Stack.simulated(WORLD, policy=irl.Policy(rate=0))


def answers(stack: irl.Stack, send: object) -> list[bytes]:
    received = stack.receive(0.3)
    send()  # type: ignore[operator]
    return [frame for batch in received for frame in batch.to_pydict()["frame"]]


def test_every_syn_is_answered_to_whoever_sent_it(stack: irl.Stack) -> None:
    sent = packets()
    frames = answers(stack, lambda: stack.send(sent, layer=3).wait())
    assert len(frames) == len(sent)
    assert {frame[26:30] for frame in frames} == {packet[16:20] for packet in sent}
    assert all(frame[47] == 0x12 for frame in frames)


def test_one_address_needs_no_list() -> None:
    with irl.Stack.simulated(WORLD, source_ip=OURS) as stack:
        assert [str(address) for address in stack.sources] == [OURS]
        run = stack.scan("10.0.0.0/24", ports=80, source_ip=OURS, rate=0, cooldown_time=0.1, rows="all")
        assert {row for batch in run for row in batch.to_pydict()["daddr"]} == {int(IPv4Address(OURS))}
    run = irl.scan(
        "10.0.0.0/24", ports=80, engine="sim", world=WORLD, source_ip="198.18.0.77", rate=0, cooldown_time=0.1
    )
    assert sum(len(batch) for batch in run) == 256
    with pytest.raises(irl.ConfigError, match="is no address"):
        irl.Stack("lo", source_ip="loopback")


def as_array() -> np.ndarray:
    return np.array([list(packet) for packet in packets()], dtype=np.uint8)


def padded() -> tuple[np.ndarray, np.ndarray]:
    array = as_array()
    return np.pad(array, ((0, 0), (0, 24))), np.full(len(array), array.shape[1], dtype=np.uint16)


@pytest.mark.parametrize(
    "given",
    [
        lambda: (packets(),),
        lambda: (as_array(),),
        padded,
        lambda: (pa.array(packets()),),
        lambda: (pa.array(packets(), pa.large_binary()),),
        lambda: (pa.chunked_array([packets(32), packets(64)[32:]]),),
        lambda: (pa.table({"frame": packets()}),),
        lambda: ([bytearray(packet) for packet in packets()],),
    ],
    ids=["list", "array", "lengths", "arrow", "large", "chunked", "table", "bytearrays"],
)
def test_frames_come_in_many_shapes(stack: irl.Stack, given: object) -> None:
    done = stack.send(*given(), layer=3)  # type: ignore[operator]
    assert done.wait(5)
    assert (done.sent, done.refused) == (64, 0)


def test_checksums_are_filled_in(stack: irl.Stack) -> None:
    array = as_array()
    array[:, 10:12] = array[:, 36:38] = 0
    assert len(answers(stack, lambda: stack.send(array, layer=3, fill_checksums=True).wait())) == 64
    assert answers(stack, lambda: stack.send(array, layer=3).wait()) == []


def test_several_may_be_outstanding_and_awaited(stack: irl.Stack) -> None:
    async def go() -> list[bool]:
        return list(await asyncio.gather(*(stack.send(packets(), layer=3) for _ in range(10))))

    assert asyncio.run(go()) == [True] * 10


def test_the_memory_is_the_callers_again_at_once(stack: irl.Stack) -> None:
    def send() -> None:
        array = as_array()
        done = stack.send(array, layer=3)
        array[:, 16:20] = 9
        done.wait()

    assert {frame[26] for frame in answers(stack, send)} == {10}


def redirected(destination: str, source: str = OURS) -> bytes:
    packet = bytearray(packets(1)[0])
    packet[12:20] = bytes(map(int, (source + "." + destination).split(".")))
    return bytes(packet)


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (redirected("9.9.9.9"), "authorised"),
        (redirected("224.0.0.1"), "multicast"),
        (redirected("127.0.0.1"), "loopback"),
        (redirected(OURS), "our"),
        (redirected("10.0.0.1", "10.0.0.2"), "source"),
        (b"", ""),
        (b"\x45" * 19, ""),
        (struct.pack("!BBHHHBBH8s", 0x45, 0, 20, 1, 0x2000, 64, 6, 0, bytes(8)), ""),
    ],
    ids=["public", "multicast", "loopback", "our own", "not from us", "nothing", "no whole header", "a fragment"],
)
def test_what_may_not_leave_is_refused_with_the_reason(stack: irl.Stack, packet: bytes, why: str) -> None:
    done = stack.send([packet, *packets(3)], layer=3, fill_checksums=True)
    with pytest.raises(irl.PolicyError, match=f"(?i){why}"):
        done.wait(5)
    assert (done.sent, done.refused) == (3, 1)


@pytest.mark.parametrize(
    ("frames", "lengths"),
    [
        ("text", None),
        (np.zeros((2, 60), dtype=np.uint16), None),
        (np.zeros(60, dtype=np.uint8), None),
        (np.zeros((2, 60), dtype=np.uint8), [60]),
        (np.zeros((2, 60), dtype=np.uint8), [60, 61]),
        (np.zeros((2, 60), dtype=np.uint8), np.array([60, -1])),
        (pa.array([1, 2]), None),
        (pa.array([b"x", None]), None),
        (pa.table({"other": [b"x"]}), None),
        ([b"x"], [1]),
    ],
)
def test_what_are_no_frames_is_said(stack: irl.Stack, frames: object, lengths: object) -> None:
    with pytest.raises(irl.ConfigError):
        stack.send(frames, lengths)


def test_frames_of_the_senders_own_beside_a_scan(stack: irl.Stack) -> None:
    run = stack.scan("10.0.0.0/14", ports=80, rate=0, cooldown_time=0.3)
    frames = answers(stack, lambda: [stack.send(packets(), layer=3), list(run)])
    assert run.stats["found"] == 1 << 18
    assert len(frames) <= 64


def test_a_closed_stack_says_so(stack: irl.Stack) -> None:
    stack.send(packets(), layer=3).wait()
    stack.close()
    with pytest.raises(irl.ConfigError, match="closed"):
        stack.send(packets(), layer=3)
    with pytest.raises(irl.ConfigError, match="closed"):
        stack.scan("10.0.0.0/24", ports=80)
    assert repr(stack) == "<Stack, closed>"


def test_frames_beyond_the_link_are_lost_as_the_link_loses_them() -> None:
    with irl.Stack.simulated(WORLD, impairment=Impairment(loss=1.0), policy=irl.Policy(rate=0)) as stack:
        assert answers(stack, lambda: stack.send(packets(), layer=3).wait()) == []
