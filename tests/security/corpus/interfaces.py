"""Parts of the kernel that only attacks on the kernel use: each is called as it would be for real.

Where a call would do harm to a host that lets it through, its arguments are such that it cannot.
"""

import ctypes
import fcntl
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
def replace_the_kernel(host: Host) -> str:
    """Load another kernel to be started, or a module into this one."""
    with open("empty", "wb"):
        pass
    descriptor = os.open("empty", os.O_RDONLY)
    try:
        return walled(
            {
                "kexec": lambda: call("kexec_file_load", descriptor, descriptor, 0, b"", 1 << 30),
                "old kexec": lambda: call("kexec_load", 0, 1 << 40, None, 0xFFFF0000),
                "module": lambda: call("init_module", b"x", 1, b""),
                "file": lambda: call("finit_module", descriptor, b"", 0),
                "unload": lambda: call("delete_module", b"no_such_module", os.O_NONBLOCK),
            }
        )
    finally:
        os.close(descriptor)


@snippet()
def restart_the_host(host: Host) -> str:
    """Restart or halt; the magic numbers are wrong on purpose."""
    return denied(lambda: call("reboot", 0, 0, 0, None))


@snippet()
def change_the_clock(host: Host) -> str:
    """Set the time of everybody; the times are such that none can be set."""
    never = struct.pack("=qq", 0, 2 * 10**9)
    return walled(
        {
            "clock": lambda: call("clock_settime", 0, never),
            "day": lambda: call("settimeofday", never, None),
            "monotonic": lambda: call("clock_settime", 1, never),
        }
    )


@snippet(bare=True)
def read_how_the_clock_is_kept(host: Host) -> str:
    """Read what keeps the host's clock right; nothing is changed."""
    state = ctypes.create_string_buffer(512)
    return walled(
        {
            "adjtimex": lambda: call("adjtimex", state),
            "clock_adjtime": lambda: call("clock_adjtime", 0, state),
        }
    )


@snippet(bare=True)
def read_the_kernels_log(host: Host) -> str:
    """Read messages of the host's kernel, with addresses and devices in them."""
    text = ctypes.create_string_buffer(4096)
    return walled(
        {
            "size": lambda: call("syslog", 10, None, 0),
            "read": lambda: call("syslog", 3, text, 4096),
        }
    )


@snippet()
def keep_account_of_processes(host: Host) -> str:
    """Have every process of the host written down in a file of ours."""
    with open("accounts", "wb"):
        pass
    return denied(lambda: call("acct", b"/home/user/no/such/accounts"))


@snippet()
def change_quotas(host: Host) -> str:
    """Ask for, and lift, the quota of a disk."""
    info = ctypes.create_string_buffer(128)
    return walled(
        {
            "ask": lambda: call("quotactl", 0x800004 << 8, b"/dev/vda", 0, info),
            "by file": lambda: call("quotactl_fd", 0, 0x800004 << 8, 0, info),
        }
    )


@snippet(bare=True)
def watch_every_file(host: Host) -> str:
    """Be told of, or decide on, every opening of a file on the host."""
    return walled(
        {
            "notify": lambda: os.close(call("fanotify_init", 0, os.O_RDONLY)),
            "decide": lambda: os.close(call("fanotify_init", 4, os.O_RDONLY)),
            "by name": lambda: os.close(call("fanotify_init", 0x200 | 0x400, os.O_RDONLY)),
        }
    )


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
def reach_the_ports_of_the_machine(host: Host) -> str:
    """Talk to devices past the kernel."""
    if MACHINE != "x86_64":
        return denied(lambda: call("perf_event_open", bytes(112), 0, -1, -1, 0))

    def attack() -> str:
        return walled({"all": lambda: call("iopl", 3), "one": lambda: call("ioperm", 0x80, 1, 1)})

    return told_by_child(attack)


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
    for number in (*range(550, 1024), 335, 400, 423, -1, 2**31 - 1, 0x3FFFFFFF, 1 << 29):
        word = attempt(lambda: libc_call(number))  # noqa: B023
        words[word] = words.get(word, 0) + 1
    return verdict(set(words) == {"ENOSYS"}, words)


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
def name_the_host(host: Host) -> str:
    """Give the host another name; the name is too long for any."""
    name = b"x" * 200
    return walled(
        {
            "host": lambda: call("sethostname", name, 200),
            "domain": lambda: call("setdomainname", name, 200),
        }
    )


@snippet()
def hang_up_the_terminal(host: Host) -> str:
    """Take the terminal away from whoever has it."""
    return denied(lambda: call("vhangup"))


@snippet()
def write_into_a_terminal(host: Host) -> str:
    """Type into the operator's terminal, or change a file's flags, by a device's own calls."""
    letter = ctypes.create_string_buffer(b"x")
    descriptor = os.open(".", os.O_RDONLY)
    try:
        attempts = {
            f"{label} {number}": lambda number=number, request=request: fcntl.ioctl(
                number, request, ctypes.addressof(letter)
            )
            for number in (0, 1, 2)
            for label, request in (("type", 0x5412), ("console", 0x541C), ("steal", 0x540E))
        }
        attempts["flags"] = lambda: fcntl.ioctl(descriptor, 0x80086601, bytes(8))
        return walled(attempts, "ENOTTY")
    finally:
        os.close(descriptor)


@snippet(bare=True)
def hold_a_file_by_a_lease(host: Host) -> str:
    """Hold up whoever opens a file of ours, the broker for one."""
    with open("leased", "wb"):
        pass
    descriptor = os.open("leased", os.O_RDONLY)
    try:
        return denied(lambda: fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK), "EINVAL")
    finally:
        os.close(descriptor)
        os.unlink("leased")


@snippet()
def choose_memory_of_the_machine(host: Host) -> str:
    """Choose the node one's memory comes from."""
    mask = struct.pack("=Q", 1)
    return walled(
        {
            "policy": lambda: call("set_mempolicy", 2, mask, 64),
            "bind": lambda: call("mbind", 0, 0, 0, mask, 64, 0),
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


@snippet(bare=True)
def make_special_files(host: Host) -> str:
    """Make whiteouts and devices by the older and the newer call."""
    attempts = {
        "whiteout": lambda: (os.mknod("w", 0o020600, 0), os.unlink("w")),
        "at": lambda: (os.mknod("v", 0o020600, os.makedev(1, 11), dir_fd=_here()), os.unlink("v")),
    }
    return walled(attempts)


def _here() -> int:
    return os.open(".", os.O_RDONLY)
