"""Name the system calls a kernel may make, and install that list as a seccomp filter.

The assembler (`bpf`) is our own, not libseccomp's. The zygote runs in whatever interpreter a
profile names, inside an empty root where no library of ours can be loaded; pyseccomp has been
unmaintained since 2021; and libseccomp resolves names by the table it was built with, where a
number frozen in `numbers` can be read in a review. What is needed of it, a search tree and
comparisons of arguments, is a page long.

This is a list of what is allowed: whatever is not on it, newer calls too, answers ENOSYS, by which
libraries find their way back to an older call (glibc from clone3 to clone). Calls of another
architecture, int80 and x32 among them, kill the process, for their numbers mean something else.

Left out on purpose, next to the obvious (mount, bpf, perf, io_uring, userfaultfd, keyrings,
modules, time, seccomp and landlock themselves): NUMA policies, as libnuma reads ENOSYS for a
machine without; inotify, for a watch on a library tells what the host and neighbours run, and its
instances count for whoever started the broker; splice, tee and vmsplice, which put pages of
read-only files into pipes; POSIX queues and System V semaphores and queues, which Python does not
use; legacy AIO, whose bound is the host's; memfd_secret, whose pages cannot be evicted. The set*id
calls stay: without a capability and with one mapped id they can do nothing but succeed in changing
nothing.

seccomp(2), Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import errno
import struct
from array import array
from typing import Final

from .bpf import ALL_BITS, ALLOW, ERRNO, Answer, Case, Rule, Where, compile_answers
from .numbers import AUDIT_ARCH, NUMBERS
from .system import MACHINE, syscall

UNKNOWN: Final = ERRNO | errno.ENOSYS
DENIED: Final = ERRNO | errno.EPERM
PRETEND: Final = ERRNO  # the call is not made, and says that it was
X32: Final = 0x40000000  # __X32_SYSCALL_BIT

FILES: Final = """
    read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek sendfile
    copy_file_range open creat openat openat2 close close_range dup dup2 dup3 pipe pipe2
    access faccessat faccessat2 stat lstat fstat newfstatat statx statfs fstatfs
    getdents getdents64 getcwd chdir fchdir mkdir mkdirat rmdir unlink unlinkat link linkat
    symlink symlinkat readlink readlinkat rename renameat renameat2 truncate ftruncate fallocate
    chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat umask utime utimes futimesat
    utimensat flock fsync fdatasync sync_file_range fadvise64 readahead
    getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr
"""
WAITING: Final = """
    select pselect6 poll ppoll epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait
    epoll_pwait2 eventfd eventfd2 signalfd signalfd4 timerfd_create timerfd_settime timerfd_gettime
    pause nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time alarm
    getitimer setitimer timer_create timer_settime timer_gettime timer_getoverrun timer_delete
"""
MEMORY: Final = """
    brk munmap mremap mprotect madvise msync mincore mlock mlock2 munlock mlockall munlockall
    membarrier pkey_alloc pkey_free pkey_mprotect
"""
PROCESSES: Final = """
    fork vfork execve execveat exit exit_group wait4 waitid getpid getppid gettid getpgid getpgrp
    setpgid getsid setsid kill tkill tgkill pidfd_open pidfd_send_signal set_tid_address
    set_robust_list rseq futex futex_waitv restart_syscall arch_prctl
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigsuspend rt_sigtimedwait
    rt_sigqueueinfo rt_tgsigqueueinfo sigaltstack
    getrlimit setrlimit getrusage times getpriority setpriority sched_yield sched_getscheduler
    sched_getparam sched_setparam sched_getattr sched_getaffinity sched_setaffinity
    sched_get_priority_max sched_get_priority_min sched_rr_get_interval ioprio_get
    getuid geteuid getgid getegid getresuid getresgid getgroups setuid setgid setreuid setregid
    setresuid setresgid setfsuid setfsgid capget uname sysinfo getcpu getrandom
"""
SOCKETS: Final = """
    bind connect listen accept accept4 getsockname getpeername recvfrom recvmsg recvmmsg shutdown
