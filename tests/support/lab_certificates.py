"""Certificates for servers of tests, and an authority of their own that gives them."""

import datetime as dt
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class LabAuthority:
    """Make it with `make`; `pem` is its own certificate."""

    _key: ec.EllipticCurvePrivateKey
    _name: x509.Name
    pem: bytes

    @classmethod
    def make(cls, name: str) -> "LabAuthority":
        key, subject = ec.generate_private_key(ec.SECP256R1()), _name(name)
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        builder = _builder(subject, subject, key.public_key(), 2 * _DAY).add_extension(
            constraints, critical=True
        )
        return cls(key, subject, _pem(builder.sign(key, hashes.SHA256())))

    def server(self, folder: Path, address: str, life: dt.timedelta = _DAY) -> ssl.SSLContext:
        """For who serves at an IP address; what the files in the folder are needed for ends with the call."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        builder = _builder(_name("a server"), self._name, key.public_key(), life)
        certificate = _pem(builder.add_extension(names, critical=False).sign(self._key, hashes.SHA256()))
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        (folder / "server.pem").write_bytes(private + certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem")
        return context


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, life: dt.timedelta
) -> x509.CertificateBuilder:
    """Valid from two days ago until `life` from now, which may be before now."""
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 2 * _DAY)
        .not_valid_after(now + life)
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
