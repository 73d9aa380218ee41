"""Run in a workload: services of all kinds on its 127.0.0.1, each by the program that people use for it.

python -m support.workloads.services HTTP_PORT      (further ports are below)
"""

import asyncio
import functools
import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path

from websockets.asyncio.server import ServerConnection, serve

HTTP, WEBSOCKET, POSTGRESQL, DNS = 80, 9000, 5432, 53
PAGE, LARGE = b"a page of the workload\n", bytes(range(256)) * 32_768
NAME, ADDRESS = "box.lab.test", "192.0.2.7"
_POSTGRESQL_USER = 1000
_PLACE = Path("/srv")


def main(http_port: int) -> None:
    Path("/etc").mkdir(exist_ok=True)
    Path("/etc/passwd").write_text(f"root:x:0:0::/:/bin/sh\npostgres:x:{_POSTGRESQL_USER}:0::/:/bin/sh\n")
    Path("/etc/group").write_text("root:x:0:\n")
    for folder, mode in ((_PLACE, 0o777), (Path("/tmp"), 0o1777)):
        folder.mkdir(exist_ok=True)
        folder.chmod(mode)
    _start_dns()
    _start_postgresql()
    for port in (HTTP, http_port):
        _start_http(port)
    asyncio.run(_serve_websockets())


def _start_http(port: int) -> None:
    pages = _PLACE / "pages"
    pages.mkdir(exist_ok=True)
    (pages / "page").write_bytes(PAGE)
    (pages / "large").write_bytes(LARGE)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(pages))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def _start_dns() -> None:
    options = ["--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--listen-address=127.0.0.1"]
    options += ["--bind-interfaces", "--user=root", "--group=root", "--pid-file", f"--port={DNS}"]
    subprocess.Popen(
        ["/usr/sbin/dnsmasq", "--keep-in-foreground", *options, f"--host-record={NAME},{ADDRESS}"]
    )


def _start_postgresql() -> None:
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    data = _PLACE / "data"
    made = [programs / "initdb", "--no-sync", "--auth=trust", "--locale=C", "--username=postgres", "-D", data]
    as_user = {"user": _POSTGRESQL_USER, "env": os.environ | {"TZ": "UTC"}}
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL, **as_user)  # type: ignore[call-overload]
    options = (
        "fsync=off",
        "listen_addresses=127.0.0.1",
        f"port={POSTGRESQL}",
        "unix_socket_directories=/tmp",
    )
    settings = [word for option in options for word in ("-c", option)]
    subprocess.Popen([programs / "postgres", "-D", data, *settings], **as_user)  # type: ignore[call-overload]
    while subprocess.run([programs / "pg_isready", "-q", "-h", "127.0.0.1"], check=False).returncode:
        continue


async def _serve_websockets() -> None:
    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with serve(echo, "127.0.0.1", WEBSOCKET):
        print("ready")
        await asyncio.Event().wait()


if __name__ == "__main__":
    main(int(sys.argv[1]))
