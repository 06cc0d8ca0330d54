#!/usr/bin/python
"""Bring one app of this host to a state: proven, serving or absent."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: gunicorn_slot
short_description: One app under Gunicorn in two systemd slots behind one socket
description:
  - An app has a socket unit that holds its port and two slots, C(blue) and C(green), of which one
    serves. A slot is a plain service unit that names one release.
  - What serves is read off the running process, never off a file that says what should run. So a
    run that was killed at any point is finished by the next.
  - A release is first booted in a third slot, C(preflight), which has the same sandbox and a
    socket of its own only. Nothing that serves is touched unless that succeeds.
options:
  state:
    description:
      - C(proven) boots the release aside and asks it whether it is ready.
      - C(serving) proves it if that has not been done, starts it in the idle slot, and stops the
        other slot when it answers.
      - C(absent) stops the app and removes its units and its configuration; releases stay.
    choices: [proven, serving, absent]
    required: true
    type: str
  name: {description: Name of the app and of its units and user., required: true, type: str}
  release: {description: Release id that the app must name when asked., type: str}
  release_dir: {description: Folder of the release., type: path}
  health_path: {description: Path that answers 200 when the app is ready., default: /readyz, type: str}
  boot_timeout: {description: Seconds until it must be ready., default: 60, type: int}
  socket_unit: {description: Text of the socket unit., type: str}
  slot_unit: {description: Text of a slot's service unit., type: str}
  config: {description: Text of gunicorn.conf.py., type: str}
  worker: {description: Text of the Tornado worker module., type: str}
  environment_json: {description: The app's environment variables as JSON., default: "", type: str}
"""

EXAMPLES = r"""
- name: Serve a release
  gunicorn_slot:
    state: serving
    name: requestme
    release: 3f2a9c1e77b0
    release_dir: /srv/requestme/releases/3f2a9c1e77b0-py3.13
    socket_unit: "{{ lookup('ansible.builtin.template', 'app.socket.j2') }}"
    slot_unit: "{{ lookup('ansible.builtin.template', 'slot.service.j2') }}"
    config: "{{ lookup('ansible.builtin.template', 'gunicorn.conf.py.j2') }}"
    worker: "{{ lookup('ansible.builtin.file', 'draining_tornado.py') }}"
"""

RETURN = r"""
slot: {description: The slot that serves., returned: when serving, type: str, sample: blue}
"""

import difflib
import grp
import hashlib
import http.client
import json
import os
import shutil
import socket
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

SLOTS = ("blue", "green")
PREFLIGHT = "preflight"
UNITS = Path("/etc/systemd/system")
RUNTIME_UNITS = Path("/run/systemd/system")
PACKAGED_UNITS = (Path("/usr/lib/systemd/system"), Path("/lib/systemd/system"))
# A release is ready when it says so this often in a row.
ANSWERS = 3
STAMP = "PADDOCK_STAMP"


