"""`vps snapshot` and `vps restore`."""

from support.clients.answers import SNAPSHOT, TIME, VPS, serve, vps
from support.clients.command_line import CommandLine
from support.clients.stub_host import StubHost


def test_a_snapshot_is_made_with_its_message_and_shown(command: CommandLine, host: StubHost) -> None:
    serve(host, vps())
    host.answer("POST", f"/api/vps/snapshots/{VPS}", SNAPSHOT)
    done = command.run("vps", "snapshot", "create", "lab", "-m", "base")
    assert host.requests[-1].json == {"message": "base"}
    for text in (str(TIME), "1M", "base", "2025-11-24 16:00:00 UTC"):
        assert text in done.stdout.decode()


def serve_restore(host: StubHost, time: int) -> str:
    path = f"/api/vps/snapshots/{VPS}/{time}/restore"
    stopped = vps(status="stopped")
    serve(host, stopped, vps(status="assigning", attempt=2), vps(attempt=2, assigned_node="n2"))
    host.answer("POST", path, {"message": "it starts"}, 202)
    return path


def test_a_restore_takes_the_snapshot_that_was_named(command: CommandLine, host: StubHost) -> None:
    path = serve_restore(host, TIME)
    done = command.run("vps", "snapshot", "restore", "lab", str(TIME))
    assert done.stdout.decode() == f"VPS {VPS} runs on n2 at 172.30.0.9\n"
    assert host.calls("POST", path)[0].json == {}


def test_a_restore_takes_the_newest_snapshot_and_names_the_node(command: CommandLine, host: StubHost) -> None:
    path = serve_restore(host, TIME)
    older = {**SNAPSHOT, "timestamp": TIME - 60}
    host.answer("GET", f"/api/vps/snapshots/{VPS}", [SNAPSHOT, older])
    done = command.run("vps", "restore", "lab", "--to", "n2")
    assert done.returncode == 0, done.stderr
    assert host.calls("POST", path)[0].json == {"target_hostname": "n2"}


def test_a_restore_without_any_snapshot_is_not_found(command: CommandLine, host: StubHost) -> None:
    serve(host, vps(status="stopped"))
    host.answer("GET", f"/api/vps/snapshots/{VPS}", [])
    done = command.run("vps", "restore", "lab")
    assert done.returncode == 3
    assert b"vps restart" in done.stderr


def test_a_restore_that_the_host_refuses_is_told(command: CommandLine, host: StubHost) -> None:
    serve(host, vps())
    path = f"/api/vps/snapshots/{VPS}/{TIME}/restore"
    host.answer("POST", path, {"detail": "stop it before it is moved"}, 409)
    done = command.run("vps", "restore", "lab", str(TIME), "--to", "n2")
    assert (done.returncode, done.stderr) == (1, b"Error: stop it before it is moved\n")
