"""Which apps on this host are the role's: a list of names, so that no folder of others is taken for one."""

from __future__ import annotations

import json
import os
from pathlib import Path

LIST = Path("/var/lib/paddock/apps.json")
CONFIG = Path("/etc/paddock")
# Only a slot of an app has this file.
ABOUT = "slot.json"


def listed() -> list[str]:
    """The names of the role's apps, sorted.

    A host of an earlier checkout has no list: its apps are the folders that hold a slot.
    """
    try:
        return sorted(map(str, json.loads(LIST.read_text(encoding="utf-8"))))
    except (OSError, ValueError, TypeError):
        found = [*CONFIG.glob(f"*/blue/{ABOUT}"), *CONFIG.glob(f"*/green/{ABOUT}")]
        return sorted({path.parent.parent.name for path in found})


def keep() -> None:
    """Write the list where there is none yet. The caller holds the lock of the role."""
    _write({*listed()})


def add(name: str) -> None:
    """Enter an app, before its first file is written. The caller holds the lock of the role."""
    _write({*listed(), name})


def drop(name: str) -> None:
    """Take an app out, after its last file is removed. The caller holds the lock of the role."""
    _write({*listed()} - {name})


def _write(names: set[str]) -> None:
    text = json.dumps(sorted(names)) + "\n"
    if LIST.is_file() and LIST.read_text(encoding="utf-8", errors="replace") == text:
        return
    LIST.parent.mkdir(parents=True, exist_ok=True)
    part = LIST.with_name(f".{LIST.name}.part")
    part.unlink(missing_ok=True)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(LIST)
