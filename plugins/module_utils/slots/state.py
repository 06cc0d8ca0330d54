"""What an app is on a host: what systemd says, and how that differs from what should be."""

from __future__ import annotations

import contextlib
import difflib
import grp
import pwd
import re
from pathlib import Path
from typing import NamedTuple

from ansible_collections.paddock.fleet.plugins.module_utils import app_list
from ansible_collections.paddock.fleet.plugins.module_utils.files import link_target, read
from ansible_collections.paddock.fleet.plugins.module_utils.networks import collapsed
from ansible_collections.paddock.fleet.plugins.module_utils.readiness import NotReady
from ansible_collections.paddock.fleet.plugins.module_utils.slots.layout import (
    PREFLIGHT,
    RECORDS,
    SECRET,
    SLOTS,
    UNITS,
    USER_COMMENT,
    Layout,
    other_than,
)

PACKAGED_UNITS = (Path("/usr/lib/systemd/system"), Path("/lib/systemd/system"))

# Signals by which a program ends by its own fault.
CRASHES = {"4", "5", "6", "7", "8", "11", "31"}


class Live(NamedTuple):
    """The live slot and its release."""

    slot: str
    release: str


class Unit(NamedTuple):
    """What systemd says of a unit, and root's note of what it runs."""

    state: str
    status: str
    reload_pending: bool
    clients: frozenset[str]
    # How its main process ended, if it has: what systemd calls it, and the signal or exit status.
    result: str
    ended: str

    @property
    def killed(self) -> bool:
        """Whether it was ended from outside: by SIGKILL, or by SIGTERM, after which Gunicorn exits well."""
        by_signal = self.result == "signal" and self.ended not in CRASHES
        return by_signal or (self.result == "protocol" and self.ended == "0")

    @property
    def up(self) -> bool:
        """Whether it runs, or is about to begin or to end."""
        return self.state not in ("inactive", "failed")


