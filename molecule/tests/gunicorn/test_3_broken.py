"""A release that does not work never serves, and the run says why."""

from __future__ import annotations

import copy
import re
import shutil
from dataclasses import dataclass, field
from typing import Any

import pytest

NODE = "trixie1"


@dataclass(frozen=True)
class Case:
    """A way to break an app."""

    code: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    says: tuple[str, ...] = ()
    says_not: tuple[str, ...] = ()


# The apps that serve already, and new ones, which are the first release with something else wrong.
BROKEN = {
    "echo": Case(code="def (", says=("SyntaxError", "app.py")),
    "drain": Case(
        settings={"framework": "flask"},
        says=("apps.yml says framework: flask, but app:app is a tornado.web.Application",),
    ),
    "import-error": Case(
        code="import there_is_no_such_module", says=("No module named 'there_is_no_such_module'",)
    ),
    "wrong-object": Case(settings={"entrypoint": "app:application"}, says=("application", "app")),
    "arguments": Case(settings={"entrypoint": "app:needs_arguments()"}, says=("needs_arguments",)),
    "not-ready": Case(
        settings={"health_path": "/fails"},
        says=("not ready after 4 s", "/fails: status 500, want 200", "RuntimeError: the database", "app.py"),
    ),
    "anonymous": Case(
        settings={"health_path": "/anonymous"},
        says=("/anonymous: status 200, but the answer does not name the release", '{"status":"ready"}'),
        says_not=("not ready after",),  # waiting changes none of these answers
    ),
    "not-found": Case(
        settings={"health_path": "/nowhere"},
        says=(
            "/nowhere (Host: localhost, X-",
            "status 404, want 200: the app has no /nowhere",
            "health_path",
        ),
        says_not=("not ready after",),
    ),
    "redirects": Case(
        settings={"health_path": "/redirects", "server_names": ["shop.example.org"]},
        says=("(Host: shop.example.org,", "302", "it redirects to https://elsewhere.example.org/login"),
        says_not=("not ready after",),
    ),
    "exits": Case(
        code="import sys; sys.exit('there is no licence')",
        says=("there is no licence", "is failed"),
        says_not=("not ready after",),
    ),
    "writes": Case(
        code="Path(__file__).with_name('uploads').mkdir()",
        says=("Read-only file system", "STATE_DIRECTORY (/var/lib/paddock/writes)"),
    ),
    "not-tornado": Case(
        settings={"framework": "tornado"},
        says=("tornado",),
    ),
}
NEW = [name for name in BROKEN if name not in ("echo", "drain")]


@pytest.fixture(scope="module")
def broken(fleet: Any, nodes: list[Any], load: Any) -> dict[str, Any]:
    """Try to deploy all of them at once, under load."""
    node = next(node for node in nodes if node.name == NODE)
    before = {app: (node.slot(app), node.release(app)) for app in ("echo", "drain")}
    good = copy.deepcopy(fleet.apps)
    sources = {app: (fleet.source / app / "app.py").read_text() for app in ("echo", "drain")}
    for number, name in enumerate(NEW):
        shutil.copytree(fleet.source / "echo", fleet.source / name)
        fleet.apps.append({**fleet.app("echo"), "name": name, "port": 8100 + number, "environment": {}})
    for name, case in BROKEN.items():
        with (fleet.source / name / "app.py").open("a") as code:
            code.write(case.code)
        fleet.app(name).update(case.settings)
    fleet.settings["gunicorn_readiness"] = {"boot_timeout": 4, "watch_seconds": 0}
    try:
        with load(lambda: node.http(8080)) as flask, load(lambda: node.http(8081)) as tornado:
            run = fleet.run("--skip-tags", "python", "--limit", NODE, rc=2)
    finally:
        for app, source in sources.items():
            (fleet.source / app / "app.py").write_text(source)
        fleet.apps, fleet.settings = good, {}
    return {"run": run, "before": before, "node": node, "failures": flask.failures + tornado.failures}


@pytest.mark.parametrize("app", BROKEN)
def test_the_message_says_why(broken: Any, app: str) -> None:
    """With the reason, and the last words of the app where it has any."""
    failed = re.split(r"fatal: \[\S+\]: ", broken["run"].output, maxsplit=1)[1]
    parts = re.split(rf"^ *(?=(?:{'|'.join(BROKEN)}) \w+ is not ready)", failed, flags=re.MULTILINE)
    mine = [part for part in parts if part.startswith(f"{app} ")]
    assert len(mine) == 1, broken["run"].output
    message = re.sub(r"\s+", " ", mine[0])
    assert f"is not ready on {NODE}" in message
    outcome = "no release of it is live" if app in NEW else "the release from before stays live"
    assert outcome in message
    assert [words for words in BROKEN[app].says if words not in message] == [], message
    assert [words for words in BROKEN[app].says_not if words in message] == [], message


@pytest.mark.parametrize("app", ["echo", "drain"])
def test_the_old_release_keeps_serving(broken: Any, app: str) -> None:
    """In the same slot, in the same process, and no request was lost."""
    node = broken["node"]
    assert (node.slot(app), node.release(app)) == broken["before"][app]
    assert broken["failures"] == []


def test_nothing_is_left(broken: Any) -> None:
    """No unit of a release that never served, and no preflight."""
    node = broken["node"]
    units = node.sh(
        "systemctl list-units --all --plain --no-legend | cut -d' ' -f1;"
        " ls -R /run/systemd/system /etc/systemd/system"
    )
    assert "-preflight" not in units
    assert not [name for name in NEW if re.search(rf"^{name}\W", units, re.MULTILINE)]
    assert node.sh("ls -d /etc/paddock/*/preflight", check=False) == ""


def test_the_next_good_run_works(fleet: Any, broken: Any) -> None:
    """Back to the old description changes nothing of what serves."""
    fleet.configure("--limit", NODE)
    node = broken["node"]
    assert (node.slot("echo"), node.slot("drain")) == tuple(slot for slot, _ in broken["before"].values())
    assert node.sh("ls /etc/paddock") == "drain\necho"
    assert fleet.configure("--limit", NODE).changed == 0
