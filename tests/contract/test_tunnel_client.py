"""The client of a sandbox and a runner's side: what goes through, what holds nobody up, what is refused."""

import asyncio
import contextlib
import json
import platform
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import kohakuriver
from kohakuriver.runner.engines.docker.sandboxes.tunnel_folders import RunnerPlace, TunnelFolders
from kohakuriver.wire.tunnel.end import TunnelEnd
from kohakuriver.wire.tunnel.frames import SUBPROTOCOL, FrameType, Header, Transport, frame_of
from kohakuriver.wire.tunnel.table import Role, TunnelBounds
from kohakuriver.wire.tunnel.windows import FIRST_WINDOW_BYTES, LARGEST_WINDOW_BYTES
from support.tunnel.runner_side import NAME, PATIENCE_SECONDS, Channel, RunnerSide, StreamLost
from support.tunnel.services import CLIENT, build_client, datagram_service, echo, service

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    """Done already, but where a test is run by itself after a change."""
    build_client()


@contextlib.contextmanager
def client(runner: RunnerSide, *options: str) -> Iterator[subprocess.Popen[str]]:
    argv = [str(CLIENT), *options, str(runner.folder)]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
async def runner(tmp_path: Path) -> AsyncIterator[RunnerSide]:
    side = RunnerSide(tmp_path)
    async with side.listening():
        yield side


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_it_says_what_it_is() -> None:
    told = json.loads(subprocess.run([CLIENT, "--version"], check=True, capture_output=True).stdout)
    assert told["protocol"] == SUBPROTOCOL
    assert told["architecture"] == platform.machine()
    assert told["version"] == kohakuriver.__version__


async def test_bytes_go_through_in_both_directions(runner: RunnerSide) -> None:
    async with service(echo) as port:
        with client(runner):
            tunnel = await runner.tunnel()
            channel = tunnel.open(port)
            sent = bytes(range(256)) * 40_000
            sending = asyncio.ensure_future(channel.send(sent))
            assert await channel.read_exactly(len(sent)) == sent
            await sending
            channel.finish()
            assert await channel.read_all() == b""
    assert len(tunnel.end) == 0


async def test_each_direction_ends_by_itself(runner: RunnerSide) -> None:
    """What a service says after its client's end still comes, and the other way round."""

    async def answers_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = await reader.read()
        writer.write(question.upper())
        writer.close()

    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def ends_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"goodbye")
        writer.write_eof()
        heard.set_result(await reader.read())
        writer.close()

    async with service(answers_at_the_end) as one, service(ends_first) as other:
        with client(runner):
            tunnel = await runner.tunnel()
            channel = tunnel.open(one)
            await channel.send(b"question")
            channel.finish()
            assert await channel.read_all() == b"QUESTION"
            channel = await tunnel.open(other).until_connected()
            assert await channel.read_all() == b"goodbye"
            await channel.send(b"and then")
            channel.finish()
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert await heard == b"and then"
    assert len(tunnel.end) == 0


async def test_a_reset_reaches_the_service_and_a_services_reaches_the_user(runner: RunnerSide) -> None:
    broken: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
            broken.set_result(False)
        except ConnectionError:
            broken.set_result(True)
        writer.close()

    async def breaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        at_once = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        writer.close()

    async with service(waits) as one, service(breaks) as other:
        with client(runner):
            tunnel = await runner.tunnel()
            (await tunnel.open(one).until_connected()).reset()
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert await broken
            channel = tunnel.open(other)
            await channel.send(b"?")
            sentence = await channel.until_over()
            assert sentence == "the service broke the connection off"


async def test_who_is_refused_is_told_why(runner: RunnerSide) -> None:
    with client(runner):
        tunnel = await runner.tunnel()
        port = free_port()
        assert await tunnel.open(port).until_over() == f"nothing listens on port {port} of the workload"
        await tunnel.write_raw(frame_of(Header(FrameType.CONNECT, 0, 4_000_000, 0)))
        async with service(echo) as port:
            channel = tunnel.open(port)
            await channel.send(b"still here")
            assert await channel.read_exactly(10) == b"still here"


async def test_a_service_on_the_other_loopback_is_reached(runner: RunnerSide) -> None:
    try:
        async with service(echo, host="::1") as port:
            with client(runner):
                channel = (await runner.tunnel()).open(port)
                await channel.send(b"over six")
                assert await channel.read_exactly(8) == b"over six"
    except OSError:
        pytest.skip("this machine has no ::1")


