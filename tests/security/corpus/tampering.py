"""Files that all sessions share, and what is known of a process: to change and to escape by."""

import ctypes
import glob
import mmap
import os
import subprocess
import sys
import sysconfig

from tests.security.corpus import snippet
from tests.security.corpus.prelude import (
    Host,
    attempt,
    call,
    count_until_refused,
    denied,
    hidden,
    in_child,
    read_from,
    verdict,
    walled,
    write_to,
)

AT_FDCWD, AT_SYMLINK_FOLLOW = -100, 0x400


@snippet()
def write_into_the_system(host: Host) -> str:
    """Add files to directories of programs and libraries."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    places = ("/usr/bin", "/usr/lib", "/usr/local/lib", "/bin", "/lib", "/etc", "/usr/share")
    found = [place for place in places if os.path.isdir(place)]
    attempts = {place: write_to(f"{place}/.hostile", flags=flags) for place in found}
    return walled(attempts, "EROFS")


@snippet()
def write_into_the_root(host: Host) -> str:
    """Add files and directories where the mount points are."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    attempts = {}
    for place in ("/", "/home", "/mnt", "/dev", "/proc", "/proc/self"):
        attempts[place] = write_to(f"{place}/.hostile", flags=flags)
        attempts[f"{place} directory"] = lambda place=place: os.mkdir(f"{place}/.hostile-d")
        attempts[f"{place} link"] = lambda place=place: os.symlink("x", f"{place}/.hostile-l")
    return walled(attempts, "EROFS", "ENOENT")


@snippet()
def write_into_the_interpreter(host: Host) -> str:
    """Add a module that every later kernel would import."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    places = {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "scripts")}
    places |= {sys.prefix, sys.base_prefix, f"{sysconfig.get_path('stdlib')}/__pycache__"}
    attempts = {place: write_to(f"{place}/hostile.pth", flags=flags) for place in places}
    return walled(attempts, "EROFS", "ENOENT")


@snippet()
def change_the_interpreter(host: Host) -> str:
    """Write to, empty, replace, remove and open up what every kernel runs."""
    program = os.path.realpath(sys.executable)
    module = os.path.realpath(os.__file__)
    attempts = {}
    for path in (program, module):
        name = os.path.basename(path)
        attempts[f"write {name}"] = lambda path=path: os.close(os.open(path, os.O_RDWR))
        attempts[f"empty {name}"] = lambda path=path: os.truncate(path, os.stat(path).st_size)
        attempts[f"rename {name}"] = lambda path=path: os.rename(path, f"{path}.old")
        attempts[f"mode {name}"] = lambda path=path: os.chmod(path, 0o777)  # noqa: S103
        attempts[f"owner {name}"] = lambda path=path: os.chown(path, os.getuid(), -1)
        attempts[f"times {name}"] = lambda path=path: os.utime(path)
        attempts[f"attribute {name}"] = lambda path=path: os.setxattr(path, "user.x", b"x")
    return walled(attempts, "EROFS", "EOPNOTSUPP")


@snippet()
def write_through_the_running_program(host: Host) -> str:
    """Overwrite the host's interpreter through /proc/self/exe, as was done to runc."""
    descriptor = os.open("/proc/self/exe", os.O_RDONLY)
    try:
        attempts = {
            "exe": lambda: os.close(os.open("/proc/self/exe", os.O_WRONLY)),
            "again": lambda: os.close(os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY)),
            "above": lambda: os.close(os.open("/proc/1/exe", os.O_WRONLY)),
        }
        return walled(attempts, "EROFS", "ENOENT")
    finally:
        os.close(descriptor)


@snippet()
def change_the_configuration(host: Host) -> str:
    """Add a user, a library to load everywhere, a name server."""
    append = os.O_WRONLY | os.O_APPEND
    create = append | os.O_CREAT
    attempts = {
        "passwd": write_to("/etc/passwd", b"", append),
        "hosts": write_to("/etc/hosts", b"", append),
        "resolv.conf": write_to("/etc/resolv.conf", b"", append),
        "ld.so.preload": write_to("/etc/ld.so.preload", b"", create),
        "crontab": write_to("/etc/crontab", b"", create),
    }
    return walled(attempts, "EROFS")


