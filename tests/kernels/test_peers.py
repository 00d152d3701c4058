"""The kernel's end of its connections: libzmq's clients, and writes that meet a full pipe."""

from __future__ import annotations

import asyncio
import errno
import resource
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from kernels.inside import peers, zmtp
from kernels.inside.doors import Doors
from kernels.inside.peers import MAX_UNREAD, Peer, Router
from kernels.inside.publish import FLUSH_AFTER, MAX_BATCH, Publisher
from kernels.inside.session import KernelSession
from kernels.inside.streams import CellStream, OutputBudget, Pending
from kernels.zmtp import Conversation as Client

PATIENCE = 20.0  # s


def shaken(kind: bytes = b"ROUTER", identity: bytes = b"me") -> zmtp.Conversation:
    conversation = zmtp.Conversation(kind)
    client = Client("DEALER", identity, -1)
    assert list(conversation.feed(client.answers())) == []
    client.feed(bytes(conversation.answers))
    client.next()
    assert list(conversation.feed(client.answers())) == []
    assert conversation.open
    assert conversation.identity == identity
    return conversation


PARTS = st.lists(st.binary(max_size=600), min_size=1, max_size=5)


@given(messages=st.lists(PARTS, max_size=5), cuts=st.lists(st.integers(1, 400), max_size=20))
def test_messages_arrive_as_sent_however_they_are_cut(
    messages: list[list[bytes]], cuts: list[int]
) -> None:
    conversation = shaken()
    data = b"".join(map(zmtp.packed, messages))
    received = []
    for cut in cuts:
        received += list(conversation.feed(data[:cut]))
        data = data[cut:]
    received += list(conversation.feed(data))
    assert received == messages


@given(data=st.binary(max_size=400), greeted=st.booleans())
def test_any_bytes_are_a_message_or_a_refusal(data: bytes, greeted: bool) -> None:
    conversation = shaken() if greeted else zmtp.Conversation(b"ROUTER")
    try:
        for message in conversation.feed(data):
            assert all(isinstance(part, bytes) for part in message)
    except (zmtp.BadPeer, IndexError):
        pass


def test_pings_are_answered_and_subscriptions_of_both_kinds_understood() -> None:
    conversation = shaken(b"XPUB")
    conversation.answers = bytearray()
    said = list(conversation.feed(zmtp.command(b"PING", b"\x00\x10context")))
    said += list(conversation.feed(zmtp.command(b"SUBSCRIBE", b"topic")))
    said += list(conversation.feed(zmtp.command(b"CANCEL", b"topic")))
    said += list(conversation.feed(zmtp.packed([b"\x01old"])))
    assert said == [[b"\x01topic"], [b"\x00topic"], [b"\x01old"]]
    assert conversation.answers == zmtp.command(b"PONG", b"context")


class Alarm(Exception):
    """Raised by a signal handler, wherever it strikes."""


class Threaded:
    """A loop on a thread of its own, as the control thread's is."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def call(self, function: Any, *args: Any) -> Any:
        async def call() -> Any:
            return function(*args)

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(PATIENCE)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(PATIENCE)
        self.loop.close()


@pytest.fixture
def control() -> Iterator[Threaded]:
    control = Threaded()
    yield control
    control.close()


@pytest.fixture
def session() -> KernelSession:
    session = KernelSession()
    session.begin(b"key")
    return session


class Recorder:
    """Stands for the shell's reader."""

    def __init__(self, control: Threaded) -> None:
        self.control = control
        self.came: list[list[bytes]] = []
        self.peers: list[Peer] = []
        self.changed = threading.Condition()

    def add(self, peer: Peer, messages: list[list[bytes]]) -> None:
        self.peers.append(peer)
        for message in messages:
            self.take(message)
        self.control.loop.add_reader(peer.socket, self.read, peer)

    def read(self, peer: Peer) -> None:
        messages = peer.receive()
        for message in messages or ():
            self.take(message)
        if messages is None:
            self.control.loop.remove_reader(peer.socket)

    def take(self, message: list[bytes]) -> None:
        with self.changed:
            self.came.append(message)
            self.changed.notify()

    def wait(self, count: int) -> list[list[bytes]]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.came) >= count, PATIENCE)
            return self.came


