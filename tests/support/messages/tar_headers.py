"""Headers of tar streams with whatever is to stand in them, under checksums that fit."""


def header(name: str, size: bytes | int, kind: bytes = b"0") -> bytes:
    """One header whose size stands as it is given, with a checksum that fits."""
    block = bytearray(512)
    block[: len(name)] = name.encode()
    block[100:108] = b"0000644\0"
    block[124:136] = (b"%011o\0" % size) if isinstance(size, int) else size.ljust(12, b"\0")
    block[136:148] = b"00000000000\0"
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def extended(records: bytes, kind: bytes = b"x") -> bytes:
    return header("PaxHeader", len(records), kind) + records + bytes(-len(records) % 512)


def record(name: str, value: str) -> bytes:
    rest = f" {name}={value}\n".encode()
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length += 1
    return str(length).encode() + rest
