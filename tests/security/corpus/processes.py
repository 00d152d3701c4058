"""Other processes: to see, stop, read and enter."""

import ctypes
import fcntl
import os
import resource
import signal
import struct
import subprocess
import sys
import time

from tests.security.corpus import snippet
from tests.security.corpus.prelude import (
    Host,
    above,
    attempt,
    call,
    denied,
    processes,
    read_from,
    told_by_child,
    verdict,
    walled,
)

PTRACE_TRACEME, PTRACE_SEIZE, PTRACE_ATTACH = 0, 0x4206, 16
SIG0 = 0
NAMESPACES = {
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}


def family() -> set[int]:
    """Return this process, its threads, its reaper and its children."""
    children = ""
    own = f"/proc/self/task/{os.getpid()}/children"
    if not attempt(read_from(own)):  # else /proc is that of another namespace
        with open(own) as file:
            children = file.read()
    threads = os.listdir("/proc/self/task")
    return {1, os.getpid(), *map(int, children.split()), *map(int, threads)}


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
    return denied(lambda: _memory_of(above(), "process_vm_readv"))


@snippet()
def write_the_memory_of_the_process_above(host: Host) -> str:
    """Copy memory into the parent."""
    return denied(lambda: _memory_of(above(), "process_vm_writev"))


@snippet(bare=True)
def open_the_memory_of_the_process_above(host: Host) -> str:
    """Read the parent's memory, environment and map as files."""
    names = ("mem", "environ", "maps", "auxv")
    target = above()
    attempts = {
        name: lambda name=name: os.close(os.open(f"/proc/{target}/{name}", os.O_RDONLY))
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
        held = os.pidfd_open(above())
        try:
            os.close(call("pidfd_getfd", held, 0, 0))
        finally:
            os.close(held)

    return denied(attack)


@snippet(bare=True)
def compare_with_the_process_above(host: Host) -> str:
    """Learn the order of the kernel's addresses of two processes' files."""
    return denied(lambda: call("kcmp", os.getpid(), above(), 2, 0, 0))


@snippet(bare=True)
def enter_the_namespaces_of_the_process_above(host: Host) -> str:
    """Enter namespaces by their names in /proc."""
    target = above()

    def attack() -> str:
        attempts = {}
        for name in ("uts", "ipc", "net", "mnt", "pid", "cgroup"):
            for pid in (target, 1):
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
    target = above()

    def attack() -> str:
        held = os.pidfd_open(target)
        return denied(lambda: call("setns", held, NAMESPACES["uts"] | NAMESPACES["ipc"]))

    return told_by_child(attack)


@snippet(bare=True)
def change_the_limits_of_the_process_above(host: Host) -> str:
    """Read and set the parent's resource limits."""
    target = above()

    def change() -> None:
        kind = resource.RLIMIT_NOFILE
        resource.prlimit(target, kind, resource.prlimit(target, kind))

    return walled({"change": change}, "ESRCH")


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


@snippet(alone=True)
def leave_many_orphans(host: Host) -> str:
    """Leave many dead grandchildren behind, more than twice the processes allowed."""
    for _ in range(150):
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


@snippet()
def take_memory_away_from_the_process_above(host: Host) -> str:
    """Have the pages of another process written out, or freed."""
    target = above()

    def attack() -> str:
        held = os.pidfd_open(target)
        vector = struct.pack("=QQ", id(int) & ~4095, 4096)
        return walled(
            {
                "madvise": lambda: call("process_madvise", held, vector, 1, 21, 0),
                "release": lambda: call("process_mrelease", held, 0),
                "move": lambda: call("move_pages", target, 0, 0, 0, 0, 0),
                "migrate": lambda: call("migrate_pages", target, 0, 0, 0),
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


@snippet(bare=True)
def learn_of_robust_lists(host: Host) -> str:
    """Read a pointer out of another process."""
    pointer, length = ctypes.c_void_p(), ctypes.c_size_t()
    return walled(
        {
            "above": lambda: call(
                "get_robust_list", above(), ctypes.byref(pointer), ctypes.byref(length)
            )
        }
    )


@snippet()
def read_what_the_reaper_has_open(host: Host) -> str:
    """Read what the reaper, a copy of the zygote, has open."""
    names = ("fd/0", "fd/3", "environ", "cmdline", "cwd/.", "task/1/environ")
    found = [name for name in names if not attempt(read_from(f"/proc/1/{name}"))]
    return verdict(not found, found)
