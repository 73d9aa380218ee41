"""Sealed streams: only the two who share the link's keys speak, now, in order, and to the end."""

import asyncio

import pytest

from kohakuriver.models.errors import NotFound, Unauthenticated, Unavailable
from kohakuriver.wire.channel import MAX_MESSAGE_BYTES
from kohakuriver.wire.trust.identity import Identity, LinkKeys, Side
from kohakuriver.wire.trust.sealed import Kind, Seals, new_challenge
from kohakuriver.wire.trust.sealed_channel import SealedChannel, accept_as_runner, open_as_host

HOST, NODE, OTHER = Identity.generate(), Identity.generate(), Identity.generate()
HOST_KEYS = HOST.link_keys(NODE.public_key, Side.HOST)
NODE_KEYS = NODE.link_keys(HOST.public_key, Side.NODE)
CREDENTIAL = "KohakuRiver n1:aaaaaaaaaaaaaaaaaaaaaaaa:" + "0" * 64


def pair(credential: str = CREDENTIAL, challenge: bytes | None = None) -> tuple[Seals, Seals]:
    challenge = challenge or new_challenge()
    return (
        Seals(HOST_KEYS, Side.HOST, CREDENTIAL, challenge),
        Seals(NODE_KEYS, Side.NODE, credential, challenge),
    )


def test_what_one_end_seals_the_other_opens() -> None:
    host, node = pair()
    for seals, opens in ((host, node), (node, host)):
        for kind, content in ((Kind.HELLO, b""), (Kind.DATA, b"\0" * 70_000), (Kind.TEXT, "ü".encode())):
            opened = opens.open(seals.seal(kind, content))
            assert (opened.kind, opened.content) == (kind, content)


def test_nothing_can_be_read_repeated_left_out_changed_or_turned_round() -> None:
    host, node = pair()
    first, second = host.seal(Kind.DATA, b"the password"), host.seal(Kind.DATA, b"more")
    assert b"password" not in first
    for wrong in (second, first[:-1], bytes((first[0] ^ 1,)) + first[1:], b"", node.seal(Kind.DATA, b"x")):
        with pytest.raises(Unauthenticated):
            node.open(wrong)
    assert node.open(first).content == b"the password"
    with pytest.raises(Unauthenticated):
        node.open(first)


def test_a_recorded_stream_is_of_no_use_for_another_one() -> None:
    """The runner's challenge differs, and so does everything that follows from it."""
    challenge = new_challenge()
    host, _ = pair(challenge=challenge)
    recorded = host.seal(Kind.HELLO)
    _, node = pair()
    with pytest.raises(Unauthenticated):
        node.open(recorded)
    _, node = pair(credential=CREDENTIAL.replace("a", "b"), challenge=challenge)
    with pytest.raises(Unauthenticated):
        node.open(recorded)


class Pipe:
    """A transport in memory; `cut` ends it without a word."""

    def __init__(self) -> None:
        self.other = self
        self.incoming: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def send(self, data: bytes) -> None:
        self.other.incoming.put_nowait(data)

    async def receive(self) -> bytes | None:
        return await self.incoming.get()

    async def close(self) -> None:
        self.cut()

    def cut(self) -> None:
        self.other.incoming.put_nowait(None)


def pipes() -> tuple[Pipe, Pipe]:
    one, two = Pipe(), Pipe()
    one.other, two.other = two, one
    return one, two


async def channels(
    host_keys: LinkKeys = HOST_KEYS, node_keys: LinkKeys = NODE_KEYS
) -> tuple[SealedChannel, SealedChannel, Pipe]:
    one, two = pipes()
    host, node = await asyncio.gather(
        open_as_host(one, host_keys, CREDENTIAL), accept_as_runner(two, node_keys, CREDENTIAL)
    )
    return host, node, two


def test_messages_and_the_end_arrive() -> None:
    async def scenario() -> None:
        host, node, _ = await channels()
        await host.send("text")
        await host.send(b"data")
        assert [await node.receive(), await node.receive()] == ["text", b"data"]
        await node.close(NotFound("there is no such session"))
        with pytest.raises(NotFound, match="no such session"):
            await host.receive()
        assert await host.receive() is None

    asyncio.run(scenario())


def test_an_end_without_a_end_message_is_a_broken_connection() -> None:
    async def scenario() -> None:
        host, _, wire = await channels()
        wire.cut()
        with pytest.raises(Unavailable, match="broke"):
            await host.receive()

    asyncio.run(scenario())


def test_the_runner_does_nothing_for_who_has_not_the_keys() -> None:
    async def scenario() -> None:
        others = OTHER.link_keys(NODE.public_key, Side.HOST)
        with pytest.raises(Unauthenticated):
            await channels(host_keys=others)

    asyncio.run(scenario())


def test_after_a_send_that_was_cut_off_nothing_more_is_sent() -> None:
    """Whether it went out is not known, so the next one could not be opened."""

    class Stuck(Pipe):
        async def send(self, data: bytes) -> None:
            await asyncio.Event().wait()

    async def scenario() -> None:
        channel = SealedChannel(Stuck(), pair()[0])
        sending = asyncio.create_task(channel.send(b"x"))
        await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        with pytest.raises(Unavailable):
            await channel.send(b"y")
        await asyncio.wait_for(channel.close(), 5)

    asyncio.run(scenario())


def test_a_message_that_is_too_long_is_refused_where_it_is_made() -> None:
    async def scenario() -> None:
        host, _, _ = await channels()
        with pytest.raises(ValueError, match="pieces"):
            await host.send(bytes(MAX_MESSAGE_BYTES + 1))

    asyncio.run(scenario())
