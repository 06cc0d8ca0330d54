"""A host that serves something else is left as it is, unless someone says to go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from balancer import Balancer
from testbed import sample

testinfra_hosts = ["ansible://balancers"]

SITE = "server { listen 80 default_server; location / { return 200 'somebody else'; } }"
OURS = "/etc/systemd/system/nginx.service.d/paddock.conf"
KEPT = "/etc/nginx/before-paddock"
# As `apt install nginx` leaves it.
FRESH = (
    f"systemctl stop nginx; rm -rf {OURS} {KEPT} /etc/nginx/nginx.conf && systemctl daemon-reload"
    " && DEBIAN_FRONTEND=noninteractive apt-get install --reinstall --yes --quiet"
    " --option Dpkg::Options::=--force-confmiss nginx-common && systemctl restart nginx"
)


@pytest.fixture
def fresh(balancer: Balancer) -> Iterator[None]:
    """A host that has Debian's Nginx and nothing of ours; the role's again afterwards."""
    balancer.host.check_output("sh -c %s", FRESH)
    yield
    balancer.host.check_output(f"rm -rf {KEPT} /etc/nginx/sites-enabled/other /etc/nginx/conf.d/*")
    run = balancer.run_role(nginx_adopt=True)
    assert run.ok, run.output
    # What the other site has logged is not JSON.
    balancer.host.check_output("truncate --size 0 /var/log/nginx/access.log")


def files(balancer: Balancer) -> str:
    """What would tell that something was changed."""
    return balancer.host.check_output(
        "find /etc/nginx /etc/systemd/system /etc/paddock -type f -exec sha256sum {} + | sort"
    )


@pytest.mark.full
def test_debians_own(balancer: Balancer, fresh: None) -> None:
    """Nginx as its package brings it serves no site."""
    run = balancer.run_role()
    assert run.ok, run.output
    assert balancer.ask("/kept/").status == 200
    assert not balancer.host.file(KEPT).exists


@pytest.mark.parametrize(
    ("path", "change"),
    sample(
        [
            ("sites-enabled/other", f'echo "{SITE}" > sites-enabled/other; rm sites-enabled/default'),
            ("conf.d/other.conf", f'echo "{SITE}" > conf.d/other.conf; rm sites-enabled/default'),
            (
                "sites-enabled/default",
                "sed -i 's/try_files .*/return 200 \"somebody else\";/' sites-available/default",
            ),
            ("nginx.conf", f'echo "events {{}} http {{ {SITE} }}" > nginx.conf'),
        ]
    ),
)
def test_another_site(balancer: Balancer, fresh: None, path: str, change: str) -> None:
    """It goes on being served, and the message says what it is and what to do; or a copy is kept."""
    saved = "/etc/nginx/sites-available/default /root/; cp -P /etc/nginx/sites-enabled/default /root/link"
    balancer.host.check_output("sh -c %s", f"cp -p {saved}; cd /etc/nginx; {change}; systemctl restart nginx")
    try:
        before = files(balancer)
        for options in ([], ["--check"]):
            run = balancer.run_role(*options)
            assert not run.ok
            said = " ".join(run.output.split())
            assert f"serves another site by Nginx: /etc/nginx/{path}" in said, said
            assert "Nothing was changed." in said
            assert "nginx_adopt: true" in said
        assert files(balancer) == before
        assert balancer.ask("/").body == b"somebody else"
        config = balancer.host.file("/etc/nginx/nginx.conf").sha256sum
        run = balancer.run_role(nginx_adopt=True)
        assert run.ok, run.output
        assert f"/etc/nginx/nginx.conf is kept as {KEPT}/nginx.conf." in " ".join(run.output.split())
        assert balancer.host.file(f"{KEPT}/nginx.conf").sha256sum == config
        assert balancer.ask("/kept/").status == 200
        again = balancer.run_role()
        assert (again.ok, again.changed) == (True, 0), again.output
    finally:
        back = "cd /etc/nginx; cp -p /root/default sites-available/; cp -P /root/link sites-enabled/default"
        balancer.host.check_output("sh -c %s", back)


def test_another_server(balancer: Balancer, fresh: None) -> None:
    """A program of another kind has the port: it stays, and is named."""
    balancer.host.check_output(
        "systemctl stop nginx && systemd-run --quiet --unit=other python3 -m http.server 80"
    )
    try:
        balancer.host.check_output("timeout 20 sh -c 'until ss -Hltn | grep -q :80; do sleep 0.1; done'")
        before = files(balancer)
        run = balancer.run_role()
        assert not run.ok
        assert "Nginx cannot listen on this host: port 80 of python3" in " ".join(run.output.split())
        assert files(balancer) == before
    finally:
        balancer.host.check_output("systemctl stop other")


@pytest.mark.full
def test_another_keepalived(balancer: Balancer, tmp_path: Path) -> None:
    """It is asked before anything is changed: refused, or a copy is kept."""
    role = {"name": "paddock.fleet.keepalived", "tasks_from": "check"}
    tasks = [{"name": "Check", "ansible.builtin.import_role": role}]
    playbook = tmp_path / "check.yml"
    playbook.write_text(json.dumps([{"name": "Check", "hosts": "balancers", "become": True, "tasks": tasks}]))
    config = "/etc/keepalived/keepalived.conf"
    balancer.host.check_output("sh -c %s", f"mkdir -p /etc/keepalived; echo vrrp_instance other > {config}")
    try:
        run = balancer.play(playbook)
        assert not run.ok
        assert f"{config} of {balancer.name} is not of this role" in " ".join(run.output.split())
        assert balancer.host.check_output("ls /etc/keepalived") == "keepalived.conf"
        assert balancer.play(playbook, keepalived_adopt=True).ok
        assert balancer.host.file(f"{config}.before-paddock").content_string == "vrrp_instance other\n"
    finally:
        balancer.host.check_output("rm -r /etc/keepalived")
    assert balancer.play(playbook).changed == 0
