"""A session whose host, kernel and clients say and do what a test has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson

from broker.errors import BrokerError
from broker.execution import Event
from broker.quotas import Quotas
from broker.requests import Execute
from broker.roles import Envelope, SessionKernel, SessionLimits
from broker.session import Session
from kernels.channels import Receiver
from kernels.errors import BadFrame
from kernels.messages import Message
from kernels.spec import Usage


class FakeChannels:
    def __init__(self) -> None:
        self.receiver: Receiver | None = None
        self.turned: Callable[[str], None] | None = None
        self.looks: list[str] = []
        self.on_look: Callable[[], None] = lambda: None
        self.broken: asyncio.Future[BadFrame] = asyncio.get_running_loop().create_future()
        self.sent: list[tuple[str, str, Any]] = []  # id, code, metadata
        self.contents: list[Any] = []  # of the same
        self.full = False
        self.answers: list[tuple[str, Any]] = []  # to what the kernel asks
        self.briefs: list[Any] = []  # what each request tells beside its code
        self.position = 0
        self.caught_up_from: list[int] = []
        self.asked_again = 0
        self.deaf = False

    def catch_up(self, count: int) -> None:
        self.caught_up_from.append(count)

    def ask_again(self) -> None:
        self.asked_again += 1
        if self.deaf:
            raise BlockingIOError("the kernel reads nothing")

    def next_id(self) -> str:
        return f"k_{len(self.sent) + 1}"

    def send(
        self, channel: str, kind: str, content: Any, *, msg_id: str = "info", metadata: Any = None
    ) -> str:
        if self.full:
            raise BlockingIOError("the kernel reads no more requests")
        if channel == "stdin":
            self.answers.append((kind, content))
        elif kind != "kernel_info_request":
            assert (channel, kind) == ("shell", "execute_request")
            self.briefs.append(content.get("broker"))
            self.sent.append((msg_id, content["code"], metadata))
            self.contents.append(content)
        return msg_id

    def look(self, channel: str) -> None:
        self.looks.append(channel)
        self.on_look()
        self.turn(channel)

    def turn(self, channel: str) -> None:
        """End a turn of the loop in which a message came."""
        assert self.turned is not None
        self.turned(channel)

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class FakeKernel:
    """Answers when a test has it answer."""

    def __init__(self, name: str = "k") -> None:
        self.kernel_id = name
        self.pid = 1
        self.channels: Any = FakeChannels()
        self.exited: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.interrupts = self.insisted = 0
        self.aimed: list[str] = []
        self.killed = False
        self.is_metered = False
        self.is_ours = True
        self.info = b""  # as of one that an earlier broker has made
        self.keep_workspace = False
        self.used = Usage()
        self.spent: float | None = None  # CPU seconds in all, once it has ended

    def introduce(self, content: bytes) -> None:
        self.info = content

    def usage(self) -> Usage:
        return self.used

    def tighten(self, **bounds: float | None) -> None: ...

    def interrupt(self, request_id: str = "") -> None:
        self.interrupts += 1
        self.aimed.append(request_id)

    def insist(self) -> None:
        self.insisted += 1

    def kill(self) -> None:
        self.killed = True

    def say(
        self,
        channel: str,
        kind: str,
        content: object,
        parent: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> bool | None:
        parent = self.channels.sent[-1][0] if parent is None else parent
        header = {"msg_type": kind}
        if self.channels.receiver is None:
            return None
        parts = header, {"msg_id": parent}, metadata or {}
        raw = orjson.dumps(parts[0]), orjson.dumps(parts[1]), orjson.dumps(parts[2])
        message = Message(*parts, orjson.dumps(content), (), parts=raw)
        return self.channels.receiver(channel, message)

    def begin(self) -> None:
        self.say("iopub", "status", {"execution_state": "busy"})
        self.say("iopub", "execute_input", {"execution_count": len(self.channels.sent)})

    def end(self, status: str = "ok") -> None:
        self.say("shell", "execute_reply", {"status": status})
        self.say("iopub", "status", {"execution_state": "idle"})

    @property
    def codes(self) -> list[str]:
        return [code for _, code, _ in self.channels.sent]


class FakeHost:
    def __init__(self) -> None:
        self.needed = 0
        self.lost: list[str] = []
        self.done: list[str] = []
        self.cpu: list[float | None] = []
        self.waits: list[float] = []
        self.leavers = 0
        self.quotas = Quotas()

    def need_kernel(self, session: Session) -> None:
        self.needed += 1

    def kernel_lost(self, session: Session, kernel: SessionKernel, reason: str) -> None:
        self.lost.append(reason)

    def executed(
        self, session: Session, status: str, seconds: float, cpu: float | None = None
    ) -> None:
        self.done.append(status)
        self.cpu.append(cpu)

    def answered(self, seconds: float) -> None:
        self.waits.append(seconds)

    def caught_up(self, session: Session) -> None:
        self.caught_up_with = session.state

    def left(self, session: Session) -> None:
        self.leavers += 1


class FakeClient:
    watches = False

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.faults: list[tuple[str, BrokerError]] = []
        self.ends: list[tuple[int, str]] = []
        self.writes: list[list[str]] = []  # what kinds of events left together
        self._taken: list[str] = []

    def deliver(self, envelope: Envelope) -> None:
        self.events.append(envelope.event)
        self._taken.append(envelope.event["type"])

    def dispatch(self) -> None:
        if self._taken:
            self.writes.append(self._taken)
            self._taken = []

    def fault(self, request_id: str, error: BrokerError) -> None:
        self.faults.append((request_id, error))

    def end(self, code: int, reason: str) -> None:
        self.ends.append((code, reason))

    def told(self, *fields: str) -> list[tuple[Any, ...]]:
        """Return the fields of every event that has the first of them."""
        return [tuple(e.get(f) for f in fields) for e in self.events if fields[0] in e]

    @property
    def kinds(self) -> list[str]:
        return [event["type"] for event in self.events]

    @property
    def dones(self) -> dict[str, str]:
        return {e["id"]: e["status"] for e in self.events if e["type"] == "done"}


class Scene:
    """A session, its host, a client, and (when bound) a kernel."""

    def __init__(self, *, bound: bool = True, **limits: Any) -> None:
        self.host = FakeHost()
        self.session = Session(
            "acme",
            "chat",
            "python",
            limits=SessionLimits(**{"queue": 3, "interrupt_grace": 2.0, **limits}),
            gate=asyncio.Lock(),
            host=self.host,
        )
        self.client = FakeClient()
        self.session.attach(self.client)
        self.kernel = FakeKernel()
        if bound:
            self.session.bind(self.kernel, 1, "fresh", "")

    def submit(
        self,
        *names: str,
        client: FakeClient | None = None,
        answers: bool = False,
        **fields: Any,
    ) -> None:
        for name in names:
            request = Execute(id=name, code=f"code {name}", **fields)
            self.session.work.submit(request, client or self.client, answers=answers)
