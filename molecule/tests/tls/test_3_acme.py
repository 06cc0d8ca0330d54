"""Certificates of a real ACME authority: issued, renewed, refused, and TLS switched off again."""

from __future__ import annotations

import json
import socket
import ssl
from pathlib import Path

import pytest
from testbed import NODES, sample, sh

from .certificates import DAY, NOW, Files
from .conftest import NAMES, PEM, Balancer, good, play, probed

ONE, TWO = Balancer("lb1"), Balancer("lb2")
RELOAD = "python3 /usr/local/lib/paddock/nginx_host.py reload"
HOOK = "RENEWED_LINEAGE=/root/new python3 /usr/local/lib/paddock/tls_host.py"
RENEW = "certbot renew --force-renewal --cert-name paddock --no-random-sleep-on-renew"


def get(url: str, body: str = "") -> str:
    """Ask the ACME authority's node, on the node itself."""
    program = "import ssl, sys, urllib.request as u; data = sys.stdin.read().encode() or None; "
    program += f"print(u.urlopen('{url}', data, context=ssl._create_unverified_context()).read().decode())"
    return sh("ca1", f'python3 -c "{program}"', text=body)


@pytest.fixture(scope="module")
def root() -> str:
    """What clients trust: Pebble makes another one each time it starts."""
    return get("https://127.0.0.1:15000/roots/0")


@pytest.fixture(scope="module", autouse=True)
def issued() -> None:
    """Go over to ACME; one balancer comes from nothing."""
    sh("lb2", "systemctl stop nginx; rm -rf /etc/paddock/tls")
    good(fleet_tls="acme")


def send_to(balancer: Balancer) -> None:
    """Have all names lead to one balancer."""
    get("http://127.0.0.1:8055/set-default-ipv4", json.dumps({"ip": NODES[balancer.name]["fleet_address"]}))


def renew(balancer: Balancer) -> int:
    """Have certbot renew; returns the new serial number."""
    sh(balancer.name, RENEW)
    return balancer.settled()


@pytest.mark.parametrize("name", NAMES)
def test_serves(balancer: Balancer, root: str, name: str) -> None:
    """The authority's certificate, with the chain that clients need."""
    assert balancer.ask("/requestme", root, name).status == 200


def test_each_has_its_own(root: str) -> None:
    """No key travels between the balancers."""
    assert ONE.settled() != TWO.settled()
    for balancer in (ONE, TWO):
        assert sh(balancer.name, f"stat -c '%a %U %G' {PEM}") == "600 root root"
        assert sh(balancer.name, "systemctl is-active certbot.timer") == "active"


@pytest.mark.full
def test_nothing_is_asked_twice() -> None:
    """A second run finds all as it should be, and a dry one says so."""
    assert good(fleet_tls="acme").changed == 0
    assert good("--check", "--diff", fleet_tls="acme").changed == 0


@pytest.mark.parametrize("asked", [ONE, TWO], ids=["lb1", "lb2"])
def test_either_answers_the_other_s_challenge(balancer: Balancer, asked: Balancer) -> None:
    """The authority is sent to one of them, whoever renews."""
    before = balancer.settled()
    send_to(asked)
    assert renew(balancer) != before


def test_an_unknown_challenge_is_not_passed_around() -> None:
    """Two balancers that do not know an answer do not ask each other for ever."""
    assert ONE.ask("/.well-known/acme-challenge/nobody-knows").status == 404


def test_renewed(root: str, tmp_path: Path) -> None:
    """F48: by what certbot's timer starts, under load: nothing lost, and new handshakes get the new one."""
    before, due = ONE.settled(), "renew_before_expiry = 9999 days"
    sh("lb1", f"sed -i '1i {due}' /etc/letsencrypt/renewal/paddock.conf")
    with probed(ONE, root, tmp_path) as report:
        sh("lb1", "systemctl start certbot.service")
        assert ONE.settled() != before
    report.assert_clean()
    sh("lb1", f"sed -i '/^{due}/d' /etc/letsencrypt/renewal/paddock.conf")
    assert good(fleet_tls="acme").changed == 0


def spoil(kind: str, files: Files) -> tuple[str, str]:
    """What a renewal leaves behind that went wrong: the chain and the key."""
    files.make(NOW - DAY if kind == "expired" else NOW + DAY)
    chain, key = files.certificate.read_text(), files.key.read_text()
    if kind == "mismatch":
        files.make()
        key = files.key.read_text()
    return ("nothing" if kind == "no certificate" else chain, "" if kind == "no key" else key)


def bring(balancer: Balancer, chain: str, key: str) -> None:
    """Have certbot's hook find files."""
    sh(balancer.name, "rm -rf /root/new; mkdir /root/new; cat > /root/new/fullchain.pem", text=chain)
    if key:
        sh(balancer.name, "cat > /root/new/privkey.pem", text=key)


@pytest.mark.parametrize(
    ("kind", "says"),
    sample(
        [
            ("expired", "has expired on"),
            ("mismatch", "do not load"),
            ("no certificate", "do not load"),
            ("no key", "cannot be read"),
        ],
        2,
    ),
)
def test_refused(balancer: Balancer, kind: str, says: str, tmp_path: Path) -> None:
    """F48: a renewal that went wrong is refused before Nginx sees it; the old one is served on."""
    bring(balancer, *spoil(kind, Files(tmp_path)))
    before, file = balancer.settled(), sh(balancer.name, f"sha256sum {PEM}")
    said = sh(balancer.name, f"{HOOK} {RELOAD} 2>&1; echo exit $?")
    assert "exit 1" in said
    assert "is refused, the one before it stays" in said
    assert says in said
    assert sh(balancer.name, f"sha256sum {PEM}") == file
    sh(balancer.name, RELOAD)
    assert balancer.settled() == before


@pytest.mark.full
def test_refused_by_nginx(balancer: Balancer, tmp_path: Path) -> None:
    """Where the reload fails, the file is put back."""
    bring(balancer, *spoil("good", Files(tmp_path)))
    before, file = balancer.settled(), sh(balancer.name, f"sha256sum {PEM}")
    assert "`false` failed" in sh(balancer.name, f"{HOOK} false 2>&1; true")
    assert sh(balancer.name, f"sha256sum {PEM}") == file
    assert balancer.settled() == before


def test_off_again() -> None:
    """Plain HTTP answers, TLS does not, and nothing is renewed any more."""
    good(fleet_tls="off")
    for balancer in (ONE, TWO):
        assert balancer.ask("/requestme").status == 200
        with (
            pytest.raises((ssl.SSLError, OSError)),
            socket.create_connection(balancer.secure, 5) as connection,
        ):
            ssl._create_unverified_context().wrap_socket(connection, server_hostname=NAMES[0])
        assert sh(balancer.name, "ls /etc/letsencrypt/renewal") == ""
    assert good(fleet_tls="off").changed == 0


def test_on_again_is_tried_first(balancer: Balancer) -> None:
    """`--check` tells what would come, on hosts that have never had a certificate too."""
    sh(balancer.name, "rm -rf /etc/paddock/tls")
    run = play("--check", "--diff", "--limit", balancer.name, fleet_tls="self-signed")
    assert run.rc == 0, run.output
    assert balancer.ask("/requestme").status == 200
