"""What is secret stays between the description, root and the app."""

from __future__ import annotations

import base64
import copy
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from testbed import play

# The words are given backwards, so that the search does not find itself.
SEARCH = """
import glob, os, stat, subprocess
words = [word[::-1].encode() for word in {words}]
run = lambda *argv: subprocess.run(argv, capture_output=True).stdout
forms = ("export", "json", "short")
places = {{f"journalctl -o {{form}}": run("journalctl", "--all", "-o", form) for form in forms}}
units = run("systemctl", "list-units", "--all", "--plain", "--no-legend").decode().splitlines()
names = [line.split()[0] for line in units]
places["systemctl show"] = run("systemctl", "show", *names)
places["systemctl cat"] = run("systemctl", "cat", *names)
for path in glob.glob("/proc/[0-9]*/cmdline"):
    try:
        places[path] = open(path, "rb").read()
    except OSError:
        pass
for top in ("/etc", "/run", "/srv", "/opt", "/var", "/tmp", "/root/.ansible"):
    for folder, folders, files in os.walk(top):
        if not os.stat(folder).st_mode & stat.S_IXOTH:
            folders.clear()
            continue
        for path in (os.path.join(folder, name) for name in files):
            found = os.lstat(path)
            if stat.S_ISREG(found.st_mode) and found.st_mode & stat.S_IROTH:
                places[path] = open(path, "rb").read()
print(*(place for place, text in places.items() if any(word in text for word in words)), sep="\\n")
"""


def canary() -> tuple[str, list[str]]:
    """A secret of two lines with all that changes when it is quoted, and the words to search for."""
    words = [secrets.token_hex(12), secrets.token_hex(12)]
    value = f"{words[0]} \" ' \\ \\n @ ü\n{words[1]}\t%"
    encoded = [base64.b64encode(word.encode()[start:]).decode()[:-4] for word in words for start in (0, 1, 2)]
    return value, words + encoded


def places(node: Any, words: list[str]) -> list[str]:
    """Where on a node anybody, or who reads its journal, sees one of the words."""
    script = SEARCH.format(words=[word[::-1] for word in words])
    return node.sh(f"python3 - <<'END'\n{script}END").splitlines()


@pytest.fixture
def changed_fleet(fleet: Any) -> Iterator[Any]:
    """The fleet, whose description is put back afterwards."""
    apps = copy.deepcopy(fleet.apps)
    yield fleet
    fleet.apps, fleet.settings = apps, {}


def test_secrets_show_nowhere(changed_fleet: Any, nodes: list[Any]) -> None:
    """Each app has one. Not in a journal, a command line, a unit, a file that others read, or the output."""
    fleet, words = changed_fleet, []
    for app in fleet.apps:
        value, more = canary()
        app["environment"] = {"CANARY": value, "FORTY": value[:20] + "x" * 40000}
        words += more
    output = fleet.configure("-vvv", "--diff").output
    assert [word for word in words if word in output] == []
    assert {node.name: places(node, words) for node in nodes} == {node.name: [] for node in nodes}


RETURN = """
- hosts: all
  become: true
  gather_facts: false
  vars: {gunicorn_trusted_proxies: [192.0.2.1]}
  tasks:
    - ansible.builtin.import_role: {name: paddock.fleet.gunicorn, tasks_from: roll_back}
"""
# Says all that it has, in several ways, and where it writes on the terminal; then it fails.
TALKER = """
import base64, json, urllib.parse
if Path(os.environ["STATE_DIRECTORY"], "broken").exists():
    said = os.environ["CANARY"]
    print("\\x1b[2J I have", said, {"a": said}, json.dumps(said), urllib.parse.quote(said))
    print(base64.b64encode(f"me:{said}".encode()).decode(), flush=True)
    raise RuntimeError("the database is away")
"""


@pytest.mark.full
def test_a_host_that_cannot_return_shows_no_secret(
    changed_fleet: Any, nodes: list[Any], tmp_path: Path
) -> None:
    """The run has no description of what it returns to; the secrets are on the host."""
    fleet, node, source = changed_fleet, nodes[0], changed_fleet.source / "echo/app.py"
    here, code, (value, words) = ("--skip-tags", "python", "--limit", node.name), source.read_text(), canary()
    try:
        source.write_text(f"{code}\n# {secrets.token_hex()}\n{TALKER}")
        fleet.app("echo")["environment"] = {"CANARY": value}
        fleet.run(*here)
        # Another release, with another secret, takes its place.
        source.write_text(f"{code}\n# {secrets.token_hex()}\n")
        fleet.app("echo")["environment"] = {}
        fleet.settings["gunicorn_run"] = {"id": f"20260101T000000Z-{secrets.token_hex(4)}"}
        fleet.run(*here)
        release = node.release("echo")
        node.sh("touch /var/lib/paddock/echo/broken")
        (tmp_path / "return.yml").write_text(RETURN)
        options = ("-e", json.dumps({"gunicorn_run": fleet.settings["gunicorn_run"]}), "--limit", node.name)
        done = play(str(tmp_path / "return.yml"), *fleet.options(), *options, "-vvv")
    finally:
        source.write_text(code)
        node.sh("rm -f /var/lib/paddock/echo/broken")
    assert done.rc != 0
    assert "the database is away" in done.output
    assert done.output.count("********") >= 5
    assert [word for word in words if word in done.output] == []
    assert "u001b[2J" not in done.output and "\x1b[2J" not in done.output
    assert node.release("echo") == release
