"""Parts of the kernel that only attacks on the kernel use: each is called as it would be for real.

Where a call would do harm to a host that lets it through, its arguments are such that it cannot.
"""

import ctypes
import mmap
import os
import signal
import struct

from tests.security.corpus import STANDARD, snippet
from tests.security.corpus.prelude import (
    MACHINE,
    NUMBERS,
    Host,
    attempt,
    call,
    denied,
    in_child,
    killed_by,
    libc,
    told_by_child,
    verdict,
    walled,
)

KEYRING = {"process": -2, "session": -3, "user": -4}


@snippet(bare=True)
def make_a_bpf_map(host: Host) -> str:
    """Keep data in the kernel for programs that run there."""
    attributes = struct.pack("=4I", 2, 4, 4, 1) + bytes(112)
    return denied(lambda: os.close(call("bpf", 0, attributes, 120)))


@snippet()
def load_a_bpf_program(host: Host) -> str:
    """Run a program in the kernel."""
    code = ctypes.create_string_buffer(bytes.fromhex("b7000000000000009500000000000000"))
    license_ = ctypes.create_string_buffer(b"GPL")
    addresses = (ctypes.addressof(code), ctypes.addressof(license_))
    attributes = struct.pack("=IIQQIIQ", 1, 2, *addresses, 0, 0, 0) + bytes(80)
    return denied(lambda: os.close(call("bpf", 5, attributes, 120)))


@snippet(bare=True)
def watch_the_processor(host: Host) -> str:
    """Open a performance counter of one's own."""
    # struct perf_event_attr: PERF_TYPE_SOFTWARE, size, PERF_COUNT_SW_TASK_CLOCK
    attributes = struct.pack("=IIQ", 1, 112, 1) + bytes(96)
    return denied(lambda: os.close(call("perf_event_open", attributes, 0, -1, -1, 0)))


@snippet(bare=True)
def submit_calls_by_a_ring(host: Host) -> str:
    """Make calls that no filter sees."""
    parameters = ctypes.create_string_buffer(120)
    return denied(lambda: os.close(call("io_uring_setup", 1, parameters)))


@snippet(bare=True)
def handle_ones_own_page_faults(host: Host) -> str:
    """Stop the kernel in the middle of a copy, for as long as one likes."""
    return denied(lambda: os.close(call("userfaultfd", 1 | os.O_CLOEXEC)))


@snippet(bare=True)
def keep_a_key(host: Host) -> str:
    """Store data in the kernel's keyrings."""
    return denied(lambda: call("add_key", b"user", b"hostile", b"x", 1, KEYRING["process"]))


@snippet(bare=True)
def ask_for_a_key(host: Host) -> str:
    """Have the kernel look for a key, which may run a program on the host."""
    return denied(lambda: call("request_key", b"user", b"hostile", None, 0))


@snippet(bare=True)
def open_the_keyrings(host: Host) -> str:
    """Find the keyrings of whoever started us."""

    def attack() -> str:
        return walled(
            {
                name: lambda number=number: call("keyctl", 0, number, 0, 0, 0)
                for name, number in KEYRING.items()
            }
        )

    return told_by_child(attack)


@snippet()
def read_a_key_of_the_operators(host: Host) -> str:
    """Search the session's keyring for a key of the operator's, and read it."""
    description = host["key"].encode()

    def attack() -> None:
        found = call("keyctl", 10, KEYRING["session"], b"user", description, 0)
        text = ctypes.create_string_buffer(64)
        call("keyctl", 11, found, text, 64, 0)

    return walled({"read": attack}, "ENOKEY")


@snippet()
def use_calls_of_the_past(host: Host) -> str:
    """Make calls that have long had no use."""
    attempts = {"cookie": lambda: call("lookup_dcookie", 1, ctypes.create_string_buffer(64), 64)}
    if MACHINE == "x86_64":
        for name, number in (("uselib", 134), ("sysfs", 139), ("nfsservctl", 180), ("ustat", 136)):
            attempts[name] = lambda number=number: call(number, 3, 0, 0)
    return walled(attempts)


