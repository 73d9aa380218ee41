"""How this runner comes to belong to a host: by a join token, or by an operator's approval.

The host's key is pinned by the first enrolment. Somebody must have vouched for it before: the join token
holds its fingerprint, HOST_FINGERPRINT names it, or it was confirmed on this machine (`kohakuriver runner
trust`). Whoever else says `approved` is not obeyed, nor is a host that cannot prove that with its key.
A host with another key than the pinned one is never obeyed, and the runner keeps asking for its own.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import structlog

from kohakuriver.confirmed_host import confirmed_host
from kohakuriver.models.enums import EnrolState
from kohakuriver.models.errors import Denied, HostRefused, KohakuRiverError, Unavailable
from kohakuriver.pauses import growing_pauses
from kohakuriver.runner.link.host_client import HostClient
from kohakuriver.runner.link.host_pin import HostPin, load_pin, save_pin
from kohakuriver.wire.messages import EnrolAnswer, EnrolRequest, HostIntroduction
from kohakuriver.wire.trust.enrolment import JoinToken, approval_proof, host_proof, join_proof, proofs_equal
from kohakuriver.wire.trust.identity import Identity, LinkKeys, Side, fingerprint_of

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
    host_fingerprint: str = ""


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
        self._has_pin = asyncio.Event()
        if self.pin is not None:
            self._has_pin.set()
            client.trust(self._keys_with(self.pin))

    async def cluster_ids(self) -> tuple[str, ...]:
        """Ids that this runner's cluster has and had, the present one first; waits until it is in one."""
        while self.pin is None:
            await self._has_pin.wait()
        return self.pin.cluster_ids

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
        confirmed = await asyncio.to_thread(confirmed_host, self._parts.pin_path.parent)
        self._check_host(introduction, confirmed)
        answer, proven = await self._request(introduction.host_public_key)
        if answer.host_public_key != introduction.host_public_key:
            raise Denied("the host changed its key while this runner enrolled; is something in between?")
        if self.pin is None and not (self._token or self._parts.host_fingerprint or confirmed):
            self._tell_unknown(fingerprint_of(answer.host_public_key))
            return False
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
            if not proven:
                self._check_approval(answer)
            await self._keep(HostPin(answer.cluster_id, answer.host_public_key))
        return True

    async def confirm(self, cluster_id: str) -> None:
        """Take note of the cluster that the host, proven to be ours, names."""
        if self.pin is not None and self.pin.cluster_id != cluster_id:
            await self._keep(self.pin.with_cluster(cluster_id))

    def _tell_unknown(self, shown: str) -> None:
        """Nobody has vouched for the host's key. It has this runner's now, so it can approve meanwhile."""
        self._say(
            "host_not_confirmed",
            f"the host that answers shows the key {shown}, which nobody has confirmed; compare it with what "
            "`kohakuriver host fingerprint` prints on the host's machine, then run "
            f"`kohakuriver runner trust {shown}` on this one or set HOST_FINGERPRINT",
            node_fingerprint=self._parts.identity.fingerprint,
            host_fingerprint=shown,
        )

    def _check_approval(self, answer: EnrolAnswer) -> None:
        parts = self._parts
        wanted = approval_proof(
            parts.identity, answer.host_public_key, Side.NODE, parts.hostname, answer.cluster_id
        )
        if not proofs_equal(answer.approval_proof, wanted):
            raise Denied(
                "what answers says that this runner is approved and does not prove it with the host's key; "
                "if it is a host of an older version, install this version there or use a join token"
            )

    def _check_host(self, introduction: HostIntroduction, confirmed: str | None) -> None:
        """Say nothing to a host that is not ours."""
        key = introduction.host_public_key
        shown = fingerprint_of(key)
        if self.pin is not None:
            if key != self.pin.host_public_key:
                raise Denied(
                    f"the host that answers has the key {shown}, but this runner belongs to "
                    f"{self.pin.fingerprint}; if the host was made anew, remove {self._parts.pin_path}"
                )
            return
        if self._token is not None and not self._token.is_for_host(key):
            raise Denied(
                f"JOIN_TOKEN is for the host {self._token.host_fingerprint}, but {shown} answers; "
                "check HOST_ADDRESS and the token"
            )
        if self._parts.host_fingerprint not in ("", shown):
            raise Denied(
                f"HOST_FINGERPRINT is {self._parts.host_fingerprint}, but {shown} answers; check "
                "HOST_ADDRESS and the fingerprint"
            )
        # What the settings say counts for more than what was confirmed once.
        if self._token is None and not self._parts.host_fingerprint and confirmed not in (None, shown):
            raise Denied(
                f"the host {confirmed} was confirmed on this machine, but {shown} answers; check "
                "HOST_ADDRESS, or confirm the other one with `kohakuriver runner trust`"
            )

    async def _request(self, host_key: str) -> tuple[EnrolAnswer, bool]:
        """The answer, and whether it proves that the host made the join token, which was used."""
        parts, token = self._parts, self._token
        keys = (parts.hostname, parts.identity.public_key, host_key)
        if token is None:
            return await self._client.enrol(EnrolRequest(hostname=keys[0], public_key=keys[1])), False
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
            return await self._client.enrol(EnrolRequest(hostname=keys[0], public_key=keys[1])), False
        if not proofs_equal(answer.host_proof, host_proof(token.secret, *keys)):
            raise Denied("the host could not prove that it made JOIN_TOKEN; it is not obeyed")
        return answer, True

    async def _keep(self, pin: HostPin) -> None:
        keys = self._keys_with(pin)
        try:
            await asyncio.to_thread(save_pin, self._parts.pin_path, pin)
        except OSError as error:
            raise Unavailable(f"{self._parts.pin_path} cannot be written: {error.strerror}") from error
        _log.info("enrolled", host_fingerprint=pin.fingerprint, cluster_id=pin.cluster_id)
        self.pin = pin
        self._has_pin.set()
        self._client.trust(keys)

    def _keys_with(self, pin: HostPin) -> LinkKeys:
        return self._parts.identity.link_keys(pin.host_public_key, Side.NODE)

    def _say(self, event: str, sentence: str, **fields: str) -> None:
        """Log once for each new reason, and show it as a fault."""
        self.fault = sentence
        if sentence != self._said:
            self._said = sentence
            _log.warning(event, reason=sentence, **fields)
