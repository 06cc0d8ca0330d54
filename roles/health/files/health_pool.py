"""The rule by which unhealthy backends leave a pool and come back. It asks nothing and changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

# Overload: if most were slow within so many seconds, fewer backends would make it worse.
LOAD = 5.0
# Each return within so many seconds doubles the good checks that the next one takes: an app that is unhealthy
# each half minute would cost all the others a reload as often.
SECONDS_OF_RETURNS = 1200.0
MOST_DOUBLINGS = 6


class Fault(NamedTuple):
    """What is wrong with an app on a backend."""

    says: str
    silent: bool = False  # connections to it may hang
    slow: bool = False  # it takes connections, so it may be busy rather than dead


WELL = Fault("answers 200")
UNKNOWN = Fault("was not heard")


@dataclass
class Member:
    """An app on a backend, as the last answers show it.

    Attributes:
        hits: Good answers in a row.
        misses: Bad ones in a row.
        fault: What the last bad one was.
        since: When it was in the last good state, for the one that is unhealthy the longest goes first.
        slowed: When it was last slow.
        returns: When it came back.
    """

    hits: int = 0
    misses: int = 0
    fault: Fault = WELL
    since: float = 0
    slowed: float = -LOAD
    returns: list[float] = field(default_factory=list)


class Pool:
    """The backends of an app: who has to leave, who may return."""

    def __init__(self, backends: Iterable[str], fall: int, rise: int) -> None:
        """Begin to know nothing.

        Args:
            backends: The names of the backends.
            fall: Bad answers in a row until one leaves.
            rise: Good answers in a row until one returns.
        """
        self.members = {backend: Member() for backend in backends}
        self._fall, self._rise = fall, rise

    def observe(self, backend: str, fault: Fault | None, now: float) -> None:
        """Take an answer.

        Args:
            backend: Who answered.
            fault: What was wrong with it; None if nothing was.
            now: When.
        """
        member = self.members[backend]
        if fault is None:
            member.hits, member.misses, member.since = member.hits + 1, 0, now
        else:
            member.hits, member.misses, member.fault = 0, member.misses + 1, fault
            member.slowed = now if fault.slow else member.slowed

    def checks_to_return(self, backend: str, now: float) -> int:
        """Tell how many good answers in a row bring one back that is out."""
        recent = [moment for moment in self.members[backend].returns if now - moment < SECONDS_OF_RETURNS]
        return self._rise * 2 ** min(len(recent), MOST_DOUBLINGS)

    def unhealthy(self) -> list[str]:
        """Tell who has given bad answers for long enough, the longest first."""
        found = [backend for backend, member in self.members.items() if member.misses >= self._fall]
        return sorted(found, key=lambda backend: (self.members[backend].since, backend))

    def verdict(self, out: Collection[str], drained: Collection[str], now: float) -> set[str]:
        """Tell who is to be out now.

        Args:
            out: Who is out by an earlier verdict.
            drained: The drained backends, and those without an address.
            now: When.

        Returns:
            Never more than half of the pool, the drained included, unless so many are already; and
            none for being slow while more than half of the pool is.
        """
        here, hand = self.members.keys(), self.members.keys() & set(drained)
        stay = {one for one in here & set(out) if self.members[one].hits < self.checks_to_return(one, now)}
        room = max(len(here) // 2 - len(stay | hand), 0)
        busy = 2 * sum(now - member.slowed < LOAD for member in self.members.values()) > len(here)
        leaving = [
            one
            for one in self.unhealthy()
            if one not in stay | hand and not (busy and self.members[one].fault.slow)
        ]
        return stay | set(leaving[:room])

    def returned(self, backend: str, now: float) -> None:
        """Remember that one has come back."""
        member = self.members[backend]
        member.returns = [moment for moment in member.returns if now - moment < SECONDS_OF_RETURNS] + [now]
