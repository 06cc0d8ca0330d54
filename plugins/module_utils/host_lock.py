"""A lock of this host that only root can take, and whose holder is named where it takes too long.

This file runs on the host too, next to `nginx_pool.py`.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path


class Held(Exception):
    """Another process has the lock for too long; the message names it."""


def take(path: Path, seconds: float) -> int:
    """Take a lock, which the end of this process gives back.

    Args:
        path: The lock file.
        seconds: How long to wait for it.

    Returns:
        The file's descriptor, which holds the lock.

    Raises:
        Held: It is not free after that time.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    # Whoever may read a file may lock it, and earlier checkouts made it readable for all.
    os.fchmod(lock, 0o600)
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            if time.monotonic() > deadline:
                names = ", ".join(holders(lock)) or "a process that this host does not show"
                os.close(lock)
                raise Held(
                    f"{path} is locked for more than {seconds:.0f} s by {names}. If that is not a run of the"
                    " playbook that still works, end the process and run the playbook again"
                ) from None
        time.sleep(0.2)


def holders(lock: int) -> list[str]:
    """Name the processes that have a lock on an open file.

    Args:
        lock: Descriptor of the file.

    Returns:
        The id and command line of each.
    """
    file = os.fstat(lock)
    place = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    found = []
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:  # hidden from a service
        return []
    for line in lines:
        # 1: FLOCK  ADVISORY  WRITE 1234 00:1b:5678 0 EOF; one that waits has an arrow.
        words = line.split()
        if words[1] == "FLOCK" and words[5] == place:
            try:
                command = Path(f"/proc/{words[4]}/cmdline").read_bytes()
            except OSError:
                command = b""
            text = command.replace(b"\0", b" ").decode("utf-8", "replace").strip()
            found.append(f"process {words[4]} ({printable(text)[:200] or 'it has ended'})")
    return found


def printable(text: str) -> str:
    """Replace what would act on a terminal: a process writes its command line itself."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
