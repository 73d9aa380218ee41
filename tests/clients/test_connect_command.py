"""`connect` and `exec` in real terminals and pipes, over the whole way to an engine."""

import asyncio
import contextlib
import hashlib
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.cli.console.shell import Escape
from kohakuriver.models.enums import TaskState
from support.clients.command_line import CommandLine
from support.clients.pty_session import PtySession, pty_session
from support.cluster.terminal_path import OWNER, TerminalPath, terminal_path
from support.engines.labs import FakeLab, docker_lab
from support.host.api import HOST_IDENTITY
from support.machine.processes import wait_until

DOCKER = pytest.param("docker", marks=[pytest.mark.docker, pytest.mark.root])


class User:
    """Somebody at a machine with the command line."""

    def __init__(self, folder: Path, path: TerminalPath) -> None:
        self.path = path
        self.task = str(path.task_id)
        self.command = CommandLine(folder, f"http://{path.address}")
        self.environment = self.command.environment(
            KOHAKURIVER_TOKEN=path.harness.tokens[OWNER],
            KOHAKURIVER_HOST_FINGERPRINT=HOST_IDENTITY.fingerprint,
        )

    def terminal(self, *arguments: str) -> contextlib.AbstractContextManager[PtySession]:
        return pty_session(self.command.argv(*arguments), self.environment)

    def run(self, *arguments: str, stdin: bytes = b"", **options: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.command.argv(*arguments),
            env=self.environment,
            input=stdin,
            capture_output=True,
            timeout=60,
            check=False,
            **options,
        )

    def start(self, *arguments: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command.argv(*arguments),
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=subprocess.PIPE,
        )


def at_shell(terminal: PtySession) -> None:
    """Wait until the fake's shell answers: what is typed before is shown by the user's own terminal."""
    terminal.send("size\n")
    terminal.wait_for("50 200")


def ask_until(terminal: PtySession, question: str, answer: str) -> None:
    """Ask again until the answer is that one: a changed size and what is typed go different ways."""

    def is_answered() -> bool:
        terminal.send(question)
        with contextlib.suppress(AssertionError):
            terminal.wait_for(answer, 0.5)
        return answer in terminal.text

    wait_until(is_answered, 20, f"{answer!r} as the answer")


def use(folder: Path, engine: str, scenario: Callable[[User], None]) -> None:
    """Serve the whole way in this process while the scenario runs in a thread."""

    async def on(lab: contextlib.AbstractAsyncContextManager[object]) -> None:
        async with lab as opened, terminal_path(folder, opened) as path:  # type: ignore[arg-type]
            await asyncio.to_thread(scenario, User(folder, path))

    asyncio.run(
        on(docker_lab(folder / "engine") if engine == "docker" else contextlib.nullcontext(FakeLab(folder)))
    )


def test_a_shell_is_joined_to_the_users_terminal_and_gives_its_exit_status(tmp_path: Path) -> None:
    def scenario(user: User) -> None:
        with user.terminal("connect", user.task[-6:]) as terminal:
            at_shell(terminal)
            terminal.resize(31, 101)
            ask_until(terminal, "size\n", "31 101")
            terminal.send("grün\x03\n")
            terminal.wait_for("grün\x03")
            terminal.send("exit 5\n")
            assert terminal.wait() == 5

    use(tmp_path, "fake", scenario)


@pytest.mark.parametrize("engine", [DOCKER])
def test_a_real_shell_hears_ctrl_c_and_sees_the_window_change(tmp_path: Path, engine: str) -> None:
    def scenario(user: User) -> None:
        with user.terminal("terminal", "attach", user.task) as terminal:
            ask_until(terminal, "busybox stty size\r", "50 200")
            terminal.resize(31, 101)
            ask_until(terminal, "busybox stty size\r", "31 101")
            terminal.send("echo be''gun; sleep 500\r")
            terminal.wait_for("begun")
            terminal.send("\x03")
            terminal.send("echo st''ill here; exit 9\r")
            terminal.wait_for("still here")
            assert terminal.wait() == 9

    use(tmp_path, engine, scenario)


@pytest.mark.parametrize("engine", [DOCKER])
def test_programs_that_use_the_whole_screen_work(tmp_path: Path, engine: str) -> None:
    def scenario(user: User) -> None:
        with user.terminal("connect", user.task) as terminal:
            ask_until(terminal, "busybox stty size\r", "50 200")
            terminal.send("busybox vi /note\r")
            terminal.wait_for("/note")
            terminal.wait_for("\x1b[50;1H")  # it knows the last line of the window
            terminal.send("iwritten here")
            terminal.wait_for("written here")
            terminal.send("\x1b")
            terminal.wait_for("- /note [Modified]")
            terminal.send(":wq\r")
            terminal.wait_for("\x1b[?1049l")
            terminal.send('echo "<$(cat /note)>"\r')
            terminal.wait_for("<written here>")
            terminal.send("busybox top\r")
            terminal.wait_for("Load average:")
            terminal.send("q")
            terminal.send("printf '\\033[31mre''d\\033[0m'; exit\r")
            terminal.wait_for("\x1b[31mred\x1b[0m")
            assert terminal.wait() == 0

    use(tmp_path, engine, scenario)


