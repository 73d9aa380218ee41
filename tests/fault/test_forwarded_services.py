"""Services of all kinds on 127.0.0.1 of a task and of a VPS on another node are used through `forward`."""

import secrets
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import httpx2
import pytest
from websockets.sync.client import connect

from support.cluster.cluster import free_port, wait_for
from support.cluster.forward_command import ForwardCommand, forwarding
from support.cluster.vps import vps_on
from support.lab.lab import Lab
from support.workloads import services
from support.workloads.mounted_python import mounts, python_argv, python_task

pytestmark = [pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(300)]

NODE = "n2"
PROGRAM = services.__name__
ROWS = 20_000


def task_with_services(lab: Lab, http_port: int) -> AbstractContextManager[str]:
    return python_task(lab, NODE, PROGRAM, http_port)


@contextmanager
def vps_with_services(lab: Lab, http_port: int) -> Iterator[str]:
    options = [word for mount in mounts() for word in ("--mount", mount)]
    with vps_on(lab, NODE, *options) as task_id:
        script = 'setsid "$@" > /out 2>&1 < /dev/null & until grep -q ready /out; do sleep 0.1; done'
        begun = lab.cli("exec", task_id, "--", "sh", "-c", script, "sh", *python_argv(PROGRAM, http_port))
        assert begun.returncode == 0, begun.stderr
        yield task_id


def own_loopback() -> str:
    """An address of this machine where no port is taken."""
    return f"127.{secrets.randbelow(253) + 2}.{secrets.randbelow(254)}.{secrets.randbelow(253) + 1}"


@pytest.mark.parametrize("workload_with_services", [task_with_services, vps_with_services])
def test_services_of_all_kinds_are_used_as_if_they_were_here(
    lab: Lab, workload_with_services: Callable[[Lab, int], AbstractContextManager[str]]
) -> None:
    port, here = free_port(), own_loopback()
    with workload_with_services(lab, port) as workload:
        with forwarding(lab, workload, str(port)) as forward:
            assert forward.places == [("127.0.0.1", port)]
            pages_are_read(forward)
            assert forward.interrupt() == 130
        several = ["8888:80", "9000", "53/udp"]
        with forwarding(lab, workload, *several, "--local-host", here) as forward:
            assert forward.places == [(here, 8888), (here, 9000), (here, 53)]
            pages_are_read(forward)
            messages_are_answered(forward)
            names_are_resolved(here)
        with forwarding(lab, workload, str(services.POSTGRESQL), "--local-port", "0") as forward:
            rows_are_kept(*forward.places[0])


def pages_are_read(forward: ForwardCommand) -> None:
    host, port = forward.places[0]
    with httpx2.Client(base_url=f"http://{host}:{port}", trust_env=False, timeout=60) as client:
        assert client.get("/page").content == services.PAGE
        assert client.get("/large").content == services.LARGE
        assert client.get("/none").status_code == 404


def messages_are_answered(forward: ForwardCommand) -> None:
    host, port = forward.places[1]
    with connect(f"ws://{host}:{port}", proxy=None, max_size=None) as client:
        for message in ("first", b"\0" * 500_000, "last"):
            client.send(message)
            assert client.recv(timeout=60) == message


def names_are_resolved(server: str) -> None:
    """By a resolver that knows no port but the one for names."""

    def asked(name: str) -> str:
        return subprocess.run(
            ["busybox", "nslookup", "-type=a", name, server], capture_output=True, text=True, check=False
        ).stdout

    assert services.ADDRESS in wait_for(lambda: asked(services.NAME), "an answer")
    assert "can't resolve" in asked(f"other.{services.NAME}") or "REFUSED" in asked(f"other.{services.NAME}")


def rows_are_kept(host: str, port: int) -> None:
    def told(statement: str, given: str = "") -> str:
        argv = ["psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-h", host, "-p", str(port)]
        done = subprocess.run(
            [*argv, "-U", "postgres", "-c", statement],
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    rows = "".join(f"{number}\t{'x' * 100}\n" for number in range(ROWS))
    told("CREATE TABLE kept (number int, text text)")
    told("COPY kept FROM STDIN", rows)
    assert told("SELECT count(*), sum(number) FROM kept") == f"{ROWS}|{sum(range(ROWS))}"
    assert told("COPY (SELECT * FROM kept ORDER BY number) TO STDOUT") == rows.strip()
