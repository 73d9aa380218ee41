"""The files of a VPS's sshd."""

import os
from pathlib import Path

from kohakuriver.models.ids import TaskId
from kohakuriver.runner.engines.docker.inside.network_files import NetworkFiles
from kohakuriver.runner.engines.docker.inside.vps_files import VpsFiles

ME = (os.geteuid(), os.getegid())


def test_files_for_sshd_are_private_and_replaced_as_a_whole(tmp_path: Path) -> None:
    files = VpsFiles(tmp_path, NetworkFiles(tmp_path))
    tools, ssh = files.prepare(TaskId(5), ME)
    assert (tools.destination, tools.read_only) == ("/.kohakuriver", True)
    assert (ssh.destination, ssh.read_only) == ("/etc/ssh/kohakuriver", True)
    files.write_ssh(TaskId(5), {"host_key": "one"}, ME)
    key = Path(ssh.source) / "host_key"
    assert key.stat().st_mode & 0o777 == 0o600
    reader = key.open()
    files.write_ssh(TaskId(5), {"host_key": "two"}, ME)
    assert (reader.read(), key.read_text()) == ("one", "two")
    reader.close()
    before = key.stat().st_ino
    files.write_ssh(TaskId(5), {"host_key": "two"}, ME)
    assert key.stat().st_ino == before, "what has not changed is left alone"
    assert Path(ssh.source).stat().st_mode & 0o777 == 0o755
