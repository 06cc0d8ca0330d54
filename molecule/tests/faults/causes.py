"""The ways to break a fleet. Each is a context: it begins broken, and ends healed, with what was seen."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from fleet import BACKENDS
from paddock_probe.client import Target
from paddock_probe.websocket import Echo
from testbed import NODES

Cause = Callable[[Any], AbstractContextManager[dict[str, float]]]

LB = NODES["lb1"]["fleet_address"]
# Of requestme on a node: the slot that serves, its master, and the workers.
SLOT = (
    "slot=$(systemctl list-units --plain --no-legend --state=active 'requestme-*.service' | cut -d' ' -f1); "
    "main=$(systemctl show --property=MainPID --value $slot); "
    "workers=$(cat /proc/$main/task/$main/children); "
)
STOP = f"{SLOT} echo $slot >/run/fault; systemctl stop requestme.socket; systemctl stop $slot"
START = "systemctl start requestme.socket $(cat /run/fault)"
WELL = "python3 -c 'import urllib.request as r; r.urlopen(\"http://127.0.0.1:8080/readyz\")' 2>/dev/null"
MEND = "nft delete table ip fault"


def shell(node: str, inject: str, heal: str = "true") -> Cause:
    """Commands on a node."""

    @contextmanager
    def cause(fleet: Any) -> Iterator[dict[str, float]]:
        fleet.sh(node, inject)
        try:
            yield {}
        finally:
            fleet.sh(node, heal)

    return cause


def packets(node: str, *rules: str) -> Cause:
    """Rules for packets on a node: `in` or `out`, and what becomes of those from or to the balancer."""
    hooks = {"in": "input", "out": "output"}
    script = ["table ip fault {"]
    for rule in rules:
        way, _, what = rule.partition(" ")
        address = "saddr" if way == "in" else "daddr"
        script.append(
            f" chain {way} {{ type filter hook {hooks[way]} priority -10; ip {address} {LB} {what}; }}"
        )
    return shell(node, "nft '" + "\n".join([*script, "}"]) + "'", MEND)


def podman(*argv: str) -> None:
    """Run podman."""
    subprocess.run(["podman", *argv], check=True, capture_output=True, timeout=60)


@contextmanager
def frozen(fleet: Any) -> Iterator[dict[str, float]]:
    """A backend that does nothing any more, and does not say so."""
    podman("pause", NODES["app1"]["container"])
    try:
        yield {}
    finally:
        podman("unpause", NODES["app1"]["container"])


def power(fleet: Any, *nodes: str) -> None:
    """Switch nodes on, and wait until their app is well."""
    podman("start", *(NODES[node]["container"] for node in nodes))
    for node in nodes:
        if node in BACKENDS:
            fleet.sh(node, f"for try in $(seq 200); do {WELL} && break; sleep 0.1; done")


def lost(*nodes: str) -> Cause:
    """Hosts without power."""

    @contextmanager
    def cause(fleet: Any) -> Iterator[dict[str, float]]:
        podman("kill", *(NODES[node]["container"] for node in nodes))
        try:
            yield {}
        finally:
            power(fleet, *nodes)

    return cause


@contextmanager
def rebooted(fleet: Any) -> Iterator[dict[str, float]]:
    """A host that goes down as it should, and comes up again."""
    podman("stop", "--time", "30", NODES["app1"]["container"])
    power(fleet, "app1")
    yield {}


def killed_worker(signal: str) -> Cause:
    """One of Gunicorn's workers gets a signal; seen: when all are back, and whether systemd noticed."""

    @contextmanager
    def cause(fleet: Any) -> Iterator[dict[str, float]]:
        restarts = fleet.sh("app1", f"{SLOT} systemctl show --property=NRestarts --value $slot")
        before = fleet.sh("app1", f"{SLOT} echo $workers").split()
        seen: dict[str, float] = {}
        fleet.sh("app1", f"kill -{signal} {before[0]}")
        _until(
            "workers back after s",
            lambda: len({*fleet.sh("app1", f"{SLOT} echo $workers").split()} - {before[0]}) == len(before),
            seen,
        )
        yield seen
        now = fleet.sh("app1", f"{SLOT} systemctl show --property=NRestarts --value $slot")
        seen["restarts"] = int(now) - int(restarts)

    return cause


@contextmanager
def killed_master(fleet: Any) -> Iterator[dict[str, float]]:
    """Gunicorn's master dies; seen: when it is back, and what it left behind."""
    main, *workers = fleet.sh("app1", f"{SLOT} echo $main $workers").split()
    seen: dict[str, float] = {}
    fleet.sh("app1", f"kill -KILL {main}")
    _until(
        "active after s",
        lambda: fleet.sh("app1", f"{SLOT} echo $main", check=False) not in ("", "0", main),
        seen,
    )
    yield seen
    orphans = fleet.sh(
        "app1", f"for pid in {' '.join(workers)}; do test -d /proc/$pid && echo $pid; done; true"
    )
    seen["orphans"] = len(orphans.split())


