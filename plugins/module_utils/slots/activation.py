"""Activating a release, rolling back, and removing an app."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import time
from pathlib import Path

from ansible_collections.paddock.fleet.plugins.module_utils import app_list, release_files
from ansible_collections.paddock.fleet.plugins.module_utils.files import owner
from ansible_collections.paddock.fleet.plugins.module_utils.readiness import NotReady
from ansible_collections.paddock.fleet.plugins.module_utils.slots.layout import (
    PROPERTIES,
    RECORDS,
    SLOTS,
    UNITS,
    USER_COMMENT,
    other_than,
)
from ansible_collections.paddock.fleet.plugins.module_utils.slots.state import Live, Unit
from ansible_collections.paddock.fleet.plugins.module_utils.slots.way_back import WayBack


class App(WayBack):
    """The app on this host."""

    def create_user(self) -> None:
        """Enter the app in the role's list, before its first file, and make the user that it runs as."""
        app_list.add(self.name)
        with contextlib.suppress(KeyError):
            pwd.getpwnam(self.name)
            return
        options = ["--system", "--user-group", "--no-create-home", "--home-dir=/nonexistent"]
        shell = "--shell=/usr/sbin/nologin"
        self.module.run_command(
            ["useradd", *options, shell, f"--comment={USER_COMMENT}", self.name], check_rc=True
        )

    def end_all(self) -> None:
        """End the app with every process of its user, whatever started it."""
        self.stop_all()
        uid, deadline = pwd.getpwnam(self.name).pw_uid, time.monotonic() + 10
        while True:
            left = [int(path.name) for path in Path("/proc").glob("[0-9]*") if owner(path) == uid]
            if not left or time.monotonic() > deadline:
                return
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def start_idle(self, now: str | None, units: dict[str, Unit], run: str, alone: bool) -> str:
        """Start the release in the slot that does not serve, on the shared socket; returns that slot.

        Where it has to be alone, what served is over, and no request may start it again.
        """
        slot = other_than(now)
        if not self.is_live(units):
            release_files.stamp(self.release_dir, release_files.began(run))
        self.systemctl("stop", self.unit(slot), check=False)
        self.write_slot(slot)
        if alone:
            self.enable(slot)
        elif self.enabled_slot() is None:
            # The socket does not start unless its service exists.
            self.enable(now or slot)
        try:
            self.start(slot)
        except NotReady:
            self.checked_file.path.unlink(missing_ok=True)
            self.systemctl("stop", self.unit(slot), check=False)
            raise
        return slot

    def activate(self, units: dict[str, Unit], run: str, stop_first: bool = False) -> str:
        """Make the described release the live one; returns its slot."""
        self.remove_preflight()
        before, enabled = self.situation(units), self.enabled_slot()
        slot = next((slot for slot in SLOTS if not self.slot_faults(slot, units)), None)
        alone = bool(stop_first and enabled and slot is None)
        if alone:
            self.end_all()
            units = self.units()
        if slot is None and enabled and not self.checked_file.there():
            try:
                self.preflight()
            except NotReady:
                if alone:
                    self.systemctl("start", self.socket, self.unit(enabled), check=False)
                raise
        # Both slots run after a killed run. The enabled one has been ready, the other perhaps not.
        running = [one for one in SLOTS if units[one].up]
        now = enabled if enabled in running or not running else running[0]
        opens = not self.socket_file.there() or units[self.socket].state != "active"
        # Before the first stop: whatever fails from here on, `roll_back` knows the way.
        self.remember(run, before, other_than(now) if slot is None or opens else slot)
        try:
            if opens:
                # A socket cannot change its address while it listens, nor start while its slot runs.
                self.stop_all()
                self.socket_file.write()
                self.systemctl("daemon-reload")
                units, slot = self.units(), None
            if units[self.socket].clients != self.clients:
                self.set_clients(self.clients)
            if slot is None:
                slot = self.start_idle(now, units, run, alone)
        except NotReady:
            if now:
                self.resume(now, before)
            else:
                self.remove()  # nothing of it may start at the next boot
            raise
        self.keep(slot).write()
        # Before the other one stops: from here on the release may not be pruned.
        self.marks.good(self.release_dir.name)
        self.enable(slot)
        self.systemctl("stop", self.unit(other_than(slot)), check=False)
        return slot

    def roll_back(self, run: str, reason: str) -> Live | None:
        """Return to what served before a run; returns what is left. Does nothing if that run changed nothing.

        The slot that served is still there, with the unit and the configuration it had, so this needs
        no description. What is left is marked as bad. Raises NotReady if the slot does not come up;
        then all stays as it is.
        """
        record = self.last_switch()
        if not run or record.get("run") != run:
            return None
        units = self.units()
        tried = self.live(units)
        if tried:
            name = Path(self.about(tried.slot)["release_dir"]).name
        kept = ""
        if record["slot"] is None:
            self.remove()
        else:
            self.restart(record, units, run)
            kept = self.release_dir.name
            self.switch.unlink()
        if tried and name != kept and reason:
            self.marks.hold(name, reason)
        return tried

    def remove(self) -> None:
        """Stop the app and remove what makes it run."""
        self.remove_preflight()
        self.stop_all()
        (UNITS / "sockets.target.wants" / self.socket).unlink(missing_ok=True)
        for slot in SLOTS:
            self.boot_link(slot).unlink(missing_ok=True)
        for unit in (self.socket, *map(self.unit, SLOTS)):
            (UNITS / unit).unlink(missing_ok=True)
            shutil.rmtree(UNITS / f"{unit}.d", ignore_errors=True)
        shutil.rmtree(PROPERTIES / f"{self.socket}.d", ignore_errors=True)
        self.systemctl("daemon-reload")
        shutil.rmtree(self.config_dir, ignore_errors=True)
        for slot in SLOTS:
            (RECORDS / Path(self.unit(slot)).stem).unlink(missing_ok=True)
        # Last: by its name in the list the next run knows that there is something to remove.
        app_list.drop(self.name)
