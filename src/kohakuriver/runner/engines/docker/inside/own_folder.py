"""How a task whose user is not root comes into its working directory: by itself; pure.

An engine's runtime goes there, and makes it where it is missing, with root's rights before it becomes the
user. So a user would begin in a folder below one that others keep closed, and read and write from there on.
By a link of its image it would do so from any path. So the engine is told `/`, and a program of ours, which
has the user's rights and no others, goes there. Commands that are run in the task later go the same way.
"""

from collections.abc import Sequence

from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.runner.engines.docker.inside.of_vps import BUSYBOX, first_process
from kohakuriver.runner.engines.docker.kernel.inner_processes import INNER_INIT

_GO, _FOLDER_OPTION = "nsenter", "--wd="
ROOT = "/"
# A command's group is signalled when its client goes, so no init stands before it. It is looked for only in
# PATH: by itself this shell takes what it has built in for programs of the same name.
# It speaks as `exec` does of commands of root's tasks.
_GO_AND_RUN = """\
if ! cd -- "$0" 2> /dev/null; then
    echo "Error: the working directory '$0' cannot be used" >&2
    exit 126
fi
case $1 in
*/*)
    if [ -f "$1" ] && [ -x "$1" ]; then exec "$@"; fi
    if [ -e "$1" ]; then
        echo "Error: the command '$1' cannot be executed: permission denied" >&2
        exit 126
    fi
    PATH=
    ;;
esac
IFS=:
for folder in $PATH; do
    if [ -f "$folder/$1" ] && [ -x "$folder/$1" ]; then
        program=$folder/$1
        shift
        exec "$program" "$@"
    fi
done
echo "Error: the command '$1' was not found in the image" >&2
exit 127
"""


def goes_by_itself(spec: WorkloadSpec) -> bool:
    """Root may go everywhere, and needs nothing of ours."""
    return spec.session is None and spec.user.uid != 0


def process_in_folder(spec: WorkloadSpec) -> tuple[str, ...]:
    """Argument vector of what the engine's init starts.

    The program that goes to the folder leaves the environment as it is. The init after it looks for the
    command in PATH, and says why it cannot be run as it does where it is the first process.
    """
    if not goes_by_itself(spec):
        return first_process(spec)
    return (BUSYBOX, _GO, f"{_FOLDER_OPTION}{spec.working_dir}", *INNER_INIT, *first_process(spec))


def engines_folder(spec: WorkloadSpec) -> str:
    """The working directory as the engine is told it."""
    return ROOT if goes_by_itself(spec) else spec.working_dir


def read_process(words: Sequence[str], working_dir: str) -> tuple[str, str, bool]:
    """Return the command of a container, its working directory, and whether it goes there by itself."""
    own = (*words[:2], *words[3:6])
    if own == (BUSYBOX, _GO, *INNER_INIT) and len(words) > 6 and words[2].startswith(_FOLDER_OPTION):
        return words[6], words[2].removeprefix(_FOLDER_OPTION), True
    return words[0] if words else "", working_dir, False


def command_in_folder(argv: Sequence[str], folder: str) -> tuple[str, ...]:
    """Argument vector that goes to the folder and runs a command there."""
    return (BUSYBOX, "sh", "-c", _GO_AND_RUN, folder, *argv)
