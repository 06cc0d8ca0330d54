"""One app of a host: two systemd slots behind one socket, and what is known of its releases."""

from __future__ import annotations

import contextlib
import datetime
import difflib
import grp
import hashlib
import json
import os
import pwd
import re
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

from ansible.module_utils import app_list, readiness, release_files
from ansible.module_utils.app_list import ABOUT, CONFIG
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.networks import collapsed, with_loopback
from ansible.module_utils.readiness import Hopeless, Unproven

SLOTS = ("blue", "green")
PREFLIGHT = "preflight"
HISTORY = Path("/var/lib/paddock/history.jsonl")
HISTORY_BYTES = 1 << 20
UNITS = Path("/etc/systemd/system")
PROPERTIES = Path("/etc/systemd/system.control")
RUNTIME_UNITS = Path("/run/systemd/system")
PACKAGED_UNITS = (Path("/usr/lib/systemd/system"), Path("/lib/systemd/system"))
# By this the role knows the users it made.
USER_COMMENT = "Paddock app"
SECRET = "environment.json"
# Only a proven slot is restarted for ever: a start limit that a bad one hits would close the
# shared socket.
KEEP = "[Service]\nRestart=always\nRestartSec=1\n"
# Nobody talks to the preflight slot. And Gunicorn waits its whole grace period for a worker that it
# told to end in the moment of its birth.
BRIEF = "[Service]\nTimeoutStopSec=3\n"
LISTEN = "10-listen.conf"
# A release is ready when it says so this often in a row.
ANSWERS = 3


class Serving(NamedTuple):
    """What serves."""

    slot: str
    release: str


class Unit(NamedTuple):
    """What systemd says of a unit."""

    state: str
    status: str
    reload_pending: bool
    clients: frozenset[str]

    @property
    def up(self) -> bool:
        """Whether it runs, or is about to begin or to end."""
        return self.state not in ("inactive", "failed")


