"""What an engine says of a pull that failed: without secrets, and with what to do where that is known.

Rules: registries and those who give tokens for them quote what they like, an engine quotes the addresses that
it asked, and what comes of it stands in records that others read. So no address keeps its query, and nothing
that is, or looks like, a credential stays.
"""

import base64
import json
import re
from collections.abc import Iterable

from kohakuriver.models.errors import EngineFault, KohakuRiverError
from kohakuriver.models.spec.image_references import parse_image_reference

_HIDDEN = "…"
_LEAST_SECRET = 4
_SECRETS = (
    (re.compile(r"(\bhttps?://[^\s?\"'<>]*)\?[^\s\"'<>]*", re.IGNORECASE), rf"\1?{_HIDDEN}"),
    (re.compile(r"(\bhttps?://)[^\s/@\"'<>]+@", re.IGNORECASE), rf"\1{_HIDDEN}@"),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), _HIDDEN),
    # What comes after the word in plain speech has no capitals, digits or equals signs.
    (re.compile(r"\b(Basic|Bearer) +(?=[^\s\"']*[A-Z0-9=])[\w.~+/=-]{8,}"), rf"\1 {_HIDDEN}"),
)
_FOLDER = "/etc/docker/certs.d/{registry}"
_ADVICE = (
    (
        re.compile(r"signed by unknown authority|self[- ]signed certificate", re.IGNORECASE),
        "the engine does not know who signed the registry's certificate; put the certificate of that "
        f"authority into {_FOLDER}/ca.crt on the machine that pulls, whose engine reads it at the next pull",
    ),
    (
        re.compile(r"certificate has expired or is not yet valid", re.IGNORECASE),
        "have the registry's certificate renewed, or the clock of the machine that pulls set right",
    ),
    (
        re.compile(
            r"x509: .*(?:is valid for|IP SANs|not valid for any names|legacy Common Name)", re.IGNORECASE
        ),
        "the registry's certificate is for another name; name the registry as its certificate does, or have "
        "it give one with this name",
    ),
    (
        re.compile(r"does not look like a TLS handshake|HTTP response to HTTPS client", re.IGNORECASE),
        "the registry does not speak TLS; give it a certificate, or have the administrator of the machine "
        "that pulls add {registry} to insecure-registries in the engine's daemon.json",
    ),
    (
        re.compile(r"remote error: tls: (?:bad certificate|certificate required)", re.IGNORECASE),
        "the registry asks who connects for a certificate; put one into "
        f"{_FOLDER}/client.cert, and its key into client.key beside it, on the machine that pulls",
    ),
)


class ExplainedPullFault(EngineFault):
    """The sentence says what to do."""


class BrokenOff(EngineFault):
    """The registry had let the pull in and given the manifest when this happened."""


def pull_fault(
    error: KohakuRiverError, reference: str, auth: str | None, *, has_begun: bool
) -> KohakuRiverError:
    """The error to raise in the place of the engine's; `auth`: what the engine took along."""
    # A word that the user wrote stays: to leave it out would tell them that they guessed right.
    secrets = [secret for secret in _secrets_of(auth) if secret not in reference]
    sentence = _without_secrets(str(error), secrets)
    for pattern, advice in _ADVICE:
        if pattern.search(sentence):
            registry = parse_image_reference(reference).registry
            return ExplainedPullFault(f"{sentence} ({advice.format(registry=registry)})")
    return BrokenOff(sentence) if has_begun else type(error)(sentence)


def _without_secrets(sentence: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        sentence = sentence.replace(secret, _HIDDEN)
    for pattern, instead in _SECRETS:
        sentence = pattern.sub(instead, sentence)
    return sentence


def _secrets_of(auth: str | None) -> list[str]:
    """What of a credential is nobody's business, in the forms in which it travels."""
    if auth is None:
        return []
    fields: dict[str, str] = json.loads(base64.urlsafe_b64decode(auth))
    pair = f"{fields.get('username', '')}:{fields.get('password', '')}"
    found = [base64.b64encode(pair.encode()).decode() if fields.get("password") else ""]
    found += [fields.get(name, "") for name in ("password", "identitytoken", "registrytoken")]
    return [secret for secret in found if len(secret) >= _LEAST_SECRET]
