"""The network: the host's services, its interfaces, and everything beyond."""

import array
import ctypes
import fcntl
import os
import socket
import struct
import threading

from tests.security.corpus import snippet
from tests.security.corpus.prelude import (
    Host,
    attempt,
    call,
    denied,
    own_descriptors,
    read_from,
    verdict,
    walled,
)

# How an empty network answers.
NOBODY = ("ECONNREFUSED", "ENETUNREACH", "EADDRNOTAVAIL", "EHOSTUNREACH")
NO_FAMILY = ("EAFNOSUPPORT", "EOPNOTSUPP", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT")
SIOCGIFCONF, SIOCGIFADDR, SIOCGIFHWADDR, SIOCETHTOOL, SIOCGSKNS = (
    0x8912,
    0x8915,
    0x8927,
    0x8946,
    0x894C,
)
SO_PEERPIDFD, SO_ATTACH_FILTER, SO_ATTACH_BPF = 77, 26, 50
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


@snippet(bare=True)
def reach_the_broker(host: Host) -> str:
    """Connect to the port where the broker answers, by each name of this machine."""
    port = host["port"]
    return walled(
        {
            "v4": connect(socket.AF_INET, ("127.0.0.1", port)),
            "other": connect(socket.AF_INET, ("127.1.2.3", port)),
            "any": connect(socket.AF_INET, ("0.0.0.0", port)),  # noqa: S104
            "v6": connect(socket.AF_INET6, ("::1", port)),
            "mapped": connect(socket.AF_INET6, ("::ffff:127.0.0.1", port)),
        },
        *NOBODY,
    )


@snippet(bare=True)
def reach_a_service_of_the_host(host: Host) -> str:
    """Connect to another service on the host's loopback."""
    return walled({"tcp": connect(socket.AF_INET, ("127.0.0.1", host["service"]))}, *NOBODY)


@snippet(bare=True)
def reach_the_store(host: Host) -> str:
    """Connect to the embedded store, by its socket's path."""
    return walled({"store": connect(socket.AF_UNIX, host["store"])}, "ENOENT")


@snippet(bare=True)
def reach_an_abstract_socket(host: Host) -> str:
    """Connect to a socket of the host that has no path."""
    return walled({"abstract": connect(socket.AF_UNIX, host["abstract"])}, *NOBODY)


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


@snippet(bare=True)
def list_the_hosts_sockets(host: Host) -> str:
    """Read the tables of unix and TCP sockets."""
    text = ""
    for name in ("unix", "tcp", "tcp6", "udp", "route", "arp", "dev"):
        if not attempt(read_from(f"/proc/self/net/{name}")):
            with open(f"/proc/self/net/{name}") as file:
                text += file.read()
    hints = (host["store"], host["abstract"].strip("\0"), f"0100007F:{host['port']:04X}")
    found = [hint for hint in hints if hint in text]
    found += [
        line.split()[0] for line in text.splitlines() if line.strip().startswith(("eth", "en"))
    ]
    return verdict(not found, found)


@snippet(bare=True)
def reach_services_by_their_sockets(host: Host) -> str:
    """Connect to the sockets of the host's log, bus and containers."""
    paths = ("/run/systemd/journal/stdout", "/dev/log", "/run/docker.sock", "/var/run/docker.sock")
    paths += ("/run/dbus/system_bus_socket", "/run/containerd/containerd.sock", host["unix"])
    return walled({path: connect(socket.AF_UNIX, path) for path in paths}, "ENOENT")


@snippet()
def reach_the_metadata_service(host: Host) -> str:
    """Ask the cloud for the host's credentials."""
    return walled(
        {
            "aws": connect(socket.AF_INET, ("169.254.169.254", 80)),
            "ecs": connect(socket.AF_INET, ("169.254.170.2", 80)),
            "v6": connect(socket.AF_INET6, ("fd00:ec2::254", 80)),
        },
        *NOBODY,
    )


@snippet()
def reach_the_internet(host: Host) -> str:
    """Connect to addresses that nobody has."""
    return walled(
        {
            "tcp": connect(socket.AF_INET, ("192.0.2.1", 443)),
            "udp": connect(socket.AF_INET, ("192.0.2.1", 53), socket.SOCK_DGRAM),
            "tcp6": connect(socket.AF_INET6, ("2001:db8::1", 443)),
            "udp6": connect(socket.AF_INET6, ("2001:db8::1", 53), socket.SOCK_DGRAM),
            "private": connect(socket.AF_INET, ("10.0.0.1", 22)),
        },
        *NOBODY,
    )


@snippet()
def send_without_connecting(host: Host) -> str:
    """Send packets to everybody, to a group and to one."""

    def send(address: tuple[str, int], family: int = socket.AF_INET) -> None:
        with socket.socket(family, socket.SOCK_DGRAM) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            connection.sendto(b"x", address)

    return walled(
        {
            "broadcast": lambda: send(("255.255.255.255", 9)),
            "group": lambda: send(("224.0.0.251", 5353)),
            "one": lambda: send(("192.0.2.1", 53)),
            "group6": lambda: send(("ff02::1", 9), socket.AF_INET6),
        },
        *NOBODY,
        "ENODEV",
    )


@snippet()
def look_a_name_up(host: Host) -> str:
    """Ask for an address, by which data could leave in the name."""
    try:
        found = socket.getaddrinfo("secret.invalid", 80)
    except socket.gaierror as error:
        return verdict(True, error)
    return verdict(False, found)


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


@snippet(bare=True)
def list_interfaces(host: Host) -> str:
    """List the interfaces there are."""
    try:
        names = {name for _, name in socket.if_nameindex()}
    except OSError as error:
        return verdict(True, error)
    return verdict(names <= {"lo"}, sorted(names))


@snippet()
def change_interfaces(host: Host) -> str:
    """Take the loopback interface down; rename it; give it an address."""
    request = struct.pack("16sh22x", b"lo", 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        attempts = {
            f"{number:#x}": lambda number=number: fcntl.ioctl(any_socket, number, request)
            for number in (0x8914, 0x8916, 0x8923, 0x890B, SIOCETHTOOL, SIOCGIFADDR)
        }
        return walled(attempts, "ENOTTY")


@snippet(bare=True)
def take_a_privileged_port(host: Host) -> str:
    """Pose as a service that only root may run."""

    def attack() -> None:
        with socket.socket(socket.AF_INET) as server:
            server.bind(("127.0.0.1", 81))

    return denied(attack)


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
        return walled(attempts, "ENOPROTOOPT")


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
def serve_on_loopback(host: Host) -> str:
    """Use the loopback interface, which is promised to work."""

    def round_trip(family: int, address: str) -> bytes:
        with socket.create_server((address, 0), family=family) as server:
            port = server.getsockname()[1]
            threading.Thread(target=_answer_once, args=(server,), daemon=True).start()
            with socket.create_connection((address, port), timeout=5) as connection:
                return connection.recv(16)

    answers = [round_trip(socket.AF_INET, "127.0.0.1"), round_trip(socket.AF_INET6, "::1")]
    return verdict(answers == [b"hello"] * 2, answers)


def _answer_once(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.sendall(b"hello")


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