class Unproven(Exception):
    """A slot does not answer as it should; the message says what it did."""


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class App:
    """The app on this host."""

    def __init__(self, module):
        self.module = module
        p = module.params
        self.name = p["name"]
        self.release, self.release_dir = p["release"], p["release_dir"]
        self.health_path, self.boot_timeout = p["health_path"], p["boot_timeout"]
        self.socket_text, self.slot_text = p["socket_unit"], p["slot_unit"]
        self.config_dir = Path("/etc/paddock") / self.name
        self.files = {"gunicorn.conf.py": p["config"], "draining_tornado.py": p["worker"]}
        if p["environment_json"]:
            self.files["environment.json"] = p["environment_json"]
        content = json.dumps([self.slot_text, self.files, str(self.release_dir)], sort_keys=True)
        self.stamp = hashlib.sha256(content.encode()).hexdigest()[:16]
        self.socket = f"{self.name}.socket"
        self.proven_file = self.config_dir / "proven"
        self.leads_to = UNITS / f"{self.socket}.d" / "10-slot.conf"

    # --- what is

    def unit(self, slot):
        return f"{self.name}-{slot}.service"

    def systemctl(self, *args, check=True):
        rc, out, err = self.module.run_command(["systemctl", "--no-ask-password", *args])
        if check and rc != 0:
            raise Unproven(f"`systemctl {' '.join(args)}` failed: {err.strip() or out.strip()}")
        return out.strip()

    def active(self, unit):
        return self.systemctl("is-active", unit, check=False) in ("active", "activating", "reloading", "deactivating")

    def running_stamp(self, slot):
        """Stamp that the slot's process was started with; None if none runs."""
        pid = self.systemctl("show", "--property=MainPID", "--value", self.unit(slot), check=False)
        try:
            environ = Path(f"/proc/{int(pid or 0)}/environ").read_bytes()
        except OSError:
            return None
        values = dict(entry.partition(b"=")[::2] for entry in environ.split(b"\0"))
        return values.get(STAMP.encode(), b"").decode() or None

    def enabled_slot(self):
        """Slot that the socket and the next boot lead to."""
        return next((slot for slot in SLOTS if _read(self.leads_to) == self.leading(slot)), None)

    def leading(self, slot):
        """Drop-in of the socket that leads it to a slot."""
        return f"[Socket]\nService={self.unit(slot)}\n"

    def want(self, slot):
        """Link by which a slot is started at boot."""
        return UNITS / "multi-user.target.wants" / self.unit(slot)

    def drop_in(self, slot, name):
        return UNITS / f"{self.unit(slot)}.d" / name

    def as_described(self, slot):
        """Whether this slot serves what is asked for, and nothing is left to do."""
        return (
            self.running_stamp(slot) == self.stamp
            and self.drop_in(slot, "20-keep.conf").exists()
            and self.enabled_slot() == slot
            and _read(UNITS / self.socket) == self.socket_text
            and self.active(self.socket)
            and not self.active(self.unit(other_than(slot)))
        )

    def diff(self):
        """The difference to what is on disk; the environment's values are nobody's to see."""
        slot = self.enabled_slot()
        before, after = {}, {self.socket: self.socket_text, "slot.service": self.slot_text}
        after.update((k, v) for k, v in self.files.items() if k != "environment.json")
        before[self.socket] = _read(UNITS / self.socket)
        before["slot.service"] = _read(UNITS / self.unit(slot)) if slot else ""
        for name in self.files:
            before[name] = _read(self.config_dir / slot / name) if slot else ""
        lines = []
        for name, text in after.items():
            lines += difflib.unified_diff(
                before[name].splitlines(), text.splitlines(), f"{self.name}: {name}", f"{self.name}: {name}", lineterm=""
            )
        old = _read(self.config_dir / slot / "environment.json") if slot else ""
        if old != self.files.get("environment.json", ""):
            lines.append(f"{self.name}: environment variables changed")
        return {"prepared": "\n".join(lines) + "\n"} if lines else {}

    # --- what changes it

    def write_slot(self, slot, units=UNITS):
        """Write the slot's configuration and unit."""
        folder = self.config_dir / slot
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        group = grp.getgrnam(self.name).gr_gid
        for path, mode in ((self.config_dir.parent, 0o755), (self.config_dir, 0o755), (folder, 0o750)):
            path.chmod(mode)
        os.chown(folder, 0, group)
        for name, text in self.files.items():
            _write(folder / name, text, 0o640)
            os.chown(folder / name, 0, group)
        units.mkdir(parents=True, exist_ok=True)
        _write(units / self.unit(slot), self.slot_text)

    def start(self, slot):
        self.systemctl("reset-failed", self.unit(slot), check=False)
        self.systemctl("start", self.unit(slot))

    def ask(self, slot):
        """One health check; raises Unproven with URL, status and answer."""
        path = Path("/run") / f"{self.name}-{slot}" / "probe.sock"
        url = f"http+unix:/{path}{self.health_path}"
        connection = _UnixConnection(path, timeout=5)
        try:
            connection.request("GET", self.health_path)
            response = connection.getresponse()
            body = response.read(65536).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise Unproven(f"GET {url}: {error or type(error).__name__}") from error
        finally:
            connection.close()
        if response.status != 200:
            raise Unproven(f"GET {url}: status {response.status}, want 200: {body.strip()[:300]}")
        if self.release not in body:
            raise Unproven(
                f"GET {url}: status 200, but the answer does not name the release {self.release}: the app"
                f" has to return the environment variable APP_RELEASE in it. It said: {body.strip()[:300]}"
            )

    def prove(self, slot):
        """Wait until the slot is ready; raises Unproven with the last answer."""
        deadline = time.monotonic() + self.boot_timeout
        answers = 0
        while answers < ANSWERS:
            try:
                self.ask(slot)
                answers += 1
            except Unproven as problem:
                answers = 0
                state = self.systemctl("is-active", self.unit(slot), check=False)
                if state not in ("active", "activating"):
                    raise Unproven(f"{self.unit(slot)} is {state}. {problem}") from problem
                if time.monotonic() > deadline:
                    raise Unproven(f"not ready after {self.boot_timeout} s. {problem}") from problem
                time.sleep(0.1)

    def log(self, slot):
        """The last lines that the slot said."""
        invocation = self.systemctl("show", "--property=InvocationID", "--value", self.unit(slot), check=False)
        _, out, _ = self.module.run_command(
            ["journalctl", "--no-pager", "--output=cat", "--lines=40", f"_SYSTEMD_INVOCATION_ID={invocation}"]
        )
        return out.strip()

    def preflight(self):
        """Boot the release beside what serves; raises Unproven with its log."""
        try:
            self.write_slot(PREFLIGHT, RUNTIME_UNITS)
            self.systemctl("daemon-reload")
            try:
                self.start(PREFLIGHT)
                self.prove(PREFLIGHT)
            except Unproven as problem:
                raise Unproven(f"{problem}\nLast lines of its log:\n{self.log(PREFLIGHT)}") from problem
        finally:
            self.systemctl("stop", self.unit(PREFLIGHT), check=False)
            self.systemctl("reset-failed", self.unit(PREFLIGHT), check=False)
            (RUNTIME_UNITS / self.unit(PREFLIGHT)).unlink(missing_ok=True)
            shutil.rmtree(self.config_dir / PREFLIGHT, ignore_errors=True)
        _write(self.proven_file, self.stamp)

    def enable(self, slot):
        """Lead the socket and the next boot to this slot."""
        self.want(slot).parent.mkdir(exist_ok=True)
        _link(self.want(slot), f"../{self.unit(slot)}")
        _write(self.leads_to, self.leading(slot))
        self.want(other_than(slot)).unlink(missing_ok=True)
        self.systemctl("daemon-reload")

    def take_over(self):
        """Start the release in the idle slot, on the shared socket; returns the slot."""
        now = next((slot for slot in SLOTS if self.running_stamp(slot)), self.enabled_slot())
        slot = other_than(now)
        self.systemctl("stop", self.unit(slot), check=False)
        self.write_slot(slot)
        self.drop_in(slot, "20-keep.conf").unlink(missing_ok=True)
        _write(
            self.drop_in(slot, "10-listen.conf"),
            f"[Unit]\nRequires={self.socket}\nAfter={self.socket}\n"
            f"[Service]\nSockets={self.socket}\nEnvironment={STAMP}={self.stamp}\n",
        )
        if self.enabled_slot() is None:
            # The socket does not start unless its service exists.
            self.enable(slot)
        self.systemctl("daemon-reload")
        try:
            self.start(slot)
            self.prove(slot)
        except Unproven as problem:
            log = self.log(slot)
            self.systemctl("stop", self.unit(slot), check=False)
            if now:
                self.systemctl("start", self.unit(now), check=False)
            raise Unproven(f"{problem}\nLast lines of its log:\n{log}") from problem
        return slot

    def serve(self):
        """Make the asked-for release the one that serves; returns its slot."""
        # Both slots run after a killed run; one that was not kept is not proven.
        slot = next(
            (s for s in SLOTS if self.running_stamp(s) == self.stamp and self.drop_in(s, "20-keep.conf").exists()), None
        )
        if slot is None and _read(self.proven_file) != self.stamp:
            self.preflight()
        if _read(UNITS / self.socket) != self.socket_text:
            # A listening socket cannot change its address. Its slots stop with it.
            self.systemctl("stop", self.socket, check=False)
            _write(UNITS / self.socket, self.socket_text)
            self.systemctl("daemon-reload")
        self.systemctl("reset-failed", self.socket, check=False)
        if slot is None or self.running_stamp(slot) != self.stamp:
            slot = self.take_over()
        # Only a proven slot is restarted for ever: a start limit that a bad one hits would close
        # the shared socket.
        _write(self.drop_in(slot, "20-keep.conf"), "[Service]\nRestart=always\nRestartSec=1\n")
        self.enable(slot)
        self.systemctl("enable", "--now", self.socket)
        self.systemctl("stop", self.unit(other_than(slot)), check=False)
        self.mark_good()
        return slot

    def mark_good(self):
        """Leave a link that says that this release has served, and when it last began to."""
        good = Path(self.release_dir).parent.parent / "good"
        good.mkdir(exist_ok=True)
        _link(good / Path(self.release_dir).name, self.release_dir)

    def remove(self):
        """Stop the app and remove what makes it run."""
        units = [self.socket, *map(self.unit, SLOTS)]
        self.systemctl("stop", *units, check=False)
        self.systemctl("disable", self.socket, check=False)
        for slot in SLOTS:
            self.want(slot).unlink(missing_ok=True)
        for unit in units:
            (UNITS / unit).unlink(missing_ok=True)
            shutil.rmtree(UNITS / f"{unit}.d", ignore_errors=True)
        shutil.rmtree(self.config_dir)
        self.systemctl("daemon-reload")
        self.systemctl("reset-failed", *units, check=False)


