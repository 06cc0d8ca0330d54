"""Become a program that has the app's variables from its start: `launch.py VARIABLES PROGRAM [ARGUMENT...]`.

VARIABLES is a JSON file. It may be missing. systemd's own means would not do: Environment= shows secrets to
all users of the host, and EnvironmentFile= takes back slashes and quotes for its own.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path


def environment(variables: Path) -> dict[bytes, bytes]:
    """What this process was started with, and the app's variables on top.

    Not os.environ: Python has put LC_CTYPE there where no locale was set.
    """
    started = Path("/proc/self/environ").read_bytes().split(b"\0")
    found = dict(entry.split(b"=", 1) for entry in started if b"=" in entry)
    if variables.exists():
        given = json.loads(variables.read_text(encoding="utf-8"))
        found |= {name.encode(): value.encode() for name, value in given.items()}
    return found


def main(variables: str, program: str, *arguments: str) -> None:
    """Become the program; the process stays the same, so systemd goes on knowing it."""
    try:
        os.execve(program, [program, *arguments], environment(Path(variables)))
    except OSError as error:
        why = f"{program} cannot be started: {error.strerror}"
        if error.errno == errno.E2BIG:
            why += "; the app's environment is too large, Linux takes 128 KiB a variable and 2 MiB in all"
        sys.exit(why)


if __name__ == "__main__":
    main(*sys.argv[1:])
