"""Certificates that the fleet signs itself, and what holds in every mode."""

from __future__ import annotations

import json
import re
import socket
import ssl
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from cryptography import x509
from testbed import FULL, NODES, ROOT, sh

from .conftest import NAMES, PEM, Balancer, good, play


@pytest.fixture(scope="module")
def authority() -> str:
    """What users put among their authorities, one for both balancers."""
    return sh("lb1", "cat /etc/paddock/tls/authority.pem")


@pytest.mark.parametrize("name", NAMES)
def test_serves(balancer: Balancer, authority: str, name: str) -> None:
    """A client that trusts the authority gets an answer by either name."""
    answer = balancer.ask("/requestme", authority, name)
    assert (answer.status, answer.headers["Strict-Transport-Security"]) == (200, "max-age=0")


def test_strict_clients(balancer: Balancer, authority: str) -> None:
    """The certificates are as RFC 5280 has them, which Python 3.13 and others insist on."""
    context = ssl.create_default_context(cadata=authority)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with balancer.hello(context) as connection:
        assert connection.version() == "TLSv1.3"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2])
def test_versions(balancer: Balancer, authority: str, version: ssl.TLSVersion) -> None:
    """TLS 1.2 is the oldest."""
    context = ssl.create_default_context(cadata=authority)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
    if version == ssl.TLSVersion.TLSv1_2:
        with balancer.hello(context) as connection:
            assert connection.version() == "TLSv1.2"
        return
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        balancer.hello(context)


