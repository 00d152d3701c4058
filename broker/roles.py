"""Who a session deals with: its kernel, its clients, its host; and what it sends them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, TypeVar

from broker.bounds import ASKED, check_lower, check_same, still_lower
from broker.errors import BrokerError
from broker.execution import Event, OutputLimits
from broker.faults import Bounds
from broker.protocol import Codec, MsgpackCodec
from broker.quotas import Quotas
from kernels.changes import Changes
from kernels.channels import Channels
from kernels.messages import Message
from kernels.spec import Usage

S_contra = TypeVar("S_contra", contravariant=True)  # the session, which stands in a higher row


class Workspace(Protocol):
    """A session's files."""

    @property
    def workspace_id(self) -> str:
        """Name them, for ever."""

    @property
    def descriptor(self) -> int:
        """Give that of their directory, which others copy; -1 without one."""

    @property
    def changes(self) -> Changes | None:
        """Give what watches them, if anything does."""

    def changed(self) -> dict[str, Any]:
        """Return what has changed since it was asked last: `files`, as `done` has it, or {}."""


class SessionKernel(Protocol):
    """What a session needs of a kernel."""

    keep_workspace: bool  # whether its files stay when it is closed

    @property
    def kernel_id(self) -> str:
        """Name the kernel."""

    @property
    def pid(self) -> int:
        """Give the process id."""

    @property
    def channels(self) -> Channels:
        """Give the sockets."""

    @property
    def info(self) -> bytes:
        """Give the content of its answer to `kernel_info_request`; empty while nobody knows it."""

    def introduce(self, content: bytes) -> None:
        """Note such an answer."""

    @property
    def is_metered(self) -> bool:
        """Tell whether `usage()` counts every process, and takes but microseconds."""

    def tighten(
        self, *, memory: int | None = None, processes: int | None = None, cpu: float | None = None
    ) -> None:
        """Lower its bounds: bytes, counts, cores."""

    @property
    def is_ours(self) -> bool:
        """Tell whether its program is ours: it calls host tools, and answers what is asked."""

    def usage(self) -> Usage:
        """Return what it has used so far, where that is known."""

    @property
    def spent(self) -> float | None:
        """Give the CPU seconds it has used in all, once it has ended, where that is known."""

    @property
    def exited(self) -> asyncio.Future[str]:
        """Resolve with the reason when it ends."""

    def interrupt(self, request_id: str = "") -> None:
        """Ask the request of that id to stop, by the kernel's own id; without one, what runs."""

    def insist(self) -> None:
        """Ask once more, by a signal, which reaches even who reads no messages."""

    def kill(self) -> None:
        """End it at once."""


class Client(Protocol):
    """Somebody who follows the session. No call may block or raise."""

    @property
    def watches(self) -> bool:
        """Tell whether it may run nothing."""

    def deliver(self, envelope: Envelope) -> None:
        """Take an event; it need not be sent before `dispatch`, which follows in the same turn."""

    def dispatch(self) -> None:
        """Send what was taken."""

    def fault(self, request_id: str, error: BrokerError) -> None:
        """Learn that a request was not taken after all."""

    def end(self, code: int, reason: str) -> None:
        """Learn that the session has ended for this client; `code` is a WebSocket close code."""


class Tap(Protocol):
    """Who hears a session's kernel itself, beside the session."""

    def take(self, channel: str, message: Message) -> bool:
        """Take in a message before the session does; tell whether it stands for anything."""

    def bound(self) -> None:
        """Learn that there is a kernel."""

    def ended(self, reason: str) -> None:
        """Learn that the kernel is lost; what ran and what waited has been told so."""

    def close(self) -> None:
        """Learn that the session has ended."""


