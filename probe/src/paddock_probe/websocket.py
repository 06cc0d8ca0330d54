"""One WebSocket that is used all the time: an echo a second."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.netutil import DefaultLoopResolver, OverrideResolver
from tornado.websocket import (
    WebSocketClientConnection,
    WebSocketClosedError,
    WebSocketError,
    websocket_connect,
)

from .client import LIMIT, Target
from .records import Loss, WebSocketLog

GOING_AWAY = 1001  # RFC 6455, section 7.4.1
BACK = 2.0  # seconds in which a client must be connected again
PERIOD = 1.0  # seconds between two messages
PAUSE = 0.1  # seconds between two tries to connect
ERRORS = (OSError, TimeoutError, HTTPClientError, WebSocketError)


Messages = asyncio.Queue[str | bytes | None]


async def connect(target: Target, path: str, messages: Messages) -> WebSocketClientConnection:
    """Open a WebSocket; what it gets goes into a queue, None at its end.

    Raises:
        OSError: There is no answer in time.
        HTTPClientError: It is answered, but not with a WebSocket.
        WebSocketError: The other side breaks the protocol.
    """
    name = target.name or target.hostname
    url = f"{'wss' if target.tls else 'ws'}://{f'[{name}]' if ':' in name else name}:{target.port}{path}"
    request = HTTPRequest(url, headers={"Host": target.host_header}, ssl_options=target.tls)
    resolver = OverrideResolver(DefaultLoopResolver(), {name: target.address})
    connecting = websocket_connect(request, resolver=resolver, on_message_callback=messages.put_nowait)
    return await asyncio.wait_for(connecting, LIMIT)


class Echo:
    """Keeps a WebSocket busy until it is cancelled.

    Args:
        target: Where it connects to.
        path: Of the WebSocket, which sends back what it gets.
        now: Tells the seconds since the load began.
    """

    def __init__(self, target: Target, path: str, now: Callable[[], float]) -> None:
        self.target, self.path, self.now = target, path, now
        self.log = WebSocketLog()

    async def run(self) -> None:
        """Connect, use and connect again."""
        lost: float | None = None
        while True:
            messages = Messages()
            connection = await self._connect(messages, self.now() if lost is None else lost)
            if lost is not None:
                self.log.longest_away = max(self.log.longest_away, self.now() - lost)
            try:
                error = await self._use(connection, messages)
            finally:
                connection.close()
            lost = self.now()
            if connection.close_code == GOING_AWAY:
                self.log.going_away += 1
            else:
                code = f" (close code {connection.close_code})" if connection.close_code else ""
                self.log.losses.append(Loss(lost, f"{error}{code}"))

    async def _connect(self, messages: Messages, since: float) -> WebSocketClientConnection:
        late = False
        while True:
            try:
                connection = await connect(self.target, self.path, messages)
                reason = ""
            except ERRORS as error:
                connection, reason = None, f": {error}"
            if self.now() - since > BACK and not late:
                late = True
                self.log.losses.append(Loss(since, f"not back in {BACK:.0f} s{reason}"))
            if connection:
                return connection
            self.log.longest_away = max(self.log.longest_away, self.now() - since)
            await asyncio.sleep(PAUSE)

    async def _use(self, connection: WebSocketClientConnection, messages: Messages) -> str:
        """Send and receive until the connection is gone; returns how it went."""
        while True:
            text = f"message {self.log.messages}"
            # Where it is closed already, the queue says so too.
            with contextlib.suppress(WebSocketClosedError):
                await connection.write_message(text)
            try:
                message = await asyncio.wait_for(messages.get(), LIMIT)
            except TimeoutError:
                return f"no echo in {LIMIT:.0f} s"
            if message is None:
                return "closed without a word"
            if message != text:
                return "the echo is not what was sent"
            self.log.messages += 1
            with contextlib.suppress(TimeoutError):
                message = await asyncio.wait_for(messages.get(), PERIOD)
                return "closed without a word" if message is None else "a message that was not asked for"
