"""The rules for TLS, against certificates that are made here."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.paddock.fleet.plugins.module_utils import tls_host
from ansible_collections.paddock.fleet.plugins.plugin_utils.fleet_rules.hosts import Host
from ansible_collections.paddock.fleet.plugins.plugin_utils.fleet_rules.problem import BROKEN, show
from ansible_collections.paddock.fleet.plugins.plugin_utils.fleet_rules.tls import check_tls
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

ROOT = Path(__file__).parents[1]

NAMES = ("shop.example.org", "www.example.org")
DAY = datetime.timedelta(days=1)
NOW = datetime.datetime.now(datetime.UTC)


class Signed:
    """A certificate with its key."""

    def __init__(
        self,
        name: str,
        issuer: Signed | None = None,
        names: tuple[str, ...] = (),
        begins: datetime.datetime = NOW - DAY,
        ends: datetime.datetime = NOW + 90 * DAY,
        key: Any = None,
    ) -> None:
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(issuer.name if issuer else self.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
        )
        if names:
            alternatives: list[x509.GeneralName] = [x509.DNSName(one) for one in names]
            alternatives.append(x509.IPAddress(ipaddress.ip_address("192.0.2.9")))
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        self.certificate = builder.sign(issuer.key if issuer else self.key, hashes.SHA256())

    @property
    def pem(self) -> str:
        """The certificate's text."""
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def key_pem(self, encryption: KeySerializationEncryption = NoEncryption()) -> str:  # noqa: B008
        """The key's text."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode()


class Files:
    """What is on the control node."""

    def __init__(self, folder: Path) -> None:
        self.root = Signed("Root")
        self.middle = Signed("Middle", self.root)
        self.leaf = Signed("Leaf", self.middle, NAMES)
        self.certificate, self.key = folder / "fleet.crt", folder / "fleet.key"
        self.put([self.leaf, self.middle, self.root])

    def put(self, chain: list[Signed], key: str = "") -> None:
        """Write both files."""
        self.certificate.write_text("".join(one.pem for one in chain))
        self.key.write_text(key or chain[0].key_pem())
        self.key.chmod(0o600)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A good certificate, with a chain up to its root."""
    return Files(tmp_path)


def check(files: Files | None = None, apps: tuple[str, ...] = NAMES, **values: object) -> list[str]:
    """What the rules say about a balancer."""
    if files:
        paths = {"tls_certificate_file": str(files.certificate), "tls_key_file": str(files.key)}
        values = {"fleet_tls": "files", **paths, **values}
    host = Host("lb", values, [{"name": "shop", "server_names": list(apps)}])
    return [problem.text for problem in check_tls(host, lambda path: Path(path).read_text())]


def test_what_the_authority_may_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of the fleet's names: who steals its key can sign neither clients nor mail."""
    for name in ("AUTHORITY", "AUTHORITY_KEY", "PENDING_KEY"):
        monkeypatch.setattr(tls_host, name, tmp_path / name)
    monkeypatch.setattr(tls_host, "FOLDER", tmp_path)
    certificate = tls_host.sign(tls_host.request(), ["www.example.org"])
    with tls_host.private(certificate) as file:
        verify = ("verify", "-x509_strict", "-CAfile", str(tls_host.AUTHORITY))
        tls_host.openssl(*verify, "-purpose", "sslserver", "-verify_hostname", "www.example.org", file)
    extensions = ["authorityKeyIdentifier=keyid", "basicConstraints=critical,CA:FALSE"]
    config = tls_host.configuration("fleet", *extensions, "subjectAltName=DNS:www.example.org")
    with tls_host.private(config) as config, tls_host.private(tls_host.request()) as asked:
        stolen = tls_host.openssl(
            *("x509", "-req", "-in", asked, "-extfile", config, "-extensions", "extensions"),
            *("-CA", str(tls_host.AUTHORITY), "-CAkey", str(tls_host.AUTHORITY_KEY), "-set_serial", "1"),
        )
    with tls_host.private(stolen) as file:
        tls_host.openssl(*verify, "-purpose", "sslserver", file)
        for purpose in ("sslclient", "smimesign", "smimeencrypt"):
            with pytest.raises(tls_host.Refused):
                tls_host.openssl(*verify, "-purpose", purpose, file)


