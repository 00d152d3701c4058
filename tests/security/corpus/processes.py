"""Other processes: to see, stop, read and become; and ways to more than one was given."""

import ctypes
import fcntl
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time

from tests.security.corpus import snippet
from tests.security.corpus.prelude import (
    MACHINE,
    Host,
    attempt,
    call,
    denied,
    in_child,
    libc,
    processes,
    read_from,
    told_by_child,
    verdict,
    walled,
)

SIG0 = 0
PTRACE_TRACEME, PTRACE_SEIZE, PTRACE_ATTACH = 0, 0x4206, 16
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


def family() -> set[int]:
    """Return this process, its reaper and its children."""
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return {1, os.getpid(), *map(int, file.read().split())}


@snippet(bare=True)
def see_other_processes(host: Host) -> str:
    """List processes that are not one's own."""
    strangers = set(processes()) - family()
    return verdict(not strangers, f"{len(strangers)} strangers")


@snippet(bare=True)
def find_processes_by_signal(host: Host) -> str:
    """Find processes by asking whether they could be signalled."""
    found = [pid for pid in range(1, 66_000) if not attempt(lambda: os.kill(pid, SIG0))]  # noqa: B023
    strangers = set(found) - family()
    return verdict(not strangers, f"{len(strangers)} strangers")


@snippet(bare=True)
def signal_the_broker(host: Host) -> str:
    """Signal the broker, its zygote and a neighbour by their numbers on the host."""
    pids = {"broker": host["broker_pid"], "neighbour": host["neighbour_pid"]}
    attempts = {name: lambda pid=pid: os.kill(pid, SIG0) for name, pid in pids.items()}
    return walled(attempts, "ESRCH")


@snippet(alone=True)
def kill_everybody(host: Host) -> str:
    """Kill all that may be killed."""
    word = attempt(lambda: os.kill(-1, signal.SIGKILL))
    return verdict(True, f"{word or 'done'}; we are still here")


@snippet(alone=True)
def kill_the_reaper(host: Host) -> str:
    """Kill, stop and interrupt pid 1 of one's own namespace."""
    words = {}
    for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGABRT):
        words[number.name] = attempt(lambda: os.kill(1, number)) or "sent"  # noqa: B023
    ended = subprocess.run(["/bin/true"], check=False)
    return verdict(ended.returncode == 0, f"{words}; the reaper is still there")


@snippet(bare=True)
def trace_a_child(host: Host) -> str:
    """Trace a process of one's own, as a debugger does."""
    pid = os.fork()
    if pid == 0:
        time.sleep(30)
        os._exit(0)
    try:
        return denied(lambda: call("ptrace", PTRACE_SEIZE, pid, 0, 0))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@snippet()
def trace_the_reaper(host: Host) -> str:
    """Trace the process above, which knows what we do not."""
    return walled(
        {
            "seize": lambda: call("ptrace", PTRACE_SEIZE, 1, 0, 0),
            "attach": lambda: call("ptrace", PTRACE_ATTACH, 1, 0, 0),
        }
    )


@snippet(bare=True)
def be_traced(host: Host) -> str:
    """Ask to be traced by the process above."""
    return told_by_child(lambda: denied(lambda: call("ptrace", PTRACE_TRACEME, 0, 0, 0)))


def _memory_of(pid: int, name: str) -> int:
    buffer = ctypes.create_string_buffer(8)
    # A static object of the interpreter's: at the same address in all that were forked.
    here = struct.pack("=QQ", ctypes.addressof(buffer), 8)
    there = struct.pack("=QQ", id(int), 8)
    return call(name, pid, here, 1, there, 1, 0)


@snippet(bare=True)
def read_the_memory_of_the_process_above(host: Host) -> str:
    """Copy memory out of the parent."""
    return denied(lambda: _memory_of(os.getppid(), "process_vm_readv"))


@snippet()
def write_the_memory_of_the_process_above(host: Host) -> str:
    """Copy memory into the parent."""
    return denied(lambda: _memory_of(os.getppid(), "process_vm_writev"))


@snippet(bare=True)
def open_the_memory_of_the_process_above(host: Host) -> str:
    """Read the parent's memory, environment and map as files."""
    names = ("mem", "environ", "maps", "auxv")
    above = os.getppid()
    attempts = {
        name: lambda name=name: os.close(os.open(f"/proc/{above}/{name}", os.O_RDONLY))
        for name in names
    }
    return walled(attempts, "ENOENT")


@snippet(bare=True)
def open_ones_memory_in_a_child(host: Host) -> str:
    """Have an exec'd child read the memory of the kernel that started it."""
    code = f"import os; os.close(os.open('/proc/{os.getpid()}/mem', os.O_RDONLY))"
    ended = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False
    )
    return verdict(ended.returncode != 0, ended.stderr.strip().rpartition("\n")[2])


@snippet(bare=True)
def take_a_descriptor_from_the_process_above(host: Host) -> str:
    """Copy a descriptor out of the parent."""

    def attack() -> None:
        above = os.pidfd_open(os.getppid())
        try:
            os.close(call("pidfd_getfd", above, 0, 0))
        finally:
            os.close(above)

    return denied(attack)


@snippet(bare=True)
def compare_with_the_process_above(host: Host) -> str:
    """Learn the order of the kernel's addresses of two processes' files."""
    return denied(lambda: call("kcmp", os.getpid(), os.getppid(), 2, 0, 0))


