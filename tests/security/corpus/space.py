"""Too many files, too large, and too much kept for them: `host["limits"]` are the limits."""

import ctypes
import fcntl
import mmap
import os
import signal
import subprocess
import zipfile

from tests.security.corpus import BOTH, snippet
from tests.security.corpus.prelude import (
    Host,
    attempt,
    bounded,
    count_until_refused,
    in_child,
    killed_by,
    verdict,
    walled,
)

MIB = 1 << 20


def fill(path: str) -> tuple[int, str]:
    """Write zeros to a file until it is refused; return how many MiB there are, and the errno."""
    block = bytes(MIB)
    with open(path, "wb", buffering=0) as file:
        return count_until_refused(lambda: file.write(block), 4096)


@snippet(alone=True)
def fill_every_directory(host: Host) -> str:
    """Write until every place is full."""
    most = {"/home/user": "workspace", "/tmp": "tmp", "/dev/shm": "tmp"}  # noqa: S108
    said, safe = {}, True
    for place, name in most.items():
        count, word = fill(f"{place}/filler")
        os.unlink(f"{place}/filler")
        said[place] = f"{word} after {count} MiB"
        safe = safe and word in ("ENOSPC", "EFBIG") and count * MIB <= host["limits"][name]
    return verdict(safe, said)


@snippet(alone=True)
def fill_by_the_other_name(host: Host) -> str:
    """Fill the workspace by both of its names."""
    first, _ = fill("/home/user/filler")
    second, word = fill("/mnt/data/filler-2")
    return verdict(
        (first + second) * MIB <= host["limits"]["workspace"], f"{first + second} {word}"
    )


@snippet(alone=True)
def reserve_space(host: Host) -> str:
    """Reserve room without writing to it."""
    descriptor = os.open("reserved", os.O_RDWR | os.O_CREAT)
    attempts = {
        "reserve": lambda: os.posix_fallocate(descriptor, 0, 1 << 30),
        "again": lambda: os.posix_fallocate(descriptor, 1 << 27, 1 << 30),
    }
    return walled(attempts, "ENOSPC", "EFBIG")


@snippet(alone=True)
def make_many_files(host: Host) -> str:
    """Make empty files until there are no more inodes; then directories, links and pipes."""
    most = {"/home/user": "workspace_files", "/tmp": "tmp_files", "/dev/shm": "tmp_files"}  # noqa: S108
    said, safe = {}, True
    for place, name in most.items():
        numbers = iter(range(10_000))
        made = [
            lambda: os.close(os.open(f"{place}/f{next(numbers)}", os.O_CREAT)),  # noqa: B023
            lambda: os.mkdir(f"{place}/f{next(numbers)}"),  # noqa: B023
            lambda: os.mkfifo(f"{place}/f{next(numbers)}"),  # noqa: B023
            lambda: os.symlink("x" * 900, f"{place}/f{next(numbers)}"),  # noqa: B023
        ]
        counts = [count_until_refused(step, 2000) for step in made]
        total = sum(count for count, _ in counts)
        said[place] = f"{total} {[word for _, word in counts]}"
        safe = safe and total <= host["limits"][name]
        safe = safe and {word for _, word in counts} == {"ENOSPC"}
        subprocess.run(f"rm -rf {place}/f*", shell=True, check=False)  # noqa: S602
    return verdict(safe, said)


@snippet(alone=True)
def make_many_links(host: Host) -> str:
    """Give one file more names than there are inodes."""
    with open("one", "wb"):
        pass
    names = iter(range(100_000))
    return bounded(lambda: os.link("one", f"l{next(names)}"), host["limits"]["workspace_files"])


@snippet(alone=True)
def nest_directories(host: Host) -> str:
    """Make a directory in a directory in a directory, deeper than any path is long."""

    def deeper() -> None:
        os.mkdir("d" * 250)
        os.chdir("d" * 250)

    return bounded(deeper, host["limits"]["workspace_files"])


@snippet(alone=True)
def attach_data_to_files(host: Host) -> str:
    """Hide data in attributes, whose pages count as no file's."""
    with open("tagged", "wb"):
        pass
    names = iter(range(100_000))
    count, word = count_until_refused(
        lambda: os.setxattr("tagged", f"user.{next(names)}", bytes(60_000)), 1000
    )
    return verdict(count * 60_000 <= host["limits"]["workspace"], f"{word} after {count}")


