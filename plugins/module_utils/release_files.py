"""The times of a release's files: when it began to serve, so that browsers ask for what has changed."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import time
from pathlib import Path


def began(run: str) -> float:
    """When a run began.

    Args:
        run: Its id, such as 20261125T231739Z-1f3a; the same on all hosts, so the files' ETags agree.

    Returns:
        Seconds since 1970; now, if the id does not say.
    """
    found = re.match(r"\d{8}T\d{6}Z", run)
    if not found:
        return float(int(time.time()))
    read = datetime.datetime.strptime(found[0], "%Y%m%dT%H%M%SZ")
    return read.replace(tzinfo=datetime.UTC).timestamp()


def stamp(release_dir: Path, when: float) -> None:
    """Set the times of the files of a release that does not serve.

    The archive of a release has no times, and a file of 1970 is never newer than what a browser has.
    Python's own files stay: their byte code knows their times.

    Args:
        release_dir: Folder of the release.
        when: Seconds since 1970.
    """
    for folder, _, names in os.walk(release_dir / "app"):
        for name in names:
            if not name.endswith((".py", ".pyc")):
                with contextlib.suppress(FileNotFoundError):
                    os.utime(Path(folder, name), (when, when), follow_symlinks=False)
