#!/usr/bin/python3
"""Check the health of the backends, and take the unhealthy ones out of Nginx's pools.

Each app on each backend is checked once a second, on its own, so no check waits for another. Only 200 is
healthy. The unhealthy backends are in a file that each configuration honours: a crash of this program
changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import nginx_host as nginx
import nginx_names as names
import nginx_pool
from health_check import Target, cut_connections, say
from health_pool import UNKNOWN, Pool

DESCRIPTION = Path("/etc/paddock/nginx-health.json")
PROGRAMS = ("nginx_health", "health_check", "health_pool", "nginx_host", "nginx_pool", "nginx_names")
# A reload costs some clients their connection, and leaves workers behind that finish what they have.
SECONDS_BETWEEN_RELOADS = 1.0
RELOADS_BEFORE_SLOWER = 5
SECONDS_AFTER_A_FAILURE = 5.0
# An address that has changed is followed; a dead DNS changes nothing.
SECONDS_BETWEEN_LOOKUPS = 60.0
# One that was only busy finishes what it has, once it gets no more.
SLOW_ANSWERS_UNTIL_CUT = 2
# A handful of reloads within so many seconds doubles the time between them.
SECONDS_OF_RELOADS = 60.0


def notify(text: str) -> None:
    """Tell systemd something, if it listens."""
    if path := os.environ.get("NOTIFY_SOCKET"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.sendto(text.encode(), path.replace("@", "\0", 1))


class Names:
    """The targets that have a name, at the addresses that their names have."""

    def __init__(self, targets: Collection[Target]) -> None:
        self.named = [target for target in targets if not target.ip]

    def look_up(self) -> None:
        """Follow the addresses of names, for ever; in a thread, for a dead DNS takes its time."""
        while self.named:
            try:
                self.follow()
            except (OSError, nginx_pool.Refused) as problem:
                say(f"addresses cannot be followed: {problem}", 4)
            time.sleep(SECONDS_BETWEEN_LOOKUPS)

    def follow(self) -> None:
        """Have Nginx use the addresses that names have now, and ask the backends there."""
        wanted = nginx_pool.wanted()
        before = wanted.addresses
        for target in self.named:
            target.ip = target.ip or before.get(target.address, "")  # DNS may be long dead
        found = names.look_up({target.address for target in self.named}, before)
        there = set(wanted.names)
        moved = {name: found[name].address for name in there & found.keys()}
        moved = {name: address for name, address in moved.items() if address != before.get(name, "")}
        for name, address in moved.items():
            say(f"{name} is {address} now")
        if moved:
            with nginx_pool.alone():
                nginx.reload(moved)
        has = nginx_pool.wanted().addresses
        for target in self.named:
            name = target.address
            target.ip = has.get(name, "") if name in there else found[name].address


class Health:
    """All that is asked and what comes of it."""

    def __init__(self, description: Mapping[str, Any]) -> None:
        """Take a description: `interval`, `timeout`, `fall`, `rise`, and `apps` with their backends."""
        self.interval, self.timeout = float(description["interval"]), float(description["timeout"])
        rule = description["fall"], description["rise"]
        apps = description["apps"]
        self.pools = {name: Pool(app["backends"], *rule) for name, app in apps.items()}
        self.targets = {
            (name, backend): Target(name, backend, address, app["port"], app["path"], app["host"])
            for name, app in apps.items()
            for backend, address in app["backends"].items()
        }
        self.out = self.recall()
        self.kept_in: set[nginx_pool.Out] = set()
        # What a killed one has left half done is the first thing to do.
        self.unsure = True
        self.silent: list[Target] = []
        self.reloads: list[float] = []
        self.news = asyncio.Event()
        self.news.set()

    def recall(self) -> dict[str, dict[str, Any]]:
        """Read who is out, without apps and backends that the inventory no longer has."""
        try:
            found = nginx_pool.recall(nginx_pool.HEALTH)
        except nginx_pool.Refused as problem:
            say(str(problem), 4)
            found = {}
        return {
            app: {backend: found[app][backend] for backend in pool.members if backend in found.get(app, {})}
            for app, pool in self.pools.items()
        }

    def judge(self) -> None:
        """Decide who is out, write it down and have Nginx do it."""
        with nginx_pool.alone():
            hand, lost = nginx_pool.recall(nginx_pool.DRAINED), nginx_pool.out_by_name(nginx_pool.wanted())
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
                self.report_kept(app, wanted | gone)
            if self.unsure:
                nginx_pool.remember(nginx_pool.HEALTH, {app: out for app, out in self.out.items() if out})
                if not nginx.in_effect() and nginx.reload():
                    self.reloads.append(time.monotonic())
                self.unsure = False
        while self.silent:
            cut_connections(self.silent.pop())

    def report_kept(self, app: str, out: Collection[str]) -> None:
        """Say once which unhealthy one has to stay."""
        pool = self.pools[app]
        unhealthy = {backend for backend in pool.unhealthy() if backend not in out}
        for backend in sorted(unhealthy):
            if (app, backend) not in self.kept_in:
                size = len(pool.members)
                says = f"{app} on {backend} stays in, although it {pool.members[backend].fault.says}:"
                say(f"{says} of {size} no more than {size // 2} may be out, and none if most are slow", 4)
        self.kept_in = {kept for kept in self.kept_in if kept[0] != app} | {
            (app, backend) for backend in unhealthy
        }

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
                        await asyncio.to_thread(cut_connections, target)
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
            except (OSError, nginx_pool.Refused) as problem:
                if trouble != str(problem):
                    trouble = str(problem)
                    say(trouble, 3)
                pause = SECONDS_AFTER_A_FAILURE
                self.news.set()
            await asyncio.sleep(pause)

    def pause(self, now: float) -> float:
        """Tell how long Nginx is left alone now."""
        self.reloads = [moment for moment in self.reloads if now - moment < SECONDS_OF_RELOADS]
        return SECONDS_BETWEEN_RELOADS * 2 ** min(len(self.reloads) // RELOADS_BEFORE_SLOWER, 3)

    def summary(self) -> str:
        """Say in a line who is out."""
        out = [f"{app} on {backend}" for app, backends in self.out.items() for backend in sorted(backends)]
        more = [f"{len(out) - 9} more"] if len(out) > 9 else []
        return f"{len(self.targets)} watched, out: {', '.join(out[:9] + more) or 'none'}"

    async def run(self) -> None:
        """Work until told to stop, or until the files of this program are others."""
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        threading.Thread(target=Names(self.targets.values()).look_up, daemon=True).start()
        before = identities()
        work = [asyncio.create_task(self.watch(target)) for target in self.targets.values()]
        work.append(asyncio.create_task(self.decide()))
        while not stop.is_set():
            notify("WATCHDOG=1")
            if identities() != before:
                say("starts again, for its files have changed")
                break
            if broken := [task for task in work if task.done()]:
                broken[0].result()  # raises what ended it
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 1)
        for task in work:
            task.cancel()


def identities() -> list[tuple[int, int]]:
    """Tell versions of the files of this program apart."""
    programs = [Path(__file__).with_name(f"{name}.py") for name in PROGRAMS]
    found = [file.stat() for file in (DESCRIPTION, *programs) if file.exists()]
    return [(state.st_ino, state.st_mtime_ns) for state in found]


def main() -> int:
    """Work for ever; returns the exit status."""
    asyncio.run(Health(json.loads(DESCRIPTION.read_text(encoding="utf-8"))).run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
