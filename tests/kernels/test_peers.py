"""The kernel's end of its connections: libzmq's clients, and writes that meet a full pipe."""

from __future__ import annotations

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
from kernels.inside.peers import Peer, Router
from kernels.inside.publish import FLUSH_AFTER, Publisher
from kernels.inside.session import KernelSession
from kernels.zmtp import Conversation as Client
from tests.kernels.wires import PATIENCE, Alarm, Raising, Threaded, read


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


class Answers:
    """Who comes to the stdin channel, and goes."""

    def __init__(self) -> None:
        self.there: set[bytes] = set()
        self.join, self.lose = self.there.add, self.there.discard


class House:
    """Open doors, and real clients of libzmq's before them."""

    def __init__(self, directory: Path, control: Threaded, session: KernelSession) -> None:
        self.publisher = Publisher()
        self.publisher.session = session
        self.publisher.start(control.loop, control.thread)
        self.shell, self.stdin, self.control = Router(self.publisher.flush), Router(), Router()
        self.requests, self.asked = Recorder(control), Recorder(control)
        self.asking = Answers()
        self.doors = Doors(
            control.loop,
            routers={"shell": self.shell, "stdin": self.stdin, "control": self.control},
            publisher=self.publisher,
            requests=self.requests,  # type: ignore[arg-type]
            control=self.asked.take,
            asking=self.asking,  # type: ignore[arg-type]
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
    house.publisher.write = lambda: order.append("published")
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


def test_a_handler_that_raises_as_a_full_socket_is_noticed_leaves_nothing_behind(
    ends: tuple[Peer, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    peer, theirs = ends
    monkeypatch.setattr(peer, "_loop", Raising(peer._loop, "call_soon_threadsafe"))
    with pytest.raises(Alarm):
        peer.send(b"x" * 2_000_000)
    peer.send(b"end")
    assert read(theirs, 2_000_003).endswith(b"xend")


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


class Late(TimeoutError):
    """What cells raise from their alarms: an OSError, as that of a closed socket is."""


@pytest.mark.parametrize("error", [Alarm, Late])
def test_a_signal_handler_that_raises_at_any_moment_breaks_no_message(
    ends: tuple[Peer, socket.socket], error: type[Exception]
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
            raise error

    before = signal.signal(signal.SIGALRM, strike)
    struck = 0
    try:
        for turn in range(3000):
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-6 * (1 + turn % 60))
                for _ in range(10):
                    peer.send(message)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except error:
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
