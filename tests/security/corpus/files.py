"""Files of the host, of the operator and of other sessions: to read, to change, to run."""

import ctypes
import glob
import mmap
import os
import re
import socket
import stat
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
    own_descriptors,
    processes,
    read_from,
    told_by_child,
    verdict,
    walled,
    write_to,
)

AT_FDCWD, AT_EMPTY_PATH, AT_SYMLINK_FOLLOW = -100, 0x1000, 0x400
OURS = ("/home/user", "/mnt/data", "/tmp", "/dev/shm")  # noqa: S108
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/dev", "/proc")


def shown_paths() -> list[str]:
    """Return where the interpreter lives: what must be seen of the host for it to run."""
    program = os.path.realpath(sys.executable)
    paths = [sys.prefix, sys.base_prefix, os.path.dirname(program), *sys.path]
    return [os.path.realpath(path) for path in paths if path]


def names_in(path: str) -> list[str]:
    """Return what a directory lists; nothing if it cannot be listed."""
    try:
        return os.listdir(path)
    except OSError:
        return []


def suspicious(target: str) -> bool:
    """Tell whether a descriptor refers to something that is not a kernel's own."""
    own = ("/dev/null", "/dev/urandom", "socket:", "pipe:", "anon_inode:", "/proc/", *OURS)
    return not target.startswith((*own, *shown_paths()))


@snippet(bare=True)
def read_the_hosts_password_hashes(host: Host) -> str:
    """Read /etc/shadow."""
    return hidden(read_from("/etc/shadow"))


@snippet(bare=True)
def learn_the_hosts_users(host: Host) -> str:
    """Read who has an account on the host."""
    with open("/etc/passwd") as file:
        names = {line.partition(":")[0] for line in file}
    return verdict(names <= {"root", "user", "nobody"}, sorted(names))


@snippet(bare=True)
def look_around_in_the_root(host: Host) -> str:
    """List the root, and every directory on the way to the interpreter."""
    shown = [*shown_paths(), *SYSTEM, *OURS]
    above = {"/"} | {
        os.sep.join(parts[:count]) or "/"
        for parts in (path.split(os.sep) for path in [*shown_paths(), *OURS])
        for count in range(1, len(parts))
    }
    above = {path for path in above if not any(f"{path}/".startswith(f"{top}/") for top in shown)}
    seen = []
    for directory in sorted(above):
        for name in os.listdir(directory):
            path = os.path.join(directory, name)
            known = any(f"{each}/".startswith(f"{path}/") for each in shown)
            # Mount points of the zygote's, empty for us.
            empty = name.startswith(".") and not names_in(path)
            if not known and not empty:
                seen.append(path)
    return verdict(not seen, seen)


@snippet(bare=True)
def read_the_state_directory(host: Host) -> str:
    """Read the operator's token and secret, or list where they are."""
    state = host["state_dir"]
    names = ("token", "secret", "server.json", "ready.json", "serve.log")
    attempts = {name: read_from(f"{state}/{name}") for name in names}
    attempts["directory"] = lambda: os.listdir(state)
    return walled(attempts, "ENOENT")


@snippet(bare=True)
def read_files_beside_the_state_directory(host: Host) -> str:
    """Read files of other users in the host's temporary directories."""
    return walled({path: read_from(path) for path in host["marks"]}, "ENOENT")


@snippet()
def read_our_own_sources(host: Host) -> str:
    """Read the broker's code where it is installed."""
    paths = [f"{host['repo']}/{name}" for name in ("pyproject.toml", "broker/auth.py", ".git/HEAD")]
    paths += [f"{host['repo']}/kernels/launch.py", f"{host['repo']}/kernels/sandbox/recipe.py"]
    return walled({path: read_from(path) for path in paths}, "ENOENT")


@snippet()
def import_our_own_packages(host: Host) -> str:
    """Import the broker's own packages."""
    found = []
    for name in ("broker", "kernels", "kernels.sandbox.recipe", "broker.auth"):
        try:
            __import__(name)
        except ImportError:
            continue
        found.append(name)
    return verdict(not found, found)


@snippet(bare=True)
def climb_with_dot_dot(host: Host) -> str:
    """Climb above the workspace by way of its own descriptor."""
    here = os.open(".", os.O_PATH)
    try:
        path = "../" * 40 + "etc/shadow"
        return hidden(lambda: os.close(os.open(path, os.O_RDONLY, dir_fd=here)))
    finally:
        os.close(here)


@snippet(bare=True)
def leave_by_a_second_chroot(host: Host) -> str:
    """Change the root and climb out of it by a directory that was open before."""

    def attack() -> str:
        os.makedirs("inner", exist_ok=True)
        above = os.open("/", os.O_RDONLY)
        word = attempt(lambda: call("chroot", b"inner"))
        if word:
            return verdict(word in ("EPERM", "ENOSYS"), f"chroot: {word}")
        os.fchdir(above)
        call("chroot", b".")
        return verdict(False, os.listdir("/"))

    return told_by_child(attack)


