"""Talk to a kernel in tests: run a cell, get all that it said in the order it said it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import zmq.asyncio
from jupyter_client.session import Session

from kernels.channels import PORTS
from kernels.launch import Kernel, Launcher, Workspace
from kernels.messages import Message
from kernels.spec import KernelSpec

LIGHT = KernelSpec(preload=())  # what most tests use: nothing beyond the kernel itself
TIMEOUT = 60.0


@dataclass
class Said:
    """All that a kernel said about one request."""

    request_id: str = ""
    reply: Message | None = None
    idle: bool = False
    messages: list[Message] = field(default_factory=list)  # of iopub, in order
    late: list[Message] = field(default_factory=list)  # of iopub, after `idle`

    @property
    def status(self) -> str:
        assert self.reply is not None
        return str(self.reply.content["status"])

    @property
    def metadata(self) -> dict[str, Any]:
        assert self.reply is not None
        return self.reply.metadata

    def contents(self, *kinds: str) -> list[dict[str, Any]]:
        return [message.content for message in self.messages if message.type in kinds]

    def text(self, name: str = "stdout") -> str:
        return "".join(c["text"] for c in self.contents("stream") if c["name"] == name)

    @property
    def value(self) -> str:
        """The text of the result, or what went wrong in its place."""
        for content in self.contents("error"):
            return f"{content['ename']}: {content['evalue']}"
        for content in self.contents("execute_result"):
            return str(content["data"]["text/plain"])
        return ""

    @property
    def data(self) -> dict[str, Any]:
        """The mime bundles of all displays and results, later ones over earlier ones."""
        found: dict[str, Any] = {}
        for content in self.contents("display_data", "execute_result"):
            found |= content["data"]
        return found


class Talk:
    """One party's conversation with a kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._said: dict[str, Said] = {}
        self._changed = asyncio.Event()
        kernel.channels.receiver = self._take

    def _take(self, channel: str, message: Message) -> None:
        said = self._said.get(message.parent_id)
        if said is None:
            return
        if channel in ("shell", "control"):
            said.reply = message
        elif channel == "iopub":
            (said.late if said.idle else said.messages).append(message)
            if message.type == "status" and message.content["execution_state"] == "idle":
                said.idle = True
        self._changed.set()

    def start(self, code: str, **options: Any) -> Said:
        """Send a cell; wait for it with `end`."""
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}}
        content |= {"allow_stdin": False, "stop_on_error": False, **options}
        return self.ask("execute_request", content)

    def ask(self, kind: str, content: dict[str, Any], channel: str = "shell") -> Said:
        msg_id = self.kernel.channels.next_id()
        said = self._said[msg_id] = Said(msg_id)
        self.kernel.channels.send(channel, kind, content, msg_id=msg_id)
        return said

    async def interrupt(self, target: Said | None = None) -> None:
        """Interrupt, and wait until the kernel has sent the signal to itself."""
        content = {} if target is None else {"request": target.request_id}
        await self.end(self.ask("interrupt_request", content, "control"))

    async def until(self, done: Any, *, timeout: float = TIMEOUT) -> None:
        """Wait until `done()`, asked after each message, is true; or until the kernel's end."""
        async with asyncio.timeout(timeout):
            while not done():
                if self.kernel.exited.done():
                    raise EOFError(self.kernel.exited.result())
                self._changed.clear()
                waiting: asyncio.Future[Any] = asyncio.ensure_future(self._changed.wait())
                try:
                    await asyncio.wait(
                        [waiting, self.kernel.exited], return_when=asyncio.FIRST_COMPLETED
                    )
                finally:
                    waiting.cancel()

    async def end(self, said: Said) -> Said:
        await self.until(lambda: said.reply is not None and said.idle)
        return said

    async def run(self, code: str, **options: Any) -> Said:
        return await self.end(self.start(code, **options))

    async def value(self, code: str) -> str:
        return (await self.run(code)).value


@contextmanager
def overheard(talk: Talk) -> Iterator[list[Message]]:
    """Collect all that is published meanwhile, whoever's it is."""
    messages: list[Message] = []
    take = talk.kernel.channels.receiver

    def heard(channel: str, message: Message) -> bool | None:
        if channel == "iopub":
            messages.append(message)
        return None if take is None else take(channel, message)

    talk.kernel.channels.receiver = heard
    try:
        yield messages
    finally:
        talk.kernel.channels.receiver = take


class Request(NamedTuple):
    """A request as it is sent, and what its answers name it."""

    frames: list[bytes]
    id: str


class Visitor:
    """Another client of a kernel, with a key that may not be the kernel's."""

    def __init__(self, talk: Talk, channel: str, key: str) -> None:
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.connect(f"ipc://{talk.kernel.directory}/k-{PORTS[channel]}")
        self._key = key

    @staticmethod
    def message(kind: str, content: dict[str, Any], key: str, subshell: str = "") -> Request:
        session = Session(key=key.encode())
        message = session.msg(kind, content)
        if subshell:
            message["header"]["subshell_id"] = subshell
        frames = [bytes(frame) for frame in session.serialize(message)]
        return Request(frames, message["header"]["msg_id"])

    async def send(self, kind: str, content: dict[str, Any], subshell: str = "") -> str:
        request = self.message(kind, content, self._key, subshell)
        await self._socket.send_multipart(request.frames)
        return request.id

    async def receive(self) -> dict[str, Any]:
        session = Session(key=self._key.encode())
        async with asyncio.timeout(TIMEOUT):
            _, frames = session.feed_identities(await self._socket.recv_multipart())
        message: dict[str, Any] = session.deserialize(frames)
        return message

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._context.destroy(0)


async def until_gone(pid: int) -> None:
    """Wait for the end of a process that need not be our child."""
    loop = asyncio.get_running_loop()
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    gone = loop.create_future()
    loop.add_reader(pidfd, lambda: gone.done() or gone.set_result(None))
    try:
        async with asyncio.timeout(20):
            await gone
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


@asynccontextmanager
async def talking(launcher: Launcher, *, workspace: Workspace | None = None) -> AsyncIterator[Talk]:
    """Launch a kernel for one test."""
    kernel = await launcher.launch(workspace=workspace)
    try:
        yield Talk(kernel)
    finally:
        await kernel.close()


@asynccontextmanager
async def launching(
    directory: Path, isolation: str, spec: KernelSpec = LIGHT, **options: Any
) -> AsyncIterator[Launcher]:
    """Make a launcher for one test; what it started ends with the block."""
    launcher = Launcher(spec, directory, isolation=isolation, **options)
    try:
        yield launcher
    finally:
        await launcher.aclose()


async def settled(launcher: Launcher) -> None:
    """Wait until the zygote has seen every end that we have, and done what it was asked.

    Its word may be one of a batch that holds a kernel's end too; the second word is of a later one.
    """
    await launcher.tidy()
    await launcher.tidy()


def parent_of(pid: int) -> int:
    """Return the host's id of a process's parent."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("PPid:"))


def warden_of(launcher: Launcher) -> int:
    """Return the host's id of the process that keeps the zygote."""
    return parent_of(launcher.zygote_pid)
