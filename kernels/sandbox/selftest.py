"""Try to get out: a dozen hostile cases, run in a real sandbox before a profile serves anybody.

Each case attempts what hostile code would, and judges by what happened. The verdicts travel up the
config socket as rows of (layer, case, safe, evidence, remedy).
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import signal
import socket
from collections.abc import Callable
from typing import Any, NoReturn

from . import mounts, system

Verdict = tuple[bool, str]
X32 = 0x40000000
GETPID = {"x86_64": 39, "aarch64": 172}
# Calls that only hostile code makes, by number: bpf, perf_event_open, io_uring_setup, userfaultfd.
EXOTIC = {"x86_64": (321, 298, 425, 323), "aarch64": (280, 241, 425, 282)}
FAMILIES = {"AF_NETLINK": 16, "AF_PACKET": 17, "AF_ALG": 38, "AF_VSOCK": 40}
PTRACE = {"x86_64": 101, "aarch64": 117}
MEMFD = {"x86_64": 319, "aarch64": 279}
AT_BOUND = ("EAGAIN", "ENOMEM")  # how the start of a process fails there
ELSEWHERE = ("192.0.2.1", 9)  # an address for documentation: nobody's
_libc = ctypes.CDLL(None, use_errno=True)


def attempt(what: Callable[[], object]) -> str:
    """Return how the attempt was refused, or nothing if it worked."""
    try:
        what()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return ""


def refused(what: Callable[[], object]) -> Verdict:
    """Judge an attempt that must be refused."""
    word = attempt(what)
    return bool(word), word or "it worked"


def call(number: int, *arguments: int) -> int:
    """Make a system call by number. Raises OSError."""
    result: int = _libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result


def in_child(what: Callable[[], object]) -> int:
    """Return the wait status of a child that does it."""
    pid = os.fork()
    if pid == 0:
        try:
            what()
        finally:
            os._exit(0)
    return os.waitpid(pid, 0)[1]


def new_user_namespace() -> Verdict:
    """Become root in a user namespace of one's own."""
    return refused(lambda: system.unshare(system.CLONE_NEWUSER))


def new_mount() -> Verdict:
    """Mount something over what is there."""
    # Over what only a sandbox has: run by mistake on a host, this harms nothing.
    return refused(lambda: system.mount("x", mounts.HOME, "tmpfs"))


def host_files() -> Verdict:
    """Find files of the host."""
    paths = ("/etc/shadow", "/etc/machine-id", "/sys/kernel", "/boot", "/var/lib", "/dev/pts/0")
    seen = [path for path in paths if os.path.exists(path)]
    return not seen, f"seen: {', '.join(seen) or 'nothing'}"


def system_files() -> Verdict:
    """Change a program that others will run."""
    return refused(lambda: os.open("/usr/bin/.x", os.O_CREAT | os.O_WRONLY))


def other_processes() -> Verdict:
    """See a process that is not one's own."""
    pids = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
    return set(pids) <= {1, os.getpid()}, f"pids {', '.join(map(str, pids))}"


def foreign_memory() -> Verdict:
    """Attach to the process above."""
    return refused(lambda: call(PTRACE[system.MACHINE], 16, 1, 0, 0))


def the_network() -> Verdict:
    """Reach an address outside."""

    def connect() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
            connection.connect(ELSEWHERE)

    return refused(connect)


def odd_families() -> Verdict:
    """Open sockets that no namespace holds."""
    opened = [name for name, number in FAMILIES.items() if not attempt(_opener(number))]
    return not opened, f"opened: {', '.join(opened) or 'none'}"


def _opener(family: int) -> Callable[[], None]:
    return lambda: socket.socket(family, socket.SOCK_RAW if family == 17 else 3).close()


def exotic_calls() -> Verdict:
    """Use parts of the kernel that only attacks use."""
    words = {number: attempt(_caller(number)) for number in EXOTIC[system.MACHINE]}
    worked = [str(number) for number, word in words.items() if word not in ("ENOSYS", "EPERM")]
    return not worked, f"not refused: {', '.join(worked) or 'none'}"


def _caller(number: int) -> Callable[[], int]:
    return lambda: call(number, 0, 0, 0, 0, 0)


def other_tables() -> Verdict:
    """Go round the filter through another table of calls."""
    if system.MACHINE != "x86_64":
        return True, "this machine has one table"
    status = in_child(lambda: call(X32 | GETPID["x86_64"]))
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSYS
    return killed, f"wait status {status}"


def capabilities() -> Verdict:
    """Have a capability, or gain one by an exec."""
    with open("/proc/self/status") as file:
        fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    names = ("CapEff", "CapPrm", "CapBnd", "CapAmb")
    said = {name: int(fields[name], 16) for name in names} | {"NNP": int(fields["NoNewPrivs"])}
    return said == dict.fromkeys(names, 0) | {"NNP": 1}, f"{fields['CapBnd']}, NNP {said['NNP']}"


