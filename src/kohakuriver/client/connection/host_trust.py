"""Which host a token may go to: the one with the fingerprint that is known, and no other.

The fingerprint is said (option, environment, configuration, the file that a host leaves on its own machine),
or it is the one that this user saw at the first contact, which is kept in a file as SSH keeps its own. That
file is not `known_hosts`, which SSH clients read in a format of theirs.
"""

import fcntl
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from kohakuriver.client.errors import HostNotProven
from kohakuriver.models.errors import InvalidInput

_LINE = re.compile(r"(?P<place>\S{1,300}) (?P<fingerprint>SHA256:[A-Za-z0-9+/]{43})")
_TOKEN = re.compile(r"[!-~]+")
_HEAD = (
    "# Keys of KohakuRiver hosts, as they were at the first contact: address and fingerprint.\n"
    "# Take a line out once you know why a host has another key.\n"
)


def fingerprints_file() -> Path:
    return Path(os.path.expanduser("~")) / ".kohakuriver" / "host_fingerprints"


def tell_on_standard_error(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class KnownHost:
    """A fingerprint that somebody vouched for; `source` says who, for the sentence of a refusal."""

    fingerprint: str
    source: str

    def check(self, place: str, shown: str) -> None:
        """Raise HostNotProven for another fingerprint than the known one."""
        if shown != self.fingerprint:
            raise HostNotProven(
                f"what answers at {place} has the key {shown}, but {self.source} says {self.fingerprint}; "
                "no token was sent: find out what listens there"
            )


@dataclass(frozen=True, slots=True)
class FirstContact:
    """Takes the fingerprint of the first contact, reports it, and refuses any other from then on.

    `tell` None: a host that is not known yet is refused.
    """

    file: Path = field(default_factory=fingerprints_file)
    tell: Callable[[str], None] | None = tell_on_standard_error

    def check(self, place: str, shown: str) -> None:
        """Raise HostNotProven for another fingerprint than the first one; remembers the first."""
        with self._opened(place) as file:
            for number, known in _entries(file.read(), place):
                if known == shown:
                    return
                raise HostNotProven(
                    f"what answers at {place} has the key {shown}, but at the first contact it was {known} "
                    f"({self.file}, line {number}); no token was sent. If the host was made anew, take that "
                    "line out; if not, something else listens there"
                )
            if self.tell is None:
                raise HostNotProven(f"the host at {place} is not known yet; run any command on it first")
            file.write(f"{place} {shown}\n")
            file.flush()
            os.fsync(file.fileno())
        self.tell(
            f"First contact with the host at {place}: its key is {shown}, kept in {self.file}. Compare it "
            "with what `kohakuriver host fingerprint` prints on the host's machine."
        )

    def _opened(self, place: str) -> IO[str]:
        """The file, made if it is not there, held against other processes, closed to other users."""
        try:
            self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            opened = os.fdopen(os.open(self.file, flags, 0o600), "r+", encoding="utf-8", errors="replace")
            fcntl.flock(opened, fcntl.LOCK_EX)
        except OSError as error:
            raise InvalidInput(
                f"{self.file}, from which the host at {place} is known, cannot be used: {error.strerror}"
            ) from error
        status = os.fstat(opened.fileno())
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            opened.close()
            raise InvalidInput(f"{self.file} can be written by other users; chmod 600 {self.file}")
        if not status.st_size:
            opened.write(_HEAD)
            opened.seek(0)
        return opened


Trust = KnownHost | FirstContact


@dataclass(frozen=True, slots=True)
class HostAccess:
    """A host's URL, the token to use with it, and what the host must prove before it gets one."""

    url: str
    token: str | None = field(default=None, repr=False)
    trust: Trust | None = None

    def __post_init__(self) -> None:
        """Raises InvalidInput for what no header can carry: the library's own error would quote it."""
        if self.token is not None and not _TOKEN.fullmatch(self.token):
            raise InvalidInput(
                "the token (KOHAKURIVER_TOKEN, or TOKEN in cli_config.py) holds a character that no token "
                "has; copy it anew"
            )

    @property
    def must_prove(self) -> Trust | None:
        """What a connection is to be checked against; None: it carries nothing worth it."""
        if self.trust is None and self.token:
            return FirstContact()
        return self.trust if self.token or isinstance(self.trust, KnownHost) else None


def _entries(text: str, place: str) -> list[tuple[int, str]]:
    """Line number and fingerprint of each line about the place."""
    matches = [(number, _LINE.fullmatch(line.strip())) for number, line in enumerate(text.splitlines(), 1)]
    return [(number, match["fingerprint"]) for number, match in matches if match and match["place"] == place]
