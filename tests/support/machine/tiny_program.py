"""A program of a hundred bytes that needs neither compiler nor C library: it tells who it runs as.

Its exit status is 0 if its effective user is root, else 1.
"""

import platform
import struct

_BASE = 0x400000
_HEADERS = 64 + 56
# geteuid, whether that is 0, exit: instructions and the ELF number of the machine
_MACHINES = {
    "x86_64": (62, "b86b000000 0f05 85c0 0f95c0 0fb6f8 b83c000000 0f05"),
    "aarch64": (183, "e81580d2 010000d4 1f000071 e0079f1a a80b80d2 010000d4"),
}


def is_root_program() -> bytes:
    """The static ELF file, for the machine that this runs on."""
    machine, code_text = _MACHINES[platform.machine()]
    code = bytes.fromhex(code_text)
    size = _HEADERS + len(code)
    identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return identity + header + segment + code
