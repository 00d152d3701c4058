"""The sockets to one kernel, with a party on the other end that need not be honest."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernels.channels import Channels
from kernels.errors import BadFrame
from kernels.link import FRAMES_AT_ONCE
from kernels.messages import Message, Signer
from tests.kernels.raw_peer import KEY, Peer

WELCOME = {"subscription": ""}


@pytest.fixture
def peer(directory: Path) -> Iterator[Peer]:
    peer = Peer(directory / "k")
    yield peer
    peer.close()


@pytest.fixture
async def channels(directory: Path, peer: Peer):
    channels = Channels(directory / "k", KEY, "me", max_message=1 << 20)
    yield channels
    channels.close()


async def test_the_welcome_tells_that_we_are_subscribed(channels: Channels, peer: Peer) -> None:
    await peer.subscribed()
    assert not channels.subscribed.done()
    await peer.publish(*peer.frames("iopub_welcome", WELCOME))
    await asyncio.wait_for(channels.subscribed, 10)


async def test_each_message_comes_once_and_in_order(channels: Channels, peer: Peer) -> None:
    await peer.subscribed()
    count = FRAMES_AT_ONCE + 1
    seen: list[int] = []
    done = asyncio.Event()

    def receive(channel: str, message: Message) -> None:
        assert channel == "iopub"
        seen.append(message.content["n"])
        if len(seen) == count:
            done.set()

    channels.receiver = receive
    for number in range(count):
        peer.sockets["iopub"].send_multipart(peer.frames("stream", {"n": number}))
    await asyncio.wait_for(done.wait(), 10)
    assert seen == list(range(count))


async def test_a_kernel_is_told_to_ask_again_behind_what_it_publishes_again(
    directory: Path, peer: Peer
) -> None:
    channels = Channels(directory / "k", KEY, "me", identity="known")
    try:
        await peer.subscribed()
        channels.catch_up(5)
        channels.ask_again()
        channels.send("stdin", "something_else", {})
        topic = await asyncio.to_thread(peer.sockets["iopub"].recv)
        welcome = peer.frames("iopub_welcome", {"subscription": topic[1:].decode()})
        await peer.publish(topic[1:], *welcome)
        said = [await asyncio.to_thread(peer.sockets["stdin"].recv_multipart) for _ in range(2)]
        kinds = [peer.signer.parse(frames[1:]).type for frames in said]
        assert kinds == ["something_else", "broker_ask_again"]
    finally:
        channels.close()


async def test_requests_arrive_signed_and_replies_come_back(channels: Channels, peer: Peer) -> None:
    got: asyncio.Future[tuple[str, Message]] = asyncio.get_running_loop().create_future()
    channels.receiver = lambda channel, message: got.set_result((channel, message))
    msg_id = channels.send("shell", "execute_request", {"code": "1"}, metadata={"a": 1})
    identity, *frames = await asyncio.to_thread(peer.sockets["shell"].recv_multipart)
    request = peer.signer.parse(frames)
    assert (identity, request.header["msg_id"]) == (b"me", msg_id)
    assert request.metadata == {"a": 1}
    assert request.header["session"] == "me"
    peer.sockets["shell"].send_multipart([identity, *peer.frames("execute_reply", {"b": 2})])
    channel, message = await asyncio.wait_for(got, 10)
    assert (channel, message.content) == ("shell", {"b": 2})


def test_each_message_has_an_id_of_its_own(directory: Path) -> None:
    async def run() -> None:
        channels = Channels(directory / "k", KEY, "me")
        assert len({channels.next_id() for _ in range(100)}) == 100
        channels.close()
        channels.close()

    asyncio.run(run())


@pytest.mark.parametrize("fault", ["signature", "frames", "content"])
async def test_a_dishonest_message_breaks_the_channels_for_good(
    channels: Channels, peer: Peer, fault: str
) -> None:
    await peer.subscribed()
    seen: list[object] = []
    channels.receiver = lambda channel, message: seen.append(message.content)
    bad = {
        "signature": Signer(b"wrong").pack("status", {}, msg_id="", date="", session=""),
        "frames": [b"nothing", b"of ours"],
        "content": [
            b"<IDS|MSG>",
            peer.signer.sign([b"{}", b"{}", b"{}", b"[]"]),
            *(b"{}", b"{}", b"{}", b"[]"),
        ],
    }[fault]
    await peer.publish(*bad)
    await peer.publish(*peer.frames("status", {"after": True}))
    assert isinstance(await asyncio.wait_for(channels.broken, 10), BadFrame)
    assert seen == []


async def test_a_receivers_own_fault_loses_no_later_message(channels: Channels, peer: Peer) -> None:
    await peer.subscribed()
    reported: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: reported.append(context["exception"]))
    second: asyncio.Future[None] = loop.create_future()

    def receive(channel: str, message: Message) -> None:
        if message.type == "first":
            raise LookupError("of the receiver")
        second.set_result(None)

    channels.receiver = receive
    for kind in ("first", "second"):
        peer.sockets["iopub"].send_multipart(peer.frames(kind, {}))
    await asyncio.wait_for(second, 10)
    assert [str(fault) for fault in reported] == ["of the receiver"]


async def test_a_kernel_that_reads_nothing_is_an_error_and_not_a_wait(directory: Path) -> None:
    channels = Channels(directory / "nobody", KEY, "me")

    def flood() -> None:
        for _ in range(100_000):
            channels.send("shell", "execute_request", {})

    with pytest.raises(BlockingIOError, match="reads no more"):
        flood()
    channels.close()


async def test_closing_ends_the_waiting(directory: Path) -> None:
    channels = Channels(directory / "nobody", KEY, "me")
    channels.close()
    assert channels.subscribed.cancelled()
    assert channels.broken.cancelled()


async def test_a_kernel_that_listens_late_is_reached_all_the_same(directory: Path) -> None:
    channels = Channels(directory / "k", KEY, "me")
    msg_id = channels.send("shell", "kernel_info_request", {})
    await asyncio.sleep(0)
    peer = Peer(directory / "k")
    identity, *frames = await asyncio.to_thread(peer.sockets["shell"].recv_multipart)
    assert (identity, peer.signer.parse(frames).header["msg_id"]) == (b"me", msg_id)
    channels.close()
    peer.close()
