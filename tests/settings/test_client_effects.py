"""Each setting of the command line, changed, and the effect of that."""

from pathlib import Path

from kohakuriver.wire.trust.identity import Identity
from support.clients.command_line import CommandLine
from support.clients.stub_host import stub_host


def test_host_fingerprint(tmp_path: Path) -> None:
    folder = tmp_path / ".kohakuriver"
    folder.mkdir()
    config = folder / "cli_config.py"
    with stub_host() as host:
        host.answer("GET", "/api/nodes", [])
        settings = f"HOST = '127.0.0.1'\nPORT = {host.port}\nTOKEN = 'token'\n"
        for fingerprint, status in ((host.identity.fingerprint, 0), (Identity.generate().fingerprint, 4)):
            config.write_text(f"{settings}HOST_FINGERPRINT = {fingerprint!r}\n")
            config.chmod(0o600)
            done = CommandLine(tmp_path).run("node", "list")
            assert done.returncode == status, done.stderr
        assert [request.headers["authorization"] for request in host.requests] == ["Bearer token"]
        assert "HOST_FINGERPRINT in cli_config.py" in done.stderr.decode()
