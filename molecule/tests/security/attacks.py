"""Attacks of an app that was taken over. The tests send this file to the app, which runs it in its sandbox.

Each function returns what it has got, and raises where it gets nothing. Prints JSON: what each came to.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# The kernel is that of the machine with the nodes, and how much Landlock forbids goes by its version.
LINUX = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))
FORBIDS_PORTS, FORBIDS_SIGNALS = (6, 7), (6, 12)
ME = os.getuid()
OWN = ("echo", "echo-blue", "echo-green", "echo-preflight")
# Another app on the host, and where it listens.
VICTIM, VICTIM_PORT = "twin", 8081
OF_ROOT = (
    *("/run", "/etc/paddock", "/srv", "/opt/paddock", "/var/lib/paddock", "/var/cache/paddock"),
    *("/var/lib/nginx", "/var/log", "/etc/nginx", "/etc/systemd", "/usr/local", "/root", "/home"),
)
CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWNET = 0x10000000, 0x20000, 0x40000000
PTRACE_ATTACH = 16


class NothingGot(Exception):
    """An attack was not refused by an error, and yet brought nothing."""


def files(*roots: str) -> Iterator[Path]:
    """All files below folders, as far as they can be listed."""
    for root in roots:
        for folder, _, names in os.walk(root):
            yield from (Path(folder, name) for name in names)


def got(found: list[Any]) -> str:
    """Say what was got; raises NothingGot if that is nothing."""
    if not found:
        raise NothingGot("nothing")
    return ", ".join(map(str, found[:20]))


def hold_a_lock_of_root() -> str:
    """Stop deploys, health checks and renewals: flock needs no more than a file that can be read."""
    held = []
    for path in files("/run", "/var/lib/paddock", "/etc/paddock", "/opt/paddock", "/var/cache"):
        if re.search("(lock|guard)$", path.name) and path.is_file() and path.stat().st_uid != ME:
            with contextlib.suppress(OSError), path.open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held.append(path)
    return got(held)


def read_what_others_have() -> str:
    """Code, data, configuration and secrets of other apps, and what is root's alone."""
    mine = {f"{root}/{name}" for root in ("/srv", "/etc/paddock", "/run", "/var/lib/paddock") for name in OWN}
    mine |= {f"/var/cache/paddock/{name}" for name in OWN}
    secret = re.compile(
        rf"^/(srv|run|etc/paddock|var/(lib|cache)/paddock)/{VICTIM}\b|/(tls|rotation|acme)/|history|\.key$"
    )
    there = []
    for path in files("/srv", "/etc/paddock", "/run", "/var/lib/paddock", "/var/cache/paddock", "/root"):
        if secret.search(str(path)) and not any(str(path).startswith(f"{one}/") for one in mine):
            with contextlib.suppress(OSError), path.open("rb"):
                there.append(path)
    return got(there)


def read_the_logs() -> str:
    """What others have logged."""
    there = []
    for path in files("/var/log/journal", "/run/log/journal", "/var/log/nginx"):
        with contextlib.suppress(OSError), path.open("rb"):
            there.append(path)
    return got(there)


def read_secrets_of_the_host() -> str:
    """Passwords and keys."""
    there = []
    for path in (
        "/etc/shadow",
        "/root/.ssh/authorized_keys",
        *map(str, files("/etc/ssh", "/etc/paddock/tls")),
    ):
        if re.search(r"shadow|authorized|_key$|\.pem$|\.key$", path):
            with contextlib.suppress(OSError), open(path, "rb"):
                there.append(path)
    return got(there)


def write_where_root_looks() -> str:
    """Units, marks, history, configuration, programs that root runs, the own release."""
    there = []
    folders = {path.parent for path in files(*OF_ROOT)} | {Path(root) for root in OF_ROOT}
    for folder in folders:
        # Its own data, and its own folder in /run.
        if folder.exists() and folder.stat().st_uid != ME:
            with contextlib.suppress(OSError):
                (folder / "attack").touch()
                there.append(folder)
    for path in files(*OF_ROOT):
        if path.is_file() and not path.is_symlink() and path.stat().st_uid != ME:
            with contextlib.suppress(OSError), path.open("ab"):
                there.append(path)
    return got(there)


def other_processes(reach: Callable[[int], object]) -> str:
    """Try something on each process that it cannot see; those of its own slot it can."""
    # A signal reaches threads by their ids, too.
    mine = {int(thread.name) for thread in Path("/proc").glob("[0-9]*/task/[0-9]*")}
    there = []
    for pid in set(range(2, 1 << 16)) - mine:
        with contextlib.suppress(OSError):
            reach(pid)
            there.append(pid)
    return got(there)


def signal_a_process_of_its_own_user() -> str:
    """Kill the slot that is to take its place: all slots of an app have one user."""
    return other_processes(lambda pid: os.kill(pid, signal.SIGKILL))


def limit_a_process_of_its_own_user() -> str:
    """To no time at all, by which the kernel kills it."""
    return other_processes(lambda pid: resource.prlimit(pid, resource.RLIMIT_CPU))


def look_into_another_process() -> str:
    """Attach a debugger."""
    libc = ctypes.CDLL(None, use_errno=True)

    def attach(pid: int) -> None:
        if libc.ptrace(PTRACE_ATTACH, pid, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "ptrace")

    return other_processes(attach)


