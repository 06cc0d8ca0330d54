"""The probe counts what is lost, and says so; against a server that loses things on purpose."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from paddock_probe.cli import main
from paddock_probe.client import Client, ClosedEarly, Target
from paddock_probe.judge import judge
from paddock_probe.load import turn
from paddock_probe.records import Command, LedgerLog, Record, Run


class Result(NamedTuple):
    """What a run of the probe left."""

    rc: int
    out: str
    err: str
    json: dict[str, Any]
    picture: Path


class Probe:
    """Runs the command line."""

    def __init__(self, capfd: pytest.CaptureFixture[str], folder: Path, server: Any) -> None:
        self.capfd, self.folder, self.server = capfd, folder, server

    def __call__(self, *arguments: str, **options: str) -> Result:
        """Probe the server with a second's load; options such as post="" replace the usual ones."""
        picture = self.folder / "probe.svg"
        usual = {"url": self.server.url, "seconds": "1", "post": "/ledger", "ledger": "/ledger?run={run}"}
        usual |= {"rate": "60", "json": str(self.folder / "probe.json"), "picture": str(picture)}
        argv = [f"--{name.replace('_', '-')}={value}" for name, value in (usual | options).items()]
        try:
            rc = main([*argv, *arguments])
        except SystemExit as end:
            rc = int(end.code or 0)
        out, err = self.capfd.readouterr()
        file = self.folder / "probe.json"
        return Result(rc, out, err, json.loads(file.read_text()) if file.exists() else {}, picture)


@pytest.fixture
def probe(capfd: pytest.CaptureFixture[str], tmp_path: Path, server: Any) -> Probe:
    """The probe, ready to run."""
    return Probe(capfd, tmp_path, server)


def last(result: Result) -> str:
    """The verdict."""
    return result.out.splitlines()[-1]


def test_clients_and_backends_take_other_turns() -> None:
    """Where a balancer takes turns as well, each client still meets each backend, and with each method."""
    for backends in (2, 3, 4, 5, 6):
        met = {(turn(number), number % backends, number % 5 == 4) for number in range(600)}
        methods = 1 if backends == 5 else 2  # then one backend has all the POSTs
        assert len(met) == 3 * backends * methods, backends


def test_a_sound_server_passes(probe: Probe) -> None:
    """All is sent, counted, written and drawn."""
    history = probe.folder / "history.jsonl"
    result = probe(slow="/slow", ws="/ws", history=str(history))
    assert result.rc == 0, result.out + result.err
    slow = next(kind["sent"] for kind in result.json["classes"] if kind["name"] == "slow")
    assert last(result) == f"PASS: 0 of {60 + slow} requests failed"
    assert result.json["planned"] == 60
    assert [kind["sent"] for kind in result.json["classes"][:3]] == [20, 20, 20]
    assert result.json["ledger"]["acknowledged"] == 12
    assert result.json["websocket"]["messages"] >= 1
    seconds = result.json["per_second"]
    assert sum(count for second in seconds for count in second["ok"]["r1"].values()) == 60
    assert result.picture.read_text().lstrip().startswith("<?xml")
    assert result.picture.stat().st_size < 200_000
    records = [json.loads(line) for line in history.read_text().splitlines()]
    assert len(records) == 60 + slow
    assert {record["error"] for record in records} == {""}


def test_a_failure_is_told(probe: Probe, server: Any) -> None:
    """One 503 to a client that gates fails the run; the line says which request it was."""
    # After two GETs ahead of the load: its number 3, from a client with a connection for each request.
    server.fault = lambda server, request: (
        "503" if request.method == "GET" and server.asked["GET"] == 6 else None
    )
    result = probe()
    assert (result.rc, last(result)) == (1, "FAIL: 1 of 40 requests failed")
    assert "status 503" in result.out
    assert [failure["error"] for failure in result.json["failures"]] == ["status 503"]


def test_a_post_without_an_answer(probe: Probe, server: Any) -> None:
    """It fails and is not sent again."""
    server.fault = lambda _, request: "close" if request.method == "POST" else None
    result = probe()
    assert result.rc == 1
    assert server.asked["POST"] == 12
    assert result.json["ledger"]["acknowledged"] == 0


@pytest.mark.parametrize(
    ("fault", "reason"), [("twice", "12 executed twice"), ("hide", "12 acknowledged but not executed")]
)
def test_an_unclean_ledger(probe: Probe, server: Any, fault: str, reason: str) -> None:
    """Answers are not believed: each POST must have been executed once."""
    server.fault = lambda _, request: fault if request.method == "POST" else None
    result = probe()
    assert (result.rc, last(result)) == (1, f"FAIL: {reason}")
    assert not result.json["ledger"]["clean"]


def test_failed_but_executed_is_told(probe: Probe, server: Any) -> None:
    """A POST that failed may have been executed: that alone is no unclean ledger."""
    server.fault = lambda _, request: "500" if request.method == "POST" else None
    result = probe()
    assert result.json["ledger"]["clean"]
    assert len(result.json["ledger"]["failed_but_executed"]) == 12
    assert result.rc == 1


