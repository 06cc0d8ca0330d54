"""What a run shows: the callback `fleet`, seen by running a playbook."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLAYBOOK = """
- name: First
  hosts: all
  gather_facts: false
  tasks:
    - name: Nothing to see
      ansible.builtin.command: {argv: ["true"]}
      changed_when: false

    - name: A change
      ansible.builtin.command: {argv: ["true"]}
      changed_when: inventory_hostname == 'b'

    - name: Something to say
      ansible.builtin.debug: {msg: "a  table\\nof two lines"}
      run_once: true

    - name: Something for each
      ansible.builtin.debug: {msg: "of {{ item }}"}
      loop: [one, two]
      run_once: true

    - name: For programs
      ansible.builtin.debug: {msg: {"key": ["value"]}}
      run_once: true

    - name: A report
      ansible.builtin.set_stats:
        data: {report: "the end"}
        aggregate: false
      run_once: true

- name: Second
  hosts: all
  gather_facts: false
  tasks:
    - name: It fails
      ansible.builtin.command:
        argv: [sh, -c, "echo why >&2; exit 3"]
      ignore_errors: true

    - name: The run fails
      ansible.builtin.fail: {msg: "the end"}
      run_once: true
"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The output of a run over two hosts, of which a task fails on both."""
    playbook = tmp_path_factory.mktemp("output") / "playbook.yml"
    playbook.write_text(PLAYBOOK)
    python = f"ansible_python_interpreter={sys.executable}"
    command = ["ansible-playbook", "-i", "a,b", "-c", "local", "-e", python]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(
        [*command, str(playbook)], cwd=ROOT, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 2, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_changes_and_messages(shown: str) -> None:
    """A change names its task; what does not change is silent; messages are plain text, data is JSON."""
    assert "Nothing to see" not in shown
    assert "TASK [A change]\nchanged: [b]\n" in shown
    assert "\na  table\nof two lines\nof one\nof two\n" in shown
    assert re.search(r'^\{\n "key": \[\n  "value"\n \]\n\}$', shown, re.MULTILINE)


def test_a_failure_is_said_once(shown: str) -> None:
    """With what the program said; another host that fails in the same way takes one line."""
    assert shown.count("why") == 1, shown
    assert re.search(r"^fatal: \[[ab]\]: non-zero return code\nwhy$", shown, re.MULTILINE), shown
    assert re.search(r"^fatal: \[[ab]\]: the same as [ab]$", shown, re.MULTILINE), shown
    assert "[ERROR]" not in shown


def test_the_report_is_the_end(shown: str) -> None:
    """After Ansible's own counts."""
    assert shown.index("PLAY RECAP") < shown.index("\nthe end\n")
    assert shown.rstrip().endswith("the end")


def test_the_report_of_a_failure_is_said_once(shown: str) -> None:
    """The task that fails has it too, for other callbacks."""
    assert shown.count("the end\n") == 1, shown
    assert re.search(r"^fatal: \[[ab]\]: The run failed\.", shown, re.MULTILINE), shown
