"""The pools of Nginx on this host: which backends are drained, unhealthy or unresolved.

This file runs on the host too, next to `nginx_host.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

try:  # next to this file, or in a module of Ansible
    import host_lock
    import nginx_names as names
except ImportError:
    from ansible_collections.paddock.fleet.plugins.module_utils import host_lock
    from ansible_collections.paddock.fleet.plugins.module_utils import nginx_names as names

# Each of the two files has one writer: the playbooks drain and undrain, and the health checks.
ROTATION = Path("/var/lib/paddock/rotation")
DRAINED, HEALTH = ROTATION / "drained.json", ROTATION / "health.json"
# Longer than the holder may need: a reload that fails waits twice for its answer.
LOCK_SECONDS = 60

_UPSTREAM = re.compile(r"^ *upstream (\S+) {$")
# Its name in the inventory, and behind it the one that its address was looked up for.
_SERVER = re.compile(r"^( *server [^;#]*?)( down)?; # ([^\s()]+)( \(\S+\))?$")

# Out of the pool: an app on a backend.
Out = tuple[str, str]


class Refused(Exception):
    """Nginx does not run what it should, or must not; the message says why and what serves instead."""


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a whole file or none, also when the power fails."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def recall(path: Path) -> dict[str, Any]:
    """Read one of the two files of the rotation.

    Args:
        path: `DRAINED`, by backend, or `HEALTH`, by app and backend.

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
        raise Refused(f"{path} cannot be read ({error}). Remove it: then it takes no backend out.") from error
    return found if isinstance(found, dict) else {}


def remember(path: Path, content: Mapping[str, Any]) -> None:
    """Write one of the two files of the rotation."""
    ROTATION.mkdir(parents=True, exist_ok=True)
    write(path, json.dumps(content, indent=1, sort_keys=True) + "\n", 0o600)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Keep others from changing rotation or configuration meanwhile.

    Raises:
        Refused: Another program does not end.
    """
    ROTATION.mkdir(parents=True, exist_ok=True)
    try:
        lock = host_lock.take(ROTATION / ".lock", LOCK_SECONDS)
    except host_lock.Held as problem:
        raise Refused(f"{problem}. Nothing was changed.") from None
    try:
        yield
    finally:
        os.close(lock)


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


def drained(text: str) -> set[Out]:
    """Return which app is drained on which backend; a backend is drained with all of its apps."""
    hand = recall(DRAINED)
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
        Refused: All backends of an app are drained.
    """
    hand, health, lost = drained(text), out_by_health(text), out_by_name(text)
    out = hand | lost
    for app, pool in pools(text).items():
        if all((app, backend) in hand for backend in pool):
            raise Refused(
                f"All backends of {app} are drained: {', '.join(pool)}. Put one back:"
                f" ansible-playbook playbooks/undrain.yml -e host={pool[0]}"
            )
        unhealthy = {(app, backend) for backend in pool} & (out | health)
        if len(unhealthy) < len(pool):
            out |= unhealthy
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
