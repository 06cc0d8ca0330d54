"""twin: what echo does, on Tornado."""

import hashlib
import json
import os
from pathlib import Path

from outward import outward
from tornado.httputil import HTTPHeaders, ResponseStartLine
from tornado.web import Application, RequestHandler

SEEN = Path(os.environ.get("STATE_DIRECTORY", "/tmp"), "seen")


class Ready(RequestHandler):
    """Names the release."""

    def get(self) -> None:
        """Answer at once."""
        self.write({"release": os.environ["APP_RELEASE"]})


class Form(RequestHandler):
    """Takes a form apart."""

    def post(self) -> None:
        """Count its parts."""
        self.write({"parts": len(self.request.body_arguments)})


class Redirect(RequestHandler):
    """Leads away."""

    def get(self) -> None:
        """Lead where the client says."""
        # get_argument would strip the line ends.
        self.redirect(self.request.arguments["to"][0].decode())


class Outward(RequestHandler):
    """Tries the network."""

    def get(self) -> None:
        """Say what worked."""
        self.write(outward(self.get_argument("address"), int(self.get_argument("port"))))


class Echo(RequestHandler):
    """Answers any request."""

    def note(self) -> bytes:
        """Put down what was asked, and return it."""
        asked = self.request
        line = json.dumps(
            {
                "method": asked.method,
                "target": asked.uri,
                "path": asked.path,
                "headers": {key.upper(): ",".join(asked.headers.get_list(key)) for key in asked.headers},
                "client": asked.remote_ip,
                "scheme": asked.protocol,
                "body": hashlib.sha256(asked.body).hexdigest(),
                "length": len(asked.body),
            }
        )
        with SEEN.open("a") as seen:
            seen.write(line + "\n")
        return line.encode()

    def prepare(self) -> None:
        """Answer whatever the method is."""
        self.set_header("Content-Type", "application/json")
        self.finish(self.note())


class Bad(Echo):
    """Answers what no app should."""

    def prepare(self) -> None:
        """Go round Tornado's own checks where those would stop it."""
        self.note()
        kind = self.request.path[1:]
        body, headers = b"ok", HTTPHeaders({"Content-Length": "2"})
        match kind:
            case "huge_header":
                headers["X-Huge"] = "x" * (1 << 20)
            case "split_header":
                headers._dict["X-Split"] = "a\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nX-Injected: yes"
            case "too_little":
                headers["Content-Length"] = "100"
            case "too_much":
                body += b"HTTP/1.1 200 OK\r\nX-Injected: yes\r\nContent-Length: 0\r\n\r\n"
        self._finished = True
        connection = self.request.connection
        connection.write_headers(ResponseStartLine("HTTP/1.1", 200, "OK"), headers, body)
        connection.finish()


app = Application(
    [
        ("/readyz", Ready),
        ("/form", Form),
        ("/redirect", Redirect),
        ("/outward", Outward),
        ("/(?:huge_header|split_header|too_little|too_much)", Bad),
        (".*", Echo),
    ]
)
