"""echo: a Flask app that says how it runs, and tries what its sandbox forbids."""

import ctypes
import mmap
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Flask, Response, jsonify, request

LEDGER = Path(os.environ.get("STATE_DIRECTORY", "/tmp"), "ledger")
LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWUSER = 0x10000000
PTRACE_ATTACH = 16
# A slow start gives the tests time to interfere.
time.sleep(float(os.environ.get("BOOT_SECONDS", "0")))
RWX = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC


def libc(function: str, *arguments: object) -> None:
    """Call the C library; its errors are OSErrors."""
    if getattr(LIBC, function)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


# Each of these must fail.
ATTEMPTS: dict[str, Callable[[], Any]] = {
    "write to /etc": lambda: Path("/etc/paddock-was-here").touch(),
    "write to /usr": lambda: Path("/usr/paddock-was-here").touch(),
    "write to its release": lambda: Path(__file__).with_name("paddock-was-here").touch(),
    "write its configuration": lambda: Path("/etc/paddock/echo/paddock-was-here").touch(),
    "read /etc/shadow": lambda: Path("/etc/shadow").read_bytes(),
    "list /home": lambda: os.listdir("/home"),
    "read another app's environment": lambda: [
        Path(f"/etc/paddock/drain/{slot}/environment.json").read_bytes() for slot in ("blue", "green")
    ],
    "open a netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "open a packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "mount": lambda: libc("mount", b"none", b"/tmp", b"tmpfs", 0, None),
    "unshare": lambda: libc("unshare", CLONE_NEWUSER),
    "ptrace": lambda: libc("ptrace", PTRACE_ATTACH, os.getppid(), None, None),
    "become root": lambda: os.setuid(0),
    "map memory writable and executable": lambda: mmap.mmap(-1, mmap.PAGESIZE, prot=RWX),
    "see other processes": lambda: os.stat("/proc/1"),
}


def create_app(greeting: str = "") -> Flask:
    """Build the application."""
    app = Flask(__name__)

    @app.get("/")
    def echo() -> Response:
        return jsonify(
            release=os.environ["APP_RELEASE"],
            environment=dict(os.environ),
            pid=os.getpid(),
            master=os.getppid(),
            folder=os.getcwd(),
            headers=dict(request.headers),
            client=request.remote_addr,
            scheme=request.scheme,
        )

    @app.get("/readyz")
    def readyz() -> dict[str, str]:
        return {"release": os.environ["APP_RELEASE"]}

    @app.get("/fails")
    def fails() -> None:
        raise RuntimeError(f"the database {greeting} is away")

    @app.get("/anonymous")
    def anonymous() -> dict[str, str]:
        return {"status": "ready"}

    @app.get("/sleep")
    def sleep() -> dict[str, str]:
        time.sleep(float(request.args["seconds"]))
        return {"release": os.environ["APP_RELEASE"]}

    @app.post("/ledger")
    def enter() -> dict[str, int]:
        with LEDGER.open("a") as ledger:
            ledger.write(request.get_data(as_text=True) + "\n")
        return {"pid": os.getpid()}

    @app.get("/ledger")
    def ledger() -> list[str]:
        return LEDGER.read_text().split()

    @app.get("/attempts")
    def attempts() -> dict[str, str]:
        """What became of each attempt; `done` is bad."""
        outcome = {}
        for what, attempt in ATTEMPTS.items():
            try:
                attempt()
                outcome[what] = "done"
            except OSError as error:
                outcome[what] = os.strerror(error.errno or 0)
        return outcome

    return app


def needs_arguments(greeting: str) -> Flask:
    """Build the application; Gunicorn has no argument to give."""
    return create_app(greeting)


app = create_app()
