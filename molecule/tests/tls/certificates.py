"""Certificates, as a user gets them from an authority."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from .conftest import NAMES

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


class Files:
    """A certificate and its key, as a user gets them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate, self.key = folder / "fleet.crt", folder / "fleet.key"
        self.authority_key = ec.generate_private_key(ec.SECP256R1())
        self.authority = self.sign("Authority", self.authority_key, NOW + 99 * DAY, None).decode()

    def sign(
        self, name: str, key: ec.EllipticCurvePrivateKey, ends: datetime.datetime, host: str | None
    ) -> bytes:
        """Sign a certificate; that of the authority itself has no host."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority")])
        names = x509.SubjectAlternativeName([x509.DNSName(one) for one in NAMES if host])
        builder = (
            x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(NOW - 9 * DAY)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=not host, path_length=None), critical=True)
        )
        builder = builder.add_extension(names, critical=False) if host else builder
        return builder.sign(self.authority_key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def make(self, ends: datetime.datetime = NOW + 90 * DAY) -> int:
        """Write another certificate with another key; returns its serial number."""
        key = ec.generate_private_key(ec.SECP256R1())
        text = self.sign("Leaf", key, ends, NAMES[0])
        self.certificate.write_bytes(text + self.authority.encode())
        self.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self.key.chmod(0o600)
        return x509.load_pem_x509_certificate(text).serial_number

    @property
    def variables(self) -> dict[str, object]:
        """What the inventory says."""
        files = {"tls_certificate_file": str(self.certificate), "tls_key_file": str(self.key)}
        return {"fleet_tls": "files", "nginx_tls": {"hsts_seconds": 300}, **files}
