"""The asyncio client against the same scripted peer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest

from broker.client import (
    AsyncBroker,
    ConnectionLost,
    NoServer,
    NotRunning,
    SessionGone,
    Unauthorized,
)
from broker.client.door import Door
from broker.client.find import Place
from broker.client.stay import Stay
from tests.broker.scripted_peer import Peer, running_peer

ANSWER = [{"type": "result", "data": {"text/plain": "42"}}]


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running_peer() as scripted:
        yield scripted


async def test_execute_stream_and_interrupt(peer: Peer) -> None:
    peer.answers |= {"x": ANSWER, "forever": [{"type": "started"}, {"do": "wait"}]}
    async with AsyncBroker(peer.url, peer.token).session("a") as session:
        seen: list[str] = []
        result = await session.execute("x", on_event=lambda event: seen.append(event["type"]))
        assert (result.value, result.state, result.generation) == ("42", "fresh", 1)
        assert seen == ["session", "result", "done"]
        kinds = []
        async for event in session.stream("forever"):
            kinds.append(event["type"])
            if event["type"] == "started":
                await session.interrupt()
        assert kinds == ["started", "done"]
        with pytest.raises(NotRunning):
            await session.interrupt()
        await session.ping()
        assert await session.restart() == {"generation": 2}
        assert (await session.execute("x")).state == "lost"
        await session.close()


async def test_executions_of_several_tasks_each_get_their_own_events(peer: Peer) -> None:
    peer.answers |= {
        str(n): [{"type": "result", "data": {"text/plain": str(n)}}] for n in range(20)
    }
    async with AsyncBroker(peer.url, peer.token).session("a") as session:
        results = await asyncio.gather(*(session.execute(str(n)) for n in range(20)))
    assert [result.value for result in results] == [str(n) for n in range(20)]


async def test_a_cancelled_wait_leaves_the_session_usable(peer: Peer) -> None:
    peer.answers |= {"x": ANSWER, "forever": [{"do": "wait"}]}
    async with AsyncBroker(peer.url, peer.token).session("a") as session:
        task = asyncio.create_task(session.execute("forever"))
        await asyncio.to_thread(peer.wait_for, "execute")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await session.execute("x")).value == "42"


@pytest.mark.parametrize("kind", ["execute", "batch", "call"])
async def test_what_is_cancelled_is_interrupted_or_does_not_begin(peer: Peer, kind: str) -> None:
    peer.answers["forever"] = [{"do": "wait"}]
    async with AsyncBroker(peer.url, peer.token).session("a") as session:
        asking = {
            "execute": lambda: session.execute("forever"),
            "batch": lambda: session.batch(["forever", "forever"]),
            "call": lambda: session.call("forever"),
        }[kind]()
        task = asyncio.create_task(asyncio.wait_for(asking, 60))
        await asyncio.to_thread(peer.wait_for, kind)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    # The session is let go of at once, and they are told all the same.
    await asyncio.to_thread(peer.wait_for, "interrupt")
    asked, *told = [(one["type"], one.get("target") or one["id"]) for one in peer.requests]
    assert told == [("cancel", asked[1]), ("interrupt", asked[1])]


class Deaf:
    """A server that takes requests and never answers; `gone` tells that a client has hung up."""

    def __init__(self) -> None:
        self.asked, self.gone = asyncio.Event(), asyncio.Event()
        self.heard = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            self.heard += data
            if b"}" in data:
                self.asked.set()
        writer.close()
        self.gone.set()


@pytest.fixture
async def deaf() -> AsyncIterator[tuple[Deaf, str]]:
    deaf = Deaf()
    async with await asyncio.start_server(deaf.serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield deaf, f"http://{host}:{port}"


@pytest.mark.parametrize("kind", ["execute", "call"])
async def test_a_one_shot_whose_waiting_is_cancelled_hangs_up_so_that_it_ends(
    deaf: tuple[Deaf, str], kind: str
) -> None:
    server, url = deaf
    broker = AsyncBroker(url, "a token")
    asking = broker.execute("1") if kind == "execute" else broker.call("lambda: 1")
    task = asyncio.create_task(asyncio.wait_for(asking, 60))
    async with asyncio.timeout(30):
        await server.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.gone.wait()


async def test_what_is_left_before_there_is_a_connection_asks_for_nothing(
    deaf: tuple[Deaf, str],
) -> None:
    server, url = deaf
    stay = Stay()
    stay.leave()
    door = Door(Place(url, "a token"))
    with pytest.raises(ConnectionLost):
        await asyncio.to_thread(door.execute, "1", None, None, stay=stay)
    async with asyncio.timeout(30):
        await server.gone.wait()
    assert server.heard == b""


async def test_an_outage_is_logged_once_and_not_before_an_attempt_has_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with running_peer() as peer:
        session = AsyncBroker(peer.url, peer.token).session("a", reconnect=0.5)
        await session.attach()
        assert caplog.messages == []
    with pytest.raises(NoServer):  # at the end of the attempts, or at once when they are over
        await session.execute("x")
    await session.detach()
    (told,) = [one for one in caplog.messages if "trying again" in one]
    assert told.startswith(f"no broker answers at {peer.url}: ")
    assert told.endswith("; trying again for up to 0.5 s")


class Clogged:
    """A socket that has taken a frame, and waits for room."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []
        self.waits = asyncio.Event()

    async def send(self, frame: str) -> None:
        message = json.loads(frame)
        self.sent.append((message["type"], message.get("target") or message["id"]))
        if message["type"] not in ("cancel", "interrupt"):
            self.waits.set()
            await asyncio.Event().wait()


