"""Mounts: to uncover what lies below, to show what is not shown, to make writable what is not."""

import ctypes
import os

from tests.security.corpus import snippet
from tests.security.corpus.prelude import (
    Host,
    attempt,
    call,
    denied,
    told_by_child,
    verdict,
    walled,
)

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_MOVE, MS_REC = 1, 32, 4096, 8192, 16384
MS_PRIVATE, MS_SHARED = 1 << 18, 1 << 20
MNT_FORCE, MNT_DETACH, UMOUNT_NOFOLLOW = 1, 2, 8
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
MACHINES_OWN = ("proc", "sysfs", "cgroup", "cgroup2", "devtmpfs", "devpts", "mqueue", "debugfs")


def mount(source: bytes, target: bytes, kind: bytes, flags: int = 0, data: bytes = b"") -> None:
    """Call mount(2)."""
    call("mount", source, target, kind, flags, data)


@snippet()
def mount_an_empty_file_system(host: Host) -> str:
    """Mount a tmpfs, whose size would be nobody's, in every place there is."""
    places = ("/tmp", "/home/user", "/dev/shm", "/usr", "/")  # noqa: S108
    return walled({place: lambda p=place: mount(b"x", p.encode(), b"tmpfs") for place in places})


@snippet()
def mount_what_shows_the_machine(host: Host) -> str:
    """Mount the file systems that show processes, devices and cgroups."""
    return walled(
        {kind: lambda kind=kind: mount(b"x", b"/mnt/data", kind.encode()) for kind in MACHINES_OWN}
    )


@snippet()
def mount_a_disk(host: Host) -> str:
    """Mount the host's disk by its device."""
    disks = (b"/dev/vda", b"/dev/sda1", b"/dev/root", b"/dev/null")
    return walled(
        {disk.decode(): lambda disk=disk: mount(disk, b"/mnt/data", b"ext4") for disk in disks}
    )


@snippet()
def make_the_system_writable(host: Host) -> str:
    """Mount the root, the system and the interpreter again, without `ro`."""
    places = (b"/", b"/usr", b"/etc/passwd", os.fsencode(os.path.dirname(os.__file__)))
    return walled(
        {
            f"{place.decode()} {flags:#x}": lambda place=place, flags=flags: mount(
                b"none", place, b"", flags
            )
            for place in places
            for flags in (MS_REMOUNT, MS_REMOUNT | MS_BIND)
        }
    )


@snippet()
def make_devices_and_setuid_work_again(host: Host) -> str:
    """Mount the workspace again, without `nosuid` and `nodev`."""
    return walled(
        {
            "workspace": lambda: mount(b"none", b"/home/user", b"", MS_REMOUNT | MS_BIND),
            "tmp": lambda: mount(b"none", b"/tmp", b"", MS_REMOUNT, b"size=100%"),
        }
    )


@snippet()
def bind_a_directory_elsewhere(host: Host) -> str:
    """Bind the system over the workspace, and the workspace over the system."""
    return walled(
        {
            "bind": lambda: mount(b"/usr", b"/mnt/data", b"", MS_BIND | MS_REC),
            "over": lambda: mount(b"/home/user", b"/usr", b"", MS_BIND),
            "move": lambda: mount(b"/mnt/data", b"/tmp", b"", MS_MOVE),
            "share": lambda: mount(b"none", b"/", b"", MS_REC | MS_SHARED),
        }
    )


@snippet()
def uncover_what_is_mounted_over(host: Host) -> str:
    """Unmount /proc, the workspace and temporary directories, to see what was there before."""
    places = (b"/proc", b"/home/user", b"/mnt/data", b"/tmp", b"/dev/shm", b"/usr", b"/dev/null")
    return walled(
        {
            f"{place.decode()} {flags}": lambda place=place, flags=flags: call(
                "umount2", place, flags
            )
            for place in places
            for flags in (0, MNT_DETACH)
        }
    )


