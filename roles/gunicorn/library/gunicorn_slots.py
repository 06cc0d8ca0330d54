#!/usr/bin/python
"""Bring the apps of this host to a state: proven, serving, or as before a run."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: gunicorn_slots
short_description: Apps under Gunicorn, each in two systemd slots behind one socket
description:
  - An app has a socket unit that holds its port and two slots, C(blue) and C(green), of which one
    serves. A slot is a plain service unit that names one release.
  - What serves is asked of systemd, which has it from the running process, never read off a file
    that says what should run. So a run that was killed at any point is finished by the next.
  - A release is first booted in a third slot, C(preflight), which has the same sandbox and a
    socket of its own only. Nothing that serves is touched unless that succeeds.
  - The app's user is made too, and its name refused if something else on the host goes by it.
  - The names of the apps that this module looks after are in C(/var/lib/paddock/apps.json). Nothing else in
    C(/etc/paddock) is touched.
  - One call at a time works on a host. What a killed run left behind on the host is waited for.
  - Each change, and each release that was refused, is a line of C(/var/lib/paddock/history.jsonl).
  - The action plugin of the same name fills in C(apps).
options:
  state:
    description:
      - C(proven) boots the releases aside and asks each whether it is ready. Where an app has never
        served there is nothing to protect, and its release serves at once.
      - C(serving) proves what has not been proven, starts it in the idle slot, and stops the other
        slot when it answers.
      - C(returned) takes back what O(run) has changed on this host, with the slots it left. In check
        mode it tells what that would be.
      - C(exclusive) stops the apps that are not in O(stay) and removes their units and their
        configuration; their releases stay.
      - C(listed) changes nothing and tells the releases of each app and the history of the host.
    choices: [proven, serving, returned, exclusive, listed]
    required: true
    type: str
  apps: {description: The apps as they should be., type: list, elements: dict}
  stay: {description: Names of the apps of this host., type: list, elements: str}
  run: {description: Id of this run., type: str, default: ""}
  by: {description: Who runs it; for the history., type: str, default: ""}
  reason:
    description:
      - Why a release is marked as bad. With C(serving) it is the one that is left; empty leaves its mark.
      - With C(returned) it is the one that the run has brought.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Prove the releases
  gunicorn_slots:
    state: proven
    apps: "{{ gunicorn_apps | map(attribute='name') }}"
"""

RETURN = r"""
pending:
  description: Whether something is left to do until the apps serve as described.
  returned: when proven
  type: bool
leaving: {description: Apps of this host that are not in O(stay)., returned: when proven, type: list}
apps:
  description:
    - By the name of the app, C(before) and C(now) are release ids or null, C(seconds) is how long it took.
    - With C(listed) its C(releases), and by release id why each one in C(held) is held back.
  returned: always, unless exclusive
  type: dict
history: {description: Lines of the history., returned: when listed, type: list}
said: {description: What was done, for people., returned: always, type: list}
"""

import fcntl
import socket
import time
from typing import Any

from ansible.module_utils import app_list
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.slotted_app import SLOTS, App, Serving, Unproven, history, note

DESCRIPTION = {
    "name": {"required": True},
    "release": {"required": True},
    "release_dir": {"type": "path", "required": True},
    "host": {"required": True},
    "health_path": {"required": True},
    "boot_timeout": {"type": "int", "required": True},
    "watch_seconds": {"type": "int", "required": True},
    "socket_unit": {"required": True},
    "clients": {"type": "list", "elements": "str", "required": True},
    "slot_unit": {"required": True},
    "config": {"required": True},
    "programs": {"type": "dict", "required": True},
    "environment_json": {"default": "", "no_log": True},
}
HOST = socket.gethostname()


