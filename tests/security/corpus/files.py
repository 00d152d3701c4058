"""Files of the host, of the operator and of other sessions: to find and to read."""

import ctypes
import os
import re
import socket
import stat
import sys

from tests.security.corpus import snippet
from tests.security.corpus.prelude import (
    Host,
    attempt,
    call,
    denied,
    hidden,
    own_descriptors,
    processes,
    read_from,
    told_by_child,
    verdict,
    walled,
)

AT_FDCWD = -100
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
            # Mount points of the zygote's have nothing in them.
            if not known and any(files for _, _, files in os.walk(path)):
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
    # What a cell writes there is output of the cell's, by a pipe of the kernel's own.
    own = {"/dev/null", *(target for target in targets.values() if target.startswith("pipe:"))}
    return verdict(set(targets.values()) <= own, targets)


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
    return hidden(read_from("/proc/self/stack"))


@snippet(bare=True)
def look_into_others_directories(host: Host) -> str:
    """List home directories and mounts of the host."""
    seen = {path: sorted(os.listdir(path)) for path in ("/home", "/mnt")}
    return verdict(seen == {"/home": ["user"], "/mnt": ["data"]}, seen)


@snippet(bare=True)
def read_the_hosts_runtime_directories(host: Host) -> str:
    """List where services of the host keep sockets, logs and state."""
    paths = ("/run", "/var/log", "/var/lib", "/boot", "/opt", "/srv", "/media")
    found = [path for path in paths if not attempt(lambda path=path: os.listdir(path))]
    return verdict(not [path for path in found if path not in host["shown"]], found)
