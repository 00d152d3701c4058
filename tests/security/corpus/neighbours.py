"""Another session on the same host: its variables, files, processes, memory and servers.

`host["neighbour"]` tells what it has made: see `NEIGHBOUR` in `tests/security/conftest.py`.
"""

import ctypes
import fcntl
import os
import random
import signal
import socket

from tests.security.corpus import FULL, snippet
from tests.security.corpus.prelude import (
    Host,
    attempt,
    call,
    hidden,
    processes,
    read_from,
    verdict,
    walled,
)


@snippet()
def use_a_neighbours_variables(host: Host) -> str:
    """Use a name that another session has bound."""
    found = [name for name in ("neighbours_secret", "neighbours_server") if name in globals()]
    return verdict(not found, found)


@snippet()
def read_a_neighbours_files(host: Host) -> str:
    """Read what another session wrote, wherever it may write."""
    attempts = {path: read_from(path) for path in host["neighbour"]["files"]}
    return walled(attempts, "ENOENT")


@snippet()
def overwrite_a_neighbours_files(host: Host) -> str:
    """Write by the names that another session uses; it must not see it."""
    for path in host["neighbour"]["files"]:
        with open(path, "w") as file:
            file.write("hostile")
        os.unlink(path)
    return verdict(True, "written here; the runner asks the neighbour")


@snippet()
def see_a_neighbours_processes(host: Host) -> str:
    """Find a program that another session has started."""
    seen = []
    for pid in processes():
        if not attempt(read_from(f"/proc/{pid}/cmdline")):
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if b"987654" in file.read():
                    seen.append(pid)
    return verdict(not seen, seen)


@snippet()
def signal_a_neighbours_processes(host: Host) -> str:
    """End a program that another session has started, by the number it has there.

    One of our own may have the same number here, and a forked one is not to be seen in /proc.
    """
    number = host["neighbour"]["child"]
    own = str(number) in os.listdir("/proc/self/task")
    word = "a thread of ours" if own else attempt(lambda: os.kill(number, signal.SIGTERM))
    return verdict(True, f"{word or 'one of ours'}; the runner asks the neighbour")


@snippet()
def reach_a_neighbours_server(host: Host) -> str:
    """Connect to a server that another session runs on loopback."""

    def connect(family: int, address: object) -> None:
        with socket.socket(family) as connection:
            connection.settimeout(3)
            connection.connect(address)

    port, name = host["neighbour"]["port"], host["neighbour"]["abstract"]
    return walled(
        {
            "tcp": lambda: connect(socket.AF_INET, ("127.0.0.1", port)),
            "abstract": lambda: connect(socket.AF_UNIX, name),
        },
        "ECONNREFUSED",
    )


@snippet(levels=FULL)
def share_a_neighbours_memory(host: Host) -> str:
    """Attach shared memory that another session has made for everybody."""
    libc = ctypes.CDLL(None, use_errno=True)

    def attach() -> None:
        made = call("shmget", host["neighbour"]["shm"], 0, 0)
        libc.shmat(made, None, 0)

    return hidden(attach)


@snippet()
def share_a_neighbours_shared_files(host: Host) -> str:
    """Find another session's memory in /dev/shm."""
    names = [name for name in os.listdir("/dev/shm") if "neighbour" in name]  # noqa: S108
    return verdict(not names, names)


@snippet(alone=True)
def count_on_a_neighbours_chance(host: Host) -> str:
    """Draw, first of all, the numbers that another session drew first of all."""
    mine = [random.getrandbits(64) for _ in range(4)]
    same = [number for number in mine if number in host["neighbour"]["numbers"]]
    return verdict(not same, same)


@snippet()
def hold_up_a_neighbours_program(host: Host) -> str:
    """Lock a program that all sessions share for writing."""
    descriptor = os.open("/usr/bin/env", os.O_RDONLY)
    try:
        return walled(
            {
                "write lock": lambda: fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB),
                "lease": lambda: fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK),
            },
            *("EBADF", "EINVAL", "EAGAIN"),
        )
    finally:
        os.close(descriptor)


@snippet()
def name_a_neighbours_host(host: Host) -> str:
    """Change the name of the machine for all."""
    return walled({"name": lambda: socket.sethostname("hostile")})


@snippet()
def use_a_neighbours_kernel(host: Host) -> str:
    """Reach another kernel's sockets by their paths on the host."""
    attempts = {}
    for number in range(1, 6):
        path = f"{host['neighbour_dir']}/k-{number}"

        def connect(path: str = path) -> None:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(path)

        attempts[f"k-{number}"] = connect
    return walled(attempts, "ENOENT")