@snippet(bare=True)
def read_through_a_symbolic_link(host: Host) -> str:
    """Point out of the workspace with a link."""
    os.symlink("/etc/shadow", "link")
    try:
        return hidden(read_from("link"))
    finally:
        os.unlink("link")


@snippet()
def take_a_hard_link_of_a_system_file(host: Host) -> str:
    """Link a program of the host into the workspace, by name and by descriptor."""
    descriptor = os.open("/usr/bin/env", os.O_RDONLY)
    by_name = f"/proc/self/fd/{descriptor}".encode()

    def by_link() -> None:
        target = ctypes.c_char_p(b"taken-b")
        if ctypes.CDLL(None, use_errno=True).linkat(
            AT_FDCWD, ctypes.c_char_p(by_name), AT_FDCWD, target, AT_SYMLINK_FOLLOW
        ):
            raise OSError(ctypes.get_errno(), "linkat")

    try:
        attempts = {"name": lambda: os.link("/usr/bin/env", "taken-a"), "descriptor": by_link}
        return walled(attempts, "EXDEV", "EROFS")
    finally:
        os.close(descriptor)


@snippet(bare=True)
def become_root_with_a_setuid_program(host: Host) -> str:
    """Run the system's own way to another user."""
    command = ["/usr/bin/su", "-s", "/bin/sh", "-c", "id -u", "root"]
    ended = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    return verdict(ended.stdout.strip() != "0", f"{ended.returncode} {ended.stderr.strip()!r}")


@snippet(bare=True)
def give_a_file_capabilities(host: Host) -> str:
    """Make a program that has capabilities whoever runs it."""
    with open("gifted", "wb") as file:
        file.write(b"#!/bin/sh\n")
    # struct vfs_cap_data: version 2 with the effective bit; permitted and inheritable, twice
    everything = bytes.fromhex("01000002 ffffffff 00000000 ff010000 00000000".replace(" ", ""))
    try:
        attempts = {"set": lambda: os.setxattr("gifted", "security.capability", everything)}
        return walled(attempts, "EOPNOTSUPP")
    finally:
        os.unlink("gifted")


@snippet(bare=True)
def give_a_file_to_root(host: Host) -> str:
    """Make a file that belongs to somebody else."""
    with open("given", "wb"):
        pass
    try:
        attempts = {
            "root": lambda: os.chown("given", 0, 0),
            "other": lambda: os.chown("given", 1, -1),
        }
        # EINVAL: the id does not exist in this user namespace.
        return walled(attempts, "EINVAL")
    finally:
        os.unlink("given")


@snippet(bare=True)
def write_protected_memory_through_proc(host: Host) -> str:
    """Open one's own memory as a file, which ignores what is write-protected."""
    return hidden(lambda: os.close(os.open("/proc/self/mem", os.O_RDWR)))


@snippet()
def write_through_a_shared_mapping(host: Host) -> str:
    """Map a program of the host and make the mapping writable."""
    descriptor = os.open("/usr/bin/env", os.O_RDONLY)
    try:
        attempts = {
            "map": lambda: mmap.mmap(descriptor, 4096, mmap.MAP_SHARED, mmap.PROT_WRITE),
            "protect": lambda: _protect(descriptor),
        }
        return walled(attempts)
    finally:
        os.close(descriptor)