def connect(address: str, port: int, path: str = "/tag") -> str:
    """Ask another app in the balancer's name."""
    request = urllib.request.Request(
        f"http://{address}:{port}{path}", headers={"X-Forwarded-For": "8.8.8.8", "X-Forwarded-Proto": "https"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=3) as response:
        return response.read(200).decode()


def ask_another_app_on_loopback() -> str:
    """Past Nginx, with a client that does not exist."""
    return connect("127.0.0.1", VICTIM_PORT)


def ask_another_app_at_its_address() -> str:
    """The same by the host's own address, which is loopback too."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("10.255.255.255", 1))
        return connect(probe.getsockname()[0], VICTIM_PORT)


def ask_nginx_for_its_state() -> str:
    """The port, or the socket, that only root asks."""
    with contextlib.suppress(OSError):
        return connect("127.0.0.1", 8099, "/generation")
    for path in files("/run"):
        if "nginx" in str(path) and path.is_socket():
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                return str(path)
    raise NothingGot("no socket")


def connect_to_a_socket_of_root() -> str:
    """Of Paddock, or of another app's slot."""
    there = []
    for path in files("/run"):
        # Of the system, for all: the bus, the journal, notifications of services.
        if (
            path.is_socket()
            and not re.match("/run/(systemd|dbus|log|udev|user|ssh-unix-local)/", str(path))
            and path.stat().st_uid != ME
        ):
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                there.append(path)
    return got(there)


def open_a_port() -> str:
    """That of another app while its socket is closed, or that of Nginx while it restarts."""
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 18081))
        listener.listen()
        return "18081"


def ask_systemd_to_act() -> str:
    """Stop another app by the system bus."""
    for verb in ("stop", "restart", "kill", "mask"):
        done = subprocess.run(
            ["systemctl", "--no-ask-password", verb, f"{VICTIM}.socket"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return verb
    raise NothingGot(done.stderr)


def read_the_environment_from_systemd() -> str:
    """What units are started with, all users may ask."""
    done = subprocess.run(
        ["systemctl", "show", "--all", f"{VICTIM}-blue", f"{VICTIM}-green"],
        capture_output=True,
        text=True,
        check=False,
    )
    return got(re.findall(r"SECRET\S*|canary\S*", done.stdout))


def say_what_serves() -> str:
    """Tell systemd a status that the deploy would read. The test looks for it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.sendto(b"STATUS=release evil, stamp evil\nMAINPID=%d" % os.getpid(), "/run/systemd/notify")
    raise NothingGot("sent")


def become_another_user() -> str:
    """By a program with the setuid bit."""
    there = []
    for program in ("/usr/bin/su", "/bin/mount", "/usr/bin/passwd", "/usr/bin/newgrp", "/usr/bin/sudo"):
        with contextlib.suppress(OSError):
            done = subprocess.run([program, "--help"], capture_output=True, check=False)
            status = Path("/proc/self/status").read_text()
            if "NoNewPrivs:\t1" not in status:
                there.append((program, done.returncode))
    with contextlib.suppress(OSError):
        os.setuid(0)
        there.append(("setuid", 0))
    return got(there)


def make_a_namespace() -> str:
    """In a user namespace it would have all capabilities."""
    libc = ctypes.CDLL(None, use_errno=True)
    for flag in (CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWNET):
        if libc.unshare(flag) == 0:
            return hex(flag)
    raise NothingGot(os.strerror(ctypes.get_errno()))


def open_other_kinds_of_socket() -> str:
    """Packets of others, the firewall's own interface."""
    there = []
    for name in ("AF_PACKET", "AF_NETLINK", "AF_VSOCK", "AF_ALG", "AF_BLUETOOTH"):
        with contextlib.suppress(OSError, AttributeError):
            socket.socket(getattr(socket, name), socket.SOCK_RAW).close()
            there.append(name)
    with contextlib.suppress(OSError):
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
        there.append("SOCK_RAW")
    return got(there)


def map_memory_to_write_and_run() -> str:
    """Code that was never a file."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    address = libc.mmap(None, 4096, 7, 0x22, -1, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        raise NothingGot(os.strerror(ctypes.get_errno()))
    return hex(address)


def ask_the_cloud_for_its_credentials() -> str:
    """At the address where clouds keep them. The test has put a server there; Nginx has port 80."""
    return connect("169.254.169.254", 81)


ATTACKS: list[Callable[[], str]] = [
    hold_a_lock_of_root,
    read_what_others_have,
    read_the_logs,
    read_secrets_of_the_host,
    write_where_root_looks,
    signal_a_process_of_its_own_user,
    limit_a_process_of_its_own_user,
    look_into_another_process,
    ask_another_app_on_loopback,
    ask_another_app_at_its_address,
    ask_nginx_for_its_state,
    connect_to_a_socket_of_root,
    open_a_port,
    ask_systemd_to_act,
    read_the_environment_from_systemd,
    say_what_serves,
    become_another_user,
    make_a_namespace,
    open_other_kinds_of_socket,
    map_memory_to_write_and_run,
    ask_the_cloud_for_its_credentials,
]


def main() -> None:
    """Try each, and print what it got; an empty word where it got nothing."""
    outcome = {}
    for attack in ATTACKS:
        try:
            outcome[attack.__name__] = attack() or "done"
        except (OSError, NothingGot):
            outcome[attack.__name__] = ""
    json.dump(outcome, sys.stdout)


if __name__ == "__main__":
    main()
