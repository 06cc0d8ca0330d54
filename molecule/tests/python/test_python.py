"""The role python: an interpreter and a pinned uv."""

from __future__ import annotations

import re
from pathlib import Path

from testinfra.host import Host

LOCK = Path(__file__).parents[3] / "roles/python/files/uv.txt"


def test_uv_is_the_pinned_version(host: Host) -> None:
    """What is on the host is what the lock names."""
    pinned = re.search(r"^uv==(\S+)", LOCK.read_text(), re.MULTILINE)[1]
    assert host.check_output("/opt/paddock/uv --version").split()[1] == pinned


def test_environments_can_be_made(host: Host) -> None:
    """The interpreter of the system and uv make an environment that runs."""
    host.check_output("/opt/paddock/uv --no-cache venv --clear --python /usr/bin/python3 /tmp/venv")
    assert host.check_output("/tmp/venv/bin/python -c 'import sys; print(sys.prefix)'") == "/tmp/venv"
