"""The broker's end of a fork server: start it or find it again, ask it for kernels.

The server side is `kernels/inside/forkserver.py`, which states the protocol. The zygote outlives
this process: it is started in a session of its own, and found again through its socket.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

from kernels.errors import LaunchError, ZygoteFailed
from kernels.process import Process, pid_of
from kernels.spec import KernelSpec
from kernels.warden import MAX_PACKET, VERSION, connect, last_words, recipe_of, spawn

MAX_DESCRIPTORS = 4


class Forked(NamedTuple):
    """A kernel process the zygote has forked, under the name it was told, and its workspace."""

    name: str
    process: Process
    workspace: str  # its name; empty without a sandbox
    files: int  # a descriptor of that directory, which the receiver owns; -1 without one


class Vanished(ZygoteFailed):
    """It ended before it had said a word."""


class Zygote:
    """A connection to one profile's fork server.

    `lost` resolves when the connection ends, for whatever reason. Kernels forked by it go on.
    """

    def __init__(self, connection: socket.socket, directory: Path) -> None:
        self._connection = connection
        self._directory = directory
        self._loop = asyncio.get_running_loop()
        self._outgoing: deque[tuple[bytes, list[int]]] = deque()
        self._forking: dict[str, asyncio.Future[Forked]] = {}
        self._processes: dict[str, Process] = {}
        self._listed: list[Forked] = []
        self._listing: asyncio.Future[list[Forked]] | None = None
        self._retiring: asyncio.Future[None] | None = None
        self._hello: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self.pid = 0
        self.code = ""  # a digest of what it runs
        self.lost: asyncio.Future[None] = self._loop.create_future()
        connection.setblocking(False)
        self._loop.add_reader(connection, self._read)

    def __repr__(self) -> str:
        state = "lost" if self.lost.done() else "connected"
        return f"<Zygote {self._directory.name}: pid {self.pid}, {state}>"

    @classmethod
    async def open(
        cls,
        spec: KernelSpec,
        directory: Path,
        *,
        orphan_ttl: float,
        timeout: float,
        sandbox: dict[str, Any] | None = None,
    ) -> Zygote:
        """Attach to the zygote of this directory, or start one.

        Raises ZygoteFailed with its last words if the interpreter or a preload is broken.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        recipe = recipe_of(spec, sandbox)
        connection = await asyncio.to_thread(connect, directory, recipe)
        if connection is not None:
            try:
                return await cls._greet(connection, spec, directory, timeout)
            except Vanished:  # its warden was about to end when we came
                connection = await asyncio.to_thread(connect, directory, recipe)
        if connection is None:
            connection = spawn(spec, directory, recipe, orphan_ttl, sandbox)
        return await cls._greet(connection, spec, directory, timeout)

    @classmethod
    async def _greet(
        cls, connection: socket.socket, spec: KernelSpec, directory: Path, timeout: float
    ) -> Zygote:
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
        zygote.code = str(hello["code"])
        return zygote

    async def succeed(self, spec: KernelSpec, timeout: float) -> Zygote:
        """Have a fresh zygote started beside this one, and return it when it is ready.

        This one serves until it is told to `leave`. Raises ZygoteFailed; then it goes on, and the
        other ends.
        """
        if self.lost.done():
            raise ZygoteFailed("the zygote is gone")
        self._retiring = self._loop.create_future()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._send({"op": "retire"})
        try:
            await self._retiring  # else the old one might take the connection that follows
            connection.connect(str(self._directory / "zygote.sock"))
            return await self._greet(connection, spec, self._directory, timeout)
        except BaseException as error:
            connection.close()
            self._send({"op": "stay"})
            if isinstance(error, OSError):
                raise ZygoteFailed(f"no successor can be reached: {error}") from error
            raise

    async def settle(self) -> None:
        """Wait until no fork is under way."""
        await asyncio.gather(*self._forking.values(), return_exceptions=True)

    def leave(self) -> None:
        """End the zygote and leave its kernels to its successor, which has adopted them."""
        self._send({"op": "leave"})

    async def fork(
        self,
        name: str,
        descriptors: list[int],
        *,
        channels: int,
        workspace: dict[str, Any],
        tied: bool = False,
    ) -> Forked:
        """Fork one kernel; the child gets the descriptors. Raises LaunchError.

        The first descriptor is the config's, then come those of as many channels, then cgroups'.
        A `workspace` of {name, size, files} is made if it is not there. A tied kernel is killed
        when this connection ends.
        """
        if self.lost.done():
            raise LaunchError("the zygote is gone")
        future: asyncio.Future[Forked] = self._loop.create_future()
        self._forking[name] = future
        request = {"op": "fork", "kernel": name, "tied": tied, "channels": channels}
        try:
            self._send({**request, "workspace": workspace}, descriptors)
            return await future
        finally:
            self._forking.pop(name, None)

    async def kernels(self) -> list[Forked]:
        """Return the live kernels of this zygote, for a broker that comes back."""
        if self.lost.done():
            raise LaunchError("the zygote is gone")
        self._listed, self._listing = [], self._loop.create_future()
        self._send({"op": "list"})
        return await self._listing

    def adopt(self, name: str, process: Process, *, workspace: str, tied: bool) -> None:
        """Hand a kernel of an earlier zygote over, so that it is not forgotten by an orphan."""
        if process.pidfd >= 0:
            request = {"op": "adopt", "kernel": name, "tied": tied, "workspace": workspace}
            self._send(request, process.descriptors)
            self._processes[name] = process

    def drop(self, workspace: str) -> None:
        """Have a workspace unmounted: its files are gone."""
        self._send({"op": "drop", "workspace": workspace})

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
        for future in (*self._forking.values(), self._listing, self._retiring, self._hello):
            if future is not None and not future.done():
                error = Vanished if future is self._hello else LaunchError
                future.set_exception(error(f"the zygote ended: {last_words(self._directory)}"))
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
                data, descriptors, _, _ = socket.recv_fds(
                    self._connection, MAX_PACKET, MAX_DESCRIPTORS
                )
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if not data:
                self.close()
                return
            self._take(json.loads(data), descriptors)

    def _take(self, event: dict[str, Any], descriptors: list[int]) -> None:
        kind, name = event["event"], event.get("kernel", "")
        if kind in ("hello", "failed"):
            for pidfd in descriptors:
                self.pid = pid_of(pidfd)
                os.close(pidfd)
            if not self._hello.done():
                self._hello.set_result(event)
        elif kind == "kernel":
            self._listed.append(self._forked(event, descriptors))
        elif kind == "forked":
            self._hand_out(self._forked(event, descriptors))
        elif kind == "retiring" and self._retiring and not self._retiring.done():
            self._retiring.set_result(None)
        elif kind == "refused":
            if (future := self._forking.get(name)) and not future.done():
                future.set_exception(LaunchError(event["error"]))
        elif kind == "exit":
            if ended := self._processes.pop(name, None):
                ended.set_status(event["status"])
        elif kind == "listed" and self._listing and not self._listing.done():
            self._listing.set_result(self._listed)

    def _hand_out(self, forked: Forked) -> None:
        if (future := self._forking.get(forked.name)) and not future.done():
            future.set_result(forked)
            return
        forked.process.kill()  # whoever asked has gone
        if forked.files >= 0:
            os.close(forked.files)

    def _forked(self, event: dict[str, Any], descriptors: list[int]) -> Forked:
        name, count = event["kernel"], 3 if event["reaper"] else 1
        own, rest = descriptors[:count], descriptors[count:]
        process = self._processes.get(name)
        if process is None:
            process = self._processes[name] = Process(*own)
        else:
            for descriptor in own:
                os.close(descriptor)
        files = rest[0] if rest else -1
        return Forked(name, process, event["workspace"], files)
