"""Whatever happens to a configuration, Nginx serves with the wanted one or with the one before."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from balancer import ASK_STATUS, STATUS, Balancer, Run
from testbed import sample

testinfra_hosts = ["ansible://balancers"]

CONFIG = "/etc/nginx/nginx.conf"


def test_service(balancer: Balancer) -> None:
    """Nginx runs, also after a reboot."""
    service = balancer.host.service("nginx")
    assert service.is_running
    assert service.is_enabled
    assert balancer.host.socket("tcp://0.0.0.0:80").is_listening
    assert balancer.host.socket("tcp://:::80").is_listening
    assert not [name for name in balancer.host.socket.get_listening_sockets() if "tcp://127.0.0.1:" in name]


# The status port of old, and a program of an app that has it for half a minute.
TAKE_PORT = "runuser -u nobody -- timeout 30 python3 -m http.server --bind 127.0.0.1 8099 >/dev/null 2>&1 &"


def test_an_app_cannot_speak_for_nginx(balancer: Balancer) -> None:
    """A program that is not root's neither reads what Nginx tells of itself, nor keeps it from starting."""
    before = balancer.state()
    asked = balancer.host.run("runuser -u nobody -- python3 -c %s /generation", ASK_STATUS)
    assert "PermissionError" in asked.stderr
    balancer.host.check_output("sh -c %s", f"systemctl stop nginx; {TAKE_PORT} sleep 1")
    balancer.host.check_output("systemctl start nginx")
    assert balancer.state().generation == before.generation
    assert balancer.run_role().changed == 0
    balancer.host.run("pkill -u nobody -f 'http.server --bind 127.0.0.1 8099'")


BIND = "python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])'"


@pytest.mark.parametrize("left", sample([BIND, "touch"]))
def test_a_socket_that_was_left(balancer: Balancer, left: str) -> None:
    """What is in the place of the status socket keeps Nginx neither from starting nor from being tested."""
    before = balancer.state()
    balancer.host.check_output(f"systemctl stop nginx; rm -f {STATUS}; {left} {STATUS}")
    run = balancer.run_role()
    assert (run.ok, run.changed) == (True, 1), run.output
    assert balancer.state().generation == before.generation


def test_nothing_to_do(balancer: Balancer) -> None:
    """A run without changes reloads nothing: each reload costs some clients their connection."""
    before = balancer.state()
    run = balancer.run_role()
    assert (run.ok, run.changed) == (True, 0)
    assert balancer.state() == before


def test_check_mode(balancer: Balancer) -> None:
    """A dry run shows what would change and changes nothing."""
    before = balancer.state()
    run = balancer.run_role("--check", "--diff", nginx_limits={"client_requests": 50})
    assert (run.ok, run.changed) == (True, 1)
    assert "\n+    limit_conn requests 50;" in run.output.replace("\x1b[32m", "")
    assert balancer.state() == before


def test_change(balancer: Balancer, role: Callable[..., Run]) -> None:
    """A change runs when the role is done."""
    before = balancer.state()
    run = role(nginx_headers={"X-Frame-Options": 'say "no";', "X-New": "1"})
    assert (run.ok, run.changed) == (True, 1)
    answer = balancer.ask("/kept/")
    assert answer.header("X-Frame-Options") == ['say "no";']
    assert answer.header("X-New") == ["1"]
    assert balancer.state().generation != before.generation


@pytest.mark.full
def test_large_fleet(balancer: Balancer, tmp_path: Path) -> None:
    """Nginx has room for two hundred backends."""
    hosts = {f"app{number}": {"fleet_address": f"127.1.0.{number}"} for number in range(200)}
    (tmp_path / "large.yml").write_text(json.dumps({"backends": {"hosts": hosts}}))
    run = balancer.run_role(f"--inventory={tmp_path}/large.yml", "--check")
    assert run.ok, run.output


@pytest.mark.parametrize("options", sample([[], ["--check"]]))
def test_refused_configuration(balancer: Balancer, options: list[str]) -> None:
    """What `nginx -t` refuses never becomes the file, and the words of Nginx are in the error."""
    before, files = balancer.state(), balancer.host.check_output("ls -A /etc/nginx")
    run = balancer.run_role(*options, nginx_headers={"X-Broken": "$no_such_variable"})
    assert not run.ok
    assert 'unknown "no_such_variable" variable' in run.output
    assert balancer.state() == before
    assert balancer.host.check_output("ls -A /etc/nginx") == files


def test_accepted_but_not_running(balancer: Balancer, role: Callable[..., Run]) -> None:
    """A port that is taken passes `nginx -t` and the reload: the role notices, and puts back."""
    before = balancer.state()
    run = role(nginx_port=9101)
    assert not run.ok
    assert "Address already in use" in run.output
    assert balancer.state()[:2] == before[:2]
    assert balancer.ask("/kept/").status == 200


def test_edited_by_hand(balancer: Balancer) -> None:
    """A change by hand is undone."""
    before = balancer.state()
    balancer.host.check_output(f"echo '# by hand' >> {CONFIG}")
    assert balancer.run_role().changed == 1
    assert balancer.state()[:2] == before[:2]


def test_lost_reload(balancer: Balancer, role: Callable[..., Run]) -> None:
    """A file that is as wanted is not enough: what runs counts."""
    before = balancer.state()
    balancer.host.check_output(f"cp -p {CONFIG} /root/wanted")
    assert role(nginx_limits={"client_requests": 50}).changed == 1
    balancer.host.check_output(f"mv /root/wanted {CONFIG}")
    assert balancer.state().file == before.file
    assert balancer.state().generation != before.generation
    assert balancer.run_role().changed == 1
    assert balancer.state()[:2] == before[:2]


