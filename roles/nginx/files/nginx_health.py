#!/usr/bin/python3
"""Ask backends whether they are well, and take those that are not out of Nginx's pools.

Each app on each backend is asked for its health path once a second, on its own, so none waits for another.
Only 200 is well. Who is out is a file that any render of the pool honours: a crash of this program changes
nothing, and only new answers do.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import nginx_host as nginx
import nginx_names as names

DESCRIPTION = Path("/etc/paddock/nginx-health.json")
# A reload costs some clients their connection, and leaves workers behind that finish what they have.
SECONDS_BETWEEN_RELOADS = 1.0
RELOADS_BEFORE_SLOWER = 5
SECONDS_AFTER_A_FAILURE = 5.0
# An address that has changed is followed; a dead DNS changes nothing.
SECONDS_BETWEEN_LOOKUPS = 60.0
# One that was only busy finishes what it has, once it gets no more.
SLOW_ANSWERS_UNTIL_CUT = 2
# Where most have been slow within so many seconds, the load is the illness, and fewer backends no cure.
LOAD = 5.0
# Each return within so many seconds doubles the good answers that the next one takes; a handful of reloads
# doubles the time between them.
DAMPING = 60.0
# Later than that, an answer was missed because this host is too busy: it says nothing of the backend.
LATE = 0.25


# --- the rule


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
        since: When it was in the last good state, for the longest ill goes first.
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

    def __init__(self, backends: Iterable[str], misses: int, hits: int) -> None:
        """Begin to know nothing.

        Args:
            backends: The names of the backends.
            misses: Bad answers in a row until one leaves.
            hits: Good answers in a row until one returns.
        """
        self.members = {backend: Member() for backend in backends}
        self._misses, self._hits = misses, hits

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

    def hits_to_return(self, backend: str, now: float) -> int:
        """Tell how many good answers in a row bring one back that is out."""
        recent = [moment for moment in self.members[backend].returns if now - moment < DAMPING]
        return self._hits * 2 ** min(len(recent), 4)

    def sick(self) -> list[str]:
        """Tell who has given bad answers for long enough, the longest first."""
        ill = [backend for backend, member in self.members.items() if member.misses >= self._misses]
        return sorted(ill, key=lambda backend: (self.members[backend].since, backend))

    def verdict(self, out: Collection[str], by_hand: Collection[str], now: float) -> set[str]:
        """Tell who is to be out now.

        Args:
            out: Who is out by an earlier verdict.
            by_hand: Who is out by hand, or has no address.
            now: When.

        Returns:
            Never more than half of the pool, those out by hand included, unless so many are already; and
            nobody for being slow while more than half of the pool is.
        """
        here, hand = self.members.keys(), self.members.keys() & set(by_hand)
        stay = {one for one in here & set(out) if self.members[one].hits < self.hits_to_return(one, now)}
        room = max(len(here) // 2 - len(stay | hand), 0)
        busy = 2 * sum(now - member.slowed < LOAD for member in self.members.values()) > len(here)
        leaving = [
            one
            for one in self.sick()
            if one not in stay | hand and not (busy and self.members[one].fault.slow)
        ]
        return stay | set(leaving[:room])

    def returned(self, backend: str, now: float) -> None:
        """Remember that one has come back."""
        member = self.members[backend]
        member.returns = [moment for moment in member.returns if now - moment < DAMPING] + [now]


# --- the questions


@dataclass
class Target:
    """An app on a backend, and where it is asked.

    Attributes:
        app: Name of the app.
        backend: Name of the backend.
        address: Address or name of its host.
        port: Port of the app.
        path: Path of its health.
        host: The Host header that the app knows.
        ip: The address that is asked; empty while a name is not known.
        slow: For how many answers it has been out and slow.
    """

    app: str
    backend: str
    address: str
    port: int
    path: str
    host: str
    ip: str = ""
    slow: int = 0

    def __post_init__(self) -> None:
        with contextlib.suppress(ValueError):
            self.ip = str(ipaddress.ip_address(self.address))

    async def ask(self, seconds: float) -> Fault | None:
        """Ask once.

        Args:
            seconds: How long the whole answer may take.

        Returns:
            What is wrong; None if nothing is.
        """
        began, writer = time.monotonic(), None
        try:
            async with asyncio.timeout(seconds):
                reader, writer = await asyncio.open_connection(self.ip, self.port)
                request = f"GET {self.path} HTTP/1.1\r\nHost: {self.host}\r\nConnection: close\r\n"
                # As over TLS: an app that redirects plain requests would answer a redirect.
                request += "User-Agent: paddock-health\r\nX-Forwarded-Proto: https\r\n\r\n"
                writer.write(request.encode())
                status = await reader.readline()
                # To the end, lest the app logs a client that hung up.
                for _ in range(64):
                    if not await reader.read(65536):
                        break
        except TimeoutError:
            if time.monotonic() - began > seconds + LATE:
                return UNKNOWN
            return Fault(f"does not answer within {seconds:g} s", silent=True, slow=writer is not None)
        except OSError as error:
            return Fault(f"cannot be asked ({os.strerror(error.errno or 0)})", silent=True)
        except ValueError:  # a line without an end
            return Fault("does not speak HTTP", silent=True)
        finally:
            if writer:
                writer.transport.abort()
        words = status.decode("latin-1").split()
        if not words:
            return Fault("hangs up without an answer")
        if len(words) < 2 or not words[0].startswith("HTTP/1."):
            return Fault("does not speak HTTP", silent=True)
        return None if words[1] == "200" else Fault(f"answers {words[1]}")


def free(target: Target) -> None:
    """Cut connections to a backend that does not answer: Nginx asks another one then, and no client waits."""
    address = f"[{target.ip}]" if ":" in target.ip else target.ip
    done = nginx.run("ss", "-K", "-H", "-n", "-t", "dst", address, "dport", "=", f":{target.port}")
    if done.rc != 0:
        say(f"connections to {target.backend} cannot be cut: {done.output}", 4)


# --- the program


def say(text: str, level: int = 6) -> None:
    """Write lines to the journal, with a level of syslog."""
    for line in text.splitlines():
        print(f"<{level}>{line}", flush=True)


def notify(text: str) -> None:
    """Tell systemd something, if it listens."""
    if path := os.environ.get("NOTIFY_SOCKET"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.sendto(text.encode(), path.replace("@", "\0", 1))


class Health:
    """All that is asked and what comes of it."""

    def __init__(self, description: Mapping[str, Any]) -> None:
        """Take a description: `interval`, `timeout`, `misses`, `hits`, and `apps` with their backends."""
        self.interval, self.timeout = float(description["interval"]), float(description["timeout"])
        rule = description["misses"], description["hits"]
        apps = description["apps"]
        self.pools = {name: Pool(app["backends"], *rule) for name, app in apps.items()}
        self.targets = {
            (name, backend): Target(name, backend, address, app["port"], app["path"], app["host"])
            for name, app in apps.items()
            for backend, address in app["backends"].items()
        }
        self.out = self.recall()
        self.kept_in: set[nginx.Out] = set()
        # What a killed one has left half done is the first thing to do.
        self.unsure = True
        self.silent: list[Target] = []
        self.reloads: list[float] = []
        self.news = asyncio.Event()
        self.news.set()

    def recall(self) -> dict[str, dict[str, Any]]:
        """Read who is out, without apps and backends that the inventory no longer has."""
        try:
            found = nginx.recall(nginx.HEALTH)
        except nginx.Refused as problem:
            say(str(problem), 4)
            found = {}
        return {
            app: {backend: found[app][backend] for backend in pool.members if backend in found.get(app, {})}
            for app, pool in self.pools.items()
        }

    def judge(self) -> None:
        """Decide who is out, write it down and have Nginx do it."""
        with nginx.alone():
            hand, lost = nginx.recall(nginx.HAND), nginx.out_by_name(nginx.installed())
            for app, pool in self.pools.items():
                now, out = time.monotonic(), self.out[app]
                gone = {*hand, *(backend for name, backend in lost if name == app)}
                wanted = pool.verdict(out, gone, now)
                for backend in sorted(wanted ^ out.keys()):
                    self.unsure = True
                    fault = pool.members[backend].fault
                    if backend in out:
                        del out[backend]
                        pool.returned(backend, now)
                        say(f"{app} on {backend} is back: it answers 200")
                    else:
                        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
                        out[backend] = {"why": f"it {fault.says}", "since": since}
                        if fault.silent and not fault.slow:
                            self.silent.append(self.targets[app, backend])
                        say(f"{app} on {backend} is out: it {fault.says}", 4)
                self.lament(app, wanted | gone)
            if self.unsure:
                nginx.remember(nginx.HEALTH, {app: out for app, out in self.out.items() if out})
                if not nginx.in_effect() and nginx.reload():
                    self.reloads.append(time.monotonic())
                self.unsure = False
        while self.silent:
            free(self.silent.pop())

    def lament(self, app: str, out: Collection[str]) -> None:
        """Say once who is ill and has to stay."""
        pool = self.pools[app]
        sick = {backend for backend in pool.sick() if backend not in out}
        for backend in sorted(sick):
            if (app, backend) not in self.kept_in:
                size = len(pool.members)
                says = f"{app} on {backend} stays in, although it {pool.members[backend].fault.says}:"
                say(f"{says} of {size} no more than {size // 2} may be out, and none if most are slow", 4)
        self.kept_in = {ill for ill in self.kept_in if ill[0] != app} | {(app, backend) for backend in sick}

    async def watch(self, target: Target) -> None:
        """Ask one for ever."""
        pool, name = self.pools[target.app], target.backend
        # Apps of a backend are asked at the same time, so that one reload is enough for all of them.
        await asyncio.sleep(hash(name) % 1000 / 1000 * self.interval)
        while True:
            began = time.monotonic()
            if target.ip:
                fault = await target.ask(self.timeout)
                if fault is not UNKNOWN:
                    pool.observe(name, fault, time.monotonic())
                    out = name in self.out[target.app]
                    if out != (fault is not None):
                        self.news.set()
                    target.slow = target.slow + 1 if out and fault and fault.slow else 0
                    if target.slow == SLOW_ANSWERS_UNTIL_CUT:
                        await asyncio.to_thread(free, target)
            await asyncio.sleep(max(began + self.interval - time.monotonic(), 0.05))

    async def decide(self) -> None:
        """Judge when there is news, for ever."""
        trouble = ""
        while True:
            notify(f"READY=1\nSTATUS={self.summary()}")
            await self.news.wait()
            await asyncio.sleep(0.05)
            self.news.clear()
            try:
                await asyncio.to_thread(self.judge)
                pause, trouble = self.pause(time.monotonic()), ""
            except (OSError, nginx.Refused) as problem:
                if trouble != str(problem):
                    trouble = str(problem)
                    say(trouble, 3)
                pause = SECONDS_AFTER_A_FAILURE
                self.news.set()
            await asyncio.sleep(pause)

    def pause(self, now: float) -> float:
        """Tell how long Nginx is left alone now."""
        self.reloads = [moment for moment in self.reloads if now - moment < DAMPING]
        return SECONDS_BETWEEN_RELOADS * 2 ** min(len(self.reloads) // RELOADS_BEFORE_SLOWER, 3)

    def summary(self) -> str:
        """Say in a line who is out."""
        out = [f"{app} on {backend}" for app, backends in self.out.items() for backend in sorted(backends)]
        more = [f"{len(out) - 9} more"] if len(out) > 9 else []
        return f"{len(self.targets)} watched, out: {', '.join(out[:9] + more) or 'none'}"

    def look_up(self) -> None:
        """Follow the addresses of names, for ever; in a thread, for a dead DNS takes its time."""
        named = [target for target in self.targets.values() if not target.ip]
        while named:
            try:
                self.follow(named)
            except (OSError, nginx.Refused) as problem:
                say(f"addresses cannot be followed: {problem}", 4)
            time.sleep(SECONDS_BETWEEN_LOOKUPS)

    def follow(self, named: Collection[Target]) -> None:
        """Have Nginx use the addresses that names have now, and ask the backends there."""
        text = nginx.installed()
        before = names.known(text)
        for target in named:
            target.ip = target.ip or before.get(target.address, "")  # DNS may be long dead
        found = names.look_up({target.address for target in named}, before)
        there = set(names.names(text))
        moved = {name: found[name].address for name in there & found.keys()}
        moved = {name: address for name, address in moved.items() if address != before.get(name, "")}
        for name, address in moved.items():
            say(f"{name} is {address} now")
        if moved:
            with nginx.alone():
                nginx.reload(moved)
        has = names.known(nginx.installed())
        for target in named:
            name = target.address
            target.ip = has.get(name, "") if name in there else found[name].address

    async def run(self) -> None:
        """Work until told to stop, or until the files of this program are others."""
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        threading.Thread(target=self.look_up, daemon=True).start()
        before = identities()
        work = [asyncio.create_task(self.watch(target)) for target in self.targets.values()]
        work.append(asyncio.create_task(self.decide()))
        while not stop.is_set():
            notify("WATCHDOG=1")
            if identities() != before:
                say("starts anew, for its files have changed")
                break
            if broken := [task for task in work if task.done()]:
                broken[0].result()  # raises what ended it
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 1)
        for task in work:
            task.cancel()


def identities() -> list[tuple[int, int]]:
    """Tell versions of the files of this program apart."""
    files = (DESCRIPTION, *(Path(str(file)) for file in (__file__, nginx.__file__, names.__file__)))
    found = [file.stat() for file in files if file.exists()]
    return [(state.st_ino, state.st_mtime_ns) for state in found]


def main() -> int:
    """Work for ever; returns the exit status."""
    asyncio.run(Health(json.loads(DESCRIPTION.read_text(encoding="utf-8"))).run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
