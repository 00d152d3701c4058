"""Peers of the channels that do not even speak the protocol, and those that speak too much."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kernels.channels import CREDIT, LONG_TURN, PORTS, SHARED_REST, Channels
from kernels.link import SEND_QUEUE, TURN
from kernels.messages import DELIMITER, Message, Signer
from kernels.zmtp import COMMAND, GREETING, LONG, MORE, Conversation, frame, packed, ready
from tests.kernels.raw_peer import KEY

# Peers that do not even speak the protocol


async def until(is_so: Callable[[], bool]) -> None:
    """Let the loop go round until something is so."""
    async with asyncio.timeout(30):
        for _ in itertools.repeat(None):
            if is_so():
                return
            await asyncio.sleep(0)


class Raw:
    """A listener for each channel that a test writes bytes to as it likes."""

    def __init__(self, prefix: Path) -> None:
        self.signer = Signer(KEY)
        self.listeners = {}
        self.accepted: dict[str, socket.socket] = {}
        for channel in ("shell", "control", "stdin", "iopub"):
            listener = self.listeners[channel] = socket.socket(socket.AF_UNIX)
            listener.bind(f"{prefix}-{PORTS[channel]}")
            listener.listen()

    def accept(self) -> None:
        for channel, listener in self.listeners.items():
            self.accepted[channel] = listener.accept()[0]

    def greet(self) -> None:
        self.accept()
        for channel, one in self.accepted.items():
            kind = "XPUB" if channel == "iopub" else "ROUTER"
            one.sendall(GREETING + ready(kind, b""))

    async def write(self, channel: str, data: bytes) -> None:
        """Write, until it is all gone or nobody reads any more."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await asyncio.to_thread(self.accepted[channel].sendall, data)

    def message(self, kind: str = "status", content: bytes = b"{}", parent: str = "") -> bytes:
        header = b'{"msg_type":"%s"}' % kind.encode()
        about = b'{"msg_id":"%s"}' % parent.encode()
        parts = [header, about, b"{}", content]
        return packed([b"topic", DELIMITER, self.signer.sign(parts), *parts])

    def close(self) -> None:
        for one in (*self.listeners.values(), *self.accepted.values()):
            one.close()


@pytest.fixture
def raw(directory: Path) -> Iterator[Raw]:
    raw = Raw(directory / "k")
    yield raw
    raw.close()


@pytest.fixture
async def hostile(directory: Path, raw: Raw):
    channels = Channels(directory / "k", KEY, "me", max_message=1 << 20, patience=0.05)
    raw.greet()
    yield channels
    channels.close()


MANY = 200_000


@pytest.mark.parametrize("channel", ["shell", "control", "stdin", "iopub"])
@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\xff" * 1000, "flags"),
        (frame(MORE, b"x" * 100_000) * 1000, "at most"),
        (frame(MORE, b"") * MANY, "parts"),
        (bytes([LONG]) + b"\x7f" * 8, "at most"),
        (frame(COMMAND, b"\x05ERROR\x00"), "ERROR"),
        (frame(COMMAND, b"\x04PING\0\0") * MANY, "stand for nothing"),
        (packed([b""]), "no delimiter"),
        (packed([b"x"] * 1000), "no delimiter"),
        (packed([DELIMITER, b"", b"{}", b"{}", b"{}", b"{}"]), "signature"),
    ],
    ids=["garbage", "unended", "parts", "size", "command", "pings", "empty", "frames", "unsigned"],
)
async def test_bytes_that_no_kernel_sends_break_the_channels(
    hostile: Channels, raw: Raw, channel: str, data: bytes, says: str
) -> None:
    writing = asyncio.ensure_future(raw.write(channel, data))
    fault = await asyncio.wait_for(hostile.broken, 10)
    assert says in str(fault)
    hostile.close()
    await writing


async def test_what_is_never_ended_takes_no_more_memory_than_one_message(
    hostile: Channels, raw: Raw
) -> None:
    part = frame(MORE, b"x" * 10_000)
    await raw.write("iopub", part * 100)
    await until(lambda: "1000000 B kept" in repr(hostile._links["iopub"]))
    assert not hostile.broken.done()
    await raw.write("iopub", part * 10)
    assert "at most" in str(await asyncio.wait_for(hostile.broken, 10))
    assert " 0 B kept" in repr(hostile._links["shell"])


async def test_another_protocol_is_found_out(directory: Path, raw: Raw) -> None:
    channels = Channels(directory / "k", KEY, "me")
    raw.accept()
    await raw.write("control", b"HTTP/1.1 400 Bad Request\r\n".ljust(64))
    assert "ZMTP" in str(await asyncio.wait_for(channels.broken, 10))
    channels.close()


