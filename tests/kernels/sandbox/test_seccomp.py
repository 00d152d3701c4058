"""The filter's program, interpreted: which call gets which answer, on which machine."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.sandbox import bpf, numbers, seccomp
from tests.kernels.sandbox.interpreter import (
    AARCH64,
    ALLOW,
    ARCHITECTURES,
    ARM,
    ERRNO,
    I386,
    KILL,
    X86_64,
    interpret,
)

MACHINES = list(ARCHITECTURES)
PROGRAMS = {
    (machine, memory_files): seccomp.compile_filter(machine, memory_files=memory_files)
    for machine in MACHINES
    for memory_files in (True, False)
}
ENOSYS = ERRNO | errno.ENOSYS
words = st.integers(0, 2**64 - 1)
arguments = st.tuples(*[words] * 6)


def answer(machine: str, name: str, *passed: int, memory_files: bool = True) -> str:
    """Return "allow", "kill" or the errno's name for a call that the table names."""
    number = numbers.NUMBERS[name][machine]
    program = PROGRAMS[machine, memory_files]
    action = interpret(program, ARCHITECTURES[machine], number, passed).action
    if action & 0xFFFF0000 == ERRNO:
        return errno.errorcode.get(action & 0xFFFF, "pretend")
    return {ALLOW: "allow", KILL: "kill"}[action]


# Name, number on x86_64, on aarch64: of the kernel's tables, not of ours.
DANGEROUS = """
bpf 321 280, perf_event_open 298 241, userfaultfd 323 282, io_uring_setup 425 425,
io_uring_enter 426 426, io_uring_register 427 427, pidfd_getfd 438 438, kcmp 312 272,
keyctl 250 219, add_key 248 217, request_key 249 218, open_tree 428 428, move_mount 429 429,
fsopen 430 430, fsconfig 431 431, fsmount 432 432, fspick 433 433, mount_setattr 442 442,
swapon 167 224, swapoff 168 225, reboot 169 142, kexec_load 246 104, kexec_file_load 320 294,
init_module 175 105, finit_module 313 273, delete_module 176 106, acct 163 89, quotactl 179 60,
quotactl_fd 443 443, nfsservctl 180 42, name_to_handle_at 303 264, open_by_handle_at 304 265,
fanotify_init 300 262, fanotify_mark 301 263, lookup_dcookie 212 18, clone3 435 435,
memfd_secret 447 447, seccomp 317 277, landlock_create_ruleset 444 444, landlock_add_rule 445 445,
landlock_restrict_self 446 446, mbind 237 235, migrate_pages 256 238, move_pages 279 239,
set_mempolicy 238 237, get_mempolicy 239 236, vmsplice 278 75, splice 275 76, tee 276 77,
remap_file_pages 216 234, modify_ldt 154 -, iopl 172 -, ioperm 173 -, uselib 134 -,
mq_open 240 180, mq_notify 244 184, semget 64 190, semop 65 193, msgget 68 186, msgsnd 69 189,
io_setup 206 0, io_submit 209 2, process_madvise 440 440, process_mrelease 448 448,
vhangup 153 58, adjtimex 159 171, clock_adjtime 305 266, sched_setattr 314 274,
ioprio_set 251 30, get_robust_list 274 100, listmount 458 458, open_tree_attr 467 467
"""
DANGEROUS_NUMBERS = [
    pytest.param(machine, int(number), id=f"{name} {machine}")
    for name, *both in (row.split() for row in DANGEROUS.split(","))
    for machine, number in zip(MACHINES, both, strict=True)
    if number != "-"
]


@pytest.mark.parametrize(("machine", "number"), DANGEROUS_NUMBERS)
def test_what_a_kernel_does_not_need_is_as_if_it_did_not_exist(machine: str, number: int) -> None:
    program = PROGRAMS[machine, True]
    assert interpret(program, ARCHITECTURES[machine], number).action == ENOSYS


NEWS, NEWPID, NEWUSER, NEWNET = 0x00020000, 0x20000000, 0x10000000, 0x40000000
THREAD, VFORK = 0x3D0F00, 0x4111  # what glibc passes for a thread, and posix_spawn
CLOEXEC, NONBLOCK = 0x80000, 0x800
FIFO, CHARACTERS, BLOCKS, REGULAR = 0o010600, 0o020600, 0o060600, 0o100600
HIGH = 1 << 32  # a word that the kernel cuts off must not change the answer

