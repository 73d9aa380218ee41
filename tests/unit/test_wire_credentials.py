"""Identities, signatures and join tokens: what they accept, and every alteration that they refuse."""

import base64
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.models.errors import InvalidInput, Unauthenticated
from kohakuriver.wire.enrolment import JoinToken, host_proof, join_proof, proofs_equal
from kohakuriver.wire.identity import Identity, Side, fingerprint_of
from kohakuriver.wire.signing import sign, sign_answer, signer_of, verify, verify_answer

KEY = b"k" * 32


def test_both_ends_derive_the_same_two_different_keys() -> None:
    host, node = Identity.generate(), Identity.generate()
    at_host = host.link_keys(node.public_key, Side.HOST)
    at_node = node.link_keys(host.public_key, Side.NODE)
    assert at_host == at_node
    assert at_host.host_to_node != at_host.node_to_host
    assert at_host.host_to_node.hex() not in repr(at_host)


def test_a_third_party_derives_other_keys() -> None:
    host, node, other = (Identity.generate() for _ in range(3))
    assert other.link_keys(host.public_key, Side.NODE) != node.link_keys(host.public_key, Side.NODE)
    assert node.link_keys(host.public_key, Side.HOST) != node.link_keys(host.public_key, Side.NODE)


def test_fingerprint_is_that_of_the_raw_key() -> None:
    import hashlib

    identity = Identity.generate()
    raw = base64.urlsafe_b64decode(identity.public_key + "=")
    expected = base64.b64encode(hashlib.sha256(raw).digest()).decode().rstrip("=")
    assert identity.fingerprint == fingerprint_of(identity.public_key) == "SHA256:" + expected


@pytest.mark.parametrize(
    "text", ["", "A" * 42, "A" * 44, "é" * 43, "A" * 42 + "!", "A" * 42 + "B", "A" * 43 + "\n"]
)
def test_bad_public_keys_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        fingerprint_of(text)


def test_a_key_of_small_order_is_refused() -> None:
    with pytest.raises(InvalidInput):
        Identity.generate().link_keys("A" * 43, Side.NODE)


def test_identity_is_kept_and_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "identity"
    first = Identity.load_or_create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Identity.load_or_create(path).public_key == first.public_key
    assert os.listdir(tmp_path) == ["identity"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_identity_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "identity"
    Identity.load_or_create(path)
    path.chmod(mode)
    with pytest.raises(InvalidInput, match="chmod 600"):
        Identity.load_or_create(path)


def test_identity_of_nonsense_or_behind_a_link_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "identity"
    path.write_bytes(b"\xff\x00")
    path.chmod(0o600)
    with pytest.raises(InvalidInput, match="does not hold a key"):
        Identity.load_or_create(path)
    Identity.load_or_create(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(InvalidInput):
        Identity.load_or_create(tmp_path / "link")


_text = st.text(max_size=30)


@given(_text, _text, st.binary(max_size=50))
def test_a_signed_request_verifies(method: str, target: str, body: bytes) -> None:
    header = sign(KEY, "n1", method, target, body)
    assert signer_of(header) == "n1"
    verify(header, KEY, method, target, body)


@given(
    st.tuples(_text, _text, st.binary(max_size=20), st.binary(min_size=1, max_size=40)),
    st.tuples(_text, _text, st.binary(max_size=20), st.binary(min_size=1, max_size=40)),
)
def test_no_other_request_or_key_verifies(
    one: tuple[str, str, bytes, bytes], other: tuple[str, str, bytes, bytes]
) -> None:
    method, target, body, key = one
    header = sign(key, "n1", method, target, body)
    # HMAC pads short keys with zeros, so such keys are the same key.
    if (*other[:3], other[3].rstrip(b"\0")) == (*one[:3], key.rstrip(b"\0")):
        return
    with pytest.raises(Unauthenticated):
        verify(header, other[3], *other[:3])


def test_fields_cannot_be_shifted_into_each_other() -> None:
    header = sign(KEY, "n1", "GET", "/api/x", b"")
    with pytest.raises(Unauthenticated):
        verify(header, KEY, "GET/", "api/x", b"")


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header.replace("n1", "n2"),
        lambda header: header[:-1] + ("0" if header[-1] != "0" else "1"),
        lambda header: header.replace(":", ":A", 1),
        lambda header: header.upper(),
        lambda header: header + " ",
        lambda header: header + "\n",
        lambda _: "",
        lambda _: "Bearer abc",
        lambda _: "KohakuRiver n1::" + "0" * 64,
        lambda _: "KohakuRiver " + "n" * 600,
        lambda header: header.replace("n1", "ñ1"),
    ],
)
def test_altered_credentials_are_refused(change) -> None:  # type: ignore[no-untyped-def]
    header = change(sign(KEY, "n1", "POST", "/api/kill", b"{}"))
    with pytest.raises(Unauthenticated):
        verify(header, KEY, "POST", "/api/kill", b"{}")


