"""The variables of a host, as the rules look at them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from ansible.errors import AnsibleError

from .problem import BROKEN, KeyPath, Problem, problem, show
from .roles import PREFIXES

# Role defaults that the rules compare. Other defaults may need facts, which are not known yet.
COMPARED = (
    "gunicorn_limits",
    "nginx_limits",
    "nginx_port",
    "nginx_tls",
)

# What the playbooks compute, and the rules look at. The other computed values are not looked
# at: a user does not write them, and on each host some are as long as the fleet.
COMPUTED = frozenset({"nginx_certificate", "tls_names"})


class Variables:
    """The variables of a host: what the inventory says and what comes out of it."""

    def __init__(
        self,
        raw: dict[str, Any],
        defaults: dict[str, Any],
        template: Callable[[Any], Any],
        host: str,
        is_foreign: Callable[[str], bool],
        is_computed: Callable[[Any], bool],
    ) -> None:
        """Render what the rules look at.

        Args:
            raw: The variables as written.
            defaults: The defaults of the roles.
            template: Renders a value in the context of the host.
            host: The name of the host.
            is_foreign: Tells whether a variable under our prefixes is another role's.
            is_computed: Tells whether a value is written in the playbooks, not in the inventory.
        """
        self.raw = raw
        self.problems: list[Problem] = []
        self._host = host
        self._template = template
        facts = raw.get("ansible_facts", {})
        ours = [name for name in raw if name.startswith(PREFIXES) and name not in facts]
        self.foreign = [name for name in ours if is_foreign(name)]
        self.options = [
            name
            for name in ours
            if name not in self.foreign and (name in COMPUTED or not is_computed(raw[name]))
        ]
        self.values: dict[str, Any] = {}
        for name in self.options:
            self.values[name] = self._render(raw[name], (name,))
        if "apps" in raw:
            self.values["apps"] = self._render(raw["apps"], ("apps",))
        if "ansible_host" in raw and "fleet_address" not in raw:
            self.values["fleet_address"] = self._render(raw["ansible_host"], ("ansible_host",))
        found = len(self.problems)
        for name in COMPARED:
            default, given = defaults.get(name), self.values.get(name, {})
            if name in defaults and name not in self.values:
                self.values[name] = self._render(default, (name,))
            elif isinstance(default, Mapping) and isinstance(given, Mapping):
                self.values[name] = {**default, **given}
        del self.problems[found:]

    def causes(self, faulty: Collection[str]) -> Iterator[Problem]:
        """Leave out what only follows from something else.

        Args:
            faulty: Names of the variables, of any host, that have problems.

        Yields:
            Each problem of a variable that uses no other one that has problems.
        """
        for found in self.problems:
            if not self._uses(str(found.path[0])) & (set(faulty) - {found.path[0]}):
                yield found

    def _uses(self, name: str) -> set[str]:
        """Name the variables that a variable is made of, directly or not."""
        used: set[str] = set()
        todo = [name]
        while todo:
            words = set(re.findall(r"\w+", str(self.raw.get(todo.pop(), "")))) & self.raw.keys()
            todo += words - used
            used |= words
        # Those that are made of each other are each other's cause.
        return set() if name in used else used

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
