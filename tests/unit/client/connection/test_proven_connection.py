"""The proof on the connection itself: inside TLS, through proxies, and with an end."""

import datetime
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kohakuriver.client.connection import proven_connection
from kohakuriver.client.connection.host_trust import HostAccess, KnownHost
from kohakuriver.client.errors import HostNotProven, HostUnreachable
from kohakuriver.client.host_client import HostClient
from kohakuriver.client.streams.terminal import task_terminal
from kohakuriver.models.errors import NotFound, Unavailable
from kohakuriver.wire.trust.identity import Identity
from support.clients.stub_host import StubHost, stub_host
from support.cluster.impostor import http_answer, impostor

TOKEN = "kr_canary"


def certificate(folder: Path) -> Path:
    """A file with a key and a certificate for `localhost` that nobody else vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "host.pem"
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def secure_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StubHost]:
    """A host behind TLS, whose certificate this process takes."""
    path = certificate(tmp_path)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(path)
    monkeypatch.setattr(
        httpx2, "create_ssl_context", lambda **_: ssl.create_default_context(cafile=str(path))
    )
    with stub_host() as host:
        host.speak_tls(serving)
        host.answer("GET", "/api/nodes", [])
        yield host


def access(host: StubHost, fingerprint: str) -> HostAccess:
    return HostAccess(f"https://localhost:{host.port}", TOKEN, KnownHost(fingerprint, "the test"))


def test_behind_tls_the_proof_is_made_inside_of_it(secure_host: StubHost) -> None:
    known = access(secure_host, secure_host.identity.fingerprint)
    with HostClient(known) as client:
        assert client.nodes.all().value == []
    with pytest.raises(NotFound), task_terminal(known, "7", {}):
        raise AssertionError("there is no terminal here")
    assert {request.headers["authorization"] for request in secure_host.requests} == {f"Bearer {TOKEN}"}
    assert len(secure_host.requests) == 2


def test_behind_tls_another_host_gets_no_token(secure_host: StubHost) -> None:
    other = access(secure_host, Identity.generate().fingerprint)
    with HostClient(other) as client, pytest.raises(HostNotProven):
        client.nodes.all()
    with pytest.raises(HostNotProven), task_terminal(other, "7", {}):
        raise AssertionError("there is no terminal here")
    assert secure_host.requests == []


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (http_answer(b"no host", "502 Bad Gateway"), HostUnreachable),
        (http_answer(b"slowly", "429 Too Many Requests"), HostUnreachable),
        (http_answer(b"x" * 2000), HostNotProven),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", HostNotProven),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", HostNotProven),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 100, HostNotProven),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000, HostNotProven),
        (b"\xff\x00\r\n\r\n", HostNotProven),
        (http_answer(b"[" * 900), HostNotProven),
    ],
)
def test_an_answer_that_is_no_proof_is_an_error_and_nothing_follows(
    answer: bytes, error: type[Exception]
) -> None:
    with impostor(lambda _data: answer) as somebody:
        known = HostAccess(somebody.url, TOKEN, KnownHost(Identity.generate().fingerprint, "the test"))
        with HostClient(known) as client, pytest.raises(error):
            client.nodes.all()
        assert TOKEN.encode() not in somebody.heard


def test_who_never_answers_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proven_connection, "PROOF_SECONDS", 0.2)
    with impostor(lambda _data: b"") as somebody:
        known = HostAccess(somebody.url, TOKEN, KnownHost(Identity.generate().fingerprint, "the test"))
        with HostClient(known) as client, pytest.raises(Unavailable, match="did not prove itself"):
            client.nodes.all()
        assert TOKEN.encode() not in somebody.heard
