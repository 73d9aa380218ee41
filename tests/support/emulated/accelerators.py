"""How the emulator runs the guest's instructions here: by the kernel's KVM where that works, else by itself.

A `/dev/kvm` that opens proves nothing: there are machines on which its guests never come to their first
instruction. So a guest of two instructions is run.
"""

import subprocess
import tempfile
from pathlib import Path

QEMU = "qemu-system-x86_64"
KVM = ("-accel", "kvm", "-cpu", "host")
EMULATION = ("-accel", "tcg,thread=multi,tb-size=512", "-cpu", "Nehalem")

# mov al,0x10; out 0xf4,al; hlt; jmp to hlt: the debug port makes it an exit status, (0x10 << 1) | 1.
_BOOT_CODE = bytes.fromhex("b010e6f4f4ebfd")
_ITS_STATUS = 33
_PROBE_SECONDS = 10


def accelerator() -> tuple[str, ...]:
    """Options of the emulator."""
    return KVM if _kvm_runs_a_guest() else EMULATION


def _kvm_runs_a_guest() -> bool:
    if not Path("/dev/kvm").exists():
        return False
    with tempfile.NamedTemporaryFile() as disk:
        disk.write(_BOOT_CODE.ljust(510, b"\0") + b"\x55\xaa")
        disk.flush()
        argv = [
            *(QEMU, *KVM, "-nodefaults", "-display", "none", "-no-reboot"),
            *("-drive", f"file={disk.name},format=raw,if=ide,snapshot=on"),
            *("-device", "isa-debug-exit,iobase=0xf4,iosize=1"),
        ]
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_PROBE_SECONDS
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == _ITS_STATUS