def test_good_modes(files: Files) -> None:
    """Nothing is wrong with what is right; a bare off is YAML's false."""
    assert check() == check(fleet_tls=False) == check(fleet_tls="off", nginx_tls={"hsts_seconds": 0}) == []
    assert check(fleet_tls="self-signed", tls_names=["192.0.2.9"], nginx_tls={"hsts_seconds": 300}) == []
    assert check(fleet_tls="acme", tls_names=["www.example.org"]) == []
    assert check(files) == []
    assert check(files, ("WWW.example.org",)) == []


@pytest.mark.parametrize("mode", [True, "on", "self_signed", None, ["acme"], "false"])
def test_unknown_mode(mode: object) -> None:
    """The modes are named."""
    [text] = check(fleet_tls=mode)
    assert text.startswith("fleet_tls is ")
    assert text.endswith("; allowed: off, files, self-signed, acme")


def test_hsts_without_tls() -> None:
    """B21: browsers would be locked out."""
    [text] = check(fleet_tls="off", nginx_tls={"hsts_seconds": 300})
    assert text.startswith("nginx_tls.hsts_seconds is 300; allowed: 0 while fleet_tls is off")


def test_acme_needs_public_names() -> None:
    """No authority can ask an address, or a name that is no one's."""
    [text] = check(fleet_tls="acme", tls_names=[])
    assert text.startswith('fleet_tls is "acme"; allowed: another mode, or a name for')
    for name in ("lb1", "192.0.2.9", "2001:db8::1", "lb1.internal", "shop.local"):
        [text] = check(fleet_tls="acme", tls_names=["www.example.org", name])
        assert text.startswith(f'tls_names names "{name}", which an ACME authority cannot ask; allowed: pub')


@pytest.mark.parametrize("name", ["a b", "a\n", "a,DNS:b", "*.a.org", "", "-a", "a..b", "[::1]", "ä.org"])
def test_bad_names(name: str) -> None:
    """Nothing but names and addresses comes into a certificate."""
    [text] = check(fleet_tls="self-signed", tls_names=[name])
    assert text.startswith(f"tls_names names {show(name)}; allowed: host names and addresses (set server_n")
    [text] = check(fleet_tls="self-signed", fleet_tls_names="a.org", tls_names=BROKEN)
    assert text == 'fleet_tls_names is "a.org"; allowed: a list of host names and addresses'


def one(texts: list[str], name: str, allowed: str) -> None:
    """Assert that one line names the variable and what would be right."""
    assert len(texts) == 1, texts
    assert texts[0].startswith(f'{name} is "/')
    assert f"; allowed: {allowed}" in texts[0]


def test_wildcard(files: Files) -> None:
    """It stands for one label."""
    files.put([Signed("Leaf", files.root, ("*.example.org",)), files.root])
    assert check(files) == []
    allowed = "one for a.b.example.org, example.org too (this one is for *.example.org)"
    one(check(files, ("a.b.example.org", "example.org")), "tls_certificate_file", allowed)


def test_no_paths() -> None:
    """Without both files, or with a path that hangs on the folder one is in."""
    texts = check(fleet_tls="files", tls_certificate_file="fleet.crt")
    assert texts[0].startswith('tls_certificate_file is "fleet.crt"; allowed: the whole path of a file with')
    assert texts[1].startswith('tls_key_file is ""; allowed: the whole path of a file with the certificate')


def test_no_key(files: Files) -> None:
    """B20: a certificate without a key."""
    files.key.unlink()
    one(check(files), "tls_key_file", "a file that can be read ([Errno 2] No such file")
    files.put([files.leaf, files.middle, files.root], key="nothing")
    one(check(files), "tls_key_file", "PEM text with a private key")


