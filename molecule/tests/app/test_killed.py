"""A run may die at any moment: a folder with a release's name is whole."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from testbed import sample
from testinfra.host import Host

# Waits for a path, and sends a signal to the module: of the processes with the app's lock, the parent.
TRAP = """
import os, pathlib, signal, sys, time
signal_name, path, lock = sys.argv[1:]
holders = {}
while not os.path.lexists(path):
    time.sleep(0.001)
while not holders:
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(file) == lock for file in (process / "fd").iterdir()):
                holders[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            pass
for process, parent in holders.items():
    if parent not in holders:
        os.kill(process, signal.Signals[signal_name])
        print(process, flush=True)
"""
MOMENTS = {
    "before the environment": "environments/.partial",
    "before the packages are compiled": "environments/.partial/venv/pyvenv.cfg",
    "before the code": "releases/.partial",
}


def begin_trap(host: Host, home: str, kind: str, path: str) -> None:
    """Wait on the host for a path below the app's folder, in the background."""
    lock = f"/run/paddock-{home.rpartition('/')[2]}-releases.lock"
    host.check_output(f"cat > /run/trap.py <<'END'\n{TRAP}END")
    command = f"/usr/bin/python3 /run/trap.py {kind} {home}/{path} {lock}"
    host.check_output(f"systemd-run --quiet --collect --unit=trap sh -c '{command} > /run/trapped'")


@pytest.fixture
def trap(host: Host) -> Iterator[None]:
    """Remove the trap."""
    yield
    host.check_output("systemctl stop trap; rm -f /run/trap.py /run/trapped")


@pytest.mark.parametrize("moment", sample(MOMENTS, 2))
def test_module_killed(source: Any, trap: None, moment: str) -> None:
    """SIGKILL of the module on the host; what it has started goes on."""
    source.host.check_output(f"rm -rf {source.home}")
    source.change(f"# killed {moment}\n")
    begin_trap(source.host, source.home, "SIGKILL", MOMENTS[moment])
    source.run(rc=2)
    assert source.host.check_output("cat /run/trapped")
    assert source.release not in source.releases()
    source.run()
    source.assert_whole()


def test_run_killed(source: Any, trap: None) -> None:
    """SIGKILL of ansible-playbook: the module works on, and the next run waits for it."""
    source.host.check_output(f"rm -rf {source.home}")
    source.change("# killed run\n")
    begin_trap(source.host, source.home, "SIGSTOP", MOMENTS["before the packages are compiled"])
    with source.killed():
        deadline = time.monotonic() + 40
        while not source.host.run("cat /run/trapped").stdout:
            assert time.monotonic() < deadline
    assert source.release not in source.releases()
    # What is on its way is root's alone.
    folders = source.host.check_output("stat -c %a $(dirname ~/.ansible/tmp/*/changing-*)")
    assert set(folders.split()) == {"700"}
    source.host.check_output("systemd-run --quiet --collect sh -c 'sleep 3; kill -CONT $(cat /run/trapped)'")
    source.run()
    source.assert_whole()


def test_half_made_folders_are_thrown_away(source: Any) -> None:
    """Whatever is in them, or if they are none."""
    source.host.check_output(
        f"rm -rf {source.home}; mkdir -p {source.home}/releases/.partial/app {source.home}/environments"
    )
    source.host.check_output(f"touch {source.home}/releases/.partial/app/old.py")
    source.host.check_output(f"ln -s /nowhere {source.home}/environments/.partial")
    uploads = "/root/.ansible/tmp/ansible-tmp-1"
    others = f"{uploads}/changing-too-0123456789ab.tar.gz"
    source.host.check_output(f"mkdir -p {uploads}; touch {uploads}/changing-0123456789ab.tar.gz {others}")
    source.change("# half-made\n")
    source.run()
    source.host.check_output(f"rm {others}; rmdir {uploads}")  # it is not this app's
    source.assert_whole()