class House:
    """Open doors, and real clients of libzmq's before them."""

    def __init__(self, directory: Path, control: Threaded, session: KernelSession) -> None:
        self.publisher = Publisher()
        self.publisher.session = session
        self.publisher.start(control.loop, control.thread)
        self.shell, self.stdin, self.control = Router(self.publisher.flush), Router(), Router()
        self.requests, self.asked = Recorder(control), Recorder(control)
        self.doors = Doors(
            control.loop,
            routers={"shell": self.shell, "stdin": self.stdin, "control": self.control},
            publisher=self.publisher,
            requests=self.requests,  # type: ignore[arg-type]
            control=self.asked.take,
        )
        self.context = zmq.Context()
        self.clients: list[zmq.Socket[bytes]] = []
        self.thread = control
        self.directory = directory
        listeners = {}
        for channel in ("shell", "iopub", "stdin", "control"):
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(str(directory / channel))
            listener.listen()
            listeners[channel] = listener.detach()
        control.call(self.doors.open, listeners)

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.context.term()
        self.thread.call(self.doors.close)
        for peer in self.requests.peers:
            self.thread.call(peer.close)

    def client(self, channel: str, kind: int, **options: Any) -> zmq.Socket[bytes]:
        client = self.context.socket(kind)
        client.linger = 0
        client.rcvtimeo = client.sndtimeo = int(PATIENCE * 1000)
        for name, value in options.items():
            setattr(client, name, value)
        self.clients.append(client)
        client.connect(f"ipc://{self.directory / channel}")
        return client


@pytest.fixture
def house(tmp_path: Path, control: Threaded, session: KernelSession) -> Iterator[House]:
    house = House(tmp_path, control, session)
    yield house
    house.close()


def test_libzmqs_dealer_asks_and_is_answered(house: House) -> None:
    client = house.client("shell", zmq.DEALER, identity=b"me")
    client.send_multipart([b"question", b"x" * 70_000, b""])
    assert house.requests.wait(1) == [[b"question", b"x" * 70_000, b""]]
    house.shell.send_multipart([b"me", b"answer", b"y" * 300_000])
    assert client.recv_multipart() == [b"answer", b"y" * 300_000]


def test_who_comes_while_no_descriptor_is_left_is_taken_in_later(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries, tried = [], threading.Event()
    listen = house.doors._listen

    def count(*args: Any) -> None:
        tries.append(args)
        if len(tries) == 2:
            tried.set()
        listen(*args)

    monkeypatch.setattr(house.doors, "_listen", count)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))  # those that are open stay so
        try:
            client.connect(str(house.directory / "control"))
            assert tried.wait(PATIENCE)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert client.recv(64) == zmtp.GREETING


def test_who_comes_later_by_the_same_name_is_answered(house: House) -> None:
    for turn in (b"1", b"2"):
        client = house.client("shell", zmq.DEALER, identity=b"me")
        client.send(turn)
        house.requests.wait(int(turn))
        house.shell.send_multipart([b"me", turn])
        assert client.recv_multipart() == [turn]


def test_two_clients_without_a_name_are_two(house: House) -> None:
    clients = [house.client("control", zmq.DEALER) for _ in range(2)]
    for number, client in enumerate(clients):
        client.send(b"%d" % number)
    for name, word in house.asked.wait(2):
        house.control.send_multipart([name, word + word])
    assert [client.recv() for client in clients] == [b"00", b"11"]


def test_libzmqs_subscriber_is_welcomed_and_gets_its_topics(house: House) -> None:
    everything = house.client("iopub", zmq.SUB)
    everything.subscribe(b"")
    assert b"iopub_welcome" in everything.recv_multipart()[2]
    some = house.client("iopub", zmq.SUB)
    some.subscribe(b"stream.")
    assert b'"stream."' in some.recv_multipart()[-1]
    for topic in (b"status", b"stream.stdout", b"x" * 300):
        house.publisher.send_multipart([topic, b"body"])
    house.publisher.flush()
    got = [everything.recv_multipart()[0] for _ in range(3)]
    assert got == [b"status", b"stream.stdout", b"x" * 300]
    assert some.recv_multipart() == [b"stream.stdout", b"body"]
    some.unsubscribe(b"stream.")


