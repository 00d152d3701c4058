"""Privileges: ids, groups, capabilities, namespaces, limits, and a place before others."""

import ctypes
import os
import resource
import signal
import socket
import struct
import subprocess
import sys

from tests.security.corpus import snippet
from tests.security.corpus.prelude import (
    MACHINE,
    Host,
    attempt,
    call,
    denied,
    in_child,
    libc,
    told_by_child,
    verdict,
    walled,
)

NAMESPACES = {
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}


PR = {"KEEPCAPS": 8, "SECUREBITS": 28, "AMBIENT": 47, "DUMPABLE": 4, "MM": 35, "SECCOMP": 22}


@snippet(bare=True)
def leave_for_new_namespaces(host: Host) -> str:
    """Make each kind of namespace."""

    def attack() -> str:
        attempts = {
            name: lambda flag=flag: call("unshare", flag) for name, flag in NAMESPACES.items()
        }
        attempts["time"] = lambda: call("unshare", 0x80)
        return walled(attempts)

    return told_by_child(attack)


@snippet(bare=True)
def become_root_of_a_new_user_namespace(host: Host) -> str:
    """Make a user namespace, in which one has every capability."""
    return told_by_child(lambda: denied(lambda: call("unshare", NAMESPACES["user"]), "ENOSPC"))


@snippet(bare=True)
def leave_for_a_new_mount_namespace(host: Host) -> str:
    """Make a mount namespace with the capabilities one has."""
    return told_by_child(lambda: denied(lambda: call("unshare", NAMESPACES["mount"])))


@snippet(bare=True)
def clone_into_new_namespaces(host: Host) -> str:
    """Make each kind of namespace with a child that lives in it."""

    def clone(flag: int) -> None:
        # The order of arguments differs; only the first two matter, the rest is zero.
        if call("clone", flag | signal.SIGCHLD, 0, 0, 0, 0) == 0:
            os._exit(0)

    return told_by_child(
        lambda: walled({name: lambda flag=flag: clone(flag) for name, flag in NAMESPACES.items()})
    )


@snippet(bare=True)
def clone_with_the_newer_call(host: Host) -> str:
    """Use clone3, whose flags lie in memory where no filter can read them."""

    def clone(flags: int) -> None:
        # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, …
        fields = (flags, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
        arguments = b"".join(int(value).to_bytes(8, "little") for value in fields)
        if call("clone3", arguments, len(arguments)) == 0:
            os._exit(0)

    def attack() -> str:
        words = {f"{flags:#x}": attempt(lambda: clone(flags)) for flags in (0, 0x10000000)}  # noqa: B023
        return verdict(set(words.values()) == {"ENOSYS"}, words)

    return told_by_child(attack)


@snippet()
def raise_ones_own_limits(host: Host) -> str:
    """Raise the hard limits."""
    kinds = (
        "NOFILE",
        "NPROC",
        "FSIZE",
        "CORE",
        "MEMLOCK",
        "MSGQUEUE",
        "SIGPENDING",
        "RTPRIO",
        "NICE",
    )

    def attack() -> str:
        raised = []
        for name in kinds:
            kind = getattr(resource, f"RLIMIT_{name}", 13 if name == "NICE" else None)
            if kind is None:
                continue
            hard = resource.getrlimit(kind)[1]
            if hard == resource.RLIM_INFINITY:
                raised.append(f"{name} has none")
                continue
            try:
                resource.setrlimit(kind, (hard + 1, hard + 1))
            except (ValueError, OSError):
                continue
            raised.append(name)
        return verdict(not raised, raised)

    return told_by_child(attack)


@snippet(bare=True)
def run_before_everybody_else(host: Host) -> str:
    """Ask for real-time scheduling."""
    # struct sched_attr: size, policy DEADLINE, flags, nice, priority, runtime, deadline, period
    deadline = struct.pack("=IIQiIQQQ", 48, 6, 0, 0, 0, 10**6, 10**7, 10**7)

    def attack() -> str:
        one = os.sched_param(1)
        return walled(
            {
                "fifo": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, one),
                "round robin": lambda: os.sched_setscheduler(0, os.SCHED_RR, one),
                "deadline": lambda: call("sched_setattr", 0, deadline, 0),
            }
        )

    return told_by_child(attack)


@snippet(bare=True)
def be_less_nice(host: Host) -> str:
    """Take more than one's share of the processor and of the disk."""

    def attack() -> str:
        return walled(
            {
                "nice": lambda: os.setpriority(os.PRIO_PROCESS, 0, -5),
                "disk": lambda: call("ioprio_set", 1, 0, 1 << 13),
            }
        )

    return told_by_child(attack)


