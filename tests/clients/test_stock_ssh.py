"""Stock SSH clients through the gateway, with the configuration that `ssh config` writes."""

import hashlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.clients.ssh_place import Place, lab
from support.host.gateway import HELEN, HELENS
from support.machine.processes import wait_until

pytestmark = pytest.mark.root
pytest_plugins = ["support.clients.ssh_fixtures"]


def test_stock_ssh_jumps_through_the_gateway_with_the_vps_key(place: Place) -> None:
    place.write_config()
    done = place.stock("ssh", "lab", "echo $SSH_CONNECTION")
    assert done.returncode == 0, done.stderr
    by_hand = place.stock("ssh", "-J", "kohakuriver-gateway", f"vps-{HELENS}", "echo jumped")
    assert by_hand.stdout == b"jumped\n", by_hand.stderr
    assert {line["actor"] for line in place.harness.lines("ssh.login done")} == {"holder of a key"}


def test_a_vps_without_keys_is_reached_with_the_token(place: Place) -> None:
    place.tell(lab(place.sshd, ssh_key_mode="none"))
    text = place.write_config()
    assert "ProxyJump" not in text
    done = place.stock("ssh", "-i", str(place.sshd.user_key), "lab", "echo in")
    assert done.stdout == b"in\n", done.stderr
    assert {line["actor"] for line in place.harness.lines("ssh.login done")} == {"helen"}


def test_a_large_file_arrives_whole_in_both_directions_by_scp_sftp_and_rsync(
    place: Place, tmp_path: Path
) -> None:
    place.write_config()
    original = tmp_path / "original"
    original.write_bytes(os.urandom(24 << 20))
    expected = _digest(original)
    config = str(place.config)
    far, back = tmp_path / "far", tmp_path / "back"
    steps = {
        "scp": [[str(original), f"lab:{far}"], [f"lab:{far}", str(back)]],
        "rsync": [
            ["-a", "-e", f"ssh -F '{config}'", *pair]
            for pair in ([str(original), f"lab:{far}"], [f"lab:{far}", str(back)])
        ],
        "sftp": [["-b", "-", "lab"]],
    }
    for program, calls in steps.items():
        for arguments in calls:
            argv = [program, *arguments] if program == "rsync" else [program, "-F", config, *arguments]
            batch = f'put "{original}" "{far}"\nget "{far}" "{back}"\n'.encode() if program == "sftp" else b""
            done = subprocess.run(
                argv,
                input=batch,
                env=place.command.environment(),
                capture_output=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, (argv, done.stderr)
        assert (_digest(far), _digest(back)) == (expected, expected), program
        far.unlink()
        back.unlink()


def test_input_that_ends_still_gets_its_answer(place: Place) -> None:
    place.write_config()
    data = os.urandom(3 << 20)
    done = place.stock("ssh", "lab", "sha256sum", said=data)
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest(), done.stderr


def test_an_agent_is_forwarded_to_the_vps_and_not_to_the_gateway(place: Place, tmp_path: Path) -> None:
    place.write_config()
    with ssh_agent(tmp_path / "agent") as agent:
        subprocess.run(
            ["ssh-add", "-q", str(place.sshd.user_key)], env=agent, check=True, capture_output=True
        )
        done = place.stock("ssh", "-A", "lab", "ssh-add -L", variables=agent)
    assert done.stdout.decode().split()[:2] == place.sshd.user_public_key.split(), done.stderr
    assert not place.harness.lines("ssh.open refused")


def test_ports_of_the_vps_are_reached_by_forwarding_inside(place: Place) -> None:
    place.write_config()
    with socket.create_server(("127.0.0.1", 0)) as service:
        threading.Thread(target=_greet_once, args=(service,), daemon=True).start()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            local = probe.getsockname()[1]
        forward = f"127.0.0.1:{local}:127.0.0.1:{service.getsockname()[1]}"
        argv = [
            "ssh",
            "-F",
            str(place.config),
            "-o",
            "ExitOnForwardFailure=yes",
            "-N",
            "-L",
            forward,
            "lab",
        ]
        process = subprocess.Popen(argv, env=place.command.environment(), stdin=subprocess.DEVNULL)
        try:
            wait_until(lambda: _says(local) == b"from inside", 20, "the forwarded port")
        finally:
            process.terminate()
            process.wait(20)


def test_twenty_at_once_do_not_mix(place: Place) -> None:
    place.write_config()
    argv = ["ssh", "-F", str(place.config), "lab"]
    data = [os.urandom(1 << 18) for _ in range(20)]
    processes = [
        subprocess.Popen(
            [*argv, "cat"], env=place.command.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in data
    ]
    answers: dict[int, bytes] = {}

    def converse(number: int) -> None:
        answers[number] = processes[number].communicate(data[number], timeout=100)[0]

    threads = [threading.Thread(target=converse, args=(number,)) for number in range(len(data))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answers[number] for number in range(len(data))] == data
    wait_until(lambda: len(place.harness.lines("ssh_closed")) == len(data), 20, "all to be closed")


def test_a_token_that_is_revoked_ends_the_ssh_that_it_opened(place: Place) -> None:
    argv = place.command.argv("ssh", "-i", str(place.sshd.user_key), "lab", "echo up; exec sleep 60")
    process = subprocess.Popen(
        argv,
        env=place.command.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        began = time.monotonic()
        place.harness.put_token(HELEN, None)
        assert process.wait(20) == 255
        assert time.monotonic() - began < 10
    finally:
        process.kill()
        process.communicate()


@contextmanager
def ssh_agent(path: Path) -> Iterator[dict[str, str]]:
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(path)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        wait_until(path.exists, 10, "the agent")
        yield {"SSH_AUTH_SOCK": str(path)}
    finally:
        process.terminate()
        process.wait(10)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _greet_once(service: socket.socket) -> None:
    connection, _ = service.accept()
    with connection:
        connection.sendall(b"from inside")


def _says(port: int) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as connection:
            return connection.recv(100)
    except OSError:
        return b""
