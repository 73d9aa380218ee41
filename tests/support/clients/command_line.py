"""The installed command as a process of its own, with an empty home and nothing of the test's environment."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ENTRY = "import sys; from kohakuriver.cli.main import main; sys.argv[0] = 'kohakuriver'; main()"


@dataclass(frozen=True)
class CommandLine:
    """`home` is the user's home; `host_url` goes into KOHAKURIVER_HOST where it is given.

    `python` runs it; `variables` are in its environment besides.
    """

    home: Path
    host_url: str | None = None
    python: str = sys.executable
    variables: dict[str, str] = field(default_factory=dict)

    def environment(self, **more: str) -> dict[str, str]:
        environment = {"HOME": str(self.home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TERM": "xterm"}
        if self.host_url:
            environment["KOHAKURIVER_HOST"] = self.host_url
        return environment | self.variables | more

    def argv(self, *arguments: str) -> list[str]:
        return [self.python, "-c", ENTRY, *arguments]

    def completions(self, words: str) -> list[str]:
        """What bash offers after these words."""
        at = str(len(words.split(" ")) - 1)
        done = self.run(_KOHAKURIVER_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=at)
        assert done.stderr == b""
        return [line.split(",", 1)[1] for line in done.stdout.decode().split("\n") if line]

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.argv(*arguments),
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
