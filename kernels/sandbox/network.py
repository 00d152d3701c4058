"""The network: a namespace with nothing in it but a loopback interface that is up."""

from __future__ import annotations

import fcntl
import socket
import struct

SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
REQUEST = struct.Struct("16sh22x")  # struct ifreq with its flags


def raise_loopback() -> None:
    """Bring `lo` up: multiprocessing and servers inside a kernel need it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        answer = fcntl.ioctl(any_socket, SIOCGIFFLAGS, REQUEST.pack(b"lo", 0))
        _, flags = REQUEST.unpack(answer)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, REQUEST.pack(b"lo", flags | IFF_UP))