@pytest.mark.parametrize(
    "accident",
    sample(
        [
            f"systemctl stop nginx && rm {CONFIG}",
            f"echo nonsense > {CONFIG} && ! systemctl restart nginx",
            "systemctl stop nginx",
            "systemctl disable --now nginx",
        ],
        keep=2,
    ),
)
def test_dead(balancer: Balancer, accident: str) -> None:
    """The next run starts what is down, whatever state it is in."""
    before = balancer.state()
    balancer.host.check_output(accident)
    run = balancer.run_role()
    assert (run.ok, run.changed) == (True, 1), run.output
    assert balancer.state()[:2] == before[:2]
    assert balancer.host.service("nginx").is_enabled
    assert balancer.ask("/kept/").status == 200


@pytest.mark.full
def test_disabled(balancer: Balancer) -> None:
    """Nginx that runs and would not start at the next boot is enabled."""
    balancer.host.check_output("systemctl disable nginx")
    assert balancer.run_role().changed == 1
    assert balancer.host.service("nginx").is_enabled


def test_killed(balancer: Balancer) -> None:
    """A dead master is back without a person, and without a run."""
    before = balancer.state()
    balancer.host.check_output("kill -9 $(cat /run/nginx.pid)")
    balancer.host.check_output(
        "timeout 20 sh -c 'until systemctl is-active --quiet nginx && test -e /proc/$(cat /run/nginx.pid);"
        " do sleep 0.1; done'"
    )
    assert balancer.ask("/kept/").status == 200
    assert balancer.state().generation == before.generation
    assert balancer.run_role().changed == 0


def test_a_stop_lets_requests_finish(balancer: Balancer) -> None:
    """Debian's unit would cut this one after five seconds."""
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(balancer.ask, "/kept/?slow=8")
        time.sleep(1)
        balancer.host.check_output("systemctl stop nginx")
        balancer.host.check_output("systemctl start nginx")
        assert slow.result().status == 200


@pytest.mark.parametrize("end", ["systemctl restart nginx", "kill -9 $(cat /run/nginx.pid)"])
def test_the_next_master_does_not_wait(balancer: Balancer, end: str) -> None:
    """The old workers finish what they have, take nothing more, and are gone then."""
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(balancer.ask, "/kept/?slow=8")
        time.sleep(1)
        old, master = balancer.state().workers.split(), "$(cat /run/nginx.pid)"
        before = balancer.host.check_output(f"echo {master}")
        balancer.host.check_output(end)
        another = f"test {master} != {before} && test -d /proc/{master} && systemctl is-active --quiet nginx"
        balancer.host.check_output(f"timeout 6 sh -c 'until {another}; do sleep 0.1; done'")
        assert balancer.ask("/kept/").status == 200
        assert not slow.done()
        assert not {*balancer.state().workers.split()} & {*old}
        assert slow.result().status == 200
    gone = " && ".join(f"! test -e {Path(file).parent}" for file in old)
    balancer.host.check_output(f"timeout 5 sh -c 'until {gone}; do sleep 0.1; done'")


@pytest.mark.full
def test_an_old_nginx(balancer: Balancer) -> None:
    """One without max_headers serves without that limit, and an update brings it."""
    before = balancer.state()
    nginx = "/usr/sbin/nginx"
    balancer.host.check_output(f"cp -p {nginx} /root/nginx")
    try:
        # The same program, which knows the directive by another name.
        balancer.host.check_output(f"sed 's/max_headers/max_headerz/g' /root/nginx > {nginx}.old")
        balancer.host.check_output(
            f"chmod 755 {nginx}.old && mv {nginx}.old {nginx} && systemctl restart nginx; true"
        )
        run = balancer.run_role()
        assert run.ok, run.output
        assert "This Nginx knows no limit for the number of headers" in " ".join(run.output.split())
        balancer.host.check_output("systemctl restart nginx")
        assert balancer.ask("/kept/").status == 200
        assert balancer.run_role().changed == 0
    finally:
        balancer.host.check_output(f"mv /root/nginx {nginx} && systemctl restart nginx")
    assert balancer.run_role().changed == 1
    assert balancer.state()[:2] == before[:2]


@pytest.mark.full
def test_a_kernel_without_ipv6(balancer: Balancer) -> None:
    """There is no socket of that family, for Nginx and for the role: it listens on IPv4."""
    before = balancer.state()
    families = "RestrictAddressFamilies=AF_UNIX AF_INET AF_NETLINK"
    python, drop_in = "/usr/local/bin/python-no6", "/etc/systemd/system/nginx.service.d/zz-no6.conf"
    run = f'exec systemd-run --quiet --pipe --wait -p "{families}" /usr/bin/python3 "$@"'
    balancer.host.check_output(
        "sh -c %s", f"printf '#!/bin/sh\\n%s\\n' '{run}' > {python}; chmod 755 {python}"
    )
    service = f"[Service]\\nRestrictAddressFamilies=\\n{families}\\n"
    balancer.host.check_output(
        "sh -c %s", f"printf '{service}' > {drop_in}; systemctl daemon-reload; ! systemctl restart nginx"
    )
    try:
        role = balancer.run_role(ansible_python_interpreter=python)
        assert role.ok, role.output
        assert balancer.ask("/kept/").status == 200
        assert not balancer.host.socket("tcp://:::80").is_listening
        assert balancer.run_role(ansible_python_interpreter=python).changed == 0
    finally:
        balancer.host.check_output(f"rm {drop_in} {python}; systemctl daemon-reload; systemctl restart nginx")
    assert balancer.run_role().changed == 1
    assert balancer.state()[:2] == before[:2]


def test_sandbox(balancer: Balancer) -> None:
    """Of what systemd can take from a service, Nginx keeps only what it needs."""
    balancer.host.check_output("systemd-analyze security --threshold=30 nginx.service")
