"""HTTP/2 and TLS: what has no raw bytes in HTTP/1, and floods of frames."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import hpack
import http2
import pytest
from cases import NODES, seen
from http2 import Headers
from hyperframe.frame import ContinuationFrame, Frame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame
from testbed import play
from wire import Node

PEM = "/etc/nginx/rows.pem"
TLS = {"nginx_certificate": {"file": PEM}}
GET, POST = (b":method", b"GET"), (b":method", b"POST")
SCHEME, AUTHORITY = (b":scheme", b"https"), (b":authority", b"echo.test")
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: echo.test\r\n\r\n"
GROWTH_KB = 50 * 1024


def converge(*arguments: str) -> None:
    """Run the role nginx."""
    run = play("molecule/security/converge.yml", "--tags", "nginx", *arguments)
    assert run.rc == 0, run.output


@pytest.fixture(scope="module", autouse=True)
def tls() -> Iterator[None]:
    """Switch TLS on, with a certificate that no client trusts, and off again."""
    for node in NODES.values():
        node.sh(
            "cd /root && openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=rows -keyout key -out crt"
            f" && cat crt key > {PEM}"
        )
    converge("-e", json.dumps(TLS))
    for node in NODES.values():
        node.open(http2.TLS)
    yield
    converge()


class Row(NamedTuple):
    """A request, and the statuses that may answer it; a refusal may be a reset of the stream, too."""

    headers: Headers
    status: str
    body: bytes = b""
    host: str = "echo.test"


def ask(*more: tuple[bytes, bytes], path: bytes = b"/tag") -> Headers:
    """A GET with more headers."""
    return [GET, SCHEME, AUTHORITY, (b":path", path), *more]


def post(*more: tuple[bytes, bytes]) -> Headers:
    """A POST with more headers."""
    return [POST, *ask(*more)[1:]]


ROWS = {
    "plain": Row(ask(), "200"),
    "plain body": Row(post(), "200", b"hello"),
    "no path": Row(ask()[:3], "400"),
    "empty path": Row(ask(path=b""), "400"),
    "path without a slash": Row(ask(path=b"tag"), "400"),
    "absolute path": Row(ask(path=b"http://evil.test/tag"), "400"),
    "request in the path": Row(ask(path=b"/tag HTTP/1.1\r\nX-Smuggled: yes"), "400"),
    "line end in the path": Row(ask(path=b"/tag\r\nX-Smuggled: yes"), "400"),
    "dots in the path": Row(ask(path=b"/a/../tag"), "400"),
    "no method": Row(ask()[1:], "400"),
    "two methods": Row([POST, *ask()], "400"),
    "request in the method": Row([(b":method", SMUGGLED + b"GET"), *ask()[1:]], "400"),
    "CONNECT": Row([(b":method", b"CONNECT"), AUTHORITY], "400"),
    "TRACE": Row([(b":method", b"TRACE"), *ask()[1:]], "405"),
    "no scheme": Row([GET, AUTHORITY, (b":path", b"/tag")], "400"),
    "URI in the scheme": Row([GET, (b":scheme", b"https://evil.test/?"), *ask()[2:]], "400"),
    "no authority": Row([GET, SCHEME, (b":path", b"/tag")], "400"),
    "Host for the authority": Row([GET, SCHEME, (b":path", b"/tag"), (b"host", b"echo.test")], "200"),
    "Host and the authority": Row(ask((b"host", b"evil.test")), "400"),
    "two authorities": Row(ask((b":authority", b"evil.test")), "400"),
    "authority of another app": Row(
        [GET, SCHEME, (b":authority", b"twin.test"), (b":path", b"/tag")], "200", host="twin.test"
    ),
    "unknown authority": Row([GET, SCHEME, (b":authority", b"evil.test"), (b":path", b"/tag")], "421"),
    "unknown pseudo-header": Row(ask((b":evil", b"1")), "400"),
    "upper case": Row(ask((b"X-Evil", b"1")), "400"),
    "line end in a value": Row(ask((b"x-evil", b"a\r\nX-Smuggled: yes")), "400"),
    "LF in a value": Row(ask((b"x-evil", b"a\nX-Smuggled: yes")), "400"),
    "NUL in a value": Row(ask((b"x-evil", b"a\0b")), "400"),
    "header in a name": Row(ask((b"x-evil: a\r\nx-smuggled", b"yes")), "400"),
    "colon in a name": Row(ask((b"x-evil:", b"1")), "400"),
    "space in a name": Row(ask((b"x evil", b"1")), "400"),
    "empty name": Row(ask((b"", b"1")), "400"),
    "Connection": Row(ask((b"connection", b"close, x-forwarded-for")), "200"),
    "Upgrade": Row(ask((b"connection", b"upgrade"), (b"upgrade", b"h2c")), "200"),
    "chunked": Row(post((b"transfer-encoding", b"chunked")), "200", b"0\r\n\r\n" + SMUGGLED),
    "length too small": Row(post((b"content-length", b"0")), "400", SMUGGLED),
    "length too large": Row(post((b"content-length", b"50")), "400", b"hello"),
    "two lengths": Row(post((b"content-length", b"5"), (b"content-length", b"6")), "400", b"hello"),
    "spoofed headers": Row(
        ask((b"x-forwarded-for", b"6.6.6.6"), (b"x-forwarded-proto", b"http"), (b"x-real-ip", b"6.6.6.6")),
        "200",
    ),
    "150 headers": Row(ask(*((b"x-%d" % number, b"1") for number in range(150))), "400"),
}


@pytest.mark.parametrize("name", ROWS)
def test_row(node: Node, name: str) -> None:
    """The request is refused, or the app got that one and nothing of it that Nginx should have said."""
    row = ROWS[name]
    app = row.host.partition(".")[0]
    before = len(seen(node.name, app))
    verdict, body = http2.exchange(node, row.headers, row.body)
    assert verdict == row.status or (row.status == "400" and verdict in ("reset", "closed"))
    notes = [json.loads(line) for line in seen(node.name, app)[before:]]
    assert notes == ([json.loads(body)] if verdict == "200" else [])
    for note in notes:
        assert (note["method"].encode(), note["target"]) == (row.headers[0][1], "/tag")
        assert note["length"] == len(row.body)
        told = {key: note["headers"].get(key) for key in ("HOST", "X-FORWARDED-FOR", "X-REAL-IP", "UPGRADE")}
        assert told == {
            "HOST": row.host,
            "X-FORWARDED-FOR": "127.0.0.1",
            "X-REAL-IP": "127.0.0.1",
            "UPGRADE": None,
        }
        assert note["scheme"] == "https"


@pytest.mark.parametrize("app", ["echo-shut", "twin-shut"])
def test_app_without_a_network_knows_its_balancer(node: Node, app: str) -> None:
    """It believes the scheme that Nginx tells it, though it can look up no name."""
    headers = [GET, SCHEME, (b":authority", f"{app}.test".encode()), (b":path", b"/tag")]
    verdict, body = http2.exchange(node, headers, app=app)
    assert (verdict, json.loads(body)["scheme"]) == ("200", "https")


def test_unknown_name_gets_no_handshake(node: Node) -> None:
    """Not even the certificate."""
    with pytest.raises(OSError, match="unrecognized name"):
        http2.connect(node, "evil")


def test_a_page_with_many_files(node: Node) -> None:
    """A browser asks for 400 files on one connection, as many at once as Nginx allows; it gets them all."""
    assert http2.load(node, ask(), 400) == {"200": 400}


@pytest.mark.full
def test_a_client_has_its_share(node: Node) -> None:
    """More requests at once than one address may have, on however many connections, get 429."""
    converge("-e", json.dumps(TLS | {"nginx_limits": {"client_requests": 20}}))
    try:
        found = http2.load(node, ask(path=b"/slow"), 128)
    finally:
        converge("-e", json.dumps(TLS))
    assert found.keys() == {"200", "429"}
    assert found["200"] >= 20
    assert found["429"] > 0


# --- Floods --------------------------------------------------------------------------------------

BLOCK = hpack.Encoder().encode(ask())


def headers(stream: int, block: bytes = BLOCK, end: bool = True) -> Frame:
    """The frame that begins a request."""
    return HeadersFrame(stream, data=block, flags=["END_STREAM", *(["END_HEADERS"] if end else [])])


def rapid_reset() -> Iterator[list[Frame]]:
    """Begin requests and take each back."""
    for stream in range(1, 20000, 2):
        yield [headers(stream), RstStreamFrame(stream, error_code=8)]


def continuations() -> Iterator[list[Frame]]:
    """Begin a request whose headers never end."""
    yield [headers(1, end=False)]
    for number in range(5000):
        yield [
            ContinuationFrame(
                1, data=hpack.Encoder().encode([(b"x-%d" % number, b"a" * 4000)], huffman=False)
            )
        ]


def bomb() -> Iterator[list[Frame]]:
    """Name one large header a hundred thousand times, a byte each."""
    large = b"\x40\x06x-bomb" + hpack.hpack.encode_integer(3900, 7) + b"a" * 3900
    block = BLOCK + large + b"\xbe" * 100_000
    parts = [block[start : start + 16384] for start in range(0, len(block), 16384)]
    yield [headers(1, parts[0], end=False)]
    yield [ContinuationFrame(1, data=part) for part in parts[1:-1]]
    yield [ContinuationFrame(1, data=parts[-1], flags=["END_HEADERS"])]


def pings() -> Iterator[list[Frame]]:
    """Ask whether anybody is there."""
    for _ in range(20_000):
        yield [PingFrame(0, opaque_data=b"12345678")] * 5


def settings() -> Iterator[list[Frame]]:
    """Change one's mind."""
    for _ in range(20_000):
        yield [SettingsFrame(0, settings={4: 65535})] * 5


