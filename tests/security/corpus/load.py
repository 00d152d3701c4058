"""Too many processes and threads, too long, too much output: the limits are `host["limits"]`."""

import ctypes
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
import time

from tests.security.corpus import FULL, snippet
from tests.security.corpus.prelude import (
    Host,
    attempt,
    bounded,
    call,
    count_until_refused,
    told_by_child,
    verdict,
)


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


@snippet(ends=("oom", "exit .*", "signal .*"), errors=("OSError", "MemoryError"), timeout=10)
def run_a_huge_command(host: Host) -> str:
    """Pass more arguments than there is room for, to many programs at once."""
    command = ["/bin/sleep", "2", *["x" * 100_000] * 15]
    started = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(50)]
    for each in started:
        each.wait()
    return verdict(True, "there was room enough")
