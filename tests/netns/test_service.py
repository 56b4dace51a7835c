"""The services behind a World's open ports, asked by the kernel's own sockets: what they say, hold and release."""

import socket
from collections.abc import Iterator

import pytest

import irlstack as irl
from irlstack.lab import Lab, commands

WORLD = irl.World(seed=1, everything_open=True)
REQUEST = b"GET / HTTP/1.0\r\n\r\n".ljust(100, b".")
CRAWL = b"GNUTELLA CONNECT/0.6\r\nUser-Agent: IRLstack\r\nX-Ultrapeer: False\r\nCrawler: 0.1\r\n\r\n"
HOSTS = ["10.1.2.3", "10.255.0.1", "fd00:10::1:2:3", "172.16.5.6", "fd00:172::9"]


@pytest.fixture(scope="module")
def exchange(need_root: None) -> Iterator[Lab]:
    with Lab(everything_open=True, service="exchange:100") as up:
        yield up


def connected(lab: Lab, host: str, port: int = 80) -> socket.socket:
    with lab.enter():
        return socket.create_connection((host, port), timeout=10)


def asked(lab: Lab, host: str, request: bytes = REQUEST, service: str = "exchange") -> bytes:
    """What a host says to a request, so many bytes as it has to say, and then to a FIN."""
    with connected(lab, host) as each:
        each.sendall(request)
        said = received(each, len(WORLD.reply_of(host, 80, service)))
        each.shutdown(socket.SHUT_WR)
        assert each.recv(1) == b"", "it answers a FIN with its own"
        return said


def received(each: socket.socket, length: int) -> bytes:
    said = b""
    while len(said) < length and (piece := each.recv(length - len(said))):
        said += piece
    return said


@pytest.mark.parametrize("host", HOSTS)
def test_linux_gets_the_answer_that_the_world_says_and_both_sides_close(exchange: Lab, host: str) -> None:
    assert asked(exchange, host) == WORLD.reply_of(host, 80)


def test_each_host_and_port_has_an_answer_of_its_own() -> None:
    assert len({WORLD.reply_of(host, port) for host in HOSTS for port in (80, 443)}) == 2 * len(HOSTS)


def test_exchanges_of_a_kernels_sockets_are_answered_in_the_kernel(exchange: Lab) -> None:
    before = exchange.counters()["vb"]
    for number in range(50):
        assert asked(exchange, f"10.7.0.{number}") == WORLD.reply_of(f"10.7.0.{number}", 80)
    after = exchange.counters()["vb"]
    assert after["kernel_served"] - before["kernel_served"] == 50
    assert after["answered"] == before["answered"], "nothing was left to user space"


def test_a_second_request_on_the_same_connection_is_answered_too(exchange: Lab) -> None:
    with connected(exchange, "10.1.1.1") as each:
        for _ in range(3):
            each.sendall(REQUEST)
            assert received(each, 100) == WORLD.reply_of("10.1.1.1", 80)


@pytest.mark.parametrize("host", ["10.1.2.3", "fd00:10::7"])
def test_a_gnutella_peers_answer_finds_room_in_the_frame_of_a_shorter_request(host: str) -> None:
    with Lab(everything_open=True, service="gnutella", nginx=()) as lab:
        said = asked(lab, host, CRAWL, "gnutella")
        assert said == WORLD.reply_of(host, 80, "gnutella")
        assert said.startswith(b"GNUTELLA/0.6 ")
        assert said.endswith(b"\r\n\r\n")
        counted = lab.counters()["vb"]
        assert (counted["kernel_served"], counted["kernel_no_room"], counted["answered"]) == (1, 0, 0)


def test_an_answer_that_finds_no_room_comes_from_user_space_and_with_a_fin() -> None:
    service = "exchange:1428:fin"
    with Lab(everything_open=True, service=service, nginx=()) as lab, connected(lab, "10.1.2.3") as each:
        each.sendall(b"?")
        assert received(each, 2000) == WORLD.reply_of("10.1.2.3", 80, service), "until its FIN"
        counted = lab.counters()["vb"]
        assert counted["kernel_no_room"] == counted["answered"] == 1


@pytest.mark.parametrize("host", ["10.1.2.3", "fd00:10::7", "172.16.5.6"])
def test_on_hold_connections_open_but_requests_wait_for_the_release(exchange: Lab, host: str) -> None:
    def held() -> int:
        return sum(each.get("kernel_held", 0) + each["held"] for each in exchange.counters().values())

    before = held()
    exchange.hold()
    try:
        with connected(exchange, host) as each:
            each.sendall(REQUEST)
            each.settimeout(0.1)
            with pytest.raises(TimeoutError):
                each.recv(1)
            assert held() - before >= 2, "the handshake's ACK and the request"
            exchange.release()
            each.settimeout(10)
            assert received(each, 100) == WORLD.reply_of(host, 80), "sent again"
    finally:
        exchange.release()


def test_the_command_line_holds_and_releases(exchange: Lab) -> None:
    assert commands.tell("hold", exchange.name) == exchange.name
    with connected(exchange, "10.9.9.9") as each:
        each.sendall(REQUEST)
        commands.tell("release", exchange.name)
        assert received(each, 100) == WORLD.reply_of("10.9.9.9", 80)


def test_a_lab_with_a_service_that_there_is_not_says_which_there_are() -> None:
    with pytest.raises(irl.EngineError, match=r"no service .echo.; there are response, exchange:BYTES"):
        Lab(service="echo").up()