def memory(node: Node) -> int:
    """Kilobytes that Nginx's processes had at most, together."""
    return int(
        node.sh(
            "cat $(pgrep -x nginx | sed 's|.*|/proc/&/status|') | awk '/VmHWM/ {sum += $2} END {print sum}'"
        )
    )


@pytest.mark.parametrize("flood", [rapid_reset, continuations, bomb, pings, settings])
def test_flood(node: Node, flood: Callable[[], Iterator[list[Frame]]]) -> None:
    """Nginx closes the connection, needs little memory for it, and serves all others meanwhile."""
    before, asked = memory(node), len(seen(node.name, "echo"))
    verdicts: list[str] = []
    over = threading.Event()

    def others() -> None:
        while not over.is_set() or len(verdicts) < 5:
            verdicts.append(http2.exchange(node, ask(), app="twin")[0])

    client = threading.Thread(target=others)
    client.start()
    try:
        with http2.connect(node) as connection:
            connection.sendall(http2.client().data_to_send())
            # It may close before all is sent.
            with contextlib.suppress(ConnectionError, http2.ssl.SSLError):
                for frames in flood():
                    connection.sendall(b"".join(frame.serialize() for frame in frames))
            http2.until_closed(connection)
    finally:
        over.set()
        client.join()
    assert set(verdicts) == {"200"}
    assert memory(node) - before < GROWTH_KB
    # A connection is good for a thousand requests (keepalive_requests).
    assert len(seen(node.name, "echo")) - asked <= 1000
