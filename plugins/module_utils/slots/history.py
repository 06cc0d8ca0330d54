"""The history of deploys on this host, and the marks of releases."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from pathlib import Path
from typing import Any

from ansible_collections.paddock.fleet.plugins.module_utils.files import File, link, read

HISTORY = Path("/var/lib/paddock/history.jsonl")
HISTORY_BYTES = 1 << 20


class Marks:
    """Which releases of an app have served well (links in good/) and which failed (files in bad/).

    A release is known by the name of its folder, and has one mark at most: the last verdict. A bad one that
    has served is in held/ too: it is held back until it is live again.
    """

    def __init__(self, home: Path) -> None:
        self.releases = home / "releases"
        self._good, self._bad, self._held = home / "good", home / "bad", home / "held"

    def good_link(self, name: str) -> Path:
        """Where the link of a good release is. The newest one leads to the live release."""
        return self._good / name

    def good(self, name: str) -> None:
        """Mark a release as good, now."""
        link(self.good_link(name), str(self.releases / name))
        (self._bad / name).unlink(missing_ok=True)
        (self._held / name).unlink(missing_ok=True)

    def bad(self, name: str, reason: str) -> None:
        """Mark a release as bad."""
        # It has lines of the app's log.
        File(self._bad / name, f"{reason.strip()}\n", 0o640).write()
        self.good_link(name).unlink(missing_ok=True)

    def hold(self, name: str, reason: str) -> None:
        """Mark a release that has served as bad, and hold it back. The mark outlives its folder."""
        self.bad(name, reason)
        File(self._held / name, "", 0o640).write()

    def held(self) -> dict[str, str]:
        """Say why each release is held back, by its id."""
        return {
            path.name.rpartition("-py")[0]: read(self._bad / path.name).strip()
            for path in self._held.glob("*-py*")
        }

    def listed(self) -> list[dict[str, Any]]:
        """Say of each release on this host when it was marked as good (seconds), or why as bad."""
        found = []
        for path in sorted(self.releases.glob("*-py*")):
            link = self.good_link(path.name)
            found.append(
                {
                    "name": path.name,
                    "release": path.name.rpartition("-py")[0],
                    "good": link.lstat().st_mtime if link.is_symlink() else None,
                    "bad": read(self._bad / path.name).strip() or None,
                }
            )
        return found


def note(**entry: object) -> None:
    """Append a line to this host's history of deploys."""
    HISTORY.parent.mkdir(parents=True, exist_ok=True)
    old = read(HISTORY)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    line = json.dumps({"when": now, **entry}) + "\n"
    if len(old) > HISTORY_BYTES:
        File(HISTORY, old[old.index("\n", len(old) // 2) + 1 :] + line, 0o640).write()
        return
    with open(os.open(HISTORY, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640), "a", encoding="utf-8") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def history() -> list[dict[str, Any]]:
    """Deploys on this host, the oldest first; a line that a power failure cut is left out."""
    entries = []
    for line in read(HISTORY).splitlines():
        with contextlib.suppress(ValueError):
            entries.append(json.loads(line))
    return entries