class Slots:
    """The apps of this host and what this call does to them."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.run, self.by = module.params["run"], module.params["by"]
        self.reason = module.params["reason"]
        self.here = app_list.listed()
        self.leaving = [name for name in self.here if name not in (module.params["stay"] or self.here)]
        self.apps = []
        for wanted in module.params["apps"] or []:
            app = App(module, wanted["name"])
            app.describe(wanted)
            self.apps.append(app)
        self.said: list[str] = []
        self.diff: list[str] = []
        # What each app served before and serves now, for the report of the run.
        self.served: dict[str, dict[str, Any]] = {}

    def note(
        self, app: App, before: str | None, now: str | None, outcome: str, since: float, **more: str
    ) -> None:
        """Put down what was done, for the history and for who watches the run."""
        seconds = round(time.monotonic() - since, 1)
        note(
            **{"who": self.by, "run": self.run, "app": app.name, "from": before, "to": now},
            **{"outcome": outcome, "seconds": seconds, **more},
        )
        self.said.append(f"{app.name}: {before or 'nothing'} -> {now or 'nothing'}, {outcome}, {seconds} s")
        self.said += [f"{app.name}: warning: {warning}" for warning in app.warnings]

    def count(self, name: str, before: Serving | None, now: str | None, since: float | None = None) -> None:
        """Put down for the report of the run what an app serves."""
        seconds = None if since is None else round(time.monotonic() - since, 1)
        self.served[name] = {"before": before and before.release, "now": now, "seconds": seconds}

    def refuse_taken(self) -> None:
        """Fail if something else on the host goes by an app's name."""
        taken = [(app.name, what) for app in self.apps if (what := app.taken())]
        if taken:
            lines = [f"{name}: {what} on {HOST}; give the app another name" for name, what in taken]
            self.module.fail_json(msg="\n".join(lines))

    def refused(self, app: App, problem: Unproven, since: float) -> str:
        """Put down that a release did not prove itself; returns the message."""
        units = app.units()
        alive = [app.unit(slot) for slot in SLOTS if units[slot].state == "active"]
        outcome = f"the release before it keeps serving ({alive[0]})" if alive else "no release of it serves"
        said = app.hide(str(problem))
        name = app.release_dir.name
        if not app.marks.good_link(name).is_symlink():  # else it is the settings that do not work
            app.marks.bad(name, said)
        now = app.serving(units)
        self.note(app, now and now.release, app.release, "refused", since, reason=said.splitlines()[0])
        return f"{app.name} {app.release} did not prove itself on {HOST}; {outcome}.\n{said}"

    def fail(self, messages: list[str]) -> None:
        """End with what went wrong."""
        messages = [*messages, "Mend the app and run the playbook again."]
        self.module.fail_json(msg="\n".join(messages), said=self.said)

    def proven(self) -> dict[str, object]:
        """Prove each app; where it never served, serve it."""
        pending, changed, problems = bool(self.leaving), False, []
        for name in self.leaving:
            app = App(self.module, name)
            self.count(name, app.serving(app.units()), None)
        for app in self.apps:
            since, units = time.monotonic(), app.units()
            before = app.serving(units)
            self.count(app.name, before, before and before.release)
            if any(not app.faults(slot, units) for slot in SLOTS):
                continue
            if self.module.check_mode:
                self.count(app.name, before, app.release)
                pending = True
                continue
            try:
                app.claim()
                if app.enabled_slot():
                    pending = True
                    if not app.proven_file.there() and all(app.slot_faults(slot, units) for slot in SLOTS):
                        app.preflight()
                else:
                    # Nothing is there to protect: its start is its proof.
                    app.serve(units, self.run)
                    changed = True
                    self.count(app.name, None, app.release, since)
                    self.note(app, None, app.release, "serves", since)
            except Unproven as problem:
                problems.append(self.refused(app, problem, since))
        if problems:
            self.fail(problems)
        return {"changed": changed, "pending": pending, "leaving": self.leaving, "apps": self.served}

    def serving(self) -> dict[str, object]:
        """Make each app serve what it should."""
        changed = False
        if not self.module.check_mode:
            self.free_ports()
        for app in self.apps:
            since, units = time.monotonic(), app.units()
            faults = {slot: app.faults(slot, units) for slot in SLOTS}
            slot = min(SLOTS, key=lambda slot: len(faults[slot]))
            if not faults[slot]:
                continue
            changed = True
            self.diff.append(app.diff(faults[slot])["prepared"])
            if self.module.check_mode:
                continue
            before = app.serving(units)
            left = app.about(before.slot)["release_dir"] if before and self.reason else ""
            try:
                app.claim()
                app.serve(units, self.run)
            except Unproven as problem:
                self.fail([self.refused(app, problem, since)])
            self.count(app.name, before, app.release, since)
            self.note(app, before and before.release, app.release, "serves", since)
            if self.reason and before and before.release != app.release:
                app.marks.hold(left.rpartition("/")[2], self.reason)
        return {"changed": changed, "apps": self.served}

    def free_ports(self) -> None:
        """Stop apps that left the description and hold a port that another one gets now."""
        wanted = {line for app in self.apps for line in app.socket_text.splitlines()}
        for name in self.leaving:
            if f"ListenStream={App(self.module, name).port()}" in wanted:
                self.stop(name)

    def stop(self, name: str) -> None:
        """Stop an app and remove what makes it run."""
        app, since = App(self.module, name), time.monotonic()
        before = app.serving(app.units())
        app.remove()
        self.note(app, before and before.release, None, "stopped", since)

    def returned(self) -> dict[str, object]:
        """Take back what the run has changed; tell what serves."""
        apps, problems = {}, []
        for name in self.here:
            app, since = App(self.module, name), time.monotonic()
            switch, tried = app.last_switch(), None
            try:
                if not self.module.check_mode:
                    tried = app.give_back(self.run, self.reason)
            except Unproven as problem:
                problems.append(f"{name} does not return on {HOST}: {app.hide(str(problem))}")
            serving = app.serving(app.units())
            now = serving and serving.release
            if tried:
                why = self.reason.partition("\n")[0] or "a host was lost"
                self.note(app, tried.release, now, "returned", since, reason=why)
            mine = self.run and switch.get("run") == self.run
            before = switch["release"] if mine else now
            apps[name] = {"before": before, "tried": tried and tried.release, "now": now}
        if problems:
            self.module.fail_json(msg="\n".join(problems), apps=apps, said=self.said)
        return {"changed": bool(self.said), "apps": apps}

    def exclusive(self) -> dict[str, object]:
        """Stop the apps that left."""
        if not self.module.check_mode:
            for name in self.leaving:
                self.stop(name)
        return {"changed": bool(self.leaving)}

    def listed(self) -> dict[str, object]:
        """Tell the releases of each app and the history."""
        apps = {}
        for name in self.here:
            app = App(self.module, name)
            now = app.serving(app.units())
            apps[name] = {
                "now": now and now.release,
                "slot": now and now.slot,
                "releases": app.marks.listed(),
                "held": app.marks.held(),
            }
        return {"changed": False, "apps": apps, "history": history()}


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"choices": ["proven", "serving", "returned", "exclusive", "listed"], "required": True},
            "apps": {"type": "list", "elements": "dict", "options": DESCRIPTION},
            "stay": {"type": "list", "elements": "str"},
            "run": {"default": ""},
            "by": {"default": ""},
            "reason": {"default": ""},
        },
        required_if=[
            ("state", "proven", ["apps"]),
            ("state", "serving", ["apps"]),
            ("state", "exclusive", ["stay"]),
        ],
        supports_check_mode=True,
    )
    if not module.check_mode and module.params["state"] != "listed":
        # A module whose run was killed works on for a while.
        lock = open("/run/paddock-slots.lock", "w")  # noqa: SIM115 # held until the process ends
        fcntl.flock(lock, fcntl.LOCK_EX)
        app_list.keep()
    slots = Slots(module)
    slots.refuse_taken()
    result = getattr(slots, module.params["state"])()
    module.exit_json(**result, said=slots.said, diff={"prepared": "".join(slots.diff)})


if __name__ == "__main__":
    main()
