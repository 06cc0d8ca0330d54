"""What tests add to requestme: it notes what it is told to do, and is slow if it is asked to be.

All is below /requestme, so the routes of the sample do: a POST of {"id": ID} is executed, `?run=PREFIX` tells
the ids that were executed on this host, and `?seconds=N` answers so much later.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

from flask import Flask, request

PATH = "/requestme"


class Ledger:
    """What was executed on this host: one id a line, shared by all processes and releases of the app."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "ledger"

    def append(self, id_: str) -> None:
        """Add an id for good; raises OSError where it could not be written whole."""
        line = f"{id_}\n".encode()
        # One write in append mode is whole among other processes' writes.
        file = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            if os.write(file, line) != len(line):
                raise OSError("the ledger's disk is full")
        finally:
            os.close(file)

    def ids(self, prefix: str) -> list[str]:
        """All ids that begin with a prefix, oldest first."""
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        return [line for line in lines if line.startswith(prefix)]


def add(app: Flask) -> None:
    """Add answers to those of the app."""
    ledger = Ledger(Path(os.environ.get("STATE_DIRECTORY", tempfile.gettempdir())))
    host = socket.gethostname()

    @app.before_request
    def answer() -> dict[str, Any] | None:
        if request.path != PATH:
            return None
        if request.method == "POST":
            id_ = request.get_json()["id"]
            ledger.append(id_)
            return {"id": id_, "host": host, "release": os.environ.get("APP_RELEASE", "")}
        if "run" in request.args:
            return {"host": host, "ids": ledger.ids(request.args["run"])}
        time.sleep(request.args.get("seconds", 0.0, type=float))
        return None
