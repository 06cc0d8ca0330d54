"""What an app should be on a host: names, files and links of its socket and slots."""

from __future__ import annotations

import grp
import hmac
import json
import re
import secrets
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.paddock.fleet.plugins.module_utils import masking
from ansible_collections.paddock.fleet.plugins.module_utils.app_list import ABOUT, CONFIG
from ansible_collections.paddock.fleet.plugins.module_utils.files import File, read
from ansible_collections.paddock.fleet.plugins.module_utils.networks import collapsed
from ansible_collections.paddock.fleet.plugins.module_utils.readiness import NotReady
from ansible_collections.paddock.fleet.plugins.module_utils.slots.history import Marks

SLOTS = ("blue", "green")
PREFLIGHT = "preflight"
UNITS = Path("/etc/systemd/system")
PROPERTIES = Path("/etc/systemd/system.control")
RUNTIME_UNITS = Path("/run/systemd/system")
# By this the role knows the users it made.
USER_COMMENT = "Paddock app"
SECRET = "environment.json"
# Only a slot that was ready is restarted for ever: a bad one would hit a start limit, and that closes the
# shared socket.
KEEP = "[Service]\nRestart=always\nRestartSec=1\n"
# The preflight slot has no clients. And Gunicorn waits its whole grace period for a worker that it
# stops while that starts.
BRIEF = "[Service]\nTimeoutStopSec=3\n"
LISTEN = "10-listen.conf"
# What root notes at each start of a slot, also at one after a crash or a reboot: of which start it is,
# and what runs. The app can tell systemd anything (StatusText), and cannot write here.
RECORDS = Path("/run/paddock")
RECORD = (
    f"ExecStartPre=+/bin/sh -c 'umask 077; mkdir -p {RECORDS};"
    f' echo "$INVOCATION_ID $PADDOCK_STATUS" >{RECORDS}/%N\'\n'
)
KEY = Path("/var/lib/paddock/stamp.key")


