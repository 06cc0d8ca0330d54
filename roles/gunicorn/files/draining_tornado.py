"""A Gunicorn worker for Tornado that lets requests in flight finish.

Gunicorn's own (gunicorn/workers/gtornado.py, as of 27.0.1) ends its loop about a second after
SIGTERM, whatever is in flight, and offers no way to set the server's options.
"""

from __future__ import annotations

import time
import weakref
from typing import Any

from gunicorn.workers.gtornado import TornadoWorker
from paddock_client import plain, trusts
from tornado import httputil
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop, PeriodicCallback
from tornado.websocket import WebSocketHandler

# Seconds for which idle connections are still answered, so that a request that is already on its
# way is not lost; Gunicorn's gthread worker lingers as long.
LINGER = 2.0
GOING_AWAY = 1001  # RFC 6455, section 7.4.1


class _Request(httputil.HTTPMessageDelegate):
    """Passes a request on and notes that its headers have come."""

    def __init__(self, inner: httputil.HTTPMessageDelegate, busy: set[object], key: object) -> None:
        self.inner, self.busy, self.key = inner, busy, key
        self.data_received = inner.data_received  # type: ignore[method-assign]
        self.finish = inner.finish  # type: ignore[method-assign]

    def headers_received(self, start_line: Any, headers: httputil.HTTPHeaders) -> Any:
        self.busy.add(self.key)
        return self.inner.headers_received(start_line, headers)

    def on_connection_close(self) -> None:
        self.busy.discard(self.key)
        self.inner.on_connection_close()


class _Server(HTTPServer):
    """Knows which of its connections are in the middle of a request."""

    worker: TornadoWorker

    def initialize(self, *args: Any, **kwargs: Any) -> None:
        self.busy: set[object] = set()
        super().initialize(*args, **kwargs)

    def start_request(self, server_conn: object, request_conn: Any) -> httputil.HTTPMessageDelegate:
        # Tornado asks for the next request once the one before is wholly answered.
        self.busy.discard(server_conn)
        # Tornado would trust every client: its trusted_downstream lists what to skip in X-Forwarded-For, not
        # which client may send it.
        context = request_conn.context
        peer = context.address[0] if isinstance(context.address, tuple) else ""
        self.xheaders = trusts(self.worker.cfg.forwarded_allow_networks(), peer)
        context.remote_ip = plain(context.remote_ip)
        return _Request(super().start_request(server_conn, request_conn), self.busy, server_conn)

    def on_close(self, server_conn: object) -> None:
        self.busy.discard(server_conn)
        self.worker.handle_request()
        super().on_close(server_conn)


class DrainingTornadoWorker(TornadoWorker):
    """Stops accepting on SIGTERM, answers what it has, closes WebSockets, then ends.

    Gunicorn's master bounds all of it by `graceful_timeout`.
    """

    drain_started: float | None = None

    def run(self) -> None:
        """Serve until told to stop. Called once in each worker process."""
        self.ioloop = IOLoop.current()
        self.alive = True
        self.callbacks = [PeriodicCallback(self.watchdog, 1000), PeriodicCallback(self.heartbeat, 100)]
        for callback in self.callbacks:
            callback.start()
        self._watch_websockets()
        self.server = _Server(
            self.wsgi,
            idle_connection_timeout=self.cfg.keepalive,
            body_timeout=self.cfg.timeout,
        )
        self.server.worker = self
        for listener in self.sockets:
            listener.setblocking(False)
            self.server.add_socket(listener.sock)
        self.ioloop.start()

    def heartbeat(self) -> None:
        """Look whether to stop, and whether all is answered."""
        if self.alive:
            return
        if self.drain_started is None:
            self.drain_started = time.monotonic()
            self.server.stop()
            self.server.conn_params.no_keep_alive = True
        self._say_goodbye()
        lingered = time.monotonic() - self.drain_started >= LINGER
        if not self.server.busy and (lingered or not self.server._connections):
            for callback in self.callbacks:
                callback.stop()
            self.ioloop.add_callback(self._end)

    async def _end(self) -> None:
        """End, with no connection left that could become another WebSocket."""
        await self.server.close_all_connections()
        self._say_goodbye()
        self.ioloop.stop()

    def _say_goodbye(self) -> None:
        """Close the WebSockets that are open: one told to go may have come back on a kept connection."""
        for handler in list(self.websockets):
            handler.close(GOING_AWAY, "server is going away")

    def _watch_websockets(self) -> None:
        """Collect the open WebSockets; the server has let go of their connections."""
        websockets = self.websockets = weakref.WeakSet[WebSocketHandler]()
        original = WebSocketHandler.get_websocket_protocol

        def get_websocket_protocol(handler: WebSocketHandler) -> Any:
            websockets.add(handler)
            return original(handler)

        WebSocketHandler.get_websocket_protocol = get_websocket_protocol  # type: ignore[method-assign]
