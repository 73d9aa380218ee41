"""The host that somebody confirmed on a node, in a file of the runner's private folder.

`kohakuriver runner trust` and `kohakuriver up` write it; a runner without join token and HOST_FINGERPRINT
enrols with no other host.
"""

from pathlib import Path

from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.names import is_fingerprint
from kohakuriver.private_files import read_private, write_private

FILE_NAME = "confirmed_host"


def confirm_host(runner_folder: Path, fingerprint: str) -> Path:
    """Write down which host the runner of that folder may enrol with; makes the folder if need be.

    Raises InvalidInput for what is no fingerprint.
    """
    if not is_fingerprint(fingerprint):
        raise InvalidInput(
            f"{fingerprint[:60]!r} is no fingerprint; `kohakuriver host fingerprint` on the host's machine "
            "prints it"
        )
    runner_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = runner_folder / FILE_NAME
    write_private(path, f"{fingerprint}\n".encode())
    return path


def confirmed_host(runner_folder: Path) -> str | None:
    """The fingerprint, None if none was confirmed; InvalidInput for a file that others could have written."""
    path = runner_folder / FILE_NAME
    if not path.exists():
        return None
    text = read_private(path).decode("ascii", "replace").strip()
    if not is_fingerprint(text):
        raise InvalidInput(f"{path} holds no fingerprint; write it anew with `kohakuriver runner trust`")
    return text
