"""echo: says byte by byte what it was asked, and answers what no app should, when asked to."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from flask import Flask, redirect, request
from outward import outward
from taken_over import run
from werkzeug.wrappers import Response

SEEN = Path(os.environ.get("STATE_DIRECTORY", "/tmp"), "seen")
form = Flask(__name__)


@form.post("/form")
def parts() -> dict[str, int]:
    """Take a form apart."""
    return {"parts": len(request.form)}


@form.get("/redirect")
def away() -> Response:
    """Lead where the client says."""
    return redirect(request.args["to"])


@form.get("/outward")
def out() -> dict[str, str]:
    """Try the network."""
    return outward(request.args["address"], int(request.args["port"]))


@form.post("/run")
def attack() -> tuple[bytes, int]:
    """Run the program that the client sends: this app is taken over."""
    status, said = run(request.get_data())
    return said, 500 if status else 200


def note(environ: WSGIEnvironment) -> bytes:
    """Put down what was asked, whoever asked it, and return it."""
    body = environ["wsgi.input"].read()
    headers = {key: value for key, value in environ.items() if key.startswith(("HTTP_", "CONTENT_"))}
    line = json.dumps(
        {
            "method": environ["REQUEST_METHOD"],
            "target": environ["RAW_URI"],
            "path": environ["SCRIPT_NAME"] + environ["PATH_INFO"],
            "headers": {key.removeprefix("HTTP_").replace("_", "-"): value for key, value in headers.items()},
            "client": environ["REMOTE_ADDR"],
            "scheme": environ["wsgi.url_scheme"],
            "body": hashlib.sha256(body).hexdigest(),
            "length": len(body),
        }
    )
    with SEEN.open("a") as seen:
        seen.write(line + "\n")
    return line.encode()


def huge_header(start_response: StartResponse) -> Iterable[bytes]:
    """Answer with a megabyte of one header."""
    start_response("200 OK", [("X-Huge", "x" * (1 << 20)), ("Content-Length", "2")])
    return [b"ok"]


def split_header(start_response: StartResponse) -> Iterable[bytes]:
    """Answer with a header that holds another response."""
    injected = "a\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nX-Injected: yes"
    start_response("200 OK", [("X-Split", injected), ("Content-Length", "2")])
    return [b"ok"]


def too_little(start_response: StartResponse) -> Iterable[bytes]:
    """Announce more than comes."""
    start_response("200 OK", [("Content-Length", "100")])
    return [b"little"]


def too_much(start_response: StartResponse) -> Iterable[bytes]:
    """Announce less than comes, and let the rest look like a response."""
    start_response("200 OK", [("Content-Length", "6")])
    return [b"little", b"HTTP/1.1 200 OK\r\nX-Injected: yes\r\nContent-Length: 0\r\n\r\n"]


BAD: dict[str, Callable[[StartResponse], Iterable[bytes]]] = {
    f"/{function.__name__}": function for function in (huge_header, split_header, too_little, too_much)
}


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Any:
    """Answer any request of any method."""
    path = environ["PATH_INFO"]
    if path == "/readyz":
        body = json.dumps({"release": os.environ["APP_RELEASE"]}).encode()
    elif path in ("/form", "/redirect", "/outward", "/run"):
        return form(environ, start_response)
    elif path in BAD:
        note(environ)
        return BAD[path](start_response)
    else:
        body = note(environ)
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
