"""The kernel's own insides: its threads, its handlers, its objects, and ways for it to end."""

import ctypes
import gc
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time

from tests.security.corpus import snippet
from tests.security.corpus.prelude import (
    Host,
    attempt,
    call,
    own_descriptors,
    read_from,
    verdict,
    walled,
)

STATUS = {
    "NoNewPrivs": "1",
    "Seccomp": "2",
    **dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0" * 16),
}
ANY_END = (".*",)


def break_out() -> str:
    """Try one thing of each layer."""
    return walled(
        {
            "users": lambda: call("unshare", 0x10000000),
            "mount": lambda: call("mount", b"x", b"/tmp", b"tmpfs", 0, None),
            "netlink": lambda: socket.socket(16, 3, 0).close(),
            "bpf": lambda: call("bpf", 0, bytes(120), 120),
            "trace": lambda: call("ptrace", 0, 0, 0, 0),
            "shadow": read_from("/etc/shadow"),
            "program": lambda: os.close(os.open("/usr/bin/env", os.O_WRONLY)),
            "root": lambda: os.setresuid(0, 0, 0),
            "above": read_from("/proc/1/environ"),
        },
        *("EOPNOTSUPP", "EAFNOSUPPORT", "EINVAL", "ENOENT", "EROFS"),
    )


def in_loop_of(thread: object) -> str:
    """Run `break_out` in the event loop of one of the kernel's threads."""
    said: queue.Queue[str] = queue.Queue()
    thread.io_loop.add_callback(lambda: said.put(break_out()))
    try:
        return said.get(timeout=5)
    except queue.Empty:
        return verdict(False, "the thread does not answer")


@snippet(bare=True)
def find_a_thread_that_is_free(host: Host) -> str:
    """Look for a thread that was started before the sandbox was put on."""
    odd = {}
    for thread in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{thread}/status") as file:
            fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        found = {name: fields[name] for name, value in STATUS.items() if fields[name] != value}
        uids = set(fields["Uid"].split() + fields["Gid"].split() + fields["Groups"].split())
        if found or not uids <= {"1000", "65534"}:
            odd[thread] = found or uids
    return verdict(not odd, odd or f"{len(os.listdir('/proc/self/task'))} threads")


@snippet()
def break_out_of_the_control_thread(host: Host) -> str:
    """Try everything from the thread that interrupts."""
    return in_loop_of(get_ipython().kernel.control_thread)  # noqa: F821


@snippet()
def break_out_of_the_publishing_thread(host: Host) -> str:
    """Try everything from the thread that sends outputs."""
    return in_loop_of(get_ipython().kernel.iopub_thread)  # noqa: F821


@snippet()
def break_out_of_every_thread(host: Host) -> str:
    """Try everything from each thread that takes callbacks, and from a new one."""
    said = {}
    for thread in threading.enumerate():
        if getattr(thread, "io_loop", None) is not None and thread is not threading.main_thread():
            said[thread.name] = in_loop_of(thread)
    fresh: list[str] = []
    new = threading.Thread(target=lambda: fresh.append(break_out()))
    new.start()
    new.join()
    said["new"] = fresh[0]
    wrong = {name: text for name, text in said.items() if not text.startswith("SAFE")}
    return verdict(not wrong, wrong or sorted(said))


@snippet()
def break_out_of_a_signal_handler(host: Host) -> str:
    """Try everything while a signal is handled."""
    said: list[str] = []
    before = signal.signal(signal.SIGUSR2, lambda *_: said.append(break_out()))
    os.kill(os.getpid(), signal.SIGUSR2)
    deadline = time.monotonic() + 2
    while not said and time.monotonic() < deadline:
        pass
    signal.signal(signal.SIGUSR2, before)
    return said[0] if said else verdict(False, "the signal did not come")


