"""The Nginx of this host: its file, who is out of its pools, and what it really runs.

The module nginx_config, the health checks and a renewed certificate all work through this file. By hand:
`python3 /usr/local/lib/paddock/nginx_host.py reload` puts rotation and certificate into effect.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

try:  # beside this file, or in a module of Ansible
    import nginx_names as names
except ImportError:
    from ansible.module_utils import nginx_names as names

CONFIG = Path("/etc/nginx/nginx.conf")
ERROR_LOG = Path("/var/log/nginx/error.log")
# Each of the two files has one writer: the playbook of that name, and the health checks.
ROTATION = Path("/var/lib/paddock/rotation")
HAND, HEALTH = ROTATION / "hand.json", ROTATION / "health.json"
GENERATION = "@generation@"

_STAMP = re.compile(r'(?<=location = /generation { return 200 ")[^"]*')
_LISTEN = re.compile(r"listen (127\.0\.0\.1:\d+);")
_UPSTREAM = re.compile(r"^ *upstream (\S+) {$")
# Its name in the inventory, and behind it the one that its address was looked up for.
_SERVER = re.compile(r"^( *server [^;#]*?)( down)?; # ([^\s()]+)( \(\S+\))?$")
_CERTIFICATE = re.compile(r"^\s*ssl_certificate\s+([^;\s]+);", re.MULTILINE)

# Out of rotation: an app on a backend.
Out = tuple[str, str]


class Refused(Exception):
    """Nginx does not run what it should, or must not; the message says why and what serves instead."""


class Run(NamedTuple):
    """A program that has ended."""

    rc: int
    output: str


def run(*command: str) -> Run:
    """Run a program.

    Args:
        *command: The program and its arguments.

    Returns:
        Its exit status and all it printed.
    """
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Run(127, str(error))
    return Run(done.returncode, done.stdout.decode("utf-8", "replace").strip())


def write(path: Path, text: str) -> None:
    """Write a whole file or none, also when the power fails."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fchmod(file.fileno(), 0o644)
        os.fsync(file.fileno())
    part.replace(path)


# --- rotation


