"""The pools of Nginx on this host: what a run asked for, and which backends are out of rotation.

What a run asked for is data, the file `WANTED`. Nginx's configuration is made of it and never read back, so
backends leave and return, and names get other addresses, between runs.

This file runs on the host too, next to `nginx_host.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

try:  # next to this file, or in a module of Ansible
    import host_lock
except ImportError:
    from ansible_collections.paddock.fleet.plugins.module_utils import host_lock

# Each of the three files has one writer: the role, the playbooks drain and undrain, and the health checks.
ROTATION = Path("/var/lib/paddock/rotation")
WANTED, DRAINED, HEALTH = (ROTATION / f"{name}.json" for name in ("wanted", "drained", "health"))
# Longer than the holder may need: a reload that fails waits twice for its answer.
LOCK_SECONDS = 60
# Of a name that never had an address. No host has this one, and a connection to it fails at once.
NOWHERE = "255.255.255.255"

# Places in a configuration for what changes between runs: @address:NAME@ and @down:APP/BACKEND@.
_PLACE = re.compile(r"@(address|down):([^@\s]+)@")

# Out of the pool: an app on a backend.
Out = tuple[str, str]


class Refused(Exception):
    """Nginx does not run what it should, or must not; the message says why and what serves instead."""


class Wanted(NamedTuple):
    """What a run asked for.

    Attributes:
        content: The configuration, with places.
        pools: The backends of each app, by name, with the address or the name from the inventory.
        certificates: The files with certificates that Nginx reads.
        addresses: The last known address of each name; empty if it never had one.
    """

    content: str = ""
    pools: Mapping[str, Mapping[str, str]] = {}
    certificates: Collection[str] = ()
    addresses: Mapping[str, str] = {}

    @property
    def names(self) -> list[str]:
        """The names that need an address, each once."""
        return list(dict.fromkeys(what for kind, what in _PLACE.findall(self.content) if kind == "address"))


def wanted() -> Wanted:
    """Read what the last run asked for; an empty one where no run has."""
    found = recall(WANTED)
    return Wanted(**{key: found[key] for key in Wanted._fields if key in found})


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
    """Read one of the three files of the rotation.

    Args:
        path: `WANTED`; `DRAINED`, by backend, or `HEALTH`, by app and backend.

    Returns:
        What was asked for, or why and since when each is out; nothing where there is no such file.

    Raises:
        Refused: The file cannot be understood.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Refused(f"{path} cannot be read ({error}). Remove it, and run the playbook.") from error
    return found if isinstance(found, dict) else {}


def remember(path: Path, content: Mapping[str, Any]) -> None:
    """Write one of the three files of the rotation."""
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


def drained(asked: Wanted) -> set[Out]:
    """Return which app is drained on which backend; a backend is drained with all of its apps."""
    hand = recall(DRAINED)
    return {(app, backend) for app, pool in asked.pools.items() for backend in pool if backend in hand}


def out_by_name(asked: Wanted) -> set[Out]:
    """Tell which app is out on which backend since the name of its host never had an address."""
    return {
        (app, backend)
        for app, pool in asked.pools.items()
        for backend, address in pool.items()
        if address in asked.names and not asked.addresses.get(address)
    }


def out_of_rotation(asked: Wanted) -> set[Out]:
    """Tell who is out.

    Args:
        asked: What a run asked for.

    Returns:
        Each app with the backend on which it is out. Health checks alone never leave a pool empty: there,
        all that they took out is back in.
    """
    health = recall(HEALTH)
    out = drained(asked) | out_by_name(asked)
    for app, pool in asked.pools.items():
        unhealthy = {
            (app, backend) for backend in pool if (app, backend) in out or backend in health.get(app, {})
        }
        if len(unhealthy) < len(pool):
            out |= unhealthy
    return out


def refuse_empty_pools(asked: Wanted) -> None:
    """Refuse a rotation in which an app has no backend.

    Raises:
        Refused: All backends of an app are drained.
    """
    hand = drained(asked)
    for app, pool in asked.pools.items():
        if pool and all((app, backend) in hand for backend in pool):
            raise Refused(
                f"All backends of {app} are drained: {', '.join(pool)}. Put one back:"
                f" ansible-playbook playbooks/undrain.yml -e host={min(pool)}"
            )


def render(asked: Wanted, out: Collection[Out]) -> str:
    """Make the configuration.

    Args:
        asked: What a run asked for.
        out: Each app with the backend on which it is out.

    Returns:
        Its text, in which the servers of those, and only those, are down, and names have their addresses.
    """

    def fill(place: re.Match[str]) -> str:
        kind, what = place.groups()
        if kind == "down":
            app, _, backend = what.partition("/")
            return " down" if (app, backend) in out else ""
        address = asked.addresses.get(what) or NOWHERE
        return f"[{address}]" if ":" in address else address

    return _PLACE.sub(fill, asked.content)
