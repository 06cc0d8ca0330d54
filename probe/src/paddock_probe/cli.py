"""The command line: options, the look before the load, and what is written after it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import resource
import shutil
import ssl
import sys
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from . import ledger, websocket
from .client import ERRORS, LIMIT, Answer, Client, Target, describe
from .judge import Judgement, judge
from .load import Expect, Keys, Load, Plan
from .picture import draw
from .records import Run
from .report import as_json, text


class Refused(Exception):
    """There is nothing to probe, or not in this way; the message is for people."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _number(low: float, high: float, unit: str) -> object:
    def parse(value: str) -> float:
        with contextlib.suppress(ValueError):
            if low <= (number := float(value)) <= high:
                return number
        raise argparse.ArgumentTypeError(f"{value!r}; allowed: a number of {unit} from {low:g} to {high:g}")

    return parse


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.username or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise argparse.ArgumentTypeError(
            f"{value!r}; allowed: http://HOST, https://HOST, with :PORT or without (paths: --get and others)"
        )
    return f"{parts.scheme}://{parts.netloc}"


def _path(value: str) -> str:
    if value and not (value.startswith("/") and value.isascii() and value.isprintable() and " " not in value):
        raise argparse.ArgumentTypeError(f"{value!r}; allowed: a path that starts with /, or ''")
    return value


def _statuses(value: str) -> tuple[range, ...]:
    found = [re.fullmatch(r"([1-5]\d\d)(?:-([1-5]\d\d))?", part) for part in value.split(",")]
    ranges = tuple(range(int(one[1]), int(one[2] or one[1]) + 1) for one in found if one)
    if len(ranges) < len(found) or not all(ranges):
        raise argparse.ArgumentTypeError(f"{value!r}; allowed: such as 200, 200,404 or 200-299")
    return ranges


def _pattern(value: str) -> re.Pattern[bytes]:
    try:
        return re.compile(value.encode())
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{value!r}; allowed: a regular expression ({error})") from None