CALLS = [
    # AF_UNIX, AF_INET, AF_INET6 and ordinary types
    ("socket", (1, 1), "allow"),
    ("socket", (1, 2 | CLOEXEC), "allow"),
    ("socket", (1, 5 | NONBLOCK | CLOEXEC), "allow"),
    ("socket", (2, 1, 6), "allow"),
    ("socket", (2, 1 | CLOEXEC, 0), "allow"),
    ("socket", (10, 2 | CLOEXEC, 17), "allow"),
    ("socket", (HIGH | 2, HIGH | 1, HIGH), "allow"),
    ("socket", (2, 3, 1), "EPERM"),  # SOCK_RAW
    ("socket", (10, 10, 0), "EPERM"),  # SOCK_PACKET
    ("socket", (2, 5, 132), "EPERM"),  # SOCK_SEQPACKET
    ("socket", (1, 3, 0), "EPERM"),
    ("socket", (2, 1 | 0x100, 0), "EPERM"),  # a flag that nobody knows
    ("socket", (2, 1, 132), "EPROTONOSUPPORT"),  # SCTP
    ("socket", (2, 1, 262), "EPROTONOSUPPORT"),  # MPTCP
    ("socket", (2, 2, 1), "EPROTONOSUPPORT"),  # ICMP
    ("socket", (10, 2, 136), "EPROTONOSUPPORT"),  # UDP-Lite
    ("socket", (16, 3, 0), "ENOTSUP"),  # AF_NETLINK
    ("socket", (HIGH | 16, 3, 0), "ENOTSUP"),
    ("socket", (17, 3, 0), "EAFNOSUPPORT"),  # AF_PACKET
    ("socket", (38, 5, 0), "EAFNOSUPPORT"),  # AF_ALG
    ("socket", (40, 1, 0), "EAFNOSUPPORT"),  # AF_VSOCK
    ("socket", (44, 3, 0), "EAFNOSUPPORT"),  # AF_XDP
    ("socketpair", (1, 1 | CLOEXEC), "allow"),
    ("socketpair", (30, 5), "ENOTSUP"),  # AF_TIPC
    ("setsockopt", (3, 1, 2), "allow"),  # SO_REUSEADDR
    ("setsockopt", (3, 6, 1), "allow"),  # TCP_NODELAY
    ("setsockopt", (3, 41, 26), "allow"),  # IPV6_V6ONLY
    ("setsockopt", (3, 1, 26), "ENOPROTOOPT"),  # SO_ATTACH_FILTER
    ("setsockopt", (3, 1, 51), "ENOPROTOOPT"),
    ("setsockopt", (3, 1, 60), "ENOPROTOOPT"),  # SO_ZEROCOPY
    ("setsockopt", (3, 6, 31), "ENOPROTOOPT"),  # TCP_ULP
    ("setsockopt", (3, 17, 100), "ENOPROTOOPT"),  # UDP_ENCAP
    ("setsockopt", (3, 279, 1), "ENOPROTOOPT"),  # SOL_ALG
    ("sendto", (3, 0, 1, 0x4000), "allow"),  # MSG_NOSIGNAL
    ("sendto", (3, 0, 1, 0x4001), "ENOTSUP"),  # MSG_OOB
    ("sendmsg", (3, 0, 1), "ENOTSUP"),
    ("sendmmsg", (3, 0, 1, 1), "ENOTSUP"),
    ("ioctl", (0, 0x5401), "allow"),  # TCGETS
    ("ioctl", (0, 0x541B), "allow"),  # FIONREAD
    ("ioctl", (0, 0x5421), "allow"),  # FIONBIO
    ("ioctl", (0, HIGH | 0x5451), "allow"),  # FIOCLEX
    ("ioctl", (0, 0x5412), "ENOTTY"),  # TIOCSTI
    ("ioctl", (0, HIGH | 0x5412), "ENOTTY"),
    ("ioctl", (0, 0x541C), "ENOTTY"),  # TIOCLINUX
    ("ioctl", (0, 0x8912), "ENOTTY"),  # SIOCGIFCONF
    ("ioctl", (0, 0x40049409), "ENOTTY"),  # FICLONE
    ("fcntl", (0, 1030), "allow"),  # F_DUPFD_CLOEXEC
    ("fcntl", (0, 1024), "EINVAL"),  # F_SETLEASE
    ("fcntl", (0, 1026), "EINVAL"),  # F_NOTIFY
    ("getsockopt", (3, 1, 17), "allow"),  # SO_PEERCRED
    ("getsockopt", (3, 6, 77), "allow"),
    ("getsockopt", (3, 1, 77), "ENOPROTOOPT"),  # SO_PEERPIDFD
    ("clone", (THREAD,), "allow"),
    ("clone", (VFORK,), "allow"),
    ("clone", (NEWS,), "EPERM"),
    ("clone", (NEWUSER | 17,), "EPERM"),
    ("clone", (NEWPID | 17,), "EPERM"),
    ("clone", (NEWNET | THREAD,), "EPERM"),
    ("mmap", (0, 4096, 3, 0x22), "allow"),
    ("mmap", (0, 4096, 3, 0x40022), "ENOMEM"),  # MAP_HUGETLB
    ("memfd_create", (0, 1), "allow"),
    ("memfd_create", (0, 5), "EINVAL"),  # MFD_HUGETLB
    ("prctl", (15,), "allow"),  # PR_SET_NAME
    ("prctl", (1, 9), "allow"),  # PR_SET_PDEATHSIG
    ("prctl", (4, 0), "allow"),  # PR_SET_DUMPABLE
    ("prctl", (4, 1), "EINVAL"),
    ("prctl", (0x53564D41,), "allow"),  # PR_SET_VMA
    ("prctl", (22, 2), "EINVAL"),  # PR_SET_SECCOMP
    ("prctl", (24, 1), "EINVAL"),  # PR_CAPBSET_DROP
    ("prctl", (28, 0), "EINVAL"),  # PR_SET_SECUREBITS
    ("prctl", (35, 1), "EINVAL"),  # PR_SET_MM
    ("prctl", (47, 2), "EINVAL"),  # PR_CAP_AMBIENT
    ("prctl", (53, 0), "EINVAL"),  # PR_SET_SPECULATION_CTRL
    ("prctl", (0x59616D61, 1), "EINVAL"),  # PR_SET_PTRACER
    ("personality", (0xFFFFFFFF,), "allow"),
    ("personality", (0x40000,), "EPERM"),  # ADDR_NO_RANDOMIZE
    ("prlimit64", (0, 7), "allow"),
    ("prlimit64", (1, 7), "EPERM"),
    ("sched_setscheduler", (0, 0), "allow"),
    ("sched_setscheduler", (0, 5 | 0x40000000), "allow"),  # SCHED_IDLE, reset on fork
    ("sched_setscheduler", (0, 1), "EPERM"),  # SCHED_FIFO
    ("sched_setscheduler", (0, 6), "EPERM"),  # SCHED_DEADLINE
    ("mknodat", (0, 0, FIFO), "allow"),
    ("mknodat", (0, 0, REGULAR), "allow"),
    ("mknodat", (0, 0, CHARACTERS), "EPERM"),
    ("mknodat", (0, 0, BLOCKS), "EPERM"),
    *[(name, (), "EPERM") for name in ("unshare", "setns", "mount", "umount2", "pivot_root")],
    *[(name, (), "EPERM") for name in ("chroot", "ptrace", "process_vm_readv", "setgroups")],
    *[(name, (), "EPERM") for name in ("capset", "settimeofday", "clock_settime", "syslog")],
    *[(name, (), "ENOTSUP") for name in ("setxattr", "fsetxattr", "lremovexattr")],
    *[(name, (), "pretend") for name in ("sync", "syncfs")],
    *[(name, (), "allow") for name in ("read", "openat", "execve", "futex", "rt_sigreturn")],
    *[(name, (), "allow") for name in ("restart_syscall", "exit_group", "wait4", "getrandom")],
    *[(name, (), "allow") for name in ("copy_file_range", "pidfd_open", "setresuid", "mlock")],
    *[(name, (), "allow") for name in ("shmget", "shmat", "rseq", "statx", "epoll_pwait2")],
]
ids = [f"{name}{passed}" for name, passed, _ in CALLS]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("name", "passed", "expected"), CALLS, ids=ids)
def test_a_call_gets_its_answer(
    machine: str, name: str, passed: tuple[int, ...], expected: str
) -> None:
    assert answer(machine, name, *passed) == expected


