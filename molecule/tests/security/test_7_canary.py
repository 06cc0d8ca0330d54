"""Secrets of the apps are found in one file of each app, and nowhere else."""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path

import pytest
from cases import NODES
from testbed import EPHEMERAL, ROOT, play
from wire import Node

APPS = ("echo", "twin", "echo-shut", "twin-shut")
# Parts of the value, in any encoding but base64: between quotes, newlines and umlauts in group_vars/all.yml.
PARTS = rb"canary-(?:echo|twin)[-a-z]*-[0-9]"
# The three ways in which base64 writes a text, by where it begins.
ENCODED = [
    base64.b64encode(b" " * offset + b"canary-").rstrip(b"=")[-10:-1].replace(b"+", b"[+]")
    for offset in (0, 1, 2)
]
FIND = f"""
import os, re
pattern = re.compile({PARTS!r} + b"|" + b"|".join({ENCODED!r}))
for top, folders, names in os.walk("/"):
    if top == "/":
        folders[:] = [name for name in folders if name not in ("proc", "sys", "dev")]
    for name in names:
        path = os.path.join(top, name)
        try:
            if os.path.isfile(path) and not os.path.islink(path) and pattern.search(open(path, "rb").read()):
                status = os.stat(path)
                print(oct(status.st_mode & 0o7777), status.st_uid, path)
        except OSError:
            pass
"""


@pytest.fixture(scope="module")
def output() -> str:
    """What a run says at its most talkative; it writes all slots again."""
    for node in NODES.values():
        node.sh("rm -f /etc/paddock/*/*/environment.json")
    run = play("molecule/security/converge.yml", "-vvv", "--diff", "--tags", "gunicorn")
    assert run.rc == 0, run.output[-3000:]
    assert run.changed > 0
    return run.output


def test_the_apps_have_it(node: Node, output: str) -> None:
    """Whole, in each app; else the search would find nothing for another reason."""
    for app in APPS:
        path = f"/etc/paddock/{app}/*/environment.json"
        found = json.loads(node.sh(f"cat $(ls -t {path} | head -1)"))["CANARY"]
        assert found == f"canary-{app}-1\"canary-{app}-2'\ncanary-{app}-3\\canary-{app}-4Ä@canary-{app}-5%"


def test_not_in_what_the_run_says(output: str) -> None:
    """Not with -vvv and --diff."""
    assert not re.search(PARTS, output.encode())


def test_not_in_files(node: Node, output: str) -> None:
    """Of the host, but in one that the app's group may read."""
    found = node.sh(f"python3 - <<'EOF'\n{FIND}\nEOF").splitlines()
    wrong = [
        line for line in found if not re.fullmatch(r"0o640 0 /etc/paddock/[a-z-]+/\w+/environment.json", line)
    ]
    assert wrong == []
    for app in APPS:
        assert any(f"/{app}/" in line for line in found)
        assert node.sh(
            f"stat -c %a:%U:%G /etc/paddock/{app}/blue /etc/paddock/{app}/green 2>/dev/null", check=False
        )
        for line in node.sh(f"stat -c %a:%U:%G /etc/paddock/{app}/*/").splitlines():
            assert line == f"750:root:{app}"


def test_not_in_the_journal(node: Node, output: str) -> None:
    """Also where it is packed."""
    node.sh("journalctl --sync")
    journal = node.sh("journalctl --all --output=json --no-pager | grep -c canary-", check=False)
    assert journal == "0"


def test_not_in_command_lines_and_units(node: Node, output: str) -> None:
    """All users see those."""
    assert not re.search(PARTS, node.sh("cat /proc/*/cmdline | tr '\\0' ' '").encode())
    assert not re.search(PARTS, node.sh("systemctl show --all 'echo*' 'twin*'").encode())


def test_not_on_the_control_node(output: str) -> None:
    """Not in its caches and its temporary files, but in the inventory that the user has written."""
    roots = [ROOT / ".cache", Path(os.environ["ANSIBLE_HOME"]), EPHEMERAL]
    found = {
        path
        for root in roots
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink() and re.search(PARTS, path.read_bytes())
    }
    assert {path for path in found if "group_vars" not in path.parts} == set()
