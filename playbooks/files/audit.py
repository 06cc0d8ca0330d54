"""Print as JSON what on this host is open to users who should not have it. Run by root.

`secrets` and `locks` are lists of files with what is wrong with each, `listens` the ports by the user that
opened them, `landlock` the kernel's version of it, 0 for none. Secrets are variables of apps and private
keys. A lock that can be read can be held by flock(2).
"""

import ctypes
import glob
import grp
import json
import os
import pwd
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

SECRETS = ("/etc/paddock/*/*/environment.json", "/etc/paddock/**/*.pem", "/etc/paddock/**/*.key")
SECRETS += ("/etc/letsencrypt/**/privkey*.pem", "/var/lib/paddock/**/*.key")
LOCKS = (
    "/run/paddock*/**/*lock",
    "/run/paddock*lock",
    "/var/lib/paddock/**/.lock",
    "/var/lib/paddock/*.guard",
)
# landlock_create_ruleset(2): the call, and the flag that asks for the version.
LANDLOCK_CREATE_RULESET, VERSION = 444, 1
# The certificate of an authority is what clients are given.
PUBLIC = re.compile(r"/authority\.pem$")


def found(patterns: tuple[str, ...]) -> list[Path]:
    """Files by patterns, hidden ones too, without those of which a link is another name."""
    paths = {
        Path(os.path.realpath(name))
        for pattern in patterns
        for name in glob.glob(pattern, recursive=True, include_hidden=True)
    }
    return sorted(path for path in paths if path.is_file() and not PUBLIC.search(str(path)))


def fault(path: Path) -> str:
    """What is wrong with a file that is to be root's alone; the app's group may read its variables."""
    status = path.stat()
    allowed = 0o640 if path.name == "environment.json" else 0o600
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != 0:
        return f"owned by {name(status.st_uid)}"
    if mode & ~allowed:
        return f"mode {mode:04o}"
    app = path.parts[3] if path.name == "environment.json" else ""
    if mode & 0o070 and grp.getgrgid(status.st_gid).gr_name != app:
        return f"group {status.st_gid}"
    return ""


def listens() -> list[dict[str, Any]]:
    """TCP ports that listen, with the user whose process opened each; systemd opens those of apps."""
    command = ["ss", "--no-header", "--listening", "--tcp", "--numeric", "--extended"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    ports = set()
    for line in lines:
        user = re.search(r"\buid:(\d+)", line)
        ports.add((int(line.split()[3].rpartition(":")[2]), int(user[1]) if user else 0))
    return [{"port": port, "user": name(user)} for port, user in sorted(ports)]


def name(user: int) -> str:
    """The name of a user."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


print(
    json.dumps(
        {
            "secrets": [{"path": str(path), "fault": fault(path)} for path in found(SECRETS)],
            "locks": [{"path": str(path), "fault": fault(path)} for path in found(LOCKS)],
            "listens": listens(),
            "landlock": max(ctypes.CDLL(None).syscall(LANDLOCK_CREATE_RULESET, None, 0, VERSION), 0),
        }
    )
)
