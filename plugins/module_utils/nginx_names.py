"""Names of backends: nginx.conf on a host has addresses, since Nginx does not start when a name is lost."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Collection, Mapping
from typing import NamedTuple

THREADS = 32


class Found(NamedTuple):
    """What became of a name: its address, the last known one where it has none now, and what is wrong."""

    address: str
    problem: str = ""


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