@snippet(bare=True)
def add_filters_of_ones_own(host: Host) -> str:
    """Put a filter on top, which would decide and listen for what is run later."""
    action = ctypes.create_string_buffer(struct.pack("=I", 0x7FFF0000))
    instruction = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000))
    program = struct.pack("HxxxxxxP", 1, ctypes.addressof(instruction))

    def attack() -> str:
        return walled(
            {
                "ask": lambda: call("seccomp", 2, 0, action),
                "sizes": lambda: call("seccomp", 3, 0, ctypes.create_string_buffer(16)),
                "filter": lambda: call("seccomp", 1, 0, program),
                "listener": lambda: call("seccomp", 1, 8, program),
            }
        )

    return told_by_child(attack)


@snippet(bare=True)
def ask_for_landlock(host: Host) -> str:
    """Make rules for files of one's own."""
    return denied(lambda: call("landlock_create_ruleset", None, 0, 1))


@snippet()
def hide_memory_from_the_kernel(host: Host) -> str:
    """Take memory that nobody else can read, move or count."""
    return denied(lambda: os.close(call("memfd_secret", 0)))


@snippet(levels=STANDARD, bare=True)
def hold_memory_in_a_nameless_file(host: Host) -> str:
    """Take memory that no limit counts, where there is no cgroup."""
    return walled(
        {
            "plain": lambda: os.close(os.memfd_create("x")),
            "sealed": lambda: os.close(os.memfd_create("x", 2)),
        }
    )


@snippet(bare=True)
def hold_memory_in_huge_pages(host: Host) -> str:
    """Take pages of the host's reserve, which no cgroup counts."""
    huge, anonymous = 0x40000, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS

    def mapped() -> None:
        mmap.mmap(-1, 1 << 21, anonymous | huge).close()

    attempts = {"file": lambda: os.close(os.memfd_create("x", 4))}
    attempts["map"] = mapped
    return walled(attempts, "ENOMEM", "EINVAL")


@snippet(levels=STANDARD)
def share_memory_by_a_number(host: Host) -> str:
    """Make memory that outlives all who used it, where there is no cgroup."""
    return denied(lambda: call("shmget", 0, 4096, 0o1600))


@snippet()
def keep_messages_and_semaphores(host: Host) -> str:
    """Make the other objects of System V."""
    return walled(
        {
            "semaphores": lambda: call("semget", 0, 1, 0o1600),
            "messages": lambda: call("msgget", 0, 0o1600),
        }
    )


@snippet(bare=True)
def open_a_message_queue(host: Host) -> str:
    """Make a queue of POSIX's."""
    flags = os.O_CREAT | os.O_RDWR
    return denied(lambda: os.close(call("mq_open", b"hostile", flags, 0o600, None)), "EMFILE")


@snippet(bare=True)
def submit_calls_by_the_old_ring(host: Host) -> str:
    """Use asynchronous input and output, whose bound is the host's."""
    context = ctypes.create_string_buffer(8)
    return told_by_child(lambda: denied(lambda: call("io_setup", 1, context)))


@snippet()
def make_segments_of_ones_own(host: Host) -> str:
    """Write the table of segments, through which 16-bit code could run."""
    if MACHINE != "x86_64":
        return verdict(True, "this machine has no segments")
    # struct user_desc: entry 0, base 0, limit, 32 bits and usable
    entry = struct.pack("=IIII", 0, 0, 0xFFFFF, 0x51)
    return told_by_child(lambda: denied(lambda: call("modify_ldt", 1, entry, 16)))


@snippet()
def run_calls_of_32_bits(host: Host) -> str:
    """Make a call by the old interrupt, whose numbers mean something else."""
    if MACHINE != "x86_64":
        return verdict(True, "this machine has one table")
    code = bytes.fromhex("b814000000cd80c3")  # mov eax, 20 (getpid); int 0x80; ret

    def attack() -> None:
        area = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        area.write(code)
        address = ctypes.addressof(ctypes.c_char.from_buffer(area))
        ctypes.CFUNCTYPE(ctypes.c_int)(address)()

    return killed_by(in_child(attack), signal.SIGSYS)


