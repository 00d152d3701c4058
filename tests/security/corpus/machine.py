"""The whole machine: its clock, log, name, kernel, disks and devices.

Where a call would do harm to a host that lets it through, its arguments are such that it cannot.
"""

import ctypes
import fcntl
import os
import struct

from tests.security.corpus import snippet
from tests.security.corpus.prelude import (
    MACHINE,
    Host,
    call,
    denied,
    told_by_child,
    walled,
)


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


@snippet(bare=True)
def watch_what_the_host_runs(host: Host) -> str:
    """Be told of each program that is opened: the files are those of the host."""

    def watch() -> None:
        watcher = ctypes.CDLL(None, use_errno=True).inotify_init1(os.O_CLOEXEC)
        if watcher < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        os.close(watcher)

    programs = os.open("/usr/bin", os.O_RDONLY)
    try:
        return walled(
            {
                "by inotify": watch,
                "by a note": lambda: fcntl.fcntl(programs, fcntl.F_NOTIFY, fcntl.DN_RENAME),
            },
            "EINVAL",
        )
    finally:
        os.close(programs)


@snippet()
def reach_the_ports_of_the_machine(host: Host) -> str:
    """Talk to devices past the kernel."""
    if MACHINE != "x86_64":
        return denied(lambda: call("perf_event_open", bytes(112), 0, -1, -1, 0))

    def attack() -> str:
        return walled({"all": lambda: call("iopl", 3), "one": lambda: call("ioperm", 0x80, 1, 1)})

    return told_by_child(attack)


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
    descriptor = os.open(".", os.O_RDONLY)
    try:
        attempts = {
            f"{label} {number}": lambda number=number, request=request: fcntl.ioctl(
                number, request, b"x"
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
def make_special_files(host: Host) -> str:
    """Make whiteouts and devices by the older and the newer call."""
    attempts = {
        "whiteout": lambda: (os.mknod("w", 0o020600, 0), os.unlink("w")),
        "at": lambda: (os.mknod("v", 0o020600, os.makedev(1, 11), dir_fd=_here()), os.unlink("v")),
    }
    return walled(attempts)


def _here() -> int:
    return os.open(".", os.O_RDONLY)
