"""What every snippet may use. It is sent along with each: the standard library alone.

A snippet makes its attack for real and judges by what came of it: the last line it prints begins
with SAFE or UNSAFE.
"""

import ctypes
import errno
import os
import platform
import re
from typing import Any

Host = dict[str, Any]  # what the host tells its attackers: see `tests/security/conftest.py`

MACHINE = platform.machine()
# Numbers of the calls that Python has no function for: x86_64, aarch64; one where they are alike.
_CALLS = """
    semget 64 190; semctl 66 191; msgget 68 186; shmget 29 194; shmat 30 196; shmctl 31 195
    getpid 39 172; clone 56 220; ptrace 101 117; syslog 103 116; capget 125 90; capset 126 91
    personality 135 92; setpriority 141 140; sched_setscheduler 144 119; mlock 149 228
    mlockall 151 230; vhangup 153 58; modify_ldt 154; pivot_root 155 41; prctl 157 167
    adjtimex 159 171; chroot 161 51; acct 163 89; settimeofday 164 170; mount 165 40
    umount2 166 39; swapon 167 224; swapoff 168 225; reboot 169 142; sethostname 170 161
    setdomainname 171 162; iopl 172; ioperm 173; init_module 175 105; delete_module 176 106
    quotactl 179 60; tkill 200 130; io_setup 206 0; lookup_dcookie 212 18; timer_create 222 107
    clock_settime 227 112; mbind 237 235; set_mempolicy 238 237; mq_open 240 180
    kexec_load 246 104; add_key 248 217; request_key 249 218; keyctl 250 219; ioprio_set 251 30
    migrate_pages 256 238; unshare 272 97; get_robust_list 274 100; splice 275 76; tee 276 77
    vmsplice 278 75; move_pages 279 239; perf_event_open 298 241; fanotify_init 300 262
    prlimit64 302 261; name_to_handle_at 303 264; open_by_handle_at 304 265
    clock_adjtime 305 266; setns 308 268; process_vm_readv 310 270; process_vm_writev 311 271
    kcmp 312 272; finit_module 313 273; sched_setattr 314 274; seccomp 317 277
    memfd_create 319 279; kexec_file_load 320 294; bpf 321 280; userfaultfd 323 282
    pidfd_send_signal 424; io_uring_setup 425; open_tree 428; move_mount 429; fsopen 430
    fsconfig 431; fsmount 432; fspick 433; pidfd_open 434; clone3 435; openat2 437
    pidfd_getfd 438; process_madvise 440; mount_setattr 442; quotactl_fd 443
    landlock_create_ruleset 444; landlock_restrict_self 446; memfd_secret 447
    process_mrelease 448; cachestat 451; map_shadow_stack 453; statmount 457; listmount 458
    lsm_get_self_attr 459; lsm_set_self_attr 460
"""
_ONLY_X86 = ("modify_ldt", "iopl", "ioperm")
NUMBERS = {}
for _entry in _CALLS.replace("\n", ";").split(";"):
    if _entry.strip():
        _name, *_numbers = _entry.split()
        if MACHINE == "x86_64" or _name not in _ONLY_X86:
            NUMBERS[_name] = int(_numbers[0 if MACHINE == "x86_64" else -1])

# How a wall answers. Any other errno means that the attack got as far as the kernel's own code.
WALLS = ("EPERM", "EACCES", "ENOSYS")
NOT_THERE = (*WALLS, "ENOENT", "EROFS")

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def call(name: str | int, *arguments: Any) -> int:
    """Make a system call by its name or number; integers are passed as longs. Raises OSError."""
    number = NUMBERS[name] if isinstance(name, str) else name
    passed = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = libc.syscall(ctypes.c_long(number), *passed)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(name))
    return int(result)


def attempt(what: Any) -> str:
    """Return the name of the errno an attempt failed with; empty if it worked."""
    try:
        what()
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:  # which has a second name
            return "EOPNOTSUPP"
        return errno.errorcode.get(error.errno or 0, repr(error))
    return ""


