"""Fork one child and hear what becomes of it.

What it is to be goes down a socket of its own that only the child reads: a key never passes
through the zygote's memory.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kernels.errors import IsolationUnavailable, LaunchError, LaunchTimeout
from kernels.kernel import Workspace
from kernels.sandbox.cgroups import Cgroup
from kernels.spec import Limits
from kernels.zygote import Forked, Zygote

MAX_CONFIG = 160 << 10  # bytes; a packet must fit the default socket buffer of 208 KiB
BACKLOG = 16
MAX_PATH = 107  # bytes of a unix socket address, unix(7)


class Room(NamedTuple):
    """What one kernel is given beside its sockets."""

    workspace: Workspace
    cgroup: Cgroup | None

    def files(self, limits: Limits) -> dict[str, Any]:
        """Return what a zygote is told of the workspace."""
        size, files = limits.workspace_bytes, limits.workspace_files
        return {"name": self.workspace.workspace_id, "size": size, "files": files}


@dataclass(eq=False)
class Child:
    """A forked child on its way to what it was told to become. Whoever holds it closes it."""

    forked: Forked
    config: socket.socket

    async def answer(self) -> dict[str, Any]:
        """Return the child's word. Raises LaunchError if it is of a failure, or of an end."""
        try:
            word = await asyncio.get_running_loop().sock_recv(self.config, MAX_CONFIG)
        except ConnectionResetError:  # it ended before it had read what it was to be
            word = b""
        answer: dict[str, Any] = json.loads(word) if word else {"last_words": ""}
        if "last_words" in answer:
            # Shielded: the process's end is everybody's, and whoever waits here may be cancelled.
            reason = await asyncio.shield(self.forked.process.exited)
            said = answer["last_words"].strip()
            raise LaunchError(f"the kernel ended while it started: {reason}{said and f'; {said}'}")
        if "error" not in answer:
            return answer
        if layer := answer.get("layer"):
            raise IsolationUnavailable(
                f"the sandbox could not be made: {answer['error']}",
                layer=layer,
                remedy="`broker doctor` tells what this host lacks",
            )
        raise LaunchError(f"the kernel could not start: {answer['error']}")

    def close(self) -> None:
        """Let go of the socket; the process goes on."""
        self.config.close()

    async def end(self) -> None:
        """Kill the process and wait for its end."""
        self.forked.process.kill()
        await asyncio.wait([self.forked.process.exited])


async def fork(
    zygote: Zygote,
    name: str,
    options: dict[str, Any],
    *,
    workspace: dict[str, Any],
    listeners: Sequence[socket.socket] = (),
    cgroup: Cgroup | None = None,
    tied: bool = False,
    timeout: float = 60.0,
) -> Child:
    """Fork a child that becomes what `options` say, with these sockets. Raises LaunchError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    joins: list[int] = []
    try:
        ours.send(_packet(options))
        joins = cgroup.join_descriptors() if cgroup is not None else []
        descriptors = [theirs.fileno(), *(listener.fileno() for listener in listeners), *joins]
        async with asyncio.timeout(timeout):
            forked = await zygote.fork(
                name, descriptors, channels=len(listeners), workspace=workspace, tied=tied
            )
    except BaseException as error:
        ours.close()
        if isinstance(error, TimeoutError):
            raise LaunchTimeout(f"the zygote did not fork within {timeout:g} s") from None
        raise
    finally:
        theirs.close()
        for descriptor in joins:
            os.close(descriptor)
    return Child(forked, ours)


def refuse_long(directory: Path) -> None:
    """Raise LaunchError for a launcher's directory whose sockets would have too long a name."""
    excess = len(os.fsencode(directory / ("x" * 12) / "k-5")) - MAX_PATH
    if excess > 0:
        raise LaunchError(
            f"{directory} is {excess} bytes too long to hold socket files;"
            " use a shorter state directory"
        )


@contextmanager
def listening(paths: Iterable[Path]) -> Iterator[list[socket.socket]]:
    """Give the sockets that a kernel will serve; ours are closed with the block."""
    with ExitStack() as stack:
        yield [stack.enter_context(listen(path)) for path in paths]


def listen(path: Path) -> socket.socket:
    """Make the socket that a kernel will serve; connecting needs no waiting for it."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    directory = os.open(path.parent, os.O_PATH | os.O_CLOEXEC)
    try:
        # What it is bound by, getsockname(2) tells the kernel: not where the operator's files are.
        listener.bind(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def clear(directory: Path, cgroup: Cgroup | None) -> None:
    """Remove what a start that came to nothing has left; this may take a while."""
    shutil.rmtree(directory, ignore_errors=True)
    if cgroup is not None:
        with suppress(OSError):  # the next broker sweeps it
            cgroup.remove()


def _packet(options: dict[str, Any]) -> bytes:
    data = json.dumps(options).encode()
    if len(data) > MAX_CONFIG:
        raise LaunchError(
            f"the kernel's environment and arguments take {len(data)} bytes; at most {MAX_CONFIG}"
        )
    return data
