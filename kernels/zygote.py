"""The broker's end of a fork server: start it or find it again, ask it for kernels.

The server side is `kernels/inside/forkserver.py`, which states the protocol. The zygote outlives
this process: it is started in a session of its own, and found again through its socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

from kernels.errors import LaunchError, ZygoteFailed
from kernels.process import Process
from kernels.spec import KernelSpec

BOOT = Path(__file__).parent / "inside" / "boot.py"
MAX_PACKET = 64 << 10
LAST_WORDS = 2000  # characters of the zygote's log shown when it fails
STOP_WAIT = 5.0  # s for a zygote of an older configuration to end
VERSION = 1

_started: set[subprocess.Popen[bytes]] = set()  # by this process, and not yet ended


class Forked(NamedTuple):
    """A kernel process the zygote has forked, and the label it was given."""

    kernel_id: str
    process: Process
    label: str


class Zygote:
    """A connection to one profile's fork server.

    `lost` resolves when the connection ends, for whatever reason. Kernels forked by it go on.
    """

    def __init__(self, connection: socket.socket, directory: Path) -> None:
        self._connection = connection
        self._directory = directory
        self._loop = asyncio.get_running_loop()
        self._outgoing: deque[tuple[bytes, list[int]]] = deque()
        self._forking: dict[str, asyncio.Future[Process]] = {}
        self._processes: dict[str, Process] = {}
        self._listed: list[Forked] = []
        self._listing: asyncio.Future[list[Forked]] | None = None
        self._hello: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self.pid = 0
        self.lost: asyncio.Future[None] = self._loop.create_future()
        connection.setblocking(False)
        self._loop.add_reader(connection, self._read)

    def __repr__(self) -> str:
        state = "lost" if self.lost.done() else "connected"
        return f"<Zygote {self._directory.name}: pid {self.pid}, {state}>"

    @classmethod
    async def open(
        cls, spec: KernelSpec, directory: Path, *, orphan_ttl: float, timeout: float
    ) -> Zygote:
        """Attach to the zygote of this directory, or start one.

        Raises ZygoteFailed with its last words if the interpreter or a preload is broken.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        recipe = _recipe(spec)
        connection = await asyncio.to_thread(_connect, directory, recipe)
        if connection is None:
            connection = _spawn(spec, directory, recipe, orphan_ttl)
        zygote = cls(connection, directory)
        try:
            async with asyncio.timeout(timeout):
                hello = await zygote._hello
        except TimeoutError:
            zygote.close()
            raise ZygoteFailed(f"the imports of {spec.name!r} took over {timeout:g} s") from None
        except BaseException:
            zygote.close()
            raise
        if hello["event"] != "hello" or hello.get("version") != VERSION:
            zygote.close()
            raise ZygoteFailed(str(hello.get("error", "it speaks another version")))
        zygote.pid = int(hello["pid"])
        return zygote

    async def fork(self, kernel_id: str, descriptors: list[int], *, tied: bool = False) -> Process:
        """Fork one kernel; the child gets the descriptors. Raises LaunchError.

        A tied one is killed when this connection ends.
        """
        if self.lost.done():
            raise LaunchError("the zygote is gone")
        future: asyncio.Future[Process] = self._loop.create_future()
        self._forking[kernel_id] = future
        try:
            self._send({"op": "fork", "kernel": kernel_id, "tied": tied}, descriptors)
            return await future
        finally:
            self._forking.pop(kernel_id, None)

    async def kernels(self) -> list[Forked]:
        """Return the live kernels of this zygote, for a broker that comes back."""
        if self.lost.done():
            raise LaunchError("the zygote is gone")
        self._listed, self._listing = [], self._loop.create_future()
        self._send({"op": "list"})
        return await self._listing

    def label(self, kernel_id: str, text: str) -> None:
        """Note who is bound to the kernel; a later broker reads it."""
        self._send({"op": "label", "kernel": kernel_id, "label": text})

    def adopt(self, kernel_id: str, process: Process, label: str, *, tied: bool = False) -> None:
        """Hand a kernel of an earlier zygote over, so that it is not forgotten by an orphan."""
        if process.pidfd >= 0:
            request = {"op": "adopt", "kernel": kernel_id, "label": label, "pid": process.pid}
            self._send({**request, "tied": tied}, [process.pidfd])
            self._processes[kernel_id] = process

    def stop(self) -> None:
        """End the zygote and all its kernels."""
        self._send({"op": "stop"})

    def close(self) -> None:
        """Let go of the zygote; it goes on."""
        if not self.lost.done():
            self._loop.remove_reader(self._connection)
            self._loop.remove_writer(self._connection)
            self._connection.close()
            while self._outgoing:
                for descriptor in self._outgoing.popleft()[1]:
                    os.close(descriptor)
            self.lost.set_result(None)
        for future in (*self._forking.values(), self._listing, self._hello):
            if future is not None and not future.done():
                error = ZygoteFailed if future is self._hello else LaunchError
                future.set_exception(error(f"the zygote ended: {_last_words(self._directory)}"))
                future.exception()  # seen: whoever waits still gets it

    def _send(self, request: dict[str, Any], descriptors: list[int] | None = None) -> None:
        if self.lost.done():
            return
        # Duplicates live until they are sent; the caller may close its own at once.
        copies = [os.dup(descriptor) for descriptor in descriptors or []]
        self._outgoing.append((json.dumps(request).encode(), copies))
        self._write()

    def _write(self) -> None:
        while self._outgoing:
            data, descriptors = self._outgoing[0]
            try:
                socket.send_fds(self._connection, [data], descriptors)
            except BlockingIOError:
                self._loop.add_writer(self._connection, self._write)
                return
            except OSError:
                self.close()
                return
            self._outgoing.popleft()
            for descriptor in descriptors:
                os.close(descriptor)
        self._loop.remove_writer(self._connection)

    def _read(self) -> None:
        while not self.lost.done():
            try:
                data, descriptors, _, _ = socket.recv_fds(self._connection, MAX_PACKET, 4)
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if not data:
                self.close()
                return
            self._take(json.loads(data), descriptors)

    def _take(self, event: dict[str, Any], descriptors: list[int]) -> None:
        kind, kernel_id = event["event"], event.get("kernel", "")
        if kind in ("hello", "failed"):
            if not self._hello.done():
                self._hello.set_result(event)
        elif kind in ("forked", "kernel"):
            process = self._process(kernel_id, event["pid"], descriptors[0])
            if kind == "kernel":
                self._listed.append(Forked(kernel_id, process, event["label"]))
            elif (future := self._forking.get(kernel_id)) and not future.done():
                future.set_result(process)
            else:
                process.kill()  # whoever asked has gone
        elif kind == "refused":
            if (future := self._forking.get(kernel_id)) and not future.done():
                future.set_exception(LaunchError(event["error"]))
        elif kind == "exit":
            if ended := self._processes.pop(kernel_id, None):
                ended.set_status(event["status"])
        elif kind == "listed" and self._listing and not self._listing.done():
            self._listing.set_result(self._listed)

    def _process(self, kernel_id: str, pid: int, pidfd: int) -> Process:
        if known := self._processes.get(kernel_id):
            os.close(pidfd)
            return known
        self._processes[kernel_id] = Process(pid, pidfd)
        return self._processes[kernel_id]