@snippet(bare=True)
def enter_the_namespaces_of_the_process_above(host: Host) -> str:
    """Enter namespaces by their names in /proc."""

    def attack() -> str:
        attempts = {}
        for name in ("uts", "ipc", "net", "mnt", "pid", "cgroup"):
            for pid in (os.getppid(), 1):
                attempts[f"{pid} {name}"] = lambda pid=pid, name=name: _enter(pid, name)
        return walled(attempts, "ENOENT")

    return told_by_child(attack)


def _enter(pid: int, name: str) -> None:
    descriptor = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY)
    try:
        call("setns", descriptor, 0)
    finally:
        os.close(descriptor)


@snippet(bare=True)
def enter_the_namespaces_by_a_pidfd(host: Host) -> str:
    """Enter all namespaces of the parent at once."""

    def attack() -> str:
        above = os.pidfd_open(os.getppid())
        return denied(lambda: call("setns", above, NAMESPACES["uts"] | NAMESPACES["ipc"]))

    return told_by_child(attack)


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


@snippet(bare=True)
def change_the_limits_of_the_process_above(host: Host) -> str:
    """Read and set the parent's resource limits."""
    above = os.getppid()

    def change() -> None:
        kind = resource.RLIMIT_NOFILE
        resource.prlimit(above, kind, resource.prlimit(above, kind))

    return walled({"change": change}, "ESRCH")


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
def slow_others_down(host: Host) -> str:
    """Make all processes of one's user, or named ones, nicer and slower."""

    def attack() -> str:
        attempts = {
            name: lambda pid=pid: os.setpriority(os.PRIO_PROCESS, pid, 19)
            for name, pid in (("broker", host["broker_pid"]), ("neighbour", host["neighbour_pid"]))
        }
        attempts["affinity"] = lambda: os.sched_setaffinity(host["broker_pid"], {0})
        word = attempt(lambda: os.setpriority(os.PRIO_USER, 0, os.getpriority(os.PRIO_USER, 0) + 1))
        judged = walled(attempts, "ESRCH")
        return f"{judged}, user: {word or 'our own, it is to be hoped'}"

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


@snippet(alone=True)
def leave_many_orphans(host: Host) -> str:
    """Leave three hundred dead grandchildren behind, several times the processes allowed."""
    for _ in range(300):
        pid = os.fork()
        if pid == 0:
            if os.fork() == 0:
                os._exit(0)
            os._exit(0)
        os.waitpid(pid, 0)
    deadline = time.monotonic() + 5
    while len(processes()) > 3 and time.monotonic() < deadline:
        os.sched_yield()
    left = processes()
    ended = subprocess.run(["/bin/true"], check=False)
    return verdict(ended.returncode == 0 and len(left) <= 3, f"left: {left}")


@snippet(ends=("timeout",), timeout=1, may_time_out=True)
def stop_oneself(host: Host) -> str:
    """Stop, so that no signal but one is heard."""
    os.kill(os.getpid(), signal.SIGSTOP)
    return verdict(False, "somebody had us go on")


@snippet(ends=("timeout",), timeout=1)
def hear_no_interrupt(host: Host) -> str:
    """Run for ever and ignore every signal that can be ignored."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        attempt(lambda: signal.signal(number, signal.SIG_IGN))  # noqa: B023
    while True:
        pass


@snippet(bare=True)
def send_signals_by_a_file(host: Host) -> str:
    """Have the kernel signal the broker whenever a pipe of ours can be read."""
    reading, writing = os.pipe()
    try:
        return denied(lambda: fcntl.fcntl(reading, fcntl.F_SETOWN, host["broker_pid"]), "ESRCH")
    finally:
        os.close(reading)
        os.close(writing)


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
def take_memory_away_from_the_process_above(host: Host) -> str:
    """Have the pages of another process written out, or freed."""

    def attack() -> str:
        above = os.pidfd_open(os.getppid())
        vector = struct.pack("=QQ", id(int) & ~4095, 4096)
        return walled(
            {
                "madvise": lambda: call("process_madvise", above, vector, 1, 21, 0),
                "release": lambda: call("process_mrelease", above, 0),
                "move": lambda: call("move_pages", os.getppid(), 0, 0, 0, 0, 0),
                "migrate": lambda: call("migrate_pages", os.getppid(), 0, 0, 0),
            }
        )

    return told_by_child(attack)


@snippet()
def signal_threads_of_others(host: Host) -> str:
    """Signal single threads by number, and groups of processes."""
    return walled(
        {
            "thread": lambda: call("tkill", host["broker_pid"], SIG0),
            "group": lambda: os.killpg(host["broker_pid"], SIG0),
            "session": lambda: os.getsid(host["broker_pid"]),
            "pidfd": lambda: os.close(os.pidfd_open(host["broker_pid"])),
        },
        "ESRCH",
    )


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


@snippet(bare=True)
def learn_of_robust_lists(host: Host) -> str:
    """Read a pointer out of another process."""
    pointer, length = ctypes.c_void_p(), ctypes.c_size_t()
    return walled(
        {
            "above": lambda: call(
                "get_robust_list", os.getppid(), ctypes.byref(pointer), ctypes.byref(length)
            )
        }
    )


@snippet()
def read_what_the_reaper_has_open(host: Host) -> str:
    """Read what the reaper, a copy of the zygote, has open."""
    names = ("fd/0", "fd/3", "environ", "cmdline", "cwd/.", "task/1/environ")
    found = [name for name in names if not attempt(read_from(f"/proc/1/{name}"))]
    return verdict(not found, found)
