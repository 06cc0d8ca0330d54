"""What a release that was taken over cannot do to the next one, to root's runs, and to other apps."""

from __future__ import annotations

import copy
import json
import platform
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.paddock.fleet.plugins.filter.rollback import rollback_target
from testbed import play

LIST = """
- hosts: all
  become: true
  gather_facts: false
  vars: {gunicorn_trusted_proxies: [192.0.2.1]}
  tasks:
    - ansible.builtin.import_role: {name: paddock.fleet.gunicorn, tasks_from: list}
    - ansible.builtin.copy:
        content: "{{ gunicorn_listed | to_json }}"
        dest: "{{ folder }}/{{ inventory_hostname }}"
      delegate_to: localhost
      become: false
"""
RETURN = """
- hosts: all
  become: true
  gather_facts: false
  vars: {gunicorn_trusted_proxies: [192.0.2.1]}
  tasks:
    - ansible.builtin.import_role: {name: paddock.fleet.gunicorn, tasks_from: roll_back}
"""
# In the main process, which systemd listens to, as the app is imported.
LIAR = """
def lie():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        while True:
            systemd.sendto(b"STATUS=" + os.environ["LIE"].encode(), os.environ["NOTIFY_SOCKET"])
            time.sleep(0.1)

threading.Thread(target=lie, daemon=True).start()
"""
# SIGKILL to each process of its user that is not of its own slot, in a loop, once a file is there.
KILLER = """
def kill():
    flag, own = f"{os.environ['STATE_DIRECTORY']}/kill", {os.getpid(), os.getppid()}
    while True:
        time.sleep(0.02)
        if os.path.exists(flag):
            newest = os.posix_spawn("/bin/true", ["true"], {})
            os.waitpid(newest, 0)
            for pid in {*range(max(2, newest - 3000), newest + 300)} - own:
                try:
                    os.kill(pid, 9)
                except OSError:
                    pass

threading.Thread(target=kill, daemon=True).start()
"""
# The same from outside of all slots, where it sees what it kills: all but the slot that serves.
OUTSIDE = """
import glob, os, sys, time
while True:
    time.sleep(0.02)
    for path in glob.glob("/proc/[0-9]*"):
        try:
            slot = open(f"{path}/cgroup").read()
            if "/echo-" in slot and sys.argv[1] not in slot:
                os.kill(int(path[6:]), 9)
        except OSError:
            pass
"""


@pytest.fixture
def echo(fleet: Any) -> Iterator[Any]:
    """The entry of echo, its code and its run, put back afterwards."""
    apps, source = copy.deepcopy(fleet.apps), fleet.source / "echo/app.py"
    code = source.read_text()
    yield fleet
    fleet.apps, fleet.settings = apps, {}
    source.write_text(code)


def describe(fleet: Any, code: str = "", **keys: object) -> None:
    """Describe a new release of echo."""
    fleet.app("echo").update(keys)
    with (fleet.source / "echo/app.py").open("a") as source:
        source.write(f"\n# {secrets.token_hex()}\n{code}")


def listed(fleet: Any, folder: Path) -> dict[str, Any]:
    """What the role tells of each node, as the playbooks for status, history and rollback have it."""
    folder.mkdir(exist_ok=True)
    (folder.parent / "list.yml").write_text(LIST)
    done = play(str(folder.parent / "list.yml"), *fleet.options(), "-e", f"folder={folder}")
    assert done.rc == 0, done.output
    return {path.name: {"gunicorn_listed": json.loads(path.read_text())} for path in folder.iterdir()}


@pytest.mark.parametrize("lie", ["garbage", pytest.param("release evil, stamp 0", marks=pytest.mark.full)])
def test_what_serves_is_not_what_the_app_says(echo: Any, nodes: list[Any], tmp_path: Path, lie: str) -> None:
    """It tells systemd another release: status, rollback and a run that returns go by the true one."""
    echo.run("--skip-tags", "python")
    good = nodes[0].release("echo")
    assert nodes[1].release("echo") == good
    describe(echo, LIAR, preload=True, environment={"LIE": lie})
    echo.run("--skip-tags", "python")
    evil = nodes[0].release("echo")
    assert evil != good
    for node in nodes:
        unit = f"echo-{node.slot('echo').color}.service"
        assert node.sh(f"systemctl show --property=StatusText --value {unit}") == lie
    told = listed(echo, tmp_path / "hosts")
    assert {host: one["gunicorn_listed"]["apps"]["echo"]["now"] for host, one in told.items()} == {
        node.name: evil for node in nodes
    }
    assert rollback_target(told, [*told], "echo")["releases"] == {"echo": good}
    assert echo.configure().changed == 0
    # A crash and a restart are starts too.
    for node in nodes:
        node.sh(f"systemctl kill -s KILL --kill-who=main echo-{node.slot('echo').color}.service; sleep 3")
    assert echo.configure().changed == 0
    # A run that takes its place and fails afterwards gives back what was there.
    describe(echo)
    echo.settings["gunicorn_run"] = {"id": f"20260101T000000Z-{secrets.token_hex(4)}"}
    echo.run("--skip-tags", "python")
    assert {node.release("echo") for node in nodes} & {evil, good} == set()
    (tmp_path / "return.yml").write_text(RETURN)
    done = play(str(tmp_path / "return.yml"), *echo.options())
    assert done.rc == 0, done.output
    assert [node.release("echo") for node in nodes] == [evil] * len(nodes)


