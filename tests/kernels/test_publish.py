"""What a kernel publishes: in order, in time, under a bound, whatever breaks in."""

from __future__ import annotations

import socket
import sys
import threading
import time
from typing import Any

import pytest

from kernels.inside import zmtp
from kernels.inside.budget import OutputBudget
from kernels.inside.peers import MAX_UNREAD, Peer
from kernels.inside.publish import MAX_BATCH, Publisher
from kernels.inside.session import KernelSession
from kernels.inside.streams import CellStream, Pending
from tests.kernels.wires import PATIENCE, Alarm, Raising, Threaded, publishing, read


def test_a_writer_waits_while_too_much_is_unread(
    control: Threaded, ends: tuple[Peer, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    peer, theirs = ends
    publisher = publishing(control, peer)
    peer.send(b"x" * (MAX_UNREAD + (1 << 20)))
    assert publisher.is_full
    waits, unread = threading.Event(), []
    wait = peer.wait

    def note(*args: Any) -> None:
        waits.set()
        wait(*args)
        unread.append(peer.unread)

    monkeypatch.setattr(peer, "wait", note)
    waiter = threading.Thread(target=publisher.wait_for_room)
    waiter.start()
    assert waits.wait(PATIENCE)
    assert unread == []
    read(theirs, MAX_UNREAD)
    waiter.join(PATIENCE)
    assert unread
    assert unread[0] <= MAX_UNREAD // 2


class Printing:
    """A stream whose text one thread is about to send, until it is told to go on."""

    def __init__(self, session: KernelSession, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(CellStream, "pending", Pending())
        monkeypatch.setattr(CellStream, "budget", OutputBudget(0), raising=False)
        monkeypatch.setattr(session, "msg", self._hold)
        self._make = KernelSession.msg.__get__(session)
        self._session = session
        self._caught = threading.Event()
        self.go_on = threading.Event()

    def begin(self, publisher: Publisher, text: str) -> CellStream:
        publisher.texts = CellStream.pending
        publisher._due_at = time.monotonic() + PATIENCE  # not by the one who writes
        stream = CellStream(self._session, publisher, "stdout", watchfd=False)
        stream.write(text)
        threading.Thread(target=publisher.flush).start()
        assert self._caught.wait(PATIENCE)
        return stream

    def _hold(self, *args: Any, **options: Any) -> Any:
        self._caught.set()
        assert self.go_on.wait(PATIENCE)
        return self._make(*args, **options)


@pytest.fixture
def printing(session: KernelSession, monkeypatch: pytest.MonkeyPatch) -> Printing:
    return Printing(session, monkeypatch)


def test_who_flushes_waits_for_text_that_another_thread_is_about_to_send(
    control: Threaded, ends: tuple[Peer, socket.socket], printing: Printing
) -> None:
    peer, theirs = ends
    stream = printing.begin(publishing(control, peer), "last words")
    flushing = threading.Thread(target=stream.flush)
    flushing.start()
    flushing.join(0.1)  # time enough to fail; none is needed to pass
    assert flushing.is_alive()
    printing.go_on.set()
    flushing.join(PATIENCE)
    assert b"last words" in theirs.recv(1 << 16)


def test_flushing_a_stream_hurries_what_may_be_a_cells_last_words(
    control: Threaded,
    ends: tuple[Peer, socket.socket],
    session: KernelSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(CellStream, "pending", Pending())
    monkeypatch.setattr(CellStream, "budget", OutputBudget(0), raising=False)
    peer, theirs = ends
    theirs.setblocking(False)
    publisher = publishing(control, peer)
    monkeypatch.setattr(publisher, "_timer", None)  # nothing leaves by itself
    publisher.texts = CellStream.pending
    stream = CellStream(session, publisher, "stdout", watchfd=False)
    publisher.send_multipart([b"status", b"busy"])
    stream.flush()
    with pytest.raises(BlockingIOError):
        theirs.recv(1 << 16)
    publisher._due_at = time.monotonic() + PATIENCE  # not by the one who writes
    stream.write("text")
    stream.flush()
    received = theirs.recv(1 << 16)
    assert received.index(b"busy") < received.index(b"text")
    publisher.send_multipart([b"execute_result", b"41"])
    stream.flush()
    with pytest.raises(BlockingIOError):
        theirs.recv(1 << 16)
    monkeypatch.setattr(CellStream, "patient", True)  # a cell flushes: these may be its last words
    stream.flush()
    assert b"41" in theirs.recv(1 << 16)
    publisher.send_multipart([b"status", b"idle"])
    stream.flush()
    with pytest.raises(BlockingIOError):
        theirs.recv(1 << 16)


@pytest.mark.parametrize("name", ["send_multipart", "flush", "flush_output"])
def test_what_is_on_its_way_is_not_broken_off(
    control: Threaded, ends: tuple[Peer, socket.socket], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    publisher = publishing(control, ends[0])
    found = []

    class Texts:
        def hand_over(self, *, whole: bool = False) -> None:
            found.append(publisher.is_sending(sys._getframe()))

    assert not publisher.is_sending(sys._getframe())
    monkeypatch.setattr(publisher, "texts", Texts())
    arguments = ([b"topic"],) if name == "send_multipart" else ()
    options = {"only_text": True} if name == "flush_output" else {}
    getattr(publisher, name)(*arguments, **options)
    assert found == [True]


def test_what_is_shown_comes_after_text_that_another_thread_is_about_to_send(
    control: Threaded, ends: tuple[Peer, socket.socket], printing: Printing
) -> None:
    peer, theirs = ends
    publisher = publishing(control, peer)
    printing.begin(publisher, "first")
    message = [b"display_data", b"second"]
    showing = threading.Thread(target=publisher.send_multipart, args=(message,))
    showing.start()
    showing.join(0.1)  # as above
    printing.go_on.set()
    received = b""
    while b"second" not in received:
        received += theirs.recv(1 << 16)
    assert b"first" in received[: received.index(b"second")]


def test_the_text_of_a_muted_thread_is_dropped_whoever_sends_it(
    control: Threaded, ends: tuple[Peer, socket.socket]
) -> None:
    peer, theirs = ends
    publisher = publishing(control, peer)
    publisher.muted = threading.current_thread()
    control.call(publisher.enqueue_text, [b"topic", b"rehearsed"])
    publisher.send_multipart([b"topic", b"rehearsed"])
    publisher.muted = None
    control.call(publisher.enqueue_text, [b"topic", b"meant"])
    publisher.flush()
    assert theirs.recv(1 << 16) == zmtp.packed([b"topic", b"meant"])


def test_a_handler_that_raises_as_the_timer_is_set_leaves_it_to_be_set(
    control: Threaded, ends: tuple[Peer, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    peer, theirs = ends
    publisher = publishing(control, peer)
    monkeypatch.setattr(publisher, "_timer", Raising(publisher._timer, "set"))
    with pytest.raises(Alarm):
        publisher.enqueue_text([b"topic", b"one"])
    publisher.enqueue_text([b"topic", b"two"])
    sent = zmtp.packed([b"topic", b"one"]) + zmtp.packed([b"topic", b"two"])
    assert read(theirs, len(sent)) == sent  # nobody flushed


def test_a_handler_that_raises_once_the_timer_is_set_keeps_nobody_busy(
    control: Threaded, ends: tuple[Peer, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    peer, theirs = ends
    publisher = publishing(control, peer)
    assert publisher._timer is not None
    descriptor, due = publisher._timer.descriptor, publisher._due
    calls = []

    def count() -> None:
        calls.append(due())

    control.call(control.loop.add_reader, descriptor, count)
    monkeypatch.setattr(publisher, "_timer", Raising(publisher._timer, "set", after=True))
    with pytest.raises(Alarm):
        publisher.enqueue_text([b"topic", b"text"])
    assert theirs.recv(100) == zmtp.packed([b"topic", b"text"])
    for _ in range(5):  # turns of the loop, each of which asks what is readable
        control.call(lambda: None)
    assert len(calls) == 1


def test_a_large_batch_does_not_wait(control: Threaded, ends: tuple[Peer, socket.socket]) -> None:
    peer, theirs = ends
    publisher = publishing(control, peer)
    body = b"x" * (MAX_BATCH + 1)
    publisher.send_multipart([body])
    assert theirs.recv(10)  # no timer of 20 ms was needed: nothing is left to be flushed
    assert repr(publisher).endswith("0 messages gathered>")
