"""The relay between the broker's sockets and a program's own, with programs of a few lines."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from kernels.inside.relay import (
    CHUNK,
    LAST_DELAY,
    LAST_WORDS,
    MAX_CONNECTIONS,
    Connection,
    Relay,
)

PATIENCE = 20.0  # s
Act = Callable[[socket.socket], None]  # what a program does; it is given its listener


@dataclass
class Relayed:
    """A relay in a process of its own, and the test's end of everything it was given."""

    pid: int
    path: Path
    config: socket.socket
    said: int  # a pipe from the program to the test
    clients: list[socket.socket] = field(default_factory=list)
    status: int | None = None

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.settimeout(PATIENCE)
        client.connect(str(self.path))
        self.clients.append(client)
        return client

    def word(self) -> dict[str, object]:
        """Return what it told whoever waits for the program; {} if it told nothing."""
        data = self.config.recv(1 << 16)
        found: dict[str, object] = json.loads(data) if data else {}
        return found

    def hear(self) -> bytes:
        """Return what the program told the test."""
        assert select.select([self.said], [], [], PATIENCE)[0], "the program says nothing"
        return os.read(self.said, 1 << 16)

    def end(self) -> int:
        """Return the exit code of the relay, as in `subprocess`."""
        _, status = os.waitpid(self.pid, 0)
        self.status = os.waitstatus_to_exitcode(status)
        return self.status