async def test_a_flood_of_what_nobody_asked_for_breaks_the_channels(
    hostile: Channels, raw: Raw
) -> None:
    taken = 0

    def receive(channel: str, message: Message) -> bool:
        nonlocal taken
        taken += 1
        return False

    hostile.receiver = receive
    flood = raw.message("comm_msg") * (CREDIT + CREDIT // 5)
    writing = asyncio.ensure_future(raw.write("iopub", flood))
    fault = await asyncio.wait_for(hostile.broken, 60)
    assert "stand for nothing" in str(fault)
    assert CREDIT <= taken < CREDIT * 1.2
    hostile.close()
    await writing


async def test_as_many_messages_that_stand_for_something_break_nothing(
    hostile: Channels, raw: Raw
) -> None:
    count, taken = CREDIT + CREDIT // 5, 0
    done = asyncio.Event()

    def receive(channel: str, message: Message) -> None:
        nonlocal taken
        taken += 1
        if taken == count:
            done.set()

    hostile.receiver = receive
    await raw.write("iopub", raw.message("stream") * count)
    await asyncio.wait_for(done.wait(), 60)
    assert not hostile.broken.done()


async def test_requests_earn_what_their_answers_cost(hostile: Channels, raw: Raw) -> None:
    hostile.receiver = lambda channel, message: False
    hostile._credit = 0.0
    for _ in range(100):
        hostile.send("shell", "kernel_info_request", {})
    await raw.write("iopub", raw.message() * 1000 + raw.message("iopub_welcome"))
    await asyncio.wait_for(hostile.subscribed, 10)
    assert not hostile.broken.done()


async def test_answers_earn_nothing_or_a_kernel_would_live_off_its_own_questions(
    hostile: Channels, raw: Raw
) -> None:
    hostile.receiver = lambda channel, message: False
    hostile._credit = 0.0
    for _ in range(100):
        hostile.send("stdin", "input_reply", {"value": ""})
    await raw.write("iopub", raw.message() * 1000)
    fault = await asyncio.wait_for(hostile.broken, 10)
    assert "stand for nothing" in str(fault)


@pytest.mark.parametrize(
    ("receive", "says"),
    [(lambda _, message: message.content, "content"), (lambda *_: False, "stand for nothing")],
)
async def test_a_reply_that_came_early_is_held_to_what_all_are(
    directory: Path, raw: Raw, receive: Callable[[str, Message], bool | None], says: str
) -> None:
    channels = Channels(directory / "k", KEY, "me", identity="again")
    raw.greet()
    turns: list[str] = []
    try:
        await raw.write("shell", raw.message("execute_reply", b"no JSON"))
        await until(lambda: channels._early is not None)
        channels._credit = -CREDIT
        channels.receiver, channels.turned = receive, turns.append
        channels.catch_up(0)
        fault = await asyncio.wait_for(channels.broken, 10)
        assert says in str(fault)
        await until(lambda: turns == ["shell"])
    finally:
        channels.close()


async def test_a_kernel_that_hangs_up_and_lives_on_is_found_out(
    hostile: Channels, raw: Raw
) -> None:
    raw.accepted["stdin"].close()
    fault = await asyncio.wait_for(hostile.broken, 10)
    assert "closed its stdin channel" in str(fault)


async def test_one_that_hangs_up_as_it_ends_is_no_fault(directory: Path, raw: Raw) -> None:
    channels = Channels(directory / "k", KEY, "me")
    seen: list[str] = []
    over = asyncio.Event()

    def receive(channel: str, message: Message) -> None:
        seen.append(message.type)
        over.set()

    channels.receiver = receive
    raw.greet()
    await raw.write("iopub", raw.message("last_words"))
    raw.close()
    await asyncio.wait_for(over.wait(), 10)
    assert seen == ["last_words"]
    assert not channels.broken.done()
    channels.close()
    assert channels.broken.cancelled()


async def test_a_kernel_that_answers_and_never_reads_is_an_error(
    hostile: Channels, raw: Raw
) -> None:
    await raw.write("shell", raw.message("execute_reply"))

    def flood() -> None:
        for _ in range(100):
            hostile.send("shell", "execute_request", {"code": "x" * (SEND_QUEUE // 20)})

    with pytest.raises(BlockingIOError, match="reads no more"):
        flood()


async def test_what_it_reads_late_arrives_whole_and_in_order(hostile: Channels, raw: Raw) -> None:
    sent = [hostile.send("shell", "execute_request", {"code": "x" * 300_000 * n}) for n in range(5)]
    conversation = Conversation("ROUTER", b"", 64 << 20)
    got: list[str] = []
    while len(got) < len(sent):
        conversation.feed(await asyncio.to_thread(raw.accepted["shell"].recv, 1 << 20))
        while (message := conversation.next()) is not None:
            got.append(raw.signer.parse(message).header["msg_id"])
    assert got == sent


async def test_what_is_paused_waits_in_the_socket_and_then_comes(
    hostile: Channels, raw: Raw
) -> None:
    count, seen = 20_000, 0
    done = asyncio.Event()

    def receive(channel: str, message: Message) -> None:
        nonlocal seen
        seen += 1
        if channel == "control" or seen > count:
            done.set()

    hostile.receiver = receive
    hostile.pause()
    writing = asyncio.ensure_future(raw.write("iopub", raw.message("stream") * count))
    await raw.write("control", raw.message("interrupt_reply"))
    await asyncio.wait_for(done.wait(), 10)
    assert seen == 1
    assert not writing.done()  # no socket holds so much
    done.clear()
    hostile.resume()
    await asyncio.wait_for(done.wait(), 10)
    await writing


async def test_a_kernel_whose_messages_take_long_leaves_most_of_the_time_to_others(
    hostile: Channels, raw: Raw
) -> None:
    spent: list[float] = []

    def receive(channel: str, message: Message) -> None:
        until = time.monotonic() + 2 * LONG_TURN
        while time.monotonic() < until:
            pass
        spent.append(2 * LONG_TURN)

    hostile.receiver = receive
    for channel in ("iopub", "shell", "stdin"):
        await raw.write(channel, raw.message("stream") * 100)
    began = time.monotonic()
    await until(lambda: len(spent) >= 10)
    assert sum(spent) < 0.4 * (time.monotonic() - began)


async def test_kernels_that_take_long_rest_for_each_other(
    hostile: Channels, tmp_path: Path
) -> None:
    other = Channels(tmp_path / "k", KEY, "other")
    try:
        loop = asyncio.get_running_loop()
        hostile._worked("shell", 0.1)
        other._worked("shell", 0.1)
        assert hostile._rest is not None
        assert other._rest is not None
        alone, shared = (each._rest.when() - loop.time() for each in (hostile, other))
        assert shared > 1.9 * alone
        other._rest.cancel()
        other._rested()
        other._worked("shell", 0.2)  # whose double would be over the bound
        assert other._rest.when() - loop.time() <= SHARED_REST
    finally:
        hostile.close()
        other.close()
    assert Channels._resting == 0


async def test_many_small_messages_leave_the_loop_to_others_in_between(
    hostile: Channels, raw: Raw
) -> None:
    longest = 0.0
    seen, count = 0, 5000
    done = asyncio.Event()

    def receive(channel: str, message: Message) -> None:
        nonlocal seen
        seen += 1
        if seen == count:
            done.set()
        until = time.monotonic() + TURN / 20
        while time.monotonic() < until:
            pass

    hostile.receiver = receive
    await raw.write("iopub", raw.message("stream") * 500)
    writing = asyncio.ensure_future(raw.write("iopub", raw.message("stream") * 4500))
    began = time.thread_time()  # whoever else uses the machine adds nothing to it
    while not done.is_set():
        await asyncio.sleep(0)
        now = time.thread_time()
        longest, began = max(longest, now - began), now
    await writing
    assert longest < 10 * TURN


async def test_a_turn_ends_once_after_all_of_its_messages(hostile: Channels, raw: Raw) -> None:
    told: list[str] = []

    def receive(channel: str, message: Message) -> None:
        told.append(message.type)

    def turned(channel: str) -> None:
        told.append(f"end of {channel}")

    hostile.receiver, hostile.turned = receive, turned
    await raw.write("iopub", raw.message("one") + raw.message("two"))
    await until(lambda: len(told) >= 3)
    assert told == ["one", "two", "end of iopub"]


async def test_a_channel_that_is_looked_at_is_read_even_where_its_turn_is_to_come(
    hostile: Channels, raw: Raw
) -> None:
    """What was slow to take in is followed by a rest, and then by turns in the channels' order."""
    told: list[str] = []

    def receive(channel: str, message: Message) -> None:
        if message.type == "slow":
            time.sleep(1.5 * LONG_TURN)
        if channel == "stdin":
            hostile.look("iopub")
        told.append(message.type)

    hostile.receiver = receive
    await raw.write("iopub", raw.message("slow"))
    await until(lambda: told == ["slow"])
    await raw.write("iopub", raw.message("text"))
    await raw.write("stdin", raw.message("question"))
    await until(lambda: len(told) == 3)
    assert told == ["slow", "text", "question"]


async def test_a_channel_that_is_looked_at_is_read_in_the_same_turn(
    hostile: Channels, raw: Raw
) -> None:
    told: list[str] = []

    def receive(channel: str, message: Message) -> None:
        told.append(message.type)
        if channel == "iopub":  # written now, so that the loop cannot have come to it yet
            raw.accepted["shell"].sendall(raw.message("reply"))

    def turned(channel: str) -> None:
        if channel == "iopub":
            hostile.look("shell")
            hostile.look("shell")  # where there is nothing, nothing happens
        told.append(f"end of {channel}")

    hostile.receiver, hostile.turned = receive, turned
    await raw.write("iopub", raw.message("idle"))
    await until(lambda: len(told) >= 4)
    assert told == ["idle", "reply", "end of shell", "end of iopub"]
