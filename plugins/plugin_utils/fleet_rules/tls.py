"""Rules for TLS: what a certificate must be before a balancer gets it."""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import ssl
import stat
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from .hosts import Host
from .problem import BROKEN, Problem, problem, show

MODES = ("off", "files", "self-signed", "acme")
# Names that no public authority can ask (RFC 6761, RFC 6762, RFC 9476).
PRIVATE = (".alt", ".home.arpa", ".internal", ".invalid", ".lan", ".local", ".localhost", ".test")

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")

Read = Callable[[str], str]
Chain = list[x509.Certificate]


def check_tls(host: Host, read: Read) -> Iterator[Problem]:
    """Check how a balancer gets its certificate, and the certificate where it is there already.

    Args:
        host: The balancer.
        read: Returns the text of a file of this machine, without its vault.

    Yields:
        A problem for each value, and for each thing that is wrong with the files.
    """
    mode = host.values.get("fleet_tls", "off")
    mode = "off" if mode is False else mode
    if mode is BROKEN:
        return
    if mode not in MODES:
        yield _of(host, "fleet_tls", ", ".join(MODES))
    elif mode == "off" and (seconds := host.key("nginx_tls", "hsts_seconds")) not in (None, BROKEN, 0, "0"):
        allowed = "0 while fleet_tls is off, for browsers would insist on what is not there"
        yield problem(("nginx_tls", "hsts_seconds"), f"is {show(seconds)}", allowed, host=host.name)
    elif mode in ("self-signed", "acme"):
        yield from _check_names(host, public=mode == "acme")
    elif mode == "files":
        for name, allowed in _check_files(host, read):
            yield _of(host, name, allowed)


def _of(host: Host, name: str, allowed: str) -> Problem:
    return problem((name,), f"is {show(host.values.get(name, ''))}", allowed, host=host.name)


def _check_names(host: Host, *, public: bool) -> Iterator[Problem]:
    given, names = host.values.get("fleet_tls_names", []), host.values.get("tls_names", [])
    if not isinstance(given, list) and given is not BROKEN:
        yield _of(host, "fleet_tls_names", "a list of host names and addresses")
    if names is BROKEN or not isinstance(names, list):
        return
    where = "set server_names of the apps, fleet_tls_names or fleet_url"
    if not names:
        yield _of(host, "fleet_tls", f"another mode, or a name for the certificate ({where})")
    for name in map(str, names):
        if not _NAME.fullmatch(name) and not _is_address(name):
            state, allowed = f"names {show(name)}", f"host names and addresses ({where})"
        elif public and ("." not in name or name.endswith(PRIVATE) or _is_address(name)):
            state = f"names {show(name)}, which an ACME authority cannot ask"
            allowed = f"public host names ({where})"
        else:
            continue
        yield problem(("tls_names",), state, allowed, host=host.name)


def _is_address(name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def _check_files(host: Host, read: Read) -> Iterator[tuple[str, str]]:
    """Yield the variable that names the file, and what would be right."""
    texts = {}
    for name, what in (
        ("tls_certificate_file", "the certificate and, after it, those up to its authority"),
        ("tls_key_file", "the certificate's key"),
    ):
        path = host.values.get(name, "")
        if path is BROKEN:
            return
        if not isinstance(path, str) or not os.path.isabs(path):
            yield name, f"the whole path of a file with {what}, such as {{{{ inventory_dir }}}}/tls/fleet.pem"
            continue
        try:
            texts[name] = read(path)
        except Exception as error:  # as many kinds as there are vaults and disks
            reason = str(error.__cause__ or error).partition("\n")[0].rstrip(".")
            yield name, f"a file that can be read ({reason})"
    chain: Chain = []
    if (text := texts.get("tls_certificate_file")) is not None:
        try:
            chain = x509.load_pem_x509_certificates(text.encode())
            for allowed in _check_chain(chain, host):
                yield "tls_certificate_file", allowed
        except ValueError:
            yield "tls_certificate_file", "PEM text that begins with the certificate"
    if (key := texts.get("tls_key_file")) is not None:
        reason = _check_key(key, Path(host.values["tls_key_file"]), chain)
        if reason:
            yield "tls_key_file", reason
        elif chain and _orderly(chain) and _valid(chain[0]) and (reason := _refusal(chain, key)):
            yield "tls_certificate_file", reason


def _check_chain(chain: Chain, host: Host) -> Iterator[str]:
    leaf = chain[0]
    if not _valid(leaf):
        late = leaf.not_valid_after_utc < _now()
        day = leaf.not_valid_after_utc if late else leaf.not_valid_before_utc
        state = f"{'expired' if late else 'begins'} on {day:%Y-%m-%d}"
        yield f"a certificate that is valid now (this one {state})"
    covered = _names(leaf)
    wanted = [name.lower() for app in host.apps for name in app.get("server_names", [])]
    missing = [n for n in dict.fromkeys(wanted) if not covered & {n, "*." + n.partition(".")[2]}]
    if missing:
        yield f"one for {', '.join(missing)} too (this one is for {', '.join(sorted(covered)) or 'no name'})"
    if not _orderly(chain):
        yield "the certificate first and each followed by that of its issuer (these are out of order)"


def _valid(certificate: x509.Certificate) -> bool:
    return certificate.not_valid_before_utc <= _now() <= certificate.not_valid_after_utc


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _names(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {name.lower() for name in names.get_values_for_type(x509.DNSName)}


def _orderly(chain: Chain) -> bool:
    try:
        for certificate, issuer in pairwise(chain):
            certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _check_key(text: str, path: Path, chain: Chain) -> str:
    try:
        key: Any = load_pem_private_key(text.encode(), None)
    except TypeError:
        return "a key without a password (Ansible Vault protects it as well)"
    except ValueError:
        return "PEM text with a private key"
    if chain and _public(key.public_key()) != _public(chain[0].public_key()):
        return "the key of the certificate in tls_certificate_file (this one belongs to another)"
    with path.open("rb") as file:
        vaulted = file.read(14) == b"$ANSIBLE_VAULT"
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077 and not vaulted:
        return f"a file that only its owner can read, or one in Ansible Vault (its mode is {mode:04o})"
    return ""


def _public(key: Any) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _refusal(chain: Chain, key: str) -> str:
    """Serve the certificate to a client of this machine; returns what would have to be otherwise."""
    client = ssl.create_default_context()
    client.check_hostname = False
    # Authorities of companies often leave out what RFC 5280 asks for, and browsers do not mind.
    client.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if chain[-1].subject == chain[-1].issuer:
        client.load_verify_locations(cadata=chain[-1].public_bytes(Encoding.PEM).decode())
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile("w") as file:
        file.write("".join(one.public_bytes(Encoding.PEM).decode() for one in chain) + key)
        file.flush()
        try:
            server.load_cert_chain(file.name)
        except ssl.SSLError as error:
            return f"what OpenSSL takes ({error.reason})"
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    try:
        for end in ends * 3:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    except ssl.SSLCertVerificationError as error:
        issuer = chain[-1].issuer.rfc4514_string()
        if "issuer" in error.verify_message or "first certificate" in error.verify_message:
            return (
                "the certificates up to an authority that this machine trusts, or to the authority"
                f" itself (the last one here is issued by {issuer})"
            )
        return f"a certificate that clients take ({error.verify_message})"
    return ""
