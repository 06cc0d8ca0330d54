"""A run may die at any moment: a folder with a release's name is whole."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from testinfra.host import Host

UV = "/opt/paddock/uv"
# Kills the module that calls uv: instead of a call, while uv works on, or after it.
TRAP = """#!/bin/sh
case "$(cat /run/moment),$4" in
  "before the environment,venv" | "before the packages,pip") kill -9 $PPID; exit ;;
  "amid the packages,pip") (sleep 0.1; kill -9 $PPID) & sleep 1 ;;
  "after the packages,pip") /run/uv "$@"; kill -9 $PPID; exit ;;
  "slow,pip") touch /run/slow; sleep 4 ;;
esac
exec /run/uv "$@"
"""
MOMENTS = ["before the environment", "before the packages", "amid the packages", "after the packages"]


@pytest.fixture
def trap(host: Host) -> Iterator[None]:
    """Have the trap on the host."""
    host.check_output(
        f"rm -f /run/slow; cp -P $(readlink {UV}) /run/uv && cp -P {UV} /run/uv.link && rm {UV}"
    )
    host.check_output(f"cat > {UV} <<'END'\n{TRAP}END\nchmod +x {UV}")
    yield
    host.check_output(f"mv -f /run/uv.link {UV}; rm -f /run/uv /run/moment /run/slow")


@pytest.mark.parametrize("moment", MOMENTS)
def test_module_killed(source: Any, trap: None, moment: str) -> None:
    """SIGKILL of the module on the host; what uv was doing goes on."""
    source.host.check_output(f"rm -rf {source.home}")
    source.change(f"# killed {moment}\n")
    source.host.check_output(f"echo {moment} > /run/moment")
    source.run(rc=2)
    assert source.releases() | source.environments() <= {".partial"}
    source.host.check_output("echo never > /run/moment")
    source.run()
    source.assert_whole()


def test_run_killed(source: Any, trap: None) -> None:
    """SIGKILL of ansible-playbook: the module works on, and the next run waits for it."""
    source.host.check_output(f"rm -rf {source.home}")
    source.change("# killed run\n")
    source.host.check_output("echo slow > /run/moment")
    with source.killed():
        deadline = time.monotonic() + 40
        while not source.host.file("/run/slow").exists:
            assert time.monotonic() < deadline
    assert source.release not in source.releases()
    source.host.check_output("echo never > /run/moment")
    source.run()
    source.assert_whole()


def test_half_made_folders_are_thrown_away(source: Any) -> None:
    """Whatever is in them, or if they are none."""
    source.host.check_output(
        f"rm -rf {source.home}; mkdir -p {source.home}/releases/.partial/app {source.home}/environments"
    )
    source.host.check_output(f"touch {source.home}/releases/.partial/app/old.py")
    source.host.check_output(f"ln -s /nowhere {source.home}/environments/.partial")
    others = "/opt/paddock/changing-too-0123456789ab.tar"
    source.host.check_output(f"touch /opt/paddock/changing-0123456789ab.tar {others}")
    source.change("# half-made\n")
    source.run()
    source.host.check_output(f"rm {others}")  # it is not this app's
    source.assert_whole()