def test_websocket_going_away(probe: Probe, server: Any) -> None:
    """A server may say that it goes away, if the client gets back in."""
    server.closes = [1001]
    result = probe(ws="/ws", seconds="2")
    assert (result.rc, result.json["websocket"]["going_away"]) == (0, 1), result.out


@pytest.mark.parametrize("code", [None, 1011])
def test_websocket_lost(probe: Probe, server: Any, code: int | None) -> None:
    """Any other end is a loss."""
    server.closes = [code]
    result = probe(ws="/ws", seconds="2")
    assert result.rc == 1
    assert "the WebSocket was lost once" in last(result)
    assert len(result.json["websocket"]["losses"]) == 1


def test_around_a_command(probe: Probe) -> None:
    """The command's output and status are told, and the latter does not decide."""
    code = "import time; print('hello'); time.sleep(0.5); raise SystemExit(3)"
    result = probe("--before=0.5", "--after=0.5", "--", sys.executable, "-c", code)
    assert (result.rc, result.json["command"]["rc"]) == (0, 3), result.out
    assert "hello" in result.out
    before, during, after = result.json["phases"]
    assert (before["name"], during["name"], after["name"]) == ("before", "during", "after")
    assert during["requests"] >= 10


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"url": "ftp://x"}, "allowed: http://HOST"),
        ({"url": "127.0.0.1:80"}, "allowed: http://HOST"),
        ({"rate": "0"}, "allowed: a number of requests a second"),
        ({"seconds": "soon"}, "allowed: a number of seconds"),
        ({"get": "/nothing"}, "answers with status 404"),
        ({"expect_status": "404"}, "answers with status 200"),
        ({"expect_status": "ok"}, "allowed: such as 200"),
        ({"expect_body": "Welcome"}, "answers with a body without Welcome"),
        ({"expect_body": "("}, "allowed: a regular expression"),
        ({"ledger": "/nothing?run={run}"}, "answers with status 404"),
        ({"ledger": "/?run={run}"}, "not as a ledger does"),
        ({"ledger": "/ledger"}, "allowed: a path with {run} in it"),
        ({"post": ""}, "allowed: with --post"),
        ({"ws": "/"}, "is no WebSocket"),
        ({"picture": "x.gif"}, ".svg or .png"),
    ],
)
def test_what_cannot_be_probed(probe: Probe, options: dict[str, str], text: str) -> None:
    """It is said in a line before any load."""
    result = probe(**options)
    assert (result.rc, result.out) == (2, "")
    assert text in result.err
    assert result.err.count("\n") == 1


