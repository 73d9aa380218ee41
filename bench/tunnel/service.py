"""What listens in the workload: sends, takes, or echoes, as the first bytes of a connection ask.

Run as `python -m bench.tunnel.service`, in the network of a workload; it prints its address and port.
"""

import socket
import struct
import threading

REQUEST = struct.Struct(">cQ")
"""What is to be done, and with how many bytes."""
SEND, TAKE, ECHO = b"s", b"t", b"e"
PIECE_BYTES = 1 << 20
DONE = b"."


def main() -> None:
    with socket.create_server(("0.0.0.0", 0), backlog=2048) as listener:
        print(_own_address(), listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_serve, args=(connection,), daemon=True).start()


def _own_address() -> str:
    """The address from which this machine would speak to others; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


def _serve(connection: socket.socket) -> None:
    with connection:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            asked, size = REQUEST.unpack(connection.recv(REQUEST.size, socket.MSG_WAITALL))
            if asked == SEND:
                send_zeros(connection, size)
            elif asked == TAKE:
                take(connection, size)
                connection.sendall(DONE)
            else:
                while data := connection.recv(4096):
                    connection.sendall(data)
        except (OSError, struct.error):
            return  # the other end is gone


def send_zeros(connection: socket.socket, size: int) -> None:
    piece = memoryview(bytes(PIECE_BYTES))
    while size:
        size -= connection.send(piece[:size])


def take(connection: socket.socket, size: int) -> None:
    """Read so many bytes; raises ConnectionError where fewer come."""
    into = bytearray(PIECE_BYTES)
    while size:
        got = connection.recv_into(into, min(size, PIECE_BYTES))
        if not got:
            raise ConnectionError(f"{size} bytes are missing")
        size -= got


if __name__ == "__main__":
    main()
