"""A judgement in words and as JSON."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from .judge import Class, Judgement, Latency, Phase
from .records import Record

SHOWN_FAILURES = 5
KEPT_FAILURES = 1000


def text(judgement: Judgement) -> str:
    """The summary for people; its last line is the verdict."""
    run, parts = judgement.run, []
    rows = [("client", "requests", "failed", "retried", "p50 ms", "p95 ms", "p99 ms", "max ms")]
    for kind in judgement.classes:
        name = kind.name if kind.gates else f"{kind.name} (does not gate)"
        counts = (f"{kind.sent:,}", f"{kind.failed:,}", f"{kind.retried:,}")
        rows.append((name, *counts, *map(_ms, kind.latency)))
    parts.append(_table(rows))
    rows = [("phase", "from s", "to s", "requests", "failed", "p50 ms", "p99 ms", "max ms")]
    for phase in judgement.phases:
        times = (f"{phase.start:.1f}", f"{phase.end:.1f}")
        counts = (f"{phase.requests:,}", f"{phase.failed:,}")
        p50, _, p99, top = phase.latency
        rows.append((phase.name, *times, *counts, *map(_ms, (p50, p99, top))))
    parts.append(_table(rows))
    rows = [("release", "backend", "requests", "first s", "last s")]
    for release, backend, requests, first, last in judgement.servers:
        rows.append((release, backend, f"{requests:,}", f"{first:.1f}", f"{last:.1f}"))
    parts.append(_table(rows, words=2))
    lines = [f"longest time without a successful answer: {judgement.gap:.0f} ms"]
    if run.websocket:
        log = run.websocket
        lines.append(
            f"WebSocket: {log.messages:,} messages, {log.going_away} closed as going away (1001), "
            f"{len(log.losses)} lost, longest away {1000 * log.longest_away:.0f} ms"
        )
        lines += [f"  {at:7.2f} s  {error}" for at, error in log.losses[:SHOWN_FAILURES]]
    if books := judgement.ledger:
        lines.append(
            f"ledger: {books.acknowledged:,} of {books.posts:,} POSTs acknowledged, "
            f"{len(books.twice)} executed twice, {len(books.missing)} acknowledged but missing, "
            f"{len(books.failed_but_executed)} failed but executed"
        )
        if books.missing_hosts:
            lines.append(f"  the ledger of {', '.join(books.missing_hosts)} is not to be had")
    if run.command:
        lines.append(f"command: exit status {run.command.rc}")
    parts.append("\n".join(lines))
    if judgement.failures:
        lines = [_failure(record) for record in judgement.failures[:SHOWN_FAILURES]]
        if more := len(judgement.failures) - len(lines):
            lines.append(f"  and {more:,} more")
        parts.append("\n".join(["failed:", *lines]))
    return "\n\n".join([*parts, judgement.verdict])


def as_json(judgement: Judgement) -> dict[str, Any]:
    """All figures; README.md says what is what."""
    run, books = judgement.run, judgement.ledger
    return {
        "verdict": "pass" if judgement.passed else "fail",
        "reasons": judgement.reasons,
        "url": run.url,
        "run": run.run,
        "began": run.began,
        "rate": run.rate,
        "seconds": round(run.seconds, 3),
        "planned": run.planned,
        "classes": [_with_latency(kind) for kind in judgement.classes],
        "phases": [_with_latency(phase) for phase in judgement.phases],
        "largest_gap_ms": round(judgement.gap, 1),
        "servers": [server._asdict() for server in judgement.servers],
        "websocket": run.websocket
        and {
            "messages": run.websocket.messages,
            "going_away": run.websocket.going_away,
            "longest_away_ms": round(1000 * run.websocket.longest_away, 1),
            "losses": [loss._asdict() for loss in run.websocket.losses],
        },
        "ledger": books and books._asdict() | {"clean": books.clean},
        "command": run.command and vars(run.command),
        "failures": [record._asdict() for record in judgement.failures[:KEPT_FAILURES]],
        "per_second": [
            {
                "second": second.second,
                "ok": _nested(second.ok),
                "failed": second.failed,
                "p50_ms": second.p50 and round(second.p50, 1),
                "max_ms": second.max and round(second.max, 1),
            }
            for second in judgement.seconds
        ],
    }


def _nested(counts: dict[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    nested: dict[str, dict[str, int]] = defaultdict(dict)
    for (release, backend), number in sorted(counts.items()):
        nested[release][backend] = number
    return nested


def _with_latency(part: Class | Phase) -> dict[str, Any]:
    fields = part._asdict()
    latency: Latency = fields.pop("latency")
    return fields | {
        "latency_ms": {name: value and round(value, 1) for name, value in latency._asdict().items()}
    }


def _failure(record: Record) -> str:
    return f"  {record.scheduled:7.2f} s  {record.client:<9} {record.method:<4} {record.path}  {record.error}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _table(rows: list[tuple[str, ...]], words: int = 1) -> str:
    """Lay out rows: the first columns hold words, the others numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index < words else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