def test_a_dead_url(probe: Probe) -> None:
    """Nobody listens there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        result = probe(url=f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert result.rc == 2
    assert result.err.endswith("connection refused\n")


def test_other_keys(probe: Probe, server: Any) -> None:
    """What names the server may have other keys; what no key names is told as unknown."""
    server.body = {"node": "two"}
    result = probe(post="", ledger="", backend_key="node")
    assert result.rc == 0, result.out
    assert [(one["backend"], one["release"]) for one in result.json["servers"]] == [("two", "?")]
    assert result.json["ledger"] is None


def test_an_unexpected_status(probe: Probe, server: Any) -> None:
    """What is good is said by an option."""
    server.fault = lambda server, _request: "404" if server.asked["GET"] > 1 else None
    assert probe(post="", ledger="", expect_status="200,400-410").rc == 0
    server.asked.clear()
    result = probe(post="", ledger="")
    assert {failure["error"] for failure in result.json["failures"]} == {"status 404"}


def test_an_unexpected_body(probe: Probe, server: Any) -> None:
    """A page that becomes another one is lost, though its status is good. Nothing is expected of others."""
    assert probe(expect_body='"release": "r\\d"', slow="/slow").rc == 0

    def change(server: Any, _request: Any) -> None:
        server.release = "r2" if server.ledger else "r1"

    server.ledger.clear()
    server.fault = change
    result = probe(expect_body="r1")
    assert result.rc == 1
    failures = {(one["method"], one["error"]) for one in result.json["failures"]}
    assert failures == {("GET", "a body without r1")}


def test_posts_without_a_ledger(probe: Probe, server: Any) -> None:
    """They are sent and must be answered; what became of them is not asked."""
    result = probe(ledger="")
    assert (result.rc, server.asked["POST"], result.json["ledger"]) == (0, 12, None), result.out


def test_a_shared_ledger(probe: Probe, server: Any) -> None:
    """One that names no host has the ids of all."""
    result = probe(backend_key="release")
    assert (result.rc, result.json["ledger"]["clean"]) == (0, True), result.out
    server.fault = lambda _, request: "hide" if request.method == "POST" else None
    assert last(probe(backend_key="release")) == "FAIL: 12 acknowledged but not executed"


def test_stale_connections() -> None:
    """A GET on a reused connection that ends is sent once more; a POST is not, and raw retries nothing."""

    async def scenario() -> list[str]:
        served = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal served
            served += 1
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            await reader.read(10)  # the next request is read and not answered
            writer.close()

        results = []
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            target = Target(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            for retry, method in ((True, "GET"), (True, "POST"), (False, "GET")):
                client = Client(target, reuse=True, retry=retry)
                await client.ask("GET", "/")
                try:
                    _, retried = await client.ask(method, "/", b"{}" if method == "POST" else b"")
                    results.append(f"retried {retried}")
                except ClosedEarly as error:
                    results.append(str(error))
                client.close()
            results.append(f"{served} connections")
        return results

    closed = "closed before the answer"
    assert asyncio.run(scenario()) == ["retried True", closed, closed, "4 connections"]


@pytest.mark.parametrize("retry", [True, False])
def test_a_connection_seen_closed(retry: bool) -> None:
    """Clients look before they send, even a POST; raw ones do not."""

    async def scenario() -> int:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            client = Client(Target(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"), True, retry)
            await client.ask("GET", "/")
            [connection] = client.pool
            while not connection.seen_closed():
                await asyncio.sleep(0.01)
            try:
                answer, retried = await client.ask("POST", "/", b"{}")
                assert not retried
                return answer.status
            except ClosedEarly:
                return 0

    assert asyncio.run(scenario()) == (200 if retry else 0)


def record(number: int, **changes: Any) -> Record:
    """One of ten requests a second, answered in 10 ms."""
    due = number / 10
    fields = {"client": ("new", "keepalive", "raw")[number % 3], "method": "GET", "path": "/"}
    times = {"scheduled": due, "launched": due, "finished": due + 0.01}
    return Record(**(fields | times | {"backend": "one", "release": "r1"} | changes))


def run_of(records: list[Record], planned: int = 100, **changes: Any) -> Run:
    """Ten seconds at ten requests a second."""
    return Run("http://x", "probe-x", "", 10.0, 10.0, planned, records, slow=False, **changes)


def test_raw_failures_do_not_gate() -> None:
    """They are told."""
    records = [record(number, error="x" if number == 5 else "") for number in range(100)]
    judgement = judge(run_of(records))
    assert judgement.verdict == "PASS: 0 of 67 requests failed, next to 1 of 33 of clients that never retry"


def test_too_few_requests() -> None:
    """A machine that cannot send that much proves nothing."""
    judgement = judge(run_of([record(number) for number in range(90)]))
    assert judgement.verdict.startswith("FAIL: this machine cannot send 10 requests/s; it sent 9 ")


def test_late_requests() -> None:
    """Neither does one that sends them late."""
    judgement = judge(run_of([record(number, launched=number / 10 + 1.5) for number in range(100)]))
    assert judgement.verdict.startswith("FAIL: this machine cannot send 10 requests/s")


def test_nothing_is_no_success() -> None:
    """No request, no verdict but this."""
    assert judge(run_of([], planned=0)).verdict.startswith("FAIL: no request was asked for")


def test_gap() -> None:
    """Two seconds of failures between answers."""
    records = [record(number, error="x" if 40 <= number < 60 else "") for number in range(100)]
    judgement = judge(run_of(records))
    assert judgement.gap == pytest.approx(1000 * (6.01 - 3.91))
    assert not judgement.passed


def test_phases_of_a_change() -> None:
    """They follow from the releases that answered."""
    records = [record(number, release="r1" if number < 40 or number == 60 else "r2") for number in range(100)]
    phases = {phase.name: (phase.start, phase.end) for phase in judge(run_of(records)).phases}
    assert phases["during"] == (pytest.approx(3.01), pytest.approx(7.01))


def test_phases_of_a_command() -> None:
    """They are its life."""
    records = [record(number) for number in range(100)]
    phases = judge(run_of(records, command=Command(["x"], 3.0, 6.0, 0))).phases
    assert [(phase.name, phase.requests) for phase in phases] == [
        ("before", 20),
        ("during", 20),
        ("after", 27),
    ]


def test_without_a_change_all_is_before() -> None:
    """One release, one phase."""
    assert [phase.name for phase in judge(run_of([record(number) for number in range(100)])).phases] == [
        "before"
    ]


def test_a_ledger_that_is_not_to_be_had() -> None:
    """Its host is named."""
    records = [record(number, id=f"probe-x-{number}") for number in range(100)]
    judgement = judge(run_of(records, ledger=LedgerLog(missing_hosts=["one"])))
    assert judgement.verdict == "FAIL: the ledger of one is not to be had"


@pytest.mark.parametrize(("limit", "passed"), [(200, True), (50, False)])
def test_added_latency(limit: float, passed: bool) -> None:
    """The slowest request during the change may take so much longer than the median before."""
    slow = {"finished": 4.6}
    records = [record(number, **(slow if number == 45 else {})) for number in range(100)]
    judgement = judge(run_of(records, command=Command(["x"], 3.0, 6.0, 0)), limit)
    assert judgement.passed is passed
