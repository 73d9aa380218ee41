"""Whether a program needs no loader, so that it runs where there is no other file, as in a sandbox."""

import struct

_PT_INTERP = 3


def is_static_elf(binary: bytes) -> bool:
    """Tell whether a program needs no loader: an ELF file without a PT_INTERP program header."""
    if len(binary) < 64 or binary[:4] != b"\x7fELF":
        return False
    order = "<" if binary[5] == 1 else ">"
    is_64 = binary[4] == 2
    offset = struct.unpack_from(order + ("Q" if is_64 else "I"), binary, 32 if is_64 else 28)[0]
    size, count = struct.unpack_from(order + "HH", binary, 54 if is_64 else 42)
    return all(
        struct.unpack_from(order + "I", binary, offset + number * size)[0] != _PT_INTERP
        for number in range(count)
    )
