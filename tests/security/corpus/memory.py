"""Too much memory, of every kind there is: the limits are `host["limits"]`."""

import ctypes
import mmap
import os
import socket
import struct
import sys
import time
from typing import Any

from tests.security.corpus import FULL, snippet
from tests.security.corpus.prelude import (
    Host,
    attempt,
    bounded,
    call,
    told_by_child,
    verdict,
    walled,
)

MIB = 1 << 20
MOST = 600 * MIB  # enough to show that something is not bounded
PAUSE = 3.0  # seconds that memory is held, for whoever looks at it now and then


def hoarded(host: Host, hoard: Any, processes: int) -> str:
    """Hoard in so many children at once; judge by what they say they hold, all together."""
    reading, writing = os.pipe()
    for _ in range(processes):
        if os.fork() == 0:
            try:
                os.write(writing, struct.pack("q", hoard()))
                time.sleep(2 * PAUSE)
            finally:
                os._exit(0)
    os.close(writing)
    counts = [struct.unpack("q", os.read(reading, 8) or bytes(8))[0] for _ in range(processes)]
    return verdict(sum(counts) <= host["limits"]["memory"], f"{sum(counts) / MIB:.0f} MiB")


def hold() -> str:
    """Hold what was taken for a while; whoever is still there has not been held to a limit."""
    time.sleep(PAUSE)
    return verdict(False, "it could be taken, and held")


@snippet(ends=("oom",), errors=("MemoryError",))
def take_memory_from_the_heap(host: Host) -> str:
    """Take memory in pieces, each written to."""
    pieces = 4 * host["limits"]["memory"] // (16 * MIB)
    held = [bytes([number & 255]) * (16 * MIB) for number in range(pieces)]
    return hold() + str(len(held))


@snippet(ends=("oom",), errors=("MemoryError",))
def take_memory_at_once(host: Host) -> str:
    """Take more than there is in one piece."""
    held = bytearray(4 * host["limits"]["memory"])
    for index in range(0, len(held), 4096):
        held[index] = 1
    return hold()


@snippet(ends=("oom",), errors=("MemoryError",))
def take_memory_in_small_objects(host: Host) -> str:
    """Build a list that never ends."""
    held = []
    while len(held) < 2**27:
        held.append([len(held)] * 8)
    return hold()