@pytest.mark.parametrize("engine", [DOCKER])
def test_a_megabyte_pasted_arrives_byte_for_byte(tmp_path: Path, engine: str) -> None:
    line = "0123456789abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ\n"
    pasted = line * ((1 << 20) // len(line))

    def scenario(user: User) -> None:
        with user.terminal("connect", user.task) as terminal:
            terminal.send("busybox stty -echo; echo rea''dy; cat > /pasted; busybox sha256sum /pasted\r")
            terminal.wait_for("ready")
            for begin in range(0, len(pasted), 4096):
                terminal.send(pasted[begin : begin + 4096])
            terminal.send("\x04")
            terminal.wait_for(hashlib.sha256(pasted.encode()).hexdigest(), 60)

    use(tmp_path, engine, scenario)


def test_a_lost_connection_is_made_anew_to_the_same_shell_and_shows_what_was_missed_once(
    tmp_path: Path,
) -> None:
    def scenario(user: User) -> None:
        with user.terminal("connect", user.task) as terminal:
            at_shell(terminal)
            terminal.send("set deep water\nget\n")
            terminal.wait_for("deep water")
            user.path.wire.cut()
            terminal.wait_for("trying again")
            terminal.wait_for("--session")
            wait_until(lambda: user.path.wire.connections > 1, 20, "another connection")
            terminal.send("print back at \nget\n")
            terminal.wait_for("back at deep water")
            assert terminal.text.count("deep water") == 2
            terminal.send("exit 0\n")
            assert terminal.wait() == 0

    use(tmp_path, "fake", scenario)


def test_the_escape_leaves_the_shell_as_it_is_and_says_the_way_back(tmp_path: Path) -> None:
    def scenario(user: User) -> None:
        with user.terminal("connect", user.task) as terminal:
            at_shell(terminal)
            terminal.send("set deep\nget\n")
            terminal.wait_for("deep")
            terminal.send("~.")
            assert terminal.wait() == 0
            way_back = terminal.text.partition("--session ")[2][:32]
        with user.terminal("connect", user.task, "--session", way_back) as terminal:
            terminal.send("print back at \nget\n")
            terminal.wait_for("back at deep")
            terminal.send("exit 0\n")
            assert terminal.wait() == 0
        with user.terminal("connect", user.task, "--session", way_back) as terminal:
            assert terminal.wait() == 3
        assert "begin a new one" in terminal.text

    use(tmp_path, "fake", scenario)


def test_a_shell_taken_over_by_another_client_says_so(tmp_path: Path) -> None:
    def scenario(user: User) -> None:
        with user.terminal("connect", user.task) as first:
            at_shell(first)
            (number,) = user.path.streams.shells.numbers(user.path.task_id)
            with user.terminal("connect", user.task, "--session", number) as second:
                assert first.wait() == 1
                assert "took over" in first.text
                second.send("exit 4\n")
                assert second.wait() == 4

    use(tmp_path, "fake", scenario)


def test_exec_keeps_output_apart_hands_input_on_and_gives_the_exit_status(tmp_path: Path) -> None:
    sent = hashlib.shake_128(b"river").digest(1 << 20)

    def scenario(user: User) -> None:
        said = user.run("exec", user.task, "--", "print", "out")
        assert (said.returncode, said.stdout, said.stderr) == (0, b"out", b"")
        said = user.run("exec", user.task, "complain", "no")
        assert (said.returncode, said.stdout, said.stderr) == (0, b"", b"no")
        assert user.run("exec", user.task, "--", "exit", "42").returncode == 42
        said = user.run("exec", "-i", user.task, "--", "cat", stdin=sent)
        assert (said.returncode, said.stdout) == (0, sent)
        said = user.run("exec", user.task, "--", "cat", stdin=b"not for it")
        assert (said.returncode, said.stdout) == (0, b"")
        said = user.run("exec", user.task, "--", "missing")
        told = b"Error: the command 'missing' was not found in the image\n"
        assert (said.returncode, said.stdout, said.stderr) == (127, b"", told)

    use(tmp_path, "fake", scenario)


@pytest.mark.parametrize("engine", [DOCKER])
def test_exec_runs_words_as_they_are_with_user_folder_variables_and_a_terminal(
    tmp_path: Path, engine: str
) -> None:
    def scenario(user: User) -> None:
        options = ["-u", "7:8", "-w", "/bin", "-e", "WORD=a b"]
        script = 'echo "$(id -u) $(pwd) $WORD $0"'
        said = user.run("exec", *options, user.task, "--", "/bin/sh", "-c", script, "$HOME;*")
        assert (said.returncode, said.stdout) == (0, b"7 /bin a b $HOME;*\n")
        # Engines before API 1.42 tell a terminal its size a moment after the start.
        sized = 'until [ -n "$(busybox stty size 2>/dev/null)" ]; do :; done'
        script = f"test -t 0 && test -t 1 && {sized}; busybox stty size; exit 3"
        with user.terminal("terminal", "exec", "-it", user.task, "--", "/bin/sh", "-c", script) as terminal:
            terminal.wait_for("50 200")
            assert terminal.wait() == 3

    use(tmp_path, engine, scenario)


@pytest.mark.parametrize("engine", [DOCKER])
def test_a_command_ends_when_exec_is_interrupted_or_killed(tmp_path: Path, engine: str) -> None:
    def scenario(user: User) -> None:
        for number, status in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
            script = f"echo ready; exec sleep 43{int(number)}"
            command = user.start("exec", user.task, "--", "/bin/sh", "-c", script)
            assert command.stdout is not None
            assert command.stdout.readline() == b"ready\n"
            command.send_signal(number)
            assert command.wait(20) == status
            command.communicate()

            def is_gone(mark: bytes = f"43{int(number)}".encode()) -> bool:
                return mark not in user.run("exec", user.task, "--", "/bin/ps").stdout

            wait_until(is_gone, 20, "the end of the command")

    use(tmp_path, engine, scenario)


def test_exec_ends_with_who_reads_its_output(tmp_path: Path) -> None:
    def scenario(user: User) -> None:
        reading, writing = os.pipe()
        command = user.start("exec", user.task, "--", "flood", "900000000", stdout=writing)
        os.close(writing)
        assert os.read(reading, 1000)
        os.close(reading)
        command.communicate(timeout=30)
        assert command.returncode == 1

    use(tmp_path, "fake", scenario)


def test_exec_that_cannot_hand_its_input_on_can_be_interrupted(tmp_path: Path) -> None:
    def scenario(user: User) -> None:
        command = user.start("exec", "-i", user.task, "--", "sleep", "500")
        assert command.stdin is not None
        os.set_blocking(command.stdin.fileno(), False)
        sent = 0

        def is_held_back() -> bool:
            nonlocal sent
            before = sent
            while written := command.stdin.raw.write(b"x" * 65536):  # type: ignore[union-attr]
                sent += written
            return sent == before > 1 << 20

        wait_until(is_held_back, 30, "the input to be held back")
        command.send_signal(signal.SIGINT)
        command.stdin = None
        command.communicate(timeout=20)
        assert command.returncode == 130

    use(tmp_path, "fake", scenario)


def test_what_is_not_permitted_or_does_not_fit_ends_with_its_status(tmp_path: Path) -> None:
    def scenario(user: User) -> None:
        no_terminal = user.run("connect", user.task)
        assert no_terminal.returncode == 2
        assert b"needs a terminal" in no_terminal.stderr
        assert user.run("exec", user.task, "--").returncode == 2
        assert user.run("exec", "-t", user.task, "true").returncode == 2
        assert user.run("exec", user.task, b"caf\xe9").returncode == 2  # type: ignore[arg-type]
        assert user.run("exec", "nobody", "true").returncode == 3
        user.environment["KOHAKURIVER_TOKEN"] = user.path.harness.tokens["ulf"]
        refused = user.run("exec", user.task, "true")
        assert (refused.returncode, b"belongs to somebody else" in refused.stderr) == (4, True)

    use(tmp_path, "fake", scenario)


def test_a_paused_task_says_what_to_do(tmp_path: Path) -> None:
    async def pause(path: TerminalPath) -> None:
        await path.harness.call(OWNER, "POST", f"/api/command/{path.task_id}/pause")
        await path.harness.room.report(path.task_id, TaskState.PAUSED, 2)

    async def on_the_way() -> None:
        async with terminal_path(tmp_path, FakeLab(tmp_path)) as path:
            await pause(path)
            user = User(tmp_path, path)
            refused = await asyncio.to_thread(user.run, "exec", user.task, "true")
            assert (refused.returncode, b"resume it first" in refused.stderr) == (1, True)

    asyncio.run(on_the_way())


@pytest.mark.parametrize(
    ("pieces", "passed", "leaves"),
    [
        ([b"ls ~.\r"], b"ls ~.\r", False),
        ([b"~."], b"", True),
        ([b"ls\r~", b".rest"], b"ls\r", True),
        ([b"~~."], b"~.", False),
        ([b"~", b"x~."], b"~x~.", False),
        ([b"\n~\r~."], b"\n~\r", True),
    ],
)
def test_the_escape_is_found_at_the_beginning_of_a_line_alone(
    pieces: list[bytes], passed: bytes, leaves: bool
) -> None:
    escape = Escape()
    assert b"".join(escape.pass_on(piece) for piece in pieces) == passed
    assert escape.means_to_leave is leaves
