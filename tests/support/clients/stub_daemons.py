"""Stand-ins for `kohakuriver.host` and `kohakuriver.runner`, only for tests of `up` and `down`.

They are started as the real ones are (`--config FILE`), with the real settings of those files. The host is
the stub of `support.clients.stub_host`; the runner makes a key where the real one has it, and tells the host
of it.
`install` makes a folder with a Python and the two programs beside it, which is where `up` looks.
"""

import json
import os
import signal
import socket
import sys
import sysconfig
import textwrap
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[2]
SOURCES = TESTS.parent / "src"


def install(folder: Path) -> Path:
    """Return the Python to run the command with."""
    binaries = folder / "bin"
    binaries.mkdir()
    python = binaries / "python"
    python.symlink_to(sys.executable)
    for program in ("host", "runner"):
        script = binaries / f"kohakuriver.{program}"
        script.write_text(
            textwrap.dedent(f"""\
                #!{sys.executable}
                import sys
                sys.path[:0] = [{str(TESTS)!r}, {str(SOURCES)!r}]
                from support.clients.stub_daemons import run_{program}
                run_{program}()
                """)
        )
        script.chmod(0o755)
    return python


def python_path() -> str:
    """PYTHONPATH for that Python, which has no packages of its own."""
    return os.pathsep.join((str(SOURCES), sysconfig.get_paths()["purelib"]))


def run_host() -> None:
    """Serve what `up` asks for, with the settings of the configuration file."""
    from kohakuriver.config import load_host_config
    from kohakuriver.private_files import write_private
    from kohakuriver.wire.trust.identity import Identity
    from support.clients.stub_host import Answer, StubHost, serve_task, task_record

    config = load_host_config(Path(sys.argv[sys.argv.index("--config") + 1]))
    base = Path.home() / ".kohakuriver"
    if (base / "break_host").exists():
        print("the host cannot go on: \x1b[31mno more room\x1b[0m", file=sys.stderr)
        sys.exit(int((base / "break_host").read_text()))
    identity = Identity.load_or_create(Path(config.db_file).with_name("host_identity.key"))
    host = StubHost(config.host_port, identity)
    node: dict[str, Any] = {"hostname": socket.gethostname(), "status": "online", "total_cores": 2}
    if (base / "break_runner").exists():
        node["faults"] = ["the container engine is not open yet"]
    pending: dict[str, str] = {}
    approved: list[str] = []

    def nodes(request: Any) -> Any:
        if request.headers.get("authorization") != "Bearer local-token":
            return Answer({"detail": "who are you?"}, 401)
        waiting = [{"hostname": node["hostname"], "status": "pending", **pending}] if pending else []
        return Answer([node] if approved else waiting)

    def enrol(request: Any) -> Any:
        pending["fingerprint"] = request.json["fingerprint"]
        return Answer({})

    def approve(request: Any) -> Any:
        approved.append(request.json["fingerprint"])
        (base / "approved").touch()
        return Answer({"message": "approved"})

    host.answer("GET", "/healthz", {"status": "ok"})
    host.answer("GET", "/readyz", {"status": "ready", "faults": []})
    host.script("GET", "/api/nodes", nodes)
    host.script("POST", "/stub/enrol", enrol)
    host.script("POST", f"/api/nodes/{node['hostname']}/approve", approve)
    host.answer("GET", "/api/docker/list", [{"name": config.default_container_name}])
    if (base / "break_runner_later").exists():
        _hold_task(host, task_record(status="pending", assigned_node=None), base)
    else:
        serve_task(host, task_record(), stdout=[b"output of the first task\n"])
    document = {"url": host.url, "token": "local-token", "fingerprint": host.identity.fingerprint}
    write_private(base / "admin_token.json", json.dumps(document).encode())
    _until_signal()
    host.close()


def _hold_task(host: Any, record: dict[str, Any], base: Path) -> None:
    """A task that waits for ever; its runner ends once somebody looks at it."""
    from support.clients.stub_host import Answer

    def status(request: Any) -> Any:
        (base / "task_is_followed").touch()
        return Answer(record)

    host.answer("POST", "/api/submit", {"task_ids": [record["task_id"]]}, 202)
    host.script("GET", f"/api/status/{record['task_id']}", status)


def run_runner() -> None:
    """Make the key, tell the host, and stay."""
    from kohakuriver.config import load_runner_config
    from kohakuriver.wire.trust.identity import Identity

    config = load_runner_config(Path(sys.argv[sys.argv.index("--config") + 1]))
    base = Path.home() / ".kohakuriver"
    folder = base / "runner" / socket.gethostname()
    folder.mkdir(parents=True, exist_ok=True)
    fingerprint = Identity.load_or_create(folder / "identity").fingerprint
    if (base / "impostor").exists():
        fingerprint = "SHA256:somebody-else"
    with socket.create_server((config.runner_bind_ip, config.runner_port)):
        request = urllib.request.Request(
            f"http://127.0.0.1:{config.host_port}/stub/enrol",
            data=b'{"fingerprint": "%s"}' % fingerprint.encode(),
            headers={"Content-Type": "application/json"},
        )
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10).close()
        if (base / "break_runner").exists() or (base / "break_runner_later").exists():
            wait_for = "approved" if (base / "break_runner").exists() else "task_is_followed"
            while not (base / wait_for).exists():
                time.sleep(0.02)
            print("Error: this subnet overlaps a route of this node", file=sys.stderr)
            sys.exit(1)
        if (base / "stubborn").exists():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            threading.Event().wait()
        _until_signal()


def _until_signal() -> None:
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    over.wait()
