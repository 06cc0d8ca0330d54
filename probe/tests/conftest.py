"""A server on loopback that does wrong what it is told to."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler

Fault = Callable[["Server", HTTPServerRequest], str | None]


class Server:
    """A service with a page, a ledger and a WebSocket, and with faults.

    Attributes:
        fault: Is asked about each request; "503" answers with that status, "close" ends the connection
            without an answer, "hide" executes a POST without noting it, "twice" notes it twice,
            "close later" answers and then ends the connection although it may be used again.
        ledger: What was noted.
        asked: How many requests came, by method.
        release: What answers say.
        websocket: How often to close it, and with which code; None closes without a word.
    """

    def __init__(self) -> None:
        self.fault: Fault = lambda _server, _request: None
        self.ledger: list[str] = []
        self.asked: Counter[str] = Counter()
        self.release = "r1"
        self.host = "one"
        self.closes: list[int | None] = []
        self.body: dict[str, Any] | str | None = None
        self.started = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()
        assert self.started.wait(10)

    async def _serve(self) -> None:
        server = self

        class Echo(WebSocketHandler):
            async def on_message(self, message: str | bytes) -> None:
                if server.closes:
                    code = server.closes.pop()
                    if code is None:
                        self.ws_connection.stream.close()  # type: ignore[union-attr]
                    else:
                        self.close(code)
                    return
                await self.write_message(message)

        class Page(RequestHandler):
            async def get(self, path: str) -> None:
                server.asked["GET"] += 1
                fault = server.fault(server, self.request)
                if fault == "close":
                    self.request.connection.stream.close()  # type: ignore[union-attr]
                    return
                if fault and fault.isdigit():
                    self.set_status(int(fault))
                if path == "ledger":
                    run = parse_qs(urlsplit(self.request.uri or "").query)["run"][0]
                    ids = [id_ for id_ in server.ledger if id_.startswith(run)]
                    self.finish({"host": server.host, "ids": ids})
                else:
                    self.finish(server.body or {"host": server.host, "release": server.release})
                if fault == "close later":
                    await asyncio.sleep(0.001)
                    self.request.connection.stream.close()  # type: ignore[union-attr]

            async def post(self, path: str) -> None:
                server.asked["POST"] += 1
                fault = server.fault(server, self.request)
                if fault == "close":
                    self.request.connection.stream.close()  # type: ignore[union-attr]
                    return
                id_ = json.loads(self.request.body)["id"]
                server.ledger += {"twice": [id_, id_], "hide": []}.get(fault or "", [id_])
                if fault and fault.isdigit():
                    self.set_status(int(fault))
                self.finish({"id": id_, "host": server.host, "release": server.release})

        app = Application([("/ws", Echo), ("/(ledger|slow|)", Page)], log_function=lambda _: None)
        http = HTTPServer(app)
        listener, self.port = bind_unused_port()
        http.add_socket(listener)
        self.url = f"http://127.0.0.1:{self.port}"
        self.loop, self.stop = asyncio.get_running_loop(), asyncio.Event()
        self.started.set()
        await self.stop.wait()
        http.stop()


@pytest.fixture
def server() -> Iterator[Server]:
    """A server without faults, until it is told of some."""
    server = Server()
    yield server
    server.loop.call_soon_threadsafe(server.stop.set)