@snippet()
def become_another_user(host: Host) -> str:
    """Become root, the broker's user or a neighbour's."""

    def attack() -> str:
        attempts = {}
        for uid in (0, 1, 65534, 61_000, 100_000, host["uid"]):
            if uid == os.getuid():
                continue
            attempts[f"uid {uid}"] = lambda uid=uid: os.setuid(uid)
            attempts[f"euid {uid}"] = lambda uid=uid: os.seteuid(uid)
            attempts[f"gid {uid}"] = lambda uid=uid: os.setgid(uid)
            attempts[f"all {uid}"] = lambda uid=uid: os.setresuid(uid, uid, uid)
        return walled(attempts, "EINVAL")

    return told_by_child(attack)


@snippet(bare=True)
def join_groups(host: Host) -> str:
    """Join the groups of disks and containers, or leave one that takes rights away."""

    def attack() -> str:
        return walled({"join": lambda: os.setgroups([0, 6, 999]), "none": lambda: os.setgroups([])})

    return told_by_child(attack)


@snippet()
def take_capabilities(host: Host) -> str:
    """Set every capability; make them inheritable; keep them across changes of id."""
    header = struct.pack("=Ii", 0x20080522, 0)
    everything = b"\xff" * 24
    own = struct.pack("=6I", *[1 << 21] * 3, 0, 0, 0)  # CAP_SYS_ADMIN in each set

    def attack() -> str:
        return walled(
            {
                "all": lambda: call("capset", header, everything),
                "one": lambda: call("capset", header, own),
                "ambient": lambda: call("prctl", PR["AMBIENT"], 2, 21, 0, 0),
                "securebits": lambda: call("prctl", PR["SECUREBITS"], 0, 0, 0, 0),
                "keep": lambda: call("prctl", PR["KEEPCAPS"], 1, 0, 0, 0),
            },
            "EINVAL",
        )

    return told_by_child(attack)


@snippet(bare=True)
def be_another_kind_of_machine(host: Host) -> str:
    """Turn address randomisation off and make all memory executable, for what is run next."""

    def attack() -> str:
        return walled(
            {
                "no random": lambda: call("personality", 0x0040000),
                "executable": lambda: call("personality", 0x0400000),
                "32 bits": lambda: call("personality", 8),
            }
        )

    return told_by_child(attack)


@snippet(bare=True)
def become_dumpable(host: Host) -> str:
    """Let every process of one's user read this one's memory."""
    return told_by_child(
        lambda: walled({"dumpable": lambda: call("prctl", PR["DUMPABLE"], 1, 0, 0, 0)}, "EINVAL")
    )


@snippet()
def use_dangerous_process_settings(host: Host) -> str:
    """Change the map of one's memory, its filters, its tracer and its speculation."""

    def attack() -> str:
        return walled(
            {
                "mm": lambda: call("prctl", PR["MM"], 8, id(int), 0, 0),
                "filter": lambda: call("prctl", PR["SECCOMP"], 1, 0, 0, 0),
                "tracer": lambda: call("prctl", 0x59616D61, -1, 0, 0, 0),
                "speculation": lambda: call("prctl", 53, 0, 2, 0, 0),
                "core scheduling": lambda: call("prctl", 62, 1, 0, 0, 0),
                "time stamps": lambda: call("prctl", 26, 2, 0, 0, 0),
            },
            "EINVAL",
        )

    return told_by_child(attack)


@snippet(bare=True)
def forge_who_sent_a_message(host: Host) -> str:
    """Send root's name along with a message."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    forged = struct.pack("=iII", os.getpid(), 0, 4)
    ancillary = [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, forged)]
    with ours, theirs:
        return denied(lambda: ours.sendmsg([b"x"], ancillary), "EINVAL")


@snippet()
def keep_the_filter_across_an_exec(host: Host) -> str:
    """Run a fresh program and have it try again."""
    code = (
        "import ctypes; libc = ctypes.CDLL(None, use_errno=True);"
        "print(libc.unshare(0x10000000), ctypes.get_errno())"
    )
    ended = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False
    )
    result = ended.stdout.split()
    return verdict(result[:1] == ["-1"], f"{ended.stdout!r} {ended.stderr!r}")


@snippet()
def use_another_table_of_calls(host: Host) -> str:
    """Make the calls of x32, whose numbers mean the same but are not the same."""
    if MACHINE != "x86_64":
        return verdict(True, "this machine has one table")
    status = in_child(lambda: libc.syscall(ctypes.c_long(0x40000000 | 39)))
    return verdict(
        os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSYS, f"wait status {status}"
    )
