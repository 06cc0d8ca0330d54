"""Starting a slot, its readiness checks, and the preflight of a release."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import time

from ansible_collections.paddock.fleet.plugins.module_utils import readiness
from ansible_collections.paddock.fleet.plugins.module_utils.readiness import NeverReady, NotReady
from ansible_collections.paddock.fleet.plugins.module_utils.slots.layout import PREFLIGHT
from ansible_collections.paddock.fleet.plugins.module_utils.slots.state import State

# A release is ready when it says so this often in a row.
ANSWERS = 3


class Ended(NotReady):
    """The slot was up, and is not any more."""


class Killed(NotReady):
    """The slot was ended from outside; that says nothing about its release."""


class Checks(State):
    """The app, whose slots can be started and checked."""

    def ask(self, slot: str) -> None:
        """One readiness check; raises NotReady with URL, status and answer."""
        uid = pwd.getpwnam(self.name).pw_uid
        readiness.ask(self.folder(slot) / "probe.sock", self.health_path, self.host, self.release, uid)

    def wait_ready(self, slot: str, began: float) -> None:
        """Wait until the slot is ready; raises NotReady with the last answer."""
        deadline = time.monotonic() + self.boot_timeout
        answers = 0
        while answers < ANSWERS:
            try:
                self.ask(slot)
                readiness.count(self.folder(slot))
                answers += 1
            except NeverReady:
                raise
            except NotReady as problem:
                answers = 0
                unit = self.units()[slot]
                if unit.state not in ("active", "activating"):
                    raise Ended(f"{self.unit(slot)} is {unit.state}. {problem}") from problem
                if time.monotonic() > deadline:
                    raise NotReady(f"not ready after {self.boot_timeout} s. {problem}") from problem
                readiness.tell(self.name, slot, self.boot_timeout, began, self.mask(str(problem)))
                time.sleep(0.1)
        self.warnings = self.mask(readiness.read_from_app(self.folder(slot) / "warnings")).splitlines()

    def explain(self, slot: str, problem: NotReady, *units: str) -> NotReady:
        """The problem with the last lines of the log, and advice where the slot may have been killed."""
        unit = self.units()[slot]
        killed = unit.killed or (isinstance(problem, Ended) and unit.result == "success")
        log = f"Last lines of its log:\n{self.log(*units)}"
        if not killed:
            return NotReady(f"{problem}\n{log}")
        return Killed(
            f"{problem}\nIt was ended by a signal that systemd did not send: another process of the app's"
            " user may have done that, or the kernel for lack of memory. A release that was taken over could"
            " do it, so this one is not marked as bad. To end what serves first, add"
            " -e gunicorn_stop_first=true; the backends answer no requests of the app meanwhile."
            f"\n{log}"
        )

    def start(self, slot: str) -> None:
        """Start a slot and wait until it is ready; raises NotReady with its log."""
        units = [self.unit(slot)] if slot == PREFLIGHT else [self.socket, self.unit(slot)]
        began = readiness.now()
        readiness.tell(self.name, slot, self.boot_timeout, began, f"{self.unit(slot)} is starting")
        try:
            self.systemctl("reset-failed", self.unit(slot), check=False)
            # One by one: of two at once, systemd only says that a dependency failed.
            for unit in units:
                self.systemctl("start", unit)
            self.wait_ready(slot, began)
        except NotReady as problem:
            raise self.explain(slot, problem, *units) from problem
        finally:
            readiness.tell_no_more()

    def watch(self) -> None:
        """See that a release that never served stays up for a while; raises NotReady with its log."""
        deadline = time.monotonic() + self.watch_seconds
        try:
            while time.monotonic() < deadline:
                time.sleep(0.2)
                unit = self.units()[PREFLIGHT]
                if unit.state != "active":
                    raise Ended(f"{self.unit(PREFLIGHT)} was ready, and then {unit.state}")
            if self.watch_seconds:
                self.ask(PREFLIGHT)
        except NotReady as problem:
            raise self.explain(PREFLIGHT, problem, self.unit(PREFLIGHT)) from problem

    def write_slot(self, slot: str) -> None:
        """Write the slot's configuration and unit, and nothing else."""
        folder = self.config_dir / slot
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(self.drop_ins(slot), ignore_errors=True)
        folder.mkdir(parents=True)
        for path, mode in ((self.config_dir.parent, 0o755), (self.config_dir, 0o755), (folder, 0o750)):
            path.chmod(mode)
        os.chown(folder, 0, grp.getgrnam(self.name).gr_gid)
        for file in self.slot_files(slot):
            file.write()
        self.systemctl("daemon-reload")

    def remove_preflight(self) -> None:
        """Remove the preflight slot."""
        self.systemctl("stop", self.unit(PREFLIGHT), check=False)
        self.systemctl("reset-failed", self.unit(PREFLIGHT), check=False)
        unit, *folders = self.preflight_leaves()
        unit.unlink(missing_ok=True)
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)

    def preflight(self) -> None:
        """Boot the release in a slot of its own; raises NotReady with its log."""
        self.remove_preflight()  # a killed run may have left another release there
        try:
            self.write_slot(PREFLIGHT)
            self.start(PREFLIGHT)
            if not self.marks.good_link(self.release_dir.name).is_symlink():
                self.watch()
        finally:
            self.remove_preflight()
        self.checked_file.write()