@snippet(bare=True)
def follow_the_root_of_pid_1(host: Host) -> str:
    """Go through the root directory of the process above."""
    attempts = {
        "list": lambda: os.listdir("/proc/1/root"),
        "read": read_from("/proc/1/root/etc/shadow"),
        "cwd": lambda: os.listdir("/proc/1/cwd/"),
        "fd": lambda: os.listdir("/proc/1/fd"),
    }
    return walled(attempts, "ENOENT")


@snippet(bare=True)
def follow_the_links_of_self(host: Host) -> str:
    """Go up through the links that /proc keeps of this very process."""
    ways = ("self/root", "self/cwd/../../../..", "thread-self/root", "self/task/../root")
    return walled({way: read_from(f"/proc/{way}/etc/shadow") for way in ways}, "ENOENT")


@snippet()
def use_descriptors_left_open(host: Host) -> str:
    """Find a log, a directory or a namespace among the descriptors that were inherited."""
    found = {
        number: target
        for number, target in own_descriptors().items()
        if suspicious(target) or stat.S_ISDIR(os.stat(number).st_mode)
    }
    return verdict(not found, found)


@snippet()
def write_to_the_standard_descriptors(host: Host) -> str:
    """Fill the operator's log through descriptors 0, 1 and 2."""
    targets = {number: os.readlink(f"/proc/self/fd/{number}") for number in range(3)}
    for number in targets:
        attempt(lambda: os.write(number, b"flood " * 100_000))  # noqa: B023
    return verdict(set(targets.values()) == {"/dev/null"}, targets)


@snippet()
def connect_to_the_paths_of_own_sockets(host: Host) -> str:
    """Reach the broker's directory by the names that inherited sockets bear."""
    names = []
    for number, target in own_descriptors().items():
        if target.startswith("socket:"):
            with socket.socket(fileno=os.dup(number)) as held:
                name = held.getsockname()
            if isinstance(name, str) and name:
                names.append(name)
    attempts = {name: lambda name=name: _connect(name) for name in names}
    attempts |= {f"{name}/..": lambda name=name: os.listdir(f"{name}/..") for name in names}
    return walled(attempts, "ENOENT", "ENOTDIR")


def _connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)


@snippet()
def learn_of_others_from_the_mount_table(host: Host) -> str:
    """Find the state directory, or another session's files, in the list of mounts."""
    with open("/proc/self/mountinfo") as file:
        text = file.read()
    told = [each for each in host["private"] if re.search(each, text)]
    told += [host["state_dir"]] * (host["state_dir"] in text)
    return verdict(not told, told or f"{len(text.splitlines())} mounts")


@snippet(bare=True)
def read_the_kernels_own_memory(host: Host) -> str:
    """Open what /proc shows of the kernel: its memory, symbols, log, keys, modules."""
    names = "kcore kallsyms kmsg keys modules iomem timer_list slabinfo vmallocinfo kpageflags"
    return walled({name: read_from(f"/proc/{name}") for name in names.split()}, "ENOENT")


@snippet(bare=True)
def reach_for_the_magic_keys(host: Host) -> str:
    """Open the trigger that restarts a host; nothing is written to it."""
    paths = ("/proc/sysrq-trigger", "/proc/mtrr", "/proc/scsi/scsi", "/proc/acpi/wakeup")
    attempts = {path: lambda path=path: os.close(os.open(path, os.O_WRONLY)) for path in paths}
    return walled(attempts, "ENOENT")


@snippet(bare=True)
def open_the_kernels_settings(host: Host) -> str:
    """Open settings through which the host runs programs of one's choice; nothing is written."""
    names = "kernel/core_pattern kernel/modprobe kernel/hostname vm/overcommit_memory fs/file-max"
    more = "kernel/sysrq user/max_user_namespaces net/ipv4/ip_forward kernel/ns_last_pid"
    attempts = {
        name: lambda name=name: os.close(os.open(f"/proc/sys/{name}", os.O_WRONLY))
        for name in f"{names} {more}".split()
    }
    return walled(attempts, "ENOENT")


@snippet(bare=True)
def read_what_the_host_is(host: Host) -> str:
    """Read the host's command line, memory, disks and load."""
    names = "cmdline meminfo partitions diskstats cpuinfo version uptime loadavg interrupts mounts"
    found = [name for name in names.split() if not attempt(read_from(f"/proc/{name}"))]
    return verdict(set(found) <= {"mounts"}, found)


@snippet(bare=True)
def open_sys(host: Host) -> str:
    """List the devices of the host."""
    return hidden(lambda: os.listdir("/sys/kernel"))


@snippet(bare=True)
def find_the_cgroups(host: Host) -> str:
    """List the cgroups, and learn one's own place in them."""
    with open("/proc/self/cgroup") as file:
        places = {line.rstrip("\n").split(":", 2)[2] for line in file}
    word = attempt(lambda: os.listdir("/sys/fs/cgroup"))
    return verdict(word in ("ENOENT", "EACCES") and places <= {"/"}, f"{word}, {sorted(places)}")


