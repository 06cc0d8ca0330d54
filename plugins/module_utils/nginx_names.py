"""Names of backends: nginx.conf on a host holds addresses, since Nginx does not start when a name is lost.

A line with the address of a name ends with `(name)`. So the installed file has the last known addresses.
"""

from __future__ import annotations

import ipaddress
import queue
import re
import socket
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

# Of a name that never had an address. No host has this one, and a connection to it fails at once.
NOWHERE = "255.255.255.255"
THREADS = 32

_LINE = re.compile(
    r"^(?P<before> *(?:server |location [^#]*proxy_pass http://))(?P<address>\[[^]\s]+]|[^]\[\s:/;]+)"
    r"(?P<after>:\d+[^#]*# (?:\S+ )?\((?P<name>[^()\s]+)\))$"
)


class Found(NamedTuple):
    """What became of a name: its address, the last known one where it has none now, and what is wrong."""

    address: str
    problem: str = ""


def _lines(text: str) -> Iterator[tuple[int, re.Match[str]]]:
    for number, line in enumerate(text.split("\n")):
        if found := _LINE.match(line):
            yield number, found


def names(text: str) -> list[str]:
    """Tell which names a configuration has, each once."""
    return list(dict.fromkeys(found["name"] for _, found in _lines(text)))


def known(text: str) -> dict[str, str]:
    """Tell which address each name of a configuration has; nothing of those that never had one."""
    addresses = {}
    for _, found in _lines(text):
        address = found["address"].strip("[]")
        if address != NOWHERE and _is_address(address):
            addresses[found["name"]] = address
    return addresses


def addressed(text: str, addresses: Mapping[str, str]) -> str:
    """Put addresses in the place of names.

    Args:
        text: A configuration, with names or with addresses that they had before.
        addresses: The address of each name; empty where it has none. Other names stay as they are.

    Returns:
        The configuration.
    """
    lines = text.split("\n")
    for number, found in _lines(text):
        if found["name"] in addresses:
            address = addresses[found["name"]] or NOWHERE
            lines[number] = found["before"] + (f"[{address}]" if ":" in address else address) + found["after"]
    return "\n".join(lines)


def look_up(wanted: Collection[str], last: Mapping[str, str], seconds: float = 10) -> dict[str, Found]:
    """Look names up side by side; a dead DNS takes its time.

    Args:
        wanted: The names.
        last: Addresses that they had before. One that is still right stays, in whatever order answers come.
        seconds: How long all of it may take.

    Returns:
        What was found, by name.
    """
    found: dict[str, Found] = {}
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in wanted:
        waiting.put(name)

    def work() -> None:
        while True:
            try:
                name = waiting.get_nowait()
            except queue.Empty:
                return
            found[name] = _ask(name, last.get(name, ""))

    # As daemons, they do not keep the program from ending.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(len(wanted), THREADS))]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    late = {name: Found(last.get(name, ""), f"DNS does not answer for {name}") for name in wanted}
    return {**late, **found}


def _ask(name: str, before: str) -> Found:
    try:
        answers = [str(answer[4][0]) for answer in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, socket.EAI_NODATA):
            return Found(before, f"{name} is not in DNS")
        return Found(before, f"{name} cannot be looked up ({error.strerror})")
    except (OSError, UnicodeError) as error:
        return Found(before, f"{name} cannot be looked up ({error})")
    # One with a scope is good on one link only.
    addresses = [address for address in answers if "%" not in address]
    if not addresses:
        return Found(before, f"{name} has no address that can be used")
    return Found(before if before in addresses else addresses[0])


def _is_address(text: str) -> bool:
    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        return False
