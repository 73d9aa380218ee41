"""Sends and hears single Ethernet frames on eth0 of the network namespace that it is started in.

mac                                         prints the interface's own
hello OWN GATEWAY                           asks for the gateway's MAC, as honest machines do
send KIND OWN GATEWAY VICTIM VICTIMS_MAC    sends a forged frame, and behind it a genuine one
listen MAC OWN                              prints "ready", and then what it hears that came from who
                                            sends, as "forged" or "genuine"; ends with the genuine one
"""

import socket
import struct
import sys
from collections.abc import Callable
from functools import partial

_EVERYBODY = b"\xff" * 6
_MARK = b"kohakuriver-test"
_ALL, _ARP, _IP, _IP6, _VLAN, _QINQ = 0x0003, 0x0806, 0x0800, 0x86DD, 0x8100, 0x88A8
_LINK_LOCAL = {"lldp": "0180c200000e", "port": "0180c2000003", "spanning-tree": "0180c2000000"}


def _opened() -> socket.socket:
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
    raw.bind(("eth0", 0))
    return raw


def _own_mac() -> bytes:
    with _opened() as raw:
        return bytes(raw.getsockname()[4])


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _frame(
    source: bytes, kind: int, body: bytes, target: bytes = _EVERYBODY, tags: tuple[int, ...] = ()
) -> bytes:
    head = target + source + b"".join(struct.pack("!HH", tag, 0) for tag in tags)
    return (head + struct.pack("!H", kind) + body).ljust(64, b"\0")


def _arp(mac: bytes, address: str, wanted: str, operation: int = 2) -> bytes:
    head = struct.pack("!HHBBH", 1, _IP, 6, 4, operation)
    return head + mac + socket.inet_aton(address) + b"\0" * 6 + socket.inet_aton(wanted) + _MARK


def _ip(source: str, target: str) -> bytes:
    body = struct.pack("!HHHH", 9, 9, 8 + len(_MARK), 0) + _MARK
    size = 20 + len(body)
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    checksum = _checksum(struct.pack("!BBHHHBBH", 0x45, 0, size, 1, 0, 64, 17, 0) + ends)
    return struct.pack("!BBHHHBBH", 0x45, 0, size, 1, 0, 64, 17, checksum) + ends + body


def _checksum(head: bytes) -> int:
    """RFC 1071; the bridge drops what has a wrong one, whoever sent it."""
    total: int = sum(struct.unpack(f"!{len(head) // 2}H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def _ip6(icmp_type: int) -> bytes:
    body = struct.pack("!BBHI", icmp_type, 0, 0, 0) + b"\xfe\x80" + b"\0" * 13 + b"\1" + _MARK
    addresses = b"\xfe\x80" + b"\0" * 13 + b"\1" + bytes.fromhex("ff02" + "0" * 27 + "1")
    return struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + addresses + body


def _forged(kind: str, own: str, gateway: str, victim: str, victims_mac: bytes) -> bytes:
    mac = _own_mac()
    kinds: dict[str, Callable[[], bytes]] = {
        "arp-gateway": lambda: _frame(mac, _ARP, _arp(mac, gateway, gateway)),
        "arp-victim": lambda: _frame(mac, _ARP, _arp(mac, victim, victim)),
        "arp-inner": lambda: _frame(mac, _ARP, _arp(b"\2\x42\1\1\1\1", own, own)),
        "arp-vlan": lambda: _frame(mac, _ARP, _arp(mac, gateway, gateway), tags=(_VLAN,)),
        "arp-qinq": lambda: _frame(mac, _ARP, _arp(mac, gateway, gateway), tags=(_QINQ, _VLAN)),
        "mac-victim": lambda: _frame(victims_mac, _IP, _ip(own, gateway)),
        "mac-own-ip-gateway": lambda: _frame(mac, _IP, _ip(gateway, victim)),
        **{
            f"link-local-{name}": partial(
                _frame, victims_mac, _IP, _ip(own, gateway), target=bytes.fromhex(target)
            )
            for name, target in _LINK_LOCAL.items()
        },
        "ip-vlan": lambda: _frame(mac, _IP, _ip(gateway, victim), tags=(_VLAN,)),
        "ip6-neighbour": lambda: _frame(mac, _IP6, _ip6(136)),
        "ip6-router": lambda: _frame(mac, _IP6, _ip6(134)),
    }
    return kinds[kind]()


def _send(kind: str, own: str, gateway: str, victim: str, victims_mac: str) -> None:
    with _opened() as raw:
        raw.send(_forged(kind, own, gateway, victim, _mac(victims_mac)))
        # For its own address, which nobody answers: an answer would teach the bridge where the victim is.
        raw.send(_frame(_own_mac(), _ARP, _arp(_own_mac(), own, own, operation=1)))


def _hello(own: str, gateway: str) -> None:
    with _opened() as raw:
        raw.send(_frame(_own_mac(), _ARP, _arp(_own_mac(), own, gateway, operation=1)))


def _listen(mac: str, own: str) -> None:
    genuine = _frame(_mac(mac), _ARP, _arp(_mac(mac), own, own, operation=1))[:32]
    with _opened() as raw:
        print("ready", flush=True)
        while True:
            frame, facts = raw.recvfrom(2000)
            if _MARK not in frame or facts[2] == socket.PACKET_OUTGOING:
                continue
            print("genuine" if frame.startswith(genuine) else "forged", flush=True)
            if frame.startswith(genuine):
                return


_WORDS: dict[str, Callable[..., None]] = {"hello": _hello, "send": _send, "listen": _listen}


def main(word: str, *words: str) -> None:
    if word == "mac":
        print(_own_mac().hex(":"))
    else:
        _WORDS[word](*words)


if __name__ == "__main__":
    main(*sys.argv[1:])