async def test_datagrams_go_through_whole(runner: RunnerSide) -> None:
    async with datagram_service() as port:
        with client(runner):
            tunnel = await runner.tunnel()
            channel = tunnel.open(port, Transport.UDP)
            for data in (b"one", bytes(65_507), b"twice"):
                channel.send_datagram(data)
                assert await channel.datagram() == data
            assert await channel.datagram() == b"twice"
            channel.finish()
            nobody = await tunnel.open(free_port(), Transport.UDP).until_connected()
            nobody.send_datagram(b"lost")
            again = tunnel.open(port, Transport.UDP)
            again.send_datagram(b"after")
            assert await again.datagram() == b"after"
            assert nobody.lost is None


async def test_a_flow_ends_when_it_is_idle(runner: RunnerSide) -> None:
    async with datagram_service() as port:
        with client(runner, "--flow-idle", "300ms"):
            channel = (await runner.tunnel()).open(port, Transport.UDP)
            channel.send_datagram(b"one")
            assert await channel.datagram() == b"one"
            assert await channel.until_over() is None


async def test_who_never_reads_holds_up_nobody_and_is_held_to_its_window(runner: RunnerSide) -> None:
    async def pours(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(bytes(65536))
                await writer.drain()

    over = asyncio.Event()

    async def never_reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    async with service(pours) as source, service(never_reads) as sink, service(echo) as port:
        with client(runner) as process:
            tunnel = await runner.tunnel()
            stuck = tunnel.open(source)
            await stuck.until_received(FIRST_WINDOW_BYTES)
            full = await tunnel.open(sink).until_connected()
            filling = asyncio.ensure_future(full.send(bytes(64 << 20)))
            channel = tunnel.open(port)
            for _ in range(300):
                await channel.send(bytes(30_000))
                assert len(await channel.read_exactly(30_000)) == 30_000
            assert stuck.received_bytes == FIRST_WINDOW_BYTES
            assert not filling.done()
            assert resident_bytes(process.pid) < 40 << 20
            filling.cancel()
            # Once it reads, all of it comes.
            for _ in range(400):
                await stuck.read()
            assert stuck.received_bytes > 2 * LARGEST_WINDOW_BYTES
            stuck.reset()
            over.set()


async def test_a_thousand_connections_at_once(runner: RunnerSide) -> None:
    async def asks(channel: Channel, word: bytes) -> None:
        await channel.send(word)
        assert await channel.read_exactly(len(word)) == word

    async with service(echo) as port:
        with client(runner) as process:
            tunnel = await runner.tunnel()
            channels = [tunnel.open(port) for _ in range(1000)]
            for turn in (b"one", b"two" * 9000):
                await asyncio.gather(*(asks(channel, turn) for channel in channels))
            assert resident_bytes(process.pid) < 96 << 20
            assert threads(process.pid) <= 12
            for channel in channels:
                channel.finish()
            assert await asyncio.gather(*(channel.read_all() for channel in channels)) == [b""] * 1000
    assert len(tunnel.end) == 0


async def test_connections_to_a_port_that_does_not_answer_hold_up_no_other(runner: RunnerSide) -> None:
    async with deaf_port() as deaf, service(echo) as port:
        with client(runner) as process:
            tunnel = await runner.tunnel()
            tunnel.end = TunnelEnd(Role.OPENS, credit=True, bounds=TunnelBounds(streams=5000, opening=2000))
            stuck = [tunnel.open(deaf) for _ in range(1000)]
            channel = await tunnel.open(port).until_connected()
            assert {each.lost for each in stuck} == {None}
            await channel.send(b"here")
            assert await channel.read_exactly(4) == b"here"
            assert resident_bytes(process.pid) < 96 << 20
            assert threads(process.pid) <= 12


@contextlib.asynccontextmanager
async def deaf_port() -> AsyncIterator[int]:
    """A port whose queue is full: the kernel answers nobody there."""
    with socket.socket() as listener, contextlib.ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        while True:
            caller = waiting.enter_context(socket.socket())
            caller.setblocking(False)
            try:
                async with asyncio.timeout(0.5):
                    await asyncio.get_running_loop().sock_connect(caller, ("127.0.0.1", port))
            except TimeoutError:
                break
        yield port


async def test_a_runner_that_does_not_know_the_secret_gets_no_frame(runner: RunnerSide) -> None:
    runner.own_secret = bytes(32)
    async with service(echo) as port:
        with client(runner) as process:
            tunnel = await runner.tunnel()
            lost = tunnel.open(port)
            assert await lost.until_over() == "the tunnel is gone"
            runner.own_secret = runner.secret
            channel = (await runner.tunnel(1)).open(port)
            await channel.send(b"now")
            assert await channel.read_exactly(3) == b"now"
            process.kill()
            assert process.stderr is not None
            said = process.stderr.read()
    assert "the runner refuses: it does not know this sandbox's secret" in said
    assert runner.secret.hex() not in said
    assert all(runner.secret.hex() not in answer for answer in runner.answers)


async def test_a_client_with_another_secret_is_refused_and_reads_its_folder_anew(runner: RunnerSide) -> None:
    runner.write_settings(secret=bytes(32))
    with client(runner):
        await runner.until_attempts(2)
        assert not runner.tunnels
        runner.write_settings()
        await runner.tunnel()


async def test_it_reads_what_a_runner_writes(runner: RunnerSide, tmp_path: Path) -> None:
    key = "0123456789abcdef" * 2
    secret = TunnelFolders(tmp_path, RunnerPlace("127.0.0.1", runner.port)).write(key, NAME)
    assert secret is not None
    runner.secret = runner.own_secret = secret
    runner.folder = tmp_path / "tunnels" / key
    with client(runner):
        await runner.tunnel()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"address":"localhost","port":1,"name":"a"}'])