class File(NamedTuple):
    """A file as it should be."""

    path: Path
    text: str
    mode: int = 0o644
    group: int = 0

    def there(self) -> bool:
        """Whether it is so."""
        try:
            found = self.path.lstat()
            same = (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (self.mode, 0, self.group)
            return same and self.path.read_text(encoding="utf-8") == self.text
        except (OSError, UnicodeDecodeError):
            return False

    def write(self) -> None:
        """Write a whole file or none; nobody reads it before it has its mode."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f".{self.path.name}.part")
        part.unlink(missing_ok=True)
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            os.fchown(file.fileno(), 0, self.group)
            os.fchmod(file.fileno(), self.mode)
            file.write(self.text)
        part.replace(self.path)


class Marks:
    """Which releases of an app have served well (links in good/) and which failed (files in bad/).

    A release is known by the name of its folder, and has one mark at most: the last verdict. A bad one that
    has served is in held/ too: it is held back until it serves again.
    """

    def __init__(self, home: Path) -> None:
        self.releases = home / "releases"
        self._good, self._bad, self._held = home / "good", home / "bad", home / "held"

    def good_link(self, name: str) -> Path:
        """Where the link of a good release is. The newest one leads to the release that serves."""
        return self._good / name

    def good(self, name: str) -> None:
        """Mark a release as good, now."""
        _link(self.good_link(name), str(self.releases / name))
        (self._bad / name).unlink(missing_ok=True)
        (self._held / name).unlink(missing_ok=True)

    def bad(self, name: str, reason: str) -> None:
        """Mark a release as bad."""
        File(self._bad / name, f"{reason.strip()}\n").write()
        self.good_link(name).unlink(missing_ok=True)

    def hold(self, name: str, reason: str) -> None:
        """Mark a release that has served as bad, and hold it back. The mark outlives its folder."""
        self.bad(name, reason)
        File(self._held / name, "").write()

    def held(self) -> dict[str, str]:
        """Say why each release is held back, by its id."""
        return {
            path.name.rpartition("-py")[0]: _read(self._bad / path.name).strip()
            for path in self._held.glob("*-py*")
        }

    def listed(self) -> list[dict[str, Any]]:
        """Say of each release on this host when it was marked as good (seconds), or why as bad."""
        found = []
        for path in sorted(self.releases.glob("*-py*")):
            link = self.good_link(path.name)
            found.append(
                {
                    "name": path.name,
                    "release": path.name.rpartition("-py")[0],
                    "good": link.lstat().st_mtime if link.is_symlink() else None,
                    "bad": _read(self._bad / path.name).strip() or None,
                }
            )
        return found


def note(**entry: object) -> None:
    """Append a line to this host's history of deploys."""
    HISTORY.parent.mkdir(parents=True, exist_ok=True)
    old = _read(HISTORY)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    line = json.dumps({"when": now, **entry}) + "\n"
    if len(old) > HISTORY_BYTES:
        File(HISTORY, old[old.index("\n", len(old) // 2) + 1 :] + line, 0o640).write()
        return
    with open(os.open(HISTORY, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640), "a", encoding="utf-8") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def history() -> list[dict[str, Any]]:
    """Deploys on this host, the oldest first; a line that a power failure cut is left out."""
    entries = []
    for line in _read(HISTORY).splitlines():
        with contextlib.suppress(ValueError):
            entries.append(json.loads(line))
    return entries


class App:
    """The app on this host."""

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
        self.secrets: list[str] = []
        # What a slot that is ready has to say to the user all the same.
        self.warnings: list[str] = []

    def describe(self, wanted: dict[str, Any]) -> None:
        """Take what the app should be: an entry of the module's option `apps`."""
        self.release, self.release_dir = wanted["release"], Path(wanted["release_dir"])
        self.health_path, self.boot_timeout = wanted["health_path"], wanted["boot_timeout"]
        self.watch_seconds, self.host = wanted["watch_seconds"], wanted["host"]
        self.socket_text, self.slot_text = wanted["socket_unit"], wanted["slot_unit"]
        self.clients = with_loopback(wanted["clients"])
        about = {
            key: wanted[key] for key in ("release", "release_dir", "health_path", "boot_timeout", "host")
        }
        self.files = {
            "gunicorn.conf.py": wanted["config"],
            **wanted["programs"],
            ABOUT: json.dumps(about, indent=1) + "\n",
        }
        if wanted["environment_json"]:
            self.files[SECRET] = wanted["environment_json"]
            self.secrets = _secrets(wanted["environment_json"])
        content = json.dumps([self.slot_text, self.files, str(self.release_dir)], sort_keys=True)
        self.stamp = hashlib.sha256(content.encode()).hexdigest()[:16]
        # A slot's process tells systemd this when it is up.
        self.status = f"release {self.release}, stamp {self.stamp}"
        self.socket_file = File(UNITS / self.socket, self.socket_text)
        self.proven_file = File(self.config_dir / "proven", self.stamp)

    def about(self, slot: str) -> dict[str, Any]:
        """What a slot was when it was written; raises Unproven if that cannot be told."""
        path = self.config_dir / slot / ABOUT
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise Unproven(f"{path} cannot be read: {error}") from error

    def describe_as(self, slot: str) -> None:
        """Take what a slot was when it was written."""
        about = self.about(slot)
        self.release, self.release_dir = about["release"], Path(about["release_dir"])
        self.health_path, self.boot_timeout = about["health_path"], about["boot_timeout"]
        self.host = about.get("host", "localhost")  # a slot of an earlier checkout has none
        self.secrets = _secrets(_read(self.config_dir / slot / SECRET))
        listen = _read(self.drop_ins(slot) / LISTEN)
        self.status = re.search(r'PADDOCK_STATUS=(.*)"', listen)[1]  # type: ignore[index]

    # --- what should be

    def unit(self, slot: str) -> str:
        """Name of a slot's unit."""
        return f"{self.name}-{slot}.service"

    def leading(self, slot: str) -> File:
        """Drop-in of the socket that leads it, and so the next boot, to a slot."""
        return File(UNITS / f"{self.socket}.d" / "10-slot.conf", f"[Socket]\nService={self.unit(slot)}\n")

    def links(self, slot: str) -> dict[Path, str]:
        """Links by which the socket and a slot are started at boot."""
        return {
            UNITS / "sockets.target.wants" / self.socket: f"../{self.socket}",
            self.want(slot): f"../{self.unit(slot)}",
        }

    def want(self, slot: str) -> Path:
        """Link by which a slot is started at boot."""
        return UNITS / "multi-user.target.wants" / self.unit(slot)

    def drop_ins(self, slot: str) -> Path:
        """Folder of what a slot's unit has beside its text."""
        return (RUNTIME_UNITS if slot == PREFLIGHT else UNITS) / f"{self.unit(slot)}.d"

    def keep(self, slot: str) -> File:
        """Drop-in of a slot that has proven itself."""
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
            f'[Service]\nSockets={self.socket}\nEnvironment="PADDOCK_STATUS={self.status}"\n'
        )
        return [
            *files,
            File(UNITS / self.unit(slot), self.slot_text),
            File(self.drop_ins(slot) / LISTEN, listen),
        ]

    # --- what is

    def systemctl(self, *args: str, check: bool = True) -> str:
        """Run systemctl; returns what it printed, raises Unproven if it fails."""
        rc, out, err = self.module.run_command(["systemctl", "--no-ask-password", *args])
        if check and rc != 0:
            raise Unproven(f"`systemctl {' '.join(args)}` failed: {err.strip() or out.strip()}")
        return out.strip()

    def units(self) -> dict[str, Unit]:
        """What systemd says of the socket and of each slot, at one moment."""
        keys = [self.socket, *SLOTS, PREFLIGHT]
        said = self.systemctl(
            "show",
            "--property=ActiveState,StatusText,NeedDaemonReload,IPAddressAllow,IPAddressDeny",
            *(key if key == self.socket else self.unit(key) for key in keys),
        )
        units = {}
        for key, block in zip(keys, said.split("\n\n"), strict=True):
            values = dict(line.partition("=")[::2] for line in block.splitlines())
            units[key] = Unit(
                state=values["ActiveState"],
                status=values.get("StatusText", ""),
                reload_pending=values["NeedDaemonReload"] == "yes",
                clients=collapsed(values["IPAddressAllow"].split() if values["IPAddressDeny"] else ()),
            )
        return units

    def enabled_slot(self) -> str | None:
        """Slot that the socket and the next boot lead to."""
        return next((slot for slot in SLOTS if self.leading(slot).there()), None)

    def serving(self, units: dict[str, Unit]) -> Serving | None:
        """What serves; of two slots that a killed run left, the one that is enabled."""
        enabled = self.enabled_slot()
        for slot in sorted(SLOTS, key=lambda slot: slot != enabled):
            said = re.fullmatch(r"release (\S+), stamp \S+", units[slot].status)
            if said and units[slot].state == "active":
                return Serving(slot, said[1])
        return None

    def port(self) -> str:
        """What the socket on this host listens on."""
        found = re.search(r"^ListenStream=(.*)$", _read(UNITS / self.socket), re.MULTILINE)
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
        """What is left to do until this slot serves what is asked for; empty if nothing is."""
        other = other_than(slot)
        faults = self.slot_faults(slot, units)
        files = (self.socket_file, self.leading(slot))
        faults += [f"{file.path} is not as described" for file in files if not file.there()]
        good_link = self.marks.good_link(self.release_dir.name)
        links = {**self.links(slot), good_link: str(self.release_dir)}
        faults += [f"{link} does not lead to {to}" for link, to in links.items() if _to(link) != to]
        if units[self.socket].state != "active":
            faults.append(f"{self.socket} is {units[self.socket].state}")
        if units[other].up or _to(self.want(other)):
            faults.append(f"{self.unit(other)} is {units[other].state}, or would be started at boot")
        if units[PREFLIGHT].up or any(path.exists() for path in self.preflight_leaves()):
            faults.append(f"{self.unit(PREFLIGHT)} was left behind")
        if units[self.socket].clients != self.clients:
            faults.append(f"{self.socket} lets in {', '.join(sorted(units[self.socket].clients)) or 'all'}")
        if any(units[key].reload_pending for key in (self.socket, slot)):
            faults.append("systemd has not read its units again")
        return faults

    def diff(self, faults: list[str]) -> dict[str, str]:
        """What is wrong and how the files differ; the environment's values are nobody's to see."""
        lines = [f"{self.name}: {fault}" for fault in faults]
        slot = self.enabled_slot() or SLOTS[0]
        for file in [self.socket_file, *self.slot_files(slot)]:
            if file.path.name != SECRET:
                path = str(file.path)
                old, new = _read(file.path).splitlines(), file.text.splitlines()
                lines += difflib.unified_diff(old, new, path, path, lineterm="")
        return {"prepared": "\n".join(lines) + "\n"}

    def taken(self) -> str:
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

    # --- what asks it

    def folder(self, slot: str) -> Path:
        """Where a slot's process has its own socket."""
        return Path("/run") / f"{self.name}-{slot}"

    def ask(self, slot: str) -> None:
        """One readiness check; raises Unproven with URL, status and answer."""
        readiness.ask(self.folder(slot) / "probe.sock", self.health_path, self.host, self.release)

    def prove(self, slot: str, began: float) -> None:
        """Wait until the slot is ready; raises Unproven with the last answer."""
        deadline = time.monotonic() + self.boot_timeout
        answers = 0
        while answers < ANSWERS:
            try:
                self.ask(slot)
                readiness.count(self.folder(slot))
                answers += 1
            except Hopeless:
                raise
            except Unproven as problem:
                answers = 0
                state = self.units()[slot].state
                if state not in ("active", "activating"):
                    raise Unproven(f"{self.unit(slot)} is {state}. {problem}") from problem
                if time.monotonic() > deadline:
                    raise Unproven(f"not ready after {self.boot_timeout} s. {problem}") from problem
                readiness.tell(self.name, slot, self.boot_timeout, began, self.hide(str(problem)))
                time.sleep(0.1)
        self.warnings = self.hide(readiness.read_from_app(self.folder(slot) / "warnings")).splitlines()

    def log(self, *units: str) -> str:
        """The last lines of what these units, and systemd about them, said since their last start."""
        self.module.run_command(["journalctl", "--sync"])
        matches: list[str] = []
        for unit in units:
            invocation = self.systemctl("show", "--property=InvocationID", "--value", unit, check=False)
            if invocation:
                matches += ["+"] if matches else []
                matches += [f"_SYSTEMD_INVOCATION_ID={invocation}", "+", f"INVOCATION_ID={invocation}"]
        if not matches:
            return "(none)"
        command = ["journalctl", "--no-pager", "--output=cat", "--lines=40", *matches]
        return self.module.run_command(command)[1].strip()

    def hide(self, text: str) -> str:
        """Take the values of the app's environment out of what it said."""
        for secret in self.secrets:
            if len(secret) > 3:
                text = text.replace(secret, "********")
        return text

    # --- what changes it

    def claim(self) -> None:
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

    def write_slot(self, slot: str) -> None:
        """Write the slot's configuration and unit, and nothing beside them."""
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

    def start(self, slot: str) -> None:
        """Start a slot and wait until it is ready; raises Unproven with its log."""
        units = [self.unit(slot)] if slot == PREFLIGHT else [self.socket, self.unit(slot)]
        began = readiness.now()
        readiness.tell(self.name, slot, self.boot_timeout, began, f"{self.unit(slot)} is starting")
        try:
            self.systemctl("reset-failed", self.unit(slot), check=False)
            # One by one: of two at once, systemd only says that a dependency failed.
            for unit in units:
                self.systemctl("start", unit)
            self.prove(slot, began)
        except Unproven as problem:
            raise Unproven(f"{problem}\nLast lines of its log:\n{self.log(*units)}") from problem
        finally:
            readiness.tell_no_more()

    def admit(self, clients: frozenset[str]) -> None:
        """Let only these networks connect; all, if there are none. The socket goes on listening.

        A drop-in would take effect when the socket is next opened only. Of a socket that is passed on,
        its own list counts, not that of the service.
        """
        denied = ["IPAddressDeny=any", f"IPAddressAllow={' '.join(sorted(clients))}"] if clients else []
        self.systemctl("set-property", self.socket, "IPAddressDeny=", "IPAddressAllow=", *denied)

    def preflight_leaves(self) -> list[Path]:
        """Unit and folders of the preflight slot."""
        return [RUNTIME_UNITS / self.unit(PREFLIGHT), self.drop_ins(PREFLIGHT), self.config_dir / PREFLIGHT]

    def sweep(self) -> None:
        """Remove the preflight slot."""
        self.systemctl("stop", self.unit(PREFLIGHT), check=False)
        self.systemctl("reset-failed", self.unit(PREFLIGHT), check=False)
        unit, *folders = self.preflight_leaves()
        unit.unlink(missing_ok=True)
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)

    def watch(self) -> None:
        """See that a release that never served stays up for a while; raises Unproven with its log."""
        deadline = time.monotonic() + self.watch_seconds
        try:
            while time.monotonic() < deadline:
                time.sleep(0.2)
                state = self.units()[PREFLIGHT].state
                if state != "active":
                    raise Unproven(f"{self.unit(PREFLIGHT)} was ready, and then {state}")
            if self.watch_seconds:
                self.ask(PREFLIGHT)
        except Unproven as problem:
            log = self.log(self.unit(PREFLIGHT))
            raise Unproven(f"{problem}\nLast lines of its log:\n{log}") from problem

    def preflight(self) -> None:
        """Boot the release beside what serves; raises Unproven with its log."""
        self.sweep()  # a killed run may have left another release there
        try:
            self.write_slot(PREFLIGHT)
            self.start(PREFLIGHT)
            if not self.marks.good_link(self.release_dir.name).is_symlink():
                self.watch()
        finally:
            self.sweep()
        self.proven_file.write()

    def enable(self, slot: str) -> None:
        """Lead the socket and the next boot to this slot."""
        for path, target in self.links(slot).items():
            _link(path, target)
        self.leading(slot).write()
        self.want(other_than(slot)).unlink(missing_ok=True)
        self.systemctl("daemon-reload")

    def stop_all(self) -> None:
        """Stop the socket and the slots; they may have lost each other."""
        self.systemctl("stop", self.socket, *map(self.unit, SLOTS), check=False)
        self.systemctl("reset-failed", self.socket, *map(self.unit, SLOTS), check=False)

    def serves(self, units: dict[str, Unit]) -> bool:
        """Whether the described release serves already, in whatever slot; also if that cannot be told."""
        now = self.serving(units)
        try:
            return bool(now) and self.about(now.slot)["release_dir"] == str(self.release_dir)
        except Unproven:
            return True

    def take_over(self, units: dict[str, Unit], run: str) -> str:
        """Start the release in the idle slot, on the shared socket; returns the slot."""
        # Both slots run after a killed run. The one that is enabled was proven, the other perhaps not.
        enabled = self.enabled_slot()
        running = [slot for slot in SLOTS if units[slot].up]
        now = enabled if enabled in running or not running else running[0]
        slot = other_than(now)
        if not self.serves(units):
            release_files.stamp(self.release_dir, release_files.began(run))
        self.systemctl("stop", self.unit(slot), check=False)
        self.write_slot(slot)
        if enabled is None:
            # The socket does not start unless its service exists.
            self.enable(now or slot)
        try:
            self.start(slot)
        except Unproven:
            self.proven_file.path.unlink(missing_ok=True)
            self.systemctl("stop", self.unit(slot), check=False)
            if now:
                self.systemctl("start", self.unit(now), check=False)
            else:
                self.remove()  # nothing of it may start at the next boot
            raise
        return slot

    def serve(self, units: dict[str, Unit], run: str) -> str:
        """Make the described release the one that serves; returns its slot."""
        self.sweep()
        before = self.serving(units)
        slot = next((slot for slot in SLOTS if not self.slot_faults(slot, units)), None)
        if slot is None and self.enabled_slot() and not self.proven_file.there():
            self.preflight()
        socket_before, clients_before = _read(self.socket_file.path), units[self.socket].clients
        if not self.socket_file.there() or units[self.socket].state != "active":
            # A socket cannot change its address while it listens, nor start while its slot runs.
            self.stop_all()
            self.socket_file.write()
            self.systemctl("daemon-reload")
            units, slot = self.units(), None
        if units[self.socket].clients != self.clients:
            self.admit(self.clients)
        if slot is None:
            slot = self.take_over(units, run)
        self.remember(run, before, slot, socket_before, clients_before)
        self.keep(slot).write()
        # Before the other one stops: from here on the release may not be pruned.
        self.marks.good(self.release_dir.name)
        self.enable(slot)
        self.systemctl("stop", self.unit(other_than(slot)), check=False)
        return slot

    def remember(
        self, run: str, before: Serving | None, slot: str, socket_unit: str, clients: frozenset[str]
    ) -> None:
        """Note what served before this run, for `give_back`."""
        known = self.last_switch()
        if known.get("run") == run and known["slot"] != slot:
            return  # it goes on with what a killed run began
        record = {"run": run, "slot": None, "release": None}
        record |= {"socket_unit": socket_unit, "clients": sorted(clients)}
        if before:
            record |= before._asdict()
        File(self.switch, json.dumps(record, indent=1) + "\n", 0o600).write()

    def last_switch(self) -> dict[str, Any]:
        """What `remember` noted last; empty if nothing."""
        try:
            return json.loads(_read(self.switch))
        except ValueError:
            return {}

    def give_back(self, run: str, reason: str) -> Serving | None:
        """Return to what served before a run; returns what is left. Does nothing if that run changed nothing.

        The slot that served is still there, with the unit and the configuration it had, so this needs
        no description. What is left is marked as bad. Raises Unproven if the slot does not come up;
        then all stays as it is.
        """
        record = self.last_switch()
        if not run or record.get("run") != run:
            return None
        units = self.units()
        tried = self.serving(units)
        if tried:
            name = Path(self.about(tried.slot)["release_dir"]).name
        kept = ""
        if record["slot"] is None:
            self.remove()
        else:
            self.resume(record, units, run)
            kept = self.release_dir.name
            self.switch.unlink()
        if tried and name != kept and reason:
            self.marks.hold(name, reason)
        return tried

    def resume(self, record: dict[str, Any], units: dict[str, Unit], run: str) -> None:
        """Let a slot that has served before serve again; raises Unproven."""
        self.sweep()
        slot = record["slot"]
        self.describe_as(slot)
        other = other_than(slot)
        if not self.serves(units):
            # Later than the files of what the run has brought.
            release_files.stamp(self.release_dir, release_files.began(run) + 1)
        if units[self.socket].clients != collapsed(record["clients"]):
            self.admit(collapsed(record["clients"]))
        socket_file = File(UNITS / self.socket, record["socket_unit"])
        if not socket_file.there():
            self.stop_all()
            socket_file.write()
            units = self.units()
        if (units[slot].state, units[slot].status) != ("active", self.status):
            self.keep(slot).path.unlink(missing_ok=True)
            self.systemctl("daemon-reload")
            try:
                self.start(slot)
            except Unproven:
                self.systemctl("stop", self.unit(slot), check=False)
                self.systemctl("start", self.unit(other), check=False)
                raise
        self.keep(slot).write()
        self.marks.good(self.release_dir.name)
        self.enable(slot)
        # What was proven last is not what serves: it has to prove itself again.
        (self.config_dir / "proven").unlink(missing_ok=True)
        self.systemctl("stop", self.unit(other), check=False)

    def remove(self) -> None:
        """Stop the app and remove what makes it run."""
        self.sweep()
        self.stop_all()
        (UNITS / "sockets.target.wants" / self.socket).unlink(missing_ok=True)
        for slot in SLOTS:
            self.want(slot).unlink(missing_ok=True)
        for unit in (self.socket, *map(self.unit, SLOTS)):
            (UNITS / unit).unlink(missing_ok=True)
            shutil.rmtree(UNITS / f"{unit}.d", ignore_errors=True)
        shutil.rmtree(PROPERTIES / f"{self.socket}.d", ignore_errors=True)
        self.systemctl("daemon-reload")
        shutil.rmtree(self.config_dir, ignore_errors=True)
        # Last: by its name in the list the next run knows that there is something to remove.
        app_list.drop(self.name)


def other_than(slot: str | None) -> str:
    """The other slot; blue where there is none yet."""
    return "green" if slot == "blue" else "blue"


def _secrets(environment_json: str) -> list[str]:
    """Values that nobody may see, the longest first."""
    values = json.loads(environment_json or "{}").values()
    return sorted(values, key=len, reverse=True)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _to(path: Path) -> str:
    """Where a symbolic link points; empty if there is none."""
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _link(path: Path, target: str) -> None:
    """Point a symbolic link at a target, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    part.symlink_to(target)
    part.replace(path)
