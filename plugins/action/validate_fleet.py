"""Action that refuses a fleet that cannot work, before any host is contacted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ansible._internal._datatag._tags import Origin
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import filter_loader, lookup_loader
from ansible.utils.display import Display

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "plugins/plugin_utils/fleet_rules"


from ansible_collections.paddock.fleet.plugins.plugin_utils.fleet_rules.apps import (
    App,
    check_apps,
    check_schema,
    sound_apps,
)
from ansible_collections.paddock.fleet.plugins.plugin_utils.fleet_rules.documents import (
    check_inventories,
    relative,
)
from ansible_collections.paddock.fleet.plugins.plugin_utils.fleet_rules.hosts import (
    Host,
    check_group,
    check_hosts,
)
from ansible_collections.paddock.fleet.plugins.plugin_utils.fleet_rules.nginx import check_nginx
from ansible_collections.paddock.fleet.plugins.plugin_utils.fleet_rules.own_wheels import (
    check_own_wheels,
    unused_wheels,
)
from ansible_collections.paddock.fleet.plugins.plugin_utils.fleet_rules.problem import (
    BROKEN,
    Problem,
    problem,
    show,
)
from ansible_collections.paddock.fleet.plugins.plugin_utils.fleet_rules.roles import check_option, is_foreign
from ansible_collections.paddock.fleet.plugins.plugin_utils.fleet_rules.sources import (
    check_entrypoint,
    check_lock,
    read_pins,
)
from ansible_collections.paddock.fleet.plugins.plugin_utils.fleet_rules.tls import check_tls
from ansible_collections.paddock.fleet.plugins.plugin_utils.fleet_rules.variables import Variables


class Specs:
    """What the roles and the schema of the apps say of variables and keys."""

    def __init__(self, loader: DataLoader) -> None:
        self._loader = loader

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The schema of apps.yml."""
        return json.loads((RULES / "apps.schema.json").read_text())

    @property
    def app_keys(self) -> dict[str, Any]:
        """The keys of an app."""
        return self.schema["$defs"]["app"]["properties"]

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """The defaults of all roles."""
        return self._merge("defaults/main.yml")

    @cached_property
    def options(self) -> dict[str, Any]:
        """The options of all roles."""
        return self._merge("meta/argument_specs.yml", "argument_specs", "main", "options")

    def _merge(self, file: str, *keys: str) -> dict[str, Any]:
        """Join what all roles say in one of their files."""
        merged: dict[str, Any] = {}
        for path in sorted((ROOT / "roles").glob(f"*/{file}")):
            content = self._loader.load_from_file(str(path)) or {}
            for key in keys:
                content = content.get(key) or {}
            merged |= content
        return merged


