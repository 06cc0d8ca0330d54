"""Action that refuses a fleet that cannot work, before any host is contacted."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ansible._internal._datatag._tags import Origin
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import filter_loader, lookup_loader
from ansible.utils.display import Display

ROOT = Path(__file__).parents[2]

# Ansible gives the plugins of a repository no way to import a package next to them.
sys.path.append(str(ROOT / "plugins"))

from fleet_rules.apps import App, check_apps, check_schema, sound_apps
from fleet_rules.documents import check_inventories
from fleet_rules.hosts import Host, check_group, check_hosts
from fleet_rules.own_wheels import check_own_wheels
from fleet_rules.problem import BROKEN, KeyPath, Problem, problem, show
from fleet_rules.roles import PREFIXES, check_option
from fleet_rules.sources import check_entrypoint, check_lock, read_pins
from fleet_rules.tls import check_tls

# Role defaults that the rules compare. Other defaults may need facts, which are not known yet.
COMPARED = (
    "gunicorn_keepalive",
    "nginx_hsts_seconds",
    "nginx_port",
    "nginx_status_port",
    "nginx_tls_port",
    "nginx_upstream_keepalive",
)


def _relative(path: str) -> str:
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


class Variables:
    """The variables of a host: what the inventory says and what comes out of it."""

    def __init__(
        self,
        raw: dict[str, Any],
        defaults: dict[str, Any],
        template: Callable[[Any], Any],
        host: str,
    ) -> None:
        """Render what the rules look at.

        Args:
            raw: The variables as written.
            defaults: The defaults of the roles.
            template: Renders a value in the context of the host.
            host: The name of the host.
        """
        self.raw = raw
        self.problems: list[Problem] = []
        self._host = host
        self._template = template
        facts = raw.get("ansible_facts", {})
        self.options = [name for name in raw if name.startswith(PREFIXES) and name not in facts]
        self.values: dict[str, Any] = {}
        for name in self.options:
            self.values[name] = self._render(raw[name], (name,))
        if "apps" in raw:
            self.values["apps"] = self._render(raw["apps"], ("apps",))
        if "ansible_host" in raw and "fleet_address" not in raw:
            self.values["fleet_address"] = self._render(raw["ansible_host"], ("ansible_host",))
        found = len(self.problems)
        for name in COMPARED:
            if name in defaults and name not in self.values:
                self.values[name] = self._render(defaults[name], (name,))
        del self.problems[found:]

    def _render(self, value: object, path: KeyPath) -> object:
        """Render leaf by leaf, so that an error names its very key."""
        if isinstance(value, Mapping):
            return {key: self._render(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._render(item, (*path, index)) for index, item in enumerate(value)]
        try:
            return self._template(value)
        except AnsibleError as error:
            # The hosts' facts are not known yet; the role looks at the option when they are.
            if path[0] == "fleet_address" or path[0] == "apps" or "ansible_facts" not in str(value):
                reason = str(error).partition("\n")[0].rstrip(".")
                state = f"is {show(value, secret='environment' in path)}"
                allowed = f"a value that can be rendered ({reason})"
                self.problems.append(problem(path, state, allowed, host=self._host))
            return BROKEN


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
        self.groups = self.task_vars["groups"]
        self.hosts: dict[str, Variables] = {}
        if lines := self._lines():
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
            where = found.where or self._locate(found)
            what = found.text.partition("; allowed: ")[0]
            if found.text:
                texts.setdefault((where, what), found.text)

        def position(key: tuple[str, str]) -> tuple[str, int]:
            file, _, line = key[0].rpartition(":")
            return (file, int(line)) if line.isdigit() else (key[0], 0)

        return [f"{key[0]}: {texts[key]}" for key in sorted(texts, key=position)]

    def _problems(self) -> Iterator[Problem]:
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
            yield from variables.problems
            for option in variables.options:
                if (value := variables.values[option]) is not BROKEN:
                    for found in check_option(option, value, self._options):
                        yield replace(found, host=name)
            # Most often all hosts have the same apps, and then one look is enough.
            given = {"apps": variables.values["apps"]} if "apps" in variables.values else {}
            text = json.dumps(given, default=repr)
            if text not in apps:
                problems = list(check_schema(given, self._schema))
                sound = self._complete(sound_apps(given.get("apps"), problems))
                apps[text] = sound
                problems += [*check_apps(sound), *self._check_sources(sound)]
                yield from (replace(found, host=name) for found in problems)
            hosts[name] = Host(name, variables.values, apps[text])
        host_name = self._schema["$defs"]["app"]["properties"]["server_names"]["items"]["pattern"]
        yield from check_hosts(
            [hosts[name] for name in members[backends]],
            [hosts[name] for name in members[balancers]],
            host_name,
        )
        for name in members[balancers]:
            yield from check_tls(hosts[name], self._loader.get_text_file_contents)

    def _check_sources(self, apps: list[App]) -> Iterator[Problem]:
        if not self.given["app_src"]:  # a rollback needs no source
            return
        lookup = lookup_loader.get("release", loader=self._loader, templar=self._templar)
        for index, app in enumerate(apps):
            if "name" not in app:
                continue
            folder = Path(_relative(os.path.normpath(self.given["app_src"]))) / app["name"]
            try:
                lookup.run([str(folder)], self.task_vars, archive=False)
            except AnsibleError as error:
                yield Problem(str(error), ("apps", index, "name"))
                continue
            lock = folder / "requirements.txt"
            pins = read_pins(lock)
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
        context = {**self._defaults, **raw, "hostvars": hostvars, "groups": groups}
        templar = self._templar.copy_with_new_env(available_variables=context)
        return Variables(raw, self._defaults, templar.template, name)

    def _locate(self, found: Problem) -> str:
        """Return file and line of the value, or of what is next around it."""
        origin = None
        if found.host:
            value: Any = self.hosts[found.host].raw
            for step in found.path:
                try:
                    value = value[step]
                except (KeyError, IndexError, TypeError):
                    break
                origin = Origin.get_tag(value) or origin
            if origin is None:
                origin = next(
                    (Origin.get_tag(name) for name in self.groups["all"] if name == found.host),
                    None,
                )
        if origin and origin.path:
            line = f":{origin.line_num}" if origin.line_num else ""  # JSON has no lines
            return f"{_relative(origin.path)}{line}"
        if origin and origin.description:
            return origin.description
        sources = self.task_vars.get("ansible_inventory_sources") or ["inventory"]
        return ", ".join(_relative(source) for source in sources)

    @cached_property
    def _schema(self) -> dict[str, Any]:
        return json.loads((ROOT / "inventory" / "apps.schema.json").read_text())

    @cached_property
    def _complete(self) -> Callable[[list[App]], list[App]]:
        return filter_loader.get("complete_apps").j2_function

    @cached_property
    def _defaults(self) -> dict[str, Any]:
        return self._merge("defaults/main.yml")

    @cached_property
    def _options(self) -> dict[str, Any]:
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
