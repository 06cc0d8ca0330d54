"""drain: a Tornado app with long requests and WebSockets."""

import asyncio
import os

from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler


class Hello(RequestHandler):
    """Prints and greets."""

    def get(self) -> None:
        """Answer at once."""
        print("drain was asked")
        self.write(
            {
                "release": os.environ["APP_RELEASE"],
                "master": os.getppid(),
                "folder": os.getcwd(),
                "client": self.request.remote_ip,
                "scheme": self.request.protocol,
            }
        )


class Ready(RequestHandler):
    """Names the release."""

    def get(self) -> None:
        """Answer at once."""
        self.write({"release": os.environ["APP_RELEASE"]})


class Sleep(RequestHandler):
    """Answers late."""

    async def get(self) -> None:
        """Answer after `seconds`."""
        await asyncio.sleep(float(self.get_argument("seconds")))
        self.write({"release": os.environ["APP_RELEASE"]})


class Echo(WebSocketHandler):
    """Sends every message back."""

    async def on_message(self, message: str | bytes) -> None:
        """Echo one message."""
        await self.write_message(message)


app = Application([("/", Hello), ("/readyz", Ready), ("/sleep", Sleep), ("/ws", Echo)])
