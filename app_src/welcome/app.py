"""welcome: a Tornado app that greets over HTTP and echoes over a WebSocket."""

import asyncio
import contextlib
import os

from tornado.options import define, options, parse_command_line
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketClosedError, WebSocketHandler


class WelcomeHandler(RequestHandler):
    """Greets, and notes every hit on stdout."""

    def get(self) -> None:
        """Answer with the greeting."""
        # Stdout is a pipe to journald: unflushed, the line would wait for a full buffer.
        print("Someone called me", flush=True)
        self.write("Welcome to Tornado..!!")


class EchoHandler(WebSocketHandler):
    """Sends every message back as it came, to pages of the same origin only."""

    async def on_message(self, message: str | bytes) -> None:
        """Echo one message."""
        # The client may be gone before its echo is.
        with contextlib.suppress(WebSocketClosedError):
            await self.write_message(message, binary=isinstance(message, bytes))


class HealthHandler(RequestHandler):
    """Tells that the process is alive."""

    def get(self) -> None:
        """Answer that all is well."""
        self.write({"status": "ok"})


class ReadyHandler(RequestHandler):
    """Tells that the app takes traffic, and which release it is."""

    def get(self) -> None:
        """Answer with the app's name and release id."""
        self.write(
            {
                "status": "ready",
                "app": self.settings["app_name"],
                "release": self.settings["app_release"],
            }
        )


def make_app() -> Application:
    """Build the application; it needs no event loop, so Gunicorn may preload it."""
    return Application(
        [
            ("/", WelcomeHandler),
            ("/ws", EchoHandler),
            ("/healthz", HealthHandler),
            ("/readyz", ReadyHandler),
        ],
        app_name=os.environ.get("APP_NAME", "welcome"),
        app_release=os.environ.get("APP_RELEASE", "development"),
    )


app = make_app()


async def serve(port: int) -> None:
    """Serve on a loopback port until cancelled."""
    app.listen(port, address="127.0.0.1")
    await asyncio.Event().wait()


def main() -> None:
    """Run the development server."""
    # Not at module level: the options are global to the process, and a second import would fail.
    define("port", default=8888, type=int, help="port to listen on")
    parse_command_line()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(options.port))


if __name__ == "__main__":
    main()
