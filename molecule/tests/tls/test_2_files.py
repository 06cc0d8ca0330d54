"""Certificates that the control node has: renewed without a lost request, refused where they are bad."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from testbed import sample, sh

from .certificates import DAY, NOW, Files
from .conftest import PEM, Balancer, good, play, probed

FIRST = Balancer("lb1")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Files]:
    """An authority, and a first certificate of it in place."""
    files = Files(tmp_path_factory.mktemp("files"))
    files.make()
    good(**files.variables)
    yield files


def test_serves(balancer: Balancer, files: Files) -> None:
    """The certificate, and HSTS where it was asked for; never without TLS."""
    answer = balancer.ask("/requestme", files.authority)
    assert (answer.status, answer.headers["Strict-Transport-Security"]) == (200, "max-age=300")
    assert balancer.ask("/requestme").headers["Strict-Transport-Security"] is None
    assert sh(balancer.name, f"stat -c '%a %U %G' {PEM}") == "600 root root"


def test_renewed(files: Files, tmp_path: Path) -> None:
    """F48: new handshakes get the new one, and no request is lost; the key is never shown."""
    before = FIRST.settled()
    with probed(FIRST, files.authority, tmp_path) as report:
        wanted = files.make()
        run = good("-vvv", "--diff", **files.variables)
        served = FIRST.settled()
    assert served == wanted != before
    report.assert_clean()
    for line in files.key.read_text().splitlines()[1:-1]:
        assert line not in run.output
    assert good(**files.variables).changed == 0


@pytest.mark.full
def test_kept_in_a_vault(files: Files) -> None:
    """A key in Ansible Vault, which then others may read."""
    password = files.folder / "password"
    password.write_text("x")
    vault = [str(Path(sys.executable).with_name("ansible-vault")), "encrypt", str(files.key)]
    vault += ["--vault-password-file", str(password)]
    wanted = files.make()
    subprocess.run(vault, check=True, capture_output=True)
    files.key.chmod(0o644)
    good("--vault-password-file", str(password), **files.variables)
    assert FIRST.settled() == wanted


def expired(files: Files) -> None:
    """Write a certificate whose time is over."""
    files.make(NOW - DAY)


def mismatched(files: Files) -> None:
    """Write a certificate with the key of another."""
    files.make()
    key = files.key.read_text()
    files.make()
    files.key.write_text(key)


def unreadable(files: Files) -> None:
    """Write something that is no certificate."""
    files.make()
    files.certificate.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


@pytest.mark.parametrize(
    ("spoil", "says"),
    sample(
        [
            (expired, "this one expired on"),
            (mismatched, "the key of the certificate in tls_certificate_file"),
            (unreadable, "PEM text that begins with the certificate"),
        ]
    ),
)
def test_refused(files: Files, spoil: object, says: str) -> None:
    """F48: before any host is contacted; the old one is served on."""
    before = FIRST.settled()
    spoil(files)  # type: ignore[operator]
    began = time.monotonic()
    run = play(**files.variables)
    assert run.rc != 0
    assert time.monotonic() - began < 20
    assert says in " ".join(run.output.split())
    assert "no host was contacted or changed" in run.output
    assert FIRST.settled() == before