def other_than(slot):
    """The other slot; blue where there is none yet."""
    return "green" if slot == "blue" else "blue"


def _read(path):
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _write(path, text, mode=0o644):
    """Write a whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.chmod(mode)
    part.replace(path)


def _link(path, target):
    """Point a symbolic link at a target, in one step."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    part.symlink_to(target)
    part.replace(path)


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"choices": ["proven", "serving", "absent"], "required": True},
            "name": {"required": True},
            "release": {},
            "release_dir": {"type": "path"},
            "health_path": {"default": "/readyz"},
            "boot_timeout": {"type": "int", "default": 60},
            "socket_unit": {},
            "slot_unit": {},
            "config": {},
            "worker": {},
            "environment_json": {"default": "", "no_log": True},
        },
        required_if=[
            ("state", state, ["release", "release_dir", "socket_unit", "slot_unit", "config", "worker"])
            for state in ("proven", "serving")
        ],
        supports_check_mode=True,
    )
    state = module.params["state"]
    app = App(module)
    if state == "absent":
        if not module.check_mode:
            app.remove()
        module.exit_json(changed=True)

    foreign = [
        str(folder / unit)
        for folder in PACKAGED_UNITS
        for unit in (f"{app.name}.service", app.socket)
        if (folder / unit).exists()
    ]
    if foreign:
        module.fail_json(msg=f"{app.name}: {foreign[0]} belongs to a package of this host; give the app another name")
    serving = next((slot for slot in SLOTS if app.as_described(slot)), None)
    if serving:
        module.exit_json(changed=False, slot=serving)
    if module.check_mode:
        module.exit_json(changed=state == "serving", diff=app.diff() if state == "serving" else {})
    diff = app.diff()
    try:
        if state == "proven":
            if _read(app.proven_file) != app.stamp and app.stamp not in map(app.running_stamp, SLOTS):
                app.preflight()
            module.exit_json(changed=False)
        slot = app.serve()
    except Unproven as problem:
        still = app.enabled_slot()
        alive = still and app.active(app.unit(still))
        state = f"the release before it keeps serving ({app.unit(still)})" if alive else "no release of it serves"
        module.fail_json(
            msg=f"{app.name} {app.release} did not prove itself on {socket.gethostname()}; {state}.\n{problem}\n"
            f"Mend the app and run the playbook again."
        )
    module.exit_json(changed=True, slot=slot, diff=diff)


if __name__ == "__main__":
    main()
