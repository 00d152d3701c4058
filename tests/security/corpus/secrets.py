"""Secrets and state: the operator's, the broker's and those of other sessions."""

import contextlib
import ctypes
import gc
import os
import re
import socket
import sys
import time

from tests.security.corpus import snippet
from tests.security.corpus.prelude import Host, attempt, read_from, scan_memory, verdict

LARGEST = 1 << 20  # bytes of a file that is read


def bracketed(text: str) -> str:
    """Return a pattern that matches `text` and does not hold it."""
    return "".join(f"[{letter}]" for letter in text)


def matches(data: bytes, patterns: list[str]) -> list[str]:
    """Return the patterns that the data holds."""
    return [pattern for pattern in patterns if re.search(pattern.encode("latin-1"), data)]


@snippet()
def read_the_environment(host: Host) -> str:
    """Find settings or keys in the environment."""
    text = repr((dict(os.environ), sys.argv)).encode()
    if not attempt(read_from("/proc/self/environ")):
        with open("/proc/self/environ", "rb") as file:
            text += file.read()
    names = [name for name in os.environ if re.match("BROKER|REDIS|AWS|.*(TOKEN|SECRET|KEY)", name)]
    return verdict(not names and not matches(text, host["secrets"]), names or sorted(os.environ))


@snippet()
def read_the_arguments(host: Host) -> str:
    """Find secrets, or where the operator's files are, in one's own arguments."""
    with open("/proc/self/cmdline", "rb") as file:
        text = file.read() + repr((sys.argv, sys.orig_argv)).encode()
    found = matches(text, host["secrets"]) + matches(text, host["private"])
    return verdict(not found, found or text[:200])


@snippet(alone=True)  # in a shared kernel, what earlier snippets were told is found
def search_ones_own_memory_for_secrets(host: Host) -> str:
    """Search all of one's memory for the token, the root of all keys and neighbours' keys."""
    planted = os.urandom(16).hex()
    kept = ctypes.create_string_buffer(planted.encode())
    sought = bracketed(planted)
    found = scan_memory([*host["secrets"], sought])
    if sought not in found:
        return verdict(False, "the search does not find what is there")
    found.remove(sought)
    return verdict(not found and bool(kept.value), f"found: {found}")


@snippet(alone=True)  # in a shared kernel, what earlier snippets were told is found
def search_ones_own_memory_for_neighbours(host: Host) -> str:
    """Search all of one's memory for what neighbours computed, and for what they are called."""
    found = scan_memory(host["private"])
    return verdict(not found, f"found: {[host['private'].index(each) for each in found]} {found}")


@snippet()
def search_all_objects_for_neighbours(host: Host) -> str:
    """Search all objects of the interpreter, the zygote's among them."""
    gc.unfreeze()
    found: set[str] = set()
    for each in gc.get_objects():
        for part in (
            each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
        ):
            if isinstance(part, str | bytes) and len(part) < LARGEST:
                data = part if isinstance(part, bytes) else part.encode(errors="replace")
                found |= set(matches(data, host["secrets"] + host["private"]))
    return verdict(not found, found)


@snippet()
def search_all_frames(host: Host) -> str:
    """Walk up the stack of every thread, to where the zygote forked."""
    seen = []
    for frame in sys._current_frames().values():
        each = frame
        while each is not None:
            text = repr(list(each.f_locals.values())).encode(errors="replace")
            found = matches(text, host["secrets"] + host["private"])
            if found:
                seen.append(f"{each.f_code.co_name}: {found}")
            each = each.f_back
    return verdict(not seen, seen)


@snippet()
def search_all_files(host: Host) -> str:
    """Search every file that can be read, but for programs and libraries."""
    found = []
    count = 0
    for top in ("/etc", "/home", "/mnt", "/tmp", "/dev", "/run", "/var", "/.cache"):  # noqa: S108
        for directory, _, names in os.walk(top):
            if directory.startswith("/dev/fd"):
                continue
            for name in names:
                path = os.path.join(directory, name)
                if os.path.isfile(path) and not attempt(read_from(path)):
                    count += 1
                    with open(path, "rb") as file:
                        if matches(file.read(LARGEST), host["secrets"] + host["private"]):
                            found.append(path)
    return verdict(not found, found or f"{count} files")


@snippet()
def read_the_history_of_others(host: Host) -> str:
    """Read what was typed before, in this session and in others."""
    manager = get_ipython().history_manager  # noqa: F821
    before = repr(list(manager.get_tail(1000, include_latest=True)))
    over = repr(list(manager.search("*"))) if hasattr(manager, "search") else ""
    found = matches((before + over).encode(errors="replace"), host["private"])
    return verdict(not found, found or "nothing of others")


@snippet()
def learn_where_the_operators_files_are(host: Host) -> str:
    """Find the state directory's path in anything that /proc tells of this process."""
    told = []
    for name in ("cmdline", "environ", "mountinfo", "mounts", "maps", "cgroup", "status"):
        try:
            with open(f"/proc/self/{name}", "rb") as file:
                if host["state_dir"].encode() in file.read():
                    told.append(name)
        except OSError:
            continue
    return verdict(not told, told)


@snippet()
def ask_the_sockets_where_they_are(host: Host) -> str:
    """Ask each socket that was inherited for its address and its peer's."""
    names = []
    for each in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(each))) as end:
            names.append(str(end.getsockname()))
            names.append(str(end.getpeername()))  # a listener has none
    told = [name for name in names if host["state_dir"] in name]
    return verdict(bool(names) and not told, told or names)


@snippet()
def read_memory_that_was_freed(host: Host) -> str:
    """Take fresh memory and look for what was in it before."""
    size = 32 << 20
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    found: set[str] = set()
    for step in (64, 1024, 4096, 65536, size):
        address = libc.malloc(step)
        found |= set(matches(ctypes.string_at(address, step), host["secrets"] + host["private"]))
        libc.free(address)
    return verdict(not found, found)


@snippet()
def time_the_token(host: Host) -> str:
    """Ask the broker with guessed tokens; there is no way to ask."""
    import urllib.request

    request = urllib.request.Request(f"http://127.0.0.1:{host['port']}/v1/sessions")
    began = time.monotonic()
    word = attempt(lambda: urllib.request.urlopen(request, timeout=2))  # noqa: S310
    return verdict(time.monotonic() - began < 2 and bool(word), word)
