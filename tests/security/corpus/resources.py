"""Too much of everything: memory, processes, files, time, output, and what the kernel keeps of it.

They run in the profile `small`, whose limits `host["limits"]` repeats.
"""

import ctypes
import fcntl
import mmap
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile

from tests.security.corpus import BOTH, FULL, snippet
from tests.security.corpus.prelude import (
    Host,
    attempt,
    bounded,
    call,
    count_until_refused,
    in_child,
    killed_by,
    told_by_child,
    verdict,
    walled,
)

MIB = 1 << 20
PAUSE = 4.0  # seconds that memory is held, for whoever looks at it now and then


def fill(path: str) -> tuple[int, str]:
    """Write zeros to a file until it is refused; return how many MiB there are, and the errno."""
    block = bytes(MIB)
    with open(path, "wb", buffering=0) as file:
        return count_until_refused(lambda: file.write(block), 4096)


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


@snippet(levels=FULL, ends=("oom",), errors=("OSError",))
def take_memory_in_pipes(host: Host) -> str:
    """Fill pipes, in as many processes as there may be."""

    def hoard() -> None:
        held: list[tuple[int, int]] = []
        for _ in range(1000):
            held.append(os.pipe())
            os.set_blocking(held[-1][1], False)
            attempt(lambda: os.write(held[-1][1], bytes(65536)))
        time.sleep(2 * PAUSE)

    for _ in range(30):
        if os.fork() == 0:
            try:
                hoard()
            finally:
                os._exit(0)
    return hold()


@snippet(levels=FULL, ends=("oom",), errors=("OSError",))
def take_memory_in_sockets(host: Host) -> str:
    """Fill the buffers of sockets that nobody reads."""
    held = []
    while len(held) < 1500:
        pair = socket.socketpair()
        for each in pair:
            each.setblocking(False)
            attempt(lambda: [each.send(bytes(65536)) for _ in range(64)])  # noqa: B023
        held.append(pair)
    return hold()


@snippet(levels=FULL, ends=("oom",), errors=("OSError",))
def take_memory_in_connections(host: Host) -> str:
    """Fill the buffers of connections over loopback."""
    server = socket.create_server(("127.0.0.1", 0), backlog=512)
    held = []
    for _ in range(400):
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
        for each in (ours, theirs):
            each.setblocking(False)
            attempt(lambda: [each.send(bytes(1 << 18)) for _ in range(64)])  # noqa: B023
        held.append((ours, theirs))
    return hold()


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
def fork_without_end(host: Host) -> str:
    """Make children that stay."""
    held: list[int] = []

    def fork() -> None:
        pid = os.fork()
        if pid == 0:
            try:
                time.sleep(60)
            finally:
                os._exit(0)
        held.append(pid)

    count, word = count_until_refused(fork, 1000)
    for pid in held:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return verdict(count <= host["limits"]["processes"], f"{word} after {count}")


@snippet(timeout=2, may_time_out=True, ends=("timeout", "oom", "signal .*"))
def fork_in_every_child(host: Host) -> str:
    """Fork for ever, in every child too."""
    while True:
        attempt(os.fork)


@snippet(timeout=2, may_time_out=True, ends=("timeout", "oom"))
def fork_in_the_shell(host: Host) -> str:
    """Fork for ever, as it is done in one line of shell."""
    subprocess.run(["/bin/bash", "-c", ":(){ :|:& };:; sleep 30"], check=False)
    return verdict(True, "it came to an end")


