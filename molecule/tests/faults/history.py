"""What clients noticed of a fault, as figures; and the table of all faults."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from testbed import Report

GATING = ("new", "keepalive", "slow")
HURT = 0.5  # seconds: who waits longer has noticed something
NOISE = 0.1  # seconds: who is faster is fast enough, for all nodes share few cores
SENT_SHARE = 0.98


@dataclass(frozen=True)
class Times:
    """When a fault began and was healed, and when that was done: seconds since the epoch."""

    fault: float
    healing: float
    healed: float


def figures(report: Report, times: Times, victim: str) -> dict[str, float]:
    """All that the history tells; each row of the matrix limits some of it."""
    zero = datetime.fromisoformat(report.content["began"]).timestamp()
    fault, healing, healed = (at - zero for at in (times.fault, times.healing, times.healed))
    asked = [one for one in report.history if one["client"] in GATING]
    rated = [one for one in asked if one["client"] != "slow"]
    failed = [one for one in asked if one["error"]]
    hurt = [
        one["scheduled"]
        for one in rated
        if fault <= one["scheduled"] < healing and (one["error"] or one["finished"] - one["scheduled"] > HURT)
    ]
    answers = [one["finished"] for one in asked if one["backend"] == victim and not one["error"]]
    others = [one for one in rated if one["backend"] != victim]
    before = _latencies(rated, 0, fault)
    during = _latencies(rated, fault, healing)
    ledger = report.content["ledger"]
    found = {
        "requests": len(rated),
        "GET failed": sum(one["method"] == "GET" for one in failed),
        "POST failed": sum(one["method"] == "POST" for one in failed),
        "POST twice": len(ledger["twice"]),
        "POST lost": len(ledger["missing"]),
        "hurt for s": max(hurt, default=fault) - fault,
        "failed after s": max([fault, *(one["scheduled"] for one in failed)]) - fault,
        "failed after the end s": max([healed, *(one["scheduled"] for one in failed)]) - healed,
        "back after s": max(min((at for at in answers if at > healing), default=healed + 999) - healed, 0),
        "still asked for s": max(
            (
                one["scheduled"]
                for one in rated
                if one["backend"] == victim and fault < one["scheduled"] < healing
            ),
            default=fault,
        )
        - fault,
        "share of it %": 100 * _share(rated, victim, fault, healing),
        "slowest s": max(during, default=0),
        "p99 ratio of others": _percentile(_latencies(others, fault, healing))
        / max(_percentile(_latencies(others, 0, fault)), NOISE),
        "foreign answers": sum(one["backend"] == "?" and not one["error"] for one in asked),
        "p99 s": _percentile(during),
        "told after s": _percentile(sorted(one["finished"] - one["scheduled"] for one in failed), 0.5),
        "p99 ratio": _percentile(during) / max(_percentile(before), NOISE),
        "p99 ratio 5 s later": _percentile(_latencies(rated, healed + 5, healed + 999))
        / max(_percentile(before), NOISE),
        "first answer after s": min(
            (one["finished"] for one in rated if one["scheduled"] >= healing and not one["error"]),
            default=healing + 999,
        )
        - healing,
    }
    return {name: round(value, 2) for name, value in found.items()}


def too_little(report: Report, times: Times) -> list[str]:
    """Why the figures say nothing; empty where they do."""
    sent, planned = len([one for one in report.history if one["client"] != "slow"]), report.content["planned"]
    zero = datetime.fromisoformat(report.content["began"]).timestamp()
    expected = report.content["rate"] * (times.healing - times.fault) * SENT_SHARE - 1
    during = sum(
        times.fault - zero <= one["scheduled"] < times.healing - zero
        for one in report.history
        if one["client"] != "slow"
    )
    reasons = [f"sent {sent} of {planned}"] if sent < SENT_SHARE * planned else []
    reasons += [reason for reason in report.content["reasons"] if reason.startswith("this machine")]
    if during < expected:
        reasons.append(f"sent {during} in the fault, {expected:.0f} expected")
    return reasons


def _latencies(asked: Iterable[Mapping[str, Any]], start: float, end: float) -> list[float]:
    return sorted(
        one["finished"] - one["scheduled"]
        for one in asked
        if start <= one["scheduled"] < end and not one["error"]
    )


def _percentile(values: list[float], share: float = 0.99) -> float:
    return values[min(int(share * len(values)), len(values) - 1)] if values else 0.0


def _share(asked: Iterable[Mapping[str, Any]], victim: str, start: float, end: float) -> float:
    answered = [one for one in asked if start <= one["scheduled"] < end and not one["error"]]
    return sum(one["backend"] == victim for one in answered) / (len(answered) or 1)


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    number: str
    fault: str
    expected: Mapping[str, float]
    measured: Mapping[str, float]
    verdict: str

    def markdown(self) -> str:
        """As a row of a table."""
        limits = ", ".join(f"{name} {_most(limit)}" for name, limit in self.expected.items())
        seen = ", ".join(f"{name} {value:g}" for name, value in self.measured.items())
        return f"| {self.number} | {self.fault} | {limits} | {seen} | {self.verdict} |"


def _most(limit: float) -> str:
    return f"≤ {limit:g}" if limit else "0"


class Table:
    """The table of a run, in files that are whole after each line."""

    HEAD = "| row | fault | expected | measured | verdict |\n| --- | --- | --- | --- | --- |\n"

    def __init__(self, folder: Path, about: str) -> None:
        self.folder, self.about = folder, about
        self.lines: list[Line] = []
        folder.mkdir(exist_ok=True)
        self._write()

    def add(self, line: Line) -> None:
        """Add a line and write all."""
        self.lines.append(line)
        self._write()

    def _write(self) -> None:
        text = f"# Faults\n\n{self.about}\n\n{self.HEAD}"
        text += "".join(f"{one.markdown()}\n" for one in self.lines)
        (self.folder / "faults.md").write_text(text)
        content = [asdict(one) for one in self.lines]
        (self.folder / "faults.json").write_text(json.dumps(content, indent=1) + "\n")
