"""A node that speaks to a host's API with signed requests, and checks the signatures of the answers."""

import json
from typing import Any

import httpx2

from kohakuriver.wire import signing
from kohakuriver.wire.identity import Identity, LinkKeys, Side
from support.host_api import ApiHouse


class SigningNode:
    """One enrolled node that can sign."""

    def __init__(self, house: ApiHouse, name: str) -> None:
        self.house, self.name = house, name
        self.identity = Identity.generate()
        self.keys: LinkKeys = self.identity.link_keys(house.room.control.host_public_key, Side.NODE)

    async def enrol(self) -> "SigningNode":
        body = {"hostname": self.name, "public_key": self.identity.public_key}
        answer = await self.house.call(None, "POST", "/api/enrol", json=body)
        assert answer.json()["state"] == "pending"
        await self.house.room.control.approve_node(self.name, None, "ada")
        return self

    async def send(self, method: str, path: str, message: Any, **changed: Any) -> httpx2.Response:
        """Sign and send; `changed` replaces what is sent after it was signed."""
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        header = signing.sign(self.keys.node_to_host, self.name, method, path, body)
        answer = await self.house.call(
            None,
            method,
            changed.get("target", path),
            content=changed.get("body", body),
            headers={"Authorization": changed.get("header", header)},
        )
        proof = answer.headers.get(signing.ANSWER_HEADER)
        if proof is not None:
            signing.verify_answer(proof, self.keys.host_to_node, header, answer.status_code, answer.content)
        return answer
