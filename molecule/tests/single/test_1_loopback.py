"""The usual VPS: apps on the loopback address, TLS of the fleet's own authority."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from testbed import ROOT, Run

from .conftest import Vps

Site = Callable[..., Run]


def test_serves(vps1: Vps) -> None:
    """Both apps, over TLS."""
    assert (vps1.get().status, vps1.get("/welcome/").status) == (200, 200)


def test_a_second_run_changes_nothing(vps1: Vps, site: Site) -> None:
    """Not the keys either, nor what somebody else keeps in the same folder."""
    vps1.sh("mkdir -p /etc/paddock/notes && echo mine > /etc/paddock/notes/file")
    before = vps1.keys()
    again = site()
    assert (again.rc, again.changed) == (0, 0), again.output
    assert vps1.keys() == before
    assert vps1.sh("cat /etc/paddock/notes/file") == "mine"
    assert vps1.get().status == 200


def test_backends_alone(vps1: Vps, site: Site) -> None:
    """The part of a run that knows no balancer leaves the balancer's files: Nginx could start again."""
    before = vps1.keys()
    alone = site("playbooks/backends.yml")
    assert (alone.rc, alone.changed) == (0, 0), alone.output
    assert vps1.keys() == before
    vps1.sh("nginx -t -q && systemctl restart nginx")
    assert vps1.get().status == 200


def test_rollback_of_the_last_change(vps1: Vps, site: Site, tmp_path: Path) -> None:
    """Runs that change nothing do not count: the rollback is of the app that a run has changed last."""
    source = Path(shutil.copytree(ROOT / "app_src", tmp_path / "app_src"))
    arguments = ("-e", f"fleet_app_src={source}")
    before = vps1.get().release
    app = source / "requestme/app.py"
    app.write_text(app.read_text().replace("Thank you for requesting me.", "Once more."))
    assert site("site.yml", *arguments).rc == 0
    assert vps1.get().release != before
    idle = site("site.yml", *arguments)
    assert (idle.rc, idle.changed) == (0, 0), idle.output
    back = site("playbooks/rollback.yml")
    assert back.rc == 0, back.output
    assert re.findall(r"^(\w+) on vps1: ", back.output, re.MULTILINE) == ["requestme"]
    assert vps1.get().release == before


def test_a_retired_app_takes_only_its_own(vps1: Vps, site: Site) -> None:
    """An app that leaves the description is stopped; keys and foreign folders stay."""
    before = vps1.keys()
    both = vps1.sh("ls /etc/paddock")
    described = (
        "{{ (lookup('file', playbook_dir ~ '/../inventory/group_vars/all/apps.yml') | from_yaml).apps[:1] }}"
    )
    one = site("site.yml", "-e", f'{{"apps": "{described}"}}')
    assert one.rc == 0, one.output
    assert re.search(r"vps1 +welcome +\w+ +- ", one.output), one.output
    assert set(both.split()) - set(vps1.sh("ls /etc/paddock").split()) == {"welcome"}
    assert vps1.keys() == before
    again = site()
    assert again.rc == 0, again.output
    assert vps1.get("/welcome/").status == 200