def test_mknod_of_x86_makes_no_devices_either() -> None:
    assert answer("x86_64", "mknod", 0, FIFO) == "allow"
    assert answer("x86_64", "mknod", 0, CHARACTERS) == "EPERM"


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", ["memfd_create", "shmget", "shmat", "shmdt", "shmctl"])
def test_memory_files_are_refused_where_no_cgroup_counts_them(machine: str, name: str) -> None:
    assert answer(machine, name) == "allow"
    assert answer(machine, name, memory_files=False) == "ENOSYS"


@given(st.sampled_from(sorted(PROGRAMS)), st.integers(0, 2**32 - 1), words, arguments)
def test_another_architecture_is_killed(
    profile: tuple[str, bool], number: int, architecture: int, passed: tuple[int, ...]
) -> None:
    other = architecture & 0xFFFFFFFF
    if other != ARCHITECTURES[profile[0]]:
        assert interpret(PROGRAMS[profile], other, number, passed).action == KILL


def test_the_32_bit_calls_of_each_machine_are_killed() -> None:
    assert interpret(PROGRAMS["x86_64", True], I386, 20).action == KILL
    assert interpret(PROGRAMS["aarch64", True], ARM, 20).action == KILL
    assert interpret(PROGRAMS["x86_64", True], AARCH64, 63).action == KILL


