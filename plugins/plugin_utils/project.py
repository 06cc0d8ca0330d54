"""Where a user's files are: the apps and the caches are next to the inventory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def project_root(inventories: Iterable[str]) -> Path:
    """Find the folder of a user's repository.

    Args:
        inventories: The sources of the inventory, as in ``ansible_inventory_sources``.

    Returns:
        The folder around the first inventory that holds ``app_src``, or the current folder if that
        holds it. Where none does, the folder that holds the inventory's folder.
    """
    source = next((Path(one).resolve() for one in inventories if Path(one).exists()), None)
    if source is None:
        return Path.cwd()
    folder = source if source.is_dir() else source.parent
    places = (*folder.parents, Path.cwd())
    return next((place for place in places if (place / "app_src").is_dir()), folder.parent)


def cache_folder(variables: Mapping[str, Any]) -> Path:
    """Find the folder of the caches.

    Args:
        variables: The variables of a host.

    Returns:
        The folder, which may be missing.
    """
    return project_root(variables.get("ansible_inventory_sources") or ()) / ".cache"
