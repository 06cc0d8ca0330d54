"""What an app was before a run, and how it becomes that again."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from ansible_collections.paddock.fleet.plugins.module_utils import release_files
from ansible_collections.paddock.fleet.plugins.module_utils.files import File, link, read
from ansible_collections.paddock.fleet.plugins.module_utils.networks import collapsed
from ansible_collections.paddock.fleet.plugins.module_utils.readiness import NotReady
from ansible_collections.paddock.fleet.plugins.module_utils.slots.checks import Checks
from ansible_collections.paddock.fleet.plugins.module_utils.slots.layout import SLOTS, UNITS, other_than
from ansible_collections.paddock.fleet.plugins.module_utils.slots.state import Unit


class WayBack(Checks):
    """The app, whose socket can be led to a slot, and back."""

    def set_clients(self, clients: frozenset[str]) -> None:
        """Let only these networks connect; all, if there are none. The socket goes on listening.

        A drop-in would take effect when the socket is next opened only. Of a socket that is passed on,
        its own list counts, not that of the service.
        """
        denied = ["IPAddressDeny=any", f"IPAddressAllow={' '.join(sorted(clients))}"] if clients else []
        self.systemctl("set-property", self.socket, "IPAddressDeny=", "IPAddressAllow=", *denied)

    def enable(self, slot: str) -> None:
        """Lead the socket and the next boot to this slot."""
        for path, target in self.links(slot).items():
            link(path, target)
        self.socket_slot(slot).write()
        self.boot_link(other_than(slot)).unlink(missing_ok=True)
        self.systemctl("daemon-reload")

    def stop_all(self) -> None:
        """Stop the socket and the slots; they may have lost each other."""
        self.systemctl("stop", self.socket, *map(self.unit, SLOTS), check=False)
        self.systemctl("reset-failed", self.socket, *map(self.unit, SLOTS), check=False)

    def situation(self, units: dict[str, Unit]) -> dict[str, Any]:
        """What is live, or would be if it were up, and the socket's file and clients."""
        live, enabled = self.live(units), self.enabled_slot()
        found: dict[str, Any] = {"slot": None, "release": None, "up": bool(live)}
        if live:
            found |= live._asdict()
        elif enabled:
            with contextlib.suppress(NotReady):
                found |= {"slot": enabled, "release": self.about(enabled)["release"]}
        return {
            **found,
            "socket_unit": read(self.socket_file.path),
            "clients": sorted(units[self.socket].clients),
        }

    def remember(self, run: str, before: dict[str, Any], slot: str) -> None:
        """Note what was before this run, for `roll_back`; `slot` is the one that the run activates."""
        known = self.last_switch()
        if known.get("run") == run and known["slot"] != slot:
            return  # it goes on with what a killed run began
        File(self.switch, json.dumps({"run": run, **before}, indent=1) + "\n", 0o600).write()

    def resume(self, slot: str, before: dict[str, Any]) -> None:
        """Have a slot live again, with the socket that it had, after another one did not start."""
        self.open_as(before)
        self.enable(slot)
        self.systemctl("start", self.socket, check=False)
        self.systemctl("start", self.unit(slot), check=False)
        if self.last_switch().get("slot") == before["slot"]:
            self.switch.unlink(missing_ok=True)

    def open_as(self, before: dict[str, Any]) -> None:
        """Give the socket the address and the clients that it had."""
        socket_file = File(UNITS / self.socket, before["socket_unit"])
        if not socket_file.there():
            self.stop_all()
            socket_file.write()
            self.systemctl("daemon-reload")
        clients = collapsed(before["clients"])
        if self.units()[self.socket].clients != clients:
            self.set_clients(clients)

    def restart(self, record: dict[str, Any], units: dict[str, Unit], run: str) -> None:
        """Activate a slot from before; raises NotReady if it was up then and does not come up."""
        self.remove_preflight()
        slot = record["slot"]
        self.describe_as(slot)
        other = other_than(slot)
        if not self.is_live(units):
            # Later than the files of what the run has brought.
            release_files.stamp(self.release_dir, release_files.began(run) + 1)
        self.open_as(record)
        units = self.units()
        if (units[slot].state, units[slot].status) != ("active", self.status):
            self.keep(slot).path.unlink(missing_ok=True)
            self.systemctl("daemon-reload")
            try:
                self.start(slot)
            except NotReady:
                # What did not work before the run need not work after it.
                if record.get("up", True):
                    self.systemctl("stop", self.unit(slot), check=False)
                    self.systemctl("start", self.unit(other), check=False)
                    raise
        self.keep(slot).write()
        if record.get("up", True):
            self.marks.good(self.release_dir.name)
        self.enable(slot)
        # The release that was checked last is not the live one: it is checked again.
        (self.config_dir / "checked").unlink(missing_ok=True)
        self.systemctl("stop", self.unit(other), check=False)