@snippet(alone=True)
def start_threads_without_end(host: Host) -> str:
    """Start threads that stay."""
    gate = threading.Event()
    held = []
    word = "no end in sight"
    for _ in range(1000):
        thread = threading.Thread(target=gate.wait, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            word = str(error)
            break
        held.append(thread)
    gate.set()
    return verdict(len(held) <= host["limits"]["processes"], f"{word} after {len(held)}")


@snippet(levels=FULL, alone=True)
def use_every_processor(host: Host) -> str:
    """Count in more processes than there are processors."""
    before, began = time.process_time(), time.monotonic()
    for _ in range(4):
        if os.fork() == 0:
            while time.monotonic() - began < 1.5:
                pass
            os._exit(0)
    for _ in range(4):
        os.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cores = (used.ru_utime + used.ru_stime + time.process_time() - before) / (
        time.monotonic() - began
    )
    return verdict(cores < 1.5 * host["limits"]["cpu"], f"{cores:.2f} cores")


@snippet(timeout=1, may_time_out=True)
def run_for_ever(host: Host) -> str:
    """Never end."""
    while True:
        pass


@snippet(timeout=1, may_time_out=True, ends=("timeout",))
def calculate_for_ever(host: Host) -> str:
    """Spend ages in one operation, which hears no interrupt."""
    return verdict(False, f"{(1 << 300_000_000) % 1_000_003 * (10**10**8 % 7)}")


@snippet(timeout=1, may_time_out=True, ends=("timeout",))
def match_for_ever(host: Host) -> str:
    """Match an expression that takes ages."""
    import re

    return verdict(False, re.match("(a+)+$", "a" * 64 + "b"))


@snippet(timeout=1, may_time_out=True, ends=("timeout",))
def catch_every_interrupt(host: Host) -> str:
    """Catch the interrupt, again and again."""
    while True:
        try:
            time.sleep(60)
        except BaseException:  # noqa: S112
            continue


@snippet(alone=True)
def print_without_end(host: Host) -> str:
    """Print more than anybody reads."""
    for _ in range(60_000):
        print("flood " * 160)  # noqa: T201
    return verdict(True, "printed")


@snippet(alone=True)
def print_one_huge_thing(host: Host) -> str:
    """Print one line of fifty megabytes."""
    print("x" * 50_000_000)  # noqa: T201
    sys.stderr.write("y" * 50_000_000)
    return verdict(True, "printed")


@snippet(alone=True)
def show_one_huge_picture(host: Host) -> str:
    """Show outputs that are larger than any may be, and many that are not."""
    from IPython.display import display

    display({"text/html": "x" * 30_000_000}, raw=True)
    for _ in range(40):
        display({"text/html": "x" * 900_000}, raw=True)
    return verdict(True, "shown")


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


@snippet(bare=True)
def set_many_timers(host: Host) -> str:
    """Make timers, each of which the kernel keeps."""
    number = ctypes.create_string_buffer(8)

    def attack() -> str:
        return bounded(lambda: call("timer_create", 1, None, number), 2000)

    return told_by_child(attack)


@snippet(bare=True)
def queue_many_signals(host: Host) -> str:
    """Send oneself signals that are not taken in."""
    # struct siginfo: number, errno, SI_QUEUE, pid, uid
    information = struct.pack("=iiiixxxxi", signal.SIGRTMIN, 0, -1, 0, 0).ljust(128, b"\0")
    numbers = {"x86_64": 129, "aarch64": 138}

    def attack() -> str:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN})
        queue = numbers[os.uname().machine]
        return bounded(lambda: call(queue, os.getpid(), signal.SIGRTMIN, information), 2000)

    return told_by_child(attack)


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


@snippet(alone=True)
def wait_for_each_other(host: Host) -> str:
    """Have descriptors wait for each other in a ring, and in a long chain."""
    import select

    rings = [select.epoll() for _ in range(200)]

    def chain() -> None:
        for first, second in zip(rings, rings[1:] + rings[:1], strict=True):
            first.register(second.fileno(), select.EPOLLIN)

    word = attempt(chain)
    for ring in rings:
        ring.close()
    return verdict(word in ("ELOOP", "EINVAL"), word)


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


@snippet(ends=("oom", "exit .*", "signal .*"), errors=("OSError", "MemoryError"), timeout=10)
def run_a_huge_command(host: Host) -> str:
    """Pass more arguments than there is room for, to many programs at once."""
    command = ["/bin/sleep", "2", *["x" * 100_000] * 15]
    started = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(50)]
    for each in started:
        each.wait()
    return verdict(True, "there was room enough")