def own_settings() -> Verdict:
    """Write where only Landlock forbids it."""
    # After an exec, that is: what may not be dumped does not own its files in /proc.
    script = "echo x > /proc/self/comm && exit 7; exit 8"
    status = in_child(lambda: os.execv("/bin/sh", ["sh", "-c", script]))  # noqa: S606 - fixed words
    code = os.waitstatus_to_exitcode(status)
    return code == 8, {7: "it worked", 8: "refused"}.get(code, f"the shell ended with {code}")


def _stopped_shell() -> int:
    # Not by fork: that copies a zygote's page tables, several times as dear as a program.
    return os.posix_spawn("/bin/sh", ["sh", "-c", "kill -STOP $$"], {})


def fork_bomb(start: Callable[[], int] = _stopped_shell) -> Verdict:
    """Fork without end."""
    hard = 4096
    children: list[int] = []
    word = "no end in sight"
    try:
        while len(children) < hard:
            children.append(start())
    except OSError as error:
        word = errno.errorcode.get(error.errno or 0, "")
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    bound = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if len(children) == hard and hard < bound != resource.RLIM_INFINITY:
        return True, f"{hard} of the {bound} there may be"
    return word in AT_BOUND and bool(children), f"{word} after {len(children)}"


def full_workspace() -> Verdict:
    """Fill the host's disk or memory with files."""
    bounds = {path: os.statvfs(path) for path in (mounts.HOME, mounts.TMP, mounts.SHM)}
    unbounded = [path for path, each in bounds.items() if not each.f_blocks or not each.f_files]
    sizes = [f"{each.f_blocks * each.f_frsize >> 20} MiB" for each in bounds.values()]
    return not unbounded, ", ".join(sizes)


def hidden_memory() -> Verdict:
    """Hold memory in files that no bound counts."""
    name = ctypes.create_string_buffer(b"x")
    word = attempt(lambda: call(MEMFD[system.MACHINE], ctypes.addressof(name), 0))
    return bool(word), word or "memfd_create worked"


def leftovers() -> Verdict:
    """Find descriptors or settings of those above."""
    names = sorted(name for name in os.environ if name.startswith(("BROKER", "REDIS", "AWS")))
    open_ones: list[str] = []
    sockets: list[str] = []
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue  # the listing's own
        if target.startswith("socket:"):
            sockets.append(target)
        elif not target.startswith(("/dev/null", "/proc/")):
            open_ones.append(target)
    open_ones += sockets[1:]  # one is ours: it carries this verdict up
    found = names + open_ones
    return not found, f"found: {', '.join(found) or 'nothing'}"


CASES: tuple[tuple[str, Callable[[], Verdict], str], ...] = (
    ("user namespace", new_user_namespace, "none: report it"),
    ("mounts", new_mount, "none: report it"),
    ("mounts", host_files, "leave the path out of the profile's `paths`"),
    ("mounts", system_files, "leave the path out of the profile's `paths`"),
    ("pid namespace", other_processes, "none: report it"),
    ("seccomp", foreign_memory, "use a Linux kernel with CONFIG_SECCOMP_FILTER"),
    ("network", the_network, "none: report it"),
    ("seccomp", odd_families, "use a Linux kernel with CONFIG_SECCOMP_FILTER"),
    ("seccomp", exotic_calls, "use a Linux kernel with CONFIG_SECCOMP_FILTER"),
    ("seccomp", other_tables, "use a Linux kernel with CONFIG_SECCOMP_FILTER"),
    ("capabilities", capabilities, "none: report it"),
    ("landlock", own_settings, "boot with `landlock` in lsm= (Linux 5.13 or later)"),
    ("rlimits", fork_bomb, "set the profile's `processes`"),
    ("workspace", full_workspace, "set the profile's `workspace` and `tmp`"),
    ("descriptors", leftovers, "none: report it"),
)


def run(level: str, network: str) -> list[list[Any]]:
    """Run the cases that the level promises; return rows of findings."""
    cases = list(CASES)
    if level != "full":
        cases.append(("seccomp", hidden_memory, "use a Linux kernel with CONFIG_SECCOMP_FILTER"))
    rows: list[list[Any]] = []
    for layer, case, remedy in cases:
        words = (case.__doc__ or "").rstrip(".")
        if case is the_network and network == "host":
            rows.append([layer, words, True, "the profile has the host's network, by name", ""])
            continue
        try:
            safe, evidence = case()
        except Exception as error:  # a case that breaks proves nothing
            safe, evidence = False, f"{type(error).__name__}: {error}"
        rows.append([layer, words, safe, evidence, "" if safe else remedy])
    return rows


def become(config: socket.socket, options: dict[str, Any]) -> NoReturn:
    """Run the cases, say what was found, and end."""
    config.set_inheritable(False)
    findings = run(options["level"], options["network"])
    config.send(json.dumps({"findings": findings}).encode())
    os._exit(0)
