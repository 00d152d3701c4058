"""The network: the host's services, and everything beyond."""

import fcntl
import socket
import struct
import threading

from tests.security.corpus import snippet
from tests.security.corpus.prelude import (
    Host,
    attempt,
    denied,
    read_from,
    verdict,
    walled,
)

SIOCGIFADDR, SIOCETHTOOL = 0x8915, 0x8946
# How an empty network answers.
NOBODY = ("ECONNREFUSED", "ENETUNREACH", "EADDRNOTAVAIL", "EHOSTUNREACH")


def connect(family: int, address: object, kind: int = socket.SOCK_STREAM) -> object:
    """Return the attempt to connect to an address."""

    def attack() -> None:
        with socket.socket(family, kind) as connection:
            connection.settimeout(3)
            connection.connect(address)

    return attack


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