@snippet(ends=("oom",), errors=("OSError",))
def take_shared_memory(host: Host) -> str:
    """Map memory that would be shared with children: it counts as no data of one's own."""
    held = []
    for _ in range(4 * host["limits"]["memory"] // (32 * MIB)):
        area = mmap.mmap(-1, 32 * MIB)
        for index in range(0, 32 * MIB, 4096):
            area[index] = 1
        held.append(area)
    return hold()


@snippet(levels=FULL, ends=("oom",), errors=("OSError",))
def take_memory_in_a_nameless_file(host: Host) -> str:
    """Write to a file that has no name and no size limit."""
    descriptor = os.memfd_create("x")
    held = [descriptor]
    for _ in range(16):
        for _ in range(host["limits"]["memory"] // (4 * MIB)):
            if attempt(lambda: os.write(held[-1], bytes(MIB))):
                break
        held.append(os.memfd_create("x"))
    return hold()


@snippet(levels=FULL, ends=("oom",), errors=("OSError",))
def take_memory_by_a_number(host: Host) -> str:
    """Fill System V shared memory."""
    call_libc = ctypes.CDLL(None, use_errno=True)
    call_libc.shmat.restype = ctypes.c_void_p
    for _ in range(8):
        made = call("shmget", 0, 64 * MIB, 0o1600)
        address = call_libc.shmat(made, None, 0)
        ctypes.memset(address, 1, 64 * MIB)
    return hold()


@snippet(ends=("oom",))
def take_memory_in_many_processes(host: Host) -> str:
    """Take memory in children, none of which takes much."""
    each = host["limits"]["memory"] // 4

    def child() -> None:
        held = b"x" * each
        time.sleep(3 * PAUSE)
        os._exit(len(held) & 1)

    for _ in range(12):
        if os.fork() == 0:
            child()
    time.sleep(PAUSE)
    return hold()


@snippet(ends=("oom",), errors=("MemoryError", "OSError"))
def take_memory_for_page_tables(host: Host) -> str:
    """Have the kernel keep a table for each of many pages that are all the same zero."""
    span = 1 << 30
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE
    for _ in range(384):  # 384 GiB read once every 2 MiB: 768 MiB of tables
        address = libc.mmap(None, span, mmap.PROT_READ, flags, -1, 0)
        if address in (None, ctypes.c_void_p(-1).value):
            raise OSError(ctypes.get_errno(), "mmap")
        libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(span), 15)  # MADV_NOHUGEPAGE
        for offset in range(0, span, 2 * MIB):
            ctypes.c_char.from_address(address + offset).value  # noqa: B018
    return hold()


@snippet(ends=("oom",))
def take_memory_in_pipes(host: Host) -> str:
    """Fill pipes, in as many processes as there may be."""

    def hoard() -> int:
        held: list[tuple[int, int]] = []
        total = 0
        while not attempt(lambda: held.append(os.pipe())):
            os.set_blocking(held[-1][1], False)
            while not attempt(lambda: os.write(held[-1][1], bytes(4096))):
                total += 4096
        return total

    return hoarded(host, hoard, 45)


# What lies in the buffers of sockets is the kernel's own memory: nothing but a cgroup counts it.
def sent(sockets: list[socket.socket], size: int) -> int:
    """Send until nothing more is taken; return how many bytes were."""
    total = 0
    for each in sockets:
        each.setblocking(False)
        try:
            while total < MOST:
                total += each.send(bytes(size))
        except OSError:
            continue
    return total


@snippet(levels=FULL, ends=("oom",))
def take_memory_in_sockets(host: Host) -> str:
    """Fill the buffers of sockets that nobody reads."""

    def hoard() -> int:
        held: list[socket.socket] = []
        total = 0
        while total < MOST and not attempt(lambda: held.extend(socket.socketpair())):
            total += sent(held[-2:], 65536)
        return total

    return hoarded(host, hoard, 3)


@snippet(levels=FULL, ends=("oom",))
def take_memory_in_connections(host: Host) -> str:
    """Fill the buffers of connections over loopback."""

    def hoard() -> int:
        server = socket.create_server(("127.0.0.1", 0), backlog=512)
        held: list[socket.socket] = []
        total = 0
        while total < MOST and not attempt(
            lambda: held.extend(
                [socket.create_connection(server.getsockname(), 5), server.accept()[0]]
            )
        ):
            total += sent(held[-2:], 1 << 18)
        return total

    return hoarded(host, hoard, 2)


@snippet(levels=FULL, ends=("oom",))
def take_memory_in_datagrams(host: Host) -> str:
    """Send packets over loopback to sockets that nobody reads."""

    def hoard() -> int:
        held: list[socket.socket] = []
        total = dry = 0
        while total < MOST and dry < 5 and not attempt(lambda: held.append(socket.socket(2, 2))):
            held[-1].bind(("127.0.0.1", 0))
            held[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
            room = held[-1].getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
            for _ in range(room // 8192):
                attempt(lambda: held[0].sendto(bytes(8192), held[-1].getsockname()))
            # SO_MEMINFO: what is held to be received comes first
            taken = struct.unpack("I", held[-1].getsockopt(socket.SOL_SOCKET, 55, 4))[0]
            total, dry = total + taken, 0 if taken > room // 8 else dry + 1
        return total

    return hoarded(host, hoard, 3)


@snippet(ends=("signal SIGSEGV", "oom"), errors=("RecursionError", "MemoryError"))
def recurse_without_end(host: Host) -> str:
    """Call oneself until the stack is used up."""
    sys.setrecursionlimit(1 << 30)

    class Deep:
        def __repr__(self) -> str:
            return repr(self)

    repr(Deep())
    return verdict(False, "it came to an end")


@snippet(bare=True)
def lock_memory(host: Host) -> str:
    """Keep memory from ever being paged out."""

    def attack() -> str:
        area = mmap.mmap(-1, 64 * MIB)
        address = ctypes.addressof(ctypes.c_char.from_buffer(area))
        return walled(
            {
                "some": lambda: call("mlock", address, 64 * MIB),
                "all": lambda: call("mlockall", 3),
            },
            "ENOMEM",
            "EAGAIN",
        )

    return told_by_child(attack)


@snippet(alone=True)
def map_many_areas(host: Host) -> str:
    """Make more mappings than a process may have."""
    held = []
    descriptor = os.open("/dev/zero", os.O_RDONLY)

    def make() -> None:
        kind = mmap.PROT_READ if len(held) % 2 else mmap.PROT_READ | mmap.PROT_EXEC
        held.append(mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, kind))

    try:
        return bounded(make, 66_000)
    finally:
        os.close(descriptor)
        held.clear()
