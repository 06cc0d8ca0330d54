"""What the load leaves behind, and what is judged, reported and drawn from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

UNKNOWN = "?"


class Record(NamedTuple):
    """One request of a client. Times are seconds since the load began.

    `error` is empty where the request succeeded; `id` is what a POST had the ledger note.
    """

    client: str
    method: str
    path: str
    scheduled: float
    launched: float
    finished: float
    error: str = ""
    retried: bool = False
    backend: str = UNKNOWN
    release: str = UNKNOWN
    id: str = ""

    @property
    def latency(self) -> float:
        """Seconds from when the request was due, not from when it could be sent."""
        return self.finished - self.scheduled


class Loss(NamedTuple):
    """A WebSocket that was lost or not to be had again: seconds since the load began, and how."""

    at: float
    error: str


@dataclass
class WebSocketLog:
    """What became of the WebSocket; `longest_away` is in seconds."""

    messages: int = 0
    going_away: int = 0
    longest_away: float = 0.0
    losses: list[Loss] = field(default_factory=list)


@dataclass
class LedgerLog:
    """What the hosts say they executed: ids by host; and hosts whose ledger was not to be had."""

    ids: dict[str, list[str]] = field(default_factory=dict)
    missing_hosts: list[str] = field(default_factory=list)


@dataclass
class Command:
    """The command that ran during the load: seconds since the load began, and its exit status."""

    argv: list[str]
    started: float = 0.0
    ended: float = 0.0
    rc: int | None = None


@dataclass
class Run:
    """All that happened. What was left out of the load is None."""

    url: str
    run: str
    began: str
    rate: float
    seconds: float
    planned: int
    records: list[Record]
    slow: bool
    websocket: WebSocketLog | None = None
    ledger: LedgerLog | None = None
    command: Command | None = None
