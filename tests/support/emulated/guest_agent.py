"""The program inside the emulated machine that does what tests ask for; standard library only.

It speaks over a virtio serial port, a JSON object a line. At its start it says `{"boot": <boot id>}`.
A request is `{"id", "argv", "input", "seconds"}`, answered by `{"id", "status", "stdout", "stderr"}` (status
None: it ran past its seconds), or `{"id", "call": [method, path, body], "to", "seconds"}` to the host's API
with the administrator's token, or to the engine's, answered by `{"id", "status", "body"}`. Requests run side
by side.
"""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

PORT_NAME = "river.tests"
_HOME = "/root"
_PATH = "/opt/kohakuriver/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_API = ("127.0.0.1", 8000)
_ENGINE = "/run/docker.sock"


def main() -> None:
    with open(_port(), "r+b", buffering=0) as port:
        lock = threading.Lock()

        def say(message: dict[str, Any]) -> None:
            line = memoryview(json.dumps(message).encode() + b"\n")
            with lock:
                while line:
                    line = line[port.write(line) or 0 :]

        say({"boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip()})
        waiting = b""
        while chunk := port.read(1 << 16):
            *lines, waiting = (waiting + chunk).split(b"\n")
            for line in lines:
                threading.Thread(target=_serve, args=(json.loads(line), say), daemon=True).start()


def _port() -> str:
    for folder in Path("/sys/class/virtio-ports").iterdir():
        if (folder / "name").read_text().strip() == PORT_NAME:
            return f"/dev/{folder.name}"
    sys.exit(f"there is no virtio port {PORT_NAME}")


def _serve(request: dict[str, Any], say: Any) -> None:
    try:
        answer = _call(request) if "call" in request else _run(request)
    except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
        answer = {"status": 0, "body": repr(error), "stdout": "", "stderr": repr(error)}
    say({"id": request["id"], **answer})


def _run(request: dict[str, Any]) -> dict[str, Any]:
    environment = {"HOME": _HOME, "PATH": _PATH, "LANG": "C.UTF-8"}
    with subprocess.Popen(
        request["argv"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=_HOME,
    ) as process:
        status: int | None
        try:
            stdout, stderr = process.communicate(request["input"].encode(), request["seconds"])
            status = process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            stdout, stderr = process.communicate()
            status = None
    return {
        "status": status,
        "stdout": stdout.decode(errors="replace"),
        "stderr": stderr.decode(errors="replace"),
    }


def _call(request: dict[str, Any]) -> dict[str, Any]:
    method, path, body = request["call"]
    headers = {"Content-Type": "application/json"}
    connection = http.client.HTTPConnection(*_API, timeout=request["seconds"])
    if request["to"] == "engine":
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(request["seconds"])
        connection.sock.connect(_ENGINE)
    else:
        token = json.loads(Path(_HOME, ".kohakuriver/admin_token.json").read_text())["token"]
        headers["Authorization"] = f"Bearer {token}"
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        return {"status": answer.status, "body": answer.read().decode(errors="replace")}
    finally:
        connection.close()


if __name__ == "__main__":
    os.chdir("/")
    main()