Start = Callable[[Act], Relayed]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts a relay for a program; it is given its two listeners."""
    started: list[Relayed] = []

    def begin(act: Act) -> Relayed:
        listeners = {}
        for name in ("shell", "iopub"):
            listeners[name] = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listeners[name].bind(str(tmp_path / name))
            listeners[name].listen(256)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(PATIENCE)
        said, say = os.pipe()
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                _become(act, tmp_path, listeners, theirs, say)
            os._exit(99)
        theirs.close()
        os.close(say)
        for listener in listeners.values():
            listener.close()
        started.append(Relayed(pid, tmp_path / "shell", ours, said))
        return started[-1]

    yield begin
    for relayed in started:
        for each in (*relayed.clients, relayed.config):
            each.close()
        os.close(relayed.said)
        if relayed.status is None:
            for process in psutil.Process(relayed.pid).children():
                process.kill()
            os.kill(relayed.pid, signal.SIGKILL)
            os.waitpid(relayed.pid, 0)


def _become(
    act: Act, directory: Path, listeners: dict[str, socket.socket], config: socket.socket, say: int
) -> NoReturn:
    heard, words = os.pipe()
    waited = {signal.SIGCHLD, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    program = os.fork()
    if program == 0:
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, waited)
            os.setsid()
            os.dup2(words, 2)
            for listener in listeners.values():
                listener.close()
            config.close()
            os.dup2(say, 1)
            os.chdir(directory)
            act(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        finally:
            os._exit(0)
    os.close(words)
    os.close(say)
    addresses = {name: str(directory / f"{name}-of-program") for name in listeners}
    descriptors = {name: listener.detach() for name, listener in listeners.items()}
    Relay(descriptors, addresses, config, heard).serve(program)


def serving(listener: socket.socket) -> socket.socket:
    listener.bind("shell-of-program")
    listener.listen(256)
    return listener


def taken(client: socket.socket, count: int) -> bytes:
    """Return as many bytes, or those that came before the end."""
    got = b""
    while len(got) < count and (data := client.recv(count - len(got))):
        got += data
    return got


def say(text: str) -> None:
    os.write(1, text.encode())


def echo(listener: socket.socket) -> None:
    serve_echo(serving(listener))


def serve_echo(listener: socket.socket) -> NoReturn:
    """Send back what comes, on any number of connections, for ever."""
    connections = [listener]
    while True:
        for ready in select.select(connections, [], [])[0]:
            if ready is listener:
                connections.append(listener.accept()[0])
            elif data := ready.recv(4096):
                ready.sendall(data)
            else:
                connections.remove(ready)
                ready.close()


def test_bytes_go_both_ways_on_many_connections(start: Start) -> None:
    relayed = start(echo)
    clients = [relayed.connect() for _ in range(50)]
    for number, client in enumerate(clients):
        client.sendall(b"%02d" % number * 5000)
    for number, client in enumerate(clients):
        assert taken(client, 10_000) == b"%02d" % number * 5000


def test_it_says_ready_when_the_program_serves_and_what_came_before_is_kept(start: Start) -> None:
    gate, opener = os.pipe()

    def late(listener: socket.socket) -> None:
        say("up")
        os.read(gate, 1)
        echo(listener)

    relayed = start(late)
    client = relayed.connect()
    client.sendall(b"already")
    assert relayed.hear() == b"up"
    assert select.select([relayed.config], [], [], 0)[0] == []
    os.write(opener, b"!")
    assert relayed.word() == {"ready": True}
    assert client.recv(100) == b"already"
    for descriptor in (gate, opener):
        os.close(descriptor)


def test_a_client_that_has_said_all_still_hears_the_answer(start: Start) -> None:
    def answer(listener: socket.socket) -> None:
        connection, _ = serving(listener).accept()
        total = 0
        while data := connection.recv(1 << 16):
            total += len(data)
        connection.sendall(b"%d" % total)
        connection.close()
        signal.pause()

    client = start(answer).connect()
    client.sendall(b"x" * 500_000)
    client.shutdown(socket.SHUT_WR)
    assert client.recv(100) == b"500000"
    assert client.recv(100) == b""


def test_a_connection_that_the_program_closes_is_closed(start: Start) -> None:
    def turn_away(listener: socket.socket) -> None:
        serving(listener)
        while True:
            listener.accept()[0].close()

    relayed = start(turn_away)
    assert [relayed.connect().recv(1) for _ in range(5)] == [b""] * 5


def test_a_flood_that_nobody_reads_stops_at_the_program(start: Start) -> None:
    def flood(listener: socket.socket) -> None:
        serving(listener)
        connection, _ = listener.accept()
        connection.setblocking(False)
        total = 0
        while select.select([], [connection], [], 1)[1]:
            total += connection.send(b"x" * (1 << 20))
        say(str(total))
        serve_echo(listener)

    relayed = start(flood)
    unread = relayed.connect()
    sent = int(relayed.hear())
    assert sent < 4 << 20  # what two sockets hold, and a chunk
    other = relayed.connect()
    other.sendall(b"and nobody else waits")
    assert other.recv(100) == b"and nobody else waits"
    assert len(taken(unread, sent)) == sent


def test_more_clients_than_it_serves_at_once_wait_for_their_turn(start: Start) -> None:
    relayed = start(echo)
    clients = [relayed.connect() for _ in range(MAX_CONNECTIONS + 5)]
    for client in clients:
        client.sendall(b"here")
    for client in clients[:MAX_CONNECTIONS]:
        assert client.recv(4) == b"here"
    last = clients[-5:]
    assert select.select(last, [], [], 0)[0] == []
    for client in clients[:5]:
        client.close()
    assert [client.recv(4) for client in last] == [b"here"] * 5


def test_the_last_bytes_of_a_program_that_ends_arrive_and_so_does_its_status(start: Start) -> None:
    def leave(listener: socket.socket) -> None:
        connection, _ = serving(listener).accept()
        connection.sendall(b"x" * 100_000)
        os._exit(3)

    relayed = start(leave)
    client = relayed.connect()
    assert relayed.end() == 3
    assert len(taken(client, 200_000)) == 100_000


def test_it_ends_by_the_signal_that_ended_the_program(start: Start) -> None:
    relayed = start(lambda _: os.kill(os.getpid(), signal.SIGUSR2))
    assert relayed.end() == -signal.SIGUSR2


def test_an_unread_connection_does_not_keep_it_after_the_programs_end(start: Start) -> None:
    def fill_and_leave(listener: socket.socket) -> None:
        connection, _ = serving(listener).accept()
        connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                connection.send(b"x" * CHUNK)
        os._exit(4)

    relayed = start(fill_and_leave)
    relayed.connect()
    assert relayed.end() == 4


def test_the_end_before_serving_is_told_with_the_last_words(start: Start) -> None:
    def fail(_: socket.socket) -> None:
        os.write(2, b"?" * 100_000 + b"no library of that name")
        os._exit(7)

    relayed = start(fail)
    words = str(relayed.word()["last_words"])
    assert words.endswith("no library of that name")
    assert len(words) == LAST_WORDS
    assert relayed.end() == 7


def test_a_signal_reaches_the_program_and_what_it_started(start: Start) -> None:
    def family(_: socket.socket) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # it may come before the wait
        if os.fork():
            say("p")
        else:
            say("c")
        signal.sigwait({signal.SIGINT})
        say("i")
        os._exit(0)

    relayed = start(family)
    up = b""
    while len(up) < 2:
        up += relayed.hear()
    os.kill(relayed.pid, signal.SIGINT)
    told = b""
    while len(told) < 2:
        told += relayed.hear()
    assert told == b"ii"
    assert relayed.end() == 0


def test_attempts_to_reach_a_program_that_is_slow_to_serve_become_rare(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    connection = Connection(theirs, str(tmp_path / "nobody"))
    delays = []
    for _ in range(20):
        assert connection.dial()  # settled: there is nobody
        assert connection.due > 0
        delays.append(connection.delay)
    assert delays == sorted(delays)
    assert delays[-1] == LAST_DELAY
    for each in (ours, theirs):
        each.close()
