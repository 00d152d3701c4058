"""What a kernel keeps for a broker that comes back: bounded, counted, and each message once."""

from __future__ import annotations

import json
from typing import Any

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from kernels.inside import zmtp
from kernels.inside.kept import AFTER, MOST_BYTES, MOST_MESSAGES, Kept, asked_after
from kernels.inside.peers import MAX_REPLY, Router
from tests.kernels.test_peers import House, house

__all__ = ["house"]  # the fixture


@given(st.lists(st.integers(1, MOST_BYTES // 2), max_size=40), st.integers(0, 60))
def test_what_is_gone_and_what_is_kept_are_all_there_was(sizes: list[int], had: int) -> None:
    kept = Kept()
    for number, size in enumerate(sizes):
        kept.add([b"%d" % number], size)
    lost, again = kept.since(had)
    assert lost + len(again) == max(0, len(sizes) - had)
    assert again == [[b"%d" % n] for n in range(len(sizes) - len(again), len(sizes))]
    assert sum(sizes[len(sizes) - len(again) :]) <= MOST_BYTES


def test_the_oldest_go_when_there_are_many() -> None:
    kept = Kept()
    for number in range(MOST_MESSAGES + 10):
        kept.add([b"%d" % number], 1)
    assert kept.since(0) == (10, [[b"%d" % n] for n in range(10, MOST_MESSAGES + 10)])
    kept.add([b"huge"], MOST_BYTES + 1)
    assert kept.since(0) == (MOST_MESSAGES + 11, [])


@pytest.mark.parametrize(
    ("topic", "count"),
    [(AFTER + b"12", 12), (AFTER, None), (b"", None), (b"12", None), (AFTER + b"9" * 30, None)],
)
def test_only_a_number_asks_for_what_was_before(topic: bytes, count: int | None) -> None:
    assert asked_after(topic) == count


def welcome_of(client: Any) -> dict[str, Any]:
    frames = client.recv_multipart()
    content: dict[str, Any] = json.loads(frames[-1])
    return content


def publish(house: House, *words: bytes) -> None:
    for word in words:
        house.publisher.send_multipart([b"stream", word])
    house.publisher.flush()


def test_what_was_said_to_nobody_is_told_to_who_asks_for_it_and_goes_on_in_order(
    house: House,
) -> None:
    first = house.client("iopub", zmq.SUB)
    first.subscribe(b"")
    assert welcome_of(first)["position"] == 0
    publish(house, b"1", b"2")
    assert [first.recv_multipart()[1] for _ in range(2)] == [b"1", b"2"]
    first.close()
    publish(house, b"3")
    second = house.client("iopub", zmq.SUB)
    second.subscribe(b"")
    assert welcome_of(second)["position"] == 3
    publish(house, b"4")
    assert second.recv_multipart()[1] == b"4"
    second.subscribe(AFTER + b"1")
    # What it was sent before comes again, behind a welcome that says where it begins.
    assert welcome_of(second)["position"] == 1
    publish(house, b"5")
    assert [second.recv_multipart()[1] for _ in range(4)] == [b"2", b"3", b"4", b"5"]


def test_what_did_not_fit_is_told_as_left_out(house: House) -> None:
    session = house.publisher.session
    publish(house, *(b"%d" % n for n in range(MOST_MESSAGES)))
    parent = session.msg("execute_request", {})
    frames = session.serialize(session.msg("stream", {"name": "stdout", "text": "x"}, parent))
    for _ in range(MOST_MESSAGES):
        house.publisher.send_multipart([b"stream", *frames])
    client = house.client("iopub", zmq.SUB)
    client.subscribe(b"")  # which libzmq looks at as well
    welcome_of(client)
    client.subscribe(AFTER + b"0")
    assert welcome_of(client)["position"] == MOST_MESSAGES - 1
    note = client.recv_multipart()
    assert b"1,000 messages left out" in note[-1]
    assert parent["header"]["msg_id"].encode() in note[-3]
    assert [client.recv_multipart()[-1] for _ in range(MOST_MESSAGES)] == [
        frames[-1] for _ in range(MOST_MESSAGES)
    ]


def test_a_new_request_has_what_was_before_it_forgotten(house: House) -> None:
    client = house.client("iopub", zmq.SUB)
    client.subscribe(b"")
    welcome_of(client)
    publish(house, b"old" * 1000)
    house.publisher.send_multipart([b"status", b"busy"])
    house.publisher.send_multipart([b"execute_input", b"code"])
    assert house.publisher._kept._bytes < 1000
    lost, again = house.publisher._kept.since(0)
    assert (lost, [each[1] for each in again]) == (1, [b"busy", b"code"])


class Listener:
    """A peer of a name that takes what it is sent."""

    def __init__(self, name: bytes) -> None:
        self.conversation = zmtp.Conversation(b"ROUTER")
        self.conversation.identity = name
        self.got: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.got.append(data)


def test_the_last_reply_goes_again_to_who_comes_by_the_same_name_alone() -> None:
    router = Router(keep=True)
    router.send_multipart([b"broker", b"first"])
    router.send_multipart([b"broker", b"last"])
    again, other = Listener(b"broker"), Listener(b"other")
    router.add(other)  # type: ignore[arg-type]
    router.add(again)  # type: ignore[arg-type]
    assert (len(again.got), b"last" in again.got[0], other.got) == (1, True, [])
    router.send_multipart([b"broker", b"x" * (MAX_REPLY + 1)])
    third = Listener(b"broker")
    router.add(third)  # type: ignore[arg-type]
    assert (len(again.got), third.got) == (2, [])
    nameless = Router(keep=True)
    nameless.send_multipart([b"\x00\x00\x00\x00\x01", b"reply"])
    late = Listener(b"")
    nameless.add(late)  # type: ignore[arg-type]
    assert late.got == []


def test_who_comes_again_while_a_reply_is_on_its_way_has_it() -> None:
    again = Listener(b"broker")

    class Meanwhile(dict[bytes, Any]):
        def get(self, name: bytes, default: Any = None) -> Any:
            found = super().get(name, default)
            if not self:
                router.add(again)  # type: ignore[arg-type]
            return found

    router = Router(keep=True)
    router._peers = Meanwhile()
    router.send_multipart([b"broker", b"reply"])
    assert again.got
    assert b"reply" in again.got[0]
