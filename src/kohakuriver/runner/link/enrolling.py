"""How this runner comes to belong to a host: by a join token, or by an operator's approval.

The host's key is pinned by the first enrolment. With a join token it is checked against the token; without,
the operator who approves compares the fingerprints that both ends show. A host with another key than the
pinned one is never obeyed, and the runner keeps asking for its own.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import structlog

from kohakuriver.models.enums import EnrolState
from kohakuriver.models.errors import Denied, KohakuRiverError, Unavailable
from kohakuriver.runner.link.host_client import HostClient, HostRefused
from kohakuriver.runner.link.host_pin import HostPin, load_pin, save_pin
from kohakuriver.runner.link.pauses import growing_pauses
from kohakuriver.wire.enrolment import JoinToken, host_proof, join_proof, proofs_equal
from kohakuriver.wire.identity import Identity, LinkKeys, Side, fingerprint_of
from kohakuriver.wire.messages import EnrolAnswer, EnrolRequest, HostIntroduction

_FIRST_PAUSE_SECONDS = 0.3
_MAX_PAUSE_SECONDS = 10.0
_APPROVAL_PAUSE_SECONDS = 1.0
"""Between questions to a host that answered that an operator must approve, who is waiting for the effect."""
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class EnrolmentParts:
    """Who this runner is, and where it keeps whose it is."""

    hostname: str
    identity: Identity
    pin_path: Path
    join_token: JoinToken | None = None


class Enrolment:
    """This runner's trust in its host. `fault` is a sentence for as long as there is none."""

    def __init__(self, parts: EnrolmentParts, client: HostClient) -> None:
        """Raises InvalidInput if the kept pin cannot be read."""
        self._parts = parts
        self._client = client
        self._token = parts.join_token
        self._said: str | None = None
        self._token_refusal: str | None = None
        self.fault: str | None = None
        self.pin: HostPin | None = load_pin(parts.pin_path)
        if self.pin is not None:
            client.trust(self._keys_with(self.pin))

    @property
    def keys(self) -> LinkKeys | None:
        """The keys shared with the host; None before enrolment."""
        return None if self.pin is None else self._keys_with(self.pin)

    async def run(self) -> None:
        """Ask until the host takes this runner in; returns then. Also right when the host forgot it."""
        pauses = growing_pauses(_FIRST_PAUSE_SECONDS, _MAX_PAUSE_SECONDS)
        while True:
            pause = next(pauses)
            try:
                if await self._ask():
                    self.fault = None
                    return
                pause = min(pause, _APPROVAL_PAUSE_SECONDS)
            except KohakuRiverError as error:
                self._say("enrolment_delayed", str(error))
            await asyncio.sleep(pause)

    async def _ask(self) -> bool:
        introduction = await self._client.introduction()
        self._check_host(introduction)
        answer = await self._request(introduction.host_public_key)
        if answer.host_public_key != introduction.host_public_key:
            raise Denied("the host changed its key while this runner enrolled; is something in between?")
        if answer.state is not EnrolState.APPROVED:
            self._say(
                "enrolment_pending",
                f"this runner waits for approval: on the host, `kohakuriver node approve "
                f"{self._parts.hostname}` after comparing both fingerprints",
                node_fingerprint=self._parts.identity.fingerprint,
                host_fingerprint=fingerprint_of(answer.host_public_key),
            )
            return False
        if self.pin is None:
            await self._keep(HostPin(answer.cluster_id, answer.host_public_key))
        return True

    async def confirm(self, cluster_id: str) -> None:
        """Take note of the cluster that the host, proven to be ours, names."""
        if self.pin is not None and self.pin.cluster_id != cluster_id:
            await self._keep(HostPin(cluster_id, self.pin.host_public_key))

    def _check_host(self, introduction: HostIntroduction) -> None:
        """Say nothing to a host that is not ours."""
        key = introduction.host_public_key
        shown = fingerprint_of(key)
        if self.pin is not None:
            if key != self.pin.host_public_key:
                raise Denied(
                    f"the host that answers has the key {shown}, but this runner belongs to "
                    f"{self.pin.fingerprint}; if the host was made anew, remove {self._parts.pin_path}"
                )
        elif self._token is not None and not self._token.is_for_host(key):
            raise Denied(
                f"JOIN_TOKEN is for the host {self._token.host_fingerprint}, but {shown} answers; "
                "check HOST_ADDRESS and the token"
            )

    async def _request(self, host_key: str) -> EnrolAnswer:
        parts, token = self._parts, self._token
        keys = (parts.hostname, parts.identity.public_key, host_key)
        if token is None:
            return await self._client.enrol(EnrolRequest(hostname=keys[0], public_key=keys[1]))
        request = EnrolRequest(
            hostname=keys[0],
            public_key=keys[1],
            join_token_id=token.token_id,
            join_proof=join_proof(token.secret, *keys),
        )
        try:
            answer = await self._client.enrol(request)
        except HostRefused as error:
            # A token that is used up or expired is left aside: an operator can still approve.
            if str(error) != self._token_refusal:
                self._token_refusal = str(error)
                _log.warning("join_token_refused", error=str(error))
            return await self._client.enrol(EnrolRequest(hostname=keys[0], public_key=keys[1]))
        if not proofs_equal(answer.host_proof, host_proof(token.secret, *keys)):
            raise Denied("the host could not prove that it made JOIN_TOKEN; it is not obeyed")
        return answer

    async def _keep(self, pin: HostPin) -> None:
        keys = self._keys_with(pin)
        try:
            await asyncio.to_thread(save_pin, self._parts.pin_path, pin)
        except OSError as error:
            raise Unavailable(f"{self._parts.pin_path} cannot be written: {error.strerror}") from error
        _log.info("enrolled", host_fingerprint=pin.fingerprint, cluster_id=pin.cluster_id)
        self.pin = pin
        self._client.trust(keys)

    def _keys_with(self, pin: HostPin) -> LinkKeys:
        return self._parts.identity.link_keys(pin.host_public_key, Side.NODE)

    def _say(self, event: str, sentence: str, **fields: str) -> None:
        """Log once for each new reason, and show it as a fault."""
        self.fault = sentence
        if sentence != self._said:
            self._said = sentence
            _log.warning(event, reason=sentence, **fields)
