"""Callback that kills the run it is in, a moment after a task began."""

from __future__ import annotations

import os
import signal
import threading

from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    """What Ansible looks for in this file."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "kill_at"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def v2_playbook_on_task_start(self, task: object, is_conditional: bool) -> None:
        """Count the tasks; kill the run at the one asked for."""
        self.seen += 1
        if self.seen == int(os.environ["KILL_AT"]):
            sent = signal.Signals[os.environ["KILL_SIGNAL"]]
            threading.Timer(float(os.environ["KILL_AFTER"]), os.kill, (os.getpid(), sent)).start()
