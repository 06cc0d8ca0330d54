"""What serves is observed: a run repairs what a person or a crash has changed."""

from __future__ import annotations

from typing import Any

import pytest
from testbed import sample

# How a slot starts in a loop of crashes: one kill after the other until systemd gives up.
CRASH = (
    "for _ in $(seq 30); do systemctl kill -s KILL --kill-who=main {unit} 2>/dev/null;"
    " test $(systemctl is-active {app}.socket) = failed && exit 0; sleep 0.4; done; exit 1"
)
# Four damages a round, each to another app or node, so that one run repairs them all; and a word
# that --check has to say of each.
ROUNDS = [
    [
        ("systemctl stop {unit}", "{unit} does not run"),
        ("sed -i /^Restart/d /etc/systemd/system/{unit}.d/20-keep.conf", "20-keep.conf is not as described"),
        ("echo '# by hand' >> /etc/systemd/system/{unit}; systemctl daemon-reload", "-# by hand"),
        (CRASH, "{app}.socket is failed"),
    ],
    [
        ("rm /etc/systemd/system/{unit}.d/20-keep.conf", "20-keep.conf is not as described"),
        ("chmod o+r /etc/paddock/{app}/{color}/environment.json", "environment.json is not as described"),
        ("rm /etc/systemd/system/multi-user.target.wants/{unit}", "{unit} does not lead to ../{unit}"),
        ("systemctl stop {app}.socket", "{app}.socket is inactive"),
    ],
    [
        ("systemctl disable -q {app}.socket", "sockets.target.wants/{app}.socket does not lead"),
        ("systemctl start {app}-{idle}", "{app}-{idle}.service is active"),
        ("rm /srv/{app}/good/*", "does not lead to /srv/{app}/releases/"),
        ("echo '[Service]' > /etc/systemd/system/{unit}.d/override.conf", "override.conf is not ours"),
    ],
]


@pytest.mark.parametrize("damages", sample(ROUNDS), ids=["first", "second", "third"])
def test_repair(fleet: Any, nodes: list[Any], damages: list[tuple[str, str]]) -> None:
    """--check tells and changes nothing, and a run repairs."""
    targets = [(node, app) for node in nodes for app in ("echo", "drain")]
    said = []
    for (node, app), (damage, words) in zip(targets, damages, strict=True):
        color = node.slot(app).color
        idle = "green" if color == "blue" else "blue"
        names = {"app": app, "color": color, "idle": idle, "unit": f"{app}-{color}.service"}
        node.sh(damage.format(**names))
        said.append(words.format(**names))
    state = "find /etc/systemd /etc/paddock -type f -exec sha256sum {} + | sort; systemctl list-units --plain"
    before = [node.sh(f"{state} 'echo*' 'drain*'") for node in nodes]
    check = fleet.configure("--check", "--diff")
    assert [words for words in said if words not in check.output] == [], check.output
    assert [node.sh(f"{state} 'echo*' 'drain*'") for node in nodes] == before
    assert fleet.configure().changed > 0
    for node, app in targets:
        node.slot(app)
        assert node.http({"echo": 8080, "drain": 8081}[app]).status == 200


def test_nothing_is_left_to_do(fleet: Any) -> None:
    """After all of these repairs."""
    assert fleet.configure().changed == 0
