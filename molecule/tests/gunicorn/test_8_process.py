"""What the process of an app is given, and what its failures say."""

from __future__ import annotations

import copy
import http.client
import re
import secrets
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
from testbed import play


@pytest.fixture
def echo(fleet: Any) -> Iterator[Any]:
    """The entry of echo and its run, put back afterwards."""
    apps = copy.deepcopy(fleet.apps)
    yield fleet
    fleet.apps, fleet.settings = apps, {}


def set_up(fleet: Any, environment: dict[str, str] | None = None, **keys: object) -> None:
    """Describe echo with these keys."""
    fleet.app("echo").update(keys)
    fleet.app("echo")["environment"] = environment or {}


def test_the_code_is_there(fleet: Any, nodes: list[Any]) -> None:
    """The other tests here need this release."""
    fleet.run("--skip-tags", "python")
    assert [node.release("echo") for node in nodes] == [node.http(8080).json["release"] for node in nodes]


def test_variables_are_there_from_the_start(echo: Any, nodes: list[Any]) -> None:
    """The C library and the interpreter have read them: the time zone, the module path, the allocator."""
    set_up(
        echo, {"TZ": "Asia/Tokyo", "PYTHONPATH": "/opt/modules", "MALLOC_ARENA_MAX": "2", "LANG": "C.UTF-8"}
    )
    echo.configure()
    for node in nodes:
        said = node.http(8080, "/clock").json
        assert said["zone"] == "+0900"
        assert "/opt/modules" in said["path"]
        pid = node.slot("echo").pid
        started = node.sh(f"tr '\\0' '\\n' </proc/{pid}/environ").splitlines()
        assert {"TZ=Asia/Tokyo", "MALLOC_ARENA_MAX=2", "LANG=C.UTF-8"} <= set(started)
        assert not [line for line in started if line.startswith("LC_CTYPE=")]


def test_readiness_check_looks_like_a_client(echo: Any, nodes: list[Any]) -> None:
    """An app that checks its hosts and redirects http is ready all the same."""
    set_up(
        echo,
        {"HOST_NAME": "shop.example.org"},
        health_path="/guarded",
        server_names=["shop.example.org", "www.example.org"],
    )
    echo.configure()
    for node in nodes:
        assert node.http(8080, "/guarded").status == 403
        node.slot("echo")


@pytest.mark.full
def test_proxy_fix_does_no_harm(echo: Any, nodes: list[Any]) -> None:
    """An app that finds out who its client is by itself comes to the same."""
    set_up(echo, {"PROXY_FIX": "1"})
    echo.configure()
    for node in nodes:
        assert node.http(8080, **{"X-Forwarded-For": "203.0.113.9"}).json["client"] == "203.0.113.9"
        assert node.http(8080).json["client"] == "127.0.0.1"


@pytest.mark.full
def test_a_long_wait_shows_what_it_waits_for(echo: Any, nodes: list[Any]) -> None:
    """An app that becomes ready late; the values of its environment are not shown."""
    token = secrets.token_urlsafe(24)
    set_up(echo, {"READY_SECONDS": "13", "TOKEN": token}, health_path="/slow-start")
    echo.settings["gunicorn_readiness"] = {"boot_timeout": 40, "watch_seconds": 0}
    output = echo.configure("--limit", nodes[0].name).output
    shown = re.findall(
        rf"^{nodes[0].name}: echo is not ready after \d+ of 40 s \(\w+\): GET \S+/slow-start: status 500.*$",
        output,
        re.MULTILINE,
    )
    assert len(shown) > 1, output
    assert all("********" in line for line in shown)
    assert token not in output
    assert nodes[0].sh("ls -a /run/paddock | grep progress", check=False) == ""


@pytest.mark.full
def test_each_worker_has_its_threads(echo: Any, nodes: list[Any]) -> None:
    """What the import starts lives in each worker."""
    set_up(echo)
    output = echo.configure().output
    assert "warning:" not in output
    for node in nodes:
        for _ in range(8):
            said = node.http(8080, "/ticks").json
            assert said["pid"] in said["ticks"]


@pytest.mark.full
def test_threads_that_vanish_are_warned_of(echo: Any, nodes: list[Any]) -> None:
    """With preload they are in no worker; the run and the journal name them."""
    set_up(echo, preload=True)
    output = echo.configure().output
    for node in nodes:
        said = node.http(8080, "/ticks").json
        assert said["pid"] not in said["ticks"]
        assert re.search(rf"{node.name}: echo: warning: the import started threads .*: ticker", output)
        color = node.slot("echo").color
        assert "ticker" in node.sh(f"journalctl -u echo-{color} -o cat | grep 'started threads' | tail -1")