class State(Layout):
    """The app as it is."""

    def systemctl(self, *args: str, check: bool = True) -> str:
        """Run systemctl; returns what it printed, raises NotReady if it fails."""
        rc, out, err = self.module.run_command(["systemctl", "--no-ask-password", *args])
        if check and rc != 0:
            raise NotReady(f"`systemctl {' '.join(args)}` failed: {err.strip() or out.strip()}")
        return out.strip()

    def units(self) -> dict[str, Unit]:
        """What systemd says of the socket and of each slot, at one moment."""
        keys = [self.socket, *SLOTS, PREFLIGHT]
        said = self.systemctl(
            "show",
            "--property=ActiveState,InvocationID,NeedDaemonReload,IPAddressAllow,IPAddressDeny,Result,ExecMainStatus",
            *(key if key == self.socket else self.unit(key) for key in keys),
        )
        units = {}
        for key, block in zip(keys, said.split("\n\n"), strict=True):
            values = dict(line.partition("=")[::2] for line in block.splitlines())
            units[key] = Unit(
                state=values["ActiveState"],
                status=self.recorded(key, values["InvocationID"]),
                reload_pending=values["NeedDaemonReload"] == "yes",
                clients=collapsed(values["IPAddressAllow"].split() if values["IPAddressDeny"] else ()),
                result=values["Result"],
                ended=values.get("ExecMainStatus", ""),
            )
        return units

    def recorded(self, slot: str, invocation: str) -> str:
        """What root noted at this start of a slot; nothing at that of a slot of an earlier checkout."""
        noted, _, status = read(RECORDS / Path(self.unit(slot)).stem).strip().partition(" ")
        return status if invocation and noted == invocation else ""

    def enabled_slot(self) -> str | None:
        """Slot that the socket and the next boot lead to."""
        return next((slot for slot in SLOTS if self.socket_slot(slot).there()), None)

    def live(self, units: dict[str, Unit]) -> Live | None:
        """The live slot; of two that a killed run left, the enabled one."""
        enabled = self.enabled_slot()
        for slot in sorted(SLOTS, key=lambda slot: slot != enabled):
            if units[slot].state == "active":
                noted = re.fullmatch(r"release (\S+), stamp \S+", units[slot].status)
                with contextlib.suppress(NotReady):
                    return Live(slot, noted[1] if noted else self.about(slot)["release"])
        return None

    def is_live(self, units: dict[str, Unit]) -> bool:
        """Whether the described release is live, in whatever slot; also if that is unknown."""
        now = self.live(units)
        try:
            return bool(now) and self.about(now.slot)["release_dir"] == str(self.release_dir)
        except NotReady:
            return True

    def port(self) -> str:
        """What the socket on this host listens on."""
        found = re.search(r"^ListenStream=(.*)$", read(UNITS / self.socket), re.MULTILINE)
        return found[1] if found else ""

    def slot_faults(self, slot: str, units: dict[str, Unit]) -> list[str]:
        """What is wrong with a slot, were it the one to serve what is asked for."""
        faults = []
        if (units[slot].state, units[slot].status) != ("active", self.status):
            faults.append(f"{self.unit(slot)} does not run {self.status}")
        files = [*self.slot_files(slot), self.keep(slot)]
        faults += [f"{file.path} is not as described" for file in files if not file.there()]
        known = {file.path for file in files}
        for folder in (self.config_dir / slot, self.drop_ins(slot)):
            faults += [f"{path} is not ours" for path in folder.glob("*") if path not in known]
        return faults

    def faults(self, slot: str, units: dict[str, Unit]) -> list[str]:
        """What is left to do until this slot is live as described; empty if nothing is."""
        other = other_than(slot)
        faults = self.slot_faults(slot, units)
        files = (self.socket_file, self.socket_slot(slot))
        faults += [f"{file.path} is not as described" for file in files if not file.there()]
        good_link = self.marks.good_link(self.release_dir.name)
        links = {**self.links(slot), good_link: str(self.release_dir)}
        faults += [f"{link} does not lead to {to}" for link, to in links.items() if link_target(link) != to]
        if units[self.socket].state != "active":
            faults.append(f"{self.socket} is {units[self.socket].state}")
        if units[other].up or link_target(self.boot_link(other)):
            faults.append(f"{self.unit(other)} is {units[other].state}, or would be started at boot")
        if units[PREFLIGHT].up or any(path.exists() for path in self.preflight_leaves()):
            faults.append(f"{self.unit(PREFLIGHT)} was left behind")
        if units[self.socket].clients != self.clients:
            faults.append(f"{self.socket} lets in {', '.join(sorted(units[self.socket].clients)) or 'all'}")
        if any(units[key].reload_pending for key in (self.socket, slot)):
            faults.append("systemd has not read its units again")
        return faults

    def diff(self, faults: list[str]) -> dict[str, str]:
        """What is wrong and how the files differ; without the environment's values."""
        lines = [f"{self.name}: {fault}" for fault in faults]
        slot = self.enabled_slot() or SLOTS[0]
        for file in [self.socket_file, *self.slot_files(slot)]:
            if file.path.name != SECRET:
                path = str(file.path)
                old, new = read(file.path).splitlines(), file.text.splitlines()
                lines += difflib.unified_diff(old, new, path, path, lineterm="")
        return {"prepared": "\n".join(lines) + "\n"}

    def conflict(self) -> str:
        """What else on this host goes by the app's name; empty if nothing does."""
        for folder in PACKAGED_UNITS:
            for path in (folder / f"{self.name}.service", folder / self.socket):
                if path.exists():
                    return f"{path} belongs to a package"
        if self.name not in app_list.listed():
            for path in (UNITS / self.socket, self.config_dir):
                if path.is_dir() and not any(path.iterdir()):
                    continue
                if path.exists():
                    return f"{path} is there already, and no app's,"
        try:
            comment = pwd.getpwnam(self.name).pw_gecos
        except KeyError:
            # The app would run in a group of that name, and read what it may.
            named = any(group.gr_name == self.name for group in grp.getgrall())
            return f"a group {self.name} is there already" if named else ""
        return "" if comment == USER_COMMENT else f"a user {self.name} is there already, and no app's,"

    def log(self, *units: str) -> str:
        """The last lines of what these units, and systemd about them, said since their last start."""
        self.module.run_command(["journalctl", "--sync"])
        matches: list[str] = []
        for unit in units:
            invocation = self.systemctl("show", "--property=InvocationID", "--value", unit, check=False)
            if invocation:
                matches += ["+"] if matches else []
                matches += [f"_SYSTEMD_INVOCATION_ID={invocation}", "+"]
                # Of systemd itself: an app may write a field without the underscore.
                matches += ["_PID=1", f"INVOCATION_ID={invocation}"]
        if not matches:
            return "(none)"
        command = ["journalctl", "--no-pager", "--output=cat", "--lines=40", *matches]
        return self.module.run_command(command)[1].strip()