def test_unreadable(files: Files) -> None:
    """B20: a path that is no file."""
    files.certificate.unlink()
    files.certificate.mkdir()
    one(check(files), "tls_certificate_file", "a file that can be read (")


def test_no_certificate(files: Files) -> None:
    """B20: something else in the file."""
    files.certificate.write_text(files.leaf.key_pem())
    one(check(files), "tls_certificate_file", "PEM text that begins with the certificate")


def test_mismatch(files: Files) -> None:
    """B20: the key of another certificate."""
    files.put([files.leaf, files.middle, files.root], key=files.middle.key_pem())
    one(check(files), "tls_key_file", "the key of the certificate in tls_certificate_file")


def test_password(files: Files) -> None:
    """B20: a key that Nginx would ask a password for."""
    files.put([files.leaf, files.middle, files.root], key=files.leaf.key_pem(BestAvailableEncryption(b"x")))
    one(check(files), "tls_key_file", "a key without a password")


def test_key_for_all(files: Files) -> None:
    """B20: a key that others can read; in a vault they may."""
    files.key.chmod(0o644)
    one(
        check(files),
        "tls_key_file",
        "a file that only its owner can read, or one in Ansible Vault (its mode is",
    )


def test_expired(files: Files) -> None:
    """B20: over, or not yet begun."""
    late = Signed("Leaf", files.root, NAMES, NOW - 9 * DAY, NOW - DAY)
    files.put([late, files.root])
    one(check(files), "tls_certificate_file", "a certificate that is valid now (this one expired on ")
    early = Signed("Leaf", files.root, NAMES, NOW + DAY, NOW + 9 * DAY)
    files.put([early, files.root])
    one(check(files), "tls_certificate_file", "a certificate that is valid now (this one begins on ")


def test_expired_issuer(files: Files) -> None:
    """B20: the certificate is fine, the one above it is over."""
    middle = Signed("Middle", files.root, (), NOW - 9 * DAY, NOW - DAY)
    files.put([Signed("Leaf", middle, NAMES), middle, files.root])
    one(check(files), "tls_certificate_file", "a certificate that clients take (certificate has expired)")


def test_wrong_name(files: Files) -> None:
    """B20: an app's name is not in it."""
    allowed = "one for new.example.org too (this one is for shop.example.org, www.example.org)"
    one(check(files, (*NAMES, "new.example.org")), "tls_certificate_file", allowed)


def test_incomplete_chain(files: Files) -> None:
    """B20: the one between is missing."""
    files.put([files.leaf])
    allowed = "the certificates up to an authority that this machine trusts, or to the authority itself"
    one(check(files), "tls_certificate_file", allowed)
    assert check(files)[0].endswith("(the last one here is issued by CN=Middle)")


def test_out_of_order(files: Files) -> None:
    """B20: Nginx sends them as they are, and not all clients sort them."""
    files.put([files.leaf, files.root, files.middle])
    one(check(files), "tls_certificate_file", "the certificate first and each followed by that of its iss")


def test_weak_key(files: Files) -> None:
    """What OpenSSL refuses to serve would stop Nginx."""
    weak = Signed("Leaf", files.root, NAMES, key=rsa.generate_private_key(65537, 1024))
    files.put([weak, files.root])
    one(check(files), "tls_certificate_file", "what OpenSSL takes (EE_KEY_TOO_SMALL)")


def test_self_signed(files: Files) -> None:
    """One of its own is as good as its clients find it."""
    files.put([Signed("Leaf", None, NAMES)])
    assert check(files) == []


def test_no_key_is_shown(files: Files) -> None:
    """Whatever is wrong, no text of the key is in a message."""
    secret = files.leaf.key_pem()
    files.put([files.leaf], key=secret.replace("PRIVATE", "SECRET"))
    assert secret.splitlines()[1] not in "".join(check(files))