def recall(path: Path) -> dict[str, Any]:
    """Read one of the two files of the rotation.

    Args:
        path: `HAND`, by backend, or `HEALTH`, by app and backend.

    Returns:
        Why and since when each is out; nothing where there is no such file.

    Raises:
        Refused: The file cannot be understood.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Refused(f"{path} cannot be read ({error}). Remove it: then nobody is out by it.") from error
    return found if isinstance(found, dict) else {}


def remember(path: Path, content: Mapping[str, Any]) -> None:
    """Write one of the two files of the rotation."""
    ROTATION.mkdir(parents=True, exist_ok=True)
    write(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Keep others from changing rotation or configuration meanwhile."""
    ROTATION.mkdir(parents=True, exist_ok=True)
    with (ROTATION / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def servers(text: str) -> Iterator[tuple[int, str, re.Match[str]]]:
    """Find the servers of the pools: the number of the line, the app, and what `_SERVER` has matched."""
    app = ""
    for number, line in enumerate(text.split("\n")):
        if found := _UPSTREAM.match(line):
            app = found[1]
        elif line.strip() == "}":
            app = ""
        elif app and (found := _SERVER.match(line)):
            yield number, app, found


def pools(text: str) -> dict[str, list[str]]:
    """Tell the backends of each app.

    Args:
        text: A configuration.

    Returns:
        The names of the backends by that of the app.
    """
    found: dict[str, dict[str, None]] = {}
    for _, app, server in servers(text):
        found.setdefault(app, {})[server[3]] = None
    return {app: list(backends) for app, backends in found.items()}


def out_by_hand(text: str) -> set[Out]:
    """Tell which app is out by hand on which backend; a backend is out with all of its apps."""
    hand = recall(HAND)
    return {(app, backend) for app, pool in pools(text).items() for backend in pool if backend in hand}


def out_by_health(text: str) -> set[Out]:
    """Tell which app is out by its health on which backend."""
    health = recall(HEALTH)
    return {
        (app, backend)
        for app, pool in pools(text).items()
        for backend in pool
        if backend in health.get(app, {})
    }


def out_by_name(text: str) -> set[Out]:
    """Tell which app is out on which backend since the name of its host never had an address."""
    return {(app, server[3]) for _, app, server in servers(text) if _nowhere(server)}


def _nowhere(server: re.Match[str]) -> bool:
    return server[1].strip().startswith(f"server {names.NOWHERE}:")


def out_of_rotation(text: str) -> set[Out]:
    """Tell who is out.

    Args:
        text: A configuration.

    Returns:
        Each app with the backend on which it is out. Health checks alone never leave a pool empty: there,
        all that they took out is back in.

    Raises:
        Refused: All backends of an app are out by hand.
    """
    hand, health, lost = out_by_hand(text), out_by_health(text), out_by_name(text)
    out = hand | lost
    for app, pool in pools(text).items():
        if all((app, backend) in hand for backend in pool):
            raise Refused(
                f"All backends of {app} are out of rotation by hand: {', '.join(pool)}. Bring one back:"
                f" ansible-playbook playbooks/rotation.yml -e host={pool[0]} -e state=in"
            )
        ill = {(app, backend) for backend in pool} & (out | health)
        if len(ill) < len(pool):
            out |= ill
    return out


def rotate(text: str, out: Collection[Out]) -> str:
    """Put servers out of rotation, and all others in.

    Args:
        text: A configuration.
        out: Each app with the backend on which it is out.

    Returns:
        The configuration in which those servers, and only those, are down.
    """
    lines = text.split("\n")
    for number, app, server in servers(text):
        down = " down" if (app, server[3]) in out or _nowhere(server) else ""
        lines[number] = f"{server[1]}{down}; # {server[3]}{server[4] or ''}"
    return "\n".join(lines)


# --- what runs


def certificates(text: str) -> list[Path]:
    """Tell which certificates a configuration names."""
    return [Path(name.strip("\"'")) for name in dict.fromkeys(_CERTIFICATE.findall(text))]


def expiry(certificate: Path) -> str:
    """Tell when a certificate ends, by ISO 8601; empty if it cannot be read."""
    options = ("-noout", "-enddate", "-dateopt", "iso_8601", "-in", str(certificate))
    done = run("openssl", "x509", *options)
    return done.output.partition("=")[2] if done.rc == 0 else ""


def stamped(text: str, out: Collection[Out]) -> tuple[str, str]:
    """Make a configuration what is to run.

    Args:
        text: A configuration, with or without a stamp.
        out: Who is out of rotation.

    Returns:
        The configuration and its generation: a stamp of the text with its rotation, and of the
        certificates, for Nginx reads those only when it loads.

    Raises:
        Refused: There is no place for the stamp, so it is not a configuration of this role.
    """
    bare, places = _STAMP.subn(GENERATION, rotate(text, out))
    if places != 1:
        raise Refused(f"{CONFIG} is not the configuration of this role; run the playbook.")
    content = hashlib.sha256(bare.encode())
    for path in certificates(bare):
        with contextlib.suppress(OSError):
            content.update(path.read_bytes())
    generation = content.hexdigest()[:12]
    return bare.replace(GENERATION, generation), generation


def installed() -> str:
    """Text of the configuration file; empty where there is none."""
    try:
        return CONFIG.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def running(text: str) -> str | None:
    """Tell what runs.

    Args:
        text: A configuration, for its status server.

    Returns:
        The stamp that the running Nginx answers with; None where none does.
    """
    listen = _LISTEN.findall(text.partition("location = /generation")[0])
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{listen[-1]}/generation", timeout=2) as response:
            return response.read(100).decode()
    except (OSError, ValueError, IndexError):
        return None


def in_effect() -> bool:
    """Tell whether the running Nginx has the rotation. One that does not run misses nothing."""
    text = installed()
    stamp = _STAMP.search(text)
    return rotate(text, out_of_rotation(text)) == text and running(text) in (None, stamp and stamp[0])


def refusal(text: str) -> str:
    """Tell what `nginx -t` has against a text; empty when nothing."""
    aside = CONFIG.with_name(f".{CONFIG.name}.new")
    try:
        write(aside, text)
        done = run("nginx", "-t", "-q", "-c", str(aside))
    finally:
        aside.unlink(missing_ok=True)
    return done.output.replace(str(aside), str(CONFIG)) if done.rc != 0 else ""


def systemctl(*arguments: str) -> bool:
    """Run systemctl on Nginx's unit; returns whether it succeeded."""
    return run("systemctl", *arguments, "nginx.service").rc == 0


def load(start: bool) -> bool:
    """Reload, or start what does not run; neither tells whether it worked.

    Args:
        start: Whether to start.

    Returns:
        Whether anything was loaded.
    """
    if systemctl("is-active"):
        systemctl("reload")
    elif start:
        systemctl("reset-failed")
        systemctl("start")
    else:
        return False
    return True


def answers(text: str, generation: str, seconds: float) -> bool:
    """Wait until the running Nginx has the generation."""
    deadline = time.monotonic() + seconds
    while running(text) != generation:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def apply(text: str, generation: str, wait: float = 10, start: bool = True) -> None:
    """Run a configuration, or keep the one before it. Call it `alone`.

    Args:
        text: The configuration, stamped.
        generation: Its stamp.
        wait: Seconds until the running Nginx must answer with it.
        start: Whether to start Nginx where it does not run.

    Raises:
        Refused: Nginx does not run it; the file is as it was.
    """
    if problem := refusal(text):
        raise Refused(f"Nginx refuses the new configuration; the one before it keeps serving.\n{problem}")
    before = installed()
    log_size = ERROR_LOG.stat().st_size if ERROR_LOG.exists() else 0
    write(CONFIG, text)
    if load(start) and not answers(text, generation, wait):
        said = _tail(log_size)
        if before:
            write(CONFIG, before)
            load(start)
        raise Refused(
            "Nginx accepted the new configuration but does not run it (its status server does not answer"
            f" {generation}); the file before it is back in place.\n{said}"
        )


def reload(addresses: Mapping[str, str] | None = None) -> bool:
    """Put rotation and certificate into effect. Call it `alone`; an Nginx that is stopped stays so.

    Args:
        addresses: Addresses of names that have changed. No name is looked up here.

    Returns:
        Whether there was something to do.

    Raises:
        Refused: Nginx does not run it; the file is as it was.
    """
    before = installed()
    wanted = names.addressed(before, addresses or {})
    text, generation = stamped(wanted, out_of_rotation(wanted))
    if text == before and (running(text) == generation or not systemctl("is-active")):
        return False
    apply(text, generation, start=False)
    return True


def _tail(size: int) -> str:
    """Tell what the error log has gained since it had `size` bytes, its last lines."""
    try:
        with ERROR_LOG.open("rb") as log:
            log.seek(size)
            return "\n".join(log.read().decode("utf-8", "replace").splitlines()[-5:])
    except OSError:
        return ""


def main(arguments: list[str]) -> int:
    """Run the command `reload`; returns the exit status."""
    if arguments != ["reload"]:
        print("usage: nginx_host.py reload", file=sys.stderr)
        return 2
    try:
        with alone():
            done = reload()
    except (OSError, Refused) as problem:
        print(problem, file=sys.stderr)
        return 1
    print("Nginx runs it." if done else "Nothing to do.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
