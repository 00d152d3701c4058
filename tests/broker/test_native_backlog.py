"""What a client may have unread: so much, and what it has asked for again by coming back."""

from __future__ import annotations

from typing import Any

from broker.faults import Bounds
from broker.protocol import OpenQuery
from broker.tokens import Tokens
from broker.web.backlog import MOST_BACKLOGS, Backlog
from broker.web.native import NativeSocket
from broker.web.outbox import TEXT as TEXT_FRAME
from tests.broker.pool_fakes import on_manual_time
from tests.broker.session_fakes import FakeClient, Scene
from tests.broker.test_native import connected
from tests.broker.test_outbox import FakeStream

BACKLOG = 100_000
TEXT = "x" * 70_000  # a frame that is written at once


class Wire:
    """A WebSocket connection of which nobody reads anything."""

    selected_subprotocol = "broker.v1.msgpack"

    def __init__(self) -> None:
        self.stream = FakeStream(0)
        self.closed: list[int] = []

    def set_nodelay(self, value: bool) -> None: ...

    def is_closing(self) -> bool:
        return bool(self.closed)

    def close(self, code: int, reason: str) -> None:
        self.closed.append(code)


class Story(Scene):
    """A session that has said 700 kB and that another client follows; one comes back to it."""

    def __init__(self) -> None:
        super().__init__()
        self.submit("a")
        self.kernel.begin()
        for _ in range(10):
            self.say()
        self.wire = Wire()

    def say(self) -> None:
        self.kernel.say("iopub", "stream", {"name": "stdout", "text": TEXT})

    def come_back(self) -> NativeSocket:
        socket, house = connected()
        shared: Any = house
        shared.client_backlog, shared.bounds = BACKLOG, Bounds()
        shared.tokens = Tokens({})
        wire: Any = self.wire
        socket.ws_connection, socket.session, socket._attached = wire, self.session, False
        socket._query = OpenQuery(after=0)
        socket.open()
        return socket


@on_manual_time
async def test_what_a_client_has_asked_for_again_does_not_make_it_too_slow() -> None:
    story = Story()
    socket = story.come_back()
    assert story.wire.closed == []
    assert socket in story.session.audience.clients
    assert socket.backlog.outbox.unread > 10 * len(TEXT)
    story.say()
    assert story.wire.closed == []


@on_manual_time
async def test_what_comes_after_that_is_bounded_as_ever() -> None:
    story = Story()
    socket = story.come_back()
    before = socket.backlog.outbox.unread
    for _ in range(5):
        story.say()
        assert socket.backlog.outbox.unread < before + BACKLOG + 2 * len(TEXT)
    assert story.wire.closed == [4408]
    assert socket not in story.session.audience.clients


@on_manual_time
async def test_once_it_has_read_that_it_may_have_no_more_unread_than_others() -> None:
    story = Story()
    socket = story.come_back()
    while socket.backlog.outbox.unread:
        await story.wire.stream.take_all()
    for _ in range(2):
        story.say()
    assert story.wire.closed == []
    for _ in range(2):
        story.say()
    assert story.wire.closed == [4408]


@on_manual_time
async def test_the_kernel_is_held_for_one_who_comes_back_alone() -> None:
    story = Story()
    story.session.detach(story.client)
    socket = story.come_back()
    before = socket.backlog.outbox.unread
    for _ in range(3):
        story.say()
        assert socket.backlog.outbox.unread < before + BACKLOG + 2 * len(TEXT)
    assert story.session.audience.all_behind
    for _ in range(10):  # a kernel of another make is heard all the same
        story.say()
        assert socket.backlog.outbox.unread < before + (MOST_BACKLOGS + 1) * BACKLOG
    assert story.wire.closed == [4408]


@on_manual_time
async def test_a_connection_that_is_replaced_holds_nothing_back() -> None:
    scene, client, stream = Scene(), FakeClient(), FakeStream(0)
    session: Any = scene.session
    session.detach(scene.client)
    session.attach(client)
    writer: Any = stream
    backlog = Backlog(writer, TEXT_FRAME, BACKLOG, session.audience, client)
    backlog.bound()
    for _ in range(3):
        assert backlog.put(TEXT.encode())
        backlog.outbox.flush()
    assert session.pace()
    backlog.part()
    assert not session.pace()
