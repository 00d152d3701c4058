"""Sockets: families that no namespace holds, and sockets that were there before."""

import array
import ctypes
import fcntl
import os
import socket
import struct

from tests.security.corpus import snippet
from tests.security.corpus.prelude import (
    Host,
    attempt,
    call,
    own_descriptors,
    verdict,
    walled,
)

SIOCGIFCONF, SIOCGIFHWADDR, SIOCGSKNS = 0x8912, 0x8927, 0x894C
SO_PEERPIDFD, SO_ATTACH_FILTER, SO_ATTACH_BPF = 77, 26, 50
# How an empty network answers.
NOBODY = ("ECONNREFUSED", "ENETUNREACH", "EADDRNOTAVAIL", "EHOSTUNREACH")
NO_FAMILY = ("EAFNOSUPPORT", "EOPNOTSUPP", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT")
FAMILIES = {
    "netlink": 16,
    "packet": 17,
    "alg": 38,
    "vsock": 40,
    "bluetooth": 31,
    "can": 29,
    "xdp": 44,
    "key": 15,
    "tipc": 30,
    "rds": 21,
    "kcm": 41,
    "smc": 43,
    "qipcrtr": 42,
    "mctp": 45,
    "ax25": 3,
    "ipx": 4,
    "appletalk": 5,
    "x25": 9,
    "pppox": 24,
    "llc": 26,
    "phonet": 35,
    "ieee802154": 36,
    "caif": 37,
    "nfc": 39,
    "isdn": 34,
    "rxrpc": 33,
    "iucv": 32,
    "ib": 27,
}


def connect(family: int, address: object, kind: int = socket.SOCK_STREAM) -> object:
    """Return the attempt to connect to an address."""

    def attack() -> None:
        with socket.socket(family, kind) as connection:
            connection.settimeout(3)
            connection.connect(address)

    return attack


def inherited_sockets() -> list[int]:
    """Return the descriptors that are sockets."""
    found = own_descriptors().items()
    return [number for number, target in found if target.startswith("socket:")]


@snippet()
def reach_an_abstract_socket_from_an_old_one(host: Host) -> str:
    """Connect a socket that was made in the host's network to a name of that network."""
    attempts = {}
    for number in inherited_sockets():
        for name in (host["abstract"], host["store"]):
            attempts[f"{number} {name!r}"] = lambda number=number, name=name: _reconnect(
                number, name
            )
    return walled(attempts, "EINVAL", "EISCONN", "EOPNOTSUPP", "EPROTOTYPE", "ENOENT", *NOBODY)


def _reconnect(number: int, name: str) -> None:
    with socket.socket(fileno=os.dup(number)) as held:
        held.connect(name)


@snippet()
def use_other_families(host: Host) -> str:
    """Open a socket of each family that no network namespace holds, and of all the others."""
    kinds = (socket.SOCK_RAW, socket.SOCK_DGRAM, socket.SOCK_STREAM, socket.SOCK_SEQPACKET)
    attempts = {}
    for name, family in FAMILIES.items():
        for kind in kinds:
            attempts[f"{name} {int(kind)}"] = lambda family=family, kind=kind: socket.socket(
                family, kind
            ).close()
    for family in range(64):
        if family not in (1, 2, 10):
            attempts[str(family)] = lambda family=family: socket.socket(family, 3).close()
    said = walled(attempts, *NO_FAMILY)
    words = sorted({part.rpartition(": ")[2] for part in said.split(", ")})
    worked = [part for part in said.split(", ") if part.endswith("it worked")]
    return verdict(said.startswith("SAFE"), f"{len(attempts)} attempts: {words} {worked}")


@snippet(bare=True)
def talk_to_the_kernel_by_netlink(host: Host) -> str:
    """Open each protocol of the kernel's own sockets: routes, audit, devices, ciphers."""
    protocols = {"route": 0, "audit": 9, "netfilter": 12, "uevent": 15, "generic": 16, "crypto": 21}
    attempts = {
        name: lambda number=number: socket.socket(16, socket.SOCK_RAW, number).close()
        for name, number in protocols.items()
    }
    return walled(attempts, *NO_FAMILY)


@snippet(bare=True)
def see_and_forge_packets(host: Host) -> str:
    """Open raw and packet sockets, and those of pings."""
    return walled(
        {
            "packet": lambda: socket.socket(17, socket.SOCK_RAW, 0x0300).close(),
            "icmp": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close(),
            "any": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 255).close(),
            "icmp6": lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58).close(),
            "ping": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1).close(),
        },
        *NO_FAMILY,
    )


@snippet()
def use_rare_protocols(host: Host) -> str:
    """Open sockets of protocols whose code is seldom run."""
    rare = {"sctp": 132, "dccp": 33, "udplite": 136, "mptcp": 262, "l2tp": 115, "smc": 256}
    kinds = (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET)
    attempts = {
        f"{name} {int(kind)}": lambda kind=kind, number=number: socket.socket(
            socket.AF_INET, kind, number
        ).close()
        for name, number in rare.items()
        for kind in kinds
    }
    return walled(attempts, *NO_FAMILY, "EINVAL")