def _protect(descriptor: int) -> None:
    area = mmap.mmap(descriptor, 4096, mmap.MAP_SHARED, mmap.PROT_READ)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, *[ctypes.c_size_t] * 5]
    address = libc.mmap(None, 4096, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    area.close()
    if libc.mprotect(ctypes.c_void_p(address), 4096, mmap.PROT_READ | mmap.PROT_WRITE):
        raise OSError(ctypes.get_errno(), "mprotect")


@snippet(bare=True)
def put_a_programs_pages_into_a_pipe(host: Host) -> str:
    """Have a pipe refer to the page cache of a file that can only be read (`Dirty Pipe`)."""
    descriptor, pipe = os.open("/usr/bin/env", os.O_RDONLY), os.pipe()
    try:
        return denied(lambda: call("splice", descriptor, None, pipe[1], None, 1, 0))
    finally:
        for each in (descriptor, *pipe):
            os.close(each)


@snippet()
def change_what_proc_says_of_self(host: Host) -> str:
    """Change one's own ids, groups and badness through /proc."""
    names = ("uid_map", "gid_map", "setgroups", "oom_score_adj", "coredump_filter", "clear_refs")
    attempts = {name: write_to(f"/proc/self/{name}", b"0 0 1\n") for name in names}
    return walled(attempts, "ENOENT", "EROFS")


@snippet()
def evade_the_killer(host: Host) -> str:
    """Be the last that the kernel kills when memory runs out."""
    status = in_child(write_to("/proc/self/oom_score_adj", b"-1000"))
    return verdict(status != 0, f"wait status {status}")


@snippet()
def rename_a_program_that_was_run(host: Host) -> str:
    """Write to /proc where the owner may, and nothing but Landlock stands in the way."""
    ended = subprocess.run(
        ["/bin/sh", "-c", "echo hostile > /proc/$$/comm; cat /proc/$$/comm"],
        capture_output=True,
        text=True,
        check=False,
    )
    return verdict("hostile" not in ended.stdout, f"{ended.stdout!r} {ended.stderr!r}")


@snippet()
def leave_a_core_dump(host: Host) -> str:
    """Crash with all of one's memory to be written out, by the host if it can be had to."""
    ended = subprocess.run(
        ["/bin/sh", "-c", "ulimit -c unlimited; kill -SEGV $$"],
        capture_output=True,
        text=True,
        check=False,
    )
    dumped = glob.glob("core*") + glob.glob("/tmp/core*")  # noqa: S108
    return verdict(not dumped and "dumped" not in ended.stderr, f"{dumped} {ended.stderr!r}")


@snippet()
def escape_through_a_moved_directory(host: Host) -> str:
    """Hold a directory, move it elsewhere and go up from there (CVE-2015-2925)."""
    os.makedirs("a/b/c", exist_ok=True)
    held = os.open("a/b/c", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.rename("a/b/c", "c")
        found = os.open("../../../../../../etc", os.O_RDONLY, dir_fd=held)
        names = os.listdir(found)
        os.close(found)
        return verdict("shadow" not in names, f"{len(names)} names in what is then /etc")
    finally:
        os.close(held)


@snippet()
def move_a_directory_between_mounts(host: Host) -> str:
    """Move a directory from one mount into another, under a descriptor that is open in it."""
    os.makedirs("moved/inner", exist_ok=True)
    attempts = {"rename": lambda: os.rename("moved", "/tmp/moved")}  # noqa: S108
    attempts["link"] = lambda: os.rename("moved", "/mnt/data/moved-alias")
    return walled(attempts, "EXDEV")


@snippet()
def open_more_than_there_is_in_directories(host: Host) -> str:
    """Open deeper and deeper directories until a path is longer than any buffer."""
    start = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    names: list[int] = [start]

    def deeper() -> None:
        os.mkdir("d" * 200, dir_fd=names[-1])
        names.append(os.open("d" * 200, os.O_RDONLY | os.O_DIRECTORY, dir_fd=names[-1]))

    count, word = count_until_refused(deeper, 100)
    # From the deepest up, for no path reaches that far.
    for number in reversed(names):
        attempt(lambda: os.rmdir("d" * 200, dir_fd=number))  # noqa: B023
        os.close(number)
    left = [name for name in os.listdir(".") if name.startswith("dd")]
    return verdict(not left, f"{count} levels, {word or 'as many as tried'}")
