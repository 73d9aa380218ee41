"""Identities, signatures and join tokens: what they accept, and every alteration that they refuse."""

import asyncio
import base64
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.models.errors import InvalidInput, Unauthenticated
from kohakuriver.wire.trust.enrolment import JoinToken, host_proof, join_proof, proofs_equal
from kohakuriver.wire.trust.identity import Identity, Side, fingerprint_of
from kohakuriver.wire.trust.signing import (
    ANSWER_HEADER,
    EPOCH_HEADER,
    BodyProof,
    OtherProtocol,
    Stamp,
    prove,
    prove_answer,
    read_credential,
    sign,
    sign_answer,
)

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


STAMP = Stamp("e" * 22, "s" * 22, 7)
_text = st.text(max_size=30)
_call = st.tuples(_text, _text, st.binary(max_size=20), st.binary(min_size=1, max_size=40))


@given(_text, _text, st.binary(max_size=50))
def test_a_signed_call_is_proven_without_its_body(method: str, target: str, body: bytes) -> None:
    credential = read_credential(sign(KEY, "n1", STAMP, method, target, body))
    assert (credential.node, credential.stamp, credential.body.length) == ("n1", STAMP, len(body))
    prove(KEY, credential, method, target)


@given(_call, _call)
def test_no_other_call_or_key_is_proven(
    one: tuple[str, str, bytes, bytes], other: tuple[str, str, bytes, bytes]
) -> None:
    method, target, body, key = one
    credential = read_credential(sign(key, "n1", STAMP, method, target, body))
    # HMAC pads short keys with zeros, so such keys are the same key.
    if (*other[:2], other[3].rstrip(b"\0")) == (method, target, key.rstrip(b"\0")):
        return
    with pytest.raises(Unauthenticated):
        prove(other[3], credential, *other[:2])


def test_fields_cannot_be_shifted_into_each_other() -> None:
    credential = read_credential(sign(KEY, "n1", STAMP, "GET", "/api/x", b""))
    with pytest.raises(Unauthenticated):
        prove(KEY, credential, "GET/", "api/x")


@pytest.mark.parametrize("part", range(7))
def test_every_part_of_a_credential_is_covered(part: int) -> None:
    header = sign(KEY, "n1", STAMP, "POST", "/api/kill", b"{}")
    parts = header.split(":")
    parts[part] = parts[part][:-1] + ("1" if parts[part][-1] != "1" else "2")
    with pytest.raises(Unauthenticated):
        prove(KEY, read_credential(":".join(parts)), "POST", "/api/kill")


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header.upper(),
        lambda header: header + " ",
        lambda header: header + "\n",
        lambda header: header.replace(":7:", ":07:"),
        lambda header: header.replace(":7:", ":-7:"),
        lambda header: header.replace(":7:", ":" + "7" * 16 + ":"),
        lambda header: header.replace(":7:", ":\u0667:"),
        lambda _: "",
        lambda _: "Bearer abc",
        lambda _: "KohakuRiver2 n1::" + "0" * 64,
        lambda _: "KohakuRiver2 " + "n" * 9000,
        lambda header: header.replace("n1", "ñ1"),
    ],
)
def test_what_is_no_credential_is_refused(change) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Unauthenticated) as refused:
        read_credential(change(sign(KEY, "n1", STAMP, "POST", "/api/kill", b"{}")))
    assert not isinstance(refused.value, OtherProtocol)


@pytest.mark.parametrize(
    ("header", "version", "sentence"),
    [
        ("KohakuRiver n1:" + "a" * 24 + ":" + "0" * 64, 1, "older protocol 1.*update KohakuRiver of"),
        ("KohakuRiver3 n1:whatever", 3, "newer protocol 3.*update KohakuRiver here"),
    ],
)
def test_another_protocol_is_named_and_never_accepted(header: str, version: int, sentence: str) -> None:
    with pytest.raises(OtherProtocol, match=sentence) as refused:
        read_credential(header)
    assert (refused.value.node, refused.value.version) == ("n1", version)


def test_keys_of_the_first_protocol_are_other_keys() -> None:
    """So that nothing made for it can ever be taken for something of this one."""
    host, node = Identity(b"h" * 32), Identity(b"n" * 32)
    first = "844b38ac562512059a0782e3969482c3"
    assert not host.link_keys(node.public_key, Side.HOST).host_to_node.hex().startswith(first)


def test_an_answer_belongs_to_its_call_status_body_and_headers() -> None:
    call = sign(KEY, "n1", STAMP, "PUT", "/api/heartbeat/n1", b"{}")
    headers = {"Content-Type": "application/json", "X-Log-Size": "10"}
    given_headers = {**headers, ANSWER_HEADER: sign_answer(KEY, call, 200, b"ok", headers)}
    body, proven = prove_answer(KEY, call, 200, {**given_headers, "X-Other": "1"})
    assert body == BodyProof.of(b"ok")
    assert proven == headers
    other = sign(KEY, "n1", Stamp("e" * 22, "s" * 22, 8), "PUT", "/api/heartbeat/n1", b"{}")
    for key, credential, status, changed in [
        (b"x" * 32, call, 200, {}),
        (KEY, other, 200, {}),
        (KEY, call, 201, {}),
        (KEY, call, 200, {"X-Log-Size": "11"}),
        (KEY, call, 200, {EPOCH_HEADER: "e" * 22}),
        (KEY, call, 200, {ANSWER_HEADER: ""}),
        (KEY, call, 200, {ANSWER_HEADER: call.rsplit(":", 1)[1]}),
        (KEY, call, 200, {ANSWER_HEADER: given_headers[ANSWER_HEADER].replace("2:", "3:", 1)}),
    ]:
        with pytest.raises(Unauthenticated):
            prove_answer(key, credential, status, {**given_headers, **changed})
    for name in headers:
        with pytest.raises(Unauthenticated):
            prove_answer(KEY, call, 200, {n: v for n, v in given_headers.items() if n != name})


@pytest.mark.parametrize("chunks", [[b"ab", b"c"], [b"abcd"], [b"abc", b"", b"d", b"e"], [b"abcX"], []])
def test_no_body_but_the_proven_one_is_read(chunks: list[bytes]) -> None:
    read = []

    async def coming() -> AsyncIterator[bytes]:
        for chunk in chunks:
            read.append(chunk)
            yield chunk

    proof = BodyProof.of(b"abcd")
    if b"".join(chunks) == b"abcd":
        assert asyncio.run(proof.read(coming())) == b"abcd"
        return
    with pytest.raises(Unauthenticated):
        asyncio.run(proof.read(coming()))


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