@snippet(bare=True)
def make_device_nodes(host: Host) -> str:
    """Make the nodes of the memory and of the first disk, wherever files can be made."""
    attempts = {}
    for directory in (".", "/tmp", "/dev/shm"):  # noqa: S108
        for label, kind, number in (("mem", stat.S_IFCHR, (1, 1)), ("disk", stat.S_IFBLK, (8, 0))):
            path = f"{directory}/node-{label}-{os.getpid()}"
            device = os.makedev(*number)
            attempts[path] = lambda path=path, kind=kind, device=device: (
                os.mknod(path, kind | 0o600, device),
                os.unlink(path),
            )
    return walled(attempts)


@snippet(bare=True)
def find_more_devices(host: Host) -> str:
    """List /dev."""
    allowed = "null zero full random urandom shm fd stdin stdout stderr"
    found = set(os.listdir("/dev")) - set(allowed.split())
    return verdict(not found, sorted(found))


@snippet(bare=True)
def open_dangerous_devices(host: Host) -> str:
    """Open the devices of memory, disks, terminals, network taps and virtual machines."""
    names = "mem kmsg sda vda kvm fuse net/tun ptmx tty console loop-control loop0 vsock dri/card0"
    attempts = {
        name: lambda name=name: os.close(os.open(f"/dev/{name}", os.O_RDONLY | os.O_NONBLOCK))
        for name in names.split()
    }
    return walled(attempts, "ENOENT")


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
    return walled(attempts, "EROFS", "ENOTSUP", "EOPNOTSUPP")


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
        return walled(attempts, "ENOTSUP", "EOPNOTSUPP")
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
def open_a_file_by_its_number(host: Host) -> str:
    """Open the root of the disk by its inode number, past every mount (`Shocker`)."""
    # struct file_handle: bytes, type FILEID_INO32_GEN; inode 2, generation 0
    handle = ctypes.create_string_buffer(b"".join(n.to_bytes(4, "little") for n in (8, 1, 2, 0)))
    root = os.open("/", os.O_RDONLY)
    try:
        return denied(lambda: os.close(call("open_by_handle_at", root, handle, os.O_RDONLY)))
    finally:
        os.close(root)


@snippet(bare=True)
def ask_for_a_files_number(host: Host) -> str:
    """Get a handle by which a file could be opened past every mount."""
    handle = ctypes.create_string_buffer((128).to_bytes(4, "little"), 136)
    mount = ctypes.create_string_buffer(8)
    return denied(lambda: call("name_to_handle_at", AT_FDCWD, b"/", handle, mount, 0))


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
def list_the_other_workspaces(host: Host) -> str:
    """List where the zygote keeps what is not this kernel's."""
    places = ("/.workspaces", "/.cache", "/.sessions", "/run", "/var", "/root/.ssh")
    found = {path: names_in(path) for path in places if names_in(path)}
    return verdict(not found, found)


@snippet(bare=True)
def read_what_proc_tells_of_others(host: Host) -> str:
    """Read the environment, arguments, memory map and files of every process in sight."""
    seen = []
    for pid in processes():
        if pid in (os.getpid(), os.getppid()) and pid != 1:
            continue
        names = [f"{pid}/{name}" for name in ("environ", "maps", "stack", "syscall", "io", "auxv")]
        seen += [name for name in names if not attempt(read_from(f"/proc/{name}"))]
        seen += [f"{pid}/fd/{name}" for name in names_in(f"/proc/{pid}/fd")]
    return verdict(not seen, seen[:10])


@snippet(bare=True)
def learn_physical_addresses(host: Host) -> str:
    """Ask where one's own memory lies in the machine's."""
    found = 0
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as file:
            file.seek(id(found) // 4096 * 8)
            found = int.from_bytes(file.read(8), "little") & ((1 << 55) - 1)
    except OSError as error:
        return verdict(True, error.strerror)
    return verdict(found == 0, hex(found))


@snippet(bare=True)
def learn_the_kernels_addresses(host: Host) -> str:
    """Read one's own stack inside the kernel."""
    attempts = {name: read_from(f"/proc/self/{name}") for name in ("stack", "syscall")}
    return walled(attempts, "ENOENT")


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


@snippet(bare=True)
def look_into_others_directories(host: Host) -> str:
    """List home directories and mounts of the host."""
    seen = {path: sorted(os.listdir(path)) for path in ("/home", "/mnt")}
    return verdict(seen == {"/home": ["user"], "/mnt": ["data"]}, seen)


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


@snippet(bare=True)
def read_the_hosts_runtime_directories(host: Host) -> str:
    """List where services of the host keep sockets, logs and state."""
    paths = ("/run", "/var/log", "/var/lib", "/boot", "/opt", "/srv", "/media")
    found = [path for path in paths if not attempt(lambda path=path: os.listdir(path))]
    return verdict(not [path for path in found if path not in host["shown"]], found)


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