class ActionModule(ActionBase):
    """What Ansible looks for in this file."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Look at the whole inventory and fail with everything that is wrong with it.

        Args:
            tmp: Unused.
            task_vars: The variables of the host that the task runs for.

        Returns:
            The result of the task.
        """
        result = super().run(tmp, task_vars)
        _, self.given = self.validate_argument_spec(
            {
                "backends": {"type": "str", "required": True},
                "balancers": {"type": "str", "required": True},
                "app_src": {"type": "path", "required": True},
            }
        )
        self.task_vars = task_vars or {}
        self.specs = Specs(self._loader)
        self.groups = self.task_vars["groups"]
        self.hosts: dict[str, Variables] = {}
        self.warnings: dict[str, None] = {}
        lines = self._lines()
        for warning in self.warnings:
            Display().warning(warning)
        if lines:
            count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
            message = "\n".join([f"{count}; no host was contacted or changed:", *lines])
            return result | {"failed": True, "msg": message}
        if len(self.groups[self.given["backends"]]) == 1:
            Display().warning("There is one backend only: nothing takes over while it is down.")
        return result | {"changed": False, "msg": "The fleet is as it must be."}

    def _lines(self) -> list[str]:
        """Write each problem once, in the order of the files."""
        texts: dict[tuple[str, str], str] = {}
        for found in self._problems():
            where = found.where or locate(found, self.hosts, self.task_vars)
            what = found.text.partition("; allowed: ")[0]
            if found.text:
                texts.setdefault((where, what), found.text)

        def position(key: tuple[str, str]) -> tuple[str, int]:
            file, _, line = key[0].rpartition(":")
            return (file, int(line)) if line.isdigit() else (key[0], 0)

        return [f"{key[0]}: {texts[key]}" for key in sorted(texts, key=position)]

    def _problems(self) -> Iterator[Problem]:
        """Find what is wrong, without what only follows from that."""
        found = list(self._all_problems())
        faulty = {str(one.path[0]) for one in found if one.path}
        faulty |= {str(one.path[0]) for host in self.hosts.values() for one in host.problems}
        causes = [one for host in self.hosts.values() for one in host.causes(faulty)]
        yield from found
        # Nothing is let pass: should each seem to follow from another, all are said.
        yield from causes or [one for host in self.hosts.values() for one in host.problems if not found]
        if foreign := {name for host in self.hosts.values() for name in host.foreign}:
            self.warnings[
                f"No role of Paddock has the variables {', '.join(sorted(foreign))}; they are left to others."
                " What describes an app is a key of it in apps.yml."
            ] = None

    def _foreign(self, name: str) -> bool:
        return is_foreign(name, self.specs.options, self.specs.app_keys)

    def _all_problems(self) -> Iterator[Problem]:
        backends, balancers = self.given["backends"], self.given["balancers"]
        unread = list(check_inventories(self.task_vars.get("ansible_inventory_sources") or ()))
        yield from unread
        for group in backends, balancers:
            yield from () if unread else check_group(group, self.groups)
        members = {
            group: [str(name) for name in self.groups.get(group, [])] for group in (backends, balancers)
        }
        apps: dict[str, list[App]] = {}
        hosts: dict[str, Host] = {}
        for name in dict.fromkeys([*members[backends], *members[balancers]]):
            variables = self.hosts[name] = self._read(name)
            for option in variables.options:
                if (value := variables.values[option]) is not BROKEN:
                    for found in check_option(option, value, self.specs.options, self.specs.app_keys):
                        yield replace(found, host=name)
            # Most often all hosts have the same apps, and then one look is enough.
            given = {"apps": variables.values["apps"]} if "apps" in variables.values else {}
            text = json.dumps(given, default=repr)
            if text not in apps:
                problems = list(check_schema(given, self.specs.schema))
                sound = self._complete(sound_apps(given.get("apps"), problems))
                apps[text] = sound
                problems += [*check_apps(sound), *self._check_sources(sound)]
                yield from (replace(found, host=name) for found in problems)
            hosts[name] = Host(name, variables.values, apps[text])
        host_name = self.specs.schema["$defs"]["app"]["properties"]["server_names"]["items"]["pattern"]
        there = [hosts[name] for name in members[backends]], [hosts[name] for name in members[balancers]]
        yield from check_hosts(*there, host_name)
        yield from check_nginx(*there)
        for balancer in there[1]:
            yield from check_tls(balancer, self._loader.get_text_file_contents)

    def _check_sources(self, apps: list[App]) -> Iterator[Problem]:
        if not self.given["app_src"]:  # a rollback needs no source
            return
        lookup = lookup_loader.get("paddock.fleet.release", loader=self._loader, templar=self._templar)
        for index, app in enumerate(apps):
            if "name" not in app:
                continue
            folder = Path(relative(os.path.normpath(self.given["app_src"]))) / app["name"]
            try:
                lookup.run([str(folder)], self.task_vars, archive=False)
            except AnsibleError as error:
                yield Problem(str(error), ("apps", index, "name"))
                continue
            if (folder / "gunicorn.conf.py").is_file():
                self.warnings[
                    f"{folder}/gunicorn.conf.py has no effect: Gunicorn's settings are keys of the app in"
                    " apps.yml (workers, threads, timeout)."
                ] = None
            lock = folder / "requirements.txt"
            pins = read_pins(lock)
            self.warnings |= dict.fromkeys(unused_wheels(folder, pins))
            if "entrypoint" in app and not check_entrypoint(folder, app["entrypoint"], pins):
                yield problem(
                    ("apps", index, "entrypoint"),
                    f"is {show(app['entrypoint'])}",
                    f"module:object of a module in {folder}, or of a package that {lock} names",
                )
            for found in (*check_lock(lock, app.get("framework", "")), *check_own_wheels(folder, pins)):
                yield replace(found, path=("apps", index, "name"))

    def _read(self, name: str) -> Variables:
        hostvars = self.task_vars["hostvars"]
        raw = hostvars.raw_get(name)
        # A group that is missing is said once, not by each variable that looks at it.
        groups = {self.given["backends"]: [], self.given["balancers"]: [], **self.groups}
        context = {**self.specs.defaults, **raw, "hostvars": hostvars, "groups": groups}
        templar = self._templar.copy_with_new_env(available_variables=context)
        return Variables(raw, self.specs.defaults, templar.template, name, self._foreign, _is_computed)

    @cached_property
    def _complete(self) -> Callable[[list[App]], list[App]]:
        return filter_loader.get("paddock.fleet.complete_apps").j2_function


def locate(found: Problem, hosts: Mapping[str, Variables], task_vars: Mapping[str, Any]) -> str:
    """Return file and line of the value, or of what is next around it.

    Args:
        found: The problem.
        hosts: The variables of the hosts.
        task_vars: The variables of the host that the task runs for.
    """
    origin = None
    if found.host:
        value: Any = hosts[found.host].raw
        for step in found.path:
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                break
            origin = Origin.get_tag(value) or origin
        if origin is None:
            origin = next(
                (Origin.get_tag(name) for name in task_vars["groups"]["all"] if name == found.host),
                None,
            )
    if origin and origin.path:
        line = f":{origin.line_num}" if origin.line_num else ""  # JSON has no lines
        return f"{relative(origin.path)}{line}"
    if origin and origin.description:
        return origin.description
    sources = task_vars.get("ansible_inventory_sources") or ["inventory"]
    return ", ".join(relative(source) for source in sources)


def _is_computed(value: object) -> bool:
    origin = Origin.get_tag(value)
    return bool(origin and origin.path and Path(origin.path).resolve().is_relative_to(ROOT / "playbooks"))
