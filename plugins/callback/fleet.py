"""Callback that shows what a run changes, what fails, and a report at the end."""

from __future__ import annotations

import json
from typing import Any

from ansible import constants as C
from ansible.executor.task_result import CallbackTaskResult
from ansible.playbook.play import Play
from ansible.plugins.callback.default import CallbackModule as Default

DOCUMENTATION = """
name: fleet
type: stdout
short_description: What changes, what fails, and a report at the end
description:
  - A task is shown when it changes something, fails, or has something to say. A play is one line.
  - A failure is its message, once, with the output of the program that failed.
  - The output ends with the statistic C(report) of the playbook (M(ansible.builtin.set_stats)).
  - With C(-v) the output is that of the callback P(ansible.builtin.default#callback).
extends_documentation_fragment:
  - default_callback
  - result_format_callback
"""

# What the message of a failed task leaves out.
OUTPUTS = ("stdout", "stderr", "module_stdout", "module_stderr")


class CallbackModule(Default):
    """What Ansible looks for in this file."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "fleet"

    def __init__(self) -> None:
        super().__init__()
        self._failures: dict[tuple[str, str], str] = {}
        self._report = ""

    @property
    def _whole(self) -> bool:
        """Whether everything is to be shown."""
        return self._display.verbosity > 0

    def v2_playbook_on_play_start(self, play: Play) -> None:
        """Show a play in one line; a play that goes on with the next batch is no news."""
        if self._whole:
            super().v2_playbook_on_play_start(play)
            return
        name = play.get_name().strip()
        if self._play is None or self._play.get_name().strip() != name:
            self._display.display(f"PLAY [{name}]{' [CHECK MODE]' if play.check_mode else ''}")
        self._play = play

    def v2_playbook_on_no_hosts_matched(self) -> None:
        """Show nothing: a play for the hosts that differ often has none."""
        if self._whole:
            super().v2_playbook_on_no_hosts_matched()

    def _task_start(self, task: Any, prefix: str | None = None) -> None:
        super()._task_start(task, prefix)
        # The parent has shown it, unless results of tasks are filtered.
        if not self._whole:
            self._last_task_banner = None

    def _print_task_banner(self, task: Any) -> None:
        if self._whole:
            super()._print_task_banner(task)
        elif self._last_task_banner != task._uuid:
            name = (self._last_task_name or task.get_name()).strip().removeprefix("paddock.fleet.")
            self._display.display(f"TASK [{name}]")
            self._last_task_banner = task._uuid

    def get_option(self, k: str) -> Any:
        """Filter results, unless everything is to be shown."""
        if k in ("display_ok_hosts", "display_skipped_hosts") and not self._whole:
            return False
        return super().get_option(k)

    def v2_runner_on_ok(self, result: CallbackTaskResult) -> None:
        """Show a change, and what a task has to say."""
        self._report = result.result.get("ansible_stats", {}).get("data", {}).get("report", self._report)
        if self._whole or result.result.get("changed"):
            super().v2_runner_on_ok(result)
            return
        # Each item of a loop has been shown.
        if not (result.task.loop and "results" in result.result):
            self._say(result)

    def v2_runner_item_on_ok(self, result: CallbackTaskResult) -> None:
        """Show a change, and what an item of a loop has to say."""
        if self._whole or result.result.get("changed"):
            super().v2_runner_item_on_ok(result)
        else:
            self._say(result)

    def _say(self, result: CallbackTaskResult) -> None:
        self._handle_warnings_and_exception(result)
        if not self._run_is_verbose(result):
            return
        # A task such as debug with `var` has no message.
        said = result.result.get("msg") or self._dump_results(result.result)
        lines = said if isinstance(said, list) and all(isinstance(line, str) for line in said) else [said]
        for line in lines:
            self._display.display(line if isinstance(line, str) else json.dumps(line, indent=1))

    def v2_runner_on_failed(self, result: CallbackTaskResult, ignore_errors: bool = False) -> None:
        """Show why a task has failed."""
        if self._whole:
            super().v2_runner_on_failed(result, ignore_errors)
            return
        # Each item of a loop has been shown.
        if not (result.task.loop and "results" in result.result):
            self._show_failure(result, "fatal")
        if ignore_errors:
            self._display.display("...ignoring", color=C.COLOR_SKIP)

    def v2_runner_item_on_failed(self, result: CallbackTaskResult) -> None:
        """Show why an item of a loop has failed."""
        if self._whole:
            super().v2_runner_item_on_failed(result)
        else:
            self._show_failure(result, "failed")

    def _show_failure(self, result: CallbackTaskResult, word: str) -> None:
        self._print_task_banner(result.task)
        found = result.result
        message = str(found.get("msg", ""))
        if message and message == self._report:  # said for other callbacks
            message = "The run failed. Its report is the end of this output."
        # Where a module has failed on purpose, the exception says the same again.
        if message and "module_stderr" not in found and not message.startswith("Task failed"):
            found.pop("exception", None)
        self._handle_warnings_and_exception(result)
        item = f" (item={self._get_item_label(found)})" if word == "failed" else ""
        parts = [message, *(str(found[key]).strip() for key in OUTPUTS if found.get(key))]
        text = "\n".join(dict.fromkeys(filter(None, parts))) or self._dump_results(found)
        # Hosts often fail for the same reason.
        host = result.host.get_name()
        known = self._failures.setdefault((result.task._uuid, text.replace(host, "")), host)
        text = text if known == host else f"the same as {known}"
        line = f"{word}: [{self.host_label(result)}]{item}: {text}"
        stderr = self.get_option("display_failed_stderr")
        self._display.display(line, color=C.COLOR_ERROR, stderr=stderr)

    def v2_runner_on_unreachable(self, result: CallbackTaskResult) -> None:
        """Show a host that does not answer."""
        if self._whole:
            super().v2_runner_on_unreachable(result)
            return
        self._print_task_banner(result.task)
        reason = str(result.result.get("msg", "")).strip()
        self._display.display(
            f"unreachable: [{self.host_label(result)}]: {reason}",
            color=C.COLOR_UNREACHABLE,
            stderr=self.get_option("display_failed_stderr"),
        )

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Show Ansible's counts, and the report last."""
        super().v2_playbook_on_stats(stats)
        if self._report:
            self._display.display(self._report)
