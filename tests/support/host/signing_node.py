"""A node that makes sealed calls to a host's API, and checks the proofs of the answers."""

import json
from typing import Any

import httpx2

from kohakuriver.wire.trust.identity import Identity, LinkKeys, Side
from kohakuriver.wire.trust.sealed_calls import Caller, SealedCall
from kohakuriver.wire.trust.signing import ANSWER_HEADER
from support.host.api import ApiHarness


class SigningNode:
    """One enrolled node that can sign."""

    def __init__(self, harness: ApiHarness, name: str) -> None:
        self.harness, self.name = harness, name
        self.identity = Identity.generate()
        self.caller = Caller(Side.NODE)
        self.keys: LinkKeys = self.identity.link_keys(harness.room.control.host_public_key, Side.NODE)

    async def enrol(self) -> "SigningNode":
        body = {"hostname": self.name, "public_key": self.identity.public_key}
        answer = await self.harness.call(None, "POST", "/api/enrol", json=body)
        assert answer.json()["state"] == "pending"
        await self.harness.room.control.nodes.approve(self.name, None, "ada")
        return self

    async def send(self, method: str, path: str, message: Any, **changed: Any) -> httpx2.Response:
        """Seal and send; `changed` replaces what is sent after it was sealed. The answer comes opened."""
        answer, call = await self.once(method, path, message, **changed)
        if ANSWER_HEADER in answer.headers and not changed:
            judged = self.caller.prove(call, self.keys, answer.status_code, answer.headers, 1 << 20)
            if self.caller.must_call_again(call, judged):
                answer, call = await self.once(method, path, message)
        return self.opened(call, answer)

    async def once(
        self, method: str, path: str, message: Any, **changed: Any
    ) -> tuple[httpx2.Response, SealedCall]:
        """Send one sealed call, and give the answer as it travels."""
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        call = self.caller.call(self.name, self.keys, method, path, body)
        answer = await self.harness.call(
            None,
            method,
            changed.get("target", path),
            content=changed.get("body", call.content),
            headers={"Authorization": changed.get("header", call.credential)},
        )
        return answer, call

    def opened(self, call: SealedCall, answer: httpx2.Response) -> httpx2.Response:
        """The answer with its body in clear, after its proof was checked; one without proof as it is."""
        if ANSWER_HEADER not in answer.headers:
            return answer
        judged = self.caller.prove(call, self.keys, answer.status_code, answer.headers, 1 << 20)
        content = self.caller.open(call, judged, answer.content)
        kept = {name: value for name, value in answer.headers.items() if name != "content-length"}
        return httpx2.Response(answer.status_code, headers=kept, content=content)