"""
# Memory that no rlimit counts and that needs no mapping: a memory cgroup must be its bound.
MEMORY_FILES: Final = "shmget shmat shmdt shmctl"

# ENOSYS would mislead here: programs have an answer to what an ordinary user is told.
REFUSED: Final = {
    DENIED: """
        unshare setns mount umount2 pivot_root chroot ptrace process_vm_readv process_vm_writev
        setgroups capset settimeofday clock_settime syslog sethostname setdomainname
    """,
    # What a file system without attributes says: shutil.copystat, cp -a and tar go on. Their
    # pages would count towards no tmpfs's size before Linux 6.6.
    ERRNO | errno.EOPNOTSUPP: """
        setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr
    """,
    # Nothing in the sandbox is on a disk, but these would write back the whole host's.
    PRETEND: "sync syncfs",
}

AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET = 1, 2, 5
SOCK_TYPE = ALL_BITS & ~0x80800  # without SOCK_CLOEXEC, SOCK_NONBLOCK
IPPROTO_TCP, IPPROTO_UDP, IPPROTO_IPV6 = 6, 17, 41
SOL_IP, SOL_SOCKET = 0, 1
SO_ATTACH_FILTER, SO_ATTACH_BPF, SO_ATTACH_REUSEPORT_CBPF, SO_ATTACH_REUSEPORT_EBPF = 26, 50, 51, 52
SO_ZEROCOPY = 60
TCP_ULP = 31
MSG_OOB = 1
CLONE_NEW = 0x7E020000  # every namespace that clone(2) can make
MAP_HUGETLB, MFD_HUGETLB = 0x40000, 4
S_IFMT, S_IFIFO, S_IFREG, S_IFSOCK = 0xF000, 0x1000, 0x8000, 0xC000
F_SETLEASE, F_NOTIFY = 1024, 1026
SO_PEERPIDFD = 77
SCHED_OTHER, SCHED_BATCH, SCHED_IDLE, SCHED_RESET_ON_FORK = 0, 3, 5, 0x40000000
PR_SET_DUMPABLE = 4
# TCGETS TIOCGPGRP TIOCGWINSZ FIONREAD FIONBIO FIONCLEX FIOCLEX FIOASYNC
IOCTLS = (0x5401, 0x540F, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451, 0x5452)
PRCTLS = (
    *(1, 2, 3),  # SET_PDEATHSIG GET_PDEATHSIG GET_DUMPABLE
    *(7, 15, 16, 21, 23, 27),  # GET_KEEPCAPS SET_NAME GET_NAME GET_SECCOMP CAPBSET_READ …SECUREBITS
    *(29, 30, 36, 37),  # SET_TIMERSLACK GET_TIMERSLACK SET_CHILD_SUBREAPER GET_CHILD_SUBREAPER
    *(38, 39, 41, 42),  # SET_NO_NEW_PRIVS GET_NO_NEW_PRIVS SET_THP_DISABLE GET_THP_DISABLE
    0x53564D41,  # SET_VMA: names for mappings, by newer glibc and Java
)


def allow(*conditions: Where) -> Case:
    """Return the case that these conditions are allowed."""
    return Case(ALLOW, conditions)


def refuse(number: int, *conditions: Where) -> Case:
    """Return the case that these conditions fail with an errno."""
    return Case(ERRNO | number, conditions)


def _only(number: int, *conditions: Where) -> Rule:
    return Rule((allow(*conditions),), ERRNO | number)


_FAMILY_INET = Where(0, (AF_INET, AF_INET6))
_UNIX = allow(Where(0, (AF_UNIX,)), Where(1, (SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET), SOCK_TYPE))
_FILE_KINDS = (0, S_IFREG, S_IFIFO, S_IFSOCK)
_NO_URGENT_DATA = (0,)

RULES: Final = {
    # Raw sockets, SCTP, MPTCP and the like are refused by type or protocol; every other family
    # too: AF_VSOCK reaches the hypervisor, AF_ALG the kernel's ciphers.
    "socket": Rule(
        (
            _UNIX,
            allow(_FAMILY_INET, Where(1, (SOCK_STREAM,), SOCK_TYPE), Where(2, (0, IPPROTO_TCP))),
            allow(_FAMILY_INET, Where(1, (SOCK_DGRAM,), SOCK_TYPE), Where(2, (0, IPPROTO_UDP))),
            refuse(errno.EPROTONOSUPPORT, _FAMILY_INET, Where(1, (1, 2), SOCK_TYPE)),
            refuse(errno.EPERM, Where(0, (AF_UNIX, AF_INET, AF_INET6))),
            # libzmq asks getifaddrs for a name's interface and aborts the process for any other
            # errno than this and EINVAL (ip_resolver.cpp: "Windows Subsystem for Linux").
            refuse(errno.EOPNOTSUPP, Where(0, (AF_NETLINK,))),
        ),
        ERRNO | errno.EAFNOSUPPORT,
    ),
    "socketpair": Rule((_UNIX,), ERRNO | errno.EOPNOTSUPP),
    # Programs for the kernel's packet filter, its TLS, and pages pinned by a send.
    "setsockopt": Rule(
        (
            refuse(
                errno.ENOPROTOOPT,
                Where(1, (SOL_SOCKET,)),
                Where(
                    2,
                    (
                        *(SO_ATTACH_FILTER, SO_ATTACH_BPF, SO_ZEROCOPY),
                        *(SO_ATTACH_REUSEPORT_CBPF, SO_ATTACH_REUSEPORT_EBPF),
                    ),
                ),
            ),
            refuse(errno.ENOPROTOOPT, Where(1, (IPPROTO_TCP,)), Where(2, (TCP_ULP,))),
            allow(Where(1, (SOL_IP, SOL_SOCKET, IPPROTO_TCP, IPPROTO_IPV6))),
        ),
        ERRNO | errno.ENOPROTOOPT,
    ),
    # Urgent data between unix sockets was a way out of a browser's sandbox (CVE-2025-38236).
    "sendto": _only(errno.EOPNOTSUPP, Where(3, _NO_URGENT_DATA, MSG_OOB)),
    "sendmsg": _only(errno.EOPNOTSUPP, Where(2, _NO_URGENT_DATA, MSG_OOB)),
    "sendmmsg": _only(errno.EOPNOTSUPP, Where(3, _NO_URGENT_DATA, MSG_OOB)),
    # There is no terminal: TIOCSTI, SIOC* (inherited sockets are the host's) and all others get
    # the answer of a file that does not know them.
    "ioctl": _only(errno.ENOTTY, Where(1, IOCTLS)),
    # The broker is at the other end of some sockets.
    "getsockopt": Rule(
        (refuse(errno.ENOPROTOOPT, Where(1, (SOL_SOCKET,)), Where(2, (SO_PEERPIDFD,))),), ALLOW
    ),
    # A lease would hold up the broker's own open of the file; a note tells as inotify does.
    "fcntl": Rule((refuse(errno.EINVAL, Where(1, (F_SETLEASE, F_NOTIFY))),), ALLOW),
    "clone": _only(errno.EPERM, Where(0, (0,), CLONE_NEW)),
    # Huge pages are the host's, and count towards no memory cgroup.
    "mmap": _only(errno.ENOMEM, Where(3, (0,), MAP_HUGETLB)),
    "memfd_create": _only(errno.EINVAL, Where(1, (0,), MFD_HUGETLB)),
    # As an older kernel answers to a newer option.
    "prctl": Rule(
        (allow(Where(0, PRCTLS)), allow(Where(0, (PR_SET_DUMPABLE,)), Where(1, (0,)))),
        ERRNO | errno.EINVAL,
    ),
    "personality": _only(errno.EPERM, Where(0, (0, ALL_BITS))),  # none, and the question
    # One's own. Another process's, the reaper's among them, is nobody's business.
    "prlimit64": _only(errno.EPERM, Where(0, (0,))),
    "sched_setscheduler": _only(
        errno.EPERM,
        Where(1, (SCHED_OTHER, SCHED_BATCH, SCHED_IDLE), ALL_BITS & ~SCHED_RESET_ON_FORK),
    ),
    "mknod": _only(errno.EPERM, Where(1, _FILE_KINDS, S_IFMT)),  # FIFOs, no devices
    "mknodat": _only(errno.EPERM, Where(2, _FILE_KINDS, S_IFMT)),
}


def policy(*, memory_files: bool) -> dict[str, Answer]:
    """Return what is done for each call that has a name here; all others answer ENOSYS."""
    allowed = FILES + WAITING + MEMORY + PROCESSES + SOCKETS + (MEMORY_FILES * memory_files)
    decided: dict[str, Answer] = dict.fromkeys(allowed.split(), ALLOW)
    decided.update((name, action) for action, names in REFUSED.items() for name in names.split())
    decided.update(RULES)
    if not memory_files:
        del decided["memfd_create"]
    return decided


def compile_filter(machine: str = MACHINE, *, memory_files: bool) -> bytes:
    """Return the filter's program for `machine`: x86_64 or aarch64; ValueError for others.

    `memory_files=False`, for where no memory cgroup is, also refuses memfd_create and System V
    shared memory.
    """
    if machine not in AUDIT_ARCH:
        raise ValueError(f"no table of system calls for {machine}")
    decided = policy(memory_files=memory_files)
    answers = {
        NUMBERS[name][machine]: answer
        for name, answer in decided.items()
        if machine in NUMBERS[name]
    }
    end = X32 if machine == "x86_64" else None
    return compile_answers(AUDIT_ARCH[machine], answers, otherwise=UNKNOWN, end=end)


def install(program: bytes) -> None:
    """Put the filter on every thread of this process, for ever; NO_NEW_PRIVS must be set.

    OSError if refused, or if a thread has filters of its own. SECCOMP_FILTER_FLAG_SPEC_ALLOW is
    left out: before Linux 5.16 its absence turns on the mitigations that untrusted code is the
    reason for, and since then it makes no difference.
    """
    set_mode_filter, thread_sync = 1, 1
    instructions = array("B", program)
    address, length = instructions.buffer_info()
    # struct sock_fprog; the array must live until the call has returned
    descriptor = struct.pack("@HP", length // 8, address)
    if thread := syscall("seccomp", set_mode_filter, thread_sync, descriptor):
        raise OSError(errno.EBUSY, f"thread {thread} has filters of its own", "seccomp")