class Host(Protocol[S_contra]):
    """Who owns the session: gives it kernels and writes down what becomes of it."""

    def need_kernel(self, session: S_contra) -> object:
        """Bind a kernel, or `refuse()` what waits for one."""

    def kernel_lost(self, session: S_contra, kernel: SessionKernel, reason: str) -> None:
        """Clean up after a kernel that has ended."""

    @property
    def quotas(self) -> Quotas:
        """Give what tenants may use."""

    def executed(
        self, session: S_contra, status: str, seconds: float, cpu: float | None = None
    ) -> None:
        """Note the end of an execution, and the CPU seconds it took, where these are known."""

    def answered(self, seconds: float) -> None:
        """Note how long an execution waited for the first answer of a new kernel."""

    def caught_up(self, session: S_contra) -> None:
        """Note that an adopted kernel has ended what it was given before."""

    def left(self, session: S_contra) -> None:
        """Note that the last client has gone."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Bounds on one session. Seconds, counts, bytes, cores; 0 is no bound."""

    queue: int = 32
    idle_timeout: float = 1800.0
    max_lifetime: float = 43_200.0
    execution_timeout: float = 300.0
    cpu_time: float = 0.0  # of one execution
    memory: int = 1 << 30
    processes: int = 128
    cpu: float = 1.0
    workspace_bytes: int = 256 << 20
    interrupt_grace: float = 3.0
    replay_bytes: int = 4 << 20
    replay_events: int = 1000
    transcript_cells: int = 200
    transcript_bytes: int = 1 << 20
    questions: int = 16  # open at once
    tool_calls: int = 64  # of host tools, open at once
    tool_grace: float = 10.0  # for a client that serves tools to come back
    output: OutputLimits = field(default_factory=OutputLimits)
    code_only: bool = False  # its kernels are another kernelspec's, and know no more than Jupyter
    asked: Mapping[str, float] = field(default_factory=dict)  # of these, what a client has lowered

    def lowered(self, asked: Mapping[str, float], level: str) -> SessionLimits:
        """Return the bounds with what a client asks for; raises BadMessage for what is more.

        `level` is the isolation that is to hold a kernel to them.
        """
        check_lower(asked, self._askable, level)
        return self._with(asked)

    def still_lowered(self, asked: Mapping[str, float]) -> SessionLimits:
        """Return the bounds with what is left of those asked for under other settings."""
        return self._with(still_lower(asked, self._askable))

    def check_same(self, asked: Mapping[str, float]) -> None:
        """Raise BadMessage if a client asks for others than these."""
        check_same(asked, self._askable)

    def _with(self, asked: Mapping[str, float]) -> SessionLimits:
        changes: dict[str, Any] = {**asked}
        return replace(self, **changes, asked=asked)

    @property
    def _askable(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in ASKED}

    def told(self) -> dict[str, float]:
        """Return what clients are told of the bounds."""
        return {
            "execution_timeout": self.execution_timeout,
            "idle_timeout": self.idle_timeout,
            "max_lifetime": self.max_lifetime,
            "queue": self.queue,
            "output_bytes": self.output.text,
            "cpu_time": self.cpu_time,
            "memory": self.memory,
            "processes": self.processes,
            "cpu": self.cpu,
            "workspace_bytes": self.workspace_bytes,
        }


class Envelope:
    """An event on its way to clients, encoded once per codec however many there are."""

    __slots__ = ("_event", "_frames")

    def __init__(self, event: Event) -> None:
        self._event: Event | None = event
        self._frames: dict[str, bytes] = {}

    @classmethod
    def of(cls, packed: bytes) -> Envelope:
        """Return one whose event is that of a frame that `packed` returned."""
        envelope = cls({})
        envelope._event, envelope._frames[PACKING.name] = None, packed
        return envelope

    @property
    def event(self) -> Event:
        """Return the event as it is, or as it was packed."""
        if self._event is None:
            self._event = PACKING.unpacked(self._frames[PACKING.name])
        return self._event

    @property
    def packed(self) -> bytes:
        """Return the event in the least room; most clients get the same frame."""
        return self.frame(PACKING)

    def frame(self, codec: Codec) -> bytes:
        """Return the event as that codec's frame."""
        frame = self._frames.get(codec.name)
        if frame is None:
            frame = self._frames[codec.name] = codec.encode(self.event)
        return frame


PACKING: Final = MsgpackCodec(Bounds())