def test_two_signatures_of_one_request_differ() -> None:
    assert sign(KEY, "n1", "GET", "/", b"") != sign(KEY, "n1", "GET", "/", b"")


def test_an_answer_belongs_to_its_request_status_and_body() -> None:
    request = sign(KEY, "n1", "PUT", "/api/heartbeat/n1", b"{}")
    answer = sign_answer(KEY, request, 200, b"ok")
    verify_answer(answer, KEY, request, 200, b"ok")
    other = sign(KEY, "n1", "PUT", "/api/heartbeat/n1", b"{}")
    for key, header, status, body in [
        (b"x" * 32, request, 200, b"ok"),
        (KEY, other, 200, b"ok"),
        (KEY, request, 201, b"ok"),
        (KEY, request, 200, b"no"),
    ]:
        with pytest.raises(Unauthenticated):
            verify_answer(answer, key, header, status, body)
    with pytest.raises(Unauthenticated):
        verify_answer("", KEY, request, 200, b"ok")
    with pytest.raises(Unauthenticated):
        verify_answer(request.rsplit(":", 1)[1], KEY, request, 200, b"ok")


def test_join_token_survives_its_text_form() -> None:
    host = Identity.generate()
    token = JoinToken.generate(host.fingerprint)
    assert JoinToken.parse(token.format() + "\n") == token
    assert token.is_for_host(host.public_key)
    assert not token.is_for_host(Identity.generate().public_key)
    assert token.secret not in repr(token)


def test_every_join_token_passes_the_check_of_its_setting() -> None:
    from kohakuriver.config.rules import JOIN_TOKEN_OR_EMPTY

    for _ in range(20):
        text = JoinToken.generate(Identity.generate().fingerprint).format()
        assert JOIN_TOKEN_OR_EMPTY.problem(text) is None


@pytest.mark.parametrize(
    "text", ["", "krj1", "krj2.aaaaaaaa." + "b" * 43 + ".SHA256:" + "A" * 43, "x" * 4000]
)
def test_what_is_no_join_token_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        JoinToken.parse(text)
    assert len(text) < 10 or text not in str(caught.value)


def test_a_token_cut_short_is_refused() -> None:
    text = JoinToken.generate(Identity.generate().fingerprint).format()
    for length in range(len(text)):
        with pytest.raises(InvalidInput):
            JoinToken.parse(text[:length])


def test_proofs_bind_name_keys_secret_and_side() -> None:
    arguments = ("secret", "n1", "node-key", "host-key")
    proofs = {join_proof(*arguments), host_proof(*arguments)}
    for index in range(4):
        changed = list(arguments)
        changed[index] += "x"
        proofs |= {join_proof(*changed), host_proof(*changed)}
    assert len(proofs) == 10
    assert proofs_equal(join_proof(*arguments), join_proof(*arguments))
    assert not proofs_equal(None, join_proof(*arguments))
    assert not proofs_equal("é", join_proof(*arguments))