def test_what_is_published_leaves_in_time_without_anybodys_help(house: House) -> None:
    client = house.client("iopub", zmq.SUB)
    client.subscribe(b"")
    client.recv_multipart()
    house.publisher.send_multipart([b"topic", b"body"])
    assert client.recv_multipart() == [b"topic", b"body"]
    assert FLUSH_AFTER <= 0.02


def test_a_reply_leaves_after_what_was_published_before_it(house: House) -> None:
    order: list[str] = []
    house.publisher.write = lambda: order.append("published")  # type: ignore[method-assign]
    house.shell.add(Saying(order))  # type: ignore[arg-type]
    house.publisher.peers = [Saying(order)]  # type: ignore[list-item]
    house.publisher.send_multipart([b"topic", b"body"])
    house.shell.send_multipart([b"me", b"reply"])
    assert order == ["published", "replied"]
    house.publisher.peers = []


class Saying:
    """A peer that says when it is written to."""

    unread = 0

    def __init__(self, order: list[str]) -> None:
        self.conversation = zmtp.Conversation(b"DEALER")
        self.conversation.identity = b"me"
        self.order = order

    def send(self, data: bytes) -> None:
        self.order.append("replied")


@pytest.fixture
def ends(control: Threaded) -> Iterator[tuple[Peer, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(PATIENCE)
    peer = Peer(ours, b"XPUB", control.loop)
    yield peer, theirs
    theirs.close()
    control.call(peer.close)


def read(theirs: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += theirs.recv(min(1 << 16, count - len(data)))
    return data


def test_what_a_full_socket_does_not_take_comes_later_and_whole(
    ends: tuple[Peer, socket.socket],
) -> None:
    peer, theirs = ends
    pieces = [bytes([number]) * 50_000 for number in range(40)]
    for piece in pieces:
        peer.send(piece)
    assert peer.unread > 0
    assert read(theirs, 2_000_000) == b"".join(pieces)
    peer.wait(0)
    assert peer.unread == 0


def test_a_writer_waits_while_too_much_is_unread(
    control: Threaded, ends: tuple[Peer, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    peer, theirs = ends
    publisher = Publisher()
    publisher.start(control.loop, control.thread)
    publisher.peers = [peer]
    peer.topics.add(b"")
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


def test_who_flushes_waits_for_text_that_another_thread_is_about_to_send(
    control: Threaded,
    ends: tuple[Peer, socket.socket],
    session: KernelSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    peer, theirs = ends
    publisher = Publisher()
    publisher.start(control.loop, control.thread)
    publisher.peers = [peer]
    peer.topics.add(b"")
    monkeypatch.setattr(CellStream, "pending", Pending())
    monkeypatch.setattr(CellStream, "budget", OutputBudget(0), raising=False)
    publisher.texts = CellStream.pending
    stream = CellStream(session, publisher, "stdout", watchfd=False)
    caught, go_on = threading.Event(), threading.Event()

    make = session.msg

    def hold(*args: Any, **options: Any) -> Any:
        caught.set()
        assert go_on.wait(PATIENCE)
        return make(*args, **options)

    monkeypatch.setattr(session, "msg", hold)
    stream.write("last words")
    other = threading.Thread(target=publisher.flush)
    other.start()
    assert caught.wait(PATIENCE)
    flushed = threading.Thread(target=stream.flush)
    flushed.start()
    flushed.join(0.1)  # time enough to fail; none is needed to pass
    assert flushed.is_alive()
    go_on.set()
    flushed.join(PATIENCE)
    other.join(PATIENCE)
    assert b"last words" in theirs.recv(1 << 16)


def test_the_text_of_a_muted_thread_is_dropped_whoever_sends_it(
    control: Threaded, ends: tuple[Peer, socket.socket]
) -> None:
    peer, theirs = ends
    publisher = Publisher()
    publisher.start(control.loop, control.thread)
    publisher.peers = [peer]
    peer.topics.add(b"")
    publisher.muted = threading.current_thread()
    control.call(publisher.enqueue_text, [b"topic", b"rehearsed"])
    publisher.send_multipart([b"topic", b"rehearsed"])
    publisher.muted = None
    control.call(publisher.enqueue_text, [b"topic", b"meant"])
    publisher.flush()
    assert theirs.recv(1 << 16) == zmtp.packed([b"topic", b"meant"])


class OnceRaising:
    """Stands for an object during whose next call a signal handler raises."""

    def __init__(self, what: Any, name: str) -> None:
        self._what = what
        self._name = name
        self._done = False

    def __getattr__(self, name: str) -> Any:
        if name == self._name and not self._done:
            self._done = True
            return self._strike
        return getattr(self._what, name)

    def _strike(self, *args: Any) -> None:
        raise Alarm


def test_a_handler_that_raises_as_a_full_socket_is_noticed_leaves_nothing_behind(
    ends: tuple[Peer, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    peer, theirs = ends
    monkeypatch.setattr(peer, "_loop", OnceRaising(peer._loop, "call_soon_threadsafe"))
    with pytest.raises(Alarm):
        peer.send(b"x" * 2_000_000)
    peer.send(b"end")
    assert read(theirs, 2_000_003).endswith(b"xend")


def test_a_handler_that_raises_as_the_timer_is_set_leaves_it_to_be_set(
    control: Threaded, ends: tuple[Peer, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    peer, theirs = ends
    publisher = Publisher()
    publisher.start(control.loop, control.thread)
    publisher.peers = [peer]
    peer.topics.add(b"")
    monkeypatch.setattr(publisher, "_timer", OnceRaising(publisher._timer, "set"))
    with pytest.raises(Alarm):
        publisher.enqueue_text([b"topic", b"one"])
    publisher.enqueue_text([b"topic", b"two"])
    sent = zmtp.packed([b"topic", b"one"]) + zmtp.packed([b"topic", b"two"])
    assert read(theirs, len(sent)) == sent  # nobody flushed


class Refusing:
    """Stands for a socket whose system has no memory for what is sent."""

    def __init__(self, real: socket.socket) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def send(self, data: bytes, flags: int) -> int:
        raise OSError(errno.ENOBUFS, "no buffer space available")


def test_who_cannot_be_written_to_sees_the_end(
    ends: tuple[Peer, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    peer, theirs = ends
    monkeypatch.setattr(peer, "socket", Refusing(peer.socket))
    peer.send(b"lost")
    theirs.settimeout(PATIENCE)
    assert theirs.recv(10) == b""
    assert peer.receive() is None
    monkeypatch.undo()


def test_a_signal_handler_that_raises_at_any_moment_breaks_no_message(
    control: Threaded, ends: tuple[Peer, socket.socket]
) -> None:
    peer, theirs = ends
    message = zmtp.packed([b"topic", b"x" * 3000])
    received = bytearray()

    def drain() -> None:
        while data := theirs.recv(1 << 16):
            received.extend(data)

    reader = threading.Thread(target=drain)
    reader.start()

    def strike(_: int, frame: FrameType | None) -> None:
        if frame is not None and frame.f_code.co_filename == peers.__file__:
            raise Alarm

    before = signal.signal(signal.SIGALRM, strike)
    struck = 0
    try:
        for turn in range(3000):
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-6 * (1 + turn % 60))
                for _ in range(10):
                    peer.send(message)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Alarm:
                struck += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    peer.push()
    peer.wait(0)
    peer.socket.shutdown(socket.SHUT_WR)
    reader.join(PATIENCE)
    assert struck > 100
    whole, rest = divmod(len(received), len(message))
    assert rest == 0
    assert received == message * whole


def test_a_large_batch_does_not_wait(control: Threaded, ends: tuple[Peer, socket.socket]) -> None:
    peer, theirs = ends
    publisher = Publisher()
    publisher.start(control.loop, control.thread)
    publisher.peers = [peer]
    peer.topics.add(b"")
    body = b"x" * (MAX_BATCH + 1)
    publisher.send_multipart([body])
    assert theirs.recv(10)  # no timer of 20 ms was needed: nothing is left to be flushed
    assert repr(publisher).endswith("0 messages gathered>")
