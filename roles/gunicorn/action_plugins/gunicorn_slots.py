"""Action that describes all apps of a host to the module of its name, in one call."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display


class ActionModule(ActionBase):
    """What Ansible looks for in this file."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Put the role's variable `__gunicorn_slot`, rendered for each app, in place of the apps' names.

        A loop over the apps would connect to the host for each of them.

        Args:
            tmp: Unused.
            task_vars: The variables of the host that the task runs for.

        Returns:
            The result of the module.
        """
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        arguments = dict(self._task.args)
        if "apps" in arguments:
            arguments["apps"] = [self._describe(name, variables) for name in arguments["apps"]]
        result |= self._execute_module(module_args=arguments, task_vars=variables)
        for line in result.get("said", []):
            Display().display(f"{variables['inventory_hostname']}: {line}")
        return result

    def _describe(self, name: str, variables: dict[str, Any]) -> dict[str, Any]:
        context = {**variables, "__gunicorn_name": name}
        templar = self._templar.copy_with_new_env(available_variables=context)
        return templar.template(variables["__gunicorn_slot"])