@snippet(bare=True)
def ask_inherited_sockets_for_the_hosts_interfaces(host: Host) -> str:
    """Use sockets that were made in the host's network to list its interfaces."""

    def ask(number: int) -> None:
        names = array.array("B", bytes(4096))
        fcntl.ioctl(number, SIOCGIFCONF, struct.pack("iL", 4096, names.buffer_info()[0]))

    attempts = {
        f"list {number}": lambda number=number: ask(number) for number in inherited_sockets()
    }
    for number in inherited_sockets():
        for name in (b"eth0", b"lo"):
            attempts[f"{name.decode()} {number}"] = lambda number=number, name=name: fcntl.ioctl(
                number, SIOCGIFHWADDR, struct.pack("40s", name)
            )
    return walled(attempts, "ENOTTY")


@snippet(bare=True)
def ask_inherited_sockets_for_their_namespace(host: Host) -> str:
    """Get a descriptor of the host's network from a socket that was made in it."""
    attempts = {
        str(number): lambda number=number: os.close(fcntl.ioctl(number, SIOCGSKNS))
        for number in inherited_sockets()
    }
    return walled(attempts, "ENOTTY")


@snippet()
def use_privileged_socket_options(host: Host) -> str:
    """Bind to a device, mark packets, force buffers and speak for other addresses."""
    options = {
        "device": (socket.SOL_SOCKET, 25, b"eth0"),
        "mark": (socket.SOL_SOCKET, 36, 1),
        "receive": (socket.SOL_SOCKET, 33, 1 << 26),
        "send": (socket.SOL_SOCKET, 32, 1 << 26),
        "transparent": (socket.SOL_IP, 19, 1),
        "repair": (socket.IPPROTO_TCP, 19, 1),
        "iptables": (socket.SOL_IP, 64, b"\0"),
        "ulp": (socket.IPPROTO_TCP, 31, b"tls"),
    }
    with socket.socket(socket.AF_INET) as any_socket:
        attempts = {
            name: lambda option=option: any_socket.setsockopt(*option)
            for name, option in options.items()
        }
        # Any process may bind a socket to a device; there is none.
        return walled(attempts, "ENOPROTOOPT", "ENODEV")


@snippet(bare=True)
def run_programs_in_the_kernel_by_a_socket(host: Host) -> str:
    """Attach a packet filter, which the kernel would compile."""
    instruction = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0))
    program = struct.pack("HxxxxxxP", 1, ctypes.addressof(instruction))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as any_socket:
        return walled(
            {
                "classic": lambda: any_socket.setsockopt(
                    socket.SOL_SOCKET, SO_ATTACH_FILTER, program
                ),
                "extended": lambda: any_socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_BPF, 0),
            },
            "ENOPROTOOPT",
        )


@snippet(bare=True)
def hold_the_broker_by_its_connection(host: Host) -> str:
    """Get a handle on the broker's process from a connection it made, and use it."""
    attempts = {}
    held = []
    for number in inherited_sockets():
        with socket.socket(fileno=os.dup(number)) as connection:
            try:
                raw = connection.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, 4)
            except OSError:
                continue
        pidfd = struct.unpack("i", raw)[0]
        held.append(pidfd)
        with open(f"/proc/self/fdinfo/{pidfd}") as file:
            fields = dict(line.split(":\t", 1) for line in file if ":\t" in line)
        if int(fields["Pid"]) == os.getpid():
            continue
        attempts[f"signal {number}"] = lambda pidfd=pidfd: call("pidfd_send_signal", pidfd, 0, 0, 0)
        attempts[f"descriptor {number}"] = lambda pidfd=pidfd: os.close(
            call("pidfd_getfd", pidfd, 0, 0)
        )
        attempts[f"network {number}"] = lambda pidfd=pidfd: os.close(fcntl.ioctl(pidfd, 0xFF04, 0))
        attempts[f"info {number}"] = lambda pidfd=pidfd: fcntl.ioctl(
            pidfd, 0xC040FF0B, bytearray(64)
        )
    try:
        return walled(attempts, "EINVAL", "ENOTTY", "ESRCH")
    finally:
        for pidfd in held:
            os.close(pidfd)


@snippet()
def learn_who_the_broker_is(host: Host) -> str:
    """Ask a connection which process and user are at its other end."""
    told = set()
    for number in inherited_sockets():
        with socket.socket(fileno=os.dup(number)) as connection:
            raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        told.add(struct.unpack("=iII", raw))
    strangers = {pid for pid, _, _ in told} - {0, os.getpid(), 1, os.getppid()}
    return verdict(host["broker_pid"] not in strangers, sorted(told))


@snippet()
def send_descriptors_without_end(host: Host) -> str:
    """Hide open files in messages that nobody reads."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    pipes = os.pipe()
    count, word = 0, ""
    with ours, theirs:
        while count < 20_000 and not word:
            word = attempt(lambda: socket.send_fds(ours, [b"x"], list(pipes) * 100))
            count += 200
    for each in pipes:
        os.close(each)
    return verdict(count < 20_000, f"{word} after {count}")
