"""Become a program that has the app's variables from its start: `launch.py VARIABLES PROGRAM [ARGUMENT...]`.

VARIABLES is a JSON file. It may be missing. systemd's own means would not do: Environment= shows secrets to
all users of the host, and EnvironmentFile= takes back slashes and quotes for its own.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import struct
import sys
from pathlib import Path

# linux/landlock.h; the numbers of the calls are the same on all platforms.
LANDLOCK_CREATE_RULESET = 444
LANDLOCK_RESTRICT_SELF = 446
BIND_TCP = 1
SCOPE_SIGNAL = 2
# What an app may not, by how much of it a kernel can forbid: Linux 6.12, Linux 6.7.
RULES = (struct.pack("QQQ", 0, BIND_TCP, SCOPE_SIGNAL), struct.pack("QQ", 0, BIND_TCP))

# linux/seccomp.h, linux/bpf_common.h: prlimit64(2) fails unless its first argument is 0, which is the caller.
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
PRLIMIT64 = {"x86_64": 302, "aarch64": 261, "riscv64": 261}
LOAD, JUMP_IF_EQUAL, RETURN, CALL, ARGUMENT = 0x20, 0x15, 0x06, 0, 16
FAIL, ALLOW = 0x00050000 | errno.EPERM, 0x7FFF0000


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


def restrict() -> None:
    """Keep this process, and those that come of it, from TCP ports, and signals and limits from others.

    All slots of an app have one user: what serves could kill the release that is to replace it. And it could
    take the port of another app that is stopped. systemd 257 has options for both, and neither holds: with
    PrivatePIDs= it now and then takes the main process for a stranger, and SocketBindDeny= has no effect
    after a daemon-reload.
    """
    call = ctypes.CDLL(None).syscall
    for rules in RULES:
        ruleset = call(LANDLOCK_CREATE_RULESET, rules, len(rules), 0)
        if ruleset >= 0:
            call(LANDLOCK_RESTRICT_SELF, ruleset, 0)
            os.close(ruleset)
            break
    if sys.maxsize > 1 << 32 and (number := PRLIMIT64.get(os.uname().machine)):
        steps = [
            (LOAD, 0, 0, CALL),
            (JUMP_IF_EQUAL, 0, 3, number),
            (LOAD, 0, 0, ARGUMENT),
            (JUMP_IF_EQUAL, 1, 0, 0),
            (RETURN, 0, 0, FAIL),
            (RETURN, 0, 0, ALLOW),
        ]
        code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
        program = struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(code))
        ctypes.CDLL(None).prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0)


def main(variables: str, program: str, *arguments: str) -> None:
    """Become the program; the process stays the same, so systemd goes on knowing it."""
    restrict()
    try:
        os.execve(program, [program, *arguments], environment(Path(variables)))
    except OSError as error:
        why = f"{program} cannot be started: {error.strerror}"
        if error.errno == errno.E2BIG:
            why += "; the app's environment is too large, Linux takes 128 KiB a variable and 2 MiB in all"
        sys.exit(why)


if __name__ == "__main__":
    main(*sys.argv[1:])