@pytest.mark.full
@pytest.mark.parametrize("preload", [False, pytest.param(True, marks=pytest.mark.full)])
def test_a_worker_that_cannot_come_back(
    echo: Any, nodes: list[Any], load: Any, until: Any, preload: bool
) -> None:
    """What an import needs may be away when a worker is replaced; the others go on, and it comes back."""
    node = nodes[0]
    set_up(echo, {"BREAK_IMPORT": "file"}, preload=preload)
    echo.configure("--limit", node.name)
    slot = node.slot("echo")
    broken, said = "/var/lib/paddock/echo/broken", f"journalctl _PID={slot.pid} -o cat -u echo-{slot.color}"
    count = f"{said} | grep -c 'exited with code 255' || true"
    before = int(node.sh(count))
    with load(lambda: node.http(8080)) as traffic:
        node.sh(f"touch {broken}; kill -TERM $(pgrep -P {slot.pid} | head -1)")
        if not preload:
            until(lambda: int(node.sh(count)) > before + 1, "it has tried twice", 30)
        node.sh(f"rm {broken}")
        until(lambda: len({node.http(8080).json["pid"] for _ in range(20)}) == 2, "both workers answer", 30)
    assert traffic.failures == []
    assert node.slot("echo") == slot


@pytest.mark.full
def test_an_import_may_take_longer_than_a_request(echo: Any, nodes: list[Any]) -> None:
    """The master does not take the worker for one that hangs."""
    set_up(echo, {"BOOT_SECONDS": "9"})
    assert echo.app("echo")["timeout"] == 5
    echo.configure("--limit", nodes[0].name)
    said = nodes[0].sh(f"journalctl -u echo-{nodes[0].slot('echo').color} -o cat -n 60")
    assert "WORKER TIMEOUT" not in said.rpartition("Starting gunicorn")[2]


@pytest.mark.parametrize("path", ["/write", "/overwrite", "/sqlite"])
def test_a_write_to_the_release(node: Any, path: str) -> None:
    """The log says where the app may write."""
    assert node.http(8080, path).status == 500
    said = node.sh(f"journalctl -u echo-{node.slot('echo').color} -o cat -n 60")
    last = said.rpartition("Traceback")[2]
    assert "Write below the folder that STATE_DIRECTORY (/var/lib/paddock/echo)" in last


@pytest.mark.full
def test_host_metrics(echo: Any, nodes: list[Any]) -> None:
    """The host's memory is to be read by an app that has the key, and by no other."""
    assert [node.http(8080, "/meminfo").status for node in nodes] == [500, 500]
    set_up(echo, host_metrics=True)
    echo.configure()
    for node in nodes:
        assert "MemAvailable" in node.http(8080, "/meminfo").text
        node.sh(f"systemd-analyze security --threshold=15 echo-{node.slot('echo').color}.service")


def page(node: Any, since: str = "") -> tuple[int, str]:
    """Ask for the static file, as a browser that has the file of then; returns status and Last-Modified."""
    connection = http.client.HTTPConnection(*node.reach(8080), timeout=20)
    try:
        connection.request("GET", "/static/page.txt", headers={"If-Modified-Since": since} if since else {})
        response = connection.getresponse()
        response.read()
        return response.status, response.headers["Last-Modified"]
    finally:
        connection.close()


RETURN = """
- hosts: all
  become: true
  gather_facts: false
  vars: {gunicorn_trusted_proxies: [192.0.2.1]}
  tasks:
    - ansible.builtin.import_role: {name: paddock.fleet.gunicorn, tasks_from: roll_back}
"""


@pytest.mark.full
def test_static_files_have_the_time_of_their_release(echo: Any, nodes: list[Any], tmp_path: Path) -> None:
    """After a deploy, a change of settings and a return, a browser never keeps what is old."""
    static = echo.source / "echo/static/page.txt"
    static.parent.mkdir(exist_ok=True)
    times, first = [], secrets.token_hex()
    for run in ("20260101T000000Z-a", "20260201T000000Z-b"):
        static.write_text(f"{first} {run}" if times else first)
        echo.settings["gunicorn_run"] = {"id": run}
        echo.run("--skip-tags", "python")
        (time,) = {page(node)[1] for node in nodes}
        times.append(time)
    assert [parsedate_to_datetime(time).strftime("%Y%m%d") for time in times] == ["20260101", "20260201"]
    assert [[page(node, time)[0] for time in times] for node in nodes] == [[200, 304]] * 2
    # What returns is newer than what it takes the place of.
    (tmp_path / "return.yml").write_text(RETURN)
    done = play(str(tmp_path / "return.yml"), *echo.options())
    assert (done.rc, done.changed) == (0, 2), done.output
    (returned,) = {page(node)[1] for node in nodes}
    assert [[page(node, time)[0] for time in times] for node in nodes] == [[200, 200]] * 2
    # The release that serves keeps its times.
    static.write_text(first)
    set_up(echo, {"A": "b"})
    echo.settings["gunicorn_run"] = {"id": "20260301T000000Z-c"}
    echo.run("--skip-tags", "python")
    assert [page(node)[1] for node in nodes] == [returned] * 2