@pytest.mark.full
def test_a_slot_of_an_earlier_checkout(echo: Any, nodes: list[Any], load: Any) -> None:
    """Root has noted nothing of its start: what serves is read off its files, and a run replaces it."""
    echo.configure()
    before = [node.slot("echo") for node in nodes]
    for node, slot in zip(nodes, before, strict=True):
        drop_ins = f"/etc/systemd/system/echo-{slot.color}.service.d/*"
        node.sh(f"rm /run/paddock/echo-*; sed -i /^ExecStartPre/d {drop_ins}; systemctl daemon-reload")
    with load(lambda: nodes[0].http(8080)) as one, load(lambda: nodes[1].http(8080)) as two:
        run = echo.configure()
    assert (one.failures, two.failures) == ([], [])
    for node, slot in zip(nodes, before, strict=True):
        assert node.slot("echo").color != slot.color
        assert f"{node.name}: echo: {node.release('echo')} -> {node.release('echo')}, serves" in run.output
    assert echo.configure().changed == 0


def test_no_app_holds_roots_lock(echo: Any, nodes: list[Any]) -> None:
    """A user of the host cannot open it, also where an earlier checkout has made it."""
    node = nodes[0]
    node.sh("chmod 644 /run/paddock-slots.lock")
    echo.configure("--limit", node.name)
    code = "import fcntl; fcntl.flock(open('/run/paddock-slots.lock'), 2)"
    said = node.sh(f'runuser -u echo -- python3 -c "{code}" 2>&1', check=False)
    assert "Permission denied" in said
    open_to_all = node.sh("find /run/paddock* /var/lib/paddock/stamp.key -perm /077 -printf '%p %m\\\\n'")
    assert open_to_all == ""


def test_what_serves_cannot_kill_the_next_release(echo: Any, nodes: list[Any]) -> None:
    """The kernel keeps the slots apart; it is this machine's, and Debian 12's own is too old."""
    if tuple(map(int, platform.release().split(".")[:2])) < (6, 12):
        pytest.skip("needs Linux 6.12")
    describe(echo, KILLER, workers=1)
    echo.run("--skip-tags", "python")
    before = [(node.release("echo"), node.slot("echo").color) for node in nodes]
    for node in nodes:
        node.sh("touch /var/lib/paddock/echo/kill")
    code = echo.source / "echo/app.py"
    code.write_text(code.read_text().replace(KILLER, ""))
    try:
        describe(echo)
        echo.run("--skip-tags", "python")
    finally:
        for node in nodes:
            node.sh("rm /var/lib/paddock/echo/kill")
    for node, (release, color) in zip(nodes, before, strict=True):
        assert node.release("echo") != release
        assert node.slot("echo").color != color
    assert echo.run("--skip-tags", "python").changed == 0


@pytest.mark.full
def test_what_the_kernel_does_not_keep_apart(echo: Any, node: Any) -> None:
    """A process of the app's user kills each new slot: the run says what to do, and does it when told."""
    here = ("--skip-tags", "python", "--limit", node.name)
    echo.run(*here)
    release, slot = node.release("echo"), node.slot("echo")
    node.sh(f"cat >/run/killer.py <<'END'\n{OUTSIDE}\nEND\nchmod 644 /run/killer.py")
    node.sh(f"systemd-run -q --unit killer -p User=echo python3 /run/killer.py echo-{slot.color}.service")
    try:
        describe(echo)
        run = echo.run(*here, rc=2)
        said = " ".join(run.output.split())
        assert "It was ended by a signal that systemd did not send" in said, run.output
        assert "add -e gunicorn_stop_first=true" in said
        refused = re.search(r"echo (\w+) is not ready", said)
        assert refused and refused[1] not in node.sh("ls /srv/echo/bad /srv/echo/held", check=False)
        assert (node.release("echo"), node.slot("echo")) == (release, slot)
        assert node.sh("systemctl is-active killer") == "active"
        echo.settings["gunicorn_stop_first"] = True
        echo.run(*here)
    finally:
        node.sh("systemctl stop killer; systemctl reset-failed killer; rm /run/killer.py", check=False)
    assert node.release("echo") != release
    assert node.slot("echo").color != slot.color
    assert echo.run(*here).changed == 0


@pytest.mark.full
def test_a_bad_release_does_not_stay_alone(echo: Any, nodes: list[Any]) -> None:
    """What was ended for it starts again, and serves as before."""
    node = nodes[0]
    echo.run("--skip-tags", "python", "--limit", node.name)
    before, slot = node.release("echo"), node.slot("echo")
    describe(echo, "raise RuntimeError('no')")
    echo.settings["gunicorn_stop_first"] = True
    run = echo.run("--skip-tags", "python", "--limit", node.name, rc=2)
    assert "RuntimeError: no" in run.output
    assert (node.release("echo"), node.slot("echo").color) == (before, slot.color)
