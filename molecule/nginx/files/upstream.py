#!/usr/bin/python3
"""Apps of two backends: they answer what they received, and fail when the query asks for it.

?slow=8 waits; ?status=503 answers so; ?header=Name:value adds a header; ?close=127.0.0.2 closes the
connection without an answer, on that backend only. Each request is a line of LOG before it is answered.
`upstream 127.0.0.11:9301` plays one backend of one app; /run/127.0.0.11 has the status of its health.
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from urllib.parse import parse_qsl, urlsplit

FIRST, SECOND = "127.0.0.2", "127.0.0.3"
LISTEN = [(host, port) for host in (FIRST, SECOND) for port in range(9101, 9110)] + [(FIRST, 9201)]
if sys.argv[1:]:
    LISTEN = [(host, int(port)) for host, port in (one.split(":") for one in sys.argv[1:])]
LOG = Path("/var/log/upstream.log")


class App(BaseHTTPRequestHandler):
    """Every path and every method."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        """Answer what was received."""
        host, port = self.server.server_address
        asked = dict(parse_qsl(urlsplit(self.path).query))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        received = {"host": host, "port": port, "method": self.command, "uri": self.path}
        received |= {"headers": self.headers.items(), "body": len(body)}
        with LOG.open("a") as log:
            log.write(json.dumps(received) + "\n")
        time.sleep(float(asked.get("slow", 0)))
        if asked.get("close") == host:
            self.close_connection = True
            return
        content = json.dumps(received).encode()
        health = Path("/run", host)
        if self.path == "/readyz" and health.exists():
            asked["status"] = health.read_text()
        self.send_response(int(asked.get("status", 200)))
        self.send_header("Content-Length", str(len(content)))
        if "header" in asked:
            self.send_header(*asked["header"].split(":", 1))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_FOO = answer


class Server(ThreadingTCPServer):
    """One port of one backend."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


for address in LISTEN:
    threading.Thread(target=Server(address, App).serve_forever).start()