def _picture(value: str) -> Path:
    if Path(value).suffix not in (".svg", ".png"):
        raise argparse.ArgumentTypeError(f"{value!r}; allowed: a file name that ends in .svg or .png")
    return Path(value)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="paddock-probe",
        usage="paddock-probe --url URL [OPTION...] [-- COMMAND ARG...]",
        description="Count the requests that a service loses, while a command runs or for some time.",
        epilog="Exit status: 0 nothing lost, 1 something lost or too little asked to tell, 2 no probe.",
    )
    add = parser.add_argument
    add("--url", type=_url, required=True, help="where clients reach the service")
    add(
        "--rate",
        type=_number(0.1, 10_000, "requests a second"),
        default=50.0,
        help="requests/s (%(default)g)",
    )
    add("--seconds", type=_number(1, 86_400, "seconds"), default=60.0, help="without a command (%(default)g)")
    add("--before", type=_number(0, 3600, "seconds"), default=3.0, help="ahead of the command (%(default)g)")
    add("--after", type=_number(0, 3600, "seconds"), default=5.0, help="after the command (%(default)g)")
    add("--get", type=_path, default="/", metavar="PATH", help="most requests (%(default)s)")
    add("--post", type=_path, default="", metavar="PATH", help='one request in five; sends {"id": ID}')
    add("--ledger", type=_path, default="", metavar="PATH", help="tells the ids of {run} that were executed")
    add("--slow", type=_path, default="", metavar="PATH", help="a GET that is always in flight")
    add("--ws", type=_path, default="", metavar="PATH", help="a WebSocket that echoes")
    add(
        "--expect-status",
        type=_statuses,
        default="200-299",
        metavar="LIST",
        help="of a good answer (%(default)s)",
    )
    add("--expect-body", type=_pattern, metavar="REGEX", help="what a good answer to --get has in it")
    add("--backend-key", default="host", metavar="KEY", help="in JSON: which host answers (%(default)s)")
    add("--release-key", default="release", metavar="KEY", help="in JSON: which release (%(default)s)")
    add("--host-header", default="", metavar="NAME", help="ask for this host instead of the URL's")
    add("--cacert", type=Path, metavar="FILE", help="trust these certificates, instead of the system's")
    add(
        "--max-added-latency",
        type=_number(0, 10_000, "milliseconds"),
        metavar="MS",
        help="fail where the slowest request during the change took so much longer than the median before",
    )
    add("--json", type=Path, default=Path("build/probe.json"), metavar="FILE", help="%(default)s")
    add(
        "--picture",
        type=_picture,
        default=Path("build/probe.svg"),
        metavar="FILE",
        help=".svg or .png (%(default)s)",
    )
    add("--history", type=Path, metavar="FILE", help="each request there is, a line of JSON each")
    add("--quiet", action="store_true", help="no progress")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Probe; returns the exit status: 0 passed, 1 failed, 2 nothing was probed."""
    argv = sys.argv[1:] if argv is None else argv
    cut = argv.index("--") if "--" in argv else len(argv)
    options, command = _parser().parse_args(argv[:cut]), tuple(argv[cut + 1 :])
    try:
        run = asyncio.run(_probe(options, command))
    except Refused as reason:
        print(f"paddock-probe: {reason}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("paddock-probe: interrupted twice; nothing is reported", file=sys.stderr)
        return 2
    judgement = judge(run, options.max_added_latency)
    try:
        _write(judgement, options)
    except OSError as error:
        print(text(judgement))
        print(f"paddock-probe: cannot write {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    print(f"{'' if options.quiet else chr(10)}{text(judgement)}")
    return 0 if judgement.passed else 1


def _write(judgement: Judgement, options: argparse.Namespace) -> None:
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(as_json(judgement), indent=1) + "\n")
    draw(judgement, options.picture)
    if options.history:
        options.history.parent.mkdir(parents=True, exist_ok=True)
        lines = (json.dumps(record._asdict()) for record in judgement.run.records)
        options.history.write_text("".join(f"{line}\n" for line in lines))


async def _probe(options: argparse.Namespace, command: tuple[str, ...]) -> Run:
    """Look whether there is something to probe, then probe it."""
    if command and not shutil.which(command[0]):
        raise Refused(f"there is no command {command[0]}")
    if not options.get:
        raise Refused("--get is empty; allowed: a path that starts with /")
    if options.ledger and not options.post:
        raise Refused("--ledger tells about POSTs; allowed: with --post")
    if options.ledger and "{run}" not in options.ledger:
        raise Refused(f"--ledger {options.ledger} asks for no run; allowed: a path with {{run}} in it")
    # Each request in flight may hold a connection.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65_536)) if hard > 0 else soft, hard))
    target = Target(options.url, options.host_header, _tls(options))
    plan = Plan(
        rate=options.rate,
        seconds=options.seconds,
        get=options.get,
        expect=Expect(options.expect_status, options.expect_body),
        keys=Keys(options.backend_key, options.release_key),
        post=options.post,
        ledger=options.ledger,
        slow=options.slow,
        websocket=options.ws,
        command=command,
        before=options.before,
        after=options.after,
    )
    await _look(target, plan)
    say = (lambda _: None) if options.quiet else _say
    return await Load(target, plan, say).run()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _tls(options: argparse.Namespace) -> ssl.SSLContext | None:
    if not options.url.startswith("https:"):
        return None
    try:
        return ssl.create_default_context(cafile=options.cacert)
    except OSError as error:
        raise Refused(f"--cacert {options.cacert}: {error.strerror or error}") from None


async def _look(target: Target, plan: Plan) -> None:
    """Ask each path once.

    Raises:
        Refused: One of them is not what the load takes it for.
    """
    try:
        async with asyncio.timeout(LIMIT):
            connection = await target.connect()
    except ERRORS as error:
        raise Refused(f"{target.url}: {describe(error)}") from None
    target.address = connection.address or target.address
    connection.close()
    await _ask(target, plan.get, plan.expect)
    if plan.ledger:
        path = ledger.question(plan.ledger, "probe-look")
        if ledger.told(await _ask(target, path, plan.expect.status_only), plan.keys.backend) is None:
            raise Refused(f"{target.url}{path} answers, but not as a ledger does (no ids in it)")
    if plan.slow:
        await _ask(target, plan.slow, plan.expect.status_only)
    if plan.websocket:
        try:
            (await websocket.connect(target, plan.websocket, websocket.Messages())).close()
        except websocket.ERRORS as error:
            raise Refused(f"{target.url}{plan.websocket} is no WebSocket: {error}") from None


async def _ask(target: Target, path: str, expect: Expect) -> Answer:
    try:
        async with asyncio.timeout(LIMIT):
            answer, _ = await Client(target).ask("GET", path)
    except ERRORS as error:
        raise Refused(f"{target.url}{path}: {describe(error)}") from None
    if problem := expect.problem(answer):
        raise Refused(f"{target.url}{path} answers with {problem}")
    return answer
