"""HTTP/1.1 clients whose connections are under our control, and the three ways to use them."""

from __future__ import annotations

import asyncio
import json
import select
import socket
import ssl
import time
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

import h11

LIMIT = 10.0  # seconds that a request may take
IDLE = 30.0  # seconds after which a pooled connection is not used again
ERRORS = (OSError, TimeoutError, h11.ProtocolError)


class Answer(NamedTuple):
    """Status and body of an answer."""

    status: int
    body: bytes

    def json(self) -> dict[str, object]:
        """The body where it is a JSON object, else nothing."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


class ClosedEarly(ConnectionError):
    """The connection ended before the first byte of an answer."""


def describe(error: BaseException) -> str:
    """An error in a few words."""
    if isinstance(error, TimeoutError):
        return f"no answer in {LIMIT:.0f} s"
    if isinstance(error, socket.gaierror):
        return "name does not resolve"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    if isinstance(error, ClosedEarly):
        return str(error)
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionResetError):
        return "connection reset"
    if isinstance(error, h11.ProtocolError):
        return f"not HTTP/1.1 as it should be: {error}"
    return str(error) or type(error).__name__


@dataclass
class Target:
    """Where requests go: resolved once, for a client's DNS cache is no part of what is measured.

    Attributes:
        url: scheme://host[:port], without a path.
        name: The Host header; empty for the URL's own.
        tls: The context for https, else None.
        address: The host, or the address that it was last reached at.
    """

    url: str
    name: str = ""
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        self.address = self.hostname = parts.hostname or ""
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.host_header = self.name or parts.netloc.rpartition("@")[2]

    async def connect(self) -> Connection:
        """Open a connection.

        Raises:
            OSError: There is no answer, or TLS is not as it should be.
        """
        sni = {"ssl": self.tls, "server_hostname": self.name or self.hostname} if self.tls else {}
        return Connection(*await asyncio.open_connection(self.address, self.port, **sni))


class Connection:
    """One connection, for one request after another."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.http = h11.Connection(h11.CLIENT)
        self.idle_since = time.monotonic()

    @property
    def address(self) -> str:
        """The peer's address; empty where it is gone already."""
        peer = self.writer.get_extra_info("peername")
        return peer[0] if peer else ""

    @property
    def reusable(self) -> bool:
        """Whether HTTP allows one more request."""
        return self.http.our_state is h11.IDLE

    def seen_closed(self) -> bool:
        """Whether the server has closed the idle connection, or sent something without a request."""
        if self.reader.at_eof() or self.reader.exception() or self.writer.is_closing():
            return True
        # The kernel may know what the event loop has not come to yet.
        poll = select.poll()
        poll.register(self.writer.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    async def ask(self, method: str, path: str, headers: list[tuple[str, str]], body: bytes = b"") -> Answer:
        """Send a request and read its whole answer.

        Raises:
            ClosedEarly: The connection ended before the answer's first byte.
            OSError: It ended later.
            h11.ProtocolError: The answer is not HTTP/1.1.
        """
        answered = False
        request = h11.Request(method=method, target=path, headers=headers)
        status, parts = 0, []
        try:
            data = [self.http.send(event) for event in (request, h11.Data(data=body), h11.EndOfMessage())]
            self.writer.write(b"".join(part or b"" for part in data))
            await self.writer.drain()
            while True:
                event = self.http.next_event()
                if event is h11.NEED_DATA:
                    chunk = await self.reader.read(65536)
                    answered = answered or bool(chunk)
                    if not chunk and not answered:
                        raise ClosedEarly("closed before the answer")
                    self.http.receive_data(chunk)
                elif isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.Data):
                    parts.append(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    break
                elif isinstance(event, h11.ConnectionClosed):
                    raise ConnectionResetError("closed in the middle of the answer")
        except ConnectionError as error:
            if answered or isinstance(error, ClosedEarly):
                raise
            raise ClosedEarly(describe(error)) from error
        if self.http.our_state is h11.DONE and self.http.their_state is h11.DONE:
            self.http.start_next_cycle()
        self.idle_since = time.monotonic()
        return Answer(status, b"".join(parts))

    def close(self) -> None:
        """Drop the connection at once."""
        self.writer.transport.abort()


class Client:
    """A class of clients.

    Args:
        target: Where requests go.
        reuse: Keep connections and use them again; else each request has one of its own.
        retry: Do what real clients do about a connection that the server has closed while it was
            idle: look before sending, and send an idempotent request once more, on a new connection,
            where the old one ends before any of the answer.
    """

    def __init__(self, target: Target, reuse: bool = False, retry: bool = False) -> None:
        self.target, self.reuse, self.retry = target, reuse, retry
        self.pool: list[Connection] = []

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[Answer, bool]:
        """Send a request; returns the answer and whether it took a second try.

        Raises:
            OSError: No connection, or it ended before the answer did.
            h11.ProtocolError: The answer is not HTTP/1.1.
        """
        connection = self._idle()
        reused = connection is not None
        connection = connection or await self.target.connect()
        try:
            return await self._ask_on(connection, method, path, body), False
        except ClosedEarly:
            if not (self.retry and reused and method == "GET"):
                raise
        return await self._ask_on(await self.target.connect(), method, path, body), True

    def close(self) -> None:
        """Drop all idle connections."""
        while self.pool:
            self.pool.pop().close()

    def _idle(self) -> Connection | None:
        while self.pool:
            connection = self.pool.pop()
            aged = time.monotonic() - connection.idle_since > IDLE
            if not (aged or (self.retry and connection.seen_closed())):
                return connection
            connection.close()
        return None

    async def _ask_on(self, connection: Connection, method: str, path: str, body: bytes) -> Answer:
        headers = [("Host", self.target.host_header), ("User-Agent", "paddock-probe")]
        if not self.reuse:
            headers.append(("Connection", "close"))
        if body:
            headers += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        keep = False
        try:
            answer = await connection.ask(method, path, headers, body)
            keep = self.reuse and connection.reusable
        finally:
            if keep:
                self.pool.append(connection)
            else:
                connection.close()
        return answer
