"""What all unit tests need: the collection's plugins, and fewer cases of the slow tests.

A test with the marker `full` runs only with PADDOCK_FULL=1; of one with `every(n)`
each n-th case runs always.
"""

from __future__ import annotations

import collections
import os

import pytest
from ansible.plugins.loader import init_plugin_loader

init_plugin_loader()

FULL = os.environ.get("PADDOCK_FULL") == "1"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only the whole run needs."""
    seen: collections.Counter[str] = collections.Counter()
    left = []
    for item in items:
        every = item.get_closest_marker("every")
        name = item.nodeid.partition("[")[0]
        if item.get_closest_marker("full") or (every and seen[name] % every.args[0]):
            left.append(item)
        seen[name] += 1
    if not FULL:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]
