"""Old releases are removed; the one that serves and a few before it never are."""

from __future__ import annotations

from typing import Any

import pytest
from testbed import sample

GOOD = [f"good{number}-py3" for number in range(1, 7)]
BAD = [f"bad{number}-py3" for number in range(1, 6)]


@pytest.mark.parametrize("keep", sample([3, 1, 0]))
def test_prune(source: Any, keep: int) -> None:
    """The one that serves, the one before and a few more good ones stay, whatever came in between."""
    host, home = source.host, source.home
    host.check_output(f"rm -rf {home}/*; mkdir -p {home}/good {home}/bad {home}/releases {home}/environments")
    for days, name in enumerate(reversed(GOOD)):
        link = f"{home}/good/{name}"
        host.check_output(f"ln -s {home}/releases/{name} {link} && touch -hd '{days} days ago' {link}")
    for name in GOOD + BAD:
        host.check_output(f"mkdir {home}/releases/{name} {home}/environments/of-{name}")
        host.check_output(f"ln -s ../../environments/of-{name} {home}/releases/{name}/venv")
    # A release of old has its environment inside.
    host.check_output(f"cd {home}/releases/{GOOD[-1]}; rm venv; mkdir venv; touch venv/x")
    host.check_output(f"cd {home}/bad; touch {' '.join(BAD)} {GOOD[-1]}")
    others = (
        "mkdir -p /srv/other/releases/old-py3 /srv/file-py3; touch /srv/other/releases/old-py3/x;"
        " find /srv/other /srv/file-py3"
    )
    before = host.check_output(others)
    source.change(f"# keep {keep}\n")
    source.settings["app_keep_releases"] = keep
    source.run()
    # The newest of the good ones serves.
    kept = GOOD[-2 - keep :]
    assert source.releases() == {*kept, source.release}
    assert host.check_output(f"ls {home}/good").split() == kept
    assert host.check_output(f"ls {home}/bad").split() == [GOOD[-1]]
    used = host.check_output(f"basename $(readlink {home}/releases/{source.release}/venv)")
    assert source.environments() == {*(f"of-{name}" for name in kept[:-1]), used}
    assert host.file(f"{home}/releases/{GOOD[-1]}/venv/x").exists
    assert host.check_output(others) == before
    source.assert_whole()
