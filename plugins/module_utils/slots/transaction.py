"""What a run does to the apps of this host, and what it reports."""

from __future__ import annotations

import socket
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.paddock.fleet.plugins.module_utils import app_list
from ansible_collections.paddock.fleet.plugins.module_utils.readiness import NotReady
from ansible_collections.paddock.fleet.plugins.module_utils.slots.activation import App
from ansible_collections.paddock.fleet.plugins.module_utils.slots.checks import Killed
from ansible_collections.paddock.fleet.plugins.module_utils.slots.history import history, note
from ansible_collections.paddock.fleet.plugins.module_utils.slots.layout import SLOTS
from ansible_collections.paddock.fleet.plugins.module_utils.slots.state import Live

HOST = socket.gethostname()


class Report:
    """What a call says of the apps: for the history, for who watches the run, and where it fails."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.run, self.by = module.params["run"], module.params["by"]
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

    def count(self, name: str, before: Live | None, now: str | None, since: float | None = None) -> None:
        """Put down for the report of the run what an app serves."""
        seconds = None if since is None else round(time.monotonic() - since, 1)
        self.served[name] = {"before": before and before.release, "now": now, "seconds": seconds}

    def refused(self, app: App, problem: NotReady, since: float) -> str:
        """Note that a release is not ready; returns the message."""
        units = app.units()
        alive = [app.unit(slot) for slot in SLOTS if units[slot].state == "active"]
        outcome = f"the release from before stays live ({alive[0]})" if alive else "no release of it is live"
        said = app.mask(str(problem))
        name = app.release_dir.name
        # Where it was good before, it is the settings that do not work.
        if not isinstance(problem, Killed) and not app.marks.good_link(name).is_symlink():
            app.marks.bad(name, said)
        now = app.live(units)
        self.note(app, now and now.release, app.release, "refused", since, reason=said.splitlines()[0])
        return f"{app.name} {app.release} is not ready on {HOST}; {outcome}.\n{said}"

    def fail(self, messages: list[str]) -> None:
        """End with what went wrong."""
        messages = [*messages, "Mend the app and run the playbook again."]
        self.module.fail_json(msg="\n".join(messages), said=self.said)


class Slots(Report):
    """The apps of this host and what this call does to them."""

    def __init__(self, module: AnsibleModule) -> None:
        super().__init__(module)
        self.reason, self.stop_first = module.params["reason"], module.params["stop_first"]
        self.here = app_list.listed()
        self.leaving = [name for name in self.here if name not in (module.params["stay"] or self.here)]
        self.apps = []
        for wanted in module.params["apps"] or []:
            app = App(module, wanted["name"])
            app.describe(wanted, module.params["environments"].get(wanted["name"], ""))
            self.apps.append(app)

    def refuse_taken(self) -> None:
        """Fail if something else on the host goes by an app's name."""
        taken = [(app.name, what) for app in self.apps if (what := app.conflict())]
        if taken:
            lines = [f"{name}: {what} on {HOST}; give the app another name" for name, what in taken]
            self.module.fail_json(msg="\n".join(lines))

    def checked(self) -> dict[str, object]:
        """Check each app; one without a live release is activated."""
        pending, changed, problems = bool(self.leaving), False, []
        for name in self.leaving:
            app = App(self.module, name)
            self.count(name, app.live(app.units()), None)
        for app in self.apps:
            since, units = time.monotonic(), app.units()
            before = app.live(units)
            self.count(app.name, before, before and before.release)
            if any(not app.faults(slot, units) for slot in SLOTS):
                continue
            if self.module.check_mode:
                self.count(app.name, before, app.release)
                pending = True
                continue
            try:
                app.create_user()
                if app.enabled_slot():
                    pending = True
                    checked = app.checked_file.there() or self.stop_first
                    if not checked and all(app.slot_faults(slot, units) for slot in SLOTS):
                        app.preflight()
                else:
                    # There is no live release to protect: its start is its check.
                    app.activate(units, self.run)
                    changed = True
                    self.count(app.name, None, app.release, since)
                    self.note(app, None, app.release, "serves", since)
            except NotReady as problem:
                problems.append(self.refused(app, problem, since))
        if problems:
            self.fail(problems)
        return {"changed": changed, "pending": pending, "leaving": self.leaving, "apps": self.served}

    def activated(self) -> dict[str, object]:
        """Activate the release of each app."""
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
            before = app.live(units)
            left = app.about(before.slot)["release_dir"] if before and self.reason else ""
            try:
                app.create_user()
                app.activate(units, self.run, self.stop_first)
            except NotReady as problem:
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
        before = app.live(app.units())
        app.remove()
        self.note(app, before and before.release, None, "stopped", since)

    def rolled_back(self) -> dict[str, object]:
        """Take back what the run has changed; return what is live."""
        apps, problems = {}, []
        for name in self.here:
            app, since = App(self.module, name), time.monotonic()
            switch, tried = app.last_switch(), None
            try:
                if not self.module.check_mode:
                    tried = app.roll_back(self.run, self.reason)
            except NotReady as problem:
                problems.append(f"{name} does not roll back on {HOST}: {app.mask(str(problem))}")
            serving = app.live(app.units())
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

    def stale_removed(self) -> dict[str, object]:
        """Stop the stale apps."""
        if not self.module.check_mode:
            for name in self.leaving:
                self.stop(name)
        return {"changed": bool(self.leaving)}

    def listed(self) -> dict[str, object]:
        """Tell the releases of each app and the history."""
        apps = {}
        for name in self.here:
            app = App(self.module, name)
            now = app.live(app.units())
            apps[name] = {
                "now": now and now.release,
                "slot": now and now.slot,
                "releases": [
                    {**one, "bad": one["bad"] and app.mask(one["bad"])} for one in app.marks.listed()
                ],
                "held": {name: app.mask(why) for name, why in app.marks.held().items()},
            }
        return {"changed": False, "apps": apps, "history": history()}