class Layout:
    """The app as it should be."""

    def __init__(self, module: AnsibleModule, name: str) -> None:
        """Look at an app that is on the host, or is about to be.

        Args:
            module: Runs programs.
            name: Name of the app and of its units and user.
        """
        self.module = module
        self.name = name
        self.config_dir = CONFIG / name
        self.socket = f"{name}.socket"
        self.marks = Marks(Path("/srv") / name)
        # What served before the last run that changed it.
        self.switch = self.config_dir / "switch.json"
        # Of all slots: the one that stops, or was changed, may still say its own.
        self.secrets = frozenset(
            value for path in self.config_dir.glob(f"*/{SECRET}") for value in _values(read(path))
        )
        # What a slot that is ready has to say to the user all the same.
        self.warnings: list[str] = []

    def describe(self, wanted: dict[str, Any], environment: str) -> None:
        """Take what the app should be: an entry of the module's option `apps`, its environment as JSON."""
        self.release, self.release_dir = wanted["release"], Path(wanted["release_dir"])
        self.health_path, self.boot_timeout = wanted["health_path"], wanted["boot_timeout"]
        self.watch_seconds, self.host = wanted["watch_seconds"], wanted["host"]
        self.socket_text, self.slot_text = wanted["socket_unit"], wanted["slot_unit"]
        self.clients = collapsed(wanted["clients"])
        about = {
            key: wanted[key] for key in ("release", "release_dir", "health_path", "boot_timeout", "host")
        }
        self.files = {
            "gunicorn.conf.py": wanted["config"],
            **wanted["programs"],
            ABOUT: json.dumps(about, indent=1) + "\n",
        }
        if environment:
            self.files[SECRET] = environment
            self.secrets |= {*_values(environment)}
        content = json.dumps([self.slot_text, self.files, str(self.release_dir)], sort_keys=True)
        # All users of the host see it: without a key, they could try passwords on it.
        self.stamp = hmac.digest(self.key(), content.encode(), "sha256").hex()[:16]
        # A slot's process tells systemd this when it is up, for people.
        self.status = f"release {self.release}, stamp {self.stamp}"
        self.socket_file = File(UNITS / self.socket, self.socket_text)
        self.checked_file = File(self.config_dir / "checked", self.stamp, 0o600)

    def key(self) -> bytes:
        """Key of this host's stamps, which is made at first use."""
        key = read(KEY)
        if not key and not self.module.check_mode:
            key = secrets.token_hex(32)
            File(KEY, key, 0o600).write()
        return key.encode()

    def about(self, slot: str) -> dict[str, Any]:
        """What a slot was when it was written; raises NotReady if that cannot be told."""
        path = self.config_dir / slot / ABOUT
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise NotReady(f"{path} cannot be read: {error}") from error

    def describe_as(self, slot: str) -> None:
        """Take what a slot was when it was written."""
        about = self.about(slot)
        self.release, self.release_dir = about["release"], Path(about["release_dir"])
        self.health_path, self.boot_timeout = about["health_path"], about["boot_timeout"]
        self.host = about.get("host", "localhost")  # a slot of an earlier checkout has none
        self.slot_text = read(UNITS / self.unit(slot))
        listen = read(self.drop_ins(slot) / LISTEN)
        self.status = re.search(r'PADDOCK_STATUS=(.*)"', listen)[1]  # type: ignore[index]

    def unit(self, slot: str) -> str:
        """Name of a slot's unit."""
        return f"{self.name}-{slot}.service"

    def socket_slot(self, slot: str) -> File:
        """Drop-in of the socket that leads it, and so the next boot, to a slot."""
        return File(UNITS / f"{self.socket}.d" / "10-slot.conf", f"[Socket]\nService={self.unit(slot)}\n")

    def links(self, slot: str) -> dict[Path, str]:
        """Links by which the socket and a slot are started at boot."""
        return {
            UNITS / "sockets.target.wants" / self.socket: f"../{self.socket}",
            self.boot_link(slot): f"../{self.unit(slot)}",
        }

    def boot_link(self, slot: str) -> Path:
        """Link by which a slot is started at boot."""
        return UNITS / "multi-user.target.wants" / self.unit(slot)

    def drop_ins(self, slot: str) -> Path:
        """Folder of what a slot's unit has in addition to its text."""
        return (RUNTIME_UNITS if slot == PREFLIGHT else UNITS) / f"{self.unit(slot)}.d"

    def keep(self, slot: str) -> File:
        """Drop-in of a slot that has been ready."""
        return File(self.drop_ins(slot) / "20-keep.conf", KEEP)

    def slot_files(self, slot: str) -> list[File]:
        """Files of a slot."""
        try:
            group = grp.getgrnam(self.name).gr_gid
        except KeyError:  # only under --check: the user is made before
            group = -1
        folder = self.config_dir / slot
        files = [File(folder / name, text, 0o640, group) for name, text in self.files.items()]
        if slot == PREFLIGHT:
            return [
                *files,
                File(RUNTIME_UNITS / self.unit(slot), self.slot_text),
                File(self.drop_ins(slot) / "10-brief.conf", BRIEF),
            ]
        listen = (
            f"[Unit]\nRequires={self.socket}\nAfter={self.socket}\n"
            f'[Service]\nSockets={self.socket}\nEnvironment="PADDOCK_STATUS={self.status}"\n{RECORD}'
        )
        return [
            *files,
            File(UNITS / self.unit(slot), self.slot_text),
            File(self.drop_ins(slot) / LISTEN, listen),
        ]

    def folder(self, slot: str) -> Path:
        """Where a slot's process has its own socket."""
        return Path("/run") / f"{self.name}-{slot}"

    def preflight_leaves(self) -> list[Path]:
        """Unit and folders of the preflight slot."""
        return [RUNTIME_UNITS / self.unit(PREFLIGHT), self.drop_ins(PREFLIGHT), self.config_dir / PREFLIGHT]

    def last_switch(self) -> dict[str, Any]:
        """What `remember` noted last; empty if nothing."""
        try:
            return json.loads(read(self.switch))
        except ValueError:
            return {}

    def mask(self, text: str) -> str:
        """Take the values of the app's environment, and control characters, out of what it said."""
        return masking.clean(text, self.secrets)


def other_than(slot: str | None) -> str:
    """The other slot; blue where there is none yet."""
    return "green" if slot == "blue" else "blue"


def _values(environment: str) -> list[str]:
    """Values of an environment's JSON, which are secret."""
    try:
        return [str(value) for value in json.loads(environment or "{}").values()]
    except (ValueError, AttributeError):
        return []  # the file was edited
