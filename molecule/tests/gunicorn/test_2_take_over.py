"""A new release is activated, and no client notices."""

from __future__ import annotations

import contextlib
import itertools
import secrets
from typing import Any

import pytest

PORTS = {"echo": 8080, "drain": 8081}
SESSION = secrets.token_hex(4)
SLOW = (1.7, 2.3, 3.1)


def socket_of(node: Any, app: str) -> tuple[str, str]:
    """What tells one listening socket from the next: the unit's start, and the kernel's inode."""
    inode = node.sh(f"ss -Hltne 'sport = :{PORTS[app]}' | grep -o 'ino:[0-9]*' | sort -u")
    return node.sh(f"systemctl show --property=InvocationID {app}.socket"), inode


@pytest.fixture(scope="module")
def switched(fleet: Any, nodes: list[Any], load: Any, websocket: Any) -> dict[str, Any]:
    """Let new releases of both apps take over on all nodes under load, once for all tests here."""
    before = {
        (node, app): (node.slot(app), node.release(app), socket_of(node, app))
        for node in nodes
        for app in PORTS
    }
    websockets = [websocket(node.reach(PORTS["drain"]), "/ws") for node in nodes]
    loads = {}
    for node in nodes:
        ids = map(f"{node.name}-{SESSION}-{{}}".format, itertools.count())
        loads[node, "post"] = load(lambda node=node, ids=ids: node.http(8080, "/ledger", body=next(ids)))
        loads[node, "echo"] = load(lambda node=node: node.http(8080))
        loads[node, "drain"] = load(lambda node=node: node.http(8081))
        for app, port in PORTS.items():
            # Out of step with each other, so that one is under way whenever the old slot stops.
            for seconds in SLOW:
                loads[node, app, seconds] = load(
                    lambda node=node, port=port, seconds=seconds: node.http(port, f"/sleep?{seconds=}"),
                    pause=0.2,
                )
    for app in PORTS:
        (fleet.source / app / "changed.py").write_text(f"# {secrets.token_hex()}\n")
    with contextlib.ExitStack() as stack:
        for traffic in loads.values():
            stack.enter_context(traffic)
        run = fleet.run("--skip-tags", "python")
    return {"before": before, "loads": loads, "websockets": websockets, "run": run}


@pytest.mark.parametrize("app", PORTS)
def test_the_other_slot_serves(node: Any, switched: Any, app: str) -> None:
    """The new release runs in the other slot, the old one is over."""
    slot, release, _ = switched["before"][node, app]
    assert node.slot(app).color != slot.color
    assert node.release(app) != release
    assert node.sh(f"systemctl is-active {app}-{slot.color}", check=False) == "inactive"
    assert node.sh(f"test -e /proc/{slot.pid}; echo $?") == "1"


@pytest.mark.parametrize("app", PORTS)
def test_the_socket_stays(node: Any, switched: Any, app: str) -> None:
    """It is the very same socket: never closed, never opened again."""
    assert socket_of(node, app) == switched["before"][node, app][2]


@pytest.mark.parametrize("kind", ["post", "echo", "drain"])
def test_no_request_is_lost(node: Any, switched: Any, kind: str) -> None:
    """Hundreds of requests during the take-over, each on a connection of its own."""
    load = switched["loads"][node, kind]
    assert load.failures == []
    assert len(load.answers) > 100


def test_no_post_is_executed_twice(node: Any, switched: Any) -> None:
    """The app's own book has each of them once."""
    entered = [line for line in node.http(8080, "/ledger").json if line.startswith(f"{node.name}-{SESSION}-")]
    assert sorted(entered) == sorted(set(entered))
    assert len(entered) == len(switched["loads"][node, "post"].answers)


@pytest.mark.parametrize("app", PORTS)
def test_requests_under_way_finish(node: Any, switched: Any, app: str) -> None:
    """The old slot answers what it has begun, after it was told to stop."""
    slow = [switched["loads"][node, app, seconds] for seconds in SLOW]
    assert [load.failures for load in slow] == [[]] * len(SLOW)
    slot, old, _ = switched["before"][node, app]
    # The nodes have this machine's clock.
    told = node.sh(f"systemctl show --property=ActiveExitTimestampMonotonic --value {app}-{slot.color}")
    late = [answer for load in slow for answer in load.answers if answer.at > int(told) / 1e6]
    assert {answer.json["release"] for answer in late} > {old}


def test_websockets_are_told(switched: Any) -> None:
    """Close code 1001, going away: browsers connect again."""
    assert [websocket.closed_with() for websocket in switched["websockets"]] == [1001, 1001]


def test_the_next_run_changes_nothing(fleet: Any, switched: Any) -> None:
    """Not even on the hosts where all this happened."""
    assert fleet.run("--skip-tags", "python").changed == 0


def test_a_setting_is_a_new_slot_too(fleet: Any, nodes: list[Any]) -> None:
    """The same release with more workers and with secrets, which show nowhere."""
    before = [(node.slot("echo"), node.release("echo")) for node in nodes]
    canary = secrets.token_urlsafe(24)
    fleet.app("echo")["workers"] = 3
    fleet.app("echo")["environment"] |= {"CANARY": canary, "LARGE": f"{canary} " * 2600}
    assert len(fleet.app("echo")["environment"]["LARGE"]) > 65536
    output = fleet.configure("-vvv", "--diff").output
    assert canary not in output
    for node, (slot, release) in zip(nodes, before, strict=True):
        now = node.slot("echo")
        assert now.color != slot.color
        assert node.release("echo") == release
        assert int(node.sh(f"pgrep -c -P {now.pid}")) == 3
        environment = node.http(8080).json["environment"]
        assert {key: environment[key] for key in fleet.app("echo")["environment"]} == fleet.app("echo")[
            "environment"
        ]
        # The bracket keeps the search from finding itself.
        pattern = f"[{canary[0]}]{canary[1:]}" if canary[0] != "-" else f"[-]{canary[1:]}"
        assert node.sh(f"journalctl -o export | grep -ac '{pattern}'", check=False) == "0"
        assert node.sh(f"cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -ac '{pattern}'", check=False) == "0"
        places = "/etc /run /srv /opt /var /tmp /usr/local"
        readable = f"find {places} -xdev -type f -perm -o=r -exec grep -las '{pattern}' {{}} +"
        units = f"grep -rlas '{pattern}' /etc/systemd /run/systemd"
        assert node.sh(readable, check=False) + node.sh(units, check=False) == ""


def test_stop_finishes_what_is_under_way(node: Any, call: Any, until: Any) -> None:
    """`systemctl stop` waits for a Tornado request of four seconds; the next one starts the slot again."""
    slot = node.slot("drain")
    established = "ss -Htn state established 'sport = :8081' | wc -l"
    with call(lambda: node.http(8081, "/sleep?seconds=4")) as slow:
        until(lambda: int(node.sh(established)) > 0, "it is under way")
        node.sh(f"systemctl stop drain-{slot.color}")
        assert slow.outcome.status == 200
    assert node.http(8081).status == 200
    assert node.slot("drain").color == slot.color
