"""Action that takes and releases a fleet's lock in the name of this run."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import time
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display


def started(pid: int) -> str:
    """Tell which process has an id, so that a later one of the same id is not taken for it.

    Args:
        pid: Id of a process on this machine.

    Returns:
        Its start time in clock ticks since boot (field 22 of proc_pid_stat(5)) with the boot's id; on a
        machine without /proc, "alive". Empty if there is no such process.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "alive"
    # A zombie waits for its parent only.
    return "" if fields[0] in "ZX" else f"{fields[19]}@{boot}"


def machine() -> str:
    """Name the place where a process id means one process.

    Returns:
        The host's name with its machine-id(5) and PID namespace: two containers may share the name. A machine
        without them has its name alone.
    """
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/etc/machine-id").read_text().strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def this_run() -> dict[str, Any]:
    """Say who this run is: user, machine and the process of ansible-playbook."""
    pid = os.getppid()  # this is one of its workers
    user = os.environ.get("SUDO_USER") or getpass.getuser()
    return {
        "by": f"{user}@{socket.gethostname()}",
        "machine": machine(),
        "pid": pid,
        "started": started(pid),
    }


def refusal(holder: dict[str, Any], host: str, expires_in: int) -> str:
    """Say who holds the lock and what to do.

    Args:
        holder: What the lock says.
        host: The host that keeps the lock.
        expires_in: Seconds until it expires.

    Returns:
        Three lines.
    """
    return (
        f"{holder.get('by', 'somebody')} deploys this fleet since {holder.get('since', 'some time')}"
        f" (process {holder.get('pid', '?')}; lock on {host}, it expires in {expires_in} s).\n"
        "Nothing was changed. Wait for that run to end and try again.\n"
        "If it is dead: ansible-playbook playbooks/unlock.yml"
    )


class ActionModule(ActionBase):
    """What Ansible looks for in this file."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module in the name of this run.

        Args:
            tmp: Unused.
            task_vars: The variables of the host that the task runs for.

        Returns:
            The result of the module, with C(by).
        """
        result = super().run(tmp, task_vars)
        holder = this_run()
        own = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{socket.gethostname()}-{holder['pid']}"
        arguments = {"run": own, **self._task.args, "holder": holder}
        done = self._execute_module("paddock.fleet.fleet_lock", module_args=arguments, task_vars=task_vars)
        other = done.get("holder") or {}
        ours = done.get("failed") and other.get("machine") == holder["machine"]
        if ours and started(int(other["pid"])) != other["started"]:
            arguments["dead"] = other["run"]
            done = self._execute_module(
                "paddock.fleet.fleet_lock", module_args=arguments, task_vars=task_vars
            )
        if done.get("failed") and other:
            done["msg"] = refusal(other, self._task.delegate_to or "this host", done["expires_in"])
        elif arguments["state"] == "taken" and other and other["run"] != own:
            Display().display(f"Going on with the deploy that {other['by']} began at {other['since']}.")
        return result | done | {"by": holder["by"]}
