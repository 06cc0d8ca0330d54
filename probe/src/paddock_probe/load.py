"""The load: requests that are sent when they are due, whatever became of those before them."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import signal
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import NamedTuple

from . import ledger
from .client import ERRORS, LIMIT, Answer, Client, Target, describe
from .records import UNKNOWN, Command, Record, Run
from .websocket import Echo

POST_EVERY = 5  # one request in so many
GRACE = 1.0  # seconds after the end in which requests that are due may still be sent
PROGRESS = 5.0  # seconds
CLIENTS = ("new", "keepalive", "raw")


def turn(number: int) -> str:
    """The client whose turn it is: in another order each time, for a balancer takes turns as well."""
    return CLIENTS[(number + number // len(CLIENTS)) % len(CLIENTS)]


class Expect(NamedTuple):
    """What a good answer is like."""

    statuses: tuple[range, ...] = (range(200, 300),)
    body: re.Pattern[bytes] | None = None

    @property
    def status_only(self) -> Expect:
        """The same for paths that answer something else."""
        return self._replace(body=None)

    def problem(self, answer: Answer) -> str:
        """What is wrong with an answer, in a few words; empty where nothing is."""
        if not any(answer.status in allowed for allowed in self.statuses):
            return f"status {answer.status}"
        if self.body and not self.body.search(answer.body):
            return f"a body without {self.body.pattern.decode()}"
        return ""


class Keys(NamedTuple):
    """Keys of a JSON answer that name the backend and its release."""

    backend: str = "host"
    release: str = "release"


class Plan(NamedTuple):
    """What to send: requests a second, seconds, and paths, empty ones left out.

    `expect` is of the answers to `get`; of those to `post` and `slow` only the status counts.

    With a command, the load goes on for `before` seconds, the command's life, and `after` seconds;
    without, for `seconds`.
    """

    rate: float
    seconds: float
    get: str
    expect: Expect = Expect()
    keys: Keys = Keys()
    post: str = ""
    ledger: str = ""
    slow: str = ""
    websocket: str = ""
    command: tuple[str, ...] = ()
    before: float = 3.0
    after: float = 5.0


class Load:
    """One run of a plan.

    Args:
        target: Where requests go.
        plan: What to send.
        say: Is told a line about the progress from time to time.
    """

    def __init__(self, target: Target, plan: Plan, say: Callable[[str], None]) -> None:
        self.target, self.plan, self.say = target, plan, say
        self.clients = {
            "new": Client(target),
            "keepalive": Client(target, reuse=True, retry=True),
            "raw": Client(target, reuse=True),
        }
        self.run_id = f"probe-{secrets.token_hex(4)}"
        self.records: list[Record] = []
        self.sent = 0
        self.end: float | None = None if plan.command else plan.seconds
        self.interrupted = asyncio.Event()
        self.command = Command(list(plan.command)) if plan.command else None

    async def run(self) -> Run:
        """Send all of it and ask for the ledger; returns what happened."""
        loop = asyncio.get_running_loop()
        zero = loop.time()
        self.now = lambda: loop.time() - zero
        began = datetime.now(UTC).isoformat(timespec="milliseconds")
        echo = Echo(self.target, self.plan.websocket, self.now) if self.plan.websocket else None
        tasks = [loop.create_task(self._progress())]
        if echo:
            tasks.append(loop.create_task(echo.run()))
        async with self._until_interrupted():
            slow = loop.create_task(self._keep_slow()) if self.plan.slow else None
            command = loop.create_task(self._run_command()) if self.command else None
            await self._send()
            if command:
                await command
            if slow:
                await slow
        for task in tasks:
            task.cancel()
        # A task that ended by a bug of ours must not look like a success.
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(result, asyncio.CancelledError) and isinstance(result, BaseException):
                raise result
        for client in self.clients.values():
            client.close()
        end = self.end or 0.0
        log = None
        if self.plan.ledger:
            path = ledger.question(self.plan.ledger, self.run_id)
            log = await ledger.collect(Client(self.target), path, self.plan.keys.backend, self.records)
        return Run(
            url=self.target.url,
            run=self.run_id,
            began=began,
            rate=self.plan.rate,
            seconds=end,
            planned=self._due(end),
            records=sorted(self.records, key=lambda record: record.scheduled),
            slow=slow is not None,
            websocket=echo.log if echo else None,
            ledger=log,
            command=self.command,
        )

    def _due(self, seconds: float) -> int:
        """How many requests are due before a moment."""
        number = int(seconds * self.plan.rate)
        return number + (number / self.plan.rate < seconds)

    async def _send(self) -> None:
        """Start each request when it is due, until the end, and wait for all."""
        async with asyncio.TaskGroup() as group:
            while self.end is None or (self.sent < self._due(self.end) and self.now() < self.end + GRACE):
                due = self.sent / self.plan.rate
                wait = due - self.now()
                if wait > 0:
                    await asyncio.sleep(min(wait, 0.05))  # the end may come closer
                    if self.now() < due:
                        continue
                elif self.sent % 20 == 0:
                    await asyncio.sleep(0)  # far behind, let others have a turn
                name = turn(self.sent)
                post = bool(self.plan.post) and self.sent % POST_EVERY == POST_EVERY - 1
                group.create_task(self._one(name, self.clients[name], due, self.sent if post else None))
                self.sent += 1

    async def _one(self, name: str, client: Client, due: float, number: int | None) -> None:
        """Send one request of the plan; with a number, the POST of that number."""
        if number is None:
            await self._request(name, client, due, self.plan.get)
        else:
            await self._request(name, client, due, self.plan.post, f"{self.run_id}-{number}")

    async def _request(self, name: str, client: Client, due: float, path: str, id_: str = "") -> None:
        launched = self.now()
        answer, retried, error = Answer(0, b""), False, ""
        method, body = ("POST", ledger.body(id_)) if id_ else ("GET", b"")
        try:
            async with asyncio.timeout(due + LIMIT - launched):
                answer, retried = await client.ask(method, path, body)
            expect = self.plan.expect if path == self.plan.get and not id_ else self.plan.expect.status_only
            error = expect.problem(answer)
        except ERRORS as problem:
            error = describe(problem)
        finished = self.now()
        who = [answer.json().get(key) for key in self.plan.keys]
        backend, release = (value if isinstance(value, str) else UNKNOWN for value in who)
        times = (due, launched, finished)
        self.records.append(Record(name, method, path, *times, error, retried, backend, release, id_))

    async def _keep_slow(self) -> None:
        """Have one slow request in flight, always."""
        client = Client(self.target)
        while self.end is None or self.now() < self.end:
            started = self.now()
            await self._request("slow", client, started, self.plan.slow)
            if self.now() - started < 0.1:
                await asyncio.sleep(0.1)  # refused at once; do not hammer

    async def _run_command(self) -> None:
        """Run the command once the load is on, and set the end by its end."""
        assert self.command
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.interrupted.wait(), self.plan.before)
        if self.interrupted.is_set():
            return
        self.command.started = self.now()
        process = await asyncio.create_subprocess_exec(*self.command.argv)
        self.command.rc = await process.wait()
        self.command.ended = self.now()
        self.end = self.command.ended + (0 if self.interrupted.is_set() else self.plan.after)

    @contextlib.asynccontextmanager
    async def _until_interrupted(self) -> AsyncIterator[None]:
        """End early at the first Ctrl-C. A command gets it from the terminal too: it ends first."""
        loop = asyncio.get_running_loop()

        def interrupt() -> None:
            self.interrupted.set()
            loop.remove_signal_handler(signal.SIGINT)
            if not self.command or not self.command.started or self.command.rc is not None:
                self.end = min(self.now(), self.end or self.now())

        loop.add_signal_handler(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    async def _progress(self) -> None:
        while True:
            await asyncio.sleep(PROGRESS)
            failed = sum(bool(record.error) for record in self.records)
            recent = {r.release for r in self.records if r.finished > self.now() - PROGRESS and not r.error}
            seen = ", ".join(sorted(recent)) or "none"
            self.say(f"{self.now():5.0f} s  {self.sent:,} sent, {failed} failed, releases seen: {seen}")