def _until(name: str, condition: Callable[[], bool], seen: dict[str, float], limit: float = 60) -> None:
    began = time.monotonic()
    while not condition() and time.monotonic() - began < limit:
        time.sleep(0.1)
    seen[name] = round(time.monotonic() - began, 1)


def poison(count: int, seconds: float = 20) -> Cause:
    """Requests that take longer than they may; seen: what became of them, and how often they were sent."""

    @contextmanager
    def cause(fleet: Any) -> Iterator[dict[str, float]]:
        path = f"/requestme?seconds={seconds}&id={time.monotonic_ns()}"
        with ThreadPoolExecutor(count) as pool:
            waiting = [pool.submit(fleet.get, path) for _ in range(count)]
            seen: dict[str, float] = {}
            yield seen
            statuses = [one.result()[0] for one in waiting]
        seen["not 504"] = sum(status != 504 for status in statuses)
        tries = fleet.sh("lb1", f"grep -F '{path}' /var/log/nginx/access.log").splitlines()
        seen["sent twice"] = sum(
            '"upstream":"' in line and "," in line.split('"upstream":"')[1].split('"')[0] for line in tries
        )

    return cause


def everywhere(inject: str, heal: str, nodes: tuple[str, ...] = tuple(BACKENDS)) -> Cause:
    """Commands on several nodes at once."""

    @contextmanager
    def cause(fleet: Any) -> Iterator[dict[str, float]]:
        with ThreadPoolExecutor(len(nodes)) as pool:
            list(pool.map(lambda node: fleet.sh(node, inject), nodes))
            try:
                yield {}
            finally:
                list(pool.map(lambda node: fleet.sh(node, heal), nodes))

    return cause


def slow_clients(arguments: str, connections: int) -> Cause:
    """Slowhttptest on a host of its own; seen: how many connections it held, and how many are left."""
    address = NODES["other1"]["fleet_address"]
    count = f"ss -Htn state established 'sport = :80' | grep -cF {address}: ; true"
    upstream = "ss -Htn state established 'dport = :8080' | wc -l"

    @contextmanager
    def cause(fleet: Any) -> Iterator[dict[str, float]]:
        before = int(fleet.sh("lb1", upstream))
        command = f"slowhttptest {arguments} -c {connections} -u http://{LB}/requestme"
        with ThreadPoolExecutor(1) as pool:
            attack = pool.submit(fleet.sh, "other1", f"{command} >/tmp/attack 2>&1", False)
            time.sleep(connections / 500 + 2)
            held, added = int(fleet.sh("lb1", count)), int(fleet.sh("lb1", upstream)) - before
            seen: dict[str, float] = {"held": held, "not held": connections - held, "more to backends": added}
            yield seen
            seen["left"] = int(fleet.sh("lb1", count))
            attack.result()

    return cause


@contextmanager
def nothing(fleet: Any) -> Iterator[dict[str, float]]:
    """Nothing is wrong."""
    yield {}


@contextmanager
def reloads(fleet: Any) -> Iterator[dict[str, float]]:
    """Nginx is reloaded, again and again."""
    for _ in range(20):
        fleet.sh("lb1", "systemctl reload nginx")
        time.sleep(0.2)
    yield {}


def run(*arguments: str, good: bool = True, back: tuple[str, ...] = (), text: str = "") -> Cause:
    """A run of a playbook, which has to work or must not; `text` makes a release, `back` takes it back."""

    @contextmanager
    def cause(fleet: Any) -> Iterator[dict[str, float]]:
        if text:
            fleet.write(text)
            with (fleet.source / "welcome/app.py").open("a") as app:
                app.write(f"# {text}\n")
        seen = {"runs that ended otherwise": int((fleet.run(*arguments).rc == 0) != good)}
        yield seen
        if back:
            seen["runs that ended otherwise"] += int(fleet.run(*back).rc != 0)

    return cause


def both(*causes: Cause) -> Cause:
    """One cause after the other, all healed in the end."""

    @contextmanager
    def cause(fleet: Any) -> Iterator[dict[str, float]]:
        with ExitStack() as stack:
            parts = [stack.enter_context(one(fleet)) for one in causes]
            seen: dict[str, float] = {}
            yield seen
        for part in parts:
            seen |= part

    return cause