def verdict(safe: bool, evidence: object = "") -> str:
    """Return the line that a snippet ends with."""
    return f"{'SAFE' if safe else 'UNSAFE'}: {evidence}"


def walled(attempts: dict[str, Any], *also: str, walls: tuple[str, ...] = WALLS) -> str:
    """Judge attempts that must all fail with one of these errnos, or one of those `also` named."""
    said = {label: attempt(what) or "it worked" for label, what in attempts.items()}
    evidence = ", ".join(f"{label}: {word}" for label, word in said.items())
    return verdict(all(word in (*walls, *also) for word in said.values()), evidence)


def denied(what: Any, *also: str) -> str:
    """Judge a call that must not get as far as the kernel's own code."""
    return walled({"call": what}, *also)


def hidden(what: Any, *also: str) -> str:
    """Judge an attempt on a file that must not be there, or not be open to us."""
    return walled({"file": what}, *also, walls=NOT_THERE)


def in_child(what: Any) -> int:
    """Return the wait status of a forked child that does it: exit 0 if it worked, 1 if not."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            what()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]


def told_by_child(what: Any) -> str:
    """Return what a forked child's function returned, or how the child ended."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        text = ""
        try:
            text = str(what())
        except BaseException as error:
            text = f"UNSAFE: {error!r}"
        finally:
            os.write(writing, text.encode()[:4000])
            os._exit(0)
    os.close(writing)
    text = os.read(reading, 4096).decode()
    os.close(reading)
    status = os.waitpid(pid, 0)[1]
    return text or f"UNSAFE: the child ended with {os.waitstatus_to_exitcode(status)}"


def killed_by(status: int, *numbers: int) -> str:
    """Judge a child that must have been killed by one of these signals."""
    word = os.waitstatus_to_exitcode(status)
    return verdict(-word in numbers, f"the child ended with {word}")


def count_until_refused(step: Any, bound: int) -> tuple[int, str]:
    """Do it again and again, `bound` times at most; return how often it worked, and the errno."""
    for count in range(bound):
        try:
            step()
        except OSError as error:
            return count, errno.errorcode.get(error.errno or 0, repr(error))
    return bound, "no end in sight"


def bounded(step: Any, most: int) -> str:
    """Judge something that must be refused after `most` times or sooner."""
    count, word = count_until_refused(step, most + 1)
    return verdict(count <= most, f"{word} after {count}")


def write_to(path: str, data: bytes = b"x", flags: int = os.O_WRONLY) -> Any:
    """Return the attempt to open a file and write to it."""

    def attack() -> None:
        descriptor = os.open(path, flags, 0o644)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)

    return attack


def read_from(path: str) -> Any:
    """Return the attempt to read from a file."""

    def attack() -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            os.read(descriptor, 16)
        finally:
            os.close(descriptor)

    return attack


def own_descriptors() -> dict[int, str]:
    """Return what each open descriptor of this process refers to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the listing's own, closed by now
    return found


def above() -> int:
    """Return the process above this one: its parent or, if that cannot be named, its reaper."""
    return os.getppid() or 1


def processes() -> list[int]:
    """Return the processes that /proc shows."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def scan_memory(patterns: list[str]) -> list[str]:
    """Return those patterns that something in this process's writable memory matches.

    A pattern is written `[a][b]`, so that neither it nor what is made of it holds what it finds.
    """
    found: set[str] = set()
    compiled = {pattern: re.compile(pattern.encode("latin-1")) for pattern in patterns}
    with open("/proc/self/maps") as file:
        lines = file.read().splitlines()
    for line in lines:
        span, mode, *rest = line.split()
        if not mode.startswith("rw") or rest[-1] in ("[vvar]", "[vsyscall]"):
            continue
        low, high = (int(text, 16) for text in span.split("-"))
        try:
            area = (ctypes.c_char * (high - low)).from_address(low)
        except (ValueError, OverflowError):
            continue
        found |= {pattern for pattern, regex in compiled.items() if regex.search(area)}
    return sorted(found)