@snippet()
def take_another_root(host: Host) -> str:
    """Exchange the root for the workspace."""
    os.makedirs("old", exist_ok=True)
    return walled(
        {
            "pivot": lambda: call("pivot_root", b".", b"old"),
            "same": lambda: call("pivot_root", b".", b"."),
        }
    )


@snippet(bare=True)
def make_a_file_system_without_mounting_it(host: Host) -> str:
    """Use the newer calls: a file system as a descriptor."""
    return denied(lambda: os.close(call("fsopen", b"tmpfs", 0)))


@snippet(bare=True)
def copy_a_mount(host: Host) -> str:
    """Take a detached copy of the root, in which nothing covers anything."""
    return walled(
        {
            "plain": lambda: os.close(call("open_tree", AT_FDCWD, b"/", 1)),
            "recursive": lambda: os.close(call("open_tree", AT_FDCWD, b"/", 1 | AT_RECURSIVE)),
        }
    )


@snippet(bare=True)
def open_a_mount_to_change_it(host: Host) -> str:
    """Open an existing file system for reconfiguration."""
    return denied(lambda: os.close(call("fspick", AT_FDCWD, b"/", 0)))


@snippet()
def move_a_mount(host: Host) -> str:
    """Move the workspace over the system with the newer call."""
    return denied(lambda: call("move_mount", AT_FDCWD, b"/mnt/data", AT_FDCWD, b"/usr", 0))


@snippet()
def change_the_attributes_of_mounts(host: Host) -> str:
    """Take `ro`, `nosuid` and `nodev` off every mount at once."""
    # struct mount_attr: attr_set, attr_clr (RDONLY | NOSUID | NODEV), propagation, userns_fd
    attributes = b"".join(value.to_bytes(8, "little") for value in (0, 7, 0, 0))
    return denied(
        lambda: call("mount_setattr", AT_FDCWD, b"/", AT_RECURSIVE, attributes, len(attributes))
    )


@snippet(bare=True)
def list_mounts_past_the_namespace(host: Host) -> str:
    """Ask for mounts by their numbers."""
    # struct mnt_id_req: size, spare, mnt_id (LSMT_ROOT), param
    request = b"".join(
        value.to_bytes(size, "little") for value, size in ((24, 4), (0, 4), (2**64 - 1, 8), (0, 8))
    )
    found = ctypes.create_string_buffer(8 * 64)
    return denied(lambda: call("listmount", request, found, 64, 0))


@snippet()
def stack_a_writable_layer(host: Host) -> str:
    """Mount an overlay whose lower layer is the system."""
    for name in ("upper", "work"):
        os.makedirs(name, exist_ok=True)
    layers = b"lowerdir=/usr,upperdir=upper,workdir=work"
    return denied(lambda: mount(b"overlay", b"/mnt/data", b"overlay", 0, layers))


@snippet()
def mount_in_a_namespace_of_ones_own(host: Host) -> str:
    """Become root in new namespaces and mount there."""

    def attack() -> str:
        words = [
            attempt(lambda flags=flags: call("unshare", flags)) for flags in (0x10020000, 0x20000)
        ]
        word = attempt(lambda: mount(b"x", b"/tmp", b"tmpfs"))
        return verdict(all(words) and word in ("EPERM", "ENOSYS"), f"{words}, mount: {word}")

    return told_by_child(attack)


@snippet()
def swap_to_a_file(host: Host) -> str:
    """Add the workspace to the host's memory."""
    with open("swap", "wb") as file:
        file.truncate(1 << 20)
    return walled(
        {"on": lambda: call("swapon", b"swap", 0), "off": lambda: call("swapoff", b"swap")}
    )


@snippet()
def run_the_mount_programs(host: Host) -> str:
    """Have the system's own programs do it."""
    commands = ("mount -t tmpfs x /mnt", "umount -l /proc", "unshare -Urm true", "unshare -r id")
    said = {command: os.system(f"{command} >/dev/null 2>&1") for command in commands}  # noqa: S605
    return verdict(all(said.values()), said)
