"""The answers that Nginx has cached on this host."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection
from pathlib import Path

# Each app's folder with its cached answers.
CACHES = Path("/var/lib/nginx")


def purge(apps: Collection[str], dry: bool = False) -> list[str]:
    """Forget what apps have answered. Nginx takes a file that is gone for an answer that was never kept.

    Args:
        apps: Their names.
        dry: Whether to change nothing.

    Returns:
        The names of those of which something was kept.
    """
    found = []
    for app in sorted(apps):
        # The folders are www-data's: by their names it could lead root elsewhere.
        path = CACHES / f"cache-{app}"
        for _, _, files, folder in os.fwalk(path) if path.exists() else ():
            found += [app] if files else []
            for file in () if dry else files:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(file, dir_fd=folder)
    return list(dict.fromkeys(found))


def remove_caches(text: str) -> None:
    """Remove the folders of answers that a configuration does not name: nothing else would."""
    for folder in CACHES.glob("cache*"):
        if f"proxy_cache_path {folder} " not in text:
            shutil.rmtree(folder, ignore_errors=True)