def small_disk(node: str, inodes: int = 0) -> Cause:
    """What a node writes goes to a disk of 64 MiB, until the row is over: this machine's must not fill."""
    folders = ["/var/lib/paddock", "/srv"] if node != "lb1" else ["/var/log/nginx", "/var/lib/nginx"]
    options = f"size=64m{f',nr_inodes={inodes}' if inodes else ''}"
    inject = [f"mkdir -p /mnt/small && mount -t tmpfs -o {options} small /mnt/small"]
    for folder in folders:
        part = f"/mnt/small/{folder.replace('/', '_')}"
        layers = f"lowerdir={folder},upperdir={part},workdir={part}.work"
        inject.append(f"mkdir {part} {part}.work && mount -t overlay overlay {folder} -o {layers}")
    heal = [f"umount --lazy {folder}" for folder in (*folders, "/mnt/small")]
    # What runs sees the disk that it was started on.
    again = f"{SLOT} systemctl restart $slot" if node != "lb1" else "systemctl restart nginx"
    return shell(node, " && ".join([*inject, again]), " && ".join([*heal, again]))


# Not a byte is left, nor in the last page of the file that the app appends to.
FILL = (
    "fallocate --length 64m /mnt/small/full || head -c 64m /dev/zero >/mnt/small/full; "
    "head -c 64m /dev/zero >/mnt/small/rest; cd /var/lib/paddock/requestme 2>/dev/null && test -e ledger && "
    "yes '' | head -c 8192 >>ledger; df --output=avail /mnt/small | tail -1 | grep -qx ' *0'"
)
EMPTY = "rm -f /mnt/small/full /mnt/small/rest"


def deployed(code: str) -> Cause:
    """A release of requestme with more code in it."""

    @contextmanager
    def cause(fleet: Any) -> Iterator[dict[str, float]]:
        fleet.write("Thank you for requesting me; I can be broken.", code)
        done = fleet.run()
        assert done.rc == 0, done.output
        yield {}

    return cause


def background(node: str, program: str, heal: str = "true", interpreter: str = "/bin/sh") -> Cause:
    """A program that runs on a node until it is healed."""
    inject = f"cat >/run/fault-program <<'END'\n{program}\nEND\n"
    inject += f"systemd-run --quiet --collect --unit=fault {interpreter} /run/fault-program"
    return shell(node, inject, f"systemctl stop fault; {heal}")


def stopped_nginx(signal: str, which: str) -> Cause:
    """Nginx's master or a worker gets a signal; seen: when there are as many processes as before."""
    processes = "cat /proc/$(cat /run/nginx.pid)/task/*/children"
    victim = "cat /run/nginx.pid" if which == "master" else f"{processes} | cut -d' ' -f1"

    @contextmanager
    def cause(fleet: Any) -> Iterator[dict[str, float]]:
        before = fleet.sh("lb1", processes).split()
        pid = fleet.sh("lb1", victim)
        seen: dict[str, float] = {}
        fleet.sh("lb1", f"kill -{signal} {pid}")
        _until(
            "processes back after s",
            lambda: (
                len(now := fleet.sh("lb1", processes, check=False).split()) == len(before) and pid not in now
            ),
            seen,
        )
        yield seen

    return cause


def bad_clients(what: str, count: int, seconds: float, here: bool = False) -> Cause:
    """Clients as in clients.py, from a host of their own or with the good ones; seen: what became of them."""

    @contextmanager
    def cause(fleet: Any) -> Iterator[dict[str, float]]:
        script = (Path(__file__).parent / "clients.py").read_text()
        argv = ["podman", "exec", "-i", NODES["other1"]["container"], "python3", "-", what, LB, "80"]
        if here:
            argv = [sys.executable, "-", what, *fleet.url.removeprefix("http://").split(":")]
        argv += [str(count), str(seconds)]
        attack = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert attack.stdin
        attack.stdin.write(script)
        attack.stdin.close()
        seen: dict[str, float] = {}
        yield seen
        assert attack.stdout
        seen |= json.loads(attack.stdout.read())
        attack.wait()

    return cause


def websockets(count: int, during: Cause) -> Cause:
    """Many WebSockets in use while something else happens; seen: how many were lost, and for how long."""

    @contextmanager
    def cause(fleet: Any) -> Iterator[dict[str, float]]:
        began = time.monotonic()
        echoes = [
            Echo(Target(fleet.url), "/welcome/ws", lambda: time.monotonic() - began) for _ in range(count)
        ]
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        running = [asyncio.run_coroutine_threadsafe(echo.run(), loop) for echo in echoes]
        time.sleep(2)
        with during(fleet) as seen:
            yield seen
        for task in running:
            task.cancel()
        time.sleep(0.5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        seen["messages missing"] = sum(echo.log.messages < 3 for echo in echoes)
        seen["lost"] = sum(len(echo.log.losses) for echo in echoes)
        seen["closed as going away"] = sum(echo.log.going_away for echo in echoes)
        seen["longest away s"] = round(max(echo.log.longest_away for echo in echoes), 2)

    return cause


@contextmanager
def repaired(fleet: Any) -> Iterator[dict[str, float]]:
    """What a person does after the fault: the run that they know."""
    yield {}
    done = fleet.run()
    assert done.rc == 0, done.output
