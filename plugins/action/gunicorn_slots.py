"""Action that describes all apps of a host to the module of its name, in one call."""

from __future__ import annotations

import contextlib
import copy
import json
import threading
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

# The module writes there what it waits for.
PROGRESS = "/run/paddock/progress.json"
PAUSE = 5.0


class ActionModule(ActionBase):
    """What Ansible looks for in this file."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Put the role's variable `__gunicorn_slot`, rendered for each app, in place of the apps' names.

        The apps' environments go apart, in an option that is not logged.

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
            names = arguments["apps"]
            arguments["apps"] = [self._render("__gunicorn_slot", name, variables) for name in names]
            texts = {name: self._render("__gunicorn_environment", name, variables) for name in names}
            arguments["environments"] = {name: text for name, text in texts.items() if text}
        host, over = variables["inventory_hostname"], threading.Event()
        watch = threading.Thread(target=self._show_progress, args=(host, over), daemon=True)
        watch.start()
        try:
            result |= self._execute_module(module_args=arguments, task_vars=variables)
        finally:
            over.set()
            watch.join(timeout=PAUSE)
        for line in result.get("said", []):
            Display().display(f"{host}: {line}")
        return result

    def _show_progress(self, host: str, over: threading.Event) -> None:
        """Show what the module waits for while it works. A run that is quick pays nothing for it."""
        # A become plugin keeps what it waits for, and the module's own must not wait for this.
        watcher = copy.copy(self)
        watcher._connection = copy.copy(self._connection)
        watcher._connection.become = copy.copy(self._connection.become)
        while not over.wait(PAUSE):
            # Whatever goes wrong here, the module is what counts.
            with contextlib.suppress(Exception):
                answer = watcher._low_level_execute_command(f"date +%s; cat {PROGRESS}")
                clock, _, text = answer["stdout"].partition("\n")
                if over.is_set() or not text.strip():
                    continue
                word = json.loads(text)
                seconds = round(int(clock) - word["since"])
                if seconds >= PAUSE:
                    waited = f"{word['app']} is not ready after {seconds} of {word['limit']} s"
                    Display().display(f"{host}: {waited} ({word['slot']}): {word['said']}")

    def _render(self, variable: str, name: str, variables: dict[str, Any]) -> Any:
        context = {**variables, "__gunicorn_name": name}
        templar = self._templar.copy_with_new_env(available_variables=context)
        return templar.template(variables[variable])
