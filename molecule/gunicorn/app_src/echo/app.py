"""echo: a Flask app that says how it runs, and tries what its sandbox forbids."""

import ctypes
import mmap
import os
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Flask, Response, jsonify, redirect, request
from werkzeug.middleware.proxy_fix import ProxyFix

LEDGER = Path(os.environ.get("STATE_DIRECTORY", "/tmp"), "ledger")
LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWUSER = 0x10000000
PTRACE_ATTACH = 16
# A slow start gives the tests time to interfere.
time.sleep(float(os.environ.get("BOOT_SECONDS", "0")))
BORN = time.monotonic()
if os.environ.get("BREAK_IMPORT") == "file" and Path(os.environ["STATE_DIRECTORY"], "broken").exists():
    raise RuntimeError("the database is away")
# What an app may have made at import: a scheduler, and a connection.
TICKS: set[int] = set()


def tick() -> None:
    """Do what a scheduler does."""
    while True:
        TICKS.add(os.getpid())
        time.sleep(0.05)


threading.Thread(target=tick, name="ticker", daemon=True).start()
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
    "list another app's folder": lambda: os.listdir("/srv/drain"),
    "open a netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "open a packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "mount": lambda: libc("mount", b"none", b"/tmp", b"tmpfs", 0, None),
    "unshare": lambda: libc("unshare", CLONE_NEWUSER),
    "ptrace": lambda: libc("ptrace", PTRACE_ATTACH, os.getppid(), None, None),
    "become root": lambda: os.setuid(0),
    "map memory writable and executable": lambda: mmap.mmap(-1, mmap.PAGESIZE, prot=RWX),
    "see other processes": lambda: os.stat("/proc/1"),
}


def outcome_of(attempt: Callable[[], Any]) -> str:
    """Try something; `done`, or why not."""
    try:
        attempt()
    except OSError as error:
        return os.strerror(error.errno or 0)
    return "done"


def create_app(greeting: str = "") -> Flask:
    """Build the application."""
    app = Flask(__name__)
    if "PROXY_FIX" in os.environ:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1)  # type: ignore[method-assign]

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

    @app.get("/slow-start")
    def slow_start() -> tuple[dict[str, str], int]:
        ready = time.monotonic() - BORN > float(os.environ["READY_SECONDS"])
        said = {"release": os.environ["APP_RELEASE"], "token": os.environ.get("TOKEN", "")}
        return said, 200 if ready else 500

    @app.get("/redirects")
    def redirects() -> Response:
        return redirect("https://elsewhere.example.org/login")

    @app.get("/guarded")
    def guarded() -> tuple[dict[str, str], int]:
        """Answer as Talisman and an app that checks its hosts do."""
        if not request.is_secure:
            return {"error": "https only"}, 403
        if request.host != os.environ["HOST_NAME"]:
            return {"error": f"the host {request.host} is not mine"}, 400
        return {"release": os.environ["APP_RELEASE"]}, 200

    @app.get("/network")
    def network() -> dict[str, str]:
        """What became of each attempt."""
        families = {
            "tcp": (socket.AF_INET, socket.SOCK_STREAM),
            "tcp6": (socket.AF_INET6, socket.SOCK_STREAM),
        }
        families["udp"] = (socket.AF_INET, socket.SOCK_DGRAM)
        outcome = {}
        for name, kind in families.items():
            with socket.socket(*kind) as one:
                outcome[f"bind {name}"] = outcome_of(lambda one=one: one.bind(("", 8199)))
        for address in (request.args["address"], "169.254.169.254"):
            with socket.socket() as one:
                one.settimeout(2)
                outcome[address] = outcome_of(lambda one=one, host=address: one.connect((host, 8198)))
        return outcome

    @app.get("/ticks")
    def ticks() -> dict[str, object]:
        return {"pid": os.getpid(), "ticks": sorted(TICKS)}

    @app.get("/clock")
    def clock() -> dict[str, object]:
        return {"zone": time.strftime("%z"), "path": sys.path}

    @app.get("/meminfo")
    def meminfo() -> str:
        return Path("/proc/meminfo").read_text()

    @app.get("/write")
    def write() -> str:
        Path(app.instance_path).mkdir()
        return "done"

    @app.get("/overwrite")
    def overwrite() -> str:
        Path(__file__).write_text("")
        return "done"

    @app.get("/sqlite")
    def sqlite() -> str:
        sqlite3.connect(Path(app.root_path, "dev.sqlite")).execute("create table t (c)")
        return "done"

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
        return {what: outcome_of(attempt) for what, attempt in ATTEMPTS.items()}

    return app


def needs_arguments(greeting: str) -> Flask:
    """Build the application; Gunicorn has no argument to give."""
    return create_app(greeting)


app = create_app()