@snippet()
def run_calls_of_32_bits_from_a_32_bit_segment(host: Host) -> str:
    """Jump into a segment of 32 bits and make the call from there."""
    if MACHINE != "x86_64":
        return verdict(True, "this machine has one table")
    # push 0x23; push target; retfq; target: mov eax, 20; int 0x80; hlt
    target = 14
    low = 0x40  # MAP_32BIT: the address must fit

    def attack() -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | low
        area = mmap.mmap(-1, 4096, flags, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        address = ctypes.addressof(ctypes.c_char.from_buffer(area))
        code = bytes.fromhex("6a2368") + struct.pack("<I", address + target)
        code += bytes.fromhex("48cb").ljust(target - len(code), b"\x90")
        code += bytes.fromhex("b814000000cd80f4")
        area.write(code)
        ctypes.CFUNCTYPE(ctypes.c_int)(address)()

    return killed_by(in_child(attack), signal.SIGSYS)


@snippet()
def make_calls_of_no_name(host: Host) -> str:
    """Make every call that has no number yet, and those that never had."""
    words: dict[str, int] = {}
    # Linux lets 335 and 336, by which probes return, past every filter, and kills who else calls.
    for number in (*range(550, 1024), 337, 400, 423, 0x3FFFFFFF, 1 << 29):
        word = attempt(lambda: libc_call(number))  # noqa: B023
        words[word] = words.get(word, 0) + 1
    for number in (-1, 2**31 - 1, 0x40000000, 0x40000200):
        status = in_child(lambda: libc_call(number))  # noqa: B023
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSYS
        word = "killed" if killed else f"wait status {status}"
        words[word] = words.get(word, 0) + 1
    return verdict(set(words) <= {"ENOSYS", "killed", f"wait status {1 << 8}"}, words)


def libc_call(number: int) -> None:
    """Make a call without arguments."""
    if libc.syscall(ctypes.c_long(number), 0, 0, 0, 0, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "refused")


@snippet()
def make_the_newest_calls(host: Host) -> str:
    """Make calls that older filters do not know."""
    text = ctypes.create_string_buffer(64)
    size = ctypes.create_string_buffer(struct.pack("=I", 64))
    return walled(
        {
            "cachestat": lambda: call("cachestat", 0, text, text, 0),
            "shadow stack": lambda: call("map_shadow_stack", 0, 4096, 0),
            "statmount": lambda: call("statmount", text, text, 64, 0),
            "get attribute": lambda: call("lsm_get_self_attr", 100, text, size, 0),
            "set attribute": lambda: call("lsm_set_self_attr", 100, text, 32, 0),
            **{str(number): lambda number=number: libc_call(number) for number in range(463, 480)},
        }
    )


@snippet(bare=True)
def give_pages_away(host: Host) -> str:
    """Put pages of one's memory into a pipe."""
    reading, writing = os.pipe()
    text = ctypes.create_string_buffer(4096)
    vector = struct.pack("=QQ", ctypes.addressof(text), 4096)
    try:
        return denied(lambda: call("vmsplice", writing, vector, 1, 0))
    finally:
        os.close(reading)
        os.close(writing)


@snippet()
def send_urgent_data_between_sockets(host: Host) -> str:
    """Send out-of-band data over a unix socket (CVE-2025-38236)."""
    import socket

    ours, theirs = socket.socketpair()
    with ours, theirs:
        return denied(lambda: ours.send(b"x", socket.MSG_OOB), "EOPNOTSUPP")


@snippet()
def catch_what_kills(host: Host) -> str:
    """Catch the signal of a refused call, and go on."""
    if MACHINE != "x86_64":
        return verdict(True, "this machine has one table")

    def attack() -> None:
        signal.signal(signal.SIGSYS, lambda *_: None)
        libc.syscall(ctypes.c_long(0x40000000 | NUMBERS["getpid"]))

    return killed_by(in_child(attack), signal.SIGSYS)
