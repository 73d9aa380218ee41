"""What the kernel tells by netlink of its filter rules and of bridges.

These questions are asked often, and would cost a process each by `nft` and `ip`. All functions raise OSError
where the kernel does not answer. What they cannot read they never take for an answer.
"""

import errno
import socket
import struct
from collections.abc import Iterator

_NETFILTER = 12  # of socket(2)'s protocols; Python names none but NETLINK_ROUTE
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_NUMBER, _SIGNED = struct.Struct("=I"), struct.Struct("=i")
_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, changes
_ERROR_TYPE, _DONE_TYPE, _FIRST_TYPE = 2, 3, 16
_REQUEST_FLAG, _DUMP_FLAGS, _INTERRUPTED_FLAG = 0x1, 0x300, 0x10
_TYPE_MASK = 0x3FFF
_GET_GENERATION, _GENERATION = 10 << 8 | 16, 1
_GET_LINK, _NAME, _MASTER, _LINK_INFO, _INFO_DATA, _BRIDGE_OPTIONS = 18, 3, 10, 18, 2, 46
_NO_LINK_LOCAL_LEARNING = 0x1
_MOST_BYTES = 1 << 17
_SECONDS = 5.0
_TRIES = 5


def rules_generation() -> int:
    """The number of the kernel's set of filter rules; another one after each change to any table."""
    (answer,) = _ask(_NETFILTER, _GET_GENERATION, 0, bytes(4))
    return int.from_bytes(_of(_attributes(answer[4:]), _GENERATION), "big")


def ports_of(bridge: str) -> set[str]:
    """Names of the interfaces that are ports of a bridge."""
    index = socket.if_nametoindex(bridge)
    master = _ATTRIBUTE.pack(_ATTRIBUTE.size + _NUMBER.size, _MASTER) + _NUMBER.pack(index)
    asked = _LINK.pack(0, 0, 0, 0, 0) + master
    for _ in range(_TRIES):
        try:
            answers = list(_ask(socket.NETLINK_ROUTE, _GET_LINK, _DUMP_FLAGS, asked))
        except InterruptedError:
            continue  # links came or went meanwhile, so that one may be missing
        links = [_attributes(answer[_LINK.size :]) for answer in answers]
        ports = [link for link in links if link.get(_MASTER) == _NUMBER.pack(index)]
        return {_of(link, _NAME).rstrip(b"\0").decode(errors="replace") for link in ports}
    raise OSError(errno.EINTR, "the links of this machine change all the time")


def learns_from_link_local(bridge: str) -> bool:
    """Whether a bridge learns from frames between neighbouring switches; True where that is not told."""
    asked = _LINK.pack(0, 0, socket.if_nametoindex(bridge), 0, 0)
    (answer,) = _ask(socket.NETLINK_ROUTE, _GET_LINK, 0, asked)
    info = _attributes(_attributes(answer[_LINK.size :]).get(_LINK_INFO, b""))
    options = _attributes(info.get(_INFO_DATA, b"")).get(_BRIDGE_OPTIONS, bytes(4))
    return not _NUMBER.unpack_from(options)[0] & _NO_LINK_LOCAL_LEARNING


def _ask(protocol: int, kind: int, flags: int, body: bytes) -> Iterator[bytes]:
    """The bodies of the answer's messages; InterruptedError where what was listed changed meanwhile."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as asked:
        asked.settimeout(_SECONDS)
        asked.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST_FLAG | flags, 1, 0) + body)
        while True:
            for answered, answer_flags, content in _messages(asked.recv(_MOST_BYTES)):
                if answer_flags & _INTERRUPTED_FLAG and flags:
                    raise InterruptedError(errno.EINTR, "what the kernel lists changed meanwhile")
                if answered == _ERROR_TYPE:
                    number = -_SIGNED.unpack_from(content)[0]
                    raise OSError(number, f"the kernel refused ({errno.errorcode.get(number, number)})")
                if answered == _DONE_TYPE:
                    return
                if answered >= _FIRST_TYPE:
                    yield content
                if not flags:
                    return


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, flags and body of each message."""
    while len(data) >= _HEADER.size:
        length, kind, flags, _, _ = _HEADER.unpack_from(data)
        if not _HEADER.size <= length <= len(data):
            raise OSError(errno.EBADMSG, "the kernel's answer is cut")
        yield kind, flags, data[_HEADER.size : length]
        data = data[_aligned(length) :]


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if not _ATTRIBUTE.size <= length <= len(data):
            raise OSError(errno.EBADMSG, "the kernel's answer is cut")
        found[kind & _TYPE_MASK] = data[_ATTRIBUTE.size : length]
        data = data[_aligned(length) :]
    return found


def _of(attributes: dict[int, bytes], kind: int) -> bytes:
    if kind not in attributes:
        raise OSError(errno.EBADMSG, "the kernel's answer lacks what was asked for")
    return attributes[kind]


def _aligned(length: int) -> int:
    return (length + 3) & ~3
