"""The fault matrix as data: what happens, and what it may cost at most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from causes import (
    EMPTY,
    FILL,
    SLOT,
    START,
    STOP,
    Cause,
    background,
    bad_clients,
    both,
    deployed,
    everywhere,
    frozen,
    killed_master,
    killed_worker,
    lost,
    nothing,
    packets,
    poison,
    rebooted,
    reloads,
    repaired,
    run,
    shell,
    slow_clients,
    small_disk,
    stopped_nginx,
    websockets,
)
from testbed import FULL


@dataclass(frozen=True)
class Row:
    """A fault and its price.

    Attributes:
        number: In the matrix.
        fault: In words.
        happens: Injects the fault, and heals it.
        expected: The most that each figure may be.
        gate: Whether every landing has to pass it.
        setting: What is there before, and goes after.
        before: Seconds that are watched first.
        lasts: Seconds from the fault until it is healed.
        after: Seconds that are watched then, at least as many as the way back may take.
        victim: The node whose way back is timed.
        load: Options of the probe.
        told: Figures that are shown next to those expected.
        impossible: Why it cannot be done here.
    """

    number: str
    fault: str
    happens: Cause = nothing
    expected: Mapping[str, float] = field(default_factory=dict)
    gate: bool = False
    setting: Cause = nothing
    before: float = 1
    lasts: float = 6
    after: float = 3
    victim: str = "app1"
    load: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    impossible: str = ""

    @property
    def limits(self) -> dict[str, float]:
        """What is expected of this row and of every other.

        Times count in full where the matrix is measured, alone. While other tests run they are only bounded.
        """
        slack = 1 if FULL else 3
        times = {name: limit * slack for name, limit in self.expected.items() if name.split()[-1] == "s"}
        ratios = {name: limit * slack for name, limit in self.expected.items() if "ratio" in name}
        # A backend that is late for its health on a busy machine loses what it has in hand.
        late = {} if FULL else {"POST failed": self.expected.get("POST failed", 99) + 2, "not 504": 10}
        late = {name: limit for name, limit in late.items() if name in self.expected}
        return {**self.expected, **times, **ratios, **late, "POST twice": 0, "POST lost": 0}


CLEAN = {"GET failed": 0, "POST failed": 0}
# Out of the pool at most so long after, and back in it.
OUT, BACK = {"hurt for s": 5}, {"back after s": 6}
NODES = ("app1", "app2", "app3")

SWITCHES = """
import pathlib, threading
from flask import abort

@app.before_request
def broken():
    if pathlib.Path("/run/fault-500").exists():
        abort(500)

if pathlib.Path("/run/fault-exit").exists():
    threading.Timer(1, os._exit, [3]).start()
"""
BALANCERS = "playbooks/balancers.yml"
RUNS = "runs that ended otherwise"
BANNER = """
import socketserver

class Mail(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b"220 mail\\r\\n")

socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("", 8080), Mail).serve_forever()
"""
HOLD = """
import socket, time
held = [socket.create_connection(("127.0.0.1", 8080)) for _ in range(20)]
for one in held:
    one.sendall(b"GET /requestme?seconds=20 HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
time.sleep(99)
"""
HALT = f"""
{SLOT}
while sleep 0.05; do kill -STOP $main $workers; sleep 0.2; kill -CONT $main $workers; done
"""
PYTHON = "/usr/bin/python3"

ROWS = [
    Row(
        "F1",
        "a worker of Gunicorn killed",
        killed_worker("KILL"),
        {"GET failed": 0, "POST failed": 4, "workers back after s": 2, "restarts": 0},
    ),
    Row(
        "F2",
        "Gunicorn's master killed",
        killed_master,
        {"GET failed": 0, "POST failed": 8, "active after s": 3, "orphans": 0},
        gate=True,
    ),
    Row(
        "F3",
        "a worker of Gunicorn that hangs",
        killed_worker("STOP"),
        # What its kept connections bring it waits until Gunicorn kills it, as long as the app may take.
        {"GET failed": 16, "POST failed": 8, "workers back after s": 9, "restarts": 0},
        lasts=12,
    ),
    Row(
        "F4",
        "a backend that hangs",
        frozen,
        {"GET failed": 0, "POST failed": 20, **OUT, "slowest s": 6, **BACK},
        gate=True,
        lasts=10,
    ),
    Row(
        "F5",
        "the app stopped on a backend",
        shell("app1", STOP, START),
        {"GET failed": 0, "POST failed": 1, "still asked for s": 5, **BACK},
        gate=True,
    ),
    Row(
        "F6",
        "a backend without power",
        lost("app1"),
        {"GET failed": 0, "POST failed": 3, **OUT, "slowest s": 1.5, **BACK},
        gate=True,
    ),
    Row(
        "F7",
        "a backend cut off: packets vanish",
        packets("app1", "in drop", "out drop"),
        {"GET failed": 0, "POST failed": 20, **OUT, "slowest s": 6, **BACK},
        gate=True,
        lasts=10,
    ),
    Row(
        "F8",
        "a backend cut off: packets are refused",
        packets("app1", "in tcp dport 8080 reject with tcp reset"),
        {"GET failed": 0, "POST failed": 3, **OUT, **BACK},
    ),
    Row(
        "F9",
        "a backend whose answers vanish",
        packets("app1", "out drop"),
        {"GET failed": 0, "POST failed": 20, **OUT, "slowest s": 6, **BACK},
        lasts=10,
    ),
    Row(
        "F10",
        "5 % of the packets from and to a backend vanish",
        packets("app1", "in numgen random mod 100 < 5 drop", "out numgen random mod 100 < 5 drop"),
        {**CLEAN, "p99 s": 1.5},
        lasts=20,
    ),
    Row(
        "F11",
        "a backend that stands still for 200 of each 250 ms",
        background("app1", HALT, f"{SLOT} kill -CONT $main $workers"),
        {**CLEAN, "p99 s": 1.5, "share of it %": 34},
        lasts=15,
    ),
    Row(
        "F12",
        "1 Mbit/s from a backend",
        shell(
            "app1",
            "tc qdisc add dev eth0 root tbf rate 1mbit burst 32kbit latency 400ms",
            "tc qdisc del dev eth0 root",
        ),
        {**CLEAN, "p99 ratio of others": 2},
        lasts=15,
        told=("p99 s",),
    ),
    Row(
        "F13",
        "the app stopped on all backends",
        everywhere(STOP, START),
        {"told after s": 0.05, "first answer after s": 2, "failed after the end s": 3},
        lasts=10,
        told=("GET failed",),
    ),
    Row(
        "F14",
        "a request slower than it may be",
        poison(1),
        {**CLEAN, "not 504": 0, "sent twice": 0},
        gate=True,
        lasts=11,
    ),
    Row(
        "F15",
        "20 requests slower than they may be, at once",
        poison(20),
        {**CLEAN, "not 504": 0, "sent twice": 0},
        lasts=11,
    ),
    Row(
        "F16",
        "all threads of a backend taken for good",
        background("app1", HOLD, f"{SLOT} kill -KILL $workers", PYTHON),
        # A question that meets a worker with a thread left finds the backend well.
        {"GET failed": 10, "POST failed": 10, "hurt for s": 12, **BACK},
        lasts=12,
    ),
    Row(
        "F17",
        "another service on the port of a backend",
        both(shell("app1", STOP, START), background("app1", BANNER, interpreter=PYTHON)),
        {"GET failed": 0, "POST failed": 20, "failed after s": 5, "foreign answers": 60, **BACK},
        lasts=12,
    ),
    Row(
        "F18",
        "the app answers 500 on a backend",
        shell("app1", "touch /run/fault-500", "rm /run/fault-500"),
        {"GET failed": 40, "POST failed": 10, "failed after s": 5, **BACK},
        setting=deployed(SWITCHES),
        lasts=12,
    ),
    Row(
        "F18 all",
        "the app answers 500 everywhere",
        everywhere("touch /run/fault-500", "rm /run/fault-500"),
        {"told after s": 0.05, "failed after the end s": 1, "first answer after s": 2},
        told=("GET failed",),
    ),
    Row(
        "F19",
        "memory used up by a leak",
        impossible="cgroup v1 of the test bed holds no unit to MemoryMax; what remains is F1",
    ),
    Row(
        "F20",
        "a backend's disk full: only what has to write may fail",
        shell("app3", FILL, EMPTY),
        {"GET failed": 0, "POST failed": 15, "failed after the end s": 0},
        gate=True,
        setting=small_disk("app3"),
        victim="app3",
    ),
    Row(
        "F20 run",
        "a release while a backend's disk is full",
        both(shell("app3", FILL, EMPTY), run(good=False, text="Too much for this disk.")),
        {"GET failed": 0, "failed after the end s": 0, RUNS: 0},
        setting=both(repaired, small_disk("app3")),
        victim="app3",
        told=("POST failed",),  # the app's own 500, for as long as the run takes
    ),
    Row(
        "F21",
        "no inode left on a backend",
        shell(
            "app3",
            "mkdir /mnt/small/many; cd /mnt/small/many; seq 999 | xargs touch 2>/dev/null; true",
            "rm -r /mnt/small/many",
        ),
        {"GET failed": 0, "POST failed": 15, "failed after the end s": 0},
        setting=small_disk("app3", inodes=500),
        victim="app3",
    ),
    Row(
        "F22",
        "the balancer's disk full",
        shell("lb1", FILL, EMPTY),
        CLEAN,
        setting=small_disk("lb1"),
    ),
    Row(
        "F23",
        "no DNS anywhere; Nginx is reloaded",
        both(
            everywhere(
                "cp /etc/resolv.conf /run/resolv.conf; : >/etc/resolv.conf",
                "cat /run/resolv.conf >/etc/resolv.conf",
                ("lb1", *NODES),
            ),
            run(BALANCERS),
            reloads,
        ),
        {**CLEAN, RUNS: 0},
    ),
    Row(
        "F24",
        "a worker of Nginx killed",
        stopped_nginx("KILL", "worker"),
        {"GET failed": 2, "POST failed": 2, "processes back after s": 1},
    ),
    Row(
        "F25",
        "Nginx's master killed",
        stopped_nginx("KILL", "master"),
        {"failed after s": 3, "processes back after s": 3},
        told=("GET failed", "POST failed"),
    ),
    Row("F26", "Nginx reloaded 20 times", reloads, CLEAN, gate=True, lasts=8),
    Row(
        "F27",
        "Nginx's packages installed again",
        shell(
            "lb1",
            "DEBIAN_FRONTEND=noninteractive apt-get install -qq --reinstall nginx nginx-common >/dev/null",
        ),
        # Debian restarts Nginx for it.
        {"GET failed": 50, "failed after s": 5},
        told=("POST failed",),
    ),
    Row(
        "F27 restart",
        "Nginx restarted",
        shell("lb1", "systemctl restart nginx"),
        {"GET failed": 50, "failed after s": 1},
        told=("POST failed",),
    ),
    Row(
        "F39",
        "a run without the balancer",
        both(lost("lb1"), run(good=False)),
        {RUNS: 0, "first answer after s": 10},
        after=12,
    ),
    Row(
        "F40",
        "a backend leaves the pool and returns",
        run(BALANCERS, "-e", '{"__fleet_backends": ["app2", "app3"]}', back=(BALANCERS,)),
        {**CLEAN, RUNS: 0},
    ),
    Row(
        "F41",
        "a backend rebooted",
        rebooted,
        {"GET failed": 0, "POST failed": 1, **BACK},
        lasts=10,
    ),
    Row(
        "F41 all",
        "all hosts without power, then with it",
        lost("lb1", *NODES),
        {"first answer after s": 30},
        after=30,
    ),
    Row(
        "F42",
        "an app that ends a second after its start, and a run when that is mended",
        shell("app1", f"touch /run/fault-exit; {SLOT} kill -KILL $main", "rm -f /run/fault-exit"),
        {"GET failed": 0, "POST failed": 20, "failed after s": 10},
        setting=both(deployed(SWITCHES), repaired),
        lasts=25,
    ),
    Row(
        "F43",
        "3 times more requests than there are threads, from one address",
        bad_clients("crowd", 3600, 25),
        {**CLEAN, "p99 ratio 5 s later": 1.5},
        lasts=26,
        after=12,
        # Who waits for seconds 50 times a second has more connections than one client may.
        load=("--rate", "25"),
        told=("200", "429", "slowest s"),
    ),
    Row(
        "F44",
        "1,000 clients that leave before the answer",
        bad_clients("leaving", 1000, 15),
        CLEAN,
        lasts=16,
        told=("left", "slowest s"),
    ),
    Row(
        "F45",
        "2,000 clients that send their headers slowly",
        slow_clients("-H -r 500 -i 5 -x 24 -l 18", 2000),
        {**CLEAN, "left": 0, "more to backends": 8, "p99 ratio": 2},
        gate=True,
        before=6,
        lasts=19,
        told=("held", "p99 s"),
    ),
    Row(
        "F45 same",
        "the same, from the address of those that are judged: they share its limits",
        bad_clients("dripping", 2000, 16, here=True),
        {"left": 0, "p99 ratio": 2, "failed after the end s": 2},
        before=6,
        lasts=18,
        told=("sent away", "GET failed", "POST failed"),
    ),
    Row(
        "F46",
        "1,000 clients that send their bodies slowly",
        slow_clients("-B -r 200 -i 5 -s 8192 -x 10 -l 18", 1000),
        {**CLEAN, "more to backends": 8, "p99 ratio": 2},
        lasts=19,
        told=("held", "p99 s"),
    ),
    Row(
        "F46 read",
        "1,000 clients that read their answers slowly",
        slow_clients("-X -r 200 -w 1 -y 10 -n 5 -z 4 -l 18", 1000),
        {**CLEAN, "more to backends": 32, "p99 ratio": 2},
        lasts=19,
        told=("held", "p99 s"),
    ),
    Row(
        "F47",
        "5,000 idle connections from one address",
        bad_clients("idle", 5000, 8),
        {**CLEAN, "p99 ratio": 2},
        lasts=12,
        told=("connected",),
    ),
    Row(
        "F49",
        "50 WebSockets while the app is deployed, then Nginx reloaded",
        websockets(50, both(run(text="Hello, WebSockets."), reloads)),
        {**CLEAN, "lost": 0, "messages missing": 0, "longest away s": 2, RUNS: 0},
        told=("closed as going away",),
    ),
]
