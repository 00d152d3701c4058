"""The broker's connections to one kernel, on the asyncio loop.

One each for shell, control and stdin, which ask and are answered, and one for iopub, however many
clients watch. Every byte that comes is a stranger's: each message is of bounded size and form
(`zmtp`, `messages`), a kernel that floods us with messages nobody asked for is broken off, and one
whose messages are slow to take in waits for its neighbours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

from kernels.errors import BadFrame
from kernels.link import TURN, Link
from kernels.messages import Message, Signer
from kernels.zmtp import Conversation, after

# The number of each channel, as in jupyter_client's ipc transport: the socket is `<prefix>-<n>`.
PORTS: Final = {"shell": 1, "iopub": 2, "stdin": 3, "hb": 4, "control": 5}
KINDS: Final = {"shell": "DEALER", "control": "DEALER", "stdin": "DEALER", "iopub": "SUB"}
SMALL: Final = 4 << 20  # bytes of a message on channels that carry no output
SMALL_CHANNELS: Final = ("stdin", "control")
WELCOME: Final = 4096  # bytes of a welcome: it has little to say
MOST_MESSAGES: Final = 2**53  # that a kernel can have published
HANG_UP_PATIENCE: Final = 5.0  # s that a kernel may live on after it has closed a channel

# A message that took longer is followed by a rest of several times its length, so that others get
# most of the loop whatever one kernel sends. Seconds.
LONG_TURN: Final = 2 * TURN
REST: Final = 4  # times as long
# Kernels that rest at once rest for each other, up to this: an honest one may be among them.
SHARED_REST: Final = 1.0

# Messages that stand for nothing (nobody asked, or nobody knows their kind) cost us time all the
# same; what an output bound cuts off is not of these. A kernel has a credit of them, which grows by
# the second and with each request of ours. An answer earns nothing: a kernel asks as often as it
# likes.
CREDIT: Final = 100_000
CREDIT_PER_SECOND: Final = 1000
CREDIT_PER_REQUEST: Final = 16

# Returns False for a message that stands for nothing.
Receiver = Callable[[str, Message], bool | None]


class Channels:
    """Talk to one kernel.

    With an `identity`, the kernel knows this peer again after a broker's death.

    `receiver(channel, message)` is called for each message in the order it arrived per channel,
    and `turned(channel)` at the end of each turn of the loop in which it was called.
    `broken` resolves with the fault when the kernel sends bytes that no honest kernel sends, more
    than it may, or nothing any more though it lives; from then on nothing more is read.
    """

    _resting: ClassVar[int] = 0  # kernels of this process

    def __init__(
        self,
        prefix: Path,
        key: bytes,
        name: str,
        *,
        max_message: int = 64 << 20,
        patience: float = HANG_UP_PATIENCE,
        identity: str = "",
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._signer = Signer(key)
        self._name = name
        self._identity = (identity or name).encode()
        self.resumable = bool(identity)  # a kernel that knows its peers again
        self.position = 0  # how many messages the kernel has published, as far as they have come
        self._early: Message | None = None  # the reply that came before anybody took it
        self._awaited = b""  # the topic whose welcome ends what is not to be taken in
        self._asks_again = False  # the kernel is to be told so after that
        self._count = 0
        self._patience = patience
        self._closed = False
        self._paused = False
        self._rest: asyncio.TimerHandle | None = None
        self._hang_up: asyncio.TimerHandle | None = None
        self._credit: float = CREDIT
        self._credited = self._loop.time()
        self.receiver: Receiver | None = None
        self.turned: Callable[[str], None] | None = None
        self._received = False  # in this turn
        self.subscribed: asyncio.Future[None] = self._loop.create_future()
        self.broken: asyncio.Future[BadFrame] = self._loop.create_future()
        self._links: dict[str, Link] = {}
        for channel in KINDS:
            self._links[channel] = self._link(channel, prefix, max_message)

    def _link(self, channel: str, prefix: Path, most: int) -> Link:
        # One identity for all: the kernel sends an input_request to the stdin socket with the
        # identity of the shell request it serves.
        identity = b"" if channel == "iopub" else self._identity
        if channel in SMALL_CHANNELS:
            most = min(most, SMALL) if most >= 0 else SMALL
        return Link(
            f"{prefix}-{PORTS[channel]}",
            partial(Conversation, KINDS[channel], identity, most),
            take=partial(self._take, channel),
            ended=partial(self._ended, channel),
            worked=partial(self._worked, channel),
        )

    def next_id(self) -> str:
        """Return a message id that no other message of this connection has."""
        self._count += 1
        return f"{self._name}_{self._count}"

    def send(
        self,
        channel: str,
        msg_type: str,
        content: Mapping[str, Any] | bytes,
        *,
        msg_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        parent: Mapping[str, Any] | None = None,
        subshell: str | None = None,
        buffers: Sequence[bytes] = (),
    ) -> str:
        """Send one message and return its id. Raises BlockingIOError if the queue is full.

        The other parameters are those of `Signer.pack`.
        """
        msg_id = msg_id or self.next_id()
        frames = self._signer.pack(
            msg_type,
            content,
            msg_id=msg_id,
            date=datetime.now(UTC).isoformat(),
            session=self._name,
            metadata=metadata,
            parent=parent,
            subshell=subshell,
        )
        self._links[channel].send([*frames, *buffers] if buffers else frames)
        if channel != "stdin":
            self._credit += CREDIT_PER_REQUEST
        return msg_id

    def catch_up(self, count: int) -> None:
        """Have the kernel publish again what came after so many messages, and take in only that.

        For an adopted kernel, before anything else is taken in. One that is not `resumable`
        publishes on as before.
        """
        if self.resumable:
            subscription = after(count)
            self._awaited = subscription[1:]
            self._links["iopub"].send([subscription])
            if self._early is not None:
                self._loop.call_soon(self._take_early, self._early)
                self._early = None

    def ask_again(self) -> None:
        """Have a kernel of ours ask again what it has asked of an earlier broker and waits for.

        Behind what it publishes again, where that is on its way: questions follow the output that
        came before them. Raises BlockingIOError if the queue is full.
        """
        self._asks_again = bool(self._awaited)
        if not self._asks_again:
            self.send("stdin", "broker_ask_again", {})

    def _take_early(self, reply: Message) -> None:
        try:
            if self.receiver is None or self.receiver("shell", reply) is False:
                self._waste()
        except BadFrame as fault:
            self._break(fault)
        if self.turned is not None:
            self.turned("shell")

    def pause(self) -> None:
        """Leave unread what the kernel publishes: its socket fills up, and then it waits."""
        self._paused = True
        self._flow()

    def resume(self) -> None:
        """Read on after `pause`."""
        self._paused = False
        self._flow()

    def look(self, channel: str) -> None:
        """Take in now what has arrived there, rather than when the loop comes to it."""
        self._links[channel].look()

    def close(self) -> None:
        """Close every connection; what was not sent is dropped."""
        if self._closed:
            return
        self._closed = True
        if self._rest is not None:
            self._rest.cancel()
            self._rested()
        if self._hang_up is not None:
            self._hang_up.cancel()
        for link in self._links.values():
            link.close()
        for future in (self.subscribed, self.broken):
            if not future.done():
                future.cancel()

    def _flow(self) -> None:
        if self._closed:
            return
        reading = self._rest is None and not self.broken.done()
        for channel, link in self._links.items():
            link.flow(reading and not (self._paused and channel == "iopub"))

    def _take(self, channel: str, frames: list[bytes]) -> None:
        try:
            if not frames:
                self._waste()
                return
            message = self._signer.parse(frames)
            self._received = True
            if channel == "iopub" and self._is_welcome(message):
                return
            if self.receiver is None and channel == "shell":
                self._early = message
            if self.receiver is None or self.receiver(channel, message) is False:
                self._waste()
        except BadFrame as fault:
            self._break(fault)

    def _is_welcome(self, message: Message) -> bool:
        """Note the place in what is published; tell whether the message is for nobody else."""
        if message.type != "iopub_welcome":
            self.position += 1
            if self._awaited:
                self._waste()  # it comes again, in its place
            return bool(self._awaited)
        content = message.content if len(message.content_bytes) <= WELCOME else {}
        position = content.get("position")
        if isinstance(position, int) and 0 <= position < MOST_MESSAGES:
            self.position = position
        if self._awaited and content.get("subscription") == self._awaited.decode():
            self._awaited = b""
            if self._asks_again:
                try:
                    self.ask_again()
                except BlockingIOError:
                    raise BadFrame("it reads nothing of what it is sent") from None
        if self.subscribed.done():
            self._waste()
        else:
            self.subscribed.set_result(None)
        return True

    def _waste(self) -> None:
        now = self._loop.time()
        earned = self._credit + (now - self._credited) * CREDIT_PER_SECOND
        self._credit, self._credited = min(earned, CREDIT) - 1, now
        if self._credit < 0:
            raise BadFrame("a flood of messages that stand for nothing")

    def _break(self, fault: BadFrame) -> None:
        if not self.broken.done():
            self.broken.set_result(fault)
            self._flow()

    def _ended(self, channel: str, fault: BadFrame | None) -> None:
        if fault is not None:
            self._break(fault)
        elif self._hang_up is None:
            # A kernel that ends does this too, a moment before it is known how.
            gone = BadFrame(f"it closed its {channel} channel")
            self._hang_up = self._loop.call_later(self._patience, self._break, gone)

    def _worked(self, channel: str, seconds: float) -> None:
        if self._received:
            self._received = False
            if self.turned is not None:
                self.turned(channel)
        if seconds > LONG_TURN and self._rest is None and not self._closed:
            Channels._resting += 1
            alone = seconds * REST
            shared = min(alone * Channels._resting, SHARED_REST)
            self._rest = self._loop.call_later(max(alone, shared), self._rested)
            self._flow()

    def _rested(self) -> None:
        Channels._resting -= 1
        self._rest = None
        self._flow()