@snippet()
def break_out_of_a_child(host: Host) -> str:
    """Try everything in a child, in its child, and in a session of their own."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            try:
                os.write(writing, break_out().encode())
            finally:
                os._exit(0)
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as said:
        return said.read().decode() or verdict(False, "no answer")


@snippet(ends=("bad_frame",))
def use_the_zygotes_objects(host: Host) -> str:
    """Find the objects by which the zygote spoke to those above it, and speak."""
    gc.unfreeze()
    said = {}
    for each in gc.get_objects():
        if isinstance(each, socket.socket) and each.fileno() >= 0:
            kind = attempt(lambda: os.readlink(f"/proc/self/fd/{each.fileno()}"))  # noqa: B023
            word = attempt(lambda: each.send(b"cancel", socket.MSG_DONTWAIT))  # noqa: B023
            said[each.fileno()] = kind or word or "sent"
    spaces = {
        n: t for n, t in own_descriptors().items() if t.partition(":")[0] in ("mnt", "pid", "net")
    }
    return verdict(not spaces, f"{said} {spaces}")


@snippet(alone=True)
def load_the_zygotes_code(host: Host) -> str:
    """Use our own modules, which are in memory, to fork, mount and enter."""
    found = sorted(name for name in sys.modules if name.startswith("_kernel"))
    system = sys.modules.get("_kernel.sandbox.system")
    if system is None:
        return verdict(True, found)
    return walled(
        {
            "unshare": lambda: system.unshare(0x10000000),
            "mount": lambda: system.mount("x", "/tmp", "tmpfs"),  # noqa: S108
            "umount": lambda: system.umount("/proc"),
            "setns": lambda: system.setns(own_descriptors and 0, 0),
        }
    )


@snippet(ends=("exit 3",))
def leave_at_once(host: Host) -> str:
    """End without a word."""
    os._exit(3)


@snippet(ends=("signal SIGSEGV",))
def crash(host: Host) -> str:
    """Read what is not there."""
    ctypes.string_at(0)
    return verdict(False, "read")


@snippet(ends=("signal SIGABRT",))
def abort(host: Host) -> str:
    """Abort, as a library does."""
    os.abort()


@snippet(ends=("signal SIGKILL",))
def kill_oneself(host: Host) -> str:
    """Kill oneself with a signal that nobody handles."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(10)
    return verdict(False, "still here")


@snippet(ends=("signal SIGSYS",))
def call_what_kills(host: Host) -> str:
    """Make the call that kills the caller."""
    if os.uname().machine != "x86_64":
        os.kill(os.getpid(), signal.SIGSYS)
    attempt(lambda: call(0x40000000 | 39))
    return verdict(False, "still here")


@snippet(ends=ANY_END, timeout=2, may_time_out=True)
def close_everything(host: Host) -> str:
    """Close every descriptor, the kernel's own sockets among them."""
    os.closerange(0, 4096)
    return verdict(True, "closed")


@snippet(ends=ANY_END, timeout=2, may_time_out=True)
def become_another_program(host: Host) -> str:
    """Put another program in the kernel's place."""
    os.execv("/bin/sleep", ["sleep", "60"])  # noqa: S606


@snippet(ends=ANY_END, timeout=2, may_time_out=True)
def be_two_kernels(host: Host) -> str:
    """Fork, and have the child go on as if it were the kernel."""
    os.fork()
    return verdict(True, "both go on")


@snippet(ends=ANY_END, timeout=2, may_time_out=True, errors=(".*",))
def break_the_language(host: Host) -> str:
    """Take away what all code needs."""
    import builtins
    import json

    json.dumps = json.loads = None
    sys.stdout = sys.stderr = None
    for name in ("len", "print", "isinstance", "getattr", "open"):
        setattr(builtins, name, None)
    return "SAFE: whatever comes of it"


@snippet(ends=ANY_END, timeout=2, may_time_out=True, errors=(".*",))
def empty_the_modules(host: Host) -> str:
    """Forget every module, and collect what is left."""
    for name in list(sys.modules):
        if name.startswith(("zmq", "tornado", "ipykernel", "_kernel", "asyncio")):
            sys.modules[name].__dict__.clear()
    gc.collect()
    return "SAFE: whatever comes of it"


@snippet(alone=True)
def leave_in_a_thread(host: Host) -> str:
    """Exit where only a thread can hear it."""
    thread = threading.Thread(target=sys.exit, args=(7,))
    thread.start()
    thread.join()
    return verdict(True, "the kernel is still there")


@snippet(ends=("exit .*", "signal SIGTERM", "timeout"), timeout=5)
def refuse_to_leave(host: Host) -> str:
    """Be told to end, and take for ever over it."""
    import atexit

    atexit.register(lambda: time.sleep(1000))
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
    return verdict(False, "still here")


@snippet(alone=True)
def stay_behind(host: Host) -> str:
    """Leave processes in sessions of their own that ignore every signal."""
    for _ in range(5):
        subprocess.Popen(
            ["/bin/sh", "-c", f"trap '' TERM INT HUP; sleep {host['for_ever']}"],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
        )
    return verdict(True, "they end with the kernel: the runner looks for them")


@snippet(alone=True)
def hold_the_interpreter(host: Host) -> str:
    """Start threads that compete for the interpreter, and go on after the cell."""

    def spin() -> None:
        while True:
            pass

    for _ in range(4):
        threading.Thread(target=spin, daemon=True).start()
    return verdict(True, "they spin; others do not notice")