@given(st.integers(0x40000000, 2**32 - 1), arguments)
def test_x32_is_killed(number: int, passed: tuple[int, ...]) -> None:
    assert interpret(PROGRAMS["x86_64", True], X86_64, number, passed).action == KILL


@given(
    st.sampled_from(sorted(PROGRAMS)), st.integers(0, 600) | st.integers(0, 2**30 - 1), arguments
)
def test_what_is_not_on_the_list_does_not_exist(
    profile: tuple[str, bool], number: int, passed: tuple[int, ...]
) -> None:
    machine, memory_files = profile
    named = seccomp.policy(memory_files=memory_files)
    listed = {numbers.NUMBERS[name].get(machine) for name in named}
    action = interpret(PROGRAMS[profile], ARCHITECTURES[machine], number, passed).action
    assert number in listed or action == ENOSYS


@pytest.mark.parametrize("profile", sorted(PROGRAMS))
def test_a_program_is_small_and_an_ordinary_call_is_answered_soon(
    profile: tuple[str, bool],
) -> None:
    machine, memory_files = profile
    program = PROGRAMS[profile]
    assert len(program) // 8 <= 350
    for name, decided in seccomp.policy(memory_files=memory_files).items():
        if machine in numbers.NUMBERS[name]:
            number = numbers.NUMBERS[name][machine]
            verdict = interpret(program, ARCHITECTURES[machine], number)
            assert isinstance(decided, bpf.Rule) or verdict.action == decided, name
            assert verdict.steps <= (45 if isinstance(decided, bpf.Rule) else 14), name


def test_an_unknown_machine_has_no_filter() -> None:
    with pytest.raises(ValueError, match="riscv64"):
        seccomp.compile_filter("riscv64", memory_files=True)


def test_no_number_is_given_twice() -> None:
    for machine in MACHINES:
        given_out = [n[machine] for n in numbers.NUMBERS.values() if machine in n]
        assert len(given_out) == len(set(given_out))


def test_the_policy_names_each_number_and_no_other() -> None:
    assert seccomp.policy(memory_files=True).keys() == numbers.NUMBERS.keys()


def test_the_numbers_are_those_of_the_headers() -> None:
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not header.exists():
        pytest.skip(f"no {header} here")
    defined = dict(re.findall(r"#define __NR_(\w+) (\d+)", header.read_text()))
    for name, by_machine in numbers.NUMBERS.items():
        if name in defined:  # the header may be older than a call
            assert int(defined[name]) == by_machine["x86_64"], name


def test_the_generic_numbers_are_those_of_the_headers() -> None:
    header = Path("/usr/include/asm-generic/unistd.h")
    if not header.exists():
        pytest.skip(f"no {header} here")
    text = header.read_text()
    defined = dict(re.findall(r"#define (__NR\w+)\s+(\w+)", text))
    for name, by_machine in numbers.NUMBERS.items():
        value = defined.get(f"__NR_{name}", "")
        if value.startswith("__NR"):  # the last definition is the one for 32 bits
            value = re.findall(rf"#define __NR_{name} (__NR3264_\w+)", text)[0]
        number = defined.get(value, value)
        if "aarch64" in by_machine and number:
            assert int(number) == by_machine["aarch64"], name


cases = st.builds(
    bpf.Case,
    st.sampled_from([ALLOW, ERRNO | 1, ERRNO | 2]),
    st.lists(
        st.builds(
            bpf.Where,
            st.integers(0, 5),
            st.lists(st.integers(0, 7), min_size=1, max_size=4).map(tuple),
            st.sampled_from([bpf.ALL_BITS, 7, 5, 0]),
        ),
        max_size=3,
    ).map(tuple),
)
rules = st.builds(bpf.Rule, st.lists(cases, max_size=3).map(tuple), st.just(ERRNO | 3))
answers = st.dictionaries(
    st.integers(0, 40), st.sampled_from([ALLOW, ERRNO | 4]) | rules, max_size=20
)


def decide(decided: int | bpf.Rule, passed: tuple[int, ...]) -> int:
    if isinstance(decided, int):
        return decided
    for action, conditions in decided.cases:
        if all(passed[w.argument] & 0xFFFFFFFF & w.mask in w.values for w in conditions):
            return action
    return decided.otherwise


@given(answers, st.tuples(*[st.integers(0, 7) | words] * 6))
def test_any_answers_compile_to_a_program_that_gives_them(
    table: dict[int, bpf.Answer], passed: tuple[int, ...]
) -> None:
    program = bpf.compile_answers(X86_64, table, otherwise=ENOSYS, end=50)
    for number in range(50):
        expected = decide(table.get(number, ENOSYS), passed)
        assert interpret(program, X86_64, number, passed).action == expected
    assert interpret(program, X86_64, 50, passed).action == KILL