@pytest.mark.parametrize(("offered", "chosen"), [(["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1")])
def test_http2(balancer: Balancer, authority: str, offered: list[str], chosen: str) -> None:
    """HTTP/2 where the client speaks it."""
    context = ssl.create_default_context(cadata=authority)
    context.set_alpn_protocols(offered)
    with balancer.hello(context) as connection:
        assert connection.selected_alpn_protocol() == chosen


@pytest.mark.parametrize("name", [*NAMES, NAMES[0].upper()])
def test_plain_requests_are_redirected(balancer: Balancer, name: str) -> None:
    """To the same name and path; the method stays."""
    answer = balancer.ask("/requestme?a=%20b", name=name)
    assert answer.status == 308
    assert answer.headers["Location"] == f"https://{name.lower()}/requestme?a=%20b"


@pytest.mark.parametrize("name", ["evil.example.org", "127.0.0.1", "shop.example.org.evil.org"])
def test_unknown_names(balancer: Balancer, name: str) -> None:
    """They get neither a redirect to wherever they say, nor a handshake."""
    with pytest.raises(ConnectionResetError):
        balancer.ask("/requestme", name=name)
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        balancer.hello(ssl._create_unverified_context(), name)


def test_no_name(balancer: Balancer) -> None:
    """Nor does a client that sends no name."""
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        balancer.hello(ssl._create_unverified_context(), None)


def test_plain_text_on_the_port_of_tls(balancer: Balancer) -> None:
    """It is told, and nothing reaches an app."""
    with socket.create_connection(balancer.secure, timeout=10) as connection:
        connection.sendall(b"GET /requestme HTTP/1.1\r\nHost: shop.example.org\r\n\r\n")
        assert b" 400 " in connection.recv(4096)


def test_files(balancer: Balancer) -> None:
    """Keys are root's alone; that of the authority is on one host."""
    assert sh(balancer.name, f"stat -c '%a %U %G' {PEM}") == "600 root root"
    keys = sh(balancer.name, "cd /etc/paddock/tls; grep -lr 'PRIVATE KEY' . | xargs stat -c '%n %a %U'")
    files = {line.removesuffix(" 600 root") for line in keys.splitlines()} - {"./fleet.pem.previous"}
    assert files == {"./fleet.pem", *(["./authority.key"] if balancer.name == "lb1" else [])}


def test_the_authority_signs_for_the_fleet_only(authority: str) -> None:
    """Its key would be of no use for other sites."""
    limits = x509.load_pem_x509_certificate(authority.encode()).extensions.get_extension_for_class(
        x509.NameConstraints
    )
    assert limits.critical
    assert [name.value for name in limits.value.permitted_subtrees or ()] == list(NAMES)


def test_mozilla_intermediate(balancer: Balancer, authority: str, tmp_path: Path) -> None:
    """Sslyze finds all as Mozilla's guideline has it."""
    (tmp_path / "authority.pem").write_text(authority)
    address, port = balancer.secure
    command = [str(Path(sys.executable).with_name("sslyze")), "--mozilla_config=intermediate"]
    command += ["--certinfo_ca_file", str(tmp_path / "authority.pem"), "--sni", NAMES[0], f"{address}:{port}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert f"{address}:{port}: OK - Compliant" in done.stdout


SHORT = "\n".join(
    [
        "DAYS = 20",
        f"install(sign(request(), {NAMES!r}) + read(PENDING_KEY))",
        "PENDING_KEY.unlink()",
        "subprocess.run(['python3', '/usr/local/lib/paddock/nginx_host.py', 'reload'], check=True)",
    ]
)


def test_renewed_before_it_ends() -> None:
    """A run in its last 30 days makes another; the authority and the other balancer stay as they are."""
    one, two = Balancer("lb1"), Balancer("lb2")
    program = (ROOT / "plugins/module_utils/tls_host.py").read_text().partition("if __name__")[0]
    authority = sh("lb1", "cat /etc/paddock/tls/authority.pem")
    sh("lb1", "python3 -", text=program + SHORT)
    short, other = one.settled(), two.settled()
    assert good().changed > 0
    assert one.settled() != short
    assert two.settled() == other
    assert sh("lb1", "cat /etc/paddock/tls/authority.pem") == authority
    assert good().changed == 0


def test_a_new_name_makes_a_new_authority() -> None:
    """Both balancers get a certificate of it, also for an address."""
    names = {"fleet_tls_names": ["new.example.org", "192.0.2.7", "2001:db8::7"]}
    good(**names)
    authority = sh("lb1", "cat /etc/paddock/tls/authority.pem")
    for balancer in (Balancer("lb1"), Balancer("lb2")):
        balancer.settled()
        assert balancer.ask("/requestme", authority).status == 200
        context = ssl.create_default_context(cadata=authority)
        context.check_hostname = False
        with balancer.hello(context) as connection:
            said = connection.getpeercert() or {}
        assert [value for _, value in said["subjectAltName"]] == [
            *("192.0.2.7", "2001:DB8:0:0:0:0:0:7", "new.example.org", *NAMES),
        ]
    assert good(**names).changed == 0


# Python as it would be on a host whose clock is wrong.
LATE = '#!/bin/sh\nexec faketime -f -10m /usr/bin/python3 "$@"\n'


@pytest.mark.full
def test_clocks() -> None:
    """A clock that is ten minutes behind stops a run with TLS, and is told of without."""
    sh("lb2", "apt-get install -qy faketime")
    sh("lb2", "cat > /usr/local/bin/late; chmod +x /usr/local/bin/late", text=LATE)
    python = "{{ '/usr/local/bin/late' if inventory_hostname == 'lb2' else '/usr/bin/python3' }}"
    run = play(ansible_python_interpreter=python)
    assert run.rc != 0
    assert re.search(r"The clock of lb2 is 60\d s behind\s+this machine's", run.output), run.output
    assert run.changed == 0
    run = play("--check", ansible_python_interpreter=python, fleet_tls="off")
    assert run.rc == 0, run.output
    assert "The clock of lb2 is 60" in run.output


TRUST = """
rm -rf /root/.pki; mkdir -p /root/.pki/nssdb
certutil -d sql:/root/.pki/nssdb -N --empty-password
certutil -d sql:/root/.pki/nssdb -A -a -t C,, -n fleet
"""


@pytest.mark.skipif(not FULL, reason="make test-all: it installs a browser")
def test_browser() -> None:
    """Chromium shows the page by HTTP/2, and only once it has the authority."""
    sh("ca1", "apt-get install -qy --no-install-recommends chromium libnss3-tools")
    rule = f"MAP {NAMES[0]} {NODES['lb2']['fleet_address']}"
    browse = "chromium --headless --no-sandbox --disable-gpu --virtual-time-budget=5000"
    browse += f" --log-net-log=/root/net.json --host-resolver-rules='{rule}'"
    browse += f" --dump-dom https://{NAMES[0]}/requestme"
    sh("ca1", "rm -rf /root/.pki")
    assert "Thank you" not in sh("ca1", browse, check=False)
    sh("ca1", TRUST, text=sh("lb2", "cat /etc/paddock/tls/authority.pem"))
    assert "Thank you for requesting me." in sh("ca1", browse)
    log = json.loads(sh("ca1", "cat /root/net.json"))
    started = log["constants"]["logEventTypes"]["HTTP2_SESSION_INITIALIZED"]
    assert [event for event in log["events"] if event["type"] == started]
