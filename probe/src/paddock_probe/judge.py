"""From what happened to a verdict. Nothing here asks a server or a clock."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from .ledger import Balance, balance
from .load import CLIENTS, turn
from .records import UNKNOWN, Record, Run

GATING = ("new", "keepalive", "slow")
RATED = ("new", "keepalive")  # the gating ones of the constant rate
SENT_SHARE = 0.98
LATE = 1.0  # seconds behind its due time that one request in a hundred may be sent
MARGIN = 1.0  # seconds around a change of releases that belong to it
ALIVE = 2.0  # seconds before the end in which a release that is still there has answered


class Latency(NamedTuple):
    """Milliseconds of the successful requests; None without any."""

    p50: float | None
    p95: float | None
    p99: float | None
    max: float | None


class Class(NamedTuple):
    """What became of a class of clients."""

    name: str
    gates: bool
    planned: int
    sent: int
    ok: int
    failed: int
    retried: int
    latency: Latency


class Phase(NamedTuple):
    """A part of the run, in seconds since it began."""

    name: str
    start: float
    end: float
    requests: int
    failed: int
    latency: Latency


class Server(NamedTuple):
    """A release on a backend, and when it answered first and last, in seconds since the run began."""

    release: str
    backend: str
    requests: int
    first: float
    last: float


class Second(NamedTuple):
    """The answers of one second of the run; latencies in milliseconds, of the gating clients."""

    second: int
    ok: dict[tuple[str, str], int]
    failed: int
    p50: float | None
    max: float | None


class Judgement(NamedTuple):
    """What is reported and drawn. `reasons` is empty where the run passed; `gap` is in ms."""

    run: Run
    reasons: list[str]
    classes: list[Class]
    phases: list[Phase]
    servers: list[Server]
    seconds: list[Second]
    gap: float
    ledger: Balance | None
    failures: list[Record]

    @property
    def passed(self) -> bool:
        """Whether nothing was lost, and enough was asked to tell."""
        return not self.reasons

    @property
    def verdict(self) -> str:
        """The last line."""
        raw = next((kind for kind in self.classes if kind.name == "raw"), None)
        failed = sum(kind.failed for kind in self.classes if kind.gates)
        if not self.passed:
            return f"FAIL: {'; '.join(self.reasons)}"
        if raw and raw.failed:
            sent = sum(kind.sent for kind in self.classes if kind.gates)
            return (
                f"PASS: {failed} of {sent:,} requests failed, "
                f"next to {raw.failed} of {raw.sent:,} of clients that never retry"
            )
        return f"PASS: {failed} of {sum(kind.sent for kind in self.classes):,} requests failed"


def percentile(values: list[float], share: float) -> float | None:
    """The nearest-rank percentile of sorted values; None without any."""
    return values[max(math.ceil(share * len(values)) - 1, 0)] if values else None


def latency(records: Iterable[Record]) -> Latency:
    """Latencies of the successful ones."""
    values = sorted(1000 * record.latency for record in records if not record.error)
    p50, p95, p99, top = (percentile(values, share) for share in (0.5, 0.95, 0.99, 1))
    return Latency(p50, p95, p99, top)


def judge(run: Run, max_added_latency: float | None = None) -> Judgement:
    """Judge a run.

    Args:
        run: What happened.
        max_added_latency: Milliseconds that the slowest request of `during` may take longer than the
            median of `before`; None for any.

    Returns:
        The figures, and the reasons why the run failed, if it did.
    """
    classes = _classes(run)
    phases = _phases(run)
    books = balance(run.ledger, run.records) if run.ledger else None
    judgement = Judgement(
        run=run,
        reasons=[],
        classes=classes,
        phases=phases,
        servers=_servers(run.records),
        seconds=_seconds(run),
        gap=_gap(run),
        ledger=books,
        failures=[record for record in run.records if record.error],
    )
    judgement.reasons.extend(_too_little(run, classes, books))
    judgement.reasons.extend(_failed(run, classes, books))
    if max_added_latency is not None:
        judgement.reasons.extend(_too_slow(phases, max_added_latency))
    return judgement


def _classes(run: Run) -> list[Class]:
    planned = Counter(turn(number) for number in range(run.planned))
    names = [*CLIENTS, *(["slow"] if run.slow else [])]
    return [
        Class(
            name=name,
            gates=name in GATING,
            planned=planned.get(name, len(records)),
            sent=len(records),
            ok=sum(not record.error for record in records),
            failed=sum(bool(record.error) for record in records),
            retried=sum(record.retried for record in records),
            latency=latency(records),
        )
        for name in names
        for records in [[record for record in run.records if record.client == name]]
    ]


def _during(run: Run) -> tuple[float, float] | None:
    """The part of a run in which something changed, in seconds; None where nothing did."""
    if run.command:
        return run.command.started, run.command.ended
    answers = [r for r in run.records if not r.error and r.release != UNKNOWN]
    answers.sort(key=lambda record: record.finished)
    others = [record for record in answers if record.release != answers[0].release]
    if not others:
        return None
    last = {record.release: record.finished for record in answers}
    gone = [at for at in last.values() if at < answers[-1].finished - ALIVE]
    end = max(gone) + MARGIN if gone else run.seconds
    return max(others[0].finished - MARGIN, 0.0), end


def _phases(run: Run) -> list[Phase]:
    during = _during(run)
    if during:
        start, end = during
        bounds = [("before", 0.0, start), ("during", start, end), ("after", end, math.inf)]
    else:
        bounds = [("before", 0.0, math.inf)]
    return [
        Phase(
            name=name,
            start=start,
            end=min(end, max(run.seconds, start)),
            requests=len(records),
            failed=sum(bool(record.error) for record in records),
            latency=latency(records),
        )
        for name, start, end in bounds
        for records in [[r for r in run.records if r.client in RATED and start <= r.scheduled < end]]
    ]


def _servers(records: list[Record]) -> list[Server]:
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for record in records:
        if not record.error:
            times[record.release, record.backend].append(record.finished)
    first_of: dict[str, float] = {}
    for (release, _), at in times.items():
        first_of[release] = min([*at, first_of.get(release, math.inf)])
    servers = [Server(*names, len(at), min(at), max(at)) for names, at in times.items()]
    return sorted(servers, key=lambda server: (first_of[server.release], server.backend))


def _seconds(run: Run) -> list[Second]:
    rated = [record for record in run.records if record.client != "slow"]
    ok: dict[int, Counter[tuple[str, str]]] = defaultdict(Counter)
    failed: Counter[int] = Counter()
    latencies: dict[int, list[float]] = defaultdict(list)
    for record in rated:
        if record.error:
            failed[int(record.finished)] += 1
            continue
        ok[int(record.finished)][record.release, record.backend] += 1
        if record.client in RATED:
            latencies[int(record.finished)].append(1000 * record.latency)
    last = max((int(record.finished) for record in rated), default=-1)
    return [
        Second(second, dict(ok[second]), failed[second], percentile(values, 0.5), percentile(values, 1))
        for second in range(last + 1)
        for values in [sorted(latencies[second])]
    ]


def _gap(run: Run) -> float:
    """Longest time without a successful answer to the gating clients, in ms."""
    at = sorted(r.finished for r in run.records if r.client in RATED and not r.error)
    bounds = [0.0, *at, max(run.seconds, at[-1] if at else 0.0)]
    return 1000 * max(after - before for before, after in itertools.pairwise(bounds))


def _too_little(run: Run, classes: list[Class], books: Balance | None) -> Iterable[str]:
    """No passing on nothing."""
    rated = [record for record in run.records if record.client != "slow"]
    late = percentile(sorted(record.launched - record.scheduled for record in rated), 0.99) or 0.0
    if not run.planned:
        yield "no request was asked for"
    elif len(rated) < SENT_SHARE * run.planned or late > LATE:
        seconds = max([run.seconds, *(record.launched for record in rated)])
        yield (
            f"this machine cannot send {run.rate:g} requests/s; it sent {len(rated) / seconds:.0f} "
            f"({len(rated):,} of {run.planned:,}, up to {late:.1f} s late)"
        )
    for kind in classes:
        if kind.gates and not kind.sent:
            yield f"no request of the class {kind.name} was sent"
    if books and not books.posts:
        yield "no POST was sent, so the ledger says nothing"
    if run.websocket and not run.websocket.messages and not run.websocket.losses:
        yield "the WebSocket sent nothing"


def _failed(run: Run, classes: list[Class], books: Balance | None) -> Iterable[str]:
    failed = sum(kind.failed for kind in classes if kind.gates)
    if failed:
        yield f"{failed:,} of {sum(kind.sent for kind in classes if kind.gates):,} requests failed"
    if run.websocket and run.websocket.losses:
        first = run.websocket.losses[0]
        yield f"the WebSocket was lost {_times(len(run.websocket.losses))}: {first.error}"
    if books and books.twice:
        yield f"{len(books.twice)} executed twice"
    if books and books.missing:
        yield f"{len(books.missing)} acknowledged but not executed"
    if books and books.missing_hosts:
        yield f"the ledger of {', '.join(books.missing_hosts)} is not to be had"


def _too_slow(phases: list[Phase], limit: float) -> Iterable[str]:
    by_name = {phase.name: phase.latency for phase in phases}
    before, during = by_name["before"].p50, by_name.get("during", by_name["before"]).max
    if before is None or during is None:
        yield "no latency to compare before and during"
    elif during - before > limit:
        yield f"{during - before:.0f} ms of added latency, {limit:g} allowed"


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")
