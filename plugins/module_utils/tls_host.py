#!/usr/bin/python3
"""The certificate of this host: looked at, checked, swapped by one rename, put back.

The modules of the role import this file. It is also copied to the host, where certbot calls it for each
certificate that it got: `tls_host.py RELOAD...` with the folder of the new files in RENEWED_LINEAGE.
Exit status 0: it is in effect; 1: it is refused, a message says why, and the one before it stays.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import secrets
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

FOLDER = Path("/etc/paddock/tls")
CERTIFICATE = FOLDER / "fleet.pem"  # the chain and the key: two files could not be swapped at once
PREVIOUS = FOLDER / "fleet.pem.previous"
PENDING_KEY = FOLDER / "pending.key"  # of the certificate that was asked for
AUTHORITY = FOLDER / "authority.pem"
AUTHORITY_KEY = FOLDER / "authority.key"
DAYS, AUTHORITY_DAYS = 365, 3650
CLOCKS = 300  # seconds that the clock of who signed may be ahead
NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Refused(Exception):
    """A certificate that cannot be used; the message says why."""


def openssl(*argv: str, text: str = "") -> str:
    """Run openssl; raises Refused with its first complaint."""
    done = subprocess.run(["openssl", *argv], input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise Refused(f"openssl {argv[0]}: {said[0] if said else 'failed'}")
    return done.stdout


def read(path: Path) -> str:
    """Text of a file; empty where there is none."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a whole file or none."""
    FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(file.name, mode)
    os.replace(file.name, path)


@contextlib.contextmanager
def private(text: str) -> Iterator[str]:
    """Name of a file that only root can read, for programs that take nothing else."""
    FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=FOLDER, prefix=".check.") as file:
        file.write(text)
        file.flush()
        yield file.name


def check(pem: str) -> None:
    """Raise Refused where Nginx could not load a certificate with its key, or no client would take it."""
    with private(pem) as name:
        try:
            # As Nginx does it. Without the password OpenSSL would ask for one on the terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(name, password="")
        except (ssl.SSLError, ValueError) as error:
            raise Refused(f"the certificate and its key do not load: {error}") from None
    dates = dict(re.findall(r"(\w+)=(.+)", openssl("x509", "-noout", "-dates", text=pem)))
    if ssl.cert_time_to_seconds(dates["notBefore"]) > time.time() + CLOCKS:
        raise Refused(f"the certificate is not valid before {dates['notBefore']}")
    if ssl.cert_time_to_seconds(dates["notAfter"]) < time.time():
        raise Refused(f"the certificate has expired on {dates['notAfter']}")