@snippet(bare=True)
def make_a_huge_file(host: Host) -> str:
    """Make a file with a size that nothing backs."""
    descriptor = os.open("huge", os.O_RDWR | os.O_CREAT)
    try:
        return walled({"truncate": lambda: os.ftruncate(descriptor, 1 << 40)}, "EFBIG", "ENOSPC")
    finally:
        os.close(descriptor)
        os.unlink("huge")


@snippet(alone=True)
def touch_more_of_a_file_than_there_is(host: Host) -> str:
    """Write through a mapping to a file with holes, for which there is no room."""
    with open("holes", "wb") as file:
        file.truncate(2 * host["limits"]["workspace"])

    def attack() -> None:
        descriptor = os.open("holes", os.O_RDWR)
        area = mmap.mmap(descriptor, 2 * host["limits"]["workspace"])
        for index in range(0, len(area), 4096):
            area[index] = 1

    return killed_by(in_child(attack), signal.SIGBUS, signal.SIGKILL)


@snippet(alone=True)
def open_an_archive_that_grows(host: Host) -> str:
    """Unpack a few kilobytes into a gigabyte."""
    with (
        zipfile.ZipFile("bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("zeros", "w", force_zip64=True) as file,
    ):
        for _ in range(256):
            file.write(bytes(MIB))
    small = os.stat("bomb.zip").st_size
    with zipfile.ZipFile("bomb.zip") as archive:
        word = attempt(lambda: archive.extract("zeros", "out"))
    return verdict(word in ("ENOSPC", "EFBIG"), f"{small} bytes, {word or 'unpacked'}")


@snippet(alone=True)
def open_many_files(host: Host) -> str:
    """Open files until no more may be open."""
    held: list[int] = []
    try:
        return bounded(lambda: held.append(os.open("/dev/null", 0)), host["limits"]["open_files"])
    finally:
        for descriptor in held:
            os.close(descriptor)


@snippet(alone=True)
def watch_many_files(host: Host) -> str:
    """Make as many watches as there may be."""
    libc = ctypes.CDLL(None, use_errno=True)
    held: list[int] = []

    def watch() -> None:
        descriptor = libc.inotify_init()
        if descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init")
        held.append(descriptor)

    try:
        return bounded(watch, 1024)
    finally:
        for descriptor in held:
            os.close(descriptor)


@snippet(alone=True, ends=("oom",))
def keep_many_locks(host: Host) -> str:
    """Lock every second byte of a file."""
    descriptor = os.open("locked", os.O_RDWR | os.O_CREAT)
    positions = iter(range(0, 1 << 30, 2))
    count, word = count_until_refused(
        lambda: fcntl.lockf(descriptor, fcntl.LOCK_EX, 1, next(positions)), 3000
    )
    os.close(descriptor)
    return verdict(True, f"{word} after {count}")


@snippet(levels=BOTH, alone=True)
def look_for_names_that_are_not_there(host: Host) -> str:
    """Have the kernel remember a hundred thousand names of nothing."""
    for number in range(100_000):
        os.access(f"/usr/lib/no-such-{os.getpid()}-{number}", os.F_OK)
    return verdict(True, "they are remembered on our account, and can be forgotten")


@snippet(alone=True)
def leave_files_open_that_are_gone(host: Host) -> str:
    """Fill the workspace with files that have no name any more."""
    held = []
    safe = True
    for _ in range(4):
        descriptor = os.open("gone", os.O_RDWR | os.O_CREAT)
        os.unlink("gone")
        held.append(descriptor)
        safe = (
            safe and os.fstatvfs(descriptor).f_blocks * 4096 <= host["limits"]["workspace"] + 4096
        )
        count_until_refused(lambda: os.write(held[-1], bytes(MIB)), 64)
    total = sum(os.fstat(descriptor).st_size for descriptor in held)
    for descriptor in held:
        os.close(descriptor)
    return verdict(safe and total <= host["limits"]["workspace"], f"{total / MIB:.1f} MiB")
