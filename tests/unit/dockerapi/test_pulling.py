"""Which failures of a pull pass by themselves, and that no other is tried again."""

import pytest

from kohakuriver.dockerapi import pulling
from kohakuriver.models.errors import EngineFault

pytestmark = pytest.mark.anyio
PASSING = [
    "toomanyrequests: You have reached your pull rate limit",
    "received unexpected HTTP status: 503 Service Unavailable",
    "received unexpected HTTP status: 429 Too Many Requests",
    "error parsing HTTP 502 response body: no error details found",
    "dial tcp 127.0.0.1:5000: connect: connection refused",
    "read tcp 10.0.0.1:4000: read: connection reset by peer",
    "net/http: TLS handshake timeout",
    "context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
    "dial tcp: lookup lab.example: Temporary failure in name resolution",
    "unexpected EOF",
]
FINAL = [
    "pull access denied for lab/none, repository does not exist or may require 'docker login'",
    "manifest for lab/none:1 not found: manifest unknown",
    "unauthorized: authentication required",
    "no matching manifest for linux/amd64 in the manifest list entries",
    "dial tcp: lookup no-such.example: no such host",
]


async def tries_of(sentence: str) -> int:
    tries = 0

    async def pull() -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise EngineFault(sentence)

    await pulling.with_patience(pull, "pulling", 60, lambda _sentence: None)
    return tries


@pytest.mark.parametrize("sentence", PASSING)
async def test_what_passes_by_itself_is_tried_again(sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "FIRST_PAUSE_SECONDS", 0.001)
    assert await tries_of(sentence) == 3


@pytest.mark.parametrize("sentence", FINAL)
async def test_what_is_final_is_said_at_once(sentence: str) -> None:
    with pytest.raises(EngineFault) as failed:
        await tries_of(sentence)
    assert str(failed.value) == sentence, "not tried again"