@pytest.mark.parametrize("kind", ["execute", "batch", "call", "ping", "stream"])
async def test_what_is_cancelled_while_it_is_sent_is_told_so_likewise(kind: str) -> None:
    socket, session = Clogged(), AsyncBroker("http://127.0.0.1:1", "t").session("a")
    session._line._reader = asyncio.create_task(asyncio.Event().wait())  # type: ignore[arg-type]
    session._line.link.connected(socket, None, again=False)
    asking = {
        "execute": lambda: session.execute("1"),
        "batch": lambda: session.batch(["1"]),
        "call": lambda: session.call("f"),
        "ping": session.ping,
        "stream": lambda: anext(session.stream("1")),
    }[kind]()
    task = asyncio.ensure_future(asking)
    await asyncio.wait_for(socket.waits.wait(), 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (_, name), *told = socket.sent
    abandoned = kind in ("execute", "batch", "call")
    assert told == ([("cancel", name), ("interrupt", name)] if abandoned else [])
    assert name not in session._line.link._open
    session._line._reader.cancel()


async def test_a_stream_that_is_left_goes_on(peer: Peer) -> None:
    peer.answers["forever"] = [{"type": "started"}, {"do": "wait"}]
    async with AsyncBroker(peer.url, peer.token).session("a") as session:
        async with aclosing(session.stream("forever")) as coming:
            async for _ in coming:
                break
        await session.ping()
    assert [one["type"] for one in peer.requests] == ["execute", "ping"]


async def test_a_lost_connection_is_typed_and_made_anew(peer: Peer) -> None:
    peer.answers |= {"x": ANSWER, "gone": [{"do": "close", "code": 4404, "reason": "idle"}]}
    async with AsyncBroker(peer.url, peer.token).session("a") as session:
        with pytest.raises(SessionGone, match="idle"):
            await session.execute("gone")
        assert (await session.execute("x")).value == "42"


async def test_http_calls_and_refusals(peer: Peer) -> None:
    peer.http[("GET", "/v1/sessions")] = (200, {"sessions": [{"session": "a"}], "next": None})
    peer.http[("DELETE", "/v1/sessions/a")] = (200, {"session": "a"})
    broker = AsyncBroker(peer.url, peer.token)
    assert await broker.sessions() == [{"session": "a"}]
    assert await broker.kill("a") == {"session": "a"}
    with pytest.raises(Unauthorized):
        await AsyncBroker(peer.url, "no").session("a").attach()
    with pytest.raises(NoServer):
        await AsyncBroker("http://127.0.0.1:1", "no").session("a").attach()
