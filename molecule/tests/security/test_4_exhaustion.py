"""What is meant to use a server up: time, memory, work."""

from __future__ import annotations

import gzip
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from wire import NGINX, PORTS, Node

# A Python worker with Flask needs a third of it.
WORKER_KB = 100 * 1024
# Longer than any of Nginx's time limits for clients.
PATIENCE = 20


def drip(node: Node, begin: bytes, piece: bytes) -> tuple[bytes, float]:
    """Send a piece a second until the server has had enough; returns its answer and the seconds."""
    answer = b""
    began = time.monotonic()
    with node.connect(NGINX, 1) as connection:
        connection.sendall(begin)
        while time.monotonic() - began < PATIENCE:
            try:
                connection.sendall(piece)
                chunk = connection.recv(1 << 16)
            except TimeoutError:
                continue
            except ConnectionError:
                chunk = b""
            if not chunk:
                return answer, time.monotonic() - began
            answer += chunk
    raise AssertionError(f"still open after {PATIENCE} s")


def test_slow_headers(node: Node) -> None:
    """H24: however they come, headers have ten seconds; no other client waits for them."""
    host = b"GET /slow HTTP/1.1\r\nHost: echo.test\r\n"
    drips = [(b"", b"G"), (host, b"X"), (host, b"X-A: 1\r\n"), (b"", b"\r\n")]
    with ThreadPoolExecutor(len(drips)) as pool:
        running = [pool.submit(drip, node, *one) for one in drips]
        assert node.exchange(NGINX, host + b"\r\n").verdict == "200"
        outcomes = [one.result() for one in running]
    for answer, seconds in outcomes:
        assert b" 200 " not in answer
        assert seconds < 13


def test_slow_bodies_reach_no_app(node: Node) -> None:
    """More bodies than the app has threads trickle in, and it is free for others."""
    begin = b"POST /slow HTTP/1.1\r\nHost: echo.test\r\nContent-Length: 500000\r\n\r\n"
    slow = [node.connect(NGINX) for _ in range(30)]
    try:
        for connection in slow:
            connection.sendall(begin + b"a" * 1000)
        for _ in range(10):
            assert node.exchange(NGINX, b"GET /fast HTTP/1.0\r\nHost: echo.test\r\n\r\n").verdict == "200"
    finally:
        for connection in slow:
            connection.close()


def form(parts: int) -> bytes:
    """A form of many parts."""
    part = b'--x\r\nContent-Disposition: form-data; name="a%d"\r\n\r\n1\r\n'
    return b"".join(part % number for number in range(parts)) + b"--x--\r\n"


def post(app: str, body: bytes, path: str = "/form", *headers: str) -> bytes:
    """A POST through Nginx."""
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {app}.test",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def worker_memory(node: Node, app: str) -> int:
    """Kilobytes that the largest process of an app had at most."""
    status = node.sh(f"cat $(pgrep -u {app} | sed 's|.*|/proc/&/status|')")
    return max(map(int, re.findall(r"VmHWM:\s*(\d+)", status)))


@pytest.mark.parametrize("app", PORTS)
def test_bombs(node: Node, app: str) -> None:
    """H28: a form of ten thousand parts is refused, and what is packed stays packed."""
    multipart = "Content-Type: multipart/form-data; boundary=x"
    few = node.exchange(NGINX, post(app, form(10), "/form", multipart))
    assert (few.verdict, json.loads(few.answers[0].body)) == ("200", {"parts": 10})
    assert node.exchange(NGINX, post(app, form(10_000), "/form", multipart)).verdict in ("400", "413")
    urlencoded = "Content-Type: application/x-www-form-urlencoded"
    many = b"&".join(b"a%d=1" % number for number in range(100_000))
    assert node.exchange(NGINX, post(app, many, "/form", urlencoded)).verdict in ("200", "400", "413")
    packed = gzip.compress(b"0" * (200 << 20), 9)
    bomb = node.exchange(NGINX, post(app, packed, "/bomb", "Content-Encoding: gzip"))
    assert (bomb.verdict, json.loads(bomb.answers[0].body)["length"]) == ("200", len(packed))
    assert worker_memory(node, app) < WORKER_KB
