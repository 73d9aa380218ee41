"""One run of the emulator over an image, which it never changes: what is written goes with the process."""

import contextlib
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from support.emulated.accelerators import QEMU, accelerator
from support.emulated.guest import Guest
from support.emulated.guest_agent import PORT_NAME
from support.emulated.machine_image import MachineImage

_START_SECONDS = 30.0
_END_SECONDS = 10.0
_MEMORY_MIB = 2048
_CPUS = 2
_KERNEL_WORDS = (
    "root=/dev/vda rw console=ttyS0 quiet loglevel=4 mitigations=off "
    "systemd.unified_cgroup_hierarchy=1 systemd.show_status=0"
)


@contextlib.contextmanager
def booted(image: MachineImage, folder: Path) -> Iterator[Guest]:
    """Boot it and give the line into it; `console.log` in the folder is what it said on its console."""
    console = folder / "console.log"
    with tempfile.TemporaryDirectory(prefix="river-") as short, _running(image, short, console) as process:

        def alive() -> None:
            if process.poll() is not None:
                raise AssertionError(f"the emulator ended with {process.returncode}:\n{_tail(folder)}")

        with _line(Path(short, "line"), alive) as line:
            guest = Guest(line, alive)
            try:
                guest.await_boot()
            except AssertionError as error:
                raise AssertionError(f"{error}\n{_tail(folder)}") from error
            yield guest


@contextlib.contextmanager
def _running(image: MachineImage, short: str, console: Path) -> Iterator["subprocess.Popen[bytes]"]:
    argv = [
        # A test run that is killed without notice leaves no emulator behind.
        *("setpriv", "--pdeathsig", "KILL", QEMU, *accelerator()),
        *("-m", str(_MEMORY_MIB), "-smp", str(_CPUS)),
        *("-nodefaults", "-display", "none", "-nic", "none"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", _KERNEL_WORDS),
        *("-drive", f"file={image.disk},format=raw,if=virtio,snapshot=on,cache=unsafe"),
        *("-serial", f"file:{console}", "-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
        *("-chardev", f"socket,id=line,path={short}/line,server=on,wait=off"),
        *("-device", f"virtserialport,chardev=line,name={PORT_NAME}"),
    ]
    with (console.parent / "emulator.log").open("wb") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _line(path: Path, alive: Callable[[], None]) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as line:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                line.connect(str(path))
                break
            except OSError:
                alive()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield line


def _tail(folder: Path) -> str:
    said = [folder / name for name in ("emulator.log", "console.log")]
    return "\n".join(file.read_text(errors="replace")[-3000:] for file in said if file.exists())
