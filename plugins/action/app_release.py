"""Action that brings the archives of a release to the host and runs the module of its name there."""

from __future__ import annotations

import os
from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """What Ansible looks for in this file."""

    TRANSFERS_FILES = True
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Copy the archives into the task's temporary folder, which only the SSH user and root can read.

        A task of `copy` for each of them would take several round trips more. And a run that was killed
        goes on for a while: under a fixed name it would remove what this one has just copied.

        Args:
            tmp: Unused.
            task_vars: The variables of the host that the task runs for.

        Returns:
            The result of the module.
        """
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        try:
            for option in ("code", "packages"):
                archive = arguments.get(option)
                if archive and not self._task.check_mode:
                    arguments[option] = self._copy(str(archive))
            result |= self._execute_module(module_args=arguments, task_vars=task_vars)
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return result

    def _copy(self, archive: str) -> str:
        if not self._connection._shell.tmpdir:
            self._make_tmp_path()
        there = self._connection._shell.join_path(self._connection._shell.tmpdir, os.path.basename(archive))
        return self._transfer_file(archive, there)
