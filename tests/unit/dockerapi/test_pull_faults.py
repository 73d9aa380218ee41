"""What is said about a pull that failed: no secret, and what to do where an engine's sentence is known."""

import pytest

from kohakuriver.dockerapi.pull_faults import BrokenOff, ExplainedPullFault, pull_fault
from kohakuriver.dockerapi.registry_auth import registry_auth
from kohakuriver.models.errors import EngineFault, NotFound

IMAGE = "lab.example:5000/team/image:1"
SECRETS = {
    'Get "https://lab.example/token?account=ada&key=s3cret&scope=x": dial tcp': "s3cret",
    "Get https://ada:s3cret@lab.example/v2/: EOF": "s3cret",
    "unauthorized: token eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2ln has ended": "eyJ",
    "unauthorized: Bearer A1b2c3d4e5f6 is none of ours": "A1b2c3d4e5f6",
    "unauthorized: Basic YWRhOnMzY3JldA== is none of ours": "YWRh",
    "unauthorized: my-own-password for ada": "my-own-password",
}


@pytest.mark.parametrize("sentence", SECRETS)
def test_no_secret_is_told(sentence: str) -> None:
    auth = registry_auth("mine", "lab.example", username="ada", password="my-own-password").header
    told = str(pull_fault(EngineFault(sentence), IMAGE, auth, has_begun=False))
    assert SECRETS[sentence] not in told
    assert "…" in told


def test_nobody_learns_from_what_is_left_out_that_a_guess_was_right() -> None:
    auth = registry_auth("mine", "lab.example", username="ada", password="image").header
    sentence = "manifest for lab.example:5000/team/image:1 not found"
    assert str(pull_fault(NotFound(sentence), IMAGE, auth, has_begun=False)) == sentence


@pytest.mark.parametrize(
    "sentence",
    [
        "unauthorized: authentication required",
        "Basic authentication is needed, no Bearer authorization",
        'Get "https://lab.example/v2/": no basic auth credentials',
        "manifest for lab/none:1 not found: manifest unknown",
    ],
)
def test_plain_speech_stays(sentence: str) -> None:
    auth = registry_auth("mine", "lab.example", username="a", password="b").header
    told = pull_fault(NotFound(sentence), IMAGE, auth, has_begun=False)
    assert (type(told), str(told)) == (NotFound, sentence)


@pytest.mark.parametrize(
    ("sentence", "advice"),
    [
        (
            "tls: failed to verify certificate: x509: certificate signed by unknown authority",
            "/etc/docker/certs.d/lab.example:5000/ca.crt",
        ),
        ("x509: certificate has expired or is not yet valid: current time is after it", "renewed"),
        ("x509: certificate is valid for other.example, not lab.example", "another name"),
        ("x509: cannot validate certificate for 10.0.0.1 because it doesn't contain any IP SANs", "another"),
        ("http: server gave HTTP response to HTTPS client", "lab.example:5000 to insecure-registries"),
        ("remote error: tls: certificate required", "/etc/docker/certs.d/lab.example:5000/client.cert"),
    ],
)
def test_it_is_said_what_to_do_about_a_certificate(sentence: str, advice: str) -> None:
    told = pull_fault(EngineFault(sentence), IMAGE, None, has_begun=False)
    assert isinstance(told, ExplainedPullFault)
    assert sentence in str(told)
    assert advice in str(told)


def test_what_comes_after_the_beginning_is_told_from_a_refusal() -> None:
    assert isinstance(pull_fault(EngineFault("unauthorized"), IMAGE, None, has_begun=True), BrokenOff)
