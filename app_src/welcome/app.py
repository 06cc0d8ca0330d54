"""welcome: a Tornado app that greets over HTTP and echoes over a WebSocket."""

import asyncio
import contextlib
import os

from tornado.options import define, options, parse_command_line
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketClosedError, WebSocketHandler

NAME = os.environ.get("APP_NAME", "welcome")
RELEASE = os.environ.get("APP_RELEASE", "development")


class Welcome(RequestHandler):
    """Greets, and notes every hit on stdout."""

    def get(self) -> None:
        """Answer with the greeting."""
        print("Someone called me", flush=True)
        self.write("Welcome to Tornado..!!")


class Echo(WebSocketHandler):
    """Sends every message back as it came."""

    async def on_message(self, message: str | bytes) -> None:
        """Echo one message; its client may be gone by then."""
        with contextlib.suppress(WebSocketClosedError):
            await self.write_message(message, binary=isinstance(message, bytes))


class Ready(RequestHandler):
    """Tells that the app takes traffic, and which release it is."""

    def get(self) -> None:
        """Answer with the app's name and release id."""
        self.write({"status": "ready", "app": NAME, "release": RELEASE})


app = Application([("/", Welcome), ("/ws", Echo), ("/readyz", Ready)])


async def serve(port: int) -> None:
    """Serve on a loopback port until cancelled."""
    app.listen(port, address="127.0.0.1")
    await asyncio.Event().wait()


if __name__ == "__main__":
    define("port", default=8888, type=int, help="port to listen on")
    parse_command_line()
    asyncio.run(serve(options.port))