def normal(name: str) -> str:
    """A host name or an address, as it compares."""
    try:
        return str(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return name.lower()


def is_address(name: str) -> bool:
    """Whether it is no host name."""
    return ":" in normal(name) or normal(name).replace(".", "").isdigit()


def names_of(pem: str) -> set[str]:
    """The host names and addresses of a certificate."""
    said = openssl("x509", "-noout", "-ext", "subjectAltName", text=pem)
    return {normal(name) for name in re.findall(r"(?:DNS|IP Address):([^\s,]+)", said)}


def fits(names: Sequence[str], days: int) -> bool:
    """Whether the certificate here is for these names, of the fleet's authority, and lasts so many days.

    Without names any certificate will do that loads.
    """
    pem = read(CERTIFICATE)
    try:
        if names:
            openssl(
                "verify",
                "-attime",
                str(int(time.time()) + days * 86400),
                "-CAfile",
                str(AUTHORITY),
                str(CERTIFICATE),
            )
            return names_of(pem) == {normal(name) for name in names}
        with private(pem) as name:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(name, password="")
    except (Refused, ssl.SSLError, ValueError):
        return False
    return True


def configuration(subject: str, *extensions: str) -> str:
    """What openssl is told; without it, Debian's own configuration would add extensions."""
    head = "[req]\ndistinguished_name=name\nprompt=no\nx509_extensions=extensions\n"
    name = f"[name]\nO=Paddock\nCN={subject}\n"
    return "\n".join([head, name, "[extensions]", "subjectKeyIdentifier=hash", *extensions, ""])


def request() -> str:
    """Make a key that never leaves this host; returns what an authority needs to sign it."""
    FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
    with private(configuration("fleet")) as config:
        return openssl("req", "-new", *NEW_KEY, "-keyout", str(PENDING_KEY), "-config", config)


def sign(asked: str, names: Sequence[str]) -> str:
    """Sign a request with this host's authority, which is created again if it may not sign for the names."""
    kinds = [f"{'IP' if is_address(name) else 'DNS'}:{normal(name)}" for name in names]
    extensions = ["authorityKeyIdentifier=keyid", "basicConstraints=critical,CA:FALSE"]
    extensions += ["keyUsage=critical,digitalSignature", "extendedKeyUsage=serverAuth"]
    extensions += [f"subjectAltName={','.join(kinds)}"]
    for attempt in (1, 2):
        if attempt == 2 or not AUTHORITY.exists():
            found(names)
        try:
            with private(configuration("fleet", *extensions)) as config, private(asked) as file:
                certificate = openssl(
                    *("x509", "-req", "-in", file, "-days", str(DAYS), "-extfile", config),
                    *("-extensions", "extensions", "-CA", str(AUTHORITY), "-CAkey", str(AUTHORITY_KEY)),
                    *("-set_serial", str(secrets.randbits(120))),
                )
            with private(certificate) as file:
                end = str(int(time.time()) + (DAYS - 1) * 86400)
                openssl("verify", "-attime", end, "-CAfile", str(AUTHORITY), file)
            return certificate
        except Refused:
            if attempt == 2:
                raise
    raise AssertionError


def found(names: Sequence[str]) -> None:
    """Make an authority. Its key can sign for servers of the fleet's names and their sub-domains only."""
    hosts = [name for name in map(normal, names) if not is_address(name)]
    networks = [ipaddress.ip_network(name) for name in map(normal, names) if is_address(name)]
    limits = [f"permitted;DNS:{host}" for host in hosts or ["invalid"]]
    limits += [f"permitted;IP:{network.network_address}/{network.netmask}" for network in networks]
    if not networks:
        limits += ["excluded;IP:0.0.0.0/0.0.0.0", "excluded;IP:::/::"]
    extensions = ["basicConstraints=critical,CA:TRUE,pathlen:0", "keyUsage=critical,keyCertSign,cRLSign"]
    extensions += ["extendedKeyUsage=serverAuth", f"nameConstraints=critical,{','.join(limits)}"]
    with private(configuration(f"Paddock authority {secrets.token_hex(4)}", *extensions)) as config:
        made = openssl(
            "req",
            "-x509",
            *NEW_KEY,
            "-keyout",
            str(AUTHORITY_KEY),
            "-config",
            config,
            "-days",
            str(AUTHORITY_DAYS),
        )
    write(AUTHORITY, made, 0o644)


def install(pem: str) -> None:
    """Check a certificate and put it in place; the one before it stays next to it."""
    check(pem)
    if CERTIFICATE.exists():
        write(PREVIOUS, read(CERTIFICATE))
    write(CERTIFICATE, pem)


def renew(lineage: Path, reload: Sequence[str]) -> bool:
    """Put what certbot got into effect; returns whether it was not so before.

    Raises:
        Refused: It cannot be used, and the one before it is in place.
    """
    try:
        pem = (lineage / "fullchain.pem").read_text() + (lineage / "privkey.pem").read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"certbot's files cannot be read: {error}") from None
    before = read(CERTIFICATE)
    if pem == before:
        return False
    install(pem)
    done = subprocess.run(reload, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        if before:
            write(CERTIFICATE, before)
        raise Refused(f"`{' '.join(reload)}` failed: {(done.stderr or done.stdout).strip()}")
    return True


def main(argv: Sequence[str]) -> int:
    """Run as certbot's deploy hook; returns the exit status."""
    try:
        changed = renew(Path(os.environ["RENEWED_LINEAGE"]), argv)
    except Refused as reason:
        print(f"The new certificate is refused, the one before it stays: {reason}", file=sys.stderr)
        return 1
    print("The new certificate is in effect." if changed else "The certificate is in effect already.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
