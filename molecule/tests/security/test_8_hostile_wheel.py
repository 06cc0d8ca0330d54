"""A package of echo runs its own code when an interpreter starts: as the app's user, and never as root."""

from __future__ import annotations

from hostile_wheel import OF_ROOT, OF_THE_APP
from wire import Node


def test_a_package_never_runs_as_root(node: Node) -> None:
    """Not when its environment is made and compiled, when its app is checked, and when that serves."""
    assert node.sh(f"cat {OF_ROOT}", check=False) == ""
    user = node.sh("id -u echo")
    notes = {tuple(line.split()) for line in node.sh(f"cat {OF_THE_APP}").splitlines()}
    assert {uid for uid, _ in notes} == {user}
    # It is live: it ran in the app, also while that was checked. The run of the canary's test shows it.
    folders = {folder for _, folder in notes}
    assert "/run/echo-preflight" in folders
    assert folders & {"/run/echo-blue", "/run/echo-green"}