async def test_a_folder_that_is_not_ready_is_waited_for(runner: RunnerSide, text: str) -> None:
    (runner.folder / "runner.json").write_text(text)
    with client(runner) as process:
        assert process.stderr is not None
        assert "runner.json" in await asyncio.to_thread(process.stderr.readline)
        runner.write_settings()
        await runner.tunnel()


async def test_it_returns_after_its_runner_was_killed(tmp_path: Path) -> None:
    runner = RunnerSide(tmp_path)
    ended = asyncio.Event()

    async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        ended.set()
        writer.close()

    async with service(waits) as held, service(echo) as port:
        with contextlib.ExitStack() as processes:
            async with runner.listening():
                processes.enter_context(client(runner))
                stream = await (await runner.tunnel()).open(held).until_connected()
            with pytest.raises(StreamLost):
                await stream.read()
            async with asyncio.timeout(PATIENCE_SECONDS):
                await ended.wait()
            async with runner.listening():
                channel = (await runner.tunnel(1)).open(port)
                await channel.send(b"back")
                assert await channel.read_exactly(4) == b"back"


async def test_silence_is_asked_about_and_then_ends_the_tunnel(runner: RunnerSide) -> None:
    with client(runner, "--ping-after", "100ms", "--end-after", "2s"):
        tunnel = await runner.tunnel()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while tunnel.heard.count(FrameType.PING) < 30:  # more than 2 s of them: each PONG is life
                await asyncio.sleep(0.02)
        assert not tunnel.lost.is_set()
        tunnel.is_mute = True
        async with asyncio.timeout(PATIENCE_SECONDS):
            await tunnel.lost.wait()
        await runner.tunnel(1)


async def test_its_own_pings_are_answered(runner: RunnerSide) -> None:
    with client(runner):
        tunnel = await runner.tunnel()
        tunnel.end.ping()
        tunnel.wake()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while FrameType.PONG not in tunnel.heard:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "frame",
    [b"short", bytes(8 + 65_537), frame_of(Header(FrameType.DATA, 0, 1, 80))[:1] + b"\2" + bytes(6)],
    ids=["no header", "too long", "no transport"],
)
async def test_a_breach_ends_the_tunnel_and_a_new_one_comes(runner: RunnerSide, frame: bytes) -> None:
    with client(runner):
        tunnel = await runner.tunnel()
        await tunnel.write_raw(frame)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await tunnel.lost.wait()
        await runner.tunnel(1)


async def test_it_is_small_and_listens_on_nothing(runner: RunnerSide) -> None:
    assert CLIENT.stat().st_size < 10_000_000
    with client(runner) as process:
        await runner.tunnel()
        assert resident_bytes(process.pid) < 12_000_000
        assert threads(process.pid) <= 12
        descriptors = [link.readlink() for link in Path(f"/proc/{process.pid}/fd").iterdir()]
        inodes = {str(link)[8:-1] for link in descriptors if str(link).startswith("socket:")}
        sockets = [line.split() for line in Path(f"/proc/{process.pid}/net/tcp").read_text().splitlines()[1:]]
        listening = "0A"
        assert not [fields for fields in sockets if fields[9] in inodes and fields[3] == listening]
        assert len(inodes) == 1


def resident_bytes(pid: int) -> int:
    return 1024 * int(_status(pid, "VmRSS").split()[0])


def threads(pid: int) -> int:
    return int(_status(pid, "Threads"))


def _status(pid: int, name: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))
