"""Old releases are removed; the one that serves and a few before it never are."""

from __future__ import annotations

from typing import Any

import pytest

GOOD = [f"good{number}-py3" for number in range(1, 6)]
BAD = [f"bad{number}-py3" for number in range(1, 6)]


@pytest.mark.parametrize("keep", [3, 1, 0])
def test_prune(source: Any, keep: int) -> None:
    """The last good ones and the new one stay, however many bad ones came in between."""
    host, home = source.host, source.home
    host.check_output(f"rm -rf {home}/*; mkdir -p {home}/good {home}/releases")
    host.check_output(f"cd {home}/releases; mkdir {' '.join(GOOD + BAD)}")
    for days, name in enumerate(reversed(GOOD)):
        link = f"{home}/good/{name}"
        host.check_output(f"ln -s {home}/releases/{name} {link} && touch -hd '{days} days ago' {link}")
    others = (
        "mkdir -p /srv/other/releases/old-py3 /srv/file-py3; touch /srv/other/releases/old-py3/x;"
        " find /srv/other /srv/file-py3"
    )
    before = host.check_output(others)
    source.change(f"# keep {keep}\n")
    source.settings["app_keep_releases"] = keep
    source.run()
    # The newest of the good ones serves.
    kept = GOOD[-max(keep, 1) :]
    assert source.releases() == {*kept, source.release}
    assert host.check_output(f"ls {home}/good").split() == kept
    assert host.check_output(others) == before
    source.assert_whole()