def _recipe(spec: KernelSpec) -> str:
    """Return what the zygote was made from: another recipe needs another zygote."""
    return json.dumps([VERSION, _python(spec), list(spec.preload)])


def _python(spec: KernelSpec) -> str:
    return spec.python or sys.executable


def _connect(directory: Path, recipe: str) -> socket.socket | None:
    """Connect to a zygote that is already there and made from the same recipe."""
    path = directory / "zygote.sock"
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        return None
    with contextlib.suppress(OSError):
        if (directory / "zygote.json").read_text() == recipe:
            return connection
    # Made for an older configuration: its kernels would be of the wrong kind. Closing before it
    # has read that would lose the request.
    connection.settimeout(STOP_WAIT)
    with contextlib.suppress(OSError):
        connection.send(b'{"op": "stop"}')
        while connection.recv(MAX_PACKET):
            pass
    connection.close()
    return None


def _spawn(spec: KernelSpec, directory: Path, recipe: str, orphan_ttl: float) -> socket.socket:
    """Start the fork server on a socket made here; connecting needs no waiting for it."""
    path = directory / "zygote.sock"
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    options = json.dumps({"preload": list(spec.preload), "orphan_ttl": orphan_ttl})
    cache = directory / "cache"
    cache.mkdir(mode=0o700, exist_ok=True)
    try:
        listener.bind(str(path))
        listener.listen(4)
        connection.connect(str(path))
        with (directory / "zygote.log").open("wb") as log:
            # -I: nothing from the environment or the current directory is on the path.
            process = subprocess.Popen(
                [_python(spec), "-I", str(BOOT), str(listener.fileno()), options],
                pass_fds=[listener.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(cache),
                cwd="/",
                start_new_session=True,
            )
        _reap(process)
        (directory / "zygote.json").write_text(recipe)
    except OSError as error:
        connection.close()
        raise ZygoteFailed(f"cannot start {_python(spec)}: {error}") from error
    finally:
        listener.close()
    return connection


def _reap(process: subprocess.Popen[bytes]) -> None:
    """Take the exit status when it comes, so that no zombie stays behind."""
    loop = asyncio.get_running_loop()
    pidfd = os.pidfd_open(process.pid)

    def ended() -> None:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        process.wait()
        _started.discard(process)

    _started.add(process)
    loop.add_reader(pidfd, ended)


def _environment(cache: Path) -> dict[str, str]:
    """Return the zygote's whole environment; nothing of the broker's own is in it."""
    return {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "HOME": str(cache),
        "IPYTHONDIR": str(cache / "ipython"),
        "MPLCONFIGDIR": str(cache / "matplotlib"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        # One thread until the fork; a kernel's own setting comes with its environment.
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


def _last_words(directory: Path) -> str:
    with contextlib.suppress(OSError):
        text = (directory / "zygote.log").read_text(errors="replace").strip()
        if text:
            return text[-LAST_WORDS:]
    return "it said nothing"


def lock(directory: Path) -> int:
    """Take the directory for this process. Raises BlockingIOError if another process has it."""
    descriptor = os.open(directory / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    return descriptor
